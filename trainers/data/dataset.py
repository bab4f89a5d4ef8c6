"""Decode a source once, split it, and share it as a memory map between all workers of a node."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from trainers.data import decoding, sources, validation
from trainers.data.download import cache_directory, locked
from trainers.data.labelled import IN_WORDS, Encoded, Labelled, Split, check_task
from trainers.data.spec import DataSpec
from trainers.data.splits import count_groups, hold_out
from trainers.errors import InputError

DECODED = "decoded"
"""Directory of the cache that holds decoded data sets."""
_CACHE_FORMAT = 4
_MANY_SPLITS = "each seed has test images of its own: intervals are over seeds, which share training images"
_HASHED_AT_ONCE = 4096
"""Images."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 [n, height, width, channels] and labels int64 [n] of three splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]
    fingerprint: str
    """SHA-256 over the pixels and labels of all splits, in hexadecimal."""
    warnings: list[str]
    """What validation noticed and a reader should know."""
    channel_mean: np.ndarray
    """Float32 [channels], of the training pixels in 0..1."""
    channel_std: np.ndarray
    """Float32 [channels]."""
    groups: dict[str, int] | None = None
    """Of how many groups each split holds images; None where each image stands alone."""
    test_names: list[str] = dataclasses.field(default_factory=list)
    """The file of each test image, relative to `data.path`; empty where images have no names."""
    unreadable: str = ""
    """The images that could not be read and were left out, one a line, below each reason."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels


def open_dataset(spec: DataSpec) -> Dataset:
    """Open the data set, decoding it into the node's cache the first time.

    Raises:
        InputError: the source is missing, unreadable or inconsistent.
    """
    kind, path = sources.resolve(spec)
    settings = spec.model_dump(mode="json", exclude={"source", "path"})
    key = hashlib.sha256(
        json.dumps([_CACHE_FORMAT, kind, settings, sources.stamp(kind, path, spec)]).encode()
    ).hexdigest()[:20]
    directory = cache_directory() / DECODED / key
    with locked(directory):
        if not directory.exists():
            _decode_into(directory, spec, kind, path)
    return _open(directory, spec)


def _decode_into(directory: Path, spec: DataSpec, kind: str, path: Path | None) -> None:
    labelled = sources.read(kind, path, spec)
    with labelled.scratch or contextlib.nullcontext():
        _decode_labelled(directory, spec, labelled, path)


def _decode_labelled(directory: Path, spec: DataSpec, labelled: Labelled, path: Path | None) -> None:
    class_names = labelled.class_names
    if class_names is None:
        class_names = validation.classes_of_numbers(labelled.train.labels)
    given = {"train": labelled.train, "validation": labelled.validation, "test": labelled.test}
    for name, split in given.items():
        where = IN_WORDS[name]
        if split is None:
            continue
        if len(split.images) != len(split.labels):
            raise InputError(f"there are {len(split.images)} {where} images but {len(split.labels)} labels")
        if not len(split.labels):
            raise InputError(f"{path} holds no {where} images")
        validation.check_labels(split.labels, num_classes=len(class_names), where=where)
    if labelled.class_names is None:
        check_task([str(label) for label in labelled.train.labels.tolist()], f"{path}")
    if repeated := [name for name, times in Counter(class_names).items() if times > 1]:
        raise InputError(
            f"{path} has several classes called {', '.join(repeated)}; give each a name of its own"
        )
    if len(class_names) < 2:
        raise InputError(
            f"{path} has one class only, {', '.join(class_names)}; at least 2 are needed to tell apart"
        )

    splits = hold_out(labelled, spec)
    notes = [*labelled.notes, *([_MANY_SPLITS] if spec.has_many_splits else [])]
    shape = decoding.shape_of([*splits.values()], spec)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent))
    try:
        _write(temporary, splits, shape, class_names, spec, notes)
        temporary.rename(directory)
    except OSError as error:
        raise InputError(
            f"the data cache {directory.parent} cannot be written: {error.strerror}; free some "
            "space or set $TANDEM_CACHE to another directory"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    directory: Path,
    splits: dict[str, Split],
    shape: tuple[int, int, int],
    class_names: list[str],
    spec: DataSpec,
    notes: list[str],
) -> None:
    """Decode every split into a file of its own, and write what is known of all of them."""
    account = decoding.Account()
    left_out: list[decoding.Broken] = []
    kept: dict[str, Split] = {}
    for name, split in splits.items():
        broken: list[decoding.Broken] = []
        decoding.write(directory / f"{name}_images.npy", split.images, shape, spec, broken, account)
        whole = np.delete(np.arange(len(split.labels)), [image.place for image in broken])
        kept[name] = split.take(whole) if broken else split
        np.save(directory / f"{name}_labels.npy", np.ascontiguousarray(kept[name].labels, np.int64))
        left_out += broken
    images = sum(len(split.labels) for split in splits.values())
    decoding.refuse(left_out, spec, images=images)
    for name, split in splits.items():
        if len(split.labels) and not len(kept[name].labels):
            remedy = f", in {spec.path}, which leaves no {IN_WORDS[name]} image; mend some of them"
            raise decoding.UnreadableError.of(left_out, images=images, remedy=remedy)
    if left_out:
        notes = [
            *notes,
            f"{len(left_out)} of {images} images cannot be read and were left out: unreadable.txt lists them",
        ]

    arrays = _arrays(directory)
    fingerprint, counts = _measure(arrays)
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    meta = {
        "class_names": class_names,
        "fingerprint": fingerprint,
        "warnings": notes
        + validation.grey_levels(account.levels, counts)
        + validation.outside_window(spec, account.stored)
        + validation.warnings(arrays, class_names)
        + validation.shared_groups({name: split.groups for name, split in kept.items()}),
        "groups": count_groups(kept),
        "test_names": [image.name for image in kept["test"].images if isinstance(image, Encoded)],
        "unreadable": decoding.listing(left_out),
        "channel_mean": mean.tolist(),
        "channel_std": np.sqrt(np.maximum(shares @ values**2 - mean**2, 0)).tolist(),
    }
    (directory / "meta.json").write_text(json.dumps(meta))


def _measure(arrays: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The fingerprint of all splits, and how often each value is in each channel of the training images."""
    digest = hashlib.sha256()
    counts = np.zeros((arrays["train_images"].shape[-1], 256), np.int64)
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        for start in range(0, len(array), _HASHED_AT_ONCE):
            some = array[start : start + _HASHED_AT_ONCE]
            digest.update(some)
            if name == "train_images":
                counts += [np.bincount(channel, minlength=256) for channel in some.reshape(-1, len(counts)).T]
    return digest.hexdigest(), counts


def _arrays(directory: Path) -> dict[str, np.ndarray]:
    # Plain arrays over the map: what is taken from a np.memmap is one too, which TensorFlow is slower to take in.
    return {
        f"{split}_{what}": np.asarray(np.load(directory / f"{split}_{what}.npy", mmap_mode="r"))
        for split in ("train", "validation", "test")
        for what in ("images", "labels")
    }


def _open(directory: Path, spec: DataSpec) -> Dataset:
    meta = json.loads((directory / "meta.json").read_text())
    return Dataset(
        **_arrays(directory),
        class_names=meta["class_names"],
        fingerprint=f"{meta['fingerprint']}{_way_to_split(spec)}",
        warnings=meta["warnings"],
        channel_mean=np.array(meta["channel_mean"], np.float32),
        channel_std=np.array(meta["channel_std"], np.float32),
        groups=meta["groups"],
        test_names=meta["test_names"],
        unreadable=meta["unreadable"],
    )


def _way_to_split(spec: DataSpec) -> str:
    """What makes runs with equal seeds different work, since further seeds have other images."""
    if spec.folds is not None:
        return f"-{spec.folds}-folds"
    return "-resplit" if spec.resplit else ""
