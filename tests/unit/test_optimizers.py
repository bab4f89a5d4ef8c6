"""A recipe's optimizer is an instance of the framework's own class, and its state goes from one to the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.trains

RECIPES: list[dict[str, Any]] = [
    {"name": "sgd", "learning_rate": 0.02},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.1, "decoupled": True},
    {"name": "adam", "learning_rate": 0.002, "beta_1": 0.8, "epsilon": 1e-3, "weight_decay": 0.1},
    {"name": "adamw", "learning_rate": 0.002, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1},
    {
        "name": "rmsprop",
        "learning_rate": 0.002,
        "rho": 0.8,
        "momentum": 0.5,
        "epsilon": 1e-3,
        "weight_decay": 0.1,
    },
]
SCRIPT = """
import json, sys
import numpy as np
from tests.unit.measure_engine import Side, steps
from tests.unit.test_optimizers import RECIPES

framework, directory, other = sys.argv[1:]
side = Side(framework)
for place, optimizer in enumerate(RECIPES):
    engine = side.engine(model="speednet", optimizer=optimizer)
    if other:
        engine.load_neutral_state(dict(np.load(f"{directory}/{other}-{place}.npz")))
    else:
        engine.train_steps(steps(optimizer["learning_rate"], last=2))
    np.savez(f"{directory}/{framework}-{place}.npz", **engine.neutral_state())
    kind = type(engine._optimizer)
    if framework == "keras":
        config = engine._optimizer.get_config()
        options = {key: config[key] for key in config if key in (
            "momentum", "nesterov", "weight_decay", "beta_1", "beta_2", "epsilon", "rho", "use_ema")}
    else:
        options = {key: value for key, value in engine._optimizer.defaults.items() if key in (
            "momentum", "nesterov", "weight_decay", "betas", "eps", "alpha", "fused", "lr")}
    print(json.dumps([kind.__module__.split(".")[0], kind.__name__, options]))
"""


def run(framework: str, directory: Path, other: str = "") -> list[Any]:
    """The class and options of every optimizer, whose states lie in the directory afterwards."""
    command = [sys.executable, "-c", SCRIPT, framework, str(directory), other]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Any]], Path]:
    """Keras trains, PyTorch takes over its state, and Keras takes over PyTorch's."""
    directory = tmp_path_factory.mktemp("optimizers")
    keras = run("keras", directory)
    for place in range(len(RECIPES)):
        (directory / f"keras-{place}.npz").rename(directory / f"first-{place}.npz")
    torch = run("torch", directory, "first")
    run("keras", directory, "torch")
    return {"keras": keras, "torch": torch}, directory


def test_keras_optimizers_are_keras_own(built: tuple[dict[str, list[Any]], Path]) -> None:
    sgd = {"weight_decay": None, "use_ema": False, "momentum": 0.0, "nesterov": False}
    adam = {"weight_decay": None, "use_ema": False, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
    assert built[0]["keras"] == [
        ["keras", "SGD", sgd],
        [
            "keras",
            "SGD",
            sgd | {"momentum": 0.9, "nesterov": True},
        ],  # the coupled decay is a term of the loss
        ["keras", "SGD", sgd | {"momentum": 0.9, "weight_decay": 0.1}],
        ["keras", "Adam", adam | {"beta_1": 0.8}],
        ["keras", "AdamW", adam | {"beta_2": 0.9, "weight_decay": 0.1}],
        [
            "keras",
            "RMSprop",
            {"weight_decay": None, "use_ema": False, "rho": 0.8, "momentum": 0.5, "epsilon": 1e-3},
        ],
    ]


def test_pytorch_optimizers_are_pytorchs_own(built: tuple[dict[str, list[Any]], Path]) -> None:
    sgd = {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "fused": True}
    adam = {"lr": 0.002, "weight_decay": 0.1, "betas": [0.9, 0.999], "eps": 1e-3, "fused": True}
    assert built[0]["torch"] == [
        ["torch", "SGD", sgd],
        ["torch", "SGD", sgd | {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}],
        ["torch", "SGD", sgd | {"momentum": 0.9}],  # the decoupled decay comes before the step
        ["torch", "Adam", adam | {"betas": [0.8, 0.999]}],
        ["torch", "AdamW", adam | {"betas": [0.9, 0.9]}],
        ["torch", "RMSprop", {"lr": 0.002, "alpha": 0.8, "momentum": 0.5, "eps": 1e-3, "weight_decay": 0.1}],
    ]


@pytest.mark.parametrize("place", range(len(RECIPES)))
def test_a_state_survives_the_way_to_the_other_framework_and_back(
    built: tuple[dict[str, list[Any]], Path], place: int
) -> None:
    first, torch, keras = (
        dict(np.load(built[1] / f"{name}-{place}.npz")) for name in ("first", "torch", "keras")
    )
    names = {key.partition("#")[2] for key in first if "#" in key}
    kept = {"sgd": {"velocity"} if place else set(), "rmsprop": {"square", "velocity"}}
    expected = kept.get(RECIPES[place]["name"], {"mean", "square"})
    assert names == expected | {"steps"}
    if names - {"steps"}:
        assert any(first[key].any() for key in first if key.startswith("dense.kernel#"))
    for name, value in first.items():
        if name != "#steps" or "mean" in names:  # PyTorch's SGD counts no steps
            assert np.allclose(torch[name], value, rtol=1e-6, atol=0), name
            assert np.allclose(keras[name], value, rtol=1e-5, atol=0), name
