"""PyTorch's tutorial "Training a Classifier" as published: LeNet, SGD 0.001 with momentum 0.9, batch 4.

https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html; the images come from Parquet files, already
normalised, and a seed is set.

Usage: python -m benchmarks.peers.tutorial_torch DIRECTORY EPOCHS THREADS SEED
Prints one JSON line: test accuracy, seconds of training.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn, optim

from benchmarks.peers import cifar10

directory, epochs, threads, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
torch.manual_seed(seed)


def dataset(split):
    """Images in -1..1, float32 [n, 3, 32, 32], and their labels."""
    images, labels = cifar10.read(directory, split)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
    return torch.utils.data.TensorDataset(pixels, torch.from_numpy(labels))


class Net(nn.Module):
    """The tutorial's LeNet."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        """Logits [n, 10] of images [n, 3, 32, 32]."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


trainloader = torch.utils.data.DataLoader(dataset("train"), batch_size=4, shuffle=True)
testloader = torch.utils.data.DataLoader(dataset("test"), batch_size=4, shuffle=False)
net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
start = time.perf_counter()
for _ in range(epochs):
    running_loss = 0.0
    for inputs, labels in trainloader:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
seconds = time.perf_counter() - start

correct, total = 0, 0
with torch.no_grad():
    for images, labels in testloader:
        predicted = net(images).argmax(1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
print(json.dumps({"test_accuracy": correct / total, "train_seconds": seconds}), flush=True)
