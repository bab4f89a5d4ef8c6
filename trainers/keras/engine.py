"""Train one model in Keras 3, data-parallel under `MultiWorkerMirroredStrategy`. Twin of the PyTorch engine.

Keras 3's own `fit` does not run under that strategy (keras issue 20585, ray issue 47464), so the step is the one of
Keras' guide to custom training loops: `strategy.run`, a gradient tape, and `optimizer.apply` on an optimizer built
beforehand. Each worker's loss is its sum divided by the global batch size, and the optimizer adds the workers'
gradients up.

The module is long because one class implements all of `Engine`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from trainers.contract import AUXILIARY_WEIGHT, State, Task, UnbiasedVariance, logits_of, training_logits
from trainers.data.batches import IN_CACHE, ON_GPU, Steps
from trainers.errors import no_gpu
from trainers.flops import forward_flops
from trainers.initial import Weights, initial_weights
from trainers.keras.exported_model import exported_model
from trainers.keras.losses import build_loss
from trainers.keras.models import (
    build_model,
    get_weights,
    named_variables,
    path_in,
    set_weights,
    single_value_norms,
)
from trainers.keras.optimizers import build_optimizer, coupled_decay, get_optimizer_state, set_optimizer_state
from trainers.machine.matmul import fastest_matmul, matmul_side
from trainers.machine.processor import has_bfloat16
from trainers.recipes import OwnOptimizer
from trainers.test_time_augmentation import augmented_copies

# Without autograph, as in Keras' own `fit`: a model's `call` is traced as it is written.
_graph = functools.partial(tf.function, autograph=False)


class Runtime:
    """What a worker process sets up once, however many runs it then trains."""

    def __init__(self, *, threads: int, use_gpu: bool) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(1, threads))
        gpus = tf.config.list_physical_devices("GPU")
        if use_gpu and not gpus:
            raise no_gpu("TensorFlow", tf.__version__, cuda=tf.sysconfig.get_build_info().get("cuda_version"))
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        workers = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
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

    framework = "keras"
    warm_up_steps = 1

    def __init__(self, task: Task, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(task.seed)
        recipe = task.recipe
        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))
        self.block_limits = ON_GPU if self._on_gpu else IN_CACHE
        if recipe.is_deterministic(on_gpu=self._on_gpu):
            tf.config.experimental.enable_op_determinism()  # for good: a process trains either kind of runs
        tf.config.experimental.enable_tensor_float_32_execution(recipe.precision == "tf32")
        keras.config.set_dtype_policy("mixed_bfloat16" if recipe.precision == "bfloat16" else "float32")
        self._task = task
        self._strategy = strategy
        if self._on_gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
        with strategy.scope():
            self._model = build_model(
                recipe.model,
                task.model_shape,
                task.num_classes,
                batch_norm=recipe.batch_norm,
                synchronized=recipe.sync_batch_norm,
            )
            if ":" not in recipe.model and recipe.init != "framework":
                shapes = {name: weight.shape for name, weight in get_weights(self._model).items()}
                set_weights(self._model, initial_weights(shapes, init=recipe.init, seed=task.seed))
            self._optimizer = build_optimizer(recipe, self._model)
            self._optimizer.build(self._model.trainable_variables)
        self._parts = recipe.accumulate or 1
        self._loss = build_loss(recipe, task.num_classes, task.class_weights)
        # XLA compiles no exchange between CPUs, so that the update stays outside.
        self._compute_gradients = (
            _graph(self._replica_gradients, jit_compile=True) if recipe.compile else self._replica_gradients
        )
        images, labels = tf.TensorSpec([None, *task.image_shape], tf.uint8), tf.TensorSpec([None], tf.int64)
        number = tf.TensorSpec([], tf.float32)
        self._step = _graph(self._distributed_step, input_signature=[images, labels, number, number])
        self._shown_step = _graph(
            self._distributed_shown_step, input_signature=[images, labels, number, number]
        )
        self._forward = _graph(self._distributed_forward, input_signature=[images])
        self._sum = _graph(self._distributed_sum, reduce_retracing=True)

    def parameter_count(self) -> int:
        """Trainable weights."""
        return sum(int(np.prod(weight.shape)) for weight in self._model.trainable_variables)

    def forward_flops(self) -> int | None:
        """Floating-point operations of the convolutions and matrix products for one image, a multiply-add as two.

        None for a model of the user's own: TensorFlow has no public count of them.
        """
        if ":" in self._task.recipe.model:
            return None
        kinds = (keras.layers.Conv2D, keras.layers.Dense)
        layers = (layer for layer in self._model.layers if isinstance(layer, kinds))
        return forward_flops(
            self._task,
            ((math.prod(layer.kernel.shape), math.prod(layer.output.shape[1:-1])) for layer in layers),
        )

    def matmul_flops(self) -> float:
        """Floating-point operations per second that a large matrix product reaches here, in the recipe's precision."""
        side = matmul_side(on_gpu=self._on_gpu)
        values = tf.ones((side, side), self._model.compute_dtype)
        product = _graph(lambda: tf.matmul(values, values)[0, 0])
        return fastest_matmul(lambda: float(product()), side)

    def device_memory_peak(self) -> int:
        """Bytes of the GPU's memory that this model's training used at most; 0 without a GPU."""
        if not self._on_gpu:
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

    def _losses(self, images, labels):
        """Summed over the share: the data's loss; of the model's own losses: their sum; and the logits."""
        outputs = self._model(self._inputs(images), training=True)
        logits, auxiliary = training_logits(self._task.recipe.model, outputs, self._task.num_classes)
        logits = tf.cast(logits, tf.float32)
        of_data = self._loss(logits, labels)
        for other in auxiliary:
            of_data += AUXILIARY_WEIGHT * self._loss(tf.cast(other, tf.float32), labels)
        of_model = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in self._model.losses]
        return of_data, tf.add_n(of_model) if of_model else tf.zeros(()), logits

    def _replica_gradients(self, images, labels, loss_scale):
        """Gradients of this worker's part of the loss, its loss summed over the share, and its correct predictions."""
        variables = self._model.trainable_variables
        decay = 0.0 if self._task.recipe.gradient_clip else coupled_decay(self._task.recipe.optimizer)
        parts = self._strategy.num_replicas_in_sync * self._parts
        with tf.GradientTape() as tape:
            of_data, of_model, logits = self._losses(images, labels)
            of_worker = of_model
            if decay:
                of_worker += decay * tf.add_n([tf.nn.l2_loss(variable) for variable in variables])
            loss = of_data * loss_scale + of_worker / parts
        predicted = tf.argmax(logits, 1, output_type=tf.int64)
        correct = tf.reduce_sum(tf.cast(predicted == labels, tf.int64))
        share = tf.cast(tf.size(labels), tf.float32)
        return tape.gradient(loss, variables), of_data + of_model * share, correct

    def _accumulated_gradients(self, images, labels, loss_scale):
        """As `_replica_gradients`, with the share in parts, one after the other."""
        if self._parts == 1:
            return self._compute_gradients(images, labels, loss_scale)
        size = tf.shape(labels)[0]
        sums, loss, correct = None, tf.zeros(()), tf.zeros((), tf.int64)
        for part in range(self._parts):
            first, last = size * part // self._parts, size * (part + 1) // self._parts
            is_empty = first == last  # it takes part with one example of no weight
            first = tf.minimum(first, size - 1)
            last = tf.maximum(last, first + 1)
            weight = tf.where(is_empty, 0.0, 1.0)
            with tf.control_dependencies([each for each in sums or [] if each is not None]):
                gradients, of_part, right = self._compute_gradients(
                    images[first:last], labels[first:last], loss_scale * weight
                )
            sums = gradients if sums is None else [_sum(*pair) for pair in zip(sums, gradients, strict=True)]
            loss += of_part * weight
            correct += right * tf.cast(weight, tf.int64)
        return sums, loss, correct

    def _clipped(self, gradients):
        """Scaled by the norm of their sum over the workers; then with the coupled decay, as PyTorch does it."""
        recipe, workers = self._task.recipe, self._strategy.num_replicas_in_sync
        total = [gradient for gradient in gradients if gradient is not None]
        if workers > 1:
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, total)
        norm = tf.linalg.global_norm(total)
        gradients, _ = tf.clip_by_global_norm(gradients, recipe.gradient_clip, use_norm=norm)
        if decay := coupled_decay(recipe.optimizer):
            variables = self._model.trainable_variables
            decays = [decay / workers * tf.convert_to_tensor(variable) for variable in variables]
            gradients = [_sum(*pair) for pair in zip(gradients, decays, strict=True)]
        return gradients

    def _replica_step(self, images, labels, learning_rate, loss_scale):
        gradients, loss, correct = self._accumulated_gradients(images, labels, loss_scale)
        if self._task.recipe.gradient_clip is not None:
            gradients = self._clipped(gradients)
        if not isinstance(self._task.recipe.optimizer, OwnOptimizer):
            self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(gradients, self._model.trainable_variables)
        return loss, correct, gradients

    def _distributed_step(self, images, labels, learning_rate, loss_scale):
        return self._strategy.run(self._replica_step, args=(images, labels, learning_rate, loss_scale))[:2]

    def _distributed_shown_step(self, images, labels, learning_rate, loss_scale):
        """The loss of a step, and by their variables' paths the gradients that it took."""

        def step(*arguments):
            loss, _, gradients = self._replica_step(*arguments)
            paths = [variable.path for variable in self._model.trainable_variables]
            shown = {path: each for path, each in zip(paths, gradients, strict=True) if each is not None}
            context = tf.distribute.get_replica_context()
            return loss, context.all_reduce(tf.distribute.ReduceOp.SUM, shown)

        return self._strategy.run(step, args=(images, labels, learning_rate, loss_scale))

    def _distributed_forward(self, images):
        def forward(images):
            return tf.cast(logits_of(self._model(self._inputs(images), training=False)), tf.float32)

        return self._strategy.run(forward, args=(images,))

    def _distributed_sum(self, values):
        def add_up(values):
            here = tf.identity(values)  # an argument has no device, which the exchange needs
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        return self._strategy.run(add_up, args=(values,))

    def hold(self, images: np.ndarray) -> bool:
        """False: blocks are copied to a GPU whole, while the one before trains."""
        return False

    def staged(self, steps: Steps) -> Steps:
        """The same steps with their images and labels on the GPU, if there is one."""
        if not self._on_gpu:
            return dataclasses.replace(steps, staged=(steps.images, steps.labels))
        with tf.device("GPU:0"):
            return dataclasses.replace(steps, staged=(tf.constant(steps.images), tf.constant(steps.labels)))

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        """Take the steps; returns each one's loss, summed over this worker's share, and correct predictions."""
        images, labels = (steps if steps.staged is not None else self.staged(steps)).staged
        taken = [
            self._step(images[step], labels[step], learning_rate, steps.loss_scale)
            for step, learning_rate in enumerate(steps.learning_rates)
        ]
        losses, correct = zip(*taken, strict=True)
        return tf.stack(losses).numpy(), int(tf.add_n(correct))

    def take_step(self, step: Steps) -> tuple[float, Weights]:
        """As `train_steps`, but a single step, and with what it took; see `trainers.contract.Engine`."""
        decay = coupled_decay(self._task.recipe.optimizer)
        before = self.weights() if decay else {}
        loss, gradients = self._shown_step(
            step.images[0], step.labels[0], step.learning_rates[0], step.loss_scale
        )
        return float(loss), {
            name: gradients[variable.path].numpy() - (decay * before[name] if decay else 0)
            for name, variable in self._trained_weights().items()
            if variable.path in gradients
        }

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels], of the weights under training."""
        return self._forward(images).numpy()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """As `forward`, with `ema_decay` of the averaged weights."""
        with self._averaged():
            return self.forward(images)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in the place of the weights."""
        if not self._optimizer.use_ema:
            yield
            return
        variables = self._model.trainable_variables
        kept = [np.array(variable) for variable in variables]
        try:
            self._optimizer.finalize_variable_values(variables)
            yield
        finally:
            for variable, weight in zip(variables, kept, strict=True):
                variable.assign(weight)

    def unused_parameters(self) -> list[str]:
        """None: several workers exchange the gradients that there are."""
        return []

    def single_value_norms(self) -> list[str]:
        """Layers of batch normalization that get one value of each channel from an image."""
        return single_value_norms(self._model)

    def share_statistics(self) -> None:
        """Give every worker the first one's moving statistics, which evaluation uses; called by all at once."""
        moving = [v for v in self._model.non_trainable_variables if v.dtype.startswith("float")]
        if self._task.world_size == 1 or not moving:
            return
        here = np.concatenate([np.ravel(np.array(variable, np.float64)) for variable in moving])
        first = self.all_reduce(here if self._task.rank == 0 else np.zeros_like(here))
        ends = np.cumsum([int(np.prod(variable.shape)) for variable in moving])
        for variable, values in zip(moving, np.split(first, ends[:-1]), strict=True):
            variable.assign(values.reshape(variable.shape))

    def weights(self) -> Weights:
        """The model's weights by neutral name."""
        return get_weights(self._model)

    def weight_names(self) -> dict[str, str]:
        """The path of each weight's variable, without the model's own name, by its neutral name."""
        return {
            name: path_in(self._model, variable) for name, variable in named_variables(self._model).items()
        }

    def unbiased_variances(self) -> dict[str, UnbiasedVariance]:
        """None: Keras keeps the biased variance of each batch."""
        return {}

    def exported_model(self) -> keras.Model:
        """The trained model with its preprocessing: uint8 [n, height, width, channels] to probabilities."""
        with self._averaged():
            return exported_model(
                self._model,
                self._task.inputs,
                augmented_copies(self._task.recipe),
                self._task.image_shape,
                is_built_in=":" not in self._task.recipe.model,
            )

    def _trained_weights(self) -> dict[str, keras.Variable]:
        """The trainable weights by neutral name, in Keras' order."""
        names = {variable.path: name for name, variable in named_variables(self._model).items()}
        return {names[variable.path]: variable for variable in self._model.trainable_variables}

    def neutral_state(self) -> Weights:
        """The model's weights and its optimizer's state, which both frameworks can load."""
        optimizer_state = get_optimizer_state(
            self._optimizer, self._task.recipe.optimizer, self._trained_weights()
        )
        return get_weights(self._model) | optimizer_state

    def load_neutral_state(self, state: Weights) -> None:
        """Take over what either framework's `neutral_state` gave."""
        set_weights(self._model, state)
        set_optimizer_state(self._optimizer, self._task.recipe.optimizer, self._trained_weights(), state)

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


def _sum(first, second):
    """Of two gradients, each of which may be None."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
