"""Decode a source once, split it, and share it as a memory map between all workers of a node."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from trainers.data import sources, validation
from trainers.data.download import cache_directory, locked
from trainers.data.spec import DataSpec
from trainers.errors import InputError

_CACHE_FORMAT = 1
_SPLIT_SEED = 0


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
        json.dumps([_CACHE_FORMAT, kind, settings, sources.stamp(path)]).encode()
    ).hexdigest()[:20]
    directory = cache_directory() / "decoded" / key
    with locked(directory):
        if not directory.exists():
            _decode_into(directory, spec, kind, path)
    return _open(directory)


def _decode_into(directory: Path, spec: DataSpec, kind: str, path: Path | None) -> None:
    labelled = sources.read(kind, path)
    class_names = labelled.class_names
    if class_names is None:
        labels = labelled.train.labels
        class_names = [str(label) for label in range(int(labels.max()) + 1 if len(labels) else 0)]
    for where, split in (("training", labelled.train), ("test", labelled.test)):
        if split is None:
            continue
        if len(split.images) != len(split.labels):
            raise InputError(f"there are {len(split.images)} {where} images but {len(split.labels)} labels")
        if not len(split.labels):
            raise InputError(f"{path} holds no {where} images")
        validation.check_labels(split.labels, num_classes=len(class_names), where=where)
    if len(class_names) < 2:
        raise InputError(f"{path} has {len(class_names)} class; at least 2 are needed to tell apart")

    images = sources.decode(labelled.train, size=spec.image_size, where="training")
    labels = labelled.train.labels.astype(np.int64)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    if labelled.test is None:
        held_out = max(1, round(spec.test * len(images)))
        test_images, test_labels = images[order[:held_out]], labels[order[:held_out]]
        order = order[held_out:]
    else:
        test_images = sources.decode(labelled.test, size=spec.image_size, where="test")
        test_labels = labelled.test.labels.astype(np.int64)
        if test_images.shape[1:] != images.shape[1:]:
            raise InputError(
                f"training images are {list(images.shape[1:])} but test images are "
                f"{list(test_images.shape[1:])}; set data.image_size, such as image_size: 64"
            )
    order = order[: spec.limit]
    held_out = round(spec.validation * len(order))
    if len(order) - held_out < 1:
        raise InputError(
            f"{len(images)} images leave none to train on with test: {spec.test} and "
            f"validation: {spec.validation}; add images or hold out less"
        )
    arrays = {
        "train_images": images[order[held_out:]],
        "train_labels": labels[order[held_out:]],
        "validation_images": images[order[:held_out]],
        "validation_labels": labels[order[:held_out]],
        "test_images": test_images,
        "test_labels": test_labels,
    }
    _write_cache(directory, arrays, class_names, (images[order], labels[order]))


def _write_cache(
    directory: Path,
    arrays: dict[str, np.ndarray],
    class_names: list[str],
    seen: tuple[np.ndarray, np.ndarray],
) -> None:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        arrays[name] = np.ascontiguousarray(array)
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(arrays[name].data)
    pixels = arrays["train_images"].reshape(-1, arrays["train_images"].shape[-1])
    values = np.arange(256) / 255
    counts = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T]) / len(pixels)
    mean = counts @ values
    meta = {
        "class_names": class_names,
        "fingerprint": digest.hexdigest(),
        "warnings": validation.warnings(seen, (arrays["test_images"], arrays["test_labels"]), class_names),
        "channel_mean": mean.tolist(),
        "channel_std": np.sqrt(np.maximum(counts @ values**2 - mean**2, 0)).tolist(),
    }
    temporary = Path(tempfile.mkdtemp(dir=directory.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        (temporary / "meta.json").write_text(json.dumps(meta))
        temporary.rename(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"the data cache {directory.parent} cannot be written: {error.strerror}; free some "
            "space or set $TANDEM_CACHE to another directory"
        ) from error


def _open(directory: Path) -> Dataset:
    meta = json.loads((directory / "meta.json").read_text())
    splits = ("train", "validation", "test")
    arrays = {
        f"{split}_{what}": np.load(directory / f"{split}_{what}.npy", mmap_mode="r")
        for split in splits
        for what in ("images", "labels")
    }
    return Dataset(
        **arrays,
        class_names=meta["class_names"],
        fingerprint=meta["fingerprint"],
        warnings=meta["warnings"],
        channel_mean=np.array(meta["channel_mean"], np.float32),
        channel_std=np.array(meta["channel_std"], np.float32),
    )
