"""Gates for CI, comparisons of two experiments, and the page that lists many."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis import compare, experiment_diff, pairs
from orchestrator.analysis.statistics.verdicts import Verdict
from orchestrator.report import gate
from tests.conftest import tandem
from tests.unit.planted import plant_arm
from tests.unit.simulated import POPULATIONS
from tests.unit.synthetic import make_records
from trainers.errors import InputError

ARMS = {"keras": [0.70, 0.71, 0.72], "torch": [0.60, 0.61, 0.62]}


def judged(tmp_path: Path, *conditions: str) -> list[gate.Outcome]:
    comparison = compare.analyse(make_records(tmp_path / "x", ARMS))
    return gate.judge(comparison, [gate.parse(text, ARMS) for text in conditions])


def test_conditions_see_the_arms(tmp_path: Path) -> None:
    verdicts = judged(
        tmp_path,
        "torch.accuracy < keras.accuracy - 0.01",
        "keras.accuracy < 0.5",
        "keras.failed_runs > 0 or torch.accuracy_high > 0.9",
    )
    assert [verdict.failed for verdict in verdicts] == [True, False, False]
    assert str(verdicts[0]).startswith("torch.accuracy < keras.accuracy - 0.01 (keras.accuracy 0.71")


def test_arms_are_called_what_a_file_may_call_them(tmp_path: Path) -> None:
    arms = {"keras-adam": [0.7, 0.71], "3x3": [0.6, 0.61], "adam": [0.5, 0.51]}
    comparison = compare.analyse(make_records(tmp_path / "x", arms))
    conditions = [
        "keras-adam.accuracy < 0.705",
        "3x3.accuracy-adam.accuracy > 0.09 and keras-adam.failed_runs == 0",
        "keras-adam.accuracy-keras-adam.accuracy != 0",
    ]
    verdicts = gate.judge(comparison, [gate.parse(text, arms) for text in conditions])
    assert [verdict.failed for verdict in verdicts] == [False, True, False]
    assert str(verdicts[0]) == "keras-adam.accuracy < 0.705 (keras-adam.accuracy 0.705)"
    with pytest.raises(InputError, match="there is no arm 'keras'; the arms are keras-adam, 3x3, adam"):
        gate.judge(comparison, [gate.parse("keras-sgd.accuracy > 0", arms)])
    with pytest.raises(InputError, match=r"'3x3\.accuracy <' is not an expression"):
        gate.parse("3x3.accuracy <", arms)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("jax.accuracy < 1", "there is no arm 'jax'; the arms are keras, torch"),
        ("torch.speed < 1", "give one of score, score_low"),
        ("__import__('os')", "not"),
        ("torch.accuracy <", "not an expression"),
        ("torch.accuracy", "is no condition on an arm"),
        ("torch.accuracy + 1", "is no condition on an arm"),
        ("torch.accuracy < 1 and keras.accuracy", "is no condition on an arm"),
        ("1 < 2", "is no condition on an arm"),
        ("torch.keras.speed < 1", "give one of gap, gap_low"),
        ("torch.torch.gap < 1", "there is no arm"),
        ("torch.jax.gap < 1", "there is no arm 'jax'"),
        ("a.b.c.d < 1", "there is no arm 'a'"),
    ],
)
def test_a_wrong_condition_gets_one_sentence(tmp_path: Path, condition: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        judged(tmp_path, condition)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_conditions_see_pairs_of_arms_from_the_view_of_the_first(tmp_path: Path) -> None:
    outcomes = judged(
        tmp_path,
        "keras.torch.gap_low < 0.05",
        "torch.keras.gap_high > -0.05",
        "keras.torch.verdict != 'better_by_more_than_margin'",
        "torch.keras.verdict == 'worse_by_more_than_margin'",
        "torch.keras.p_value > 0.05 or torch.keras.seeds < 3",
        "keras.torch.gap < 0.0999 or torch.keras.gap > -0.0999 or keras.torch.unfinished_runs > 0",
    )
    assert [outcome.failed for outcome in outcomes] == [False, False, False, True, False, False]
    assert str(outcomes[3]).endswith("(torch.keras.verdict worse_by_more_than_margin)")


def test_what_is_missing_fails_the_gate(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", ARMS)
    for run in (tmp_path / "x" / "runs").glob("torch-*"):
        (run / "result.json").unlink()
    (outcome,) = gate.judge(compare.analyse(records), [gate.parse("torch.accuracy < 0.1", ARMS)])
    assert outcome.failed and "torch.accuracy missing" in str(outcome)


def test_a_gate_that_cannot_be_judged_fails(tmp_path: Path) -> None:
    """Unfinished runs, divisions by zero, values that do not mix, too few seeds."""
    division, mixed = judged(
        tmp_path / "a", "keras.accuracy / keras.failed_runs > 9", "keras.torch.verdict < 0.5"
    )
    assert division.failed and "cannot be computed (ZeroDivisionError" in str(division)
    assert mixed.failed and "cannot be computed (TypeError" in str(mixed)
    records = make_records(tmp_path / "b", ARMS)
    next((tmp_path / "b" / "runs").glob("torch-*")).joinpath("result.json").unlink()
    conditions = [
        "torch.accuracy < 0.1",
        "torch.keras.gap > 0.9",
        "torch.unfinished_runs > 1",
        "torch.failed_runs > 0",
    ]
    outcomes = gate.judge(compare.analyse(records), [gate.parse(text, ARMS) for text in conditions])
    assert [outcome.failed for outcome in outcomes] == [True, True, False, False]
    assert str(outcomes[0]).endswith(": 1 of 3 runs of torch have no result")
    few = compare.analyse(make_records(tmp_path / "c", {"keras": [0.7, 0.71], "torch": [0.6, 0.61]}))
    (outcome,) = gate.judge(few, [gate.parse("torch.keras.gap_low < -0.5", ARMS)])
    assert outcome.failed and "torch.keras.gap_low is missing" in str(outcome)


def test_a_number_that_is_none_fails_the_gate(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", ARMS)
    for run in (tmp_path / "x" / "runs").glob("torch-*"):
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"test_accuracy": math.nan}))
    (outcome,) = gate.judge(compare.analyse(records), [gate.parse("torch.accuracy < 0.1", ARMS)])
    assert outcome.failed and "torch.accuracy missing" in str(outcome)


def test_junit_is_xml_whatever_a_run_says(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", ARMS)
    run = records.document()["runs"][0]["id"]
    (tmp_path / "x" / "runs" / run / "result.json").unlink()
    said = 'bad \x00\x1b[31m \ufffe <tag> & "quotes" \ud800 ]]> \U0001f4a5'
    records.run(run).add_failure({"driver_session": "s1", "cause": said, "detail": "", "permanent": True})
    comparison = compare.analyse(records)
    outcomes = gate.judge(comparison, [gate.parse("torch.keras.verdict == '\x01<&>'", ARMS)])
    suite = ET.fromstring(gate.junit(comparison, outcomes))
    (failure, *_) = suite.iter("failure")
    assert '<tag> & "quotes"' in failure.get("message", "") and "\U0001f4a5" in failure.get("message", "")


def test_the_command_exits_with_1_and_writes_junit(tmp_path: Path) -> None:
    make_records(tmp_path / "x", ARMS)
    junit = tmp_path / "junit.xml"
    failing = tandem(
        "report", tmp_path / "x", "--fail-if", "torch.accuracy < keras.accuracy", "--junit", junit
    )
    assert failing.returncode == 1 and "fails: torch.accuracy < keras.accuracy" in failing.stderr
    suite = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("7", "1")
    fine = tandem("report", tmp_path / "x", "--fail-if", "torch.accuracy > keras.accuracy")
    assert fine.returncode == 0, fine.stderr
    wrong = tandem("report", tmp_path / "x", "--fail-if", "torch.acuracy > 0")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_two_experiments_are_compared_arm_by_arm(tmp_path: Path) -> None:
    before = make_records(tmp_path / "a", ARMS, speed={"keras": 1000})
    later = {"keras": [0.70, 0.71, 0.72], "torch": [0.65, 0.662, 0.669]}
    after = make_records(tmp_path / "b", later, arms={"torch": {"batch_size": 64}}, speed={"keras": 1500})
    keras, torch = experiment_diff.between(before, after)
    assert keras.is_identical and not keras.differences
    assert keras.pair.speed is not None and keras.pair.speed.rate is not None
    assert keras.pair.speed.rate.mean == pytest.approx(math.log(1.5))
    assert keras.pair.judgement is not None and keras.pair.judgement.comparisons == 2
    assert not torch.is_identical and torch.differences == ["batch size (128 / 64)"]
    assert torch.pair.judgement is not None and torch.pair.judgement.verdict is Verdict.BETTER_BY_MORE
    done = tandem("compare", tmp_path / "a", tmp_path / "b")
    assert (
        "keras: identical with 3 seeds, bit for bit; time to the end times 1.00, images/s times 1.50"
        in done.stdout
    )
    assert "torch: accuracy +5.03 points (" in done.stdout
    assert "changed by more than the margin of 1 point; time to the end times 1.00" in done.stdout
    told = json.loads(tandem("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert [entry["identical"] for entry in told] == [True, False]
    assert told[1]["verdict"] == "better_by_more_than_margin" and told[1]["gap"]["mean"] == pytest.approx(
        0.05033, abs=1e-5
    )


def test_other_predictions_of_the_same_accuracy_are_not_identical(tmp_path: Path) -> None:
    before, after = make_records(tmp_path / "a", ARMS), make_records(tmp_path / "b", ARMS)
    run = after.document()["runs"][0]["id"]
    arrays = after.run(run).predictions()
    assert arrays is not None
    arrays["confidences"][0] = 0.5
    after.storage.write_arrays(f"runs/{run}/predictions.npz", arrays)
    keras, torch = experiment_diff.between(before, after)
    assert not keras.is_identical and torch.is_identical
    assert str(keras).startswith("keras: accuracy 0.00 points (-0.44 to +0.44), the same within 1 point")


def test_records_that_are_left_out_of_a_comparison_are_named(tmp_path: Path) -> None:
    before, after = make_records(tmp_path / "a", ARMS), make_records(tmp_path / "b", ARMS)
    run = after.document()["runs"][0]["id"]
    (tmp_path / "b" / "runs" / run / "result.json").write_text("{torn")
    notes: list[str] = []
    keras, _ = experiment_diff.between(before, after, notes=notes)
    assert notes == [notes[0]] and notes[0].startswith(
        f"{after.storage.url}/runs/{run}/result.json is left out: "
    )
    assert "no verdict (fewer than 3 seeds)" in str(keras)


def test_an_unchanged_arm_is_rarely_said_to_have_changed() -> None:
    """Ten arms trained again on other seeds: in one experiment of twenty at most, any of them is."""
    generator = np.random.default_rng(11)
    labels = generator.integers(0, 10, 359)
    told = 0
    for _ in range(60):
        chosen = []
        for arm in range(10):
            drawn = POPULATIONS["clothes"].draw(generator, [3, 3], 359, [0.0, 0.0])
            sides = [
                plant_arm(f"{arm} {place}", right, labels, seeds=range(10 * place, 10 * place + 3))
                for place, right in enumerate(drawn)
            ]
            chosen.append((sides[0], sides[1]))
        compared = pairs.compare_pairs(chosen, predicted={}, performance=None)
        told += any(pair.ahead is not None for pair in compared)
    assert told <= 7, "5 % of 60, as it may come out"


def test_a_speed_that_says_little_is_said_to(tmp_path: Path) -> None:
    before = make_records(tmp_path / "a", ARMS, step_seconds=0.1)
    after = make_records(tmp_path / "b", ARMS)
    crowded = make_records(tmp_path / "c", ARMS, others={"torch": 0.3})
    brief = experiment_diff.between(before, after)[0]
    assert brief.pair.speed is not None and brief.pair.speed.rate is None
    assert str(brief).endswith(
        "without a verdict, but less than half a second of training is too little to time"
    )
    keras, torch = experiment_diff.between(after, crowded)
    assert keras.pair.speed is not None and keras.pair.speed.doubt is None
    assert str(torch).endswith(
        "but other programs took CPU time of the machine, which does not slow all alike"
    )


def test_recipes_of_two_versions_differ_only_in_what_is_stated(tmp_path: Path) -> None:
    before = make_records(tmp_path / "a", ARMS)
    after = make_records(tmp_path / "b", ARMS, arms={"torch": {"loss": {"class_weights": "balanced"}}})
    for file in (tmp_path / "a").glob("runs/*/run.json"):
        run = json.loads(file.read_text())
        del run["recipe"]["loss"]["class_weights"], run["recipe"]["test_time_augmentation"]["shift"]
        file.write_text(json.dumps(run))
    for first, second in ((before, after), (after, before)):
        keras, torch = experiment_diff.between(first, second)
        assert not keras.differences
        (told,) = torch.differences
        assert "cross_entropy, class weights balanced" in told


def test_other_data_cannot_be_compared(tmp_path: Path) -> None:
    before, after = make_records(tmp_path / "a", ARMS), make_records(tmp_path / "b", ARMS)
    document = json.loads((tmp_path / "b/experiment.json").read_text())
    document["data"]["fingerprint"] = "0" * 64
    (tmp_path / "b/experiment.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="trained on different data"):
        experiment_diff.between(before, after)
