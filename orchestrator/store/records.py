"""The run store: what an experiment leaves behind in storage, written as things happen.

    <storage>/<name>/
        experiment.json        the experiment as it was understood, its runs, its data
        sessions.jsonl         every start of the driver: when, command, machine, versions
        disagreements.npz      test images that arms classify differently
        test_images.json       the file of each test image, where images have names
        unreadable.txt         pictures that cannot be read, below each reason, if there are any
        model-check.json       which content of file, data and modules passed the check of own models
        runs/<run id>/
            run.json           arm, framework, seed, recipe
            attempts.jsonl     every attempt: its resume point and start-up times
            epochs.jsonl       metrics of every finished epoch
            failures.jsonl     what went wrong, and whether it was tried again
            result.json        the final test; its presence means that the run is done
            predictions.npz    predicted class and confidence of each test image
            inputs.npz         how pixels were scaled and whitened
            checkpoints/       the last two epochs' state, the best's and one within an epoch, with checksums
        runs/<run id>/         of a training function of the user's own; Ray Train keeps its checkpoints here
            run.json           arm, seed, function, config
            attempts.jsonl     every time workers started, from which checkpoint, start-up times
            reports.jsonl      metrics of every report of rank 0
            returned.json      when the function returned
            failures.jsonl     as above
            result.json        the last value of each metric
            predictions.npz    what the function predicted, if its last checkpoint has that file
            checkpoint_*/      as the function reported them
        parity/                a trace of a few steps of each recipe in each framework
        report/                made from all of the above, at any time

Files are only ever added to or written whole, so a kill loses at most the epoch under way.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable

import numpy as np

from orchestrator.store.old_records import upgraded_predictions
from orchestrator.store.storage import Record, Storage
from trainers import checkpoints
from trainers.contract import EpochMetrics, State
from trainers.errors import InputError
from trainers.inputs import InputTransform

_CHECKPOINTS_KEPT = 2
CHECKPOINTS = re.compile(r"(^|/)runs/[^/]+/[^/]+/")
"""Matches the path of every file in a directory of a run; these directories hold checkpoints."""
_PREDICTIONS = "predictions.npz"


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """How far a run has come, and the state to go on from."""

    trained: list[Record]
    """Metrics of the finished epochs, in order."""
    step: int
    """Steps taken of the next epoch."""
    state: State | None

    @property
    def epoch(self) -> int:
        """The last finished epoch, 0 before the first."""
        return self.trained[-1]["epoch"] if self.trained else 0


@dataclasses.dataclass(frozen=True)
class PackedState:
    """A checkpoint of a finished epoch as it is stored."""

    content: bytes
    sha256: str
    epochs: list[Record]
    """Metrics of the epochs up to it."""


def reports_that_count(reports: Iterable[Record]) -> list[Record]:
    """Reports in the order of their numbers, without those of lost attempts.

    After a resume from an older checkpoint, a report replaces the one with its number and all that followed that one:
    the function may end earlier than before.
    """
    kept: list[Record] = []
    for report in reports:
        while kept and kept[-1]["report"] >= report["report"]:
            kept.pop()
        kept.append(report)
    return kept


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
        """Note an attempt."""
        self._files.append_line("attempts.jsonl", record)

    def attempts(self) -> list[Record]:
        """Every attempt, oldest first."""
        return self._files.read_lines("attempts.jsonl")

    def add_failure(self, record: Record) -> None:
        """Note what went wrong."""
        self._files.append_line("failures.jsonl", record)

    def failures(self) -> list[Record]:
        """Everything that went wrong, oldest first."""
        return self._files.read_lines("failures.jsonl")

    def add_epoch(self, metrics: EpochMetrics, state: State, extra: Record, *, best: int) -> None:
        """Keep an epoch's state, then its metrics; the older of three checkpoints goes, if it is not the best's."""
        self._keep_state(f"{metrics.epoch:05d}", state, {"epoch": metrics.epoch})
        self._files.append_line("epochs.jsonl", dataclasses.asdict(metrics) | extra)
        for old in set(self._checkpoint_epochs()[:-_CHECKPOINTS_KEPT]) - {best}:
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

    def state(self, epoch: int) -> State | None:
        """The state at the end of an epoch, or None where no healthy checkpoint of it is kept."""
        kept = self._state(f"{epoch:05d}")
        return None if kept is None else kept[1]

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

    def resume_point(self) -> ResumePoint:
        """The newest healthy checkpoint: of a finished epoch, or of a part of the one after it."""
        epochs = self.epochs()
        finished = [record["epoch"] for record in epochs]
        whole = ResumePoint([], 0, None)
        for epoch in reversed(self._checkpoint_epochs()):
            state = self.state(epoch) if epoch in finished else None
            if state is not None:
                whole = ResumePoint(epochs[: finished.index(epoch) + 1], 0, state)
                break
        partial = self._state("partial")
        if partial is not None and partial[0]["epoch"] == whole.epoch + 1:
            return ResumePoint(whole.trained, partial[0]["step"], partial[1])
        return whole

    def _checkpoint_epochs(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._files.names("checkpoints"))
        return sorted(int(name) for name in names if name.isdigit())

    def add_reports(self, records: list[Record]) -> None:
        """Note what a training function reported."""
        self._files.append_lines("reports.jsonl", records)

    def reports(self) -> list[Record]:
        """What a training function reported, in order, as `reports_that_count`."""
        return reports_that_count(self._files.read_lines("reports.jsonl"))

    def note_return(self, at: float) -> None:
        """Note when a training function returned, in seconds since the epoch."""
        self._files.write_json("returned.json", {"at": at})

    def returned_at(self) -> float | None:
        """When a training function returned; None while it has not."""
        returned = self._files.read_json("returned.json")
        return None if returned is None else float(returned["at"])

    def handed_over(self, checkpoint: str) -> dict[str, np.ndarray] | None:
        """The predictions that a training function put into a checkpoint; None where there are none.

        Raises:
            InputError: the file is damaged, or needs pickle to be read.
        """
        name = f"{checkpoint}/{_PREDICTIONS}"
        arrays = self._files.read_arrays(name)
        if arrays is None and self._files.read(name) is not None:
            raise InputError(f"{name} is not an .npz file that can be read without pickle")
        return arrays

    def finish_loop(self, result: Record, predictions: dict[str, np.ndarray] | None) -> None:
        """Write how a training function's run ended; the run is done."""
        if predictions is not None:
            self._files.write_arrays(_PREDICTIONS, predictions)
        self._files.write_json("result.json", result)

    def add_hang(self, record: Record) -> None:
        """Note, before a worker ends itself, that it did nothing for too long."""
        self._files.write_json("hang.json", record)

    def take_hang(self) -> Record | None:
        """What `add_hang` noted since the last time."""
        record = self._files.read_json("hang.json")
        self._files.delete("hang.json")
        return record

    def finish(self, result: Record, predictions: dict[str, np.ndarray], inputs: InputTransform) -> None:
        """Write the final test, any predictions, and what a model needs of the data; the run is done."""
        if predictions:
            self._files.write_arrays(_PREDICTIONS, predictions)
        self._files.write_arrays("inputs.npz", inputs.arrays())
        self._files.write_json("result.json", result)

    def result(self) -> Record | None:
        """What `finish` wrote, or None while the run is not done."""
        return self._files.read_json("result.json")

    def is_open(self, driver_session: str) -> bool:
        """Whether there is something to train: the run is not done and did not fail permanently in this session."""
        return self.result() is None and not any(
            failure["permanent"] and failure["driver_session"] == driver_session
            for failure in self.failures()
        )

    def predictions(self) -> dict[str, np.ndarray] | None:
        """The arrays `predicted`, int [n], and `confidences`, float [n], on the test split."""
        arrays = self._files.read_arrays(_PREDICTIONS)
        return None if arrays is None else upgraded_predictions(arrays)

    def inputs(self) -> InputTransform | None:
        """How pixels became what the model saw, or None where that was not kept."""
        arrays = self._files.read_arrays("inputs.npz")
        return None if arrays is None else InputTransform.of(arrays)


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
        if document is None or not document.keys() >= {"experiment", "runs", "data"}:
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
        """Keep test images on which arms differ or all are wrong: indices, labels and uint8 images."""
        self.storage.write_arrays("disagreements.npz", arrays)

    def disagreements(self) -> dict[str, np.ndarray] | None:
        """What `keep_disagreements` wrote."""
        return self.storage.read_arrays("disagreements.npz")

    def keep_test_names(self, names: list[str]) -> None:
        """Keep the file of each test image."""
        self.storage.write_json("test_images.json", {"files": names})

    def test_names(self) -> list[str]:
        """What `keep_test_names` wrote; empty if there is nothing."""
        found = self.storage.read_json("test_images.json") or {}
        return [str(name) for name in found.get("files", [])]

    def keep_parity(self, work: str, framework: str, trace: dict[str, np.ndarray]) -> None:
        """Keep a trace of a work, which is named by its key."""
        steps, workers = len(trace["losses"]), int(trace["workers"])
        self.storage.write_arrays(f"parity/{work}/{steps}-{workers}-{framework}.npz", trace)

    def has_parity(self, work: str, framework: str, *, steps: int, workers: int) -> bool:
        """Whether there is a trace of so many steps on so many workers."""
        return f"{steps}-{workers}-{framework}.npz" in self.storage.names(f"parity/{work}")

    def parity(
        self, work: str, frameworks: tuple[str, str], *, steps: int = 0, workers: int = 0
    ) -> list[dict[str, np.ndarray]] | None:
        """The longest traces of a work that both frameworks have, or None.

        Args:
            work: its key.
            frameworks: both.
            steps: of the traces; 0 for any number.
            workers: likewise.
        """
        kept = {tuple(name.removesuffix(".npz").split("-")) for name in self.storage.names(f"parity/{work}")}
        sizes = {(int(name[0]), int(name[1])) for name in kept if len(name) == 3}
        for size in sorted(sizes, reverse=True):
            names = [(*map(str, size), framework) for framework in frameworks]
            fits = steps in (0, size[0]) and workers in (0, size[1])
            if fits and kept.issuperset(names):
                traces = [self.storage.read_arrays(f"parity/{work}/{'-'.join(name)}.npz") for name in names]
                return [trace for trace in traces if trace is not None]
        return None

    def run(self, run_id: str) -> RunRecords:
        """One run's records."""
        return RunRecords(self.storage, run_id)
