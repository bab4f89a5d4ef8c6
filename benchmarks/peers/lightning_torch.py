"""One of tandem's networks under Lightning's Trainer. Run by torchrun.

Usage: torchrun --nproc_per_node N -m benchmarks.peers.lightning_torch DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints one JSON line: when each epoch ended, in seconds since 1970.
"""

import json
import logging
import os
import sys
import time

import lightning
import numpy as np
import torch
from torch.nn import functional as F

from trainers.torch.models import build_model

path, name, batch_size, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(threads)
logging.getLogger("lightning").setLevel(logging.ERROR)
world_size = int(os.environ.get("WORLD_SIZE", "1"))
data = np.load(path)
pixels = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2).float() / 127.5 - 1
dataset = torch.utils.data.TensorDataset(pixels, torch.from_numpy(data["y_train"]))
loader = torch.utils.data.DataLoader(
    dataset, batch_size=batch_size // world_size, shuffle=True, drop_last=True
)


class Classifier(lightning.LightningModule):
    """The network, its loss and its optimizer."""

    def __init__(self):
        super().__init__()
        self.model = build_model(name, tuple(data["x_train"].shape[1:]), 10)
        self.epoch_ends = []

    def training_step(self, batch):
        """Loss of one batch."""
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        """Adam, fused."""
        return torch.optim.Adam(self.parameters(), lr=0.001, fused=True)

    def on_train_epoch_end(self):
        """Note the time."""
        self.epoch_ends.append(time.time())


classifier = Classifier()
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=world_size,
    strategy="ddp" if world_size > 1 else "auto",
    max_epochs=epochs,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(classifier, loader)
if trainer.is_global_zero:
    print(json.dumps({"epoch_ends": classifier.epoch_ends}), flush=True)
