"""Recipes that an arm can start from by name."""

from __future__ import annotations

from typing import Any

NAMED_RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "tutorial": {
        "keras": {
            "model": "tutorial_cnn",
            "optimizer": {"name": "adam", "learning_rate": 0.001, "epsilon": 1e-7},
            "inputs": "unit",
            "batch_size": 32,
            "epochs": 10,
        },
        "torch": {
            "model": "lenet5",
            "init": "fan_in_uniform",
            "optimizer": {"name": "sgd", "learning_rate": 0.001, "momentum": 0.9},
            "inputs": "symmetric",
            "batch_size": 4,
            "epochs": 10,
        },
    },
}
_FAST: dict[str, Any] = {
    "model": "speednet",
    "whitening": {"patch": 3, "stride": 2},
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.3,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-3,
        "decoupled": True,
    },
    "schedule": {"name": "one_cycle", "warmup": 0.25},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "augmentation": {"flip": True, "crop": 2},
    "batch_size": 128,
    "epochs": 4,
    "precision": "auto",
    "test_time_augmentation": {"flip": True},
}
NAMED_RECIPES["fast"] = {"keras": _FAST, "torch": _FAST}
NAMED_RECIPES["defaults"] = {
    "keras": {
        "optimizer": {"name": "adam", "learning_rate": 0.001, "epsilon": 1e-7},
        "init": "framework",
        "batch_norm": {"momentum": 0.99, "epsilon": 1e-3},
    },
    "torch": {
        "optimizer": {"name": "adam", "learning_rate": 0.001, "epsilon": 1e-8},
        "init": "framework",
        "batch_norm": {"momentum": 0.9, "epsilon": 1e-5},
    },
}
"""Starting points of an arm by name: `tutorial` as each framework's tutorial was published; `fast` after the speed
runs on CIFAR-10 (Page, 2018; Jordan, 2024), the same for both; `defaults` with what each framework does when its
user says nothing."""
