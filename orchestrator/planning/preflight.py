"""Checks an experiment before anything is spent: its storage, its data, and whether its arms and scale fit them."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.experiment.spec import Arm, Experiment, Scale
from orchestrator.planning import nodes, run_plan, train_loop_source
from orchestrator.planning.run_plan import LoopRun, Run
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Record, Storage
from trainers.contract import SINGLE_VALUE_BELOW, SMALLEST_IMAGE
from trainers.data import Dataset, open_dataset, registry
from trainers.data.decoding import UnreadableError
from trainers.errors import InputError

_PROBE_BYTES = 1 << 20
_UNREADABLE = "unreadable.txt"
WORKING_DIRECTORY = Path()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """An experiment that passed its checks and is ready to be trained."""

    experiment: Experiment
    dataset: Dataset | None
    """None where no arm is built in."""
    runs: list[Run]
    """Of built-in arms."""
    records: ExperimentRecords
    loop_runs: list[LoopRun] = dataclasses.field(default_factory=list)
    """Of arms with a training function of the user's own."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What was noticed in the users' training functions."""
    functions: Mapping[str, Callable[..., None]] = dataclasses.field(default_factory=dict)
    """By arm, the training functions that are sent to the workers as they are, and not imported there by name."""
    attribution: Record | None = None
    """The plan that the arms were made from, and the experiment that they were made of."""

    @property
    def data_fingerprint(self) -> str:
        """Of the data that built-in arms train on."""
        return "" if self.dataset is None else self.dataset.fingerprint


def open_records(experiment: Experiment) -> ExperimentRecords:
    """The experiment's directory in its storage."""
    return ExperimentRecords(Storage(experiment.storage).at(experiment.name))


def prepare(
    experiment: Experiment,
    records: ExperimentRecords,
    *,
    module_path: Path = WORKING_DIRECTORY,
    functions: Mapping[str, Callable[..., None]] | None = None,
) -> Prepared:
    """Check the storage, the data and the users' training functions before anything is spent, and expand the plan.

    Args:
        experiment: as it was read.
        records: of the experiment.
        module_path: directory that users' own modules are imported from.
        functions: by arm, training functions that are sent to the workers. Each call makes new runs of them, since
            nothing tells whether a function is the one of an earlier call.

    Raises:
        InputError: something that would make the runs fail.
    """
    records.storage.try_writing(_PROBE_BYTES)
    functions = functions or {}
    looks = {
        name: train_loop_source.Look(sha256=uuid.uuid4().hex, notes=[])
        if name in functions
        else train_loop_source.look(name, arm, module_path)
        for name, arm in experiment.train_loop_arms.items()
    }
    registry.make_importable(experiment.data.source, module_path)
    dataset = _open_dataset(experiment, records) if experiment.recipe_arms else None
    if dataset is not None:
        _check_recipes(experiment, dataset)
    return Prepared(
        experiment=experiment,
        dataset=dataset,
        runs=[] if dataset is None else run_plan.expand(experiment, dataset.fingerprint),
        loop_runs=run_plan.expand_loops(experiment, {name: found.sha256 for name, found in looks.items()}),
        notes=[
            *(note for found in looks.values() for note in found.notes),
            *(
                f"arms.{name}: the function cannot be imported by its name, so it is not stored, and each call trains "
                "it anew"
                for name in functions
            ),
        ],
        functions=functions,
        records=records,
    )


def _check_recipes(experiment: Experiment, dataset: Dataset) -> None:
    height, width, _ = dataset.image_shape
    for name, arm in experiment.recipe_arms.items():
        if arm.augmentation.crop >= min(height, width):
            raise InputError(
                f"arms.{name}.augmentation.crop {arm.augmentation.crop} is too large for images of "
                f"{width}x{height} pixels; at most {min(height, width) - 1} is possible"
            )
        _check_image_size(name, arm, dataset)
        watches = "early_stopping" if arm.early_stopping else "schedule plateau"
        if (arm.early_stopping or arm.schedule.name == "plateau") and not len(dataset.validation_labels):
            raise InputError(
                f"arms.{name}.{watches} needs a validation split; set data.validation to a share such as 0.1"
            )
        if arm.batch_size > len(dataset.train_labels):
            raise InputError(
                f"arms.{name}.batch_size {arm.batch_size} exceeds the {len(dataset.train_labels)} "
                "training images; choose a smaller one"
            )
        _check_single_images(name, arm, dataset, experiment.scale)


def _open_dataset(experiment: Experiment, records: ExperimentRecords) -> Dataset:
    """Read the data, and keep a list of the pictures that cannot be read beside the records.

    Raises:
        InputError: the data are wrong.
    """
    try:
        dataset = open_dataset(experiment.data)
    except UnreadableError as error:
        records.storage.write(_UNREADABLE, f"{error.listing}\n".encode())
        raise UnreadableError(f"{error}\nThis list is in {records.storage.url}/{_UNREADABLE}") from error
    if dataset.unreadable:
        records.storage.write(_UNREADABLE, f"{dataset.unreadable}\n".encode())
    else:
        records.storage.delete(_UNREADABLE)
    return dataset


def _check_single_images(name: str, arm: Arm, dataset: Dataset, scale: Scale) -> None:
    """Refuse a batch of which a worker of PyTorch would normalize a single value of each channel."""
    is_single_value = max(arm.model_shape(dataset.image_shape)[:2]) < SINGLE_VALUE_BELOW.get(arm.model, 0)
    sizes = {arm.batch_size, len(dataset.train_labels) % arm.batch_size} - {0}
    if arm.framework == "torch" and is_single_value and min(sizes) // scale.max_workers < 2:
        raise InputError(
            f"arms.{name}.batch_size {arm.batch_size} leaves a worker a single image of some batch, whose one value a "
            "channel PyTorch's batch normalization refuses; choose another batch_size or larger images"
        )


def _check_image_size(name: str, arm: Arm, dataset: Dataset) -> None:
    height, width, _ = dataset.image_shape
    if arm.whitening and arm.whitening.patch > min(height, width):
        raise InputError(
            f"arms.{name}.whitening.patch {arm.whitening.patch} is larger than images of "
            f"{width}x{height} pixels; choose a smaller one"
        )
    if arm.test_time_augmentation.shift >= min(height, width):
        raise InputError(
            f"arms.{name}.test_time_augmentation.shift {arm.test_time_augmentation.shift} shifts all of images of "
            f"{width}x{height} pixels away; 1 or 2 is usual"
        )
    seen = arm.model_shape(dataset.image_shape)
    smallest = SMALLEST_IMAGE.get(arm.model, 1)
    if min(seen[:2]) < smallest:
        raise InputError(
            f"arms.{name}.model {arm.model} needs at least {smallest}x{smallest} pixels but sees "
            f"{seen[1]}x{seen[0]}; set data.image_size, or a smaller arms.{name}.whitening.stride"
        )


def check_capacity(scale: Scale, *, cpus: float, gpus: float) -> int:
    """How many runs fit at once.

    Raises:
        InputError: not even one does; says what would.
    """
    fit = run_plan.concurrent_runs(scale, cpus=cpus, gpus=gpus)
    if fit:
        return fit
    where = nodes.restriction(scale)
    if where and not cpus:
        raise InputError(
            f"scale: there is no node{where.removeprefix(' on nodes')}; correct scale.accelerator_type and "
            "scale.label_selector, or leave them out"
        )
    if gpus < scale.min_workers * scale.gpus_per_worker:
        raise InputError(
            f"scale: {scale.min_workers} workers with {scale.gpus_per_worker:g} GPUs each need "
            f"{scale.min_workers * scale.gpus_per_worker:g} GPUs, but there are {gpus:g}{where}; "
            "lower scale.workers or set scale.gpus_per_worker=0"
        )
    needed = scale.min_workers * scale.cpus_per_worker
    at_most = int(cpus // scale.cpus_per_worker)
    remedy = (
        f"at most {at_most} fit: set scale.workers={at_most}"
        if at_most
        else f"set scale.cpus_per_worker={int(cpus)} or less"
    )
    raise InputError(
        f"scale: {scale.min_workers} workers with {scale.cpus_per_worker} CPUs each need {needed} CPUs, "
        f"but there are {cpus:g}{where}; {remedy}"
    )
