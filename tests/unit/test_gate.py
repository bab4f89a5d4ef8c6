"""Gates for CI, comparisons of two experiments, and the page that lists many."""

from __future__ import annotations

import json
import math
import threading
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from orchestrator import report
from orchestrator.analysis import compare, experiment_diff
from orchestrator.report import gate
from orchestrator.report.server import listen
from orchestrator.store.storage import Storage
from tests.conftest import tandem
from tests.unit.synthetic import make_records
from trainers.errors import InputError

ARMS = {"keras": [0.70, 0.71, 0.72], "torch": [0.60, 0.61, 0.62]}


def judged(tmp_path: Path, *conditions: str) -> list[gate.Verdict]:
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
        ("torch.speed < 1", "give one of accuracy"),
        ("__import__('os')", "not"),
        ("torch.accuracy <", "not an expression"),
    ],
)
def test_a_wrong_condition_gets_one_sentence(tmp_path: Path, condition: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        judged(tmp_path, condition)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_what_is_missing_fails_the_gate(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", ARMS)
    for run in (tmp_path / "x" / "runs").glob("torch-*"):
        (run / "result.json").unlink()
    (verdict,) = gate.judge(compare.analyse(records), [gate.parse("torch.accuracy < 0.1", ARMS)])
    assert verdict.failed and "torch.accuracy missing" in str(verdict)


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
    later = {"keras": [0.7005, 0.709, 0.7202], "torch": [0.65, 0.662, 0.669]}
    after = make_records(tmp_path / "b", later, arms={"torch": {"batch_size": 64}}, speed={"keras": 1500})
    keras, torch = experiment_diff.between(before, after)
    assert keras.log_speed is not None and keras.log_speed.mean == pytest.approx(math.log(1.5))
    assert not keras.conclusive and not keras.differences
    assert torch.conclusive and torch.differences == ["batch size (128 / 64)"]
    done = tandem("compare", tmp_path / "a", tmp_path / "b")
    assert "torch: accuracy +5.03 points" in done.stdout and "keras: accuracy" in done.stdout
    assert "not told from chance; speed times 1.50 (1.50 to 1.50)\n" in done.stdout


def test_a_speed_that_says_little_is_said_to(tmp_path: Path) -> None:
    before = make_records(tmp_path / "a", ARMS, step_seconds=0.1)
    after = make_records(tmp_path / "b", ARMS)
    crowded = make_records(tmp_path / "c", ARMS, others={"torch": 0.3})
    brief = experiment_diff.between(before, after)[0]
    assert brief.log_speed is None and str(brief).endswith(
        "; speeds not compared: less than half a second of training is too little to time"
    )
    keras, torch = experiment_diff.between(after, crowded)
    assert keras.speed_doubt is None and str(torch).endswith(
        "but other programs took CPU time of the machine, which does not slow all alike"
    )


def test_recipes_of_two_versions_differ_only_in_what_is_stated(tmp_path: Path) -> None:
    before = make_records(tmp_path / "a", ARMS)
    after = make_records(tmp_path / "b", ARMS, arms={"torch": {"loss": {"class_weights": "balanced"}}})
    for file in (tmp_path / "a").glob("runs/*/run.json"):
        run = json.loads(file.read_text())
        del run["recipe"]["loss"]["class_weights"], run["recipe"]["shift_averaging"]
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


def test_many_experiments_are_browsed_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("one", "two"):
        report.write(make_records(tmp_path / name, ARMS))
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(InputError, match="one experiment; give the directory above"):
        listen(Storage(str(tmp_path / "one")), "127.0.0.1", 0)
    server = listen(Storage(str(tmp_path)), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(base + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    status, page = get("/")
    assert status == 200 and 'href="/one/report/report.html"' in page and "more accurate" in page
    assert get("/one/report/report.html")[0] == 200
    hidden = (
        "/secret.txt",
        "/one/report/../experiment.json",
        "/one/experiment.json",
        "/one/report/..%2f..%2fsecret.txt",
    )
    for path in hidden:
        assert get(path)[0] == 404, path
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(urllib.request.Request(base, data=b"x"), timeout=5)
    server.shutdown()
