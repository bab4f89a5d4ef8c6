"""The PyTorch tutorial as published: one process, LeNet, SGD 0.001 momentum 0.9, batch 4, inputs -1..1.

Usage: python tutorial_torch.py DATA.npz EPOCHS THREADS
Prints one JSON line: images/s of each epoch, test accuracy, seconds of training.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

path, epochs, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
data = np.load(path)


def tensors(images, labels):
    """Normalised NCHW float32 images, ready in memory, and their labels."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
    return torch.utils.data.TensorDataset(pixels / 127.5 - 1, torch.from_numpy(labels))


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
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


train = tensors(data["x_train"], data["y_train"])
loader = torch.utils.data.DataLoader(train, batch_size=4, shuffle=True)
net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
seconds = []
for _ in range(epochs):
    start = time.perf_counter()
    running_loss = 0.0
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    seconds.append(time.perf_counter() - start)

with torch.no_grad():
    test = tensors(data["x_test"], data["y_test"])
    answers = net(test.tensors[0]).argmax(1)
    accuracy = (answers == test.tensors[1]).float().mean().item()
print(
    json.dumps(
        {
            "images_per_second": [len(train) / second for second in seconds],
            "test_accuracy": accuracy,
            "train_seconds": sum(seconds),
        }
    )
)
