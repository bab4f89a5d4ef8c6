"""Train one model in Keras 3, data-parallel under Ray Train's TensorflowTrainer. Twin of the PyTorch engine.

Keras 3's own `fit` does not run under `MultiWorkerMirroredStrategy` (keras issue 20585, ray issue
47464), so the step is written out: `strategy.run`, a gradient tape, and `optimizer.apply` on an
optimizer built beforehand. Each worker's loss is its sum divided by the global batch size, and the
optimizer adds the workers' gradients up.
"""

from __future__ import annotations

from trainers.keras import lean  # noqa: F401

# isort: split
import contextlib
import functools
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from trainers.contract import State, Steps, Task
from trainers.initial import Weights, initial_weights
from trainers.keras.models import build_model, get_weights, named_variables, set_weights
from trainers.keras.optimizers import build_optimizer, get_slots
from trainers.keras.product import product_of
from trainers.matmul import fastest_matmul, matmul_side
from trainers.processor import has_bfloat16
from trainers.views import views_of

# Autograph would translate each function from its source, and leave the translation behind in /tmp.
_graph = functools.partial(tf.function, autograph=False)


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
        workers = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
        # For one worker the exchange would do nothing, and yet a process in two would be a tenth slower.
        alone = len(workers.get("worker", [])) < 2
        self._strategy = (
            tf.distribute.get_strategy() if alone else tf.distribute.MultiWorkerMirroredStrategy()
        )

    def computes_bfloat16(self) -> bool:
        """Whether the processors have instructions for it."""
        if gpus := tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("compute_capability", (0, 0)) >= (8, 0)
        return has_bfloat16()

    def engine(self, task: Task) -> KerasEngine:
        """A fresh model for one run."""
        keras.utils.clear_session(free_memory=True)
        return KerasEngine(task, self._strategy)


class KerasEngine:
    """One model being trained; see `trainers.contract.Engine`."""

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(task.seed)
        recipe = task.recipe
        tf.config.experimental.enable_tensor_float_32_execution(recipe.precision == "tf32")
        keras.config.set_dtype_policy("mixed_bfloat16" if recipe.precision == "bfloat16" else "float32")
        self._task = task
        self._strategy = strategy
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.reset_memory_stats("GPU:0")
        with strategy.scope():
            self._model = build_model(
                recipe.model,
                task.model_shape,
                task.num_classes,
                synchronized=task.world_size > 1,
            )
            if ":" not in recipe.model:
                shapes = {name: weight.shape for name, weight in get_weights(self._model).items()}
                set_weights(self._model, initial_weights(shapes, init=recipe.init, seed=task.seed))
            self._optimizer = build_optimizer(recipe.optimizer)
            self._optimizer.build(self._model.trainable_variables)
            tracked = [value for value in self._model.variables if value.dtype == "float32"]
            self._tracked = tracked if recipe.weight_average else []
            self._average = [keras.Variable(value, trainable=False) for value in self._tracked]
        images = tf.TensorSpec([None, *task.image_shape], tf.uint8)
        self._train_steps = _graph(
            self._distributed_steps,
            input_signature=[
                tf.TensorSpec([None, None, *task.image_shape], tf.uint8),
                tf.TensorSpec([None, None], tf.int64),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        self._gradients = _graph(
            self._distributed_gradients,
            input_signature=[images, tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.float32)],
        )
        self._forward = _graph(self._distributed_forward, input_signature=[images])
        self._sum = _graph(self._distributed_sum, reduce_retracing=True)

    def parameter_count(self) -> int:
        """Trainable weights."""
        return sum(int(np.prod(weight.shape)) for weight in self._model.trainable_variables)

    def forward_flops(self) -> int:
        """Floating-point operations of the convolutions and matrix products for one image, a multiply-add as two."""
        image = tf.TensorSpec([1, *self._task.image_shape], tf.uint8)
        forward = _graph(lambda images: self._model(self._inputs(images), training=False))
        profiler = tf.compat.v1.profiler
        options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
        with contextlib.redirect_stdout(None):
            found = profiler.profile(
                forward.get_concrete_function(image).graph,
                cmd="op",
                options=options.with_empty_output().build(),
            )
        return _flops_of(found, {"Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum"})

    def matmul_flops(self) -> float:
        """Floating-point operations per second that a large matrix product reaches here, in the recipe's precision."""
        side = matmul_side(on_gpu=bool(tf.config.list_physical_devices("GPU")))
        values = tf.ones((side, side), self._model.compute_dtype)
        product = _graph(lambda: tf.matmul(values, values)[0, 0])
        return fastest_matmul(lambda: float(product()), side)

    def device_memory_peak(self) -> int:
        """Bytes of the GPU's memory that this model's training used at most; 0 without a GPU."""
        if not tf.config.list_physical_devices("GPU"):
            return 0
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def _inputs(self, images):
        transform = self._task.inputs
        # Written out for a whole image: to repeat three numbers along it takes TensorFlow four times as long.
        scale, offset = (
            np.broadcast_to(values, self._task.image_shape) for values in (transform.scale, transform.offset)
        )
        x = tf.cast(images, tf.float32) * scale + offset
        if transform.kernel is not None:
            dtype = self._model.compute_dtype
            kernel = tf.cast(transform.kernel, dtype)
            x = tf.nn.relu(tf.nn.conv2d(tf.cast(x, dtype), kernel, transform.stride, "VALID"))
        return x

    def _replica_gradients(self, images, labels, loss_scale):
        """Gradients of this worker's part of the loss, its loss summed, and its right answers."""
        smoothing = self._task.recipe.loss.label_smoothing
        num_classes = self._task.num_classes
        with tf.GradientTape() as tape:
            logits = tf.cast(self._model(self._inputs(images), training=True), tf.float32)
            targets = tf.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            if self._task.class_weights is not None:
                losses *= tf.gather(self._task.class_weights, labels)
            loss = tf.reduce_sum(losses)
            scaled = loss * loss_scale
        gradients = tape.gradient(scaled, self._model.trainable_variables)
        answers = tf.argmax(logits, 1, output_type=tf.int64)
        return gradients, loss, tf.reduce_sum(tf.cast(answers == labels, tf.int64))

    def _replica_step(self, images, labels, learning_rate, loss_scale):
        gradients, loss, correct = self._replica_gradients(images, labels, loss_scale)
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(gradients, self._model.trainable_variables)
        return loss, correct

    def _distributed_steps(self, images, labels, learning_rates, average_rates, loss_scale):
        count = tf.shape(images)[0]

        def take(step, losses, correct):
            loss, right = self._strategy.run(
                self._replica_step, args=(images[step], labels[step], learning_rates[step], loss_scale)
            )
            for average, value in zip(self._average, self._tracked, strict=True):
                average.assign(average + average_rates[step] * (value - average))
            return step + 1, losses.write(step, loss), correct + right

        start = (tf.constant(0), tf.TensorArray(tf.float32, count), tf.constant(0, tf.int64))
        _, losses, correct = tf.while_loop(lambda step, *_: step < count, take, start)
        return losses.stack(), correct

    def _distributed_gradients(self, images, labels, loss_scale):
        def gradients(images, labels, loss_scale):
            context = tf.distribute.get_replica_context()
            here, _, _ = self._replica_gradients(images, labels, loss_scale)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        return self._strategy.run(gradients, args=(images, labels, loss_scale))

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

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        """Take the steps; returns each one's loss, summed over this worker's share, and right answers."""
        losses, correct = self._train_steps(
            steps.images, steps.labels, steps.learning_rates, steps.average_rates, steps.loss_scale
        )
        return losses.numpy(), int(correct)

    def gradients(self, steps: Steps) -> Weights:
        """A built-in model's gradients of the first step's loss, over all workers."""
        values = self._gradients(steps.images[0], steps.labels[0], steps.loss_scale)
        of_variable = dict(zip(map(id, self._model.trainable_variables), values, strict=True))
        return {
            name: of_variable[id(variable)].numpy()
            for name, variable in named_variables(self._model).items()
            if id(variable) in of_variable
        }

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels], of the weights under training."""
        return self._forward(images).numpy()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """As `forward`, with `weight_average` of the averaged weights."""
        with self._averaged():
            return self.forward(images)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in the place of the weights."""
        kept = [np.array(value) for value in self._tracked]
        for value, average in zip(self._tracked, self._average, strict=True):
            value.assign(average)
        yield
        for value, weight in zip(self._tracked, kept, strict=True):
            value.assign(weight)

    def weights(self) -> Weights:
        """A built-in model's weights by neutral name."""
        return get_weights(self._model)

    def product(self) -> keras.Model:
        """The trained model with its preprocessing: uint8 [n, height, width, channels] to probabilities."""
        with self._averaged():
            return product_of(
                self._model, self._task.inputs, views_of(self._task.recipe), self._task.image_shape
            )

    def neutral_state(self) -> Weights:
        """Weights and the optimizer's slots, `<weight>#<slot>`, for `TorchEngine.load_neutral_state`."""
        variables = {id(variable): name for name, variable in named_variables(self._model).items()}
        names = [variables[id(variable)] for variable in self._model.trainable_variables]
        return get_weights(self._model) | get_slots(self._optimizer, names)

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
        return {
            "model": self._model.variables,
            "optimizer": self._optimizer.variables,
            "average": self._average,
        }


def _flops_of(node, kinds: set[str]) -> int:
    """Of a profile by kind of operation, what some kinds took."""
    own = node.float_ops if node.name in kinds else 0
    return int(own) + sum(_flops_of(child, kinds) for child in node.children)
