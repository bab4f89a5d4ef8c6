"""A training function under a plain script of Ray Train: the function that tandem trains as an arm, too.

Usage: python -m benchmarks.peers.own_training ARCHIVE BATCH_SIZE EPOCHS THREADS TIMES. The function appends the time of
every report, in seconds since the epoch, to the file TIMES.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_loop(config: dict[str, Any]) -> None:
    """PyTorch as Ray Train's guide writes it."""
    torch.set_num_threads(config["threads"])
    with np.load(config["archive"]) as arrays:
        images, labels = arrays["x_train"], arrays["y_train"]
    scaled = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32) / 127.5 - 1
    loader = DataLoader(
        TensorDataset(scaled, torch.tensor(labels)), batch_size=config["batch_size"], shuffle=True
    )
    loader = ray.train.torch.prepare_data_loader(loader)
    model: nn.Module = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    model = ray.train.torch.prepare_model(model)
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(config["epochs"]):
        for batch, targets in loader:
            loss = nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with Path(config["times"]).open("a") as times:
            times.write(f"{time.time()}\n")
        with tempfile.TemporaryDirectory() as directory:
            torch.save({"model": model.state_dict(), "epoch": epoch}, Path(directory) / "state.pt")
            checkpoint = ray.train.Checkpoint.from_directory(directory)
            ray.train.report({"train_loss": loss.item()}, checkpoint=checkpoint)


def main() -> None:
    """Train once, with Ray started for it."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    archive, batch_size, epochs, threads, times = sys.argv[1:]
    config = {
        "archive": archive,
        "batch_size": int(batch_size),
        "epochs": int(epochs),
        "threads": int(threads),
        "times": times,
    }
    with tempfile.TemporaryDirectory() as storage:
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": int(threads)}),
            run_config=RunConfig(name="plain", storage_path=storage),
        ).fit()
    print("{}")


if __name__ == "__main__":
    main()
