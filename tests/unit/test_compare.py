from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis import compare, inference
from orchestrator.report import tables
from orchestrator.store.records import ExperimentRecords
from tests.unit.synthetic import attempt, make_records


def analyse(tmp_path: Path, *args: object, **kwargs: object) -> compare.Comparison:
    return compare.analyse(make_records(tmp_path / "x", *args, **kwargs))  # type: ignore[arg-type]


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
    (pair,) = comparison.pairs
    assert pair.paired_seeds == [0, 1, 2]
    assert pair.gap is not None
    assert pair.gap.mean == pytest.approx(-0.02)
    assert pair.conclusive
    assert comparison.answer.startswith(
        "torch is more accurate than keras, 62.00% against 60.00% on the test images; "
        "the gap of 2.00 points holds over 3 paired seeds (95 % interval 1.75 to 2.25)."
    )
    assert "The arms differ in nothing but the framework." in comparison.answer


def test_noise_is_called_not_enough_evidence(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.50, 0.60, 0.70], "torch": [0.60, 0.50, 0.72]})
    assert not comparison.pairs[0].conclusive
    assert "cannot be told apart in accuracy" in comparison.answer
    assert "not enough evidence" in comparison.answer


def test_unpaired_seeds_use_welch(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path,
        {"keras": [0.50, 0.51, 0.52], "torch": [0.70, 0.71, 0.72]},
        arms={"torch": {"seeds": [7, 8, 9]}},
    )
    (pair,) = comparison.pairs
    assert pair.paired_seeds == []
    # Welch, equal spreads: 0.2 +- t(0.975, 4) * sqrt(2 / 3) * 0.01
    assert pair.gap is not None
    assert pair.gap.low == pytest.approx(-0.2 - 2.776445 * np.sqrt(2 / 3) * 0.01, abs=1e-6)
    assert "seeds (0, 1, 2 / 7, 8, 9)" in comparison.answer
    assert any("share no seeds" in note for note in comparison.notes)


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
        assert factor in comparison.answer
    assert "the framework alone cannot be credited" in comparison.answer
    assert "chance cannot be told from a real difference" in comparison.answer


def test_arms_of_one_framework_are_not_said_to_differ_in_it(tmp_path: Path) -> None:
    comparison = analyse(
        tmp_path,
        {"a": [0.5, 0.6, 0.55], "b": [0.6, 0.7, 0.65]},
        arms={"b": {"framework": "keras", "batch_size": 32}},
    )
    assert "The arms differ only in batch size (128 / 32)." in comparison.answer


def test_identical_results(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.5, 0.6], "torch": [0.5, 0.6]})
    assert "scored the same" in comparison.answer
    assert "Both trained equally fast, 1,000 images/s." in comparison.answer


def test_speed_is_the_median_after_the_first_epoch(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"keras": [0.5], "torch": [0.6]}, speed={"keras": 1000, "torch": 1500})
    assert comparison.pairs[0].speed_ratio == pytest.approx(1000 / 1500)
    assert (
        "torch trained 1.50 times as fast as keras (1,500 against 1,000 images/s), by one run on a side."
        in comparison.answer
    )


def test_a_difference_in_speed_is_told_with_its_interval_over_runs(tmp_path: Path) -> None:
    speeds = {"keras": [1000, 1050, 980], "torch": [1500, 1480, 1550]}
    comparison = analyse(tmp_path, {"keras": [0.5, 0.6, 0.55], "torch": [0.5, 0.6, 0.55]}, speed=speeds)
    (pair,) = comparison.pairs
    keras, torch = (np.array(speeds[arm]) / np.mean(speeds[arm]) for arm in ("keras", "torch"))
    half = stats.ttest_ind(keras, torch, equal_var=False).confidence_interval(0.95).high
    ratio = np.log(1010 / 1510)
    low, high = ratio - half, ratio + half
    assert pair.log_speed is not None and (pair.log_speed.low, pair.log_speed.high) == pytest.approx(
        (low, high)
    )
    assert (
        f"95 % interval {np.exp(-high):.2f} to {np.exp(-low):.2f}; 1,510 against 1,010" in comparison.answer
    )
    (row,) = tables.evidences(comparison)
    assert row["times the speed"] == f"{1010 / 1510:.2f} ({np.exp(low):.2f} to {np.exp(high):.2f})"


def test_a_difference_in_speed_that_runs_do_not_prove_is_not_claimed(tmp_path: Path) -> None:
    speeds = {"keras": [1000, 1400, 800], "torch": [1100, 1500, 900]}
    comparison = analyse(tmp_path, {"keras": [0.5, 0.6, 0.55], "torch": [0.5, 0.6, 0.55]}, speed=speeds)
    assert "They cannot be told apart in speed: torch trained 1.09 times" in comparison.answer


def test_a_speed_from_too_little_training_is_not_compared(tmp_path: Path) -> None:
    accuracies = {"keras": [0.5], "torch": [0.6]}
    brief = analyse(tmp_path / "brief", accuracies, speed={"torch": 1500}, step_seconds=0.1)
    assert "Their speeds are not compared" in brief.answer and "times as fast" not in brief.answer
    assert any("Less than half a second" in note and "keras, torch" in note for note in brief.notes)
    (row,) = tables.evidences(brief)
    assert row["times the speed"] == "–"
    (told,) = brief.to_json()["pairs"]
    assert told["speed_ratio"] is None and "too little to time" in told["speed_doubt"]
    single = analyse(tmp_path / "single", accuracies, speed={"torch": 1500}, epochs=1)
    assert "times as fast" in single.answer
    assert any("keras, torch is that of the first epoch" in note for note in single.notes)


def test_what_other_programs_took_of_the_machine_is_told(tmp_path: Path) -> None:
    accuracies = {"keras": [0.5, 0.52], "torch": [0.6, 0.61]}
    speed = {"keras": [1000, 1010], "torch": [500, 510]}
    crowded = analyse(tmp_path / "crowded", accuracies, speed=speed, others={"torch": 0.42})
    (note,) = (note for note in crowded.notes if "Other programs" in note)
    assert "torch 42 %. " in note and "keras" not in note
    told = "images/s); but other programs took CPU time of the machine, which does not slow all alike."
    assert told in crowded.answer
    assert crowded.pairs[0].speed_ratio == pytest.approx(1005 / 505)
    alone = analyse(tmp_path / "alone", accuracies, speed=speed)
    assert "images/s)." in alone.answer and not any("Other programs" in note for note in alone.notes)


def test_three_arms_compare_the_first_two(tmp_path: Path) -> None:
    comparison = analyse(tmp_path, {"a": [0.5, 0.51], "b": [0.9, 0.91], "c": [0.8, 0.81]})
    assert len(comparison.pairs) == 3
    assert comparison.answer.startswith("Of 3 arms, the first two: b ")


def broken_run(records: ExperimentRecords, place: int) -> str:
    run_id = str(records.document()["runs"][place]["id"])
    (Path(records.storage.url) / "runs" / run_id / "result.json").unlink()
    return run_id


def test_failed_unfinished_and_restarted_runs_are_told(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.5, 0.6, 0.7]})
    failed, unfinished = broken_run(records, 0), broken_run(records, 4)
    records.run(failed).add_failure(
        {"driver_session": "s1", "cause": "ValueError: no", "detail": "", "given_up": True}
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
    assert comparison.pairs[0].paired_seeds == [2] or comparison.pairs[0].paired_seeds == []


def test_nothing_finished_is_said_plainly(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5], "torch": [0.5]})
    broken_run(records, 0)
    assert "keras has no finished run" in compare.analyse(records).answer
    broken_run(records, 1)
    assert compare.analyse(records).answer.startswith("No run has finished")


def test_an_arm_that_failed_leaves_the_others_compared(tmp_path: Path) -> None:
    scores = {"keras": [0.5, 0.6, 0.7], "torch": [0.71, 0.8, 0.89], "other": [0.9]}
    records = make_records(tmp_path / "x", scores)
    broken_run(records, 6)
    told = compare.analyse(records).answer
    assert told.startswith("torch is more accurate than keras"), told
    assert told.endswith("other has no finished run.")


def test_disagreements_come_most_telling_first() -> None:
    labels = np.array([0, 1, 2, 3])
    answers = {
        "a": [np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])],
        "b": [np.array([0, 0, 2, 3]), np.array([0, 0, 2, 3])],
    }
    assert compare.disagreements(answers, labels, at_most=9).tolist() == [1, 3]
    assert compare.disagreements(answers, labels, at_most=1).tolist() == [1]
    assert not len(compare.disagreements({"a": answers["a"]}, labels, at_most=9))


def test_false_alarms_stay_at_their_stated_rate() -> None:
    """Two arms with the same distribution are told apart in about 5 % of experiments."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        interval = inference.mean_interval(list(rng.normal(0, 0.01, 3) - rng.normal(0, 0.01, 3)))
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        alarms += interval.low > 0 or interval.high < 0
    assert 0.035 < alarms / 2000 < 0.065
