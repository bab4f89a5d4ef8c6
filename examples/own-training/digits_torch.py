"""A small convolutional network on scikit-learn's digits, with checkpoints: PyTorch as Ray Train's guide writes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def split() -> tuple[TensorDataset, TensorDataset]:
    """Digits of 8x8 pixels, the same split in every run."""
    images, labels = load_digits(return_X_y=True)
    tensors = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    return TensorDataset(*(part[train] for part in tensors)), TensorDataset(*(part[test] for part in tensors))


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train calls this on every worker."""
    train_set, test_set = split()
    model: nn.Module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(config.get("dropout", 0.0)),
        nn.Linear(512, 10),
    )
    model = ray.train.torch.prepare_model(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    workers = ray.train.get_context().get_world_size()
    loader = DataLoader(train_set, batch_size=config["batch_size"] // workers, shuffle=True)
    loader = ray.train.torch.prepare_data_loader(loader)

    first_epoch = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            kept = torch.load(Path(directory) / "state.pt")
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        first_epoch = kept["epoch"] + 1

    for epoch in range(first_epoch, config["epochs"]):
        if workers > 1:
            loader.sampler.set_epoch(epoch)
        model.train()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        model.eval()
        images, labels = test_set.tensors
        with torch.no_grad():
            probabilities = model(images).softmax(1)
        accuracy = (probabilities.argmax(1) == labels).float().mean().item()
        with tempfile.TemporaryDirectory() as directory:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, Path(directory) / "state.pt")
            np.savez(
                Path(directory) / "predictions.npz", predictions=probabilities.numpy(), labels=labels.numpy()
            )
            # Every worker has the same weights; rank 0 reports the checkpoint.
            is_first = ray.train.get_context().get_world_rank() == 0
            ray.train.report(
                {"test_accuracy": accuracy, "train_loss": loss.item()},
                checkpoint=ray.train.Checkpoint.from_directory(directory) if is_first else None,
            )
