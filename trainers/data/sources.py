"""Read each kind of source into labelled images, still as the source has them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.download import CIFAR10_MD5, CIFAR10_URL, cache_directory, download, locked
from trainers.data.spec import DataSpec
from trainers.errors import InputError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}

_CHUNK = 256
"""Images that one thread decodes at a stretch."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An image file's bytes, read when they are decoded, and the name to blame it by."""

    name: str
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, either an array [n, height, width(, channels)] or encoded, with a label for each."""

    images: np.ndarray | list[Encoded]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A whole source."""

    train: Split
    test: Split | None
    class_names: list[str] | None
    """None where the source only has numbers."""


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
        if any(path.rglob("*.parquet")):
            return "parquet", path
        return "folder", path
    suffix_kinds = {".npz": "npz", ".parquet": "parquet"}
    if path.suffix in suffix_kinds:
        return suffix_kinds[path.suffix], path
    raise InputError(
        f"data.path {str(path)!r} is not a kind of data known here; give a directory of class "
        "folders, Parquet files, an .npz file or a cifar-10-batches-py directory"
    )


def read(kind: str, path: Path | None) -> Labelled:
    """Read a source that `resolve` settled on."""
    if path is None:
        return _digits()
    readers = {
        "cifar10_batches": _cifar10_batches,
        "parquet": _parquet,
        "folder": _folder,
        "npz": _npz,
    }
    return readers[kind](path)


def _digits() -> Labelled:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in digits.target_names]
    return Labelled(Split(images, digits.target.astype(np.int64)), None, names)


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


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a CIFAR-10 batch holds, dictionaries and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def _cifar10_batches(path: Path) -> Labelled:
    def load(name: str) -> dict[bytes, Any]:
        try:
            with open(path / name, "rb") as handle:
                content = _ArrayUnpickler(handle, encoding="bytes").load()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{path / name} cannot be read as a CIFAR-10 batch: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{path / name} is not a CIFAR-10 batch: it holds no dictionary")
        return content

    def split(names: list[str]) -> Split:
        batches = [load(name) for name in names]
        pixels = np.concatenate([batch[b"data"] for batch in batches])
        labels = np.concatenate([np.asarray(batch[b"labels"]) for batch in batches])
        return Split(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64))

    names = [name.decode() for name in load("batches.meta")[b"label_names"]]
    train = split([f"data_batch_{number}" for number in range(1, 6)])
    return Labelled(train, split(["test_batch"]), names)


def _parquet(path: Path) -> Labelled:
    import pyarrow.parquet as pq

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    train = [file for file in files if "train" in file.name] or files
    test = [file for file in files if "test" in file.name and file not in train]
    schema = pq.read_schema(train[0])
    image = next((name for name in ("image", "img", "images") if name in schema.names), None)
    label = next((name for name in ("label", "labels", "fine_label") if name in schema.names), None)
    if image is None or label is None:
        raise InputError(
            f"{train[0]} has the columns {', '.join(schema.names)}; an image column (image or img, "
            "a struct with bytes) and a label column are needed"
        )

    def split(files: list[Path]) -> Split:
        images: list[Encoded] = []
        labels: list[np.ndarray] = []
        for file in files:
            table = pq.read_table(file, columns=[image, label])
            for row, value in enumerate(table[image].to_pylist()):
                content = value["bytes"] if isinstance(value, dict) else value
                images.append(Encoded(f"{file.name} row {row}", lambda content=content: content))
            labels.append(table[label].to_numpy())
        return Split(images, np.concatenate(labels))

    names = _parquet_class_names(schema.metadata or {}, label)
    return Labelled(split(train), split(test) if test else None, names)


def _parquet_class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    if b"classes" in metadata:
        return metadata[b"classes"].decode().split(",")
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return [str(name) for name in names] if names else None


def _folder(path: Path) -> Labelled:
    if not path.is_dir():
        raise InputError(f"data.path {str(path)!r} is a file; source folder needs a directory")
    has_splits = (path / "train").is_dir()
    root = path / "train" if has_splits else path
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())

    def split(directory: Path) -> Split:
        files = [
            (file, label)
            for label, name in enumerate(names)
            for file in sorted((directory / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]
        images = [Encoded(str(file.relative_to(path)), file.read_bytes) for file, _ in files]
        return Split(images, np.array([label for _, label in files], np.int64))

    train = split(root)
    if not names or not len(train.labels):
        raise InputError(
            f"{root} holds no images; expected one folder for each class with "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} files in it"
        )
    test_root = path / "test"
    if not (has_splits and test_root.is_dir()):
        return Labelled(train, None, names)
    unknown = {entry.name for entry in test_root.iterdir() if entry.is_dir()} - set(names)
    if unknown:
        raise InputError(
            f"{test_root} has the classes {', '.join(sorted(unknown))}, which {root} does not have"
        )
    return Labelled(train, split(test_root), names)


def _npz(path: Path) -> Labelled:
    conventions = [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images", "labels", None, None),
    ]
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays: {error}") from error
    for images, labels, test_images, test_labels in conventions:
        if images in arrays and labels in arrays:
            train = Split(arrays[images], arrays[labels].reshape(-1))
            test = None
            if test_images in arrays and test_labels in arrays:
                test = Split(arrays[test_images], arrays[test_labels].reshape(-1))
            names = arrays.get("class_names")
            return Labelled(train, test, None if names is None else [str(name) for name in names])
    raise InputError(
        f"{path} holds the arrays {', '.join(arrays) or 'none'}; x_train and y_train (x_test, "
        "y_test), train_images and train_labels, or images and labels are needed"
    )


def stamp(path: Path | None) -> str:
    """Changes whenever a file of the source does: names, sizes and modification times."""
    if path is None:
        return "embedded"
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    entries = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
    return json.dumps(entries)


def decode(split: Split, *, size: int | None, where: str) -> np.ndarray:
    """Decode, convert and resize to one uint8 array [n, height, width, channels].

    Raises:
        InputError: images that cannot be decoded (listed by name), sizes that differ where no
            size was chosen, or an array that holds no pixels.
    """
    if isinstance(split.images, np.ndarray):
        return _resize_array(_as_pixels(split.images, where), size)
    return _decode_files(split.images, size, where)


def _as_pixels(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"the {where} images have the shape {list(images.shape)}; "
            "[n, height, width] or [n, height, width, 1 or 3] is needed"
        )
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(images * 255).astype(np.uint8)
    if np.isfinite([low, high]).all() and low >= 0 and high <= 255:
        return np.rint(images).astype(np.uint8)
    raise InputError(
        f"the {where} images are {images.dtype} from {low:g} to {high:g}; 0 to 255, or 0.0 to 1.0, is needed"
    )


def _resize_array(images: np.ndarray, size: int | None) -> np.ndarray:
    from PIL import Image

    if size is None or images.shape[1:3] == (size, size):
        return images
    squeeze = images.shape[-1] == 1
    resized = [
        np.asarray(
            Image.fromarray(image[..., 0] if squeeze else image).resize(
                (size, size), Image.Resampling.BILINEAR
            )
        )
        for image in images
    ]
    return np.stack(resized).reshape(len(images), size, size, images.shape[-1])


def _decode_files(images: list[Encoded], size: int | None, where: str) -> np.ndarray:
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    def load(encoded: Encoded) -> np.ndarray | str:
        try:
            with Image.open(io.BytesIO(encoded.read())) as image:
                grey = image.mode in ("1", "L", "I;16", "LA")
                pixels = image.convert("L" if grey else "RGB")
                if size is not None and pixels.size != (size, size):
                    pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
                return np.asarray(pixels)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{encoded.name} ({error})"

    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    with ThreadPoolExecutor() as pool:
        decoded = [
            pixels for chunk in pool.map(lambda chunk: [*map(load, chunk)], chunks) for pixels in chunk
        ]
    broken = [problem for problem in decoded if isinstance(problem, str)]
    if broken:
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise InputError(
            f"{len(broken)} of {len(images)} {where} images cannot be decoded; "
            f"mend or remove {', '.join(broken[:10])}{more}"
        )
    pixels = [image for image in decoded if not isinstance(image, str)]
    sizes = sorted({image.shape[:2] for image in pixels})
    if len(sizes) > 1:
        raise InputError(
            f"the {where} images have {len(sizes)} different sizes, from {sizes[0][1]}x{sizes[0][0]} "
            f"to {sizes[-1][1]}x{sizes[-1][0]} pixels; set data.image_size, such as image_size: 64"
        )
    colour = any(image.ndim == 3 for image in pixels)
    if colour:
        pixels = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in pixels]
        return np.stack(pixels)
    return np.stack(pixels)[..., None]
