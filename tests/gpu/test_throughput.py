"""Throughput on a GPU: tandem's loop beside a bare compiled one; what compiling and determinism bring and cost."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.gpu import checks, throughput
from tests.gpu.pictures import synthetic
from trainers.data import Dataset
from trainers.named_recipes import NAMED_RECIPES

pytestmark = pytest.mark.serial

IMAGES = 50_000
LEAST_RATIO = 0.97
LEAST_GAIN = 1.3
FAST_EPOCHS = 8
FULL = {
    "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9},
    "precision": "bfloat16",
    "compile": True,
    "deterministic": False,
}
Row = Callable[..., None]


@pytest.fixture(scope="module")
def small(cifar10: Dataset | None) -> Dataset:
    return cifar10 or synthetic(IMAGES, 32)


def judge(
    device: torch.device, dataset: Dataset, row: Row, *, model: str, batch_size: int, epochs: int
) -> None:
    recipe = {**FULL, "model": model, "batch_size": batch_size}
    name = f"`{model.partition(':')[2] or model}`, bfloat16, {batch_size}"
    speeds = throughput.compare(name, recipe, dataset, device, timed_epochs=epochs)
    row(
        name,
        f"{speeds.tandem:,.0f}",
        f"{speeds.bare:,.0f}",
        f"{speeds.ratio:.3f}",
        f"{speeds.compile_seconds:.0f}",
        f"{speeds.memory_peak / 2**30:.1f}",
    )
    assert speeds.ratio >= LEAST_RATIO


@pytest.mark.parametrize("model", ["tutorial_cnn", "resnet9", "resnet18"])
def test_small_pictures(device: torch.device, small: Dataset, row: Row, model: str) -> None:
    judge(device, small, row, model=model, batch_size=512, epochs=5)


def test_resnet50(device: torch.device, row: Row, note: Callable[[str], None]) -> None:
    if importlib.util.find_spec("torchvision") is None:
        note("ResNet-50 is left out: torchvision, whose network it is, is not installed.")
        pytest.skip("torchvision is not installed")
    dataset = synthetic(4096, 224)
    judge(device, dataset, row, model="tests.gpu.models:resnet50", batch_size=256, epochs=3)


def test_compiling_and_determinism(device: torch.device, small: Dataset, note: Callable[[str], None]) -> None:
    def speed(**changes: Any) -> float:
        recipe = {**FULL, "model": "resnet9", "batch_size": 512, **changes}
        return throughput.images_per_second(recipe, small, device, timed_epochs=3)

    compiled, eager = speed(), speed(compile=False)
    deterministic = speed(compile=False, deterministic=True)
    note(
        f"resnet9 in bfloat16: compiled {compiled / eager:.2f} times eager ({eager:,.0f} images/s); "
        f"deterministic: true trains {deterministic / eager:.2f} times as fast."
    )
    assert compiled / eager >= LEAST_GAIN


def test_time_to_the_accuracy_of_a_plain_script(
    device: torch.device, cifar10: Dataset | None, note: Callable[[str], None]
) -> None:
    if cifar10 is None:
        note(
            "Time to an accuracy is left out: set TANDEM_BENCH_DATA to CIFAR-10's Parquet files (needs Pillow)."
        )
        pytest.skip("TANDEM_BENCH_DATA does not name CIFAR-10")
    recipe = {
        **NAMED_RECIPES["fast"]["torch"],
        "precision": "bfloat16",
        "epochs": FAST_EPOCHS,
        "compile": True,
    }
    task = checks.task_for(cifar10, recipe)
    throughput.clear(device)
    bare = throughput.BareLoop(task, cifar10, device)
    started = time.perf_counter()
    for _ in range(FAST_EPOCHS):
        bare.epoch()
    bare_seconds = time.perf_counter() - started
    bare_accuracy = bare.accuracy(cifar10)
    throughput.clear(device)
    engine = checks.engine_on(device, task, held_bytes=1 << 30)
    started = time.perf_counter()
    epochs = checks.loop(task, cifar10, engine)
    seconds = time.perf_counter() - started
    accuracy = checks.accuracy_of(task, cifar10, engine)
    compiling = sum(metrics.compile_seconds for metrics in epochs)
    note(
        f"fast, {FAST_EPOCHS} epochs: {accuracy:.2%} in {seconds:.1f} s, {compiling:.1f} s of them compiling; a plain "
        f"script on the same network: {bare_accuracy:.2%} in {bare_seconds:.1f} s, compiling included."
    )
    assert accuracy > bare_accuracy - 0.01
