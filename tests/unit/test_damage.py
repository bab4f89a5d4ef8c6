"""Records changed in hundreds of ways: each makes a report or one sentence with a file's name, and no other file.

The records are those of a whole experiment: runs, a search, an attempt that failed, parity, scaling. What is changed in
them follows from a number alone, so that a failure can be repeated.
"""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import report
from orchestrator.analysis import compare, experiment_diff, results
from orchestrator.experiment import spec
from orchestrator.planning import estimate, parity_plan
from orchestrator.report import columns, gate, markdown
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.unit.reported import Function, make_reported
from tests.unit.synthetic import LABELS, make_records
from tests.unit.test_sweep_report import add_sweep
from trainers.contract import FRAMEWORKS
from trainers.errors import TandemError

WAYS = 480
ROOT = Path("deep/down/records")
"""Of the experiment, below a directory that is watched; so deep that `../..` stays in it."""
OUTSIDE = "/tmp/tandem-test-damage-outside"
FORGED = [
    "../../x",
    OUTSIDE,
    "..",
    "a/../../b",
    "a\0b",
    "<script>alert(1)</script>",
    "x" * 5000,
    "",
    "A b",
    "report/x",
]
JUNK: list[Any] = [
    None, True, False, -1, 0, 1, 1.5, -0.25, 1e308, 2**70, float("nan"), float("inf"), -float("inf"), "", "0", "nan",
    "2026-01-01", "\ud800", "\0\x1b[31m", "x" * 5000, "鳥" * 50, [], {}, [[]], [None], [1, "a"], {"": None}, {"a": {}},
    *FORGED,
]  # fmt: skip


def trace() -> dict[str, np.ndarray]:
    """Two steps of a model with one weight."""
    shapes = {
        "moved": (2, 1),
        "off": (2, 1),
        "held": (2, 1),
        "statistics_held": (2, 0),
        "differences/variance": (2, 0),
    }
    return {
        "names": np.array('["a.kernel"]'),
        "update_names": np.array('["a.kernel"]'),
        "statistic_names": np.array("[]"),
        "losses": np.array([1.0, 0.9]),
        "gradients": np.ones((2, 1, 64)),
        "statistics": np.zeros((2, 0, 64)),
        "factor": np.ones(2),
        "controls": np.array([1e-5]),
        "workers": np.array(1),
        **{name: np.full(shape, 0.0 if name == "off" else 1.0) for name, shape in shapes.items()},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an experiment in it."""
    sandbox = tmp_path_factory.mktemp("whole")
    records = make_records(sandbox / ROOT, {"keras": [0.5, 0.6, 0.65], "torch": [0.6, 0.65, 0.8]})
    records.keep_disagreements(
        {
            "indices": np.array([60, 170]),
            "labels": LABELS[[60, 170]],
            "images": np.zeros((2, 4, 4, 1), np.uint8),
            "test_labels": LABELS,
        }
    )
    add_sweep(records, {"keras": 3, "torch": 3})
    document = records.document()
    run = records.run(document["runs"][0]["id"])
    run.add_failure(
        {"driver_session": "s1", "failed_at": 0.0, "cause": "lost", "detail": "", "permanent": False}
    )
    for work in parity_plan.works(spec.from_json(document["experiment"]))[0]:
        for framework in FRAMEWORKS:
            records.keep_parity(work.key(document["data"]["fingerprint"]), framework, trace())
    efficiency = {"strong": {"1": 1.0, "2": 0.8}, "weak": {"1": 1.0, "2": 0.9}}
    scale = {
        "efficiency": efficiency,
        "predicted_efficiency": efficiency,
        "model": {"error": 0.1},
        "measured": [],
    }
    records.storage.at("scaling").write_json("scaling.json", {"keras": scale, "torch": scale})
    for directory in (sandbox / ROOT).glob("runs/*/checkpoints"):
        shutil.rmtree(directory)
    comparison = compare.analyse(records)
    assert not [note for note in comparison.notes if "left out" in note]
    assert comparison.sweep is not None and comparison.scales is not None
    assert all(arm.parity is not None for arm in comparison.arms)
    return sandbox


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an experiment of training functions in it."""
    sandbox = tmp_path_factory.mktemp("functions")
    labels = np.arange(60) % 3
    handed = [{"predictions": (labels + (np.arange(60) < seed)) % 3, "labels": labels} for seed in range(3)]
    arms = {
        "mine": Function(values=[0.9, 0.91, 0.92], predictions=handed, further={"val_loss": 0.3}),
        "theirs": Function(values=[0.8, 0.81, 0.79]),
    }
    records = make_reported(sandbox / ROOT, arms, metric={"name": "val_accuracy", "goal": "maximize"})
    assert not [note for note in compare.analyse(records).notes if "is left out" in note]
    return sandbox


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a document but itself."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in below:
        yield (*path, key)
        yield from places(entry, (*path, key))


def change_json(document: Any, rng: np.random.Generator) -> Any:
    """A document with something in it replaced, missing, added or called otherwise."""
    document = copy.deepcopy(document)
    found = [*places(document)]
    if not found or rng.random() < 0.05:
        return JUNK[rng.integers(len(JUNK))]
    *above, last = found[rng.integers(len(found))]
    parent = document
    for key in above:
        parent = parent[key]
    junk = JUNK[rng.integers(len(JUNK))]
    match rng.integers(6):
        case 0 | 1:
            parent[last] = junk
        case 2:
            del parent[last]
        case 3 if isinstance(parent, dict):
            name = FORGED[rng.integers(len(FORGED))]
            renamed = {name if key == last else key: entry for key, entry in parent.items()}
            parent.clear()
            parent.update(renamed)
        case 3:
            parent.append(parent[last])
        case 4:
            parent[last] = str(parent[last]) if rng.random() < 0.5 else [parent[last]]
        case 5 if isinstance(parent[last], int | float):
            parent[last] = (
                -parent[last] if rng.random() < 0.3 else parent[last] * 10.0 ** rng.integers(1, 300)
            )
        case 5:
            parent[last] = junk
    return document


def change_arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays of which one is missing, of another type or shape, or holds other values."""
    name = [*arrays][rng.integers(len(arrays))]
    array = arrays[name]
    changed = dict(arrays)
    match rng.integers(7):
        case 0:
            del changed[name]
        case 1:
            kind = ["float64", "int8", "complex128", "U8", "bool", "float16", "uint64"][rng.integers(7)]
            with np.errstate(all="ignore"):
                changed[name] = array.astype(kind) if array.dtype.kind != "U" or kind == "U8" else np.array(7)
        case 2:
            changed[name] = array.ravel()[: rng.integers(array.size + 1)]
        case 3:
            changed[name] = np.concatenate([array[None], array[None]]) if rng.random() < 0.5 else array[None]
        case 4:
            filled = array.copy() if array.dtype.kind != "U" else np.zeros(3)
            filled = filled.astype(float) if rng.random() < 0.5 else filled
            if filled.size:
                value = [np.nan, np.inf, -1, 10**6][rng.integers(4)]
                with np.errstate(all="ignore"):
                    filled.flat[rng.integers(filled.size)] = np.array(value).astype(filled.dtype)
            changed[name] = filled
        case 5:
            changed[FORGED[rng.integers(len(FORGED))].replace("\0", "")] = changed.pop(name)
        case 6:
            changed[name] = np.array(0) if rng.random() < 0.5 else np.array([{"an": "object"}], object)
    return changed


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A file that is cut off, empty, or has other bytes in it."""
    match rng.integers(5):
        case 0:
            return content[: rng.integers(len(content) + 1)]
        case 1:
            return b""
        case 2:
            flipped = bytearray(content)
            for place in rng.integers(len(content), size=4):
                flipped[place] ^= 1 << int(rng.integers(8))
            return bytes(flipped)
        case 3:
            return rng.bytes(200)
    return b"[" * 100_000


def change(sandbox: Path, number: int) -> str:
    """Change one file; returns its name below the records."""
    rng = np.random.default_rng(number)
    root = sandbox / ROOT
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    kinds = ["experiment.json", "result.json", ".jsonl", ".npz", ".json", ""]
    kind = kinds[number % len(kinds)]
    fitting = [name for name in names if name.endswith(kind)]
    file = root / fitting[rng.integers(len(fitting))]
    if kind == "" or rng.random() < 0.1:
        if rng.random() < 0.15:
            file.unlink()
            if rng.random() < 0.5:
                file.mkdir()
        else:
            file.write_bytes(change_bytes(file.read_bytes(), rng))
    elif kind == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        np.savez(file, **change_arrays(arrays, rng))  # type: ignore[arg-type]
    elif kind == ".jsonl":
        lines = file.read_text().splitlines()
        line = rng.integers(len(lines))
        lines[line] = json.dumps(change_json(json.loads(lines[line]), rng))
        if rng.random() < 0.2:
            lines += lines[: rng.integers(1, 3)]
        file.write_text("\n".join(lines))
    elif rng.random() < 0.2 and kind == "experiment.json":
        file.write_text(json.dumps(forge(json.loads(file.read_text()), FORGED[number // 6 % len(FORGED)])))
    else:
        file.write_text(json.dumps(change_json(json.loads(file.read_text()), rng)))
    return file.relative_to(root).as_posix()


def forge(document: Any, name: str) -> Any:
    """The same experiment with another name for its first arm, wherever the arm is named."""
    (arm, *_) = document["experiment"]["arms"]
    document["experiment"]["arms"] = {
        name if key == arm else key: value for key, value in document["experiment"]["arms"].items()
    }
    for entry in document["runs"]:
        entry["id"] = entry["id"].replace(arm, name)
        entry["arm"] = entry["arm"].replace(arm, name)
    if document.get("sweep"):
        document["sweep"]["searches"] = {name: name}
    return document


def state(sandbox: Path) -> dict[str, tuple[int, int]]:
    """Every file but those of the report, with its size and time."""
    made = sandbox / ROOT / "report"
    return {
        str(path.relative_to(sandbox)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sandbox.rglob("*")
        if path.is_file() and not path.is_relative_to(made)
    }


def analysed(records: ExperimentRecords) -> None:
    """All of the report but its figures."""
    comparison = compare.analyse(records)
    json.dumps(results.document(comparison), allow_nan=False)
    for table, rows in (
        (columns.RUNS, columns.run_rows(comparison)),
        (columns.EPOCHS, columns.epoch_rows(comparison)),
    ):
        columns.files(table, rows)
    assert markdown.write(comparison, {})
    gate.junit(comparison, gate.judge(comparison, []))


def reported(records: ExperimentRecords) -> None:
    report.write(records)
    page = Path(records.storage.url) / "report" / "report.html"
    assert "<html" in page.read_text()
    assert "<script>alert(1)" not in page.read_text()


def check(whole: Path, scratch: Path, number: int, make: Callable[[ExperimentRecords], None]) -> str | None:
    """Change the records in one way and make the report; returns the sentence, if that is what came of it."""
    sandbox = scratch / str(number)
    shutil.copytree(whole, sandbox)
    changed = change(sandbox, number)
    before = state(sandbox)
    told = None
    try:
        make(ExperimentRecords(Storage(str(sandbox / ROOT))))
    except TandemError as error:
        told = str(error)
        assert len(told.splitlines()) == 1 and Path(changed).name in told, f"way {number}, {changed}: {told}"
    except Exception as error:
        raise AssertionError(f"way {number}, {changed}") from error
    assert state(sandbox) == before, f"way {number}, {changed}"
    assert not Path(OUTSIDE).exists()
    shutil.rmtree(sandbox)
    return told


def test_damaged_records_make_a_report_or_one_sentence(whole: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = [check(whole, tmp_path, number, analysed) for number in range(WAYS)]
    refused = [sentence for sentence in told if sentence is not None]
    assert 0 < len(refused) < WAYS / 3, "most of the damage leaves a report"


def test_damaged_records_of_training_functions_make_a_report_or_one_sentence(
    functions: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(4000, 4240):
            check(functions, tmp_path, number, analysed)
        check(functions, tmp_path, 4240, reported)


def test_damaged_records_make_whole_pages(whole: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(0, WAYS, 61):
            check(whole, tmp_path, number, reported)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_more_damaged_records_make_whole_pages(whole: Path, tmp_path: Path, part: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1000 + part, 1240, 4):
            check(whole, tmp_path, number, reported)


def test_damaged_records_are_compared_or_refused_in_one_sentence(whole: Path, tmp_path: Path) -> None:
    other = ExperimentRecords(Storage(str(whole / ROOT)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2000, 2120):
            check(
                whole,
                tmp_path,
                number,
                lambda records: [str(found) for found in experiment_diff.between(records, other, notes=[])],  # type: ignore[arg-type,return-value]
            )


def test_damaged_records_of_earlier_experiments_do_not_keep_an_estimate_from_its_reader(
    whole: Path, tmp_path: Path
) -> None:
    experiment = spec.from_json(ExperimentRecords(Storage(str(whole / ROOT))).document()["experiment"])

    def estimated(records: ExperimentRecords) -> None:
        storage = Storage(str(Path(records.storage.url).parent))
        estimate.from_records(experiment, storage, train_images=900, image_shape=(4, 4, 1), fit=2)

    for number in range(3000, 3200):
        assert check(whole, tmp_path, number, estimated) is None


@pytest.mark.parametrize("name", FORGED)
def test_forged_names_of_arms_write_nothing_outside_the_report(
    whole: Path, tmp_path: Path, name: str
) -> None:
    sandbox = tmp_path / "sandbox"
    shutil.copytree(whole, sandbox)
    file = sandbox / ROOT / "experiment.json"
    file.write_text(json.dumps(forge(json.loads(file.read_text()), name)))
    before = state(sandbox)
    comparison = report.write(ExperimentRecords(Storage(str(sandbox / ROOT))))
    assert [arm.name for arm in comparison.arms] == ["torch"]
    assert any("its name is not made of lower-case letters" in note for note in comparison.notes)
    assert state(sandbox) == before and not Path(OUTSIDE).exists()
