"""PyTorch Lightning under Ray Train: its strategy, environment and report callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import ray.train
import ray.train.lightning as ray_lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    """A multilayer perceptron."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """The accuracy on a batch."""
        images, labels = batch
        accuracy = (self.layers(images).argmax(1) == labels).float().mean()
        self.log("val_accuracy", accuracy, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train calls this on every worker."""
    images, labels = load_digits(return_X_y=True)
    examples = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    train_set, validation_set = torch.utils.data.random_split(
        examples, [0.8, 0.2], generator=torch.Generator().manual_seed(0)
    )
    trainer = pl.Trainer(
        max_epochs=config["epochs"],
        accelerator="auto",
        devices="auto",
        strategy=ray_lightning.RayDDPStrategy(),
        plugins=[ray_lightning.RayLightningEnvironment()],
        callbacks=[ray_lightning.RayTrainReportCallback()],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer = ray_lightning.prepare_trainer(trainer)
    loaders = (
        DataLoader(train_set, batch_size=config["batch_size"], shuffle=True),
        DataLoader(validation_set, batch_size=256),
    )
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        trainer.fit(Digits(config["lr"]), *loaders)
        return
    with checkpoint.as_directory() as directory:
        trainer.fit(Digits(config["lr"]), *loaders, ckpt_path=str(Path(directory) / "checkpoint.ckpt"))
