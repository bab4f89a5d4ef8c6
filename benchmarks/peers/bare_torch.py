"""A bare PyTorch loop on one of tandem's networks: Adam, no Ray. Under torchrun, with DDP.

Usage: python bare_torch.py DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints a JSON line after each epoch: images/s of each over all processes, and when each ended.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from trainers.torch.models import build_model

path, name, batch_size, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(threads)
world_size = int(os.environ.get("WORLD_SIZE", "1"))
rank = int(os.environ.get("RANK", "0"))
data = np.load(path)
pixels = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2).float() / 127.5 - 1
images = pixels.to(memory_format=torch.channels_last)
labels = torch.from_numpy(data["y_train"])

model = build_model(name, tuple(data["x_train"].shape[1:]), 10).to(memory_format=torch.channels_last)
if world_size > 1:
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
share = batch_size // world_size
speeds, ends = [], []
for epoch in range(epochs):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
    start = time.perf_counter()
    for first in range(0, len(order) - batch_size + 1, batch_size):
        mine = order[first + rank * share : first + (rank + 1) * share]
        loss = F.cross_entropy(model(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    speeds.append(len(order) // batch_size * batch_size / (time.perf_counter() - start))
    ends.append(time.time())
    if rank == 0:
        print(json.dumps({"images_per_second": speeds, "ended_at": ends}), flush=True)
if world_size > 1:
    dist.barrier()
    dist.destroy_process_group()
