"""The ways to connect the workers of a training function: Ray Train's trainers, by name.

Each is a callable that takes a training function and the keyword arguments that all of Ray's trainers share, and
returns a trainer with a `fit()`. Other packages add theirs through the entry point group `tandem.trainers`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

GROUP = "tandem.trainers"
TRAINERS = {
    "torch": "ray.train.torch:TorchTrainer",
    "tensorflow": "ray.train.tensorflow:TensorflowTrainer",
    "keras": "trainers.keras.trainer:keras_trainer",
    "jax": "ray.train.v2.jax:JaxTrainer",
    "none": "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer",
}
FRAMEWORKS = {"torch": "torch", "tensorflow": "keras", "keras": "keras"}
"""What has to be installed for a trainer, and whose random numbers are seeded."""


def trainer_names() -> list[str]:
    """The names of all trainers that are installed."""
    return [*TRAINERS, *sorted(entry.name for entry in entry_points(group=GROUP))]


def load_trainer(name: str) -> Any:
    """The trainer of a name, or the user's own as `package.module:function`."""
    installed = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    return load_function((installed | TRAINERS).get(name, name))


def load_function(name: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
