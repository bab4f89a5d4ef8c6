"""Train one model in Keras 3, data-parallel under Ray Train's TensorflowTrainer. Twin of the PyTorch engine.

Keras 3's own `fit` does not run under `MultiWorkerMirroredStrategy` (keras issue 20585, ray issue
47464), so the step is written out: `strategy.run`, a gradient tape, and `optimizer.apply` on an
optimizer built beforehand. Each worker's loss is its sum divided by the global batch size, and the
optimizer adds the workers' gradients up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from trainers.contract import Batch, State, Task
from trainers.initial import initial_weights
from trainers.keras.models import build_model, get_weights, set_weights
from trainers.keras.optimizers import build_optimizer

_EVALUATION_BATCH = 512


class Runtime:
    """What a worker process sets up once, however many runs it then trains."""

    def __init__(self, *, threads: int, use_gpu: bool) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(1, threads))
        tf.config.experimental.enable_op_determinism()
        gpus = tf.config.list_physical_devices("GPU")
        if use_gpu and not gpus:
            raise RuntimeError("a GPU was asked for but TensorFlow sees none on this node")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def engine(self, task: Task) -> KerasEngine:
        """A fresh model for one run."""
        keras.utils.clear_session(free_memory=True)
        return KerasEngine(task, self._strategy)


class KerasEngine:
    """One model being trained; see `trainers.contract.Engine`."""

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(task.seed)
        recipe = task.recipe
        keras.config.set_dtype_policy("mixed_bfloat16" if recipe.precision == "bfloat16" else "float32")
        self._task = task
        self._strategy = strategy
        with strategy.scope():
            self._model = build_model(
                recipe.model,
                task.image_shape,
                task.num_classes,
                synchronized=task.world_size > 1,
            )
            if ":" not in recipe.model:
                shapes = {name: weight.shape for name, weight in get_weights(self._model).items()}
                set_weights(self._model, initial_weights(shapes, init=recipe.init, seed=task.seed))
            self._optimizer = build_optimizer(recipe.optimizer)
            self._optimizer.build(self._model.trainable_variables)
        images = tf.TensorSpec([None, *task.image_shape], tf.uint8)
        self._train_step = tf.function(
            self._distributed_step,
            input_signature=[
                images,
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        self._forward = tf.function(self._distributed_forward, input_signature=[images])
        self._sum = tf.function(self._distributed_sum, reduce_retracing=True)

    def parameter_count(self) -> int:
        """Trainable weights."""
        return sum(int(np.prod(weight.shape)) for weight in self._model.trainable_variables)

    def _inputs(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(images, tf.float32) * self._task.input_scale + self._task.input_offset

    def _replica_step(self, images, labels, learning_rate, loss_scale):
        smoothing = self._task.recipe.loss.label_smoothing
        num_classes = self._task.num_classes
        with tf.GradientTape() as tape:
            logits = tf.cast(self._model(self._inputs(images), training=True), tf.float32)
            targets = tf.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(losses)
            scaled = loss * loss_scale
        variables = self._model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(gradients, variables)
        answers = tf.argmax(logits, 1, output_type=tf.int64)
        return loss, tf.reduce_sum(tf.cast(answers == labels, tf.int64))

    def _distributed_step(self, images, labels, learning_rate, loss_scale):
        return self._strategy.run(self._replica_step, args=(images, labels, learning_rate, loss_scale))

    def _distributed_forward(self, images):
        def forward(images):
            return tf.cast(self._model(self._inputs(images), training=False), tf.float32)

        return self._strategy.run(forward, args=(images,))

    def _distributed_sum(self, values):
        def add_up(values):
            here = tf.identity(values)  # an argument has no device, which the exchange needs
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        return self._strategy.run(add_up, args=(values,))

    def train_epoch(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """Take one step for each batch; returns this worker's summed loss and correct answers."""
        loss_sum, correct = 0.0, 0
        for batch in batches:
            loss, right = self._train_step(batch.images, batch.labels, batch.learning_rate, batch.loss_scale)
            if batch.loss_scale:
                loss_sum += loss
                correct += right
        return float(loss_sum), int(correct)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels]."""
        logits = np.empty((len(images), self._task.num_classes), np.float32)
        for start in range(0, len(images), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            logits[part] = self._forward(images[part])
        return logits

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the workers of a float64 array."""
        if self._task.world_size == 1:
            return values
        return self._sum(tf.constant(values, tf.float64)).numpy()

    def state(self) -> State:
        """Everything needed to go on bit for bit: model, optimizer, random states."""
        return {
            f"{owner}/{index}": np.array(variable)
            for owner, variables in self._variables().items()
            for index, variable in enumerate(variables)
        }

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        for owner, variables in self._variables().items():
            for index, variable in enumerate(variables):
                variable.assign(state[f"{owner}/{index}"])

    def _variables(self) -> dict[str, list[keras.Variable]]:
        return {"model": self._model.variables, "optimizer": self._optimizer.variables}
