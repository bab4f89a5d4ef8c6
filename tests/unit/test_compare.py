from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis import compare, results
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics import inference
from orchestrator.analysis.statistics.verdicts import Judgement, Obstacle, Verdict
from orchestrator.report import tables
from orchestrator.store.records import ExperimentRecords
from tests.unit.synthetic import attempt, make_records


def analyse(tmp_path: Path, *args: object, **kwargs: object) -> compare.Comparison:
    return compare.analyse(make_records(tmp_path / "x", *args, **kwargs))  # type: ignore[arg-type]


def only(comparison: compare.Comparison) -> tuple[PairComparison, Judgement]:
    (pair,) = comparison.pairs
    assert pair.judgement is not None
    return pair, pair.judgement


def test_interval_of_a_mean_is_students() -> None:
    interval = inference.mean_interval([4.0, 5.0, 6.0])
    assert interval is not None
    assert interval.mean == 5.0
    # t(0.975, 2 degrees of freedom) = 4.302653, standard error 1 / sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((5 - 2.484138, 5 + 2.484138), abs=1e-5)
    assert inference.mean_interval([4.0]) == inference.Interval(4.0)
    assert inference.mean_interval([]) is None


def test_a_steady_gap_over_paired_seeds_is_told_although_the_seeds_spread(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.50, 0.60, 0.70], "torch": [0.52, 0.621, 0.719]})
    pair, judgement = only(comparison)
    assert pair.is_paired and pair.ahead == "torch"
    assert judgement.gap.mean == pytest.approx(-0.02)
    assert judgement.verdict is Verdict.BETTER_BY_MORE
    assert comparison.conclusion.startswith(
        "torch is more accurate than keras: 62.00 % against 60.00 % on the test images. "
        "The gap of 2.00 points (95 % interval "
    )
    assert (
        "; over 3 paired seeds and 1,000 test images) is larger than the margin of 1 point."
        in comparison.conclusion
    )
    assert "The arms differ in nothing but the framework." in comparison.conclusion


def test_noise_is_called_not_enough_evidence(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.50, 0.60, 0.70], "torch": [0.60, 0.50, 0.72]})
    _, judgement = only(comparison)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "cannot be told apart in accuracy" in comparison.conclusion
    assert "not enough evidence" in comparison.conclusion
    assert "would be found with a power of 80 %" in comparison.conclusion


def test_unequal_seeds_are_compared_by_the_means_that_are_printed(tmp_path: Path) -> None:
    """All finished seeds of either arm, and the winner is the one with the higher mean."""
    comparison = analyse(
        tmp_path,
        {"keras": [0.60, 0.61, 0.62], "torch": [0.59, 0.60, 0.61, 0.80, 0.811]},
        arms={"torch": {"seeds": [0, 1, 2, 3, 4]}},
    )
    pair, judgement = only(comparison)
    assert not pair.is_paired
    assert judgement.gap.mean == pytest.approx(0.61 - 0.6822)
    assert "68.22 % and 61.00 %" in comparison.conclusion
    assert (
        "in favour of torch" in comparison.conclusion
        and "keras is more accurate" not in comparison.conclusion
    )
    assert "over 3 and 5 seeds and 1,000 test images" in comparison.conclusion
    assert any("do not have the same finished seeds" in note for note in comparison.notes)


def test_seeds_that_none_shares_are_independent(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path,
        {"keras": [0.50, 0.51, 0.52], "torch": [0.70, 0.71, 0.72]},
        arms={"torch": {"seeds": [7, 8, 9]}},
    )
    pair, judgement = only(comparison)
    assert pair.ahead == "torch" and not pair.is_paired
    seeds_alone = stats.t.ppf(0.975, 2) * np.sqrt(2 * 0.01**2 / 3)
    assert judgement.gap.high is not None and judgement.gap.high > -0.2 + seeds_alone, (
        "the images count as well"
    )
    assert "seeds (0, 1, 2 / 7, 8, 9)" in comparison.conclusion


def test_fewer_than_three_seeds_give_no_verdict(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path, {"keras": [0.5, 0.51, 0.52], "torch": [0.9, 0.91]}, arms={"torch": {"seeds": 2}}
    )
    pair, judgement = only(comparison)
    assert judgement.verdict is Verdict.UNDECIDED and judgement.obstacle is Obstacle.FEW_SEEDS
    assert judgement.gap.low is None and judgement.p_value is None and pair.ahead is None
    assert comparison.conclusion.startswith(
        "No verdict on accuracy: torch has 2 finished seeds and keras 3, and a verdict needs 3 on each side. "
        "torch scored 90.50 % and keras 51.00 % on the test images."
    )


def test_a_proven_gap_within_the_margin_is_told_as_that(tmp_path: Path) -> None:
    accuracies = {"keras": [0.50, 0.60, 0.70], "torch": [0.52, 0.62, 0.72]}
    records = make_records(tmp_path / "x", accuracies)
    document = records.document()
    document["experiment"]["margin"] = 0.05
    records.begin(document)
    comparison = compare.analyse(records)
    _, judgement = only(comparison)
    assert judgement.verdict is Verdict.BETTER and judgement.is_below_margin
    assert "is smaller than the margin of 5 points (90 % interval " in comparison.conclusion
    document["experiment"]["margin"] = 0.02
    records.begin(document)
    comparison = compare.analyse(records)
    _, judgement = only(comparison)
    assert judgement.verdict is Verdict.BETTER and not judgement.is_below_margin
    assert "is proven; whether it is larger than the margin of 2 points is open." in comparison.conclusion


def test_without_predictions_the_report_says_what_the_interval_leaves_out(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.50, 0.60, 0.70], "torch": [0.52, 0.621, 0.719]})
    for run in (tmp_path / "x" / "runs").iterdir():
        (run / "predictions.npz").unlink()
    comparison = compare.analyse(records)
    pair, judgement = only(comparison)
    assert pair.images is None and judgement.tells_apart
    assert judgement.gap.high == pytest.approx(-0.02 + stats.t.ppf(0.975, 2) * 0.001 / np.sqrt(3))
    assert "over 3 paired seeds alone" in comparison.conclusion
    assert any("Its intervals are over seeds alone and leave out" in note for note in comparison.notes)
    steady = make_records(tmp_path / "y", {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.7, 0.8]})
    for run in (tmp_path / "y" / "runs").iterdir():
        (run / "predictions.npz").unlink()
    told = compare.analyse(steady).conclusion
    assert told.startswith("No verdict on accuracy: the seeds of torch and keras do not vary"), told


def test_every_other_factor_is_named_and_the_framework_not_credited(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path,
        {"keras": [0.69], "torch": [0.62]},
        arms={
            "torch": {
                "model": "lenet5",
                "optimizer": {"name": "sgd", "learning_rate": 0.001, "momentum": 0.9},
                "batch_size": 4,
                "inputs": "symmetric",
            }
        },
    )
    for factor in (
        "model (tutorial_cnn / lenet5)",
        "/ sgd 0.001, momentum 0.9)",
        "batch size (128 / 4)",
        "preprocessing (standardized / symmetric)",
    ):
        assert factor in comparison.conclusion
    assert "the framework alone cannot be credited" in comparison.conclusion
    assert "No verdict on accuracy: keras has 1 finished seed and torch 1" in comparison.conclusion


def test_arms_of_one_framework_are_not_said_to_differ_in_it(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path,
        {"a": [0.5, 0.6, 0.55], "b": [0.6, 0.7, 0.65]},
        arms={"b": {"framework": "keras", "batch_size": 32}},
    )
    assert "The arms differ only in batch size (128 / 32)." in comparison.conclusion


def test_the_same_predictions_are_no_finding(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.5, 0.6, 0.7], "torch": [0.5, 0.6, 0.7]})
    pair, judgement = only(comparison)
    assert pair.same_predictions and not pair.is_same_work, "parity was not traced"
    assert judgement.verdict is Verdict.EQUAL
    assert comparison.conclusion.startswith(
        "keras and torch gave the same prediction for all 1,000 test images with each of 3 seeds: 60.00 % are right. "
        "On other images they are equally accurate within 1 point (90 % interval -0.30 to +0.30)."
    )
    assert "Evidence" not in comparison.conclusion and "more accurate" not in comparison.conclusion


SAME = {"keras": [0.5, 0.6, 0.55], "torch": [0.5, 0.6, 0.55]}


def test_speeds_of_runs_that_share_processes_are_shown_without_a_verdict(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, SAME, speed={"keras": 1000, "torch": 1500})
    pair, _ = only(comparison)
    assert pair.speed is not None and pair.speed.groups is None and pair.speed.rate is not None
    assert math.exp(pair.speed.rate.mean) == pytest.approx(1000 / 1500)
    assert pair.speed.rate.low is None and pair.speed.end is not None and pair.speed.end.low is None
    assert "There is no verdict on speed: runs share processes" in comparison.conclusion
    assert "faster" not in comparison.conclusion and "times as fast" not in comparison.conclusion


def test_time_to_the_end_comes_first_and_holds_start_up(tmp_path: Path) -> None:
    """An arm with more images/s once warm that takes longer from start to end is not called faster."""
    records = make_records(
        tmp_path / "x", SAME, speed={"keras": [1000, 1010, 990], "torch": [1500, 1510, 1490]}
    )
    for run in records.document()["runs"]:
        if run["arm"] == "torch":
            slow = attempt("s1") | {"startup": {"workers_seconds": 20.0, "import_seconds": 30.0}}
            file = tmp_path / "x" / "runs" / run["id"] / "attempts.jsonl"
            file.write_text(json.dumps(slow) + "\n")
    document = records.document()
    document["experiment"]["measure_speed"] = True
    records.begin(document)
    comparison = compare.analyse(records)
    pair, _ = only(comparison)
    assert pair.speed is not None and pair.speed.groups == (3, 3)
    # three epochs of 1.35 s, 0.35 s of compilation, half a second of test, 5 s and 50 s of start-up
    assert (
        "keras took 9.9 s and torch 54.9 s from a cold start to the end of the test" in comparison.conclusion
    )
    assert "torch is faster" not in comparison.conclusion
    assert comparison.conclusion.index("to the end of the test") < comparison.conclusion.index(
        "images/s once warm"
    )
    assert comparison.performance.arms["torch"].cost is None


def test_speeds_of_fresh_processes_are_judged_over_them(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", SAME)
    document = records.document()
    document["experiment"]["measure_speed"] = True
    records.begin(document)
    for place, run in enumerate(document["runs"]):
        own = attempt("s1") | {"startup": {"workers_seconds": 3.0 + place % 3 + 10 * (run["arm"] == "torch")}}
        (tmp_path / "x" / "runs" / run["id"] / "attempts.jsonl").write_text(json.dumps(own) + "\n")
    comparison = compare.analyse(records)
    pair, _ = only(comparison)
    assert pair.speed is not None and pair.speed.end is not None and pair.speed.end.low is not None
    assert pair.speed.end.high is not None and pair.speed.end.high < 0
    assert "keras is faster: keras took 8.9 s and torch 18.9 s" in comparison.conclusion
    assert "over 3 and 3 groups of fresh processes" in comparison.conclusion
    (row,) = tables.speeds(comparison)
    assert row["groups of processes"] == "3 and 3"


def test_runs_that_were_trained_warm_are_no_independent_groups(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", SAME)
    document = records.document()
    document["experiment"]["measure_speed"] = True
    records.begin(document)
    warm = attempt("s1") | {"startup": {"workers_seconds": 0.0, "build_seconds": 0.1}}
    file = tmp_path / "x" / "runs" / document["runs"][1]["id"] / "attempts.jsonl"
    file.write_text(json.dumps(warm) + "\n")
    pair, _ = only(compare.analyse(records))
    assert pair.speed is not None and pair.speed.groups is None


def test_a_speed_from_too_little_training_is_not_compared(tmp_path: Path) -> None:
    accuracies = {"keras": [0.5], "torch": [0.6]}
    brief = analyse(tmp_path / "brief", accuracies, speed={"torch": 1500}, step_seconds=0.1)
    assert "images/s once warm" not in brief.conclusion
    assert any("Less than half a second" in note and "keras, torch" in note for note in brief.notes)
    (told,) = results.document(brief)["pairs"]
    assert told["speed"]["images_per_second_ratio"] is None and "too little to time" in told["speed"]["doubt"]
    single = analyse(tmp_path / "single", accuracies, speed={"torch": 1500}, epochs=1)
    assert any("keras, torch is that of the first epoch" in note for note in single.notes)


def test_what_other_programs_took_of_the_machine_is_told(tmp_path: Path) -> None:
    accuracies = {"keras": [0.5, 0.52], "torch": [0.6, 0.61]}
    speed = {"keras": [1000, 1010], "torch": [500, 510]}
    crowded = analyse(tmp_path / "crowded", accuracies, speed=speed, others={"torch": 0.42})
    (note,) = (note for note in crowded.notes if "Other programs" in note)
    assert "torch 42 %. " in note and "keras" not in note
    assert "Beware: other programs took CPU time of the machine" in crowded.conclusion
    alone = analyse(tmp_path / "alone", accuracies, speed=speed)
    assert "Beware" not in alone.conclusion and not any("Other programs" in note for note in alone.notes)


def test_three_arms_are_ranked_together(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path, {"a": [0.5, 0.512, 0.49], "b": [0.9, 0.911, 0.89], "c": [0.892, 0.915, 0.893]}
    )
    assert len(comparison.pairs) == 3
    assert {pair.judgement.comparisons for pair in comparison.pairs if pair.judgement} == {3}
    assert comparison.conclusion.startswith(
        "Of 3 arms, b and c cannot be told apart in accuracy; the highest test accuracy is 90.03 %, by b. "
    ) or comparison.conclusion.startswith(
        "Of 3 arms, c and b cannot be told apart in accuracy; the highest test accuracy is 90.03 %"
    ), comparison.conclusion
    assert "a is behind both." in comparison.conclusion
    assert comparison.groups == [["b", "c"], ["a"]] or comparison.groups == [["c", "b"], ["a"]]


def test_a_baseline_is_compared_with_each_and_nothing_else(tmp_path: Path) -> None:
    accuracies = {"a": [0.5, 0.512, 0.49], "b": [0.9, 0.911, 0.89], "c": [0.892, 0.915, 0.893]}
    records = make_records(tmp_path / "x", accuracies)
    document = records.document()
    document["experiment"]["baseline"] = "b"
    records.begin(document)
    comparison = compare.analyse(records)
    assert [pair.names for pair in comparison.pairs] == [("a", "b"), ("c", "b")]
    assert {pair.judgement.comparisons for pair in comparison.pairs if pair.judgement} == {2}
    assert comparison.conclusion.startswith(
        "Compared with the baseline b, 90.03 % on the test images, in points"
    )
    assert (
        "less accurate: a by 39.97 (" in comparison.conclusion
        and "not told apart from it: c" in comparison.conclusion
    )
    assert comparison.groups == []


def broken_run(records: ExperimentRecords, place: int) -> str:
    run_id = str(records.document()["runs"][place]["id"])
    (Path(records.storage.url) / "runs" / run_id / "result.json").unlink()
    return run_id


def test_failed_unfinished_and_restarted_runs_are_told(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.5, 0.6, 0.7]})
    failed, unfinished = broken_run(records, 0), broken_run(records, 4)
    records.run(failed).add_failure(
        {"driver_session": "s1", "cause": "ValueError: no", "detail": "", "permanent": True}
    )
    records.run(unfinished).add_attempt(attempt("s1", first_epoch=2))
    records.run(unfinished).add_attempt(attempt("s2", first_epoch=3))
    comparison = compare.analyse(records)
    assert [run.id for run in comparison.failed_runs] == [failed]
    assert "keras seed 0 failed: ValueError: no." in comparison.notes
    assert "torch seed 1 is not finished (3 epochs)." in comparison.notes
    summary = comparison.arms[1].runs[1]
    assert (summary.restarts, summary.resumes) == (1, 1)
    assert any("started again once" in note for note in comparison.notes)
    assert "keras finished 2 of 3 seeds and torch finished 2 of 3 seeds." in comparison.conclusion


def test_nothing_finished_is_said_plainly(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5], "torch": [0.5]})
    broken_run(records, 0)
    assert "keras has no finished run" in compare.analyse(records).conclusion
    broken_run(records, 1)
    assert compare.analyse(records).conclusion.startswith("No run has finished")


def test_an_arm_that_failed_leaves_the_others_compared(tmp_path: Path) -> None:
    scores = {"keras": [0.5, 0.6, 0.7], "torch": [0.71, 0.8, 0.89], "other": [0.9]}
    records = make_records(tmp_path / "x", scores)
    broken_run(records, 6)
    told = compare.analyse(records).conclusion
    assert told.startswith("torch is more accurate than keras"), told
    assert "other has no finished run." in told


def test_disagreements_come_most_telling_first() -> None:
    labels = np.array([0, 1, 2, 3])
    predicted = {
        "a": [np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])],
        "b": [np.array([0, 0, 2, 3]), np.array([0, 0, 2, 3])],
    }
    assert compare.disagreements(predicted, labels, at_most=9).tolist() == [1, 3]
    assert compare.disagreements(predicted, labels, at_most=1).tolist() == [1]
    assert not len(compare.disagreements({"a": predicted["a"]}, labels, at_most=9))
