"""One of tandem's networks under Hugging Face Accelerate, as its quick tour has it. Run by torchrun.

Usage: torchrun --nproc_per_node N -m benchmarks.peers.accelerate_torch DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints one JSON line: when each epoch ended, in seconds since 1970.
"""

import json
import sys
import time

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from trainers.torch.models import build_model

path, name, batch_size, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(threads)
accelerator = Accelerator(cpu=True)
data = np.load(path)
pixels = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2).float() / 127.5 - 1
dataset = torch.utils.data.TensorDataset(pixels, torch.from_numpy(data["y_train"]))
loader = torch.utils.data.DataLoader(
    dataset, batch_size=batch_size // accelerator.num_processes, shuffle=True, drop_last=True
)
model = build_model(name, tuple(data["x_train"].shape[1:]), 10)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
epoch_ends = []
for _ in range(epochs):
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        accelerator.backward(loss)
        optimizer.step()
    epoch_ends.append(time.time())
if accelerator.is_main_process:
    print(json.dumps({"epoch_ends": epoch_ends}), flush=True)
accelerator.end_training()
