"""The training loop, the same for every framework: epochs, evaluation, timing, the final test."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from trainers.accuracy import balanced_accuracy
from trainers.contract import Engine, EpochMetrics, Task
from trainers.data import Dataset
from trainers.data.batches import GUESSED_STEP_SECONDS, Steps, epoch_steps, prefetched, steps_per_epoch
from trainers.errors import TandemError
from trainers.schedules import learning_rates, plateau_factor
from trainers.test_time_augmentation import augmented, augmented_copies

_EVALUATION_BATCH = 512
_EVALUATION_PIXELS = 512 * 32 * 32
_DIVERGED_AT = 10
"""Times the loss of a blind guess, ln(classes)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's predictions on one split, counted over all workers, each image once."""

    loss: float
    """Mean cross-entropy, without label smoothing."""
    confusion: np.ndarray
    """Int64 [classes, classes]: true label by row, predicted by column."""

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def balanced_accuracy(self) -> float:
        """With every class counted alike."""
        return balanced_accuracy(self.confusion)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalTest:
    """The trained model on the test split."""

    evaluation: Evaluation
    predicted: np.ndarray
    """Int64 [n], the label given to each test image."""
    confidences: np.ndarray
    """Float64 [n], the probability given to that label."""
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls as it goes, on every worker."""

    after_epoch: Callable[[EpochMetrics], bool]
    """Given the same numbers on each worker; says, the same on each, whether to go on."""
    after_steps: Callable[[int, int], None]
    """Given the epoch and how many of its steps are done, every few steps but the epoch's last."""
    heartbeat: Callable[[], None]
    """Something was done."""


class DivergedError(TandemError):
    """The loss is not finite, or stayed far above that of a blind guess."""


def train(
    task: Task,
    dataset: Dataset,
    engine: Engine,
    *,
    first_epoch: int,
    first_step: int = 0,
    validation_losses: Sequence[float] = (),
    prefetch: bool,
    hooks: Hooks,
) -> None:
    """Train from a step of `first_epoch` to the recipe's last epoch, or until a hook ends it.

    Every worker of a run calls this at the same time.

    Args:
        task: this worker's part of the run.
        dataset: what to train and test on.
        engine: the model, at `first_epoch` and `first_step`.
        first_epoch: from 1.
        first_step: of the first epoch, from 0.
        validation_losses: of the epochs before, which the schedule `plateau` depends on.
        prefetch: whether to make the next batches in a thread, which needs a CPU to spare.
        hooks: called as the training goes.

    Raises:
        DivergedError: says at which step and learning rate.
    """
    recipe = task.recipe
    examples = len(dataset.train_labels)
    steps = steps_per_epoch(examples, recipe.batch_size)
    rates = learning_rates(recipe, steps * recipe.epochs)
    step_seconds = GUESSED_STEP_SECONDS
    guard = _DivergenceGuard(task)
    selects = engine.hold(dataset.train_images)
    warm_up = _WarmUp(engine.warm_up_steps)
    losses_so_far = [*validation_losses]
    for epoch in range(first_epoch, recipe.epochs + 1):
        of_epoch = rates[(epoch - 1) * steps : epoch * steps]
        of_epoch = of_epoch * np.float32(plateau_factor(recipe.schedule, losses_so_far))
        blocks = epoch_steps(
            dataset.train_images,
            dataset.train_labels,
            augmentation=recipe.augmentation,
            batch_size=recipe.batch_size,
            learning_rates=of_epoch,
            seed=task.seed,
            epoch=epoch,
            rank=task.rank,
            world_size=task.world_size,
            first_step=first_step,
            step_seconds=step_seconds,
            limits=engine.block_limits,
            selects=selects,
        )
        staged = map(engine.staged, warm_up.apart(blocks))
        timed = _Stopwatch(prefetched(staged) if prefetch else staged)
        start = time.perf_counter()
        loss_sum, correct, done = 0.0, 0, first_step
        image_seconds = math.inf
        warm_up_blocks: list[tuple[float, int]] = []
        for block in timed:
            before = time.perf_counter()
            losses, right = engine.train_steps(block)
            seconds = time.perf_counter() - before
            image_seconds = min(image_seconds, seconds / block.labels.size)
            if warm_up.takes(block):
                warm_up_blocks.append((seconds, block.labels.size))
            guard.check(losses / _weights(block, task), block, epoch, (epoch - 1) * steps + done)
            done += len(block)
            if block.loss_scale:
                loss_sum += float(losses.sum(dtype=np.float64))
                correct += right
            hooks.heartbeat()
            if done < steps:
                hooks.after_steps(epoch, done)
        compile_seconds = sum(seconds - images * image_seconds for seconds, images in warm_up_blocks)
        train_seconds = time.perf_counter() - start - compile_seconds

        start = time.perf_counter()
        validation = None
        if len(dataset.validation_labels):
            validation, _, _ = evaluate(
                task, engine, dataset.validation_images, dataset.validation_labels, hooks.heartbeat
            )
            losses_so_far.append(validation.loss)
        evaluation_seconds = time.perf_counter() - start

        here = [
            loss_sum,
            correct,
            timed.seconds,
            train_seconds,
            evaluation_seconds,
            image_seconds,
            compile_seconds,
        ]
        workers = gather(task, engine, here)
        slowest = workers.max(axis=0)
        step_seconds = float(slowest[5] * recipe.batch_size / task.world_size)
        seen = examples - first_step * recipe.batch_size
        first_step = 0
        goes_on = hooks.after_epoch(
            EpochMetrics(
                epoch=epoch,
                step=epoch * steps,
                train_loss=float(workers[:, 0].sum() / seen),
                train_accuracy=float(workers[:, 1].sum() / seen),
                validation_loss=validation.loss if validation else None,
                validation_accuracy=validation.accuracy if validation else None,
                validation_balanced_accuracy=validation.balanced_accuracy if validation else None,
                learning_rate=None if np.isnan(of_epoch[-1]) else float(of_epoch[-1]),
                images_per_second=float(seen / slowest[3]),
                data_seconds=float(slowest[2]),
                step_seconds=float(slowest[3] - slowest[2]),
                compile_seconds=float(slowest[6]),
                evaluation_seconds=float(slowest[4]),
            )
        )
        if not goes_on:
            return


def final_test(task: Task, dataset: Dataset, engine: Engine, heartbeat: Callable[[], None]) -> FinalTest:
    """The trained model on the test split, shared out over the workers."""
    start = time.perf_counter()
    evaluation, predicted, confidences = evaluate(
        task, engine, dataset.test_images, dataset.test_labels, heartbeat
    )
    return FinalTest(
        evaluation=evaluation,
        predicted=predicted,
        confidences=confidences,
        seconds=time.perf_counter() - start,
    )


def _weights(block: Steps, task: Task) -> np.ndarray | int:
    """What the examples of each step of a block count in the loss together."""
    if task.class_weights is None:
        return block.labels.shape[1]
    return task.class_weights[block.labels].sum(axis=1)


class _WarmUp:
    """Tells the first steps of each batch size, in which a framework traces and compiles, from the others."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._made: Counter[int] = Counter()
        """Warm-up steps made apart, by batch size."""
        self._taken: Counter[int] = Counter()
        """Warm-up steps taken, by batch size; batches may be made in advance."""

    def apart(self, blocks: Iterator[Steps]) -> Iterator[Steps]:
        """The blocks, with each warm-up step as a block of its own."""
        for block in blocks:
            size = block.labels.shape[1]
            alone = min(len(block), self._steps - self._made[size])
            self._made[size] += alone
            for step in range(alone):
                yield block.part(step, step + 1)
            if alone < len(block):
                yield block.part(alone)

    def takes(self, block: Steps) -> bool:
        """Whether a block that was taken is a warm-up step."""
        size = block.labels.shape[1]
        is_warm_up = self._taken[size] < self._steps
        self._taken[size] += is_warm_up
        return is_warm_up


class _DivergenceGuard:
    """Ends a run whose loss is not finite, or above a limit for as many steps in a row as the recipe says."""

    def __init__(self, task: Task) -> None:
        self._patience = task.recipe.stop_on_divergence
        self._guess = float(np.log(task.num_classes))
        self._above = 0
        """Steps in a row above the limit."""

    def check(self, losses: np.ndarray, block: Steps, epoch: int, steps_before: int) -> None:
        """Look at the mean loss of each step of a block.

        Args:
            losses: float32 [steps].
            block: the steps.
            epoch: from 1.
            steps_before: steps of the run before the block.

        Raises:
            DivergedError: names the step and what may help.
        """
        if not self._patience:
            return
        limit = _DIVERGED_AT * self._guess
        for place, loss in enumerate(losses.tolist()):
            step = steps_before + place + 1
            rate = f"with learning rate {block.learning_rates[place]:.3g}"
            self._above = 0 if loss <= limit else self._above + 1
            if not math.isfinite(loss):
                became = f"the loss became {'NaN' if math.isnan(loss) else 'infinite'} at step {step} (epoch {epoch})"
                if step == 1:
                    raise DivergedError(
                        f"{became}, before any update of the weights; look at the model's outputs for one batch, and "
                        "at the range of its inputs"
                    )
                raise DivergedError(f"{became} {rate}; lower optimizer.learning_rate, or warm up longer")
            if self._above == self._patience:
                raise DivergedError(
                    f"the loss stayed above {limit:.3g}, {_DIVERGED_AT} times that of a blind guess, for "
                    f"{self._patience} steps, to {loss:.3g} at step {step} (epoch {epoch}) {rate}; lower "
                    "optimizer.learning_rate, warm up longer, or set stop_on_divergence to more steps or to false"
                )


def evaluate(
    task: Task,
    engine: Engine,
    images: np.ndarray,
    labels: np.ndarray,
    heartbeat: Callable[[], None] = lambda: None,
) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """Split the images over the workers and count every one exactly once.

    Returns the evaluation, the predictions int64 [n] and their probabilities float64 [n].
    """
    engine.share_statistics()
    n, classes = len(labels), task.num_classes
    low, high = n * task.rank // task.world_size, n * (task.rank + 1) // task.world_size
    share = slice(low, high)
    logits = np.empty((high - low, classes))
    copies = augmented_copies(task.recipe)
    batch = evaluation_batch(task.image_shape, trained=task.recipe.batch_size // task.world_size)
    for start in range(low, high, batch):
        part = images[start : min(start + batch, high)]
        logits[start - low : start - low + len(part)] = sum(
            copy.weight * engine.predict(augmented(part, copy)) for copy in copies
        )
        heartbeat()
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    predicted = log_probabilities.argmax(axis=1)
    rows = np.arange(len(predicted))

    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels[share], predicted), 1)
    per_image = np.zeros((2, n))
    per_image[0, share] = predicted
    per_image[1, share] = np.exp(log_probabilities[rows, predicted])
    loss_sum = -log_probabilities[rows, labels[share]].sum()
    total = engine.all_reduce(np.concatenate([[loss_sum], confusion.ravel(), per_image.ravel()]))

    counts = total[1 : 1 + classes * classes].reshape(classes, classes).astype(np.int64)
    everyone = total[1 + classes * classes :].reshape(2, n)
    evaluation = Evaluation(loss=float(total[0] / n), confusion=counts)
    return evaluation, everyone[0].astype(np.int64), everyone[1]


def evaluation_batch(image_shape: tuple[int, int, int], *, trained: int = 1) -> int:
    """How many images to evaluate at a time, fewer of large ones.

    Args:
        image_shape: height, width, channels.
        trained: a worker's share of a training batch, which is known to fit.
    """
    height, width, _ = image_shape
    return min(max(trained, _EVALUATION_PIXELS // (height * width)), _EVALUATION_BATCH)


def gather(task: Task, engine: Engine, values: list[float]) -> np.ndarray:
    """Every worker's values, float64 [world_size, len(values)], on every worker."""
    table = np.zeros((task.world_size, len(values)))
    table[task.rank] = values
    return engine.all_reduce(table.ravel()).reshape(table.shape)


class _Stopwatch:
    """An iterator that adds up the time spent waiting for its items."""

    def __init__(self, blocks: Iterator[Steps]) -> None:
        self._blocks = blocks
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Steps]:
        return self

    def __next__(self) -> Steps:
        start = time.perf_counter()
        try:
            return next(self._blocks)
        finally:
            self.seconds += time.perf_counter() - start
