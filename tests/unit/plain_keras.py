"""Training in plain Keras, as its guides have it: what `native_steps` compares tandem's engine with."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence

import trainers.keras  # noqa: F401 # chooses Keras' backend

# isort: split
import keras
import numpy as np
import tensorflow as tf

from tests.unit import own_models
from tests.unit.native_steps import BATCH, CLASSES, IMAGE_SHAPE, IMAGES, OFFSET, SCALE, Case
from trainers.keras.models import build_model

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "tutorial_cnn": lambda: keras.optimizers.Adam(0.001, epsilon=1e-8),
    "lenet5": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "resnet9": lambda: keras.optimizers.AdamW(0.001, weight_decay=0.01, epsilon=1e-8),
    "resnet18": lambda: keras.optimizers.SGD(0.01),
    "speednet": lambda: keras.optimizers.SGD(
        0.01, momentum=0.9, weight_decay=0.1, use_ema=True, ema_momentum=0.9
    ),
    "own": lambda: keras.optimizers.Adam(0.001, epsilon=1e-8),
}
OPTIMIZERS["synchronized"] = OPTIMIZERS["speednet"]
OPTIMIZERS["own parts"] = lambda: own_models.keras_optimizer(None)


def join(rank: int, addresses: Sequence[str]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    if addresses:
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        os.environ["TF_CONFIG"] = json.dumps(cluster)


def leave() -> None:
    pass


def steps(name: str, case: Case, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Train from an engine's state."""
    inputs = case.images.astype(np.float32) * SCALE + OFFSET
    targets = np.eye(CLASSES, dtype=np.float32)[case.labels]
    if case.world_size == 1:
        model, optimizer = _build(name, case, start)
        loss = _loss(name, "sum_over_batch_size")
        model.compile(optimizer, loss)
        each = _EachBatch(case.rates)
        x, y = inputs.reshape(-1, *IMAGE_SHAPE), targets.reshape(-1, CLASSES)
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[each])
        losses = each.losses
    else:
        model, optimizer, losses = _distributed(name, case, start, inputs, targets)
    weights = [np.array(value).ravel() for value in model.variables if value.dtype == "float32"]
    optimizer.finalize_variable_values(model.trainable_variables)
    logits = model(IMAGES[0].astype(np.float32) * SCALE + OFFSET, training=False)
    return {"losses": np.array(losses), "weights": np.concatenate(weights), "logits": np.array(logits)}


class _EachBatch(keras.callbacks.Callback):
    """Sets the learning rate of each batch, and keeps its loss."""

    def __init__(self, rates: np.ndarray) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._rates = rates

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.model.reset_metrics()  # what `fit` shows is a mean since the last reset
        if not np.isnan(self._rates[batch]):
            self.model.optimizer.learning_rate = self._rates[batch]

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.losses.append(logs["loss"])


def _loss(name: str, reduction: str) -> keras.losses.Loss:
    if name == "own parts":
        return OwnLoss(reduction=reduction)
    smoothing = 0.1 if name in ("speednet", "synchronized") else 0.0
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction=reduction
    )


class OwnLoss(keras.losses.Loss):
    """The user's function as Keras takes it."""

    def call(self, y_true, y_pred):
        return own_models.keras_loss(y_pred, keras.ops.argmax(y_true, axis=1))


def _build(
    name: str, case: Case, start: dict[str, np.ndarray]
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    model = build_model(case.recipe.model, IMAGE_SHAPE, CLASSES, synchronized=name == "synchronized")
    for place, variable in enumerate(model.variables):
        variable.assign(start[f"model/{place}"])
    optimizer = OPTIMIZERS[name]()
    optimizer.build(model.trainable_variables)
    return model, optimizer


@functools.cache
def _strategy() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


def _distributed(
    name: str,
    case: Case,
    start: dict[str, np.ndarray],
    inputs: np.ndarray,
    targets: np.ndarray,
) -> tuple[keras.Model, keras.optimizers.Optimizer, list[float]]:
    """As TensorFlow's guide to distributed training has it."""
    strategy = _strategy()
    with strategy.scope():
        model, optimizer = _build(name, case, start)
        loss_of = _loss(name, "none")

    def replica_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(loss_of(y, model(x, training=True)), global_batch_size=BATCH)
            if model.losses:
                loss += tf.nn.scale_regularization_loss(tf.add_n(model.losses))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @tf.function
    def step(x, y):
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_step, args=(x, y)), axis=None)

    losses = []
    for x, y, rate in zip(inputs, targets, case.rates, strict=True):
        if not np.isnan(rate):
            optimizer.learning_rate = rate
        losses.append(float(step(tf.constant(x), tf.constant(y))))
    return model, optimizer, losses
