"""Arms compared by any metric: training functions of any kind, and built-in arms by what their predictions give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import csv

from orchestrator import report, workflows
from orchestrator.analysis import compare, experiment_diff, results, wording
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics import metrics
from orchestrator.analysis.statistics.inference import Interval
from orchestrator.analysis.statistics.verdicts import Judgement, Obstacle, Verdict
from orchestrator.experiment import reader
from orchestrator.experiment.sweep import Sweep
from orchestrator.planning import estimate
from orchestrator.report import gate, tables
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import ROOT
from tests.unit.reported import Function, make_reported
from tests.unit.synthetic import make_records
from tests.unit.test_report import Page, closed
from trainers.errors import InputError

RMSE = {"name": "val_rmse", "goal": "minimize", "margin": 0.05, "unit": "kg"}
N = 400


def only(comparison: compare.Comparison) -> tuple[PairComparison, Judgement]:
    (pair,) = comparison.pairs
    assert pair.judgement is not None
    return pair, pair.judgement


def page_of(records: ExperimentRecords) -> str:
    text = (Path(records.storage.url) / "report" / "report.html").read_text()
    Page(text)
    return text


def check_schema(comparison: compare.Comparison) -> dict[str, Any]:
    import jsonschema

    told: dict[str, Any] = json.loads(json.dumps(results.document(comparison), allow_nan=False))
    published = json.loads((ROOT / "docs" / "results.schema.json").read_text())
    jsonschema.Draft202012Validator(closed(published)).validate(told)
    return told


# --- regression


def regression(root: Path, *, handed_over: bool = False, **experiment: Any) -> ExperimentRecords:
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 3, N)
    arms = {}
    for name, spread in (("mine", 1.2), ("theirs", 1.5)):
        predicted = [truth + generator.normal(0, spread, N) for _ in range(4)]
        values = [float(np.sqrt(np.mean((truth - one) ** 2))) for one in predicted]
        arms[name] = Function(
            values=values,
            name=f"project.{name}:loop",
            predictions=[{"predictions": one, "labels": truth} for one in predicted] if handed_over else (),
        )
    return make_reported(root, arms, metric=RMSE, experiment=experiment)


def test_a_regression_is_compared_by_what_it_reports_and_less_is_better(tmp_path: Path) -> None:
    records = regression(tmp_path / "x")
    comparison = report.write(records)
    pair, judgement = only(comparison)
    assert pair.ahead == "mine" and judgement.gap.mean < 0, "the first arm has the lower error"
    assert judgement.verdict is Verdict.BETTER_BY_MORE and pair.images is None
    found = re.match(
        r"mine is better in val_rmse than theirs: ([\d.]+) kg against ([\d.]+) kg, lower is better\. The gap of "
        r"([\d.]+) kg \(95 % interval ([\d.]+) to ([\d.]+); over 4 paired seeds alone\) is larger than the margin of "
        r"0\.05 kg\.",
        comparison.conclusion,
    )
    assert found is not None, comparison.conclusion
    best, other, gap, low, high = map(float, found.groups())
    assert best < other and low < gap < high and gap == pytest.approx(other - best, abs=2e-3)
    assert "a training function does is not known to tandem" in comparison.conclusion
    assert "mine took 25.0 s and theirs 25.0 s from a cold start to the end" in comparison.conclusion
    notes = " ".join(comparison.notes)
    assert "how recipes differ is not known beyond their config, parity cannot be checked" in notes
    assert sum("There are no predicted classes of mine and theirs" in note for note in comparison.notes) == 1
    assert "leave out that other test examples would give other values" in notes
    page = page_of(records)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert "Reported by training functions" in headings
    assert not {"Confusion matrices", "Calibration", "Accuracy by class", "Parity", "Learning curves"} & {
        *headings
    }
    assert (
        "accuracy" not in tables.evidence_note(comparison) and "% " not in comparison.conclusion.split("(")[0]
    )
    assert comparison.metric.interval(comparison.arms[0].score) in page
    told = check_schema(comparison)
    assert told["metric"] == RMSE and told["arms"][0]["train_loop"] == "project.mine:loop"
    assert told["pairs"][0]["verdict"] == "better_by_more_than_margin" and told["pairs"][0]["ahead"] == "mine"


def test_predictions_of_a_regression_give_further_metrics(tmp_path: Path) -> None:
    records = regression(
        tmp_path / "x",
        handed_over=True,
        metrics=[{"name": "mae"}, {"name": "rmse", "unit": "kg"}, {"name": "macro_f1"}],
    )
    comparison = report.write(records)
    arm = comparison.arms[0]
    assert arm.mean("rmse") == pytest.approx(arm.score.mean if arm.score else None)
    assert arm.mean("mae") is not None and 0 < arm.mean("mae") < arm.mean("rmse")  # type: ignore[operator]
    (row, _) = tables.arms(comparison)
    assert row["rmse"].startswith("1.") and " kg" in row["rmse"] and row["macro f1"] == "–"
    assert any(
        "macro_f1 of mine is left out: it is for predictions of classes." in note for note in comparison.notes
    )
    assert comparison.predictions == {} and comparison.class_names == []
    page_of(records)
    check_schema(comparison)


def test_a_lower_margin_or_none_changes_the_verdict(tmp_path: Path) -> None:
    records = regression(tmp_path / "x")
    document = records.document()

    def told(**metric: Any) -> tuple[str, Verdict]:
        document["experiment"]["metric"] = {"name": "val_rmse", "goal": "minimize"} | metric
        records.begin(document)
        comparison = compare.analyse(records)
        return comparison.conclusion, only(comparison)[1].verdict

    conclusion, verdict = told()
    assert verdict is Verdict.BETTER and "no margin is set, so its size is not judged" in conclusion
    assert " kg" not in conclusion
    conclusion, verdict = told(margin=3, unit="kg")
    assert verdict is Verdict.BETTER and "is smaller than the margin of 3 kg (90 % interval " in conclusion
    document["experiment"]["metric"] = {"name": "val_rmse", "goal": "maximize", "margin": 0.05}
    records.begin(document)
    assert only(compare.analyse(records))[0].ahead == "theirs", "the other way round, more is better"


# --- several labels


def several_labels(root: Path, *, handed_over: bool) -> ExperimentRecords:
    generator = np.random.default_rng(1)
    labels = (generator.random((N, 5)) < 0.3).astype(int)
    metric = {"name": "mean_average_precision"}
    arms = {}
    for name, noise in (("plain", 0.9), ("sharp", 0.6)):
        scores = [labels + generator.normal(0, noise, labels.shape) for _ in range(3)]
        arms[name] = Function(
            values=[0.60, 0.61, 0.62] if name == "plain" else [0.81, 0.82, 0.80],
            predictions=[{"predictions": one, "labels": labels} for one in scores] if handed_over else (),
        )
    records = make_reported(root, arms, metric=metric)
    if handed_over:  # and not reported: tandem computes it
        for file in (root / "runs").glob("*/re*.json*"):
            file.write_text(file.read_text().replace("mean_average_precision", "loss"))
    return records


def test_several_labels_are_compared_by_what_is_reported(tmp_path: Path) -> None:
    comparison = report.write(several_labels(tmp_path / "x", handed_over=False))
    pair, judgement = only(comparison)
    assert pair.ahead == "sharp" and judgement.gap.mean == pytest.approx(-0.2)
    assert comparison.conclusion.startswith(
        "sharp is better in mean average precision than plain: 81.00 % against 61.00 %. The gap of 20.00 points ("
    )
    assert "is larger than the margin of 1 point" in comparison.conclusion
    assert "over 3 paired seeds alone" in comparison.conclusion


def test_several_labels_are_compared_by_what_their_predictions_give(tmp_path: Path) -> None:
    records = several_labels(tmp_path / "x", handed_over=True)
    comparison = report.write(records)
    pair, _ = only(comparison)
    assert pair.ahead == "sharp"
    arm = comparison.arms[1]
    assert arm.score is not None and 0.5 < arm.score.mean < 1
    assert {"mean_average_precision", "loss"} <= {*arm.measures} and "test_accuracy" not in arm.measures
    page_of(records)
    check_schema(comparison)


# --- classes


def classes(
    root: Path,
    *,
    metric: dict[str, Any],
    probabilities: bool = True,
    ids: bool = False,
    classes: int = 4,
    **more: Any,
) -> ExperimentRecords:
    """Two functions whose predictions are right for 80 and 70 % of the examples; the metric is that share."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, classes, N)
    arms = {}
    for name, share in (("mine", 0.8), ("theirs", 0.7)):
        handed = []
        for _ in range(3):
            right = generator.random(N) < share
            predicted = np.where(right, labels, (labels + 1) % classes)
            rows = np.full((N, classes), 0.1 / (classes - 1))
            rows[np.arange(N), predicted] = 0.9
            order = generator.permutation(N) if ids else np.arange(N)
            arrays = {
                "predictions": rows[order] if probabilities else predicted[order],
                "labels": labels[order],
            }
            handed.append(arrays | ({"ids": np.array([f"e{n}" for n in order])} if ids else {}))
        values = []
        for arrays in handed:
            found = arrays["predictions"].argmax(axis=1) if probabilities else arrays["predictions"]
            values.append(float(np.mean(found == arrays["labels"])))
        arms[name] = Function(values=values, predictions=handed)
    return make_reported(root, arms, metric=metric, experiment=more)


@pytest.mark.parametrize("ids", [False, True])
def test_classes_that_are_handed_over_get_everything_that_predictions_allow(
    tmp_path: Path, ids: bool
) -> None:
    records = classes(
        tmp_path / "x", metric={"name": "val_acc", "goal": "maximize", "unit": "share"}, ids=ids
    )
    comparison = report.write(records)
    pair, judgement = only(comparison)
    assert pair.images == N and pair.discordant is not None, (
        "the accuracy of the predictions is what was reported"
    )
    assert "over 3 paired seeds and 400 test images" in comparison.conclusion
    assert (pair.discordant[0] - pair.discordant[1]) / N == pytest.approx(judgement.gap.mean)
    page = page_of(records)
    for heading in ("Confusion matrices", "Calibration", "Accuracy by class"):
        assert heading in page
    arm = comparison.arms[0]
    assert (
        arm.confusion is not None
        and arm.confusion.sum() == 3 * N
        and comparison.class_names == ["0", "1", "2", "3"]
    )
    assert arm.mean("test_accuracy") == pytest.approx(arm.mean("val_acc"))
    check_schema(comparison)


def test_classes_without_probabilities_have_no_calibration(tmp_path: Path) -> None:
    records = classes(tmp_path / "x", metric={"name": "val_acc", "goal": "maximize"}, probabilities=False)
    comparison = report.write(records)
    page = page_of(records)
    assert "Confusion matrices" in page and "Calibration</h2>" not in page
    assert comparison.conclusion.startswith("mine is better in val_acc than theirs: 0.7")


def test_arms_with_other_examples_are_compared_over_seeds_alone(tmp_path: Path) -> None:
    records = classes(tmp_path / "x", metric={"name": "val_acc", "goal": "maximize"})
    for file in (tmp_path / "x" / "runs").glob("theirs-*/predictions.npz"):
        arrays = dict(np.load(file))
        np.savez(file, predictions=arrays["predictions"][::-1], labels=arrays["labels"][::-1])
    pair, _ = only(compare.analyse(records))
    assert pair.images is None and pair.discordant is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"predictions": np.zeros(5)}, "it needs the arrays predictions and labels"),
        (
            {"predictions": np.zeros(5), "labels": np.zeros(4)},
            "are not finite numbers, a row for each example",
        ),
        ({"predictions": np.full(5, np.nan), "labels": np.zeros(5)}, "are not finite numbers"),
        ({"predictions": np.zeros((5, 3)), "labels": np.full(5, 7)}, "do not fit labels"),
        ({"predictions": np.zeros((5, 3)), "labels": np.zeros((5, 2), int)}, "do not fit labels"),
        (
            {"predictions": np.zeros(5), "labels": np.zeros(5), "ids": np.zeros(5)},
            "ids are not one for each example",
        ),
    ],
)
def test_predictions_that_cannot_be_understood_are_left_out_with_a_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    records = regression(tmp_path / "x")
    np.savez(tmp_path / "x" / "runs" / "mine-seed0-0" / "predictions.npz", **arrays)
    comparison = report.write(records)
    assert any(
        note.startswith("runs/mine-seed0-0/predictions.npz is left out: ") and words in note
        for note in comparison.notes
    )


# --- what training functions do


def test_seeds_with_identical_results_are_named(tmp_path: Path) -> None:
    arms = {
        "mine": Function(values=[0.5, 0.5, 0.5], further={"loss": 0.25}),
        "other": Function(values=[0.4, 0.45, 0.45]),
    }
    comparison = report.write(make_reported(tmp_path / "x", arms, metric={"name": "acc", "goal": "maximize"}))
    told = [note for note in comparison.notes if "identical" in note]
    assert told == [
        "Seeds 0, 1, 2 of mine gave identical results: the function ignores its seed.",
        "Seeds 1, 2 of other gave identical results: the function ignores its seed.",
    ]
    assert check_schema(comparison)["arms"][0]["identical_seeds"] == [[0, 1, 2]]


def test_the_clock_does_not_hide_identical_results(tmp_path: Path) -> None:
    records = make_reported(
        tmp_path / "x", {"mine": Function(values=[0.5, 0.5, 0.5])}, metric={"name": "acc", "goal": "maximize"}
    )
    for number, file in enumerate(sorted((tmp_path / "x" / "runs").glob("*/result.json"))):
        result = json.loads(file.read_text())
        result["metrics"]["epoch_seconds"] = 1.0 + number
        file.write_text(json.dumps(result))
    assert compare.analyse(records).arms[0].identical == [[0, 1, 2]]


def test_of_reports_that_came_twice_the_later_counts(tmp_path: Path) -> None:
    records = make_reported(
        tmp_path / "x", {"mine": Function(values=[0.5, 0.6, 0.7])}, metric={"name": "acc", "goal": "maximize"}
    )
    run = tmp_path / "x" / "runs" / "mine-seed0-0"
    again = [
        {"report": 3, "seconds": 9.0, "metrics": {"acc": 0.55}, "attempt": 2},
        {"report": 4, "seconds": 10, "metrics": {}},
    ]
    with (run / "reports.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in again)
    found = compare.analyse(records).arms[0].runs[0]
    assert [line["report"] for line in found.reports] == [0, 1, 2, 3, 4]
    assert found.report_seconds == [5, 10, 15, 15 + 9, 15 + 10], "the second attempt's time begins anew"
    assert found.reports[3]["metrics"] == {"acc": 0.55}


def test_reports_of_a_lost_attempt_do_not_outlive_it(tmp_path: Path) -> None:
    """The function starts again from an older checkpoint and ends earlier than before."""
    records = make_reported(
        tmp_path / "x", {"mine": Function(values=[0.5, 0.6, 0.7])}, metric={"name": "acc", "goal": "maximize"}
    )
    run = tmp_path / "x" / "runs" / "mine-seed0-0"
    with (run / "reports.jsonl").open("a") as file:
        file.write(json.dumps({"report": 1, "seconds": 9.0, "metrics": {"acc": 0.55}, "attempt": 2}) + "\n")
    found = compare.analyse(records).arms[0].runs[0]
    assert [line["report"] for line in found.reports] == [0, 1]
    assert [line["report"] for line in records.run("mine-seed0-0").reports()] == [0, 1]


def test_why_predictions_are_not_used_is_told(tmp_path: Path) -> None:
    records = regression(tmp_path / "x")
    file = tmp_path / "x" / "runs" / "mine-seed1-0" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": "predictions.npz needs labels"}))
    assert "mine seed 1: predictions.npz needs labels." in compare.analyse(records).notes


def test_a_metric_that_was_never_reported_is_said_with_what_was(tmp_path: Path) -> None:
    records = regression(tmp_path / "x")
    document = records.document()
    document["experiment"]["metric"] = {"name": "mape", "goal": "minimize"}
    records.begin(document)
    comparison = report.write(records)
    assert comparison.conclusion == "No run has mape, so there is nothing to compare."
    assert "mine seed 0 has no mape; it has val_rmse." in comparison.notes
    (outcome,) = gate.judge(comparison, [gate.parse("mine.score > 9", ["mine", "theirs"])])
    assert outcome.failed and "mine.score is missing" in str(outcome)
    page_of(records)


def test_values_that_are_no_numbers_are_no_results(tmp_path: Path) -> None:
    records = regression(tmp_path / "x")
    file = tmp_path / "x" / "runs" / "mine-seed0-0" / "result.json"
    result = json.loads(file.read_text())
    for value in (float("nan"), None, float("inf")):
        file.write_text(json.dumps(result | {"metrics": {"val_rmse": value}}))
        comparison = compare.analyse(records)
        assert comparison.arms[0].scores.by_seed.keys() == {1, 2, 3}
        assert "mine seed 0 has no val_rmse; it reported nothing." in comparison.notes
        (outcome,) = gate.judge(comparison, [gate.parse("mine.score > 9", ["mine", "theirs"])])
        assert outcome.failed and str(outcome).endswith("1 of 4 runs of mine have no val_rmse")


def test_shares_outside_0_and_1_are_left_out_with_a_remedy(tmp_path: Path) -> None:
    arms = {"mine": Function(values=[0.7, 71.0, 0.72])}
    records = make_reported(tmp_path / "x", arms, metric={"name": "acc", "goal": "maximize", "unit": "share"})
    comparison = compare.analyse(records)
    assert comparison.arms[0].scores.by_seed == {0: 0.7, 2: 0.72}
    assert (
        "acc of mine is left out: 71 is not between 0 and 1; if it is in percent, set metric.unit to '%'."
        in (comparison.notes)
    )


def test_seeds_that_do_not_vary_prove_nothing(tmp_path: Path) -> None:
    arms = {name: Function(values=[value] * 3) for name, value in (("a", 1.0), ("b", 2.0))}
    comparison = compare.analyse(make_reported(tmp_path / "x", arms, metric=RMSE))
    _, judgement = only(comparison)
    assert judgement.obstacle is Obstacle.NO_SPREAD
    assert comparison.conclusion.startswith("No verdict on val_rmse: the seeds of a and b do not vary")
    assert "a scored 1.000 kg and b 2.000 kg, lower is better." in comparison.conclusion


def test_one_function_with_two_configs_differs_in_them_alone(tmp_path: Path) -> None:
    arms = {
        "slow": Function(values=[1.0, 1.1, 1.05], config={"lr": 0.1, "depth": 3}),
        "fast": Function(values=[1.2, 1.3, 1.21], config={"lr": 0.2, "depth": 3}),
    }
    comparison = compare.analyse(make_reported(tmp_path / "x", arms, metric=RMSE))
    assert "The arms differ only in config.lr (0.1 / 0.2)." in comparison.conclusion
    assert only(comparison)[0].same_code


def test_three_functions_are_ranked_with_the_least_first(tmp_path: Path) -> None:
    arms = {
        "a": Function(values=[3.0, 3.1, 3.05]),
        "b": Function(values=[1.0, 1.12, 1.06]),
        "c": Function(values=[2.0, 2.1, 2.03]),
    }
    records = make_reported(tmp_path / "x", arms, metric=RMSE)
    comparison = compare.analyse(records)
    assert comparison.conclusion.startswith(
        "Of 3 arms, b is better in val_rmse than all others: 1.060 kg, lower is better, "
    )
    assert " kg ahead of c (95 % interval for 3 comparisons together " in comparison.conclusion
    assert comparison.groups == [["b"], ["c"], ["a"]]
    document = records.document()
    document["experiment"]["baseline"] = "c"
    records.begin(document)
    told = compare.analyse(records).conclusion
    assert told.startswith(
        "Compared with the baseline c, 2.043 kg, lower is better, in kg with 95 % intervals for 2 "
    )
    assert "better in val_rmse: b by 0.983 (" in told and "worse in val_rmse: a by 1.01 (" in told


def test_speed_is_total_time_and_has_a_verdict_when_it_is_measured(tmp_path: Path) -> None:
    arms = {
        "a": Function(values=[1.0, 1.1, 1.05], seconds=10.0),
        "b": Function(values=[1.0, 1.2, 1.05], seconds=30.0),
    }
    experiment = {"measure_speed": True}
    scale = {"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0, "price_per_worker_hour": 3600.0}
    records = make_reported(tmp_path / "x", arms, metric=RMSE, experiment=experiment | {"scale": scale})
    for number, file in enumerate(sorted((tmp_path / "x" / "runs").glob("*/result.json"))):
        result = json.loads(file.read_text())
        result["training_seconds"] += 0.1 * (number % 3)
        file.write_text(json.dumps(result))
    comparison = report.write(records)
    assert (
        "a is faster: a took 15.1 s and b 35.1 s from a cold start to the end, ratio 0.43"
        in comparison.conclusion
    )
    (row, _) = tables.took(comparison)
    assert row["time to the end"].startswith("15.1 s (") and row["cost"].startswith("30.2")
    assert "images/s" not in row and not any(name.startswith("time to –") for name in row)
    assert comparison.performance.arms["a"].seconds == pytest.approx({"start-up": 5.0, "training": 10.1})


# --- the other forms


def test_tables_of_metrics_and_reports(tmp_path: Path) -> None:
    records = regression(tmp_path / "x", handed_over=True, metrics=[{"name": "mae"}])
    report.write(records)
    root = tmp_path / "x" / "report"
    runs = csv.read_csv(root / "results.csv").to_pylist()
    assert {run["metric"] for run in runs} == {"val_rmse"} and all(run["score"] > 1 for run in runs)
    found = {(row["metric"], row["arm"]) for row in csv.read_csv(root / "metrics.csv").to_pylist()}
    assert found == {(metric, arm) for metric in ("val_rmse", "mae") for arm in ("mine", "theirs")}
    reports = csv.read_csv(root / "reports.csv").to_pylist()
    assert len(reports) == 2 * 4 * 4 and {row["metric"] for row in reports} == {"val_rmse"}
    assert (root / "reports.parquet").exists()
    built_in = make_records(tmp_path / "y", {"keras": [0.5, 0.6, 0.7]})
    report.write(built_in)
    assert not (tmp_path / "y" / "report" / "reports.csv").exists()


def test_a_report_of_functions_made_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    records = classes(tmp_path / "x", metric={"name": "val_acc", "goal": "maximize"})
    report.write(records)
    first = {path: path.read_bytes() for path in (tmp_path / "x" / "report").rglob("*") if path.is_file()}
    report.write(records)
    assert len(first) > 10 and all(path.read_bytes() == content for path, content in first.items())


def test_gates_see_any_metric(tmp_path: Path) -> None:
    records = regression(tmp_path / "x", handed_over=True, metrics=[{"name": "mae"}])
    comparison = compare.analyse(records)
    arms = ["mine", "theirs"]
    conditions = [
        "mine.score > theirs.score",
        "mine.score_high >= theirs.score_low",
        "mine.val_rmse > 2",
        "mine.mae > 0.5",
        "mine.theirs.verdict != 'better_by_more_than_margin'",
        "mine.theirs.gap_high > -0.05",
    ]
    outcomes = gate.judge(comparison, [gate.parse(text, arms) for text in conditions])
    assert [outcome.failed for outcome in outcomes] == [False, False, False, True, False, False]
    with pytest.raises(InputError, match=r"mine\.acuracy: give one of score, score_low"):
        gate.judge(comparison, [gate.parse("mine.acuracy < 1", arms)])


def test_two_experiments_are_compared_in_the_metrics_own_unit(tmp_path: Path) -> None:
    before, after = regression(tmp_path / "a"), regression(tmp_path / "b")
    assert all(change.is_identical for change in experiment_diff.between(before, after))
    for place, file in enumerate(sorted((tmp_path / "b" / "runs").glob("mine-*/result.json"))):
        result = json.loads(file.read_text())
        result["metrics"]["val_rmse"] -= 0.3 + 0.01 * place
        file.write_text(json.dumps(result))
    mine, theirs = experiment_diff.between(before, after)
    assert str(mine).startswith(
        "mine: val_rmse -0.315 kg ("
    ) and "changed by more than the margin of 0.05 kg" in str(mine)
    assert theirs.is_identical
    document = after.document()
    document["experiment"]["metric"] = {"name": "mae"}
    after.begin(document)
    with pytest.raises(InputError, match="compared by different metrics, val_rmse minimize and mae minimize"):
        experiment_diff.between(before, after)


def test_earlier_runs_of_the_same_function_tell_how_long_it_takes(tmp_path: Path) -> None:
    make_reported(tmp_path / "x", {"mine": Function(values=[1.0, 1.1, 1.2], seconds=40.0)}, metric=RMSE)
    document = json.loads((tmp_path / "x" / "experiment.json").read_text())["experiment"]

    class Arm:
        seeds = (0, 1, 2)

        def model_dump(self, mode: str) -> dict[str, Any]:
            return dict(document["arms"]["mine"])

    experiment = reader.load_mapping(
        {"name": "new", "arms": {"keras": {"framework": "keras"}}, "scale": {"workers": 2}}
    )
    planned = experiment.model_copy(update={"arms": {"mine": Arm()}})
    found = estimate.from_records(planned, Storage(str(tmp_path)), train_images=0, image_shape=(), fit=1)
    assert found is not None and found.runs_seen == 3
    assert found.seconds == pytest.approx(3 * 40 + 5)


# --- built-in arms


def test_built_in_arms_are_compared_by_what_their_predictions_give(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.8, 0.85, 0.9]})
    document = records.document()
    document["experiment"] |= {
        "metric": {"name": "macro_f1", "margin": 0.02},
        "metrics": [{"name": "test_loss"}],
    }
    records.begin(document)
    comparison = report.write(records)
    pair, _ = only(comparison)
    assert pair.ahead == "torch" and pair.metric.margin == 0.02
    assert comparison.conclusion.startswith("torch is better in macro f1 than keras: 8")
    assert "over 3 paired seeds alone" in comparison.conclusion
    assert tables.arms(comparison)[0]["test loss"] == "1.000"
    assert "Macro f1</th>" in page_of(records)
    told = check_schema(comparison)
    assert {"test_accuracy", "macro_f1", "balanced_accuracy", "validation_loss"} <= {
        *told["arms"][0]["metrics"]
    }


def test_balanced_accuracy_as_the_metric_is_over_the_test_images_as_well(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.8, 0.85, 0.9]})
    document = records.document()
    document["experiment"]["metric"] = {"name": "balanced_accuracy"}
    records.begin(document)
    pair, _ = only(compare.analyse(records))
    assert pair.images == 1000 and pair.ahead == "torch"


def test_records_without_a_metric_are_compared_by_test_accuracy(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.8, 0.85, 0.9]})
    document = records.document()
    del document["experiment"]["metric"], document["experiment"]["metrics"]
    document["experiment"]["margin"] = 0.5
    records.begin(document)
    comparison = compare.analyse(records)
    assert (comparison.metric.name, comparison.metric.margin) == ("test_accuracy", 0.5)
    assert comparison.conclusion.startswith("torch is more accurate than keras: 85.00 % against 60.00 %")


def test_functions_and_built_in_arms_are_compared_by_a_metric_that_both_have(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7]})
    function = Function(values=[0.8, 0.85, 0.9])
    make_reported(tmp_path / "y", {"mine": function}, metric={"name": "test_accuracy"})
    document, other = records.document(), json.loads((tmp_path / "y" / "experiment.json").read_text())
    document["experiment"]["arms"] |= other["experiment"]["arms"]
    document["experiment"]["metric"] = {"name": "test_accuracy"}
    document["runs"] += other["runs"]
    records.begin(document)
    for run in (tmp_path / "y" / "runs").iterdir():
        run.rename(tmp_path / "x" / "runs" / run.name)
    comparison = report.write(records)
    assert comparison.conclusion.startswith("mine is more accurate than keras: 85.00 % against 60.00 %")
    assert "over 3 paired seeds alone" in comparison.conclusion
    assert "There are no predicted classes of mine, so that" in " ".join(comparison.notes)
    assert not any("leaves out parity" in note for note in comparison.notes)
    page = page_of(records)
    assert (
        "Learning curves" in page
        and "Reported by training functions" in page
        and "Confusion matrices" in page
    )
    check_schema(comparison)


TOY = '''
"""A metric in one file: Cohen's kappa."""

import numpy as np


def kappa(labels: np.ndarray, scores: np.ndarray) -> float:
    predicted = scores.argmax(axis=1)
    agreed = np.mean(predicted == labels)
    chance = sum(np.mean(predicted == c) * np.mean(labels == c) for c in range(scores.shape[1]))
    return (agreed - chance) / (1 - chance)
'''


@pytest.fixture
def kappa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "installed"
    metadata = package / "toys-1.0.dist-info"
    metadata.mkdir(parents=True)
    (package / "toy_metrics.py").write_text(TOY)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tandem.metrics]\nkappa = toy_metrics:kappa\nbroken = nowhere:f\n"
    )
    monkeypatch.syspath_prepend(str(package))


@pytest.mark.usefixtures("kappa")
def test_a_metric_of_another_package_is_one_function(tmp_path: Path) -> None:
    metric = {"name": "kappa", "goal": "maximize", "margin": 0.05}
    built_in = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.8, 0.85, 0.9]})
    document = built_in.document()
    document["experiment"]["metric"] = metric
    built_in.begin(document)
    comparison = compare.analyse(built_in)
    assert comparison.conclusion.startswith("torch is better in kappa than keras: 0.7")
    functions = classes(
        tmp_path / "y",
        metric={"name": "val_acc", "goal": "maximize"},
        metrics=[{"name": "kappa"}, {"name": "broken"}],
    )
    told = compare.analyse(functions)
    assert 0.6 < (told.arms[0].mean("kappa") or 0) < 0.9
    assert any("broken of mine is left out: " in note and "cannot be imported" in note for note in told.notes)


@pytest.mark.usefixtures("kappa")
def test_a_metric_that_built_in_arms_never_have_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    document = {"name": "x", "arms": {"keras": {"framework": "keras"}}, "storage": str(tmp_path)}
    fine = reader.load_mapping(
        document | {"metric": {"name": "kappa", "goal": "maximize"}, "metrics": ["macro_f1"]}
    )
    workflows.summary(fine, fit=1, module_path=tmp_path)
    for name in ("rmse", "kapa", "auroc"):
        wrong = reader.load_mapping(document | {"metric": {"name": name, "goal": "maximize"}})
        with pytest.raises(
            InputError, match=f"metric '{name}': built-in arms have no such metric; choose from "
        ):
            workflows.summary(wrong, fit=1, module_path=tmp_path)


# --- the experiment file


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metric": {"name": "bleu"}}, "metric.goal: missing; write maximize or minimize"),
        ({"metric": {"goal": "maximize"}}, "metric.name: missing"),
        ({"metric": {"name": "a", "goal": "max"}}, "metric.goal: 'max' is not one of maximize, minimize"),
        ({"metric": {"name": "a", "goal": "maximize", "margin": 0}}, "metric.margin"),
        ({"metrics": [{"name": ""}]}, "metrics.0.name"),
        ({"metric": {"name": "a", "goal": "maximize", "unt": "kg"}}, "did you mean 'unit'?"),
    ],
)
def test_a_wrong_metric_gets_a_sentence_with_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        reader.load_mapping({"name": "x", "arms": {"keras": {"framework": "keras"}}} | fields)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_metric_may_be_named_alone_where_its_goal_is_known() -> None:
    found = reader.load_mapping(
        {"name": "x", "arms": {"keras": {"framework": "keras"}}}, ["metric=balanced_accuracy"]
    )
    assert metrics.compared(found.model_dump(mode="json")).is_share


def test_a_sweep_optimises_any_metric_that_has_a_goal() -> None:
    sweep = Sweep.model_validate(
        {"objective": [{"name": "val_rmse", "goal": "minimize"}, "validation_accuracy"]}
    )
    assert [(each.name, each.mode) for each in sweep.objective] == [
        ("val_rmse", "min"),
        ("validation_accuracy", "max"),
    ]
    assert Sweep.model_validate(sweep.model_dump(mode="json")) == sweep
    with pytest.raises(ValueError, match="write another as"):
        Sweep.model_validate({"objective": "zzz"})


# --- digits


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([3.2134, 3.4012], ["3.213", "3.401"]),
        ([3.21341, 3.21342], ["3.21341", "3.21342"]),
        ([12345.6, 12.0], ["12,346", "12"]),
        ([1e-6, 2e-6], ["1e-06", "2e-06"]),
        ([0.0, 0.0], ["0", "0"]),
        ([-0.00001, 10.0], ["0.00", "10.00"]),
    ],
)
def test_numbers_have_as_many_digits_as_tell_them_apart(values: list[float], texts: list[str]) -> None:
    assert wording.numbers(values) == texts


def test_no_gap_is_rounded_to_another_meaning() -> None:
    generator = np.random.default_rng(3)
    for exponent in range(-12, 13):
        for value in generator.normal(0, 10.0**exponent, 20):
            text = wording.number(float(value), signed=True)
            shown = float(text.replace(",", ""))
            assert shown == pytest.approx(value, rel=6e-3) and (shown > 0) == (value > 0)
            assert text.startswith("+") == (value > 0)


def test_every_sentence_on_a_metric_agrees_with_its_numbers(tmp_path: Path) -> None:
    """Any goal, scale and number of arms: who is called better has the better mean, and the interval its sign."""
    generator = np.random.default_rng(4)
    kinds = set()
    for number in range(60):
        scale = float(10.0 ** generator.integers(-20, 20))
        goal = str(generator.choice(["maximize", "minimize"]))
        metric = {"name": "m", "goal": goal, "unit": "u"} | (
            {"margin": scale * float(generator.choice([0.05, 0.5]))} if generator.random() < 0.8 else {}
        )
        arms = {
            name: Function(
                values=(
                    scale * (5 + generator.choice([0, 0, 0.1, 1.0]) + generator.normal(0, 0.05, 4))
                ).tolist(),
                reports=1,
            )
            for name in ("a", "b")
        }
        comparison = compare.analyse(make_reported(tmp_path / str(number), arms, metric=metric))
        pair, judgement = only(comparison)
        means = {name: float(np.mean(arm.values)) for name, arm in arms.items()}
        better = (
            min(means, key=means.__getitem__) if goal == "minimize" else max(means, key=means.__getitem__)
        )
        told = comparison.conclusion
        assert judgement.gap.low is not None and judgement.gap.high is not None
        if found := re.match(r"(\w) is better in m than (\w): ([-+\d.,e]+) u against ([-+\d.,e]+) u", told):
            kinds.add("better")
            assert found[1] == better == pair.ahead
            assert np.sign(judgement.gap.low) == np.sign(judgement.gap.high) != 0
            shown = [float(found[place].replace(",", "")) for place in (3, 4)]
            assert shown == pytest.approx([means[found[1]], means[found[2]]], rel=1e-3)
            more = (
                metric.get("margin") is not None
                and min(abs(judgement.gap.low), abs(judgement.gap.high)) > metric["margin"]
            )
            assert ("is larger than the margin" in told) == more
            assert ("no margin is set" in told) == ("margin" not in metric)
        elif "are equal in m within" in told:
            kinds.add("equal")
            assert isinstance(judgement.equality, Interval) and judgement.verdict is Verdict.EQUAL
            ends = (judgement.equality.low, judgement.equality.high)
            assert all(end is not None and abs(end) < metric["margin"] for end in ends)
        else:
            kinds.add("open")
            assert "cannot be told apart in m" in told and judgement.gap.low <= 0 <= judgement.gap.high
        assert (", lower is better" in told) == (goal == "minimize")
    assert kinds == {"better", "equal", "open"}


LIES: list[tuple[str, Any]] = [
    ("metrics", value)
    for value in (
        None,
        [],
        "x",
        {"val_rmse": "1"},
        {"val_rmse": 10**400},
        {"val_rmse": 1e300},
        {"": 1},
        {"x" * 200: 1},
    )
] + [
    (field, value)
    for field in (
        "reports",
        "training_seconds",
        "startup_seconds",
        "workers",
        "trainer",
        "note",
        "report",
        "seconds",
    )
    for value in (None, -1, "x", [], {}, float("nan"), 1e300, 10**30)
]


@pytest.mark.parametrize("name", ["result.json", "reports.jsonl"])
def test_records_of_functions_that_lie_are_left_out_or_reported_and_end_nothing(
    tmp_path: Path, name: str
) -> None:
    records = regression(tmp_path / "x", handed_over=True)
    file = tmp_path / "x" / "runs" / "mine-seed0-0" / name
    lines = file.read_text().splitlines() if name == "reports.jsonl" else [file.read_text()]
    told = 0
    for field, value in LIES:
        file.write_text("\n".join([json.dumps(json.loads(lines[0]) | {field: value}), *lines[1:]]) + "\n")
        comparison = compare.analyse(records)
        check_schema(comparison)
        told += any(f"mine-seed0-0/{name}" in note for note in comparison.notes)
    file.write_text("{torn")
    assert any(f"mine-seed0-0/{name}" in note for note in compare.analyse(records).notes)
    assert told > 10


def test_the_limits_name_the_epochs_of_the_functions_that_have_some(tmp_path: Path) -> None:
    arms = {"long": Function(values=[0.2, 0.3, 0.4], epochs=8), "short": Function(values=[0.5, 0.6, 0.7])}
    report.write(make_reported(tmp_path / "x", arms, metric={"name": "loss", "goal": "minimize"}))
    assert "Length of training: 8 epochs." in (tmp_path / "x" / "report" / "report.md").read_text()
