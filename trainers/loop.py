"""The training loop, the same for every framework: epochs, evaluation, timing, the final test."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np

from trainers.contract import Batch, Engine, EpochMetrics, Task
from trainers.data import Dataset
from trainers.data.batches import epoch_batches, steps_per_epoch
from trainers.recipes import learning_rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's answers on one split, counted over all workers, each image once."""

    loss: float
    """Mean cross-entropy, without label smoothing."""
    confusion: np.ndarray
    """Int64 [classes, classes]: true label by row, answer by column."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.trace(self.confusion) / self.confusion.sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalTest:
    """The trained model on the test split."""

    evaluation: Evaluation
    answers: np.ndarray
    """Int64 [n], the label given to each test image."""
    confidences: np.ndarray
    """Float64 [n], the probability given to that label."""
    seconds: float


def train(
    task: Task,
    dataset: Dataset,
    engine: Engine,
    *,
    first_epoch: int,
    report: Callable[[EpochMetrics], None],
) -> FinalTest:
    """Train from `first_epoch` to the recipe's last, calling `report` after each, then test.

    Every worker of a run calls this at the same time. `report` is given the same numbers on each.
    """
    recipe = task.recipe
    examples = len(dataset.train_labels)
    steps = steps_per_epoch(examples, recipe.batch_size)
    rates = learning_rates(recipe, steps * recipe.epochs)
    for epoch in range(first_epoch, recipe.epochs + 1):
        epoch_rates = rates[(epoch - 1) * steps : epoch * steps]
        batches = _Stopwatch(
            epoch_batches(
                dataset.train_images,
                dataset.train_labels,
                augmentation=recipe.augmentation,
                batch_size=recipe.batch_size,
                learning_rates=epoch_rates,
                seed=task.seed,
                epoch=epoch,
                rank=task.rank,
                world_size=task.world_size,
            )
        )
        start = time.perf_counter()
        loss_sum, correct = engine.train_epoch(batches)
        train_seconds = time.perf_counter() - start

        start = time.perf_counter()
        validation = None
        if len(dataset.validation_labels):
            validation, _, _ = evaluate(task, engine, dataset.validation_images, dataset.validation_labels)
        evaluation_seconds = time.perf_counter() - start

        workers = gather(
            task, engine, [loss_sum, correct, batches.seconds, train_seconds, evaluation_seconds]
        )
        slowest = workers.max(axis=0)
        report(
            EpochMetrics(
                epoch=epoch,
                step=epoch * steps,
                train_loss=float(workers[:, 0].sum() / examples),
                train_accuracy=float(workers[:, 1].sum() / examples),
                validation_loss=validation.loss if validation else None,
                validation_accuracy=validation.accuracy if validation else None,
                learning_rate=float(epoch_rates[-1]),
                images_per_second=float(examples / slowest[3]),
                data_seconds=float(slowest[2]),
                step_seconds=float(slowest[3] - slowest[2]),
                evaluation_seconds=float(slowest[4]),
            )
        )
    start = time.perf_counter()
    evaluation, answers, confidences = evaluate(task, engine, dataset.test_images, dataset.test_labels)
    return FinalTest(
        evaluation=evaluation,
        answers=answers,
        confidences=confidences,
        seconds=time.perf_counter() - start,
    )


def evaluate(
    task: Task, engine: Engine, images: np.ndarray, labels: np.ndarray
) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """Split the images over the workers and count every one exactly once.

    Returns the evaluation, the answers int64 [n] and their probabilities float64 [n].
    """
    n, classes = len(labels), task.num_classes
    share = slice(n * task.rank // task.world_size, n * (task.rank + 1) // task.world_size)
    logits = engine.predict(images[share]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    answers = log_probabilities.argmax(axis=1)
    rows = np.arange(len(answers))

    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels[share], answers), 1)
    per_image = np.zeros((2, n))
    per_image[0, share] = answers
    per_image[1, share] = np.exp(log_probabilities[rows, answers])
    loss_sum = -log_probabilities[rows, labels[share]].sum()
    total = engine.all_reduce(np.concatenate([[loss_sum], confusion.ravel(), per_image.ravel()]))

    counts = total[1 : 1 + classes * classes].reshape(classes, classes).astype(np.int64)
    everyone = total[1 + classes * classes :].reshape(2, n)
    evaluation = Evaluation(loss=float(total[0] / n), confusion=counts)
    return evaluation, everyone[0].astype(np.int64), everyone[1]


def gather(task: Task, engine: Engine, values: list[float]) -> np.ndarray:
    """Every worker's values, float64 [world_size, len(values)], on every worker."""
    table = np.zeros((task.world_size, len(values)))
    table[task.rank] = values
    return engine.all_reduce(table.ravel()).reshape(table.shape)


class _Stopwatch:
    """An iterator that adds up the time spent waiting for its items."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - start
