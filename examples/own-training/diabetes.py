"""Regression on a table: Ray Data shards the rows over the workers, PyTorch trains, and predictions are handed over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import ray.train
import ray.train.torch
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn


def datasets() -> dict[str, ray.data.Dataset]:
    """The rows of scikit-learn's diabetes data, with standardized targets."""
    features, targets = load_diabetes(return_X_y=True, scaled=True)
    features, targets = features.astype(np.float32) * 20, ((targets - 152) / 77).astype(np.float32)
    x, x_test, y, y_test = train_test_split(features, targets, test_size=0.25, random_state=0)
    return {
        "train": ray.data.from_numpy_refs([ray.put(np.column_stack([x, y]))]),
        "test": ray.data.from_numpy_refs([ray.put(np.column_stack([x_test, y_test]))]),
    }


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train calls this on every worker."""
    shard = ray.train.get_dataset_shard("train")
    test = ray.train.get_dataset_shard("test")
    model: nn.Module = nn.Sequential(
        nn.Linear(10, config["hidden"]), nn.Tanh(), nn.Linear(config["hidden"], 1)
    )
    model = ray.train.torch.prepare_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    for epoch in range(config["epochs"]):
        model.train()
        for batch in shard.iter_torch_batches(batch_size=config["batch_size"], local_shuffle_buffer_size=400):
            rows = batch["data"]
            loss = nn.functional.mse_loss(model(rows[:, :-1])[:, 0], rows[:, -1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        model.eval()
        with torch.no_grad():
            rows = torch.cat([batch["data"] for batch in test.iter_torch_batches(batch_size=256)])
            predictions = model(rows[:, :-1])[:, 0]
        error = nn.functional.mse_loss(predictions, rows[:, -1]).sqrt().item()
        is_last = epoch == config["epochs"] - 1
        with tempfile.TemporaryDirectory() as directory:
            np.savez(
                Path(directory) / "predictions.npz",
                predictions=predictions.numpy(),
                labels=rows[:, -1].numpy(),
            )
            is_first = ray.train.get_context().get_world_rank() == 0
            kept = ray.train.Checkpoint.from_directory(directory) if is_last and is_first else None
            ray.train.report({"rmse": error, "train_loss": loss.item()}, checkpoint=kept)
