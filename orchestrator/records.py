"""The run store: what an experiment leaves behind in storage, written as things happen.

    <storage>/<name>/
        experiment.json        the experiment as it was understood, its runs, its data
        sessions.jsonl         every start of the driver: when, command, machine, versions
        disagreements.npz      test images that arms answer differently
        runs/<run id>/
            run.json           arm, framework, seed, recipe
            attempts.jsonl     every time workers took the run up, from which epoch, start-up times
            epochs.jsonl       metrics of every finished epoch
            failures.jsonl     what went wrong, and whether it was tried again
            result.json        the final test; its presence means that the run is done
            predictions.npz    answer and confidence for each test image
            checkpoints/       the last two epochs' state, and one within an epoch, with checksums
        parity/                a trace of a few steps of each recipe in each framework
        report/                made from all of the above, at any time

Files are only ever added to or written whole, so a kill loses at most the epoch under way. Storage
is anything that pyarrow has a filesystem for: a directory, s3://, gs://.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from pydantic_core import from_json

from trainers import checkpoints
from trainers.contract import EpochMetrics, State
from trainers.errors import InputError

SCHEMA_VERSION = 1
_CHECKPOINTS_KEPT = 2

Record = dict[str, Any]


class StorageError(InputError):
    """The storage cannot be reached, read or written."""


def url_below(url: str, *parts: str) -> str:
    """The URL of a directory below another's; what follows a `?` stays at the end."""
    base, mark, options = url.partition("?")
    return "/".join((base.rstrip("/"), *parts)) + mark + options


class Storage:
    """Files under one directory or URL, written whole or not at all."""

    def __init__(self, url: str) -> None:
        """Open a storage.

        Args:
            url: a directory, or a URL that pyarrow has a filesystem for.

        Raises:
            StorageError: the URL is of no known kind.
        """
        try:
            if "://" in url:
                self._files, self._base = pafs.FileSystem.from_uri(url)
                self.url = url_below(url)
            else:
                self._files = pafs.LocalFileSystem()
                self.url = self._base = str(Path(url).expanduser().resolve())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(f"storage {url!r} cannot be opened: {error}") from error
        self.is_local = isinstance(self._files, pafs.LocalFileSystem)

    def at(self, *parts: str) -> Storage:
        """The storage of a directory below this one."""
        below = Storage.__new__(Storage)
        below._files, below.is_local = self._files, self.is_local
        below.url = url_below(self.url, *parts)
        below._base = "/".join((self._base.rstrip("/"), *parts))
        return below

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def read(self, name: str) -> bytes | None:
        """A file's contents, or None where there is none."""
        try:
            with self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"storage {self.url!r}: {name} cannot be read: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file so that a reader sees all of it or none.

        Raises:
            StorageError: no permission, no space, no connection.
        """
        path = self._path(name)
        target = f"{path}.part" if self.is_local else path
        try:
            if self.is_local:
                self._files.create_dir(path.rpartition("/")[0], recursive=True)
            with self._files.open_output_stream(target) as stream:
                stream.write(content)
            if self.is_local:
                self._files.move(target, path)
        except OSError as error:
            if self.is_local:
                with contextlib.suppress(OSError):
                    Path(target).unlink()
            raise StorageError(
                f"storage {self.url!r} cannot be written: {_reason(error)}; "
                "mend that or choose another with --set storage=DIR"
            ) from error

    def names(self, directory: str = "") -> list[str]:
        """Names of the files and directories right below a directory, sorted."""
        selector = pafs.FileSelector(self._path(directory), allow_not_found=True)
        return sorted(entry.base_name for entry in self._files.get_file_info(selector))

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def delete_directory(self, name: str) -> None:
        """Remove a directory with all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(self._path(name))

    def copy_to(self, directory: Path, *, skip: tuple[str, ...] = ()) -> int:
        """Copy all files to a local directory, but for directories of some names; returns how many.

        Raises:
            StorageError: there is nothing to copy, or it cannot be read.
        """
        try:
            entries = self._files.get_file_info(pafs.FileSelector(self._base, recursive=True))
        except OSError as error:
            raise StorageError(f"storage {self.url!r} cannot be read: {_reason(error)}") from error
        target, copied = Storage(str(directory)), 0
        for entry in entries:
            name = entry.path.removeprefix(self._base).lstrip("/")
            if entry.type is not pafs.FileType.File or set(name.split("/")[:-1]) & set(skip):
                continue
            target.write(name, self.read(name) or b"")
            copied += 1
        return copied

    def read_json(self, name: str) -> Record | None:
        """A JSON file's contents, or None where there is none or it is damaged."""
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def write_json(self, name: str, document: Record) -> None:
        """Write a JSON document with the schema's version in it."""
        text = json.dumps({"schema": SCHEMA_VERSION} | document, indent=1, allow_nan=True)
        self.write(name, text.encode())

    def read_lines(self, name: str) -> list[Record]:
        """The records of a .jsonl file; damaged lines are left out."""
        records = []
        for line in (self.read(name) or b"").splitlines():
            try:
                records.append(from_json(line))
            except ValueError:
                continue
        return records

    def append_line(self, name: str, record: Record) -> None:
        """Add one record to a .jsonl file."""
        line = json.dumps({"schema": SCHEMA_VERSION} | record).encode() + b"\n"
        self.write(name, (self.read(name) or b"") + line)

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays as a compressed .npz."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self.write(name, buffer.getvalue())

    def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of an .npz, or None where there is none or it is damaged."""
        content = self.read(name)
        if content is None:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                return {array: archive[array] for array in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):
            return None


def _reason(error: OSError) -> str:
    """The system's own words, without the path that pyarrow puts before them."""
    detail = error.strerror or str(error)
    return detail.rpartition("Detail: ")[2].removeprefix("[errno ").partition("] ")[2] or detail


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a run has come, and the state to go on from."""

    epoch: int
    """Finished epochs."""
    step: int
    """Steps taken of the next epoch."""
    state: State | None


@dataclasses.dataclass(frozen=True)
class PackedState:
    """A checkpoint of a finished epoch as it is stored."""

    content: bytes
    sha256: str
    epochs: list[Record]
    """Metrics of the epochs up to it."""


class RunRecords:
    """One run's directory."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.id = run_id
        self._files = storage.at("runs", run_id)

    def describe(self, record: Record) -> None:
        """Write what the run is, once."""
        if self._files.read("run.json") is None:
            self._files.write_json("run.json", record)

    def description(self) -> Record | None:
        """What the run is, or None where that was not written."""
        return self._files.read_json("run.json")

    def add_attempt(self, record: Record) -> None:
        """Note that workers took the run up."""
        self._files.append_line("attempts.jsonl", record)

    def attempts(self) -> list[Record]:
        """Every take-up, oldest first."""
        return self._files.read_lines("attempts.jsonl")

    def add_failure(self, record: Record) -> None:
        """Note what went wrong."""
        self._files.append_line("failures.jsonl", record)

    def failures(self) -> list[Record]:
        """Everything that went wrong, oldest first."""
        return self._files.read_lines("failures.jsonl")

    def add_epoch(self, metrics: EpochMetrics, state: State, extra: Record) -> None:
        """Keep an epoch's state, then its metrics; the older of three checkpoints goes."""
        self._keep_state(f"{metrics.epoch:05d}", state, {"epoch": metrics.epoch})
        self._files.append_line("epochs.jsonl", dataclasses.asdict(metrics) | extra)
        for old in self._checkpoint_epochs()[:-_CHECKPOINTS_KEPT]:
            self._files.delete(f"checkpoints/{old:05d}.json")
            self._files.delete(f"checkpoints/{old:05d}.npz")

    def packed_state(self, epoch: int) -> PackedState | None:
        """The checkpoint of an epoch as it is stored, or None while it is not there in full."""
        header = self._files.read_json(f"checkpoints/{epoch:05d}.json")
        content = self._files.read(f"checkpoints/{epoch:05d}.npz")
        epochs = [record for record in self.epochs() if record["epoch"] <= epoch]
        if header is None or content is None or not epochs or epochs[-1]["epoch"] != epoch:
            return None
        return PackedState(content, header["sha256"], epochs)

    def adopt(self, content: bytes, sha256: str, epochs: list[Record]) -> None:
        """Begin with what another run's `packed_state` gave."""
        epoch = epochs[-1]["epoch"]
        self._files.write(f"checkpoints/{epoch:05d}.npz", content)
        self._files.write_json(f"checkpoints/{epoch:05d}.json", {"epoch": epoch, "sha256": sha256})
        lines = "".join(json.dumps(record) + "\n" for record in epochs)
        self._files.write("epochs.jsonl", lines.encode())

    def drop_states(self) -> None:
        """Delete all checkpoints; nothing goes on from here."""
        self._files.delete_directory("checkpoints")

    def keep_partial(self, epoch: int, step: int, state: State) -> None:
        """Keep the state after so many steps of an unfinished epoch."""
        self._keep_state("partial", state, {"epoch": epoch, "step": step})

    def _keep_state(self, name: str, state: State, header: Record) -> None:
        content, sha256 = checkpoints.pack(state)
        self._files.write(f"checkpoints/{name}.npz", content)
        self._files.write_json(f"checkpoints/{name}.json", header | {"sha256": sha256})

    def _state(self, name: str) -> tuple[Record, State] | None:
        """A healthy checkpoint with its header."""
        header = self._files.read_json(f"checkpoints/{name}.json")
        content = self._files.read(f"checkpoints/{name}.npz")
        if header is None or content is None:
            return None
        state = checkpoints.unpack(content, header["sha256"])
        return None if state is None else (header, state)

    def epochs(self) -> list[Record]:
        """Metrics of each finished epoch in order; of an epoch trained twice, the later."""
        records = self._files.read_lines("epochs.jsonl")
        by_epoch = {record["epoch"]: record for record in records if "epoch" in record}
        return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    def position(self) -> Position:
        """The newest healthy checkpoint: of a finished epoch, or of a part of the one after it."""
        finished = {record["epoch"] for record in self.epochs()}
        whole = Position(0, 0, None)
        for epoch in reversed(self._checkpoint_epochs()):
            kept = self._state(f"{epoch:05d}") if epoch in finished else None
            if kept is not None:
                whole = Position(epoch, 0, kept[1])
                break
        partial = self._state("partial")
        if partial is not None and partial[0]["epoch"] == whole.epoch + 1:
            return Position(whole.epoch, partial[0]["step"], partial[1])
        return whole

    def _checkpoint_epochs(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._files.names("checkpoints"))
        return sorted(int(name) for name in names if name.isdigit())

    def add_hang(self, record: Record) -> None:
        """Note, before a worker ends itself, that it did nothing for too long."""
        self._files.write_json("hang.json", record)

    def take_hang(self) -> Record | None:
        """What `add_hang` noted since the last time."""
        record = self._files.read_json("hang.json")
        self._files.delete("hang.json")
        return record

    def finish(self, result: Record, predictions: dict[str, np.ndarray]) -> None:
        """Write the final test; the run is done."""
        self._files.write_arrays("predictions.npz", predictions)
        self._files.write_json("result.json", result)

    def result(self) -> Record | None:
        """What `finish` wrote, or None while the run is not done."""
        return self._files.read_json("result.json")

    def was_finished(self) -> bool:
        """Whether `finish` was called, even if what it wrote is damaged."""
        return self._files.read("result.json") is not None

    def predictions(self) -> dict[str, np.ndarray] | None:
        """Answers int [n] and confidences float [n] on the test split."""
        return self._files.read_arrays("predictions.npz")


class ExperimentRecords:
    """One experiment's directory in the storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def begin(self, document: Record) -> None:
        """Write what the experiment is: specification, runs, data."""
        self.storage.write_json("experiment.json", document)

    def document(self) -> Record:
        """What `begin` wrote.

        Raises:
            InputError: the directory holds no experiment.
        """
        document = self.storage.read_json("experiment.json")
        if document is None:
            raise InputError(
                f"{self.storage.url!r} holds no experiment; give the directory that has "
                "experiment.json in it, such as tandem-results/quickstart"
            )
        return document

    def add_session(self, record: Record) -> None:
        """Note a start of the driver."""
        self.storage.append_line("sessions.jsonl", record)

    def sessions(self) -> list[Record]:
        """Every start of the driver, oldest first."""
        return self.storage.read_lines("sessions.jsonl")

    def keep_disagreements(self, arrays: dict[str, np.ndarray]) -> None:
        """Keep test images on which arms differ: indices, labels and uint8 images."""
        self.storage.write_arrays("disagreements.npz", arrays)

    def disagreements(self) -> dict[str, np.ndarray] | None:
        """What `keep_disagreements` wrote."""
        return self.storage.read_arrays("disagreements.npz")

    def keep_parity(self, recipe: str, framework: str, steps: int, trace: dict[str, np.ndarray]) -> None:
        """Keep a trace of a recipe, which is named by its key."""
        self.storage.write_arrays(f"parity/{recipe}/{steps}-{framework}.npz", trace)

    def has_parity(self, recipe: str, framework: str, steps: int) -> bool:
        """Whether there is such a trace."""
        return f"{steps}-{framework}.npz" in self.storage.names(f"parity/{recipe}")

    def parity(
        self, recipe: str, frameworks: tuple[str, str], *, steps: int | None = None
    ) -> list[dict[str, np.ndarray]] | None:
        """A recipe's traces that both frameworks have, the longest or of so many steps; or None."""
        names = (name.removesuffix(".npz") for name in self.storage.names(f"parity/{recipe}"))
        lengths = sorted({int(name.partition("-")[0]) for name in names}, reverse=True)
        for length in lengths if steps is None else [steps]:
            traces = [
                self.storage.read_arrays(f"parity/{recipe}/{length}-{framework}.npz")
                for framework in frameworks
            ]
            if all(trace is not None for trace in traces):
                return [trace for trace in traces if trace is not None]
        return None

    def run(self, run_id: str) -> RunRecords:
        """One run's records."""
        return RunRecords(self.storage, run_id)
