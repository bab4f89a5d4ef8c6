"""Shares of a gap: exact on planted effects, summing to the gap, whatever the interactions."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from orchestrator import report
from orchestrator.analysis import attribution, compare, results
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.statistics.inference import Scores
from orchestrator.experiment import reader, spec
from orchestrator.planning import crossings
from orchestrator.planning.crossings import Plan
from orchestrator.store.records import ExperimentRecords
from tests.unit.synthetic import make_records
from trainers.errors import InputError

METRIC = metrics.known("test_accuracy")
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
    return crossings.expand(reader.load_mapping(BLOG | changes), most_recipes=most_recipes)


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
    return attribution.attribute(
        plan, METRIC, {arm: Scores(values) for arm, values in by_arm.items()}, speeds
    )


def test_every_crossing_is_an_arm_of_its_own() -> None:
    experiment, plan = expanded()
    assert plan.factors == ["framework", "network", "optimizer", "batch size"]
    assert len(experiment.arms) == 16 and plan.orders == []
    names = list(experiment.arms)
    assert (names[0], names[-1]) == ("keras", "torch")
    crossed = experiment.arms["mix-0101"]
    assert (crossed.framework, crossed.model, crossed.batch_size) == ("keras", "lenet5", 4)
    assert crossed.optimizer.name == "adam"
    assert crossings.describe(plan, "mix-0101") == "keras with torch's network, batch size"
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
    shares = {share.factor: share.score.mean for share in result.shares}
    assert shares == pytest.approx(
        {"framework": 0.002, "network": 0.05, "optimizer": 0.01, "batch size": -0.02}
    )
    speeds = {share.factor: share.speed_ratio for share in result.shares}
    assert speeds == pytest.approx({"framework": 1, "network": 2, "optimizer": 1, "batch size": 1})


@pytest.mark.parametrize("most_recipes", [16, 12])
def test_an_interaction_is_shared_and_the_sum_stays_exact(most_recipes: int) -> None:
    _, plan = expanded(most_recipes)
    result = found(plan, interaction=0.03, noise=0.01)
    assert sum(share.score.mean for share in result.shares) == pytest.approx(result.gap.mean)
    if most_recipes == 16:
        exact = {share.factor: share.score.mean for share in found(plan, interaction=0.03).shares}
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
        shares = attribution.attribute(plan, METRIC, {arm: Scores(v) for arm, v in by_arm.items()}, {}).shares
        truths = {"network": 0.05}
        held.append(
            all(share.score.low <= truths.get(share.factor, 0.0) <= share.score.high for share in shares)
        )
    assert np.mean(held) >= 0.9, "all four together; 95 % is stated, of 200"


def large(factors: int, most_recipes: int) -> tuple[spec.Experiment, Plan]:
    """Two arms that differ in so many factors."""
    changes = {
        "framework": "torch",
        "model": "lenet5",
        "batch_size": 4,
        "optimizer": {"name": "sgd", "learning_rate": 0.001},
        "inputs": "symmetric",
        "loss": {"label_smoothing": 0.1},
        "epochs": 3,
        "precision": "bfloat16",
    }
    second = dict(list(changes.items())[:factors])
    arms = {
        "keras": {"framework": "keras", "seeds": [0, 1, 2]},
        "torch": {"framework": "keras", "seeds": [0, 1, 2]} | second,
    }
    return expanded(most_recipes, arms=arms)


def valued(plan: Plan, seed: int, *, three_way: float = 0.0) -> dict[str, float]:
    """Single effects, effects of two and of three factors together, and a seed's own level."""
    first, second, third = plan.factors[:3]
    effects = {factor: 0.001 * (place + 1) for place, factor in enumerate(plan.factors)}
    return {
        arm: 0.7
        + 0.01 * seed
        - sum(effects[factor] for factor in choice)
        - 0.02 * ({first, second} <= choice)
        - three_way * ({first, second, third} <= choice)
        for arm, choice in plan.choices.items()
    }


def shares_of(plan: Plan, **options: float) -> attribution.Attribution:
    by_seed = [valued(plan, seed, **options) for seed in range(3)]
    scores = {arm: Scores({seed: values[arm] for seed, values in enumerate(by_seed)}) for arm in plan.choices}
    return attribution.attribute(plan, METRIC, scores, {})


def test_a_fraction_finds_single_factors_and_pairs() -> None:
    _, plan = large(5, 17)
    assert plan.is_fraction and not plan.orders and len(plan.choices) == 17
    assert Plan.from_json(plan.to_json()) == plan
    result = shares_of(plan)
    shares = {share.factor: share.score.mean for share in result.shares}
    expected = {factor: 0.001 * (place + 1) for place, factor in enumerate(plan.factors)}
    expected[plan.factors[0]] += 0.01
    expected[plan.factors[1]] += 0.01
    assert shares == pytest.approx(expected), "an interaction is shared alike"
    assert result.remainder == pytest.approx(0, abs=1e-12)
    strongest = result.interactions[0]
    assert set(strongest.factors) == set(plan.factors[:2])
    assert strongest.score.mean == pytest.approx(0.02)
    assert all(abs(found.score.mean) < 1e-12 for found in result.interactions[1:])


def test_what_a_fraction_cannot_see_is_told_as_the_remainder() -> None:
    _, plan = large(5, 20)
    result = shares_of(plan, three_way=0.03)
    assert sum(share.score.mean for share in result.shares) + result.remainder == pytest.approx(
        result.gap.mean
    )
    assert abs(result.remainder) > 1e-4
    assert "interactions of three factors and more" in attribution.sentence(result)


def test_the_design_with_the_fewest_recipes_is_trained() -> None:
    for factors, most in ((4, 16), (5, 32), (5, 31), (5, 17), (5, 16), (6, 32), (8, 60)):
        _, plan = large(factors, most)
        assert len(plan.choices) <= most
        assert plan.is_fraction == (factors == 5 and 17 <= most < 32)
        assert bool(plan.orders) == (2**factors > most and not plan.is_fraction)


def test_full_crossings_show_interactions() -> None:
    _, plan = expanded()
    result = found(plan, interaction=0.03)
    by_pair = {frozenset(entry.factors): entry.score.mean for entry in result.interactions}
    assert by_pair.pop(frozenset({"network", "optimizer"})) == pytest.approx(0.03)
    assert all(abs(value) < 1e-12 for value in by_pair.values())


def test_fewer_than_three_pairs_of_orders_give_no_interval() -> None:
    _, plan = expanded(12)
    assert 0 < len(plan.pairs_of_orders) < crossings.LEAST_PAIRS
    result = found(plan, noise=0.01)
    assert all(share.score.low is None for share in result.shares)
    assert not result.interactions
    assert "There is no interval" in attribution.sentence(result)


def test_sampled_orders_widen_the_interval() -> None:
    _, plan = large(6, 31)
    assert len(plan.pairs_of_orders) >= crossings.LEAST_PAIRS or not plan.orders
    orders = crossings.sampled_orders(plan.factors, 31, 0, least=3)
    choices = {
        f"arm{place}": choice for place, choice in enumerate(sorted(crossings.along(orders), key=sorted))
    }
    plan = Plan(first="a", second="b", factors=plan.factors, orders=orders, choices=choices)
    assert len(plan.pairs_of_orders) >= 3
    generator = np.random.default_rng(0)
    by_arm = {
        arm: Scores({seed: 0.7 - 0.02 * len(choice) + generator.normal(0, 0.002) for seed in range(4)})
        for arm, choice in choices.items()
    }
    result = attribution.attribute(plan, METRIC, by_arm, {})
    alone = attribution.attribute(
        Plan(first="a", second="b", factors=plan.factors, orders=orders[:2], choices=choices),
        METRIC,
        by_arm,
        {},
    )
    assert all(share.score.low is not None for share in result.shares)
    assert all(share.score.low is None for share in alone.shares)
    assert all(
        share.score.low < 0.02 < share.score.high
        for share in result.shares
        if share.score.low is not None and share.score.high is not None
    )


def test_shares_count_the_test_images_as_well() -> None:
    """Recipes that predict alike with every seed still leave the sampling of the images."""
    _, plan = expanded()
    right = np.zeros((3, 400), bool)
    right[:, :280] = True
    worse = right.copy()
    worse[:, :40] = False
    scores = {
        arm: Scores({seed: float(own.mean()) for seed, own in enumerate(items)}, items)
        for arm, items in (
            (arm, worse if "network" in choice else right) for arm, choice in plan.choices.items()
        )
    }
    result = attribution.attribute(plan, METRIC, scores, {})
    network = next(share.score for share in result.shares if share.factor == "network")
    assert network.mean == pytest.approx(0.1)
    assert network.low is not None and network.high is not None
    error = np.sqrt(0.1 * 0.9 / 399)
    assert network.high - network.low == pytest.approx(2 * 2.51 * error, rel=0.01), (
        "Bonferroni over four factors"
    )


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
    assert "keras is more accurate than torch" in comparison.conclusion
    assert "network +5.0" in comparison.conclusion and "The framework's own share" in comparison.conclusion
    page = (tmp_path / "blog/report/report.html").read_text()
    assert "Where the gap comes from" in page and "all 16 recipes" in page
    markdown = (tmp_path / "blog/report/report.md").read_text()
    assert "| network | +5." in markdown
    told = results.document(comparison)["attribution"]
    assert sum(share["score"]["mean"] for share in told["shares"]) == pytest.approx(told["gap"]["mean"])


def test_a_recipe_without_a_result_is_said(tmp_path: Path) -> None:
    records = recorded(tmp_path)
    for run in itertools.islice((tmp_path / "blog/runs").glob("mix-0100-seed*"), 3):
        (run / "result.json").unlink()
    comparison = compare.analyse(records)
    assert "1 of 16 recipes have no result" in comparison.conclusion
    assert comparison.attribution is not None and not comparison.attribution.shares


def test_speeds_from_too_little_training_are_not_taken_apart(tmp_path: Path) -> None:
    timed, brief = (
        compare.analyse(recorded(tmp_path / name, step_seconds=seconds))
        for name, seconds in (("timed", 1.0), ("brief", 0.1))
    )
    assert timed.attribution is not None and all(share.log_speed for share in timed.attribution.shares)
    assert brief.attribution is not None and len(brief.attribution.shares) == len(timed.attribution.shares)
    assert not any(share.log_speed for share in brief.attribution.shares)
