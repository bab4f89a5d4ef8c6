from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage, StorageError
from tests.unit.synthetic import make_records
from trainers import checkpoints
from trainers.contract import EpochMetrics
from trainers.errors import InputError


def run_directory(tmp_path: Path) -> tuple[ExperimentRecords, str, Path]:
    records = make_records(tmp_path / "x", {"keras": [0.5]}, epochs=5)
    run_id = str(records.document()["runs"][0]["id"])
    return records, run_id, tmp_path / "x" / "runs" / run_id


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "deep" / "below"))
    assert storage.read("a/b.json") is None
    storage.write_json("a/b.json", {"x": 1})
    assert storage.read_json("a/b.json") == {"schema": 2, "x": 1}
    assert storage.names("a") == ["b.json"]
    storage.delete("a/b.json")
    storage.delete("a/b.json")
    assert storage.names("a") == []
    assert storage.names("nowhere") == []


@pytest.mark.parametrize("damaged", [b"", b"null", b"[1]", b'{"a": 1', b"\xff"])
def test_what_is_no_record_is_left_out(tmp_path: Path, damaged: bytes) -> None:
    storage = Storage(str(tmp_path))
    storage.write("x.json", damaged)
    assert storage.read_json("x.json") is None
    storage.write("x.jsonl", b'{"a": 1}\n' + damaged + b'\n{"a": 2}\n')
    assert storage.read_lines("x.jsonl") == [{"a": 1}, {"a": 2}]


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    records, run_id, directory = run_directory(tmp_path)
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == [
        "00004.json",
        "00004.npz",
        "00005.json",
        "00005.npz",
    ]
    resume_point = records.run(run_id).resume_point()
    assert resume_point.epoch == 5
    assert resume_point.state is not None
    assert resume_point.state["w"].tolist() == [5, 5, 5]


def test_the_best_checkpoint_outlives_the_others(tmp_path: Path) -> None:
    records, run_id, _ = run_directory(tmp_path)
    run = records.run(run_id)
    for epoch in (6, 7, 8, 9):
        metrics = EpochMetrics(**{field.name: epoch for field in dataclasses.fields(EpochMetrics)})
        run.add_epoch(metrics, {"w": np.full(3, epoch)}, {}, best=6 if epoch < 9 else 9)
        best = run.state(6)
        assert (best is not None) == (epoch < 9)
        if best is not None:
            assert best["w"].tolist() == [6, 6, 6]
        assert (run.state(5) is None) == (epoch > 6)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    records, run_id, directory = run_directory(tmp_path)
    newest = directory / "checkpoints" / "00005.npz"
    content = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()
    assert records.run(run_id).resume_point().epoch == 4


def test_a_checkpoint_whose_epoch_was_not_recorded_is_passed_over(tmp_path: Path) -> None:
    records, run_id, directory = run_directory(tmp_path)
    lines = (directory / "epochs.jsonl").read_text().splitlines(keepends=True)
    (directory / "epochs.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    assert [epoch["epoch"] for epoch in records.run(run_id).epochs()] == [1, 2, 3, 4]
    assert records.run(run_id).resume_point().epoch == 4


def test_a_checkpoint_within_the_next_epoch_is_gone_on_from(tmp_path: Path) -> None:
    records, run_id, directory = run_directory(tmp_path)
    run = records.run(run_id)
    run.keep_partial(6, 12, {"w": np.full(3, 6.5)})
    resume_point = run.resume_point()
    assert (resume_point.epoch, resume_point.step) == (5, 12)
    assert resume_point.state is not None
    assert resume_point.state["w"].tolist() == [6.5] * 3
    run.keep_partial(5, 3, {"w": np.zeros(3)})
    assert (run.resume_point().epoch, run.resume_point().step) == (5, 0), "its epoch is finished"
    run.keep_partial(6, 20, {"w": np.zeros(3)})
    (directory / "checkpoints" / "partial.npz").write_bytes(b"torn")
    assert (run.resume_point().epoch, run.resume_point().step) == (5, 0)


def test_what_a_hung_worker_left_is_read_once(tmp_path: Path) -> None:
    records, run_id, _ = run_directory(tmp_path)
    run = records.run(run_id)
    assert run.take_hang() is None
    run.add_hang({"rank": 1, "seconds": 8, "stack": "here"})
    hang = run.take_hang()
    assert hang is not None
    assert hang["rank"] == 1
    assert run.take_hang() is None


def test_checkpoints_hold_arrays_and_nothing_that_could_run() -> None:
    content, sha256 = checkpoints.pack({"a": np.arange(3), "b": np.array(2.5)})
    state = checkpoints.unpack(content, sha256)
    assert state is not None
    assert state["a"].tolist() == [0, 1, 2]
    assert checkpoints.unpack(content[:-1], sha256) is None
    objects, sha256 = checkpoints.pack({"a": np.array([{}], object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoints.unpack(objects, sha256)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match=r"cannot be written: .*choose another with --set storage"):
        Storage(str(tmp_path / "file" / "below")).write("x", b"")
    with pytest.raises(StorageError, match="cannot be opened"):
        Storage("nonsense://bucket")


def test_what_is_no_directory_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="file' cannot be listed: "):
        Storage(str(tmp_path / "file")).names()
    with pytest.raises(StorageError, match="file cannot be removed: "):
        Storage(str(tmp_path)).delete_directory("file")
    assert Storage(str(tmp_path)).names("nowhere") == []
    Storage(str(tmp_path)).delete("nowhere")


def test_a_place_without_an_experiment(tmp_path: Path) -> None:
    records = ExperimentRecords(Storage(str(tmp_path)))
    with pytest.raises(InputError, match="holds no experiment"):
        records.document()
    (tmp_path / "experiment.json").write_text('{"experiment": "of another program"}')
    with pytest.raises(InputError, match="holds no experiment"):
        records.document()
