"""Puts one framework's side through its paces and writes what it measured to an .npz.

Usage: python -m tests.unit.measure_engine FRAMEWORK OUTPUT
A process for each framework, since TensorFlow and PyTorch cannot share one.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np

from trainers.contract import Batch, Engine, Task
from trainers.initial import initial_weights
from trainers.recipes import BUILT_IN_MODELS, Recipe

SHAPES = [(32, 32, 3), (8, 8, 1), (21, 33, 3)]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "learning_rate": 0.05},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.01},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "nesterov": True},
    {"name": "adam", "learning_rate": 0.002},
    {"name": "adam", "learning_rate": 0.002, "epsilon": 0.01},
    {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.1},
]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (96, 32, 32, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 10, 96)


def batches(learning_rate: float, steps: int = 6, size: int = 16) -> list[Batch]:
    parts = [slice(step * size, (step + 1) * size) for step in range(steps)]
    return [Batch(IMAGES[part], LABELS[part], learning_rate, 1 / size) for part in parts]


class Side:
    """One framework, and what it measured."""

    def __init__(self, framework: str) -> None:
        engines = importlib.import_module(f"trainers.{framework}.engine")
        self.models = importlib.import_module(f"trainers.{framework}.models")
        self.framework = framework
        self.runtime = engines.Runtime(threads=2, use_gpu=False)
        self.measured: dict[str, np.ndarray] = {}

    def engine(self, *, seed: int = 0, **recipe: Any) -> Engine:
        task = Task(
            recipe=Recipe.model_validate(recipe),
            seed=seed,
            rank=0,
            world_size=1,
            image_shape=(32, 32, 3),
            num_classes=10,
            input_scale=np.full(3, 1 / 127.5, np.float32),
            input_offset=np.full(3, -1, np.float32),
        )
        return self.runtime.engine(task)  # type: ignore[no-any-return]

    def models_on_shared_weights(self) -> None:
        for name in BUILT_IN_MODELS:
            self.measured[f"parameters/{name}"] = np.array(self.engine(model=name).parameter_count())
            for shape in SHAPES:
                model = self.models.build_model(name, shape, 7)
                shapes = {key: weight.shape for key, weight in self.models.get_weights(model).items()}
                weights = initial_weights(shapes, init="glorot_uniform", seed=1)
                self.models.set_weights(model, weights)
                kept = self.models.get_weights(model)
                assert all(np.array_equal(kept[key], weights[key]) for key in weights)
                x = np.random.default_rng(2).normal(size=(3, *shape)).astype(np.float32)
                key = f"{name}/{'x'.join(map(str, shape))}"
                self.measured[f"outputs/{key}"] = self._forward(model, x)
                listed = {weight: list(value) for weight, value in sorted(shapes.items())}
                self.measured[f"shapes/{key}"] = np.array(json.dumps(listed))

    def _forward(self, model: Any, x: np.ndarray) -> np.ndarray:
        if self.framework == "keras":
            return np.asarray(model(x))
        import torch

        with torch.inference_mode():
            return np.asarray(model.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)))

    def updates_step_by_step(self) -> None:
        for place, optimizer in enumerate(OPTIMIZERS):
            engine = self.engine(optimizer=optimizer, loss={"label_smoothing": 0.1})
            rate = optimizer["learning_rate"]  # halved mid-way: a schedule must act at once
            steps = batches(rate) + batches(rate / 2)
            self.measured[f"losses/{place}"] = np.array([engine.train_epoch([step])[0] for step in steps])
            self.measured[f"logits/{place}"] = engine.predict(IMAGES)

    def batch_normalisation(self) -> None:
        engine = self.engine(model="resnet9", optimizer={"name": "sgd", "learning_rate": 0.01})
        losses = [engine.train_epoch([batch])[0] for batch in batches(0.01, steps=2)]
        self.measured["norm/losses"] = np.array(losses)
        self.measured["norm/logits"] = engine.predict(IMAGES[:32])

    def resumption(self) -> None:
        for model in ("tutorial_cnn", "resnet9"):
            whole = self.engine(model=model, optimizer="adamw")
            whole.train_epoch(batches(0.001, steps=4))
            first = self.engine(model=model, optimizer="adamw")
            first.train_epoch(batches(0.001, steps=2))
            halfway = first.state()
            second = self.engine(model=model, optimizer="adamw")
            second.load_state(halfway)
            second.train_epoch(batches(0.001, steps=4)[2:])
            expected, resumed = whole.state(), second.state()
            same = expected.keys() == resumed.keys() and all(
                np.array_equal(expected[name], resumed[name]) for name in expected
            )
            self.measured[f"resumed/{model}"] = np.array(same)

    def precision_and_seeds(self) -> None:
        for precision in ("float32", "bfloat16"):
            engine = self.engine(precision=precision)
            self.measured[f"precision/{precision}"] = np.array(engine.train_epoch(batches(0.001))[0])
            self.measured[f"dtype/{precision}"] = np.array(str(engine.predict(IMAGES[:4]).dtype))
        for seed in (0, 1):
            self.measured[f"seed/{seed}"] = self.engine(seed=seed).predict(IMAGES[:4])


def main(framework: str, output: str) -> None:
    side = Side(framework)
    side.models_on_shared_weights()
    side.updates_step_by_step()
    side.batch_normalisation()
    side.resumption()
    side.precision_and_seeds()
    np.savez(output, **side.measured)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
