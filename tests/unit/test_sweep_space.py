"""Search spaces in experiment files: what they mean, and one sentence for each that makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.experiment import reader, spec
from orchestrator.experiment import search_space as spaces
from orchestrator.experiment.sweep import Parameter, Sweep
from orchestrator.sweep.studies import make_sampler, make_study
from trainers.errors import InputError
from trainers.recipes import Recipe

SPACE: dict[str, Any] = {
    "optimizer.name": ["sgd", "adam"],
    "optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0, 0.9], "when": "optimizer.name == 'sgd'"},
    "batch_size": {"integer": [32, 128], "step": 32},
}


def load(tmp_path: Path, **changes: Any) -> spec.Experiment:
    experiment = {
        "name": "swept",
        "arms": {"keras": {"framework": "keras"}, "torch": {"framework": "torch"}},
        "data": {"source": "digits"},
        "sweep": {"space": SPACE, "budget": {"trials": 4}} | changes.pop("sweep", {}),
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment | changes, sort_keys=False))
    return reader.load(path)


def drawn(sweep: Sweep, count: int) -> list[dict[str, Any]]:
    study = make_study(sweep, "arm")
    study.sampler = make_sampler("random", 1)
    return [spaces.propose(study.ask(), Recipe(), sweep.space_of("arm")) for _ in range(count)]


def test_draws_stay_in_the_space_and_conditions_hold(tmp_path: Path) -> None:
    sweep = load(tmp_path).sweep
    assert sweep is not None
    for params in drawn(sweep, 100):
        recipe = spaces.recipe_with(Recipe(), params)
        assert recipe.optimizer.name == params["optimizer.name"]
        assert 1e-4 <= recipe.optimizer.learning_rate <= 1e-1
        assert recipe.batch_size in (32, 64, 96, 128)
        assert ("optimizer.momentum" in params) == (recipe.optimizer.name == "sgd")


def test_a_chosen_optimizer_starts_from_its_own_defaults() -> None:
    base = Recipe.model_validate({"optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9}})
    recipe = spaces.recipe_with(base, {"optimizer.name": "adam"})
    assert recipe.optimizer.learning_rate == 0.001


def test_a_grid_lists_every_combination_once() -> None:
    space = {
        "optimizer.name": Parameter(choice=["sgd", "adam"]),
        "optimizer.momentum": Parameter(uniform=(0.0, 0.9), step=0.3, when="optimizer.name == 'sgd'"),
        "batch_size": Parameter(integer=(1, 3)),
    }
    grid = list(spaces.grid(Recipe(), space))
    assert len(grid) == 4 * 3 + 3
    assert len({str(params) for params in grid}) == len(grid)
    momenta = {round(params["optimizer.momentum"], 6) for params in grid if "optimizer.momentum" in params}
    assert momenta == {0.0, 0.3, 0.6, 0.9}


def test_choices_may_be_whole_blocks() -> None:
    sweep = Sweep.model_validate({"space": {"whitening": [None, {"patch": 3, "stride": 1}]}})
    chosen = [spaces.recipe_with(Recipe(), params).whitening for params in drawn(sweep, 20)]
    assert None in chosen
    assert any(whitening is not None and whitening.stride == 1 for whitening in chosen)


def test_an_arm_has_its_own_space_and_budget(tmp_path: Path) -> None:
    own = {"torch": {"space": {"batch_size": None, "epochs": [1, 2]}, "budget": {"epochs": 9}}}
    sweep = load(tmp_path, sweep={"arms": own}).sweep
    assert sweep is not None
    assert "batch_size" in sweep.space_of("keras") and "batch_size" not in sweep.space_of("torch")
    assert sweep.budget_of("keras").trials == 4 and sweep.budget_of("torch").epochs == 9


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({"space": {}}, "has nothing to search"),
        ({"space": {"batch_sise": [1, 2]}}, "no recipe has such a field, did you mean 'batch_size'?"),
        ({"space": {"early_stopping.patience": [1, 2]}}, "trials are ended by the scheduler; leave it out"),
        ({"space": {"batch_size": {"integer": [9, 3]}}}, "the lower end is above the upper; write [3, 9]"),
        ({"space": {"optimizer.learning_rate": {"loguniform": [0, 1]}}}, "the logarithm of 0 does not exist"),
        ({"space": {"batch_size": []}}, "choice is empty"),
        ({"space": {"batch_size": [8, 8]}}, "has a value twice"),
        ({"space": {"batch_size": {"integer": [1, 2], "uniform": [1, 2]}}}, "exactly one of"),
        ({"space": {"batch_size": {"integer": [1, 2], "step": 5}}}, "wider than the range"),
        ({"space": {"optimizer.momentum": {"uniform": [0, 0.9]}}}, "does not exist there"),
        ({"space": {"optimizer.learning_rate": {"uniform": [-1, 1]}}}, "greater than 0"),
        (
            {"space": {"batch_size": {"integer": [1, 9], "when": "epochs > 3"}, "epochs": [1, 9]}},
            "chosen later; put epochs before it",
        ),
        ({"space": {"batch_size": {"integer": [1, 9], "when": "bathc > 3"}}}, "which no recipe has"),
        ({"space": {"batch_size": {"integer": [1, 9], "when": "batch_size >"}}}, "is not an expression"),
        ({"constraints": ["batch_size > 1000"]}, "none of 200 random trials of arm keras meets"),
        ({"constraints": ["batch_sise > 10"]}, "which no recipe has"),
        ({"constraints": ["open('x')"]}, "is not allowed"),
        ({"budget": {}}, "budget is empty"),
        ({"budget": {"trials": 0}}, "greater than 0"),
        ({"budget": {"cost": 3}}, "set scale.price_per_worker_hour"),
        ({"search": "gird"}, "did you mean 'grid'?"),
        ({"search": "grid"}, "a grid needs values to list"),
        ({"search": "cmaes"}, "search cmaes takes numbers only"),
        ({"scheduler": "ahsa"}, "did you mean 'asha'?"),
        ({"scheduler": "pbt"}, "cannot change within a run"),
        ({"search": "bohb", "scheduler": "asha"}, "search bohb goes with hyperband"),
        ({"objective": ["validation_accuracy", "train_seconds"], "scheduler": "asha"}, "a single objective"),
        ({"objective": "train_seconds", "scheduler": "asha"}, "judges trials after each epoch"),
        ({"objective": "accuracy"}, "did you mean 'validation_accuracy'?"),
        ({"points": [{"epochs": 3}]}, "is not in the space"),
        ({"arms": {"keres": {}}}, "did you mean 'keras'?"),
    ],
)
def test_what_makes_no_sense_gets_one_sentence(tmp_path: Path, sweep: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, sweep=sweep)
    message = str(caught.value)
    assert sentence in message
    assert len(message.splitlines()) == 1
    assert "sweep" in message and "experiment.yaml:" in message


def test_trials_need_a_validation_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.validation above 0"):
        load(tmp_path, data={"source": "digits", "validation": 0})


def test_batches_must_divide_over_the_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not divide over 3 workers"):
        load(tmp_path, scale={"workers": 3}, defaults={"batch_size": 48})
