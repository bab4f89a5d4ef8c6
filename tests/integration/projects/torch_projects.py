"""Training functions that use Ray Train as public PyTorch projects do. Nothing in them is made for tandem.

The comment above each says which use of the API it stands for; data are made up, so that no network is needed.
"""

import os
import shutil
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.nn as nn
from filelock import FileLock
from ray import train
from torch.utils.data import DataLoader, Dataset, TensorDataset


def made_up(count=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0.5).long())


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.stack = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, inputs):
        return self.stack(self.flatten(inputs))


# kuberay and kubernetes-engine-samples, pytorch-mnist: data under a lock, prepare_*, metrics without checkpoints.
def mnist(config):
    lr, epochs, batch_size = config["lr"], config["epochs"], config["batch_size_per_worker"]
    with FileLock(os.path.expanduser("./data.lock")):
        train_loader = DataLoader(made_up(), batch_size=batch_size, shuffle=True)
        test_loader = DataLoader(made_up(64, seed=1), batch_size=batch_size)
    train_loader = ray.train.torch.prepare_data_loader(train_loader)
    test_loader = ray.train.torch.prepare_data_loader(test_loader)
    model = ray.train.torch.prepare_model(NeuralNetwork())
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for epoch in range(epochs):
        if ray.train.get_context().get_world_size() > 1:
            train_loader.sampler.set_epoch(epoch)
        model.train()
        for x, y in train_loader:
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        test_loss, correct, total = 0, 0, 0
        with torch.no_grad():
            for x, y in test_loader:
                predicted = model(x)
                test_loss += loss_fn(predicted, y).item()
                total += y.shape[0]
                correct += (predicted.argmax(1) == y).sum().item()
        ray.train.report(metrics={"loss": test_loss / len(test_loader), "accuracy": correct / total})


class Pictures(Dataset):
    def __init__(self, directory):
        self.files = sorted(Path(directory).rglob("*.npy"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image = torch.from_numpy(np.load(self.files[index]))
        return image[None], int(self.files[index].parent.name)


def download(directory):
    archive = Path("pictures.zip")
    with zipfile.ZipFile(archive, "w") as pictures:
        for number, (image, label) in enumerate(made_up(32)):
            np.save("picture.npy", image[0].numpy())
            pictures.write("picture.npy", f"{label}/{number}.npy")
    with zipfile.ZipFile(archive) as pictures:
        pictures.extractall(directory)


# kuberay, pytorch-resnet-image-classifier: a zip for each node, torch.distributed, a checkpoint of `.module`, resume.
def image_classifier(configs):
    warnings.filterwarnings("ignore")
    if train.get_context().get_local_rank() == 0:
        download("./pictures")
    torch.distributed.barrier()
    loader = DataLoader(Pictures("./pictures"), batch_size=configs["batch_size"], shuffle=True)
    loader = train.torch.prepare_data_loader(loader)
    device = train.torch.get_device()
    model = NeuralNetwork()
    start_epoch = 0
    checkpoint = train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as checkpoint_dir:
            state = torch.load(os.path.join(checkpoint_dir, "checkpoint.pt"))
            model.load_state_dict(state["model"])
            start_epoch = state["epoch"] + 1
    model = train.torch.prepare_model(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=configs["lr"], momentum=configs["momentum"])
    for epoch in range(start_epoch, configs["num_epochs"]):
        for phase in ["train", "val"]:
            model.train() if phase == "train" else model.eval()
            running_loss = 0.0
            if train.get_context().get_world_size() > 1:
                loader.sampler.set_epoch(epoch)
            for inputs, labels in loader:
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    loss = nn.functional.cross_entropy(model(inputs), labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
            if train.get_context().get_world_rank() == 0:
                print(f"Epoch {epoch}-{phase} Loss: {running_loss:.4f}")
            if phase == "val":
                with tempfile.TemporaryDirectory() as tmpdir:
                    state = {"epoch": epoch, "model": model.module.state_dict()}
                    if train.get_context().get_world_rank() == 0:
                        torch.save(state, os.path.join(tmpdir, "checkpoint.pt"))
                    train.report(
                        metrics={"loss": running_loss},
                        checkpoint=train.Checkpoint.from_directory(tmpdir),
                    )


# codeflare-sdk, mnist_fashion: takes nothing and reports nothing.
def fashion():
    dataloader = DataLoader(made_up(), batch_size=64, shuffle=True)
    dataloader = ray.train.torch.prepare_data_loader(dataloader)
    model = ray.train.torch.prepare_model(NeuralNetwork())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(2):
        if ray.train.get_context().get_world_size() > 1:
            dataloader.sampler.set_epoch(epoch)
        for inputs, labels in dataloader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        print(f"epoch: {epoch}, loss: {loss.item()}")


# codeflare-sdk, train_with_checkpoints: every rank reports a checkpoint with the same file name; config.get.
def with_checkpoints(config):
    epochs = config.get("epochs", 10)
    loader = DataLoader(made_up(), batch_size=config.get("batch_size", 64), shuffle=True)
    loader = train.torch.prepare_data_loader(loader)
    model = train.torch.prepare_model(NeuralNetwork())
    optimizer = torch.optim.Adam(model.parameters(), lr=config.get("lr", 0.001))
    start_epoch = 0
    checkpoint = train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as checkpoint_dir:
            state = torch.load(os.path.join(checkpoint_dir, "checkpoint.pt"), weights_only=False)
            model.load_state_dict(state["model_state_dict"])
            optimizer.load_state_dict(state["optimizer_state_dict"])
            start_epoch = state["epoch"] + 1
            print(f"RESUMING FROM CHECKPOINT - Starting at epoch {start_epoch}")
    for epoch in range(start_epoch, epochs):
        total_loss = 0
        for data, target in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
        time.sleep(config.get("seconds", 0))
        with tempfile.TemporaryDirectory() as tmpdir:
            torch.save(
                {
                    "epoch": epoch,
                    "model_state_dict": model.state_dict(),
                    "optimizer_state_dict": optimizer.state_dict(),
                },
                os.path.join(tmpdir, "checkpoint.pt"),
            )
            train.report(
                metrics={"loss": total_loss / len(loader), "epoch": epoch},
                checkpoint=train.Checkpoint.from_directory(tmpdir),
            )


# anyscale/templates, distributing-pytorch: the global batch is divided by the workers, rank 0 reports the checkpoint.
def distributed_batches(config):
    world_size = ray.train.get_context().get_world_size()
    loader = DataLoader(made_up(), batch_size=config["global_batch_size"] // world_size, shuffle=True)
    loader = ray.train.torch.prepare_data_loader(loader)
    model = ray.train.torch.prepare_model(NeuralNetwork())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(config["num_epochs"]):
        if world_size > 1:
            loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        metrics = {"loss": loss.item(), "epoch": epoch}
        directory = tempfile.mkdtemp()
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            base = model.module if world_size > 1 else model
            torch.save(base.state_dict(), Path(directory) / "model.pt")
            checkpoint = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(metrics, checkpoint=checkpoint)
        shutil.rmtree(directory)
        if ray.train.get_context().get_world_rank() == 0:
            print({"metrics": metrics, "epoch": epoch})
