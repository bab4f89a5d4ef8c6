"""Shares of a gap: exact on planted effects, summing to the gap, whatever the interactions."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from orchestrator import report
from orchestrator.analysis import attribution, compare
from orchestrator.analysis.attribution import Plan
from orchestrator.experiment import reader, spec
from orchestrator.store.records import ExperimentRecords
from tests.unit.synthetic import make_records
from trainers.errors import InputError

BLOG = {
    "name": "blog",
    "data": {"source": "digits"},
    "arms": {
        "keras": {"framework": "keras", "seeds": [0, 1, 2]},
        "torch": {
            "framework": "torch",
            "seeds": [0, 1, 2],
            "model": "lenet5",
            "batch_size": 4,
            "optimizer": {"name": "sgd", "learning_rate": 0.001},
        },
    },
}


def expanded(most_recipes: int = 16, **changes: object) -> tuple[spec.Experiment, Plan]:
    return attribution.expand(reader.load_mapping(BLOG | changes), most_recipes=most_recipes)


def effects(plan: Plan, seed: int, *, interaction: float = 0.0, noise: float = 0.0) -> dict[str, float]:
    """Accuracies in which each factor costs a planted amount when it is as in the second arm."""
    planted = {"framework": 0.002, "network": 0.05, "optimizer": 0.01, "batch size": -0.02}
    generator = np.random.default_rng(seed)
    values = {}
    for arm, choice in plan.choices.items():
        both = interaction if {"network", "optimizer"} <= choice else 0.0
        values[arm] = 0.7 - sum(planted[f] for f in choice) - both + generator.normal(0, noise)
    return values


def found(plan: Plan, seeds: int = 3, **options: float) -> attribution.Attribution:
    by_arm: dict[str, dict[int, float]] = {arm: {} for arm in plan.choices}
    for seed in range(seeds):
        for arm, value in effects(plan, seed, **options).items():
            by_arm[arm][seed] = value
    speeds = {
        arm: dict.fromkeys(range(seeds), 1000.0 / 2 ** ("network" in c)) for arm, c in plan.choices.items()
    }
    return attribution.attribute(plan, by_arm, speeds)


def test_every_crossing_is_an_arm_of_its_own() -> None:
    experiment, plan = expanded()
    assert plan.factors == ["framework", "network", "optimizer", "batch size"]
    assert len(experiment.arms) == 16 and plan.orders == []
    names = list(experiment.arms)
    assert (names[0], names[-1]) == ("keras", "torch")
    crossed = experiment.arms["mix-0101"]
    assert (crossed.framework, crossed.model, crossed.batch_size) == ("keras", "lenet5", 4)
    assert crossed.optimizer.name == "adam"
    assert attribution.describe(plan, "mix-0101") == "keras with torch's network, batch size"
    assert Plan.from_json(plan.to_json()) == plan


def test_a_network_of_ones_own_goes_with_its_framework() -> None:
    arms = {
        "keras": {"framework": "keras", "model": "mine:in_keras", "seeds": 2},
        "torch": {"framework": "torch", "model": "mine:in_torch", "seeds": 2, "batch_size": 64},
    }
    experiment, plan = expanded(arms=arms)
    assert plan.factors == ["framework and network", "batch size"]
    assert {(arm.framework, arm.model) for arm in experiment.arms.values()} == {
        ("keras", "mine:in_keras"),
        ("torch", "mine:in_torch"),
    }
    assert len(experiment.arms) == 4


def test_an_optimizer_and_a_loss_of_ones_own_go_with_their_framework() -> None:
    arms = {
        "keras": {"framework": "keras", "optimizer": "mine:keras_optimizer", "seeds": 2},
        "torch": {"framework": "torch", "loss": "mine:torch_loss", "seeds": 2, "batch_size": 64},
    }
    _, plan = expanded(arms=arms)
    assert plan.factors == ["framework and optimizer and loss", "batch size"]


@pytest.mark.parametrize("most_recipes", [16, 12])
def test_planted_shares_are_found_and_sum_to_the_gap(most_recipes: int) -> None:
    _, plan = expanded(most_recipes)
    assert bool(plan.orders) == (most_recipes < 16) and len(plan.choices) <= most_recipes
    result = found(plan)
    shares = {share.factor: share.accuracy.mean for share in result.shares}
    assert shares == pytest.approx(
        {"framework": 0.002, "network": 0.05, "optimizer": 0.01, "batch size": -0.02}
    )
    speeds = {share.factor: share.speed_ratio for share in result.shares}
    assert speeds == pytest.approx({"framework": 1, "network": 2, "optimizer": 1, "batch size": 1})


@pytest.mark.parametrize("most_recipes", [16, 12])
def test_an_interaction_is_shared_and_the_sum_stays_exact(most_recipes: int) -> None:
    _, plan = expanded(most_recipes)
    result = found(plan, interaction=0.03, noise=0.01)
    assert sum(share.accuracy.mean for share in result.shares) == pytest.approx(result.gap.mean)
    if most_recipes == 16:
        exact = {share.factor: share.accuracy.mean for share in found(plan, interaction=0.03).shares}
        assert exact["network"] == pytest.approx(0.065) and exact["optimizer"] == pytest.approx(0.025)


def test_intervals_hold_the_planted_share_at_their_rate() -> None:
    _, plan = expanded()
    held = []
    for experiment in range(200):
        generator = np.random.default_rng(experiment)
        by_arm = {
            arm: {seed: 0.7 - 0.05 * ("network" in choice) + generator.normal(0, 0.01) for seed in range(3)}
            for arm, choice in plan.choices.items()
        }
        shares = attribution.attribute(plan, by_arm, {}).shares
        interval = next(share.accuracy for share in shares if share.factor == "network")
        held.append(interval.low <= 0.05 <= interval.high)
    assert np.mean(held) > 0.9


def test_what_cannot_be_taken_apart_gets_one_sentence() -> None:
    arms = {name: dict(arm) for name, arm in BLOG["arms"].items()}
    with pytest.raises(InputError, match="differ in nothing"):
        expanded(arms={"a": arms["keras"], "b": arms["keras"]})
    with pytest.raises(InputError, match="same two seeds or more"):
        expanded(arms={"keras": arms["keras"] | {"seeds": [0]}, "torch": arms["torch"]})
    with pytest.raises(InputError, match="but there are 3"):
        expanded(arms=arms | {"third": arms["torch"]})


def recorded(tmp_path: Path, *, step_seconds: float = 1.0) -> ExperimentRecords:
    """Records of a whole attribution."""
    experiment, plan = expanded()
    accuracies = {arm: [effects(plan, s, noise=0.001)[arm] for s in range(3)] for arm in plan.choices}
    arms = {name: arm.model_dump(exclude={"seeds"}) for name, arm in experiment.arms.items()}
    records = make_records(tmp_path / "blog", accuracies, arms=arms, step_seconds=step_seconds)
    document = records.document()
    document["attribution"] = {"plan": plan.to_json(), "experiment": experiment.model_dump(mode="json")}
    records.storage.write_json("experiment.json", document)
    return records


def test_the_report_says_whose_the_gap_is(tmp_path: Path) -> None:
    records = recorded(tmp_path)
    comparison = report.write(records)
    assert len(comparison.pairs) == 1, "the recipes in between are not compared with each other"
    assert "keras is more accurate than torch" in comparison.answer
    assert "network +5.0" in comparison.answer and "The framework itself" in comparison.answer
    page = (tmp_path / "blog/report/report.html").read_text()
    assert "Where the gap comes from" in page and "all 16 recipes" in page
    markdown = (tmp_path / "blog/report/report.md").read_text()
    assert "| network | +5." in markdown
    told = comparison.to_json()["attribution"]
    assert sum(share["accuracy"]["mean"] for share in told["shares"]) == pytest.approx(told["gap"]["mean"])


def test_a_recipe_without_a_result_is_said(tmp_path: Path) -> None:
    records = recorded(tmp_path)
    for run in itertools.islice((tmp_path / "blog/runs").glob("mix-0100-seed*"), 3):
        (run / "result.json").unlink()
    comparison = compare.analyse(records)
    assert "1 of 16 recipes have no result" in comparison.answer
    assert comparison.attribution is not None and not comparison.attribution.shares


def test_speeds_from_too_little_training_are_not_taken_apart(tmp_path: Path) -> None:
    timed, brief = (
        compare.analyse(recorded(tmp_path / name, step_seconds=seconds))
        for name, seconds in (("timed", 1.0), ("brief", 0.1))
    )
    assert timed.attribution is not None and all(share.log_speed for share in timed.attribution.shares)
    assert brief.attribution is not None and len(brief.attribution.shares) == len(timed.attribution.shares)
    assert not any(share.log_speed for share in brief.attribution.shares)
