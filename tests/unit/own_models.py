"""Models, optimizers and losses of a user's own, for tests. Each imports its framework when it is called."""

from __future__ import annotations

from typing import Any


def keras_model(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """With regularizers, a loss of its own, dropout and batch normalization."""
    import keras
    from keras import layers

    class Centred(layers.Layer):
        """Adds a loss that keeps the mean of what it sees near zero."""

        def call(self, inputs: Any) -> Any:
            self.add_loss(0.1 * keras.ops.mean(inputs) ** 2)
            return inputs

    decay = keras.regularizers.L2(1e-3)
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(8, 3, kernel_regularizer=decay),
            layers.BatchNormalization(),
            layers.ReLU(),
            Centred(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(16, activation="relu", activity_regularizer=keras.regularizers.L1(1e-4)),
            layers.Dense(num_classes, kernel_regularizer=decay),
        ]
    )


def torch_model(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """With dropout and batch normalization."""
    from torch import nn

    height, width, channels = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * (height - 2) * (width - 2), num_classes),
    )


def keras_optimizer(model: Any) -> Any:
    """With a schedule of its own, and clipping."""
    import keras

    del model
    schedule = keras.optimizers.schedules.ExponentialDecay(0.02, decay_steps=5, decay_rate=0.5)
    return keras.optimizers.SGD(schedule, momentum=0.9, clipnorm=0.1)


def torch_optimizer(model: Any) -> Any:
    """With two groups of parameters, a schedule of its own, and clipping."""
    import torch

    biases = [weight for weight in model.parameters() if weight.ndim == 1]
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": 0.01}, {"params": biases, "lr": 0.05}], lr=0.02, momentum=0.9
    )

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    optimizer.register_step_pre_hook(clip)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 10], gamma=0.5)


def keras_loss(logits: Any, labels: Any) -> Any:
    """A focal loss (Lin et al., 2017)."""
    import keras

    loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return (1 - keras.ops.exp(-loss)) ** 2 * loss


def torch_loss(logits: Any, labels: Any) -> Any:
    """The same."""
    from torch.nn import functional as F

    loss = F.cross_entropy(logits, labels, reduction="none")
    return (1 - (-loss).exp()) ** 2 * loss


def no_optimizer(model: Any) -> dict[str, float]:
    """Wrong: options."""
    del model
    return {"learning_rate": 0.1}


def one_loss(logits: Any, labels: Any) -> Any:
    """Wrong: a single loss for all examples."""
    del labels
    return (logits * 0).sum() if hasattr(logits, "sum") else logits[0, 0]
