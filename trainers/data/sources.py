"""Read each kind of source into labelled images, still as the source has them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.download import CIFAR10_MD5, CIFAR10_URL, cache_directory, download, locked
from trainers.data.folder import read_folder
from trainers.data.labelled import (
    IN_WORDS,
    Encoded,
    Labelled,
    Split,
    check_task,
    classes_of_names,
    column_of,
    is_hidden,
    named_column,
    split_named,
    told_groups,
)
from trainers.data.spec import DataSpec
from trainers.data.table import SUFFIXES as TABLE_SUFFIXES
from trainers.data.table import files_of_table, has_table, read_table
from trainers.errors import InputError, one_line

_NPZ_NAMES = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"train": ("images", "labels")},
)
"""Images and labels of each split, after Keras, after MedMNIST, and of a whole yet to be split."""
_FIELDS_OF = {
    "image_column": ("table", "parquet"),
    "label_column": ("table", "parquet"),
    "extension": ("table",),
    "images": ("table",),
}
"""The sources that have what a field of `data:` names."""


def resolve(spec: DataSpec) -> tuple[str, Path | None]:
    """Settle on a reader and a path, downloading CIFAR-10 if it must be.

    Raises:
        InputError: the path is missing, or holds nothing that a reader knows.
    """
    if spec.source == "digits" or (spec.source is None and spec.path is None):
        return "digits", None
    path = spec.path
    if spec.source == "cifar10":
        path = path or _find_cifar10()
    assert path is not None
    if not path.exists():
        raise InputError(f"data.path {str(path)!r} does not exist; give an existing file or directory")
    if spec.source not in (None, "cifar10"):
        return str(spec.source), path
    if path.is_dir() and (path / "cifar-10-batches-py").is_dir():
        path = path / "cifar-10-batches-py"
    if path.is_dir():
        if (path / "data_batch_1").exists():
            return "cifar10_batches", path
        if has_table(path):
            return "table", path
        if _parquet_files(path):
            return "parquet", path
        return "folder", path
    suffix_kinds = {".npz": "npz", ".parquet": "parquet"} | dict.fromkeys(TABLE_SUFFIXES, "table")
    if kind := suffix_kinds.get(path.suffix.lower()):
        return kind, path
    raise InputError(
        f"data.path {str(path)!r} is not a kind of data known here; give a directory of class folders, a "
        f"{', '.join(TABLE_SUFFIXES)} file that names pictures, Parquet files, an .npz file or a cifar-10-batches-py "
        "directory"
    )


def read(kind: str, path: Path | None, spec: DataSpec) -> Labelled:
    """Read a source that `resolve` found.

    Raises:
        InputError: it cannot be read, or has not what a field of `data:` names.
    """
    for field, kinds in _FIELDS_OF.items():
        if getattr(spec, field) is not None and kind not in kinds:
            raise InputError(
                f"data.{field} {str(getattr(spec, field))!r}: source {kind} has no such thing, only "
                f"{' and '.join(kinds)} has; leave it out"
            )
    readers = {"parquet": _parquet, "folder": read_folder, "table": read_table, "npz": _npz}
    if path is not None and kind in readers:
        return readers[kind](path, spec)
    if spec.group_by is not None:
        raise InputError(
            f"data.group_by {spec.group_by!r}: {kind} does not tell what its images belong to; leave it out"
        )
    return _digits() if path is None else _cifar10_batches(path)


def _labelled(splits: dict[str, Split], class_names: list[str] | None, source: Path) -> Labelled:
    """Splits whose labels are numbers, or the classes' names."""
    if all(_are_names(split.labels) for split in splits.values()):
        check_task([label for split in splits.values() for label in split.labels.tolist()], source)
        class_names, splits = classes_of_names(splits, source)
    return Labelled(class_names=class_names, **splits)


def _are_names(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U" or (
        labels.dtype == object and all(isinstance(label, str) for label in labels)
    )


def _digits() -> Labelled:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    names = [str(name) for name in digits.target_names]
    return Labelled(Split(images, digits.target.astype(np.int64)), names)


def _find_cifar10() -> Path:
    if given := os.environ.get("TANDEM_DATA"):
        root = Path(given)
        for candidate in (root / "cifar10", root / "cifar-10-batches-py", root):
            if candidate.is_dir():
                return candidate
        raise InputError(f"$TANDEM_DATA is {given!r}, which does not exist")
    directory = cache_directory()
    batches = directory / "cifar-10-batches-py"
    with locked(directory / "cifar-10"):
        if not batches.exists():
            archive = download(CIFAR10_URL, directory / Path(CIFAR10_URL).name, md5=CIFAR10_MD5)
            unpacking = directory / "unpacking"
            with tarfile.open(archive) as tar:
                tar.extractall(unpacking, filter="data")
            (unpacking / batches.name).rename(batches)
    return batches


_REBUILD: Any = np.zeros(0).__reduce__()[0]
"""What numpy's arrays name in a pickle to be rebuilt with; the module that they name depends on numpy's version."""


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a CIFAR-10 batch holds, dictionaries and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy.") and name == _REBUILD.__name__:
            return _REBUILD
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def _cifar10_batches(path: Path) -> Labelled:
    def load(name: str, *keys: bytes) -> dict[bytes, Any]:
        try:
            with open(path / name, "rb") as handle:
                content = _ArrayUnpickler(handle, encoding="bytes").load()
        except Exception as error:  # unpickling what is damaged raises anything
            raise InputError(
                f"{path / name} cannot be read as a CIFAR-10 batch: {one_line(error)}"
            ) from error
        if not isinstance(content, dict) or any(key not in content for key in keys):
            needed = " and ".join(key.decode() for key in keys)
            raise InputError(f"{path / name} is not a CIFAR-10 batch: it needs {needed}")
        return content

    def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
        content = load(name, b"data", b"labels")
        pixels, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
            raise InputError(
                f"{path / name} is not a CIFAR-10 batch: data are {pixels.dtype} {list(pixels.shape)}; uint8 "
                f"{[len(labels), 3072]} is needed"
            )
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels

    def split(names: list[str]) -> Split:
        pixels, labels = zip(*map(batch, names), strict=True)
        return Split(np.concatenate(pixels), np.concatenate(labels))

    names = [name.decode() for name in load("batches.meta", b"label_names")[b"label_names"]]
    train = split([f"data_batch_{number}" for number in range(1, 6)])
    return Labelled(train, names, test=split(["test_batch"]))


def _parquet_files(path: Path) -> list[Path]:
    """Those in a directory and below, but for what is hidden."""
    return [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(map(is_hidden, file.relative_to(path).parts))
    ]


def _parquet(path: Path, spec: DataSpec) -> Labelled:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, files = (path, _parquet_files(path)) if path.is_dir() else (path.parent, [path])
    if not files:
        raise InputError(f"{path} holds no Parquet files")
    of_kinds: dict[str | None, list[Path]] = {}
    for file in files:
        of_kinds.setdefault(split_named(str(file.relative_to(root))), []).append(file)
    unnamed = of_kinds.pop(None, [])
    if "train" not in of_kinds:
        of_kinds = of_kinds | {"train": unnamed} if unnamed else {"train": files}

    try:
        file = of_kinds["train"][0]
        schema = pq.read_schema(file)
        names = schema.names
        image = named_column(file, names, spec.image_column, field="image_column") or column_of(
            file, names, ("image", "img", "images"), "images, structs with bytes,", field="image_column"
        )
        label = named_column(file, names, spec.label_column, field="label_column") or column_of(
            file, names, ("label", "labels", "fine_label", "class"), "labels", field="label_column"
        )
        splits = {kind: _rows(found, image, label, spec.group_by) for kind, found in of_kinds.items()}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
    return _labelled(splits, _parquet_class_names(schema.metadata or {}, label), path)


def _rows(files: list[Path], image: str, label: str, group_by: str | None) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[Encoded] = []
    labels: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    for file in files:
        group = named_column(file, pq.read_schema(file).names, group_by, field="group_by")
        table = pq.read_table(file, columns=[image, label] + ([group] if group else []))
        if group:
            groups.append(told_groups(file, group, table[group].to_pylist()))
        if missing := table[label].null_count:
            raise InputError(f"{file} has no {label} in {missing} of its {len(table)} rows")
        for row, value in enumerate(table[image].to_pylist()):
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise InputError(
                    f"{file} row {row}: {image} holds no picture; structs with bytes, or bytes, are needed"
                )
            images.append(Encoded(f"{file.name} row {row}", partial(io.BytesIO, content)))
        if pa.types.is_list(table[label].type) or pa.types.is_large_list(table[label].type):
            check_task(["|".join(map(str, value)) for value in table[label].to_pylist()], file)
        labels.append(table[label].to_numpy())
    return Split(images, np.concatenate(labels), np.concatenate(groups) if groups else None)


def _parquet_class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Those that pyarrow's user or Hugging Face has put there; None where nothing is said that can be read."""
    try:
        if b"classes" in metadata:
            return metadata[b"classes"].decode().split(",")
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if names else None


def _npz(path: Path, spec: DataSpec) -> Labelled:
    try:
        with zipfile.ZipFile(path):  # np.load takes single arrays too
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {error}") from error

    for convention in _NPZ_NAMES:
        splits = {
            kind: Split(
                _as_pixels(arrays[images], IN_WORDS[kind], spec), _as_labels(arrays[labels], IN_WORDS[kind])
            )
            for kind, (images, labels) in convention.items()
            if images in arrays and labels in arrays
        }
        if "train" in splits:
            if spec.group_by is not None:
                splits["train"] = dataclasses.replace(
                    splits["train"],
                    groups=_array_of_groups(path, arrays, spec.group_by, len(splits["train"].labels)),
                )
            names = arrays.get("class_names")
            return _labelled(splits, None if names is None else names.reshape(-1).astype(str).tolist(), path)
    raise InputError(
        f"{path} holds the arrays {', '.join(arrays) or 'none'}; x_train and y_train (x_val, y_val, x_test, "
        "y_test), train_images and train_labels, or images and labels are needed"
    )


def _array_of_groups(path: Path, arrays: dict[str, np.ndarray], group_by: str, images: int) -> np.ndarray:
    if group_by not in arrays:
        raise InputError(f"data.group_by {group_by!r} is not one of the arrays {', '.join(arrays)}")
    values = arrays[group_by].reshape(-1)
    groups = told_groups(path, group_by, list(values.astype(str) if values.dtype.kind == "S" else values))
    if len(groups) != images:
        raise InputError(f"data.group_by {group_by!r} has {len(groups)} values for {images} training images")
    return groups


def _as_pixels(images: np.ndarray, where: str, spec: DataSpec) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"the {where} images have the shape {list(images.shape)}; "
            "[n, height, width] or [n, height, width, 1 or 3] is needed"
        )
    if 0 in images.shape[1:] or images.dtype.kind not in "biuf":
        raise InputError(
            f"the {where} images are {images.dtype} {list(images.shape)}; numbers for pixels are needed"
        )
    if images.dtype == np.uint8 or not len(images):
        return images.astype(np.uint8, copy=False)
    if spec.window is not None or spec.stretch is not None:
        return images
    low, high = float(images.min()), float(images.max())
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(images * 255).astype(np.uint8)
    if np.isfinite([low, high]).all() and low >= 0 and high <= 255:
        return np.rint(images).astype(np.uint8)
    raise InputError(
        f"the {where} images are {images.dtype} from {low:g} to {high:g}; 0 to 255, or 0.0 to 1.0, is needed, or "
        "data.window or data.stretch, which give them a range"
    )


def _as_labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 1 or labels.size == len(labels):
        return labels.reshape(-1)
    shape = f"the {where} labels have the shape {[*labels.shape]}"
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and not (np.count_nonzero(labels, axis=1) == 1).all():
        check_task(["|".join(map(str, np.flatnonzero(row))) for row in labels], shape)
        raise InputError(
            f"{shape}, and {int((~labels.any(axis=1)).sum())} images have no label; each needs one"
        )
    raise InputError(
        f"{shape}; one number for each image is needed: of labels with a single 1 in each row, its place in the row"
    )


def stamp(kind: str, path: Path | None, spec: DataSpec) -> str:
    """Changes whenever a file of the source does: names, sizes and modification times."""
    if path is None:
        return "embedded"
    if kind == "table":
        files = files_of_table(path, spec)
    elif path.is_dir():
        files = _files_below(path)
    else:
        files = [path]
    stats = {str(file): file.stat() for file in files if os.path.exists(file)}  # not so a link to nowhere
    return json.dumps([(file, stat.st_size, stat.st_mtime_ns) for file, stat in sorted(stats.items())])


def _files_below(directory: Path) -> list[Path]:
    """All files and directories, through links too, each directory once."""
    found, ahead, seen = [], [directory], set()
    while ahead:
        here = ahead.pop()
        if (real := os.path.realpath(here)) in seen or not os.access(here, os.R_OK | os.X_OK):
            continue
        seen.add(real)
        below = [here / name for name in sorted(os.listdir(here))]
        found += below
        ahead += [entry for entry in below if entry.is_dir()]
    return found
