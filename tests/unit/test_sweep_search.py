"""The searcher that Ray Tune asks, driven as Ray Tune drives it: order, seeds, budgets, new starts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.experiment.sweep import Params, Sweep
from orchestrator.store.storage import Storage
from orchestrator.store.trial_records import SearchRecords, TrialRecord, best_trial
from orchestrator.sweep.schedulers import Explorer
from orchestrator.sweep.searcher import FINISHED, ArmSearcher, Spending
from orchestrator.sweep.studies import study_of
from orchestrator.sweep.trial import Search
from trainers.recipes import Recipe

SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]},
    "batch_size": {"integer": [32, 256], "step": 32},
}
EPOCHS = 2


class Bench:
    """One arm's search in a directory, with made-up results instead of training."""

    def __init__(self, root: Path, *, at_once: int = 1, known: list[TrialRecord] | None = None, **sweep: Any):
        self.sweep = Sweep.model_validate({"space": SPACE, "budget": {"trials": 12}} | sweep)
        self.records = SearchRecords(Storage(str(root)))
        history = self.records.history()
        self.records.begin()
        recipe = Recipe(epochs=EPOCHS)
        self.spending = Spending(self.sweep.budget_of("arm"), history, None)
        search = Search(
            arm="arm",
            framework="torch",
            recipe=recipe,
            seed=7,
            storage_url=str(root),
            replays_epochs=True,
        )
        self.released: list[str] = []
        self.searcher = ArmSearcher(
            self.sweep,
            search,
            self.sweep.space_of("arm"),
            records=self.records,
            history=history,
            known=known or [],
            spending=self.spending,
            release=self.released.append,
        )
        self.searcher.at_once = at_once
        self.suggested: list[Params] = []
        self.asked = 0

    def ask(self) -> tuple[str, Any]:
        self.asked += 1
        return f"tune{self.asked}", self.searcher.suggest(f"tune{self.asked}")

    def trial(self, *, epochs: int = EPOCHS, end: bool = True, cause: str | None = None) -> bool:
        """One trial to its end; False when there is none left."""
        trial_id, config = self.ask()
        if config == FINISHED:
            return False
        self.suggested.append(config["params"])
        run = self.searcher.trials[trial_id].run
        if cause is not None:
            result: dict[str, Any] = {"run": run, "end": "failed", "cause": cause}
            self.searcher.on_trial_complete(trial_id, result)
            return True
        for epoch in range(1, epochs + 1):
            result = {"run": run, "epoch": epoch, "slot": "0-x"} | measured(config["params"], epoch)
            if epoch == EPOCHS:
                result["end"] = "done"
            self.searcher.on_trial_result(trial_id, result)
        if end:
            self.searcher.on_trial_complete(trial_id, result)
        return True

    def all(self) -> list[Params]:
        while self.trial():
            pass
        self.searcher.close()
        return self.suggested


def measured(params: Params, epoch: int) -> dict[str, float]:
    accuracy = 0.9 - abs(params.get("optimizer.learning_rate", 0.01) - 0.01) - 0.1 / epoch
    return {
        "validation_accuracy": accuracy,
        "validation_balanced_accuracy": accuracy,
        "validation_loss": 1 - accuracy,
        "train_loss": 1.0,
        "train_accuracy": accuracy,
        "images_per_second": 1000.0,
        "data_seconds": 0.5,
        "step_seconds": 1.0,
        "evaluation_seconds": 0.25,
    }


@pytest.mark.parametrize("search", ["random", "tpe", "cmaes", "nsga2"])
def test_one_seed_gives_the_same_trials_however_often_the_driver_starts(tmp_path: Path, search: str) -> None:
    whole = Bench(tmp_path / "whole", search=search).all()
    assert len(whole) == 12
    assert len({str(params) for params in whole}) > 6

    interrupted = Bench(tmp_path / "parts", search=search)
    for _ in range(5):
        interrupted.trial()
    interrupted.trial(epochs=1, end=False)
    interrupted.records.flush()
    resumed = Bench(tmp_path / "parts", search=search).all()
    assert resumed == whole
    history = SearchRecords(Storage(str(tmp_path / "parts"))).history()
    assert [trial.params for trial in history.trials] == whole
    assert [len(trial.epochs) for trial in history.trials] == [EPOCHS] * 12
    assert {trial.state for trial in history.trials} == {"done"}
    other = Bench(tmp_path / "other", search=search, seed=1).all()
    assert other != whole


def test_a_larger_budget_goes_on_where_the_search_ended(tmp_path: Path) -> None:
    first = Bench(tmp_path, budget={"trials": 5}).all()
    more = Bench(tmp_path, budget={"trials": 9}).all()
    assert more[:5] == first and len(more) == 9


def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 60})
    errors = [abs(params["optimizer.learning_rate"] - 0.01) for params in bench.all()]
    assert sum(errors[40:]) < sum(errors[:20])
    best = best_trial(bench.records.history().trials, bench.sweep)
    assert best is not None
    assert abs(best.params["optimizer.learning_rate"] - 0.01) == min(errors)


def test_grid_and_given_points_come_in_order_and_end(tmp_path: Path) -> None:
    space = {"batch_size": [64, 128], "epochs": [1, 2]}
    points = [{"batch_size": 128, "epochs": 2}]
    bench = Bench(tmp_path / "a", space=space, search="grid", points=points, budget={"trials": 99})
    suggested = [tuple(params.values()) for params in bench.all()]
    assert suggested == [(128, 2), (64, 1), (64, 2), (128, 1), (128, 2)]
    constrained = Bench(
        tmp_path / "b", space=space, search="grid", constraints=["batch_size * epochs <= 128"]
    )
    assert [tuple(params.values()) for params in constrained.all()] == [(64, 1), (64, 2), (128, 1)]


def test_no_more_trials_than_lanes_are_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, at_once=2)
    assert bench.ask()[1]["number"] == 0
    assert bench.ask()[1]["number"] == 1
    assert bench.ask()[1] is None
    bench.searcher.on_pause("tune1")
    assert bench.released == [bench.searcher.trials["tune1"].run]
    assert bench.ask()[1]["number"] == 2


@pytest.mark.parametrize(
    ("budget", "trials"), [({"trials": 3}, 3), ({"epochs": 7}, 4), ({"minutes": 1e-9}, 0)]
)
def test_a_budget_ends_the_search(tmp_path: Path, budget: dict[str, Any], trials: int) -> None:
    assert len(Bench(tmp_path, budget=budget).all()) == trials


def test_a_budget_of_money_counts_the_workers_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"cost": 0.01})
    bench.searcher.spending = Spending(bench.sweep.budget, bench.records.history(), 3.6)
    assert len(bench.all()) == 3, "a trial of 3.5 s costs 0.0035"


def test_constraints_are_never_broken(tmp_path: Path) -> None:
    constraint = "batch_size * optimizer.learning_rate < 0.5"
    suggested = Bench(tmp_path, budget={"trials": 40}, constraints=[constraint]).all()
    assert len(suggested) == 40
    assert all(params["batch_size"] * params["optimizer.learning_rate"] < 0.5 for params in suggested)


def test_first_trials_that_all_fail_the_same_way_end_the_search(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(3):
        assert bench.searcher.same_failure is None
        bench.trial(cause=f"ValueError: shape ({number}, 3) does not fit")
    assert bench.searcher.same_failure == "ValueError: shape (0, 3) does not fit"
    assert bench.searcher.is_over and bench.ask()[1] == FINISHED


def test_failures_of_several_kinds_do_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for cause in ("ValueError: shape 1", "out of memory", "ValueError: shape 2", "out of memory"):
        bench.trial(cause=cause)
    assert not bench.searcher.is_over


def test_an_earlier_search_is_known_but_not_counted(tmp_path: Path) -> None:
    earlier = Bench(tmp_path / "earlier", budget={"trials": 30})
    earlier.all()
    bench = Bench(tmp_path / "later", budget={"trials": 8}, known=earlier.records.history().trials)
    errors = [abs(params["optimizer.learning_rate"] - 0.01) for params in bench.all()]
    assert len(errors) == 8
    cold = [abs(p["optimizer.learning_rate"] - 0.01) for p in Bench(tmp_path / "cold").all()[:8]]
    assert sum(errors) < sum(cold), "it begins where the earlier one ended"


def test_an_earlier_search_that_did_not_measure_the_objective_is_passed_over(tmp_path: Path) -> None:
    earlier = Bench(tmp_path / "earlier", budget={"trials": 3})
    earlier.all()
    known = earlier.records.history().trials
    for trial in known:
        for epoch in trial.epochs:
            del epoch["validation_balanced_accuracy"]
    bench = Bench(tmp_path / "later", known=known, objective="validation_balanced_accuracy")
    assert bench.all() == Bench(tmp_path / "cold", objective="validation_balanced_accuracy").all()


def test_what_a_restarted_trial_tells_again_counts_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trial_id, config = bench.ask()
    run = bench.searcher.trials[trial_id].run
    for epoch in (1, 1, 2):
        result = {"run": run, "epoch": epoch} | measured(config["params"], epoch)
        if epoch < EPOCHS:
            bench.searcher.on_trial_result(trial_id, result)
    bench.searcher.on_trial_complete(trial_id, result | {"end": "done"})
    bench.searcher.close()
    assert [epoch["epoch"] for epoch in bench.records.history().trials[0].epochs] == [1, 2]
    assert bench.spending.epochs == 2


def test_a_torn_log_loses_only_what_is_torn(tmp_path: Path) -> None:
    Bench(tmp_path).all()
    log = tmp_path / "log" / "00000.jsonl"
    whole = SearchRecords(Storage(str(tmp_path))).history()
    log.write_bytes(log.read_bytes()[:-200])
    torn = SearchRecords(Storage(str(tmp_path))).history()
    assert [trial.params for trial in torn.trials] == [trial.params for trial in whole.trials]
    assert [trial.state for trial in torn.trials][:-1] == ["done"] * 11


def test_optuna_opens_the_exported_study(tmp_path: Path) -> None:
    bench = Bench(tmp_path, space=SPACE | {"optimizer.name": ["sgd", "adam"]})
    for number in range(6):
        bench.trial(epochs=1 + number % 2)
    bench.trial(cause="broken")
    bench.searcher.close()
    url = f"sqlite:///{tmp_path}/study.db"
    study_of(bench.records.history().trials, bench.sweep, "arm", storage=url)
    study = optuna.load_study(study_name="arm", storage=url)
    states = [trial.state.name for trial in study.trials]
    assert states == ["PRUNED", "COMPLETE"] * 3 + ["FAIL"]
    assert study.best_trial.params["optimizer.name"] in ("sgd", "adam")
    assert study.trials[1].intermediate_values[2] == study.trials[1].value


@pytest.mark.parametrize(
    ("parameter", "value", "near"),
    [
        ({"integer": [16, 512]}, 128, {102, 154}),
        ({"integer": [16, 512], "step": 16}, 128, {96, 112, 144, 160}),
        ({"integer": [0, 4]}, 1, {0, 2}),
        ({"integer": [1, 512], "log": True}, 500, {400, 512}),
        ({"choice": [8, 64, 512]}, 64, {8, 512}),
        ({"uniform": [0, 1]}, 0.5, {0.4, 0.6}),
        ({"loguniform": [0.01, 1]}, 0.95, {0.76, 1.0}),
    ],
)
def test_a_population_explores_near_a_good_value_and_now_and_then_anywhere(
    parameter: dict[str, Any], value: float, near: set[float]
) -> None:
    sweep = Sweep.model_validate(
        {"space": {"batch_size": parameter}, "search": "random", "scheduler": "pbt", "budget": {"trials": 4}}
    )
    found = sweep.space["batch_size"]
    explorer = Explorer(sweep.space, seed=0)
    drawn = [explorer.explored(found, value) for _ in range(400)]
    counted = Counter(round(one, 6) for one in drawn)
    often = {one for one, times in counted.most_common(len(near)) if times > 50}
    assert often <= near and len(often) == 2, counted.most_common(6)
    if found.choice is None:
        assert all(found.bounds[0] <= one <= found.bounds[1] for one in drawn)
        assert all(type(one) is type(drawn[0]) for one in drawn)
    assert len(counted) > len(often) or found.choice is not None, "now and then it is drawn anew"
