"""Clipped and accumulated gradients, and RMSprop, in both frameworks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from trainers.parity.update_rules import Moment, step
from trainers.recipes import Rmsprop

pytestmark = pytest.mark.trains

RMSPROP = {"name": "rmsprop", "learning_rate": 0.01, "momentum": 0.5, "epsilon": 1e-4}
CLIP = 0.05
DECAY = 0.1
SCRIPT = """
import sys
import numpy as np
from tests.unit.measure_engine import Side, steps
from tests.unit.test_habits import CLIP, DECAY, RMSPROP

framework, target = sys.argv[1:]
side = Side(framework)
sgd = {"name": "sgd", "learning_rate": 1.0}
recipes = {
    "plain": {"optimizer": sgd | {"learning_rate": 0.01}},
    "accumulated": {"optimizer": sgd | {"learning_rate": 0.01}, "accumulate": 3},
    "clipped": {"optimizer": sgd, "gradient_clip": CLIP},
    "decayed": {"optimizer": sgd | {"weight_decay": DECAY}, "gradient_clip": CLIP},
    "both": {"optimizer": sgd, "gradient_clip": CLIP, "accumulate": 5},
}
found = {}
for name, recipe in recipes.items():
    engine = side.engine(model="tutorial_cnn", **recipe)
    found |= {f"{name}/before/{key}": value for key, value in engine.weights().items()}
    rate = recipe["optimizer"]["learning_rate"]
    losses, right = engine.train_steps(steps(rate, last=1))
    found |= {f"{name}/after/{key}": value for key, value in engine.weights().items()}
    found |= {f"{name}/losses": losses, f"{name}/right": np.array(right)}
    losses, right = engine.train_steps(steps(rate, last=1, size=2))  # fewer examples than parts
    found |= {f"{name}/few": losses, f"{name}/few right": np.array(right)}
engine = side.engine(model="tutorial_cnn", optimizer=RMSPROP)
engine.train_steps(steps(0.01, last=2))
found |= {f"rmsprop/before/{key}": value for key, value in engine.neutral_state().items()}
_, gradients = engine.take_step(steps(0.01, first=2, last=3))
found |= {f"rmsprop/gradient/{key}": value for key, value in gradients.items()}
found |= {f"rmsprop/after/{key}": value for key, value in engine.neutral_state().items()}
np.savez(target, **found)
"""

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["keras", "torch"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Found]:
    target = tmp_path_factory.mktemp("habits") / "found.npz"
    command = [sys.executable, "-c", SCRIPT, request.param, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, dict(np.load(Path(target)))


def part(found: Found, prefix: str) -> Found:
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def moved(found: Found, name: str) -> Found:
    before, after = part(found, f"{name}/before/"), part(found, f"{name}/after/")
    return {key: after[key] - before[key] for key in before}


def norm(arrays: Found) -> float:
    return float(np.sqrt(sum(np.sum(value.astype(np.float64) ** 2) for value in arrays.values())))


def test_parts_of_a_batch_make_the_update_of_the_whole_batch(measured: tuple[str, Found]) -> None:
    _, found = measured
    for what in ("losses", "few"):
        assert found[f"accumulated/{what}"] == pytest.approx(found[f"plain/{what}"], rel=1e-4)
    assert found["accumulated/right"] == found["plain/right"]
    assert found["accumulated/few right"] <= 2
    whole, parts = moved(found, "plain"), moved(found, "accumulated")
    assert norm({key: parts[key] - whole[key] for key in whole}) < 1e-4 * norm(whole)


def test_the_norm_of_all_gradients_together_is_clipped(measured: tuple[str, Found]) -> None:
    _, found = measured
    assert 100 * norm(moved(found, "plain")) > CLIP, "or nothing is clipped"
    for name in ("clipped", "both"):
        assert norm(moved(found, name)) == pytest.approx(CLIP, rel=1e-3)
    weights, clipped = part(found, "decayed/before/"), moved(found, "clipped")
    for key, update in moved(
        found, "decayed"
    ).items():  # the decay is added after clipping, as PyTorch does it
        assert update == pytest.approx(clipped[key] - DECAY * weights[key], abs=1e-5)


def test_rmsprop_takes_the_step_of_its_own_rule(measured: tuple[str, Found]) -> None:
    framework, found = measured
    before, after = part(found, "rmsprop/before/"), part(found, "rmsprop/after/")
    for name, gradient in part(found, "rmsprop/gradient/").items():
        moment = Moment(
            weight=before[name],
            gradient=gradient,
            optimizer_state={kind: before[f"{name}#{kind}"] for kind in ("square", "velocity")},
            steps=2,
            rate=0.01,
            last_rate=0.01,
        )
        expected = step(framework, Rmsprop.model_validate(RMSPROP), moment)
        assert after[name] - before[name] == pytest.approx(expected["update"], abs=2e-6)
        for kind in ("square", "velocity"):
            assert after[f"{name}#{kind}"] == pytest.approx(expected[kind], rel=1e-3, abs=1e-5)
