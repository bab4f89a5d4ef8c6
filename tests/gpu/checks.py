"""What is asserted of the PyTorch engine, on any device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from tests.gpu.pictures import synthetic
from trainers import checkpoints
from trainers.contract import EpochMetrics, State, Task
from trainers.data import Dataset
from trainers.data.batches import Steps, epoch_steps, steps_per_epoch
from trainers.loop import Hooks, evaluate, train
from trainers.recipes import Augmentation, Recipe
from trainers.schedules import learning_rates
from trainers.tasks import make_task
from trainers.torch.device_images import DeviceImages, ImageStore
from trainers.torch.engine import TorchEngine
from trainers.torch.models import build_model

CPU = torch.device("cpu")
SGD = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}


def task_for(dataset: Dataset, recipe: Mapping[str, Any]) -> Task:
    """The whole of a run of one worker."""
    return make_task(dataset, Recipe.model_validate(recipe), seed=0, rank=0, world_size=1)


def engine_on(device: torch.device, task: Task, *, held_bytes: int = 0) -> TorchEngine:
    """An engine, whose device may hold so many bytes of training images."""
    return TorchEngine(task, device, ImageStore(device, held_bytes))


def blocks(task: Task, dataset: Dataset, steps: int, *, selects: bool = False) -> Iterator[Steps]:
    """The first steps of a run, all of whole batches."""
    size = task.recipe.batch_size
    per_epoch = len(dataset.train_labels) // size
    for epoch in range(1, -(-steps // per_epoch) + 1):
        count = min(per_epoch, steps - (epoch - 1) * per_epoch)
        yield from _first(
            count,
            epoch_steps(
                dataset.train_images,
                dataset.train_labels,
                augmentation=task.recipe.augmentation,
                batch_size=size,
                learning_rates=learning_rates(task.recipe, steps_per_epoch(len(dataset.train_labels), size)),
                seed=task.seed,
                epoch=epoch,
                rank=0,
                world_size=1,
                selects=selects,
            ),
        )


def _first(count: int, made: Iterator[Steps]) -> Iterator[Steps]:
    while count:
        block = next(made)
        yield block.part(0, count)
        count -= min(count, len(block))


def losses_of(engine: TorchEngine, steps: Iterator[Steps]) -> np.ndarray:
    """Each step's mean loss."""
    return np.concatenate([engine.train_steps(block)[0] / block.labels.shape[1] for block in steps])


def device_batches_equal_those_of_the_host(device: torch.device, *, side: int) -> None:
    """A block made from the images that a device holds is the host's, bit for bit."""
    dataset = synthetic(50, side)
    held = DeviceImages(dataset.train_images, device)
    for augmentation in (
        Augmentation(),
        Augmentation(flip=True),
        Augmentation(crop=2),
        Augmentation(flip=True, crop=side),
    ):
        task = task_for(dataset, {"augmentation": augmentation.model_dump(), "batch_size": 8})
        by_host, by_device = (blocks(task, dataset, 12, selects=selects) for selects in (False, True))
        for host, here in zip(by_host, by_device, strict=True):
            assert np.array_equal(host.labels, here.labels)
            assert np.array_equal(host.images, held.block(here.images).cpu().numpy())


def training_does_not_depend_on_who_holds_the_images(device: torch.device, *, images: int) -> None:
    """The whole loop, the smaller last batch included, gives the same weights bit for bit."""
    dataset = synthetic(images, 16)
    augmentation = {"flip": True, "crop": 2}
    recipe = {"model": "lenet5", "optimizer": SGD, "batch_size": 16, "epochs": 2, "deterministic": True}
    task = task_for(dataset, recipe | {"augmentation": augmentation})

    def trained(held_bytes: int, *, prefetch: bool) -> State:
        engine = engine_on(device, task, held_bytes=held_bytes)
        assert engine.hold(dataset.train_images) == bool(held_bytes)
        loop(task, dataset, engine, prefetch=prefetch)
        return everything(engine)

    expected = trained(0, prefetch=False)
    for held_bytes, prefetch in ((0, True), (1 << 30, False), (1 << 30, True)):
        assert_same(expected, trained(held_bytes, prefetch=prefetch))


def loop(task: Task, dataset: Dataset, engine: TorchEngine, *, prefetch: bool = True) -> list[EpochMetrics]:
    """Train with tandem's loop; returns what each epoch measured."""
    epochs: list[EpochMetrics] = []

    def after_epoch(metrics: EpochMetrics) -> bool:
        epochs.append(metrics)
        return True

    hooks = Hooks(after_epoch=after_epoch, after_steps=lambda *_: None, heartbeat=lambda: None)
    train(task, dataset, engine, first_epoch=1, prefetch=prefetch, hooks=hooks)
    return epochs


def everything(engine: TorchEngine) -> State:
    """Weights, averages, random states and the optimizer's state, as arrays."""
    return {
        name: value for name, value in engine.state().items() if name != "optimizer"
    } | engine.neutral_state()


def assert_same(expected: State, found: State) -> None:
    """Two states are equal bit for bit."""
    assert expected.keys() == found.keys()
    different = [name for name in expected if not np.array_equal(expected[name], found[name])]
    assert not different


def losses_are_those_of_cpus(device: torch.device, *, steps: int, model: str, tolerance: float) -> None:
    """A run on a device follows the same run on a CPU, in float32."""
    dataset = synthetic(steps * 8, 32)
    recipe = {"model": model, "optimizer": SGD, "batch_size": 64 if steps > 10 else 8}
    task = task_for(dataset, recipe)
    expected, found = (
        losses_of(engine_on(where, task), blocks(task, dataset, steps)) for where in (CPU, device)
    )
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def a_resumed_run_is_the_same_bit_for_bit(device: torch.device, *, model: str, steps: int) -> None:
    """With `deterministic: true`, a run that goes on from its stored state equals one that never stopped."""
    dataset = synthetic(steps * 16, 32)
    recipe = {"model": model, "optimizer": "adamw", "batch_size": 16, "deterministic": True, "ema_decay": 0.9}
    task = task_for(dataset, recipe | {"augmentation": {"flip": True, "crop": 2}})
    whole = engine_on(device, task)
    losses_of(whole, blocks(task, dataset, steps))
    taken = [
        block.part(step, step + 1) for block in blocks(task, dataset, steps) for step in range(len(block))
    ]
    first, second = engine_on(device, task), engine_on(device, task)
    losses_of(first, iter(taken[: steps // 2]))
    kept = checkpoints.unpack(*checkpoints.pack(first.state()))
    assert kept is not None
    second.load_state(kept)
    losses_of(second, iter(taken[steps // 2 :]))
    assert_same(everything(whole), everything(second))


def a_step_takes_the_gradients_of_cpus(device: torch.device, *, model: str, tolerance: float) -> None:
    """From the same weights and optimizer state, one step has the same loss and gradients."""
    dataset = synthetic(64, 32)
    task = task_for(dataset, {"model": model, "optimizer": SGD, "batch_size": 32})
    here, there = engine_on(CPU, task), engine_on(device, task)
    first, second = (block.part(0, 1) for block in _singles(blocks(task, dataset, 2)))
    here.train_steps(first)
    there.load_neutral_state(here.neutral_state())
    (loss, gradients), (other_loss, others) = here.take_step(second), there.take_step(second)
    assert other_loss == np.float32(loss) or abs(other_loss / loss - 1) < tolerance
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(others[name] - gradient).max() < tolerance * largest, name


def _singles(made: Iterator[Steps]) -> Iterator[Steps]:
    for block in made:
        for step in range(len(block)):
            yield block.part(step, step + 1)


def bfloat16_learns_with_float32_weights(device: torch.device, *, model: str, steps: int) -> None:
    """Autocast: float32 weights and optimizer state, and nearly the losses of float32."""
    dataset = synthetic(steps * 16, 32)
    recipe = {"model": model, "optimizer": SGD, "batch_size": 16}
    tasks = [task_for(dataset, recipe | {"precision": precision}) for precision in ("float32", "bfloat16")]
    engines = [engine_on(device, task) for task in tasks]
    exact, rounded = (losses_of(engine, blocks(tasks[0], dataset, steps)) for engine in engines)
    assert all(weight.dtype == np.float32 for weight in engines[1].weights().values())
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.02)
    np.testing.assert_allclose(rounded[-3:].mean(), exact[-3:].mean(), atol=0.25)


def compiled_steps_have_the_losses_of_the_others(device: torch.device, *, model: str, steps: int) -> None:
    """`compile: true` over several blocks, with a smaller last batch, and evaluations in between."""
    dataset = synthetic(steps * 16 + 5, 32)
    recipe = {"model": model, "optimizer": SGD, "batch_size": 16, "epochs": 2}
    plain, compiled = (
        loop(task, dataset, engine_on(device, task, held_bytes=1 << 30))
        for task in (task_for(dataset, recipe | {"compile": compile}) for compile in (False, True))
    )
    for one, other in zip(plain, compiled, strict=True):
        assert abs(other.train_loss / one.train_loss - 1) < 0.02
        assert abs(other.train_accuracy - one.train_accuracy) < 0.05
    assert compiled[0].compile_seconds > 5 * max(compiled[1].compile_seconds, 1e-3)


def memory_peak_grows_with_the_batch(device: torch.device, *, model: str) -> None:
    """On a GPU the peak is more than the weights and grows with the batch; on CPUs it is 0."""
    dataset = synthetic(256, 32)
    peaks = []
    for size in (32, 256):
        task = task_for(dataset, {"model": model, "optimizer": SGD, "batch_size": size})
        engine = engine_on(device, task)
        losses_of(engine, blocks(task, dataset, 1))
        peaks.append(engine.device_memory_peak())
        weights = 4 * engine.parameter_count()
        del engine
    if device.type == "cpu":
        assert peaks == [0, 0]
    else:
        assert weights < peaks[0] < peaks[1] < torch.cuda.get_device_properties(device).total_memory


def one_process_exchanges_gradients(device: torch.device, directory: Path) -> None:
    """A group of one process, NCCL on a GPU and Gloo on a CPU: DDP takes the gradients of the bare model."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{directory}/group", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = build_model("lenet5", (32, 32, 3), 10).to(device)
        x, labels = torch.randn(16, 3, 32, 32, device=device), torch.arange(16, device=device) % 10
        F.cross_entropy(model(x), labels).backward()
        expected = [weight.grad.clone() for weight in model.parameters()]
        model.zero_grad()
        exchanging = torch.nn.parallel.DistributedDataParallel(model)
        F.cross_entropy(exchanging(x), labels).backward()
        for gradient, weight in zip(expected, model.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, gradient)
        ones = torch.ones(3, device=device)
        dist.all_reduce(ones)
        assert ones.tolist() == [1, 1, 1]
    finally:
        dist.destroy_process_group()


def synchronizations(device: torch.device, *, steps: int, model: str) -> int:
    """How often the host waits for the device in one block of so many steps; 0 on CPUs."""
    dataset = synthetic(steps * 16, 32)
    recipe = {"model": model, "optimizer": SGD, "batch_size": 16, "ema_decay": 0.9}
    task = task_for(dataset, recipe | {"augmentation": {"flip": True, "crop": 2}})
    engine = engine_on(device, task, held_bytes=1 << 30)
    assert engine.hold(dataset.train_images)
    (block,) = blocks_of_one_epoch(task, dataset, steps)
    engine.train_steps(block)
    if device.type == "cpu":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            engine.train_steps(block)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def blocks_of_one_epoch(task: Task, dataset: Dataset, steps: int) -> list[Steps]:
    """All steps of the first epoch as one block, which names its images."""
    made = epoch_steps(
        dataset.train_images,
        dataset.train_labels,
        augmentation=task.recipe.augmentation,
        batch_size=task.recipe.batch_size,
        learning_rates=learning_rates(task.recipe, steps),
        seed=task.seed,
        epoch=1,
        rank=0,
        world_size=1,
        step_seconds=1e-6,
        selects=True,
    )
    return list(made)


def accuracy_of(task: Task, dataset: Dataset, engine: TorchEngine) -> float:
    """Of the test images, in the recipe's precision."""
    evaluation, _, _ = evaluate(task, engine, dataset.test_images, dataset.test_labels)
    return evaluation.accuracy
