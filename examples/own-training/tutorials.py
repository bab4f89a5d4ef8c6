"""The two published tutorials on CIFAR-10 as plain functions, each with its framework's own loop.

`data` of the config is an .npz file with x_train, y_train, x_test and y_test, as `tandem` reads it for built-in arms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ray.train


def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, height, width, 3] and labels int64 [n] of training, and of testing."""
    with np.load(path) as arrays:
        return tuple(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))  # type: ignore[return-value]


def keras_tutorial(config: dict[str, Any]) -> None:
    """TensorFlow's "Convolutional Neural Network (CNN)": Keras' compile() and fit()."""
    import keras
    from keras import layers

    x, y, x_test, y_test = load(config["data"])
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        """Reports the test accuracy after every epoch, which the tutorial prints."""

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            """Called by fit()."""
            logs = logs or {}
            ray.train.report({"test_accuracy": logs["val_accuracy"], "train_loss": logs["loss"]})

    model.fit(
        x / np.float32(255),
        y,
        epochs=config["epochs"],
        validation_data=(x_test / np.float32(255), y_test),
        callbacks=[Report()],
        verbose=0,
    )


def torch_tutorial(config: dict[str, Any]) -> None:
    """PyTorch's "Training a Classifier": a loop over a DataLoader."""
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def tensors(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
        scaled = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32) / 127.5 - 1
        return TensorDataset(scaled, torch.tensor(labels))

    x, y, x_test, y_test = load(config["data"])
    loader = DataLoader(tensors(x, y), batch_size=4, shuffle=True)
    side = ((x.shape[1] - 4) // 2 - 4) // 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(x.shape[3], 6, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * side * side, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            images = self.pool(F.relu(self.conv1(images)))
            images = self.pool(F.relu(self.conv2(images)))
            images = torch.flatten(images, 1)
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(images)))))

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for _ in range(config["epochs"]):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        images, labels = tensors(x_test, y_test).tensors
        with torch.no_grad():
            accuracy = (net(images).argmax(1) == labels).float().mean().item()
        ray.train.report({"test_accuracy": accuracy, "train_loss": loss.item()})
