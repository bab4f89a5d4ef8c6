"""Images per second of tandem's loop and of a bare loop on the same network, in one process and in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tests.gpu.checks import engine_on, task_for
from trainers.contract import EpochMetrics, Task
from trainers.data import Dataset
from trainers.loop import Hooks, train
from trainers.recipes import BatchNorm, Sgd
from trainers.schedules import learning_rates
from trainers.torch.models import build_model

_UNTIMED = 2
"""Epochs before the timed ones: a step is compiled in the first, and blocks have their length from the second on."""
_HELD_BYTES = 8 << 30


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What one network reached."""

    name: str
    tandem: float
    """Images per second; the median of the timed epochs, like `bare`."""
    bare: float
    compile_seconds: float
    """Of tandem's first epoch."""
    memory_peak: int
    """Bytes of the device, of both loops together."""

    @property
    def ratio(self) -> float:
        """Tandem over the bare loop."""
        return self.tandem / self.bare


class BareLoop:
    """A PyTorch loop as its users write it: data on the device, one compiled model, SGD, nothing recorded.

    It reads sizes and constants from a task, and shares the networks and the schedule with tandem, but not its engine.
    """

    def __init__(self, task: Task, dataset: Dataset, device: torch.device) -> None:
        recipe = task.recipe
        assert isinstance(recipe.optimizer, Sgd)
        self._task, self._device, self._decay = task, device, 0.0
        self._on_gpu = device.type == "cuda"
        self._pixels = torch.from_numpy(dataset.train_images).to(device)
        self._labels = torch.from_numpy(dataset.train_labels).to(device)
        self._scale = torch.from_numpy(task.inputs.scale).view(-1, 1, 1).to(device)
        self._offset = torch.from_numpy(task.inputs.offset).view(-1, 1, 1).to(device)
        self._kernel = None
        if task.inputs.kernel is not None:
            self._kernel = torch.from_numpy(task.inputs.kernel).permute(3, 2, 0, 1).to(device)
        model = build_model(recipe.model, task.model_shape, task.num_classes, batch_norm=BatchNorm())
        self.module = model.to(device, memory_format=torch.channels_last)
        self._model = self.module
        if recipe.compile:
            mode = "reduce-overhead" if self._on_gpu else None
            self._model = torch.compile(self.module, mode=mode, dynamic=False if self._on_gpu else None)
        coupled = 0.0 if recipe.optimizer.decoupled else recipe.optimizer.weight_decay
        if recipe.optimizer.decoupled:
            self._decay = recipe.optimizer.weight_decay
        self._optimizer = torch.optim.SGD(
            self.module.parameters(),
            recipe.optimizer.learning_rate,
            momentum=recipe.optimizer.momentum,
            nesterov=recipe.optimizer.nesterov,
            weight_decay=coupled,
            fused=True,
        )
        self._smoothing = getattr(recipe.loss, "label_smoothing", 0.0)
        steps = -(-len(dataset.train_labels) // recipe.batch_size)
        self._rates = learning_rates(recipe, steps * recipe.epochs)
        self._precision = (
            torch.autocast(device.type, dtype=torch.bfloat16)
            if recipe.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        self._first_flips = torch.rand(len(self._labels), device=device) < 0.5
        self._taken = 0
        self._epoch = 0

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        x = torch.addcmul(self._offset, pixels.permute(0, 3, 1, 2).float(), self._scale)
        if self._kernel is not None:
            x = F.relu(F.conv2d(x, self._kernel, stride=self._task.inputs.stride))
        return x

    def _augmented(self, chosen: torch.Tensor) -> torch.Tensor:
        augmentation = self._task.recipe.augmentation
        if not (augmentation.flip or augmentation.crop):
            return self._pixels[chosen]
        height, width, pad = *self._pixels.shape[1:3], augmentation.crop
        down, right = torch.randint(-pad, pad + 1, (2, len(chosen), 1), device=self._device)
        columns = torch.arange(width, device=self._device).expand(len(chosen), -1)
        if augmentation.flip:
            flipped = (self._first_flips[chosen] ^ bool(self._epoch % 2))[:, None]
            columns = torch.where(flipped, columns.flip(1), columns)
        rows = _reflected(torch.arange(height, device=self._device) + down, height)
        return self._pixels[
            chosen[:, None, None], rows[:, :, None], _reflected(columns + right, width)[:, None]
        ]

    def epoch(self) -> float:
        """Train for an epoch; returns its images per second."""
        recipe = self._task.recipe
        self._model.train()
        self._epoch += 1
        started = time.perf_counter()
        order = torch.randperm(len(self._labels), device=self._device)
        total = torch.zeros((), device=self._device)
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, deterministic=False, allow_tf32=recipe.precision == "tf32"
        ):
            for first in range(0, len(order), recipe.batch_size):
                chosen = order[first : first + recipe.batch_size]
                if recipe.compile and self._on_gpu:
                    torch.compiler.cudagraph_mark_step_begin()
                with self._precision:
                    outputs = self._model(self._inputs(self._augmented(chosen)))
                loss = F.cross_entropy(outputs.float(), self._labels[chosen], label_smoothing=self._smoothing)
                self._optimizer.zero_grad()
                loss.backward()
                rate = float(self._rates[self._taken])
                for group in self._optimizer.param_groups:
                    group["lr"] = rate
                if self._decay:
                    with torch.no_grad():
                        for weight in self.module.parameters():
                            weight.mul_(1 - rate * self._decay)
                self._optimizer.step()
                self._taken += 1
                total += loss.detach()
        assert np.isfinite(float(total))
        return len(order) / (time.perf_counter() - started)

    @torch.inference_mode()
    def accuracy(self, dataset: Dataset) -> float:
        """Of the test images, each and its mirror image averaged where the recipe says so."""
        self.module.eval()
        right = 0
        for first in range(0, len(dataset.test_labels), 512):
            pixels = torch.from_numpy(dataset.test_images[first : first + 512]).to(self._device)
            with self._precision:
                logits = self.module(self._inputs(pixels)).float()
                if self._task.recipe.test_time_augmentation.flip:
                    logits = logits + self.module(self._inputs(pixels.flip(2))).float()
            labels = torch.from_numpy(dataset.test_labels[first : first + 512]).to(self._device)
            right += int((logits.argmax(1) == labels).sum())
        return right / len(dataset.test_labels)


def _reflected(places: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels beyond an edge, mirrored at it."""
    places = places.abs()
    return torch.where(places < side, places, 2 * (side - 1) - places)


def compare(
    name: str, recipe: Mapping[str, Any], dataset: Dataset, device: torch.device, *, timed_epochs: int
) -> Speeds:
    """Train a recipe with tandem's loop, and an epoch of the bare loop after each of its epochs."""
    clear(device)
    task = task_for(dataset, {**recipe, "epochs": _UNTIMED + timed_epochs})
    bare = BareLoop(task, dataset, device)
    engine = engine_on(device, task, held_bytes=_HELD_BYTES)
    epochs: list[EpochMetrics] = []
    bare_speeds: list[float] = []

    def after_epoch(metrics: EpochMetrics) -> bool:
        epochs.append(metrics)
        bare_speeds.append(bare.epoch())
        return True

    hooks = Hooks(after_epoch=after_epoch, after_steps=lambda *_: None, heartbeat=lambda: None)
    train(task, dataset, engine, first_epoch=1, prefetch=device.type == "cuda", hooks=hooks)
    return Speeds(
        name=name,
        tandem=statistics.median(metrics.images_per_second for metrics in epochs[_UNTIMED:]),
        bare=statistics.median(bare_speeds[_UNTIMED:]),
        compile_seconds=epochs[0].compile_seconds,
        memory_peak=engine.device_memory_peak(),
    )


def images_per_second(
    recipe: Mapping[str, Any], dataset: Dataset, device: torch.device, *, timed_epochs: int
) -> float:
    """Of tandem's loop alone."""
    clear(device)
    task = task_for(dataset, {**recipe, "epochs": _UNTIMED + timed_epochs})
    epochs: list[EpochMetrics] = []
    hooks = Hooks(
        after_epoch=lambda metrics: epochs.append(metrics) is None,
        after_steps=lambda *_: None,
        heartbeat=lambda: None,
    )
    engine = engine_on(device, task, held_bytes=_HELD_BYTES)
    train(task, dataset, engine, first_epoch=1, prefetch=device.type == "cuda", hooks=hooks)
    return statistics.median(metrics.images_per_second for metrics in epochs[_UNTIMED:])


def clear(device: torch.device) -> None:
    """Free what earlier measurements compiled and allocated."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
