"""Files of CIFAR-10 and CIFAR-100: found, downloaded, and read without running what a pickle may hold."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.download import cache_directory, download, locked
from trainers.data.labelled import Split
from trainers.errors import InputError, one_line

_REBUILD: Any = np.zeros(0).__reduce__()[0]
"""What numpy's arrays name in a pickle to be rebuilt with; the module that they name depends on numpy's version."""


def locate(name: str, *, url: str, md5: str, directory: str) -> Path:
    """A published archive's directory: below `$TANDEM_DATA` if it is set, else downloaded into the cache.

    Args:
        name: what a directory below `$TANDEM_DATA` may be called.
        url: of the archive.
        md5: published with it.
        directory: that the archive holds.

    Raises:
        InputError: `$TANDEM_DATA` does not exist, or the archive cannot be downloaded.
    """
    if given := os.environ.get("TANDEM_DATA"):
        root = Path(given)
        for candidate in (root / name, root / directory, root):
            if candidate.is_dir():
                return candidate
        raise InputError(f"$TANDEM_DATA is {given!r}, which does not exist")
    found = cache_directory() / directory
    with locked(cache_directory() / name):
        if not found.exists():
            archive = download(url, cache_directory() / Path(url).name, md5=md5)
            unpacking = cache_directory() / "unpacking"
            with tarfile.open(archive) as tar:
                tar.extractall(unpacking, filter="data")
            (unpacking / directory).rename(found)
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Admits dictionaries and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy.") and name == _REBUILD.__name__:
            return _REBUILD
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR batch")


def load(file: Path, *keys: bytes, dataset: str) -> dict[bytes, Any]:
    """A pickled dictionary.

    Args:
        file: of it.
        keys: that it must have.
        dataset: `CIFAR-10` or `CIFAR-100`, for errors.

    Raises:
        InputError: the file cannot be read, or lacks a key.
    """
    try:
        with open(file, "rb") as handle:
            content = _ArrayUnpickler(handle, encoding="bytes").load()
    except Exception as error:  # unpickling what is damaged raises anything
        raise InputError(f"{file} cannot be read as a {dataset} batch: {one_line(error)}") from error
    if not isinstance(content, dict) or any(key not in content for key in keys):
        needed = " and ".join(key.decode() for key in keys)
        raise InputError(f"{file} is not a {dataset} batch: it needs {needed}")
    return content


def batch(file: Path, labels: str, *, dataset: str) -> Split:
    """The 32x32 images of a file, with the labels of a key.

    Raises:
        InputError: the file cannot be read, or is no batch.
    """
    content = load(file, b"data", labels.encode(), dataset=dataset)
    pixels, found = np.asarray(content[b"data"]), np.asarray(content[labels.encode()])
    if pixels.dtype != np.uint8 or pixels.shape != (len(found), 3072):
        raise InputError(
            f"{file} is not a {dataset} batch: data are {pixels.dtype} {list(pixels.shape)}; uint8 "
            f"{[len(found), 3072]} is needed"
        )
    return Split(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), found)
