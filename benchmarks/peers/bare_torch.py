"""A PyTorch loop on one of tandem's networks, as its tutorials write it: Adam, no Ray. Under torchrun, with DDP.

Usage: python -m benchmarks.peers.bare_torch DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints one JSON line: when each epoch ended, in seconds since 1970.
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
pixels, labels = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"])

model = build_model(name, tuple(pixels.shape[1:]), 10).to(memory_format=torch.channels_last)
if world_size > 1:
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
share = batch_size // world_size
epoch_ends = []
for epoch in range(epochs):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
    running_loss = 0.0
    for first in range(0, len(order), batch_size):
        mine = order[first + rank * share : first + (rank + 1) * share]
        images = pixels[mine].permute(0, 3, 1, 2).float() / 127.5 - 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels[mine])
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    epoch_ends.append(time.time())
if rank == 0:
    print(json.dumps({"epoch_ends": epoch_ends}), flush=True)
if world_size > 1:
    dist.barrier()
    dist.destroy_process_group()
