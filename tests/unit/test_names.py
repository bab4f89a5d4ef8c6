"""Names that were given up for the field's own are gone from the code, the commands, the schemas and the records."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer.main

from orchestrator import report
from orchestrator.analysis import compare, results
from orchestrator.cli.app import app
from orchestrator.experiment import reader
from orchestrator.experiment.spec import from_json, json_schema
from orchestrator.store.storage import Storage
from tests.conftest import ROOT
from tests.unit.synthetic import make_records
from trainers.errors import InputError

OLD_NAMES = {
    "test-time augmentation": r"(flip|shift)_averaging|^views?_of$|^views$|^View$",
    "exponential moving average": r"weight_average",
    "corruption robustness": r"(?<!corruption_)robustness",
    "failed permanently": r"given_up",
    "resume point": r"^position$",
    "resolved": r"^settled$",
    "attempt": r"take_up",
    "prediction, latency, conclusion": r"answer",
    "exported model": r"^product_of$|^Product$",
    "model FLOPs utilisation": r"(?<!flops_)utilisation",
    "optimizer state": r"^slots$|^slots_of$|^[gs]et_slots$",
    "worker slot": r"^lanes?$",
    "trial broker": r"desk",
    "CPU contention": r"neighbour",
    "report notes": r"caveat",
    "likely causes": r"suspect",
    "snapshot": r"^facts$",
}
"""Regular expressions of old names by what is said now."""

ARMS = {"keras": [0.7, 0.71], "torch": [0.6, 0.61]}
READS_OLD_NAMES = ("orchestrator/experiment/old_fields.py", "orchestrator/store/old_records.py")


def old(words: Iterable[str]) -> set[str]:
    """The old names among some words, each with what is said now."""
    return {
        f"{word}: {now}"
        for word in words
        for now, pattern in OLD_NAMES.items()
        if re.search(pattern, word, re.IGNORECASE if pattern.islower() else 0)
    }


def names_in(tree: ast.AST) -> Iterator[str]:
    """Identifiers, and texts that are one, such as the keys of records."""
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            values = value if isinstance(value, list) else [value]
            yield from (entry for entry in values if isinstance(entry, str) and entry.isidentifier())


def keys_in(document: object) -> Iterator[str]:
    if isinstance(document, list):
        for entry in document:
            yield from keys_in(entry)
    elif isinstance(document, dict):
        for key, entry in document.items():
            yield key
            yield from keys_in(entry)


def test_no_module_uses_an_old_name() -> None:
    found = {}
    files = [ROOT / "tandem.py", *(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "trainers").rglob("*.py")]
    for file in files:
        if str(file.relative_to(ROOT)) not in READS_OLD_NAMES:
            words = [file.stem, *names_in(ast.parse(file.read_text()))]
            found |= dict.fromkeys(old(words), file)
    assert not found


def test_no_command_option_or_field_has_an_old_name() -> None:
    results = json.loads((ROOT / "docs" / "results.schema.json").read_text())
    assert not old(keys_in(json_schema())) and not old(keys_in(results))
    commands = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for command in [*commands.values()]:
        commands |= getattr(command, "commands", {})
    for command in commands.values():
        texts = [command.name, command.help, *(getattr(entry, "help", "") for entry in command.params)]
        assert not old(re.findall(r"\w+", " ".join(map(str, texts))))


def test_no_record_and_no_result_has_an_old_name(tmp_path: Path) -> None:
    report.write(make_records(tmp_path / "x", ARMS))
    files = [*(tmp_path / "x").rglob("*.json"), *(tmp_path / "x").rglob("*.jsonl")]
    assert len(files) > 10
    for file in files:
        for line in [file.read_text()] if file.suffix == ".json" else file.read_text().splitlines():
            assert not old(keys_in(json.loads(line))), file


def test_records_of_the_earlier_schema_give_the_same_results(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", ARMS)
    run = records.run(str(records.document()["runs"][0]["id"]))
    run.add_failure({"driver_session": "s1", "cause": "no", "detail": "", "permanent": True})
    now = results.document(compare.analyse(records))
    for file in [*(tmp_path / "x").rglob("*.json"), *(tmp_path / "x").rglob("*.jsonl")]:
        file.write_text(as_written_before(file.read_text()))
    for file in (tmp_path / "x").rglob("predictions.npz"):
        with np.load(file) as arrays:
            kept = {"answers" if name == "predicted" else name: arrays[name] for name in arrays.files}
        np.savez(file, **kept)
    assert "flip_averaging" in (tmp_path / "x" / "experiment.json").read_text()
    assert results.document(compare.analyse(records)) == now
    assert run.failures()[-1]["permanent"] and not run.is_open("s1")
    assert set(run.predictions() or {}) == {"predicted", "confidences"}
    assert from_json(records.document()["experiment"]).arms["keras"].ema_decay == 0


def as_written_before(text: str) -> str:
    """A JSON text with the names and the version of the earlier schema."""
    text = re.sub(r'"schema": 2', '"schema": 1', text)
    text = re.sub(
        r'"test_time_augmentation": \{\s*"flip": (\w+),\s*"shift": (\w+)\s*\}',
        r'"flip_averaging": \1, "shift_averaging": \2',
        text,
    )
    for before, now in {
        "given_up": "permanent",
        "robustness": "corruption_robustness",
        "answer_seconds": "latency_seconds",
        "answers_per_second": "predictions_per_second",
        "weight_average": "ema_decay",
    }.items():
        text = text.replace(f'"{now}"', f'"{before}"')
    return text


def test_a_trial_of_the_earlier_schema_has_the_fields_of_this_one(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    params = {"weight_average": 0.9, "flip_averaging": True, "optimizer.learning_rate": 0.1}
    storage.write("log.jsonl", json.dumps({"event": "start", "params": params}).encode())
    (event,) = storage.read_lines("log.jsonl")
    assert event["params"] == {
        "ema_decay": 0.9,
        "test_time_augmentation.flip": True,
        "optimizer.learning_rate": 0.1,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name: x\ndefaults:\n  flip_averaging: true\narms: {a: {framework: keras}}",
            "experiment.yaml:3: defaults.flip_averaging is now defaults.test_time_augmentation.flip",
        ),
        (
            "name: x\narms:\n  a: {framework: torch, shift_averaging: 1}",
            "experiment.yaml:3: arms.a.shift_averaging is now arms.a.test_time_augmentation.shift",
        ),
        (
            "name: x\narms: {a: {framework: keras}}\nsweep:\n  space:\n    weight_average: [0, 0.9]",
            "experiment.yaml:5: sweep.space.weight_average is now sweep.space.ema_decay",
        ),
        (
            "name: x\narms: {a: {framework: keras}}\nrobustness: false",
            "experiment.yaml:3: robustness is now corruption_robustness",
        ),
    ],
)
def test_a_file_with_an_old_field_is_told_the_new_one(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        reader.load(file)
    assert str(refused.value) == f"{tmp_path}/{sentence}"


def test_an_old_field_on_the_command_line_is_told_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("name: x\narms: {a: {framework: keras}}")
    with pytest.raises(InputError, match=r"^--set robustness: robustness is now corruption_robustness$"):
        reader.load(file, ["robustness=false"])
    with pytest.raises(
        InputError, match=r"^--set a.weight_average: arms.a.weight_average is now arms.a.ema_decay$"
    ):
        reader.load(file, ["a.weight_average=0.9"])
