"""kuberay, pytorch-text-classifier: Lightning with Ray's strategy, environment and callback on Ray Data shards."""

import os

import lightning.pytorch as pl
import numpy as np
import ray.data
import ray.train
import torch
import torch.nn.functional as F
from ray.train.lightning import (
    RayDDPStrategy,
    RayLightningEnvironment,
    RayTrainReportCallback,
    prepare_trainer,
)


def token_datasets():
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(0, 50, 8), "label": int(number % 2)} for number in range(64)]
    for row in rows:
        row["input_ids"][0] = row["label"]
    return {"train": ray.data.from_items(rows[:48]), "validation": ray.data.from_items(rows[48:])}


class SentimentModel(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.embedding = torch.nn.Embedding(50, 8)
        self.output = torch.nn.Linear(64, 2)
        self.right = []

    def forward(self, batch):
        return self.output(self.embedding(batch["input_ids"]).flatten(1))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch), batch["label"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.right.append(self(batch).argmax(1) == batch["label"])

    def on_validation_epoch_end(self):
        self.log("val_accuracy", torch.concat(self.right).float().mean(), sync_dist=True)
        self.right.clear()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def text_classifier(config):
    train_ds = ray.train.get_dataset_shard("train")
    val_ds = ray.train.get_dataset_shard("validation")
    train_loader = train_ds.iter_torch_batches(batch_size=config["batch_size"])
    val_loader = val_ds.iter_torch_batches(batch_size=config["batch_size"])
    model = SentimentModel(lr=config["lr"])
    trainer = pl.Trainer(
        max_epochs=config["max_epochs"],
        accelerator="auto",
        devices="auto",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        callbacks=[RayTrainReportCallback()],
        enable_progress_bar=False,
    )
    trainer = prepare_trainer(trainer)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as directory:
            path = os.path.join(directory, "checkpoint.ckpt")
            trainer.fit(model, train_dataloaders=train_loader, val_dataloaders=val_loader, ckpt_path=path)
    else:
        trainer.fit(model, train_dataloaders=train_loader, val_dataloaders=val_loader)
