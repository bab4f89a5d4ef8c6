"""Puts one framework's side through its paces and writes what it measured to an .npz.

Usage: python -m tests.unit.measure_engine FRAMEWORK OUTPUT
A process for each framework, since TensorFlow and PyTorch cannot share one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from typing import Any

import numpy as np

from trainers import checkpoints
from trainers.contract import SMALLEST_IMAGE, Engine, State, Task
from trainers.data import Dataset
from trainers.data.batches import Steps
from trainers.errors import InputError
from trainers.initial import Weights, initial_weights
from trainers.inputs import InputTransform, whitening_kernel
from trainers.loop import Hooks, train
from trainers.named_recipes import NAMED_RECIPES
from trainers.recipes import BUILT_IN_MODELS, Recipe, Whitening, class_weights

SHAPES = [(32, 32, 3), (8, 8, 1), (21, 33, 3)]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "learning_rate": 0.05},
    {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.1},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.01},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "nesterov": True},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.1, "decoupled": True},
]
"""At a constant rate these are the same in both frameworks, which the two Adams are not."""
WRONG: list[dict[str, Any]] = [
    {"optimizer": "tests.unit.own_models:no_optimizer"},
    {"optimizer": "tests.unit.own_models:no_such_function"},
    {"loss": "tests.unit.own_models:one_loss"},
    {"loss": "no_such_module:loss"},
]
"""Parts of a user's own that are none."""
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (96, 32, 32, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 10, 96)
DATASET = Dataset(
    train_images=IMAGES,
    train_labels=LABELS,
    validation_images=IMAGES[:0],
    validation_labels=LABELS[:0],
    test_images=IMAGES[:8],
    test_labels=LABELS[:8],
    class_names=[str(label) for label in range(10)],
    fingerprint="",
    warnings=[],
    channel_mean=np.zeros(3, np.float32),
    channel_std=np.ones(3, np.float32),
)


def stored(state: State) -> State:
    """A state as it comes back from storage."""
    unpacked = checkpoints.unpack(*checkpoints.pack(state))
    assert unpacked is not None
    return unpacked


def steps(learning_rate: float, first: int = 0, last: int = 6, size: int = 16) -> Steps:
    count = last - first
    part = slice(first * size, last * size)
    return Steps(
        IMAGES[part].reshape(count, size, *IMAGES.shape[1:]),
        LABELS[part].reshape(count, size),
        np.full(count, learning_rate, np.float32),
        1 / size,
    )


def inputs(whitening: Whitening | None) -> InputTransform:
    scale, offset = np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32)
    if whitening is None:
        return InputTransform(scale=scale, offset=offset)
    kernel = whitening_kernel(IMAGES, scale, offset, whitening)
    return InputTransform(scale=scale, offset=offset, kernel=kernel, stride=whitening.stride)


class Side:
    """One framework, and what it measured."""

    def __init__(self, framework: str) -> None:
        engines = importlib.import_module(f"trainers.{framework}.engine")
        self.models = importlib.import_module(f"trainers.{framework}.models")
        self.framework = framework
        self.runtime = engines.Runtime(threads=1, use_gpu=False)
        self.measured: dict[str, np.ndarray] = {}

    def engine(self, *, seed: int = 0, **recipe: Any) -> Engine:
        described = Recipe.model_validate(recipe)
        self.task = Task(
            recipe=described,
            seed=seed,
            rank=0,
            world_size=1,
            image_shape=(32, 32, 3),
            num_classes=10,
            inputs=inputs(described.whitening),
            class_weights=class_weights(described.loss, LABELS, 10),
        )
        return self.runtime.engine(self.task)  # type: ignore[no-any-return]

    def models_on_shared_weights(self) -> None:
        for name in BUILT_IN_MODELS:
            self.measured[f"parameters/{name}"] = np.array(self.engine(model=name).parameter_count())
            for shape in SHAPES:
                model, weights = self._shared(name, shape)
                kept = self.models.get_weights(model)
                assert all(np.array_equal(kept[key], weights[key]) for key in weights)
                x = np.random.default_rng(2).normal(size=(3, *shape)).astype(np.float32)
                key = f"{name}/{'x'.join(map(str, shape))}"
                self.measured[f"outputs/{key}"] = self._forward(model, x)
                listed = {weight: list(value.shape) for weight, value in sorted(weights.items())}
                self.measured[f"shapes/{key}"] = np.array(json.dumps(listed))

    def smallest_images(self) -> None:
        for name, side in SMALLEST_IMAGE.items():
            model = self.models.build_model(name, (side, side, 3), 7)
            self.measured[f"smallest/{name}"] = self._forward(model, np.zeros((1, side, side, 3), np.float32))

    def _shared(self, name: str, shape: tuple[int, int, int]) -> tuple[Any, Weights]:
        """A network with the weights that the other framework gives it too."""
        model = self.models.build_model(name, shape, 7)
        shapes = {key: weight.shape for key, weight in self.models.get_weights(model).items()}
        weights = initial_weights(shapes, init="glorot_uniform", seed=1)
        self.models.set_weights(model, weights)
        return model, weights

    def _forward(self, model: Any, x: np.ndarray) -> np.ndarray:
        if self.framework == "keras":
            return np.asarray(model(x, training=False))
        import torch

        with torch.no_grad():
            return np.asarray(model.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)))

    def updates_step_by_step(self) -> None:
        for place, optimizer in enumerate(OPTIMIZERS):
            engine = self.engine(optimizer=optimizer, loss={"label_smoothing": 0.1})
            self.measured[f"losses/{place}"], _ = engine.train_steps(steps(optimizer["learning_rate"]))
            self.measured[f"logits/{place}"] = engine.predict(IMAGES)

    def weighted_classes(self) -> None:
        engine = self.engine(optimizer="sgd", loss={"label_smoothing": 0.1, "class_weights": "balanced"})
        self.measured["weighted/logits"] = engine.predict(IMAGES[:16])
        self.measured["weighted/losses"], _ = engine.train_steps(steps(0.01))

    def batch_normalisation(self) -> None:
        engine = self.engine(model="resnet9", optimizer={"name": "sgd", "learning_rate": 0.01})
        self.measured["norm/losses"], _ = engine.train_steps(steps(0.01, last=2))
        self.measured["norm/logits"] = engine.predict(IMAGES[:32])

    def failing_evaluation(self) -> None:
        engine = self.engine(optimizer="sgd", ema_decay=0.5)
        engine.train_steps(steps(0.1, last=3))
        before, averaged = engine.forward(IMAGES[:4]), engine.predict(IMAGES[:4])
        with contextlib.suppress(Exception):
            engine.predict(IMAGES[:4, :5, :5])
            raise AssertionError("images of another size were evaluated")
        self.measured["failed/before"], self.measured["failed/after"] = before, engine.forward(IMAGES[:4])
        self.measured["failed/averaged"] = averaged

    def wrong_parts(self) -> None:
        for place, fields in enumerate(WRONG):
            try:
                self.engine(**fields)
            except InputError as error:
                self.measured[f"wrong/{place}"] = np.array(str(error))

    def resumption(self) -> None:
        adamw = {"optimizer": "adamw", "ema_decay": 0.9}
        for model, fields in {
            "tutorial_cnn": adamw,
            "speednet": adamw,
            "lenet5": {"optimizer": f"tests.unit.own_models:{self.framework}_optimizer"},
        }.items():
            recipe = {"model": model} | fields
            whole = self.engine(**recipe)
            whole.train_steps(steps(0.001, last=4))
            first = self.engine(**recipe)
            first.train_steps(steps(0.001, last=2))
            halfway = stored(first.state())
            second = self.engine(**recipe)
            second.load_state(halfway)
            second.train_steps(steps(0.001, first=2, last=4))
            expected, resumed = whole.state(), second.state()
            same = expected.keys() == resumed.keys() and all(
                np.array_equal(expected[name], resumed[name]) for name in expected
            )
            self.measured[f"resumed/{model}"] = np.array(same)

    def resumption_within_an_epoch(self) -> None:
        recipe = {
            "optimizer": "adamw",
            "augmentation": {"flip": True, "crop": 2},
            "batch_size": 10,
            "epochs": 2,
        }
        states: dict[tuple[int, int], State] = {}

        def train_on(engine: Engine, *, first_step: int) -> State:
            hooks = Hooks(
                after_epoch=lambda _: True,
                after_steps=lambda epoch, step: states.setdefault((epoch, step), engine.state()) and None,
                heartbeat=lambda: None,
            )
            train(
                self.task, DATASET, engine, first_epoch=1, first_step=first_step, prefetch=True, hooks=hooks
            )
            return engine.state()

        expected = train_on(self.engine(**recipe), first_step=0)
        ((_, step), halfway) = next(iter(states.items()))
        assert 0 < step < 10
        second = self.engine(**recipe)
        second.load_state(stored(halfway))
        resumed = train_on(second, first_step=step)
        same = all(np.array_equal(expected[name], resumed[name]) for name in expected)
        self.measured["resumed/within an epoch"] = np.array(same)

    def fast_recipe(self) -> None:
        recipe = NAMED_RECIPES["fast"][self.framework]
        engine = self.engine(**recipe | {"precision": "float32", "ema_decay": 0.9})
        self.measured["fast/losses"], correct = engine.train_steps(steps(0.01))
        self.measured["fast/correct"] = np.array(correct)
        self.measured["fast/averaged"] = engine.predict(IMAGES)
        self.measured |= {f"fast/weight/{name}": value for name, value in engine.weights().items()}
        _, gradients = engine.take_step(steps(0.01, last=1))
        self.measured |= {f"fast/gradient/{name}": value for name, value in gradients.items()}

    def precision_and_seeds(self) -> None:
        for precision in ("float32", "bfloat16"):
            engine = self.engine(precision=precision)
            self.measured[f"precision/{precision}"] = np.array(engine.train_steps(steps(0.001))[0].sum())
            self.measured[f"dtype/{precision}"] = np.array(str(engine.predict(IMAGES[:4]).dtype))
        for seed in (0, 1):
            self.measured[f"seed/{seed}"] = self.engine(seed=seed).predict(IMAGES[:4])

    def arithmetic(self) -> None:
        for model in BUILT_IN_MODELS:
            engine = self.engine(model=model)
            self.measured[f"flops/{model}"] = np.array(engine.forward_flops())
            if engine.framework == "torch":
                self.measured[f"counted/{model}"] = np.array(flops_counted_by_torch(model))
        self.measured["matmul"] = np.array(engine.matmul_flops())


def flops_counted_by_torch(model: str) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from trainers.torch.models import build_model

    height, width, channels = IMAGES.shape[1:]
    network = build_model(model, (height, width, channels), 10).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, height, width))
    return int(counter.get_total_flops())


def main(framework: str, output: str) -> None:
    side = Side(framework)
    side.models_on_shared_weights()
    side.smallest_images()
    side.updates_step_by_step()
    side.weighted_classes()
    side.batch_normalisation()
    side.failing_evaluation()
    side.wrong_parts()
    side.resumption()
    side.resumption_within_an_epoch()
    side.fast_recipe()
    side.precision_and_seeds()
    side.arithmetic()
    np.savez(output, **side.measured)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
