"""A `.zip` or `.tar` file of a folder: unpacked until its images are decoded, and read as what is in it."""

from __future__ import annotations

import dataclasses
import tarfile
import zipfile
import zlib
from pathlib import Path

from trainers.data import sources
from trainers.data.labelled import Labelled
from trainers.data.scratch import scratch_directory
from trainers.data.source import Source
from trainers.data.spec import DataSpec
from trainers.errors import InputError, one_line

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_FIELDS = frozenset({"image_column", "label_column", "extension", "group_by"})


def _read(path: Path | None, spec: DataSpec) -> Labelled:
    assert path is not None
    try:
        with zipfile.ZipFile(path) if path.suffix.lower() == ".zip" else tarfile.open(path) as archive:
            scratch = scratch_directory(needed=_size(archive))
            unpacked = Path(scratch.name) / path.name
            if isinstance(archive, tarfile.TarFile):
                archive.extractall(unpacked, filter="data")
            else:
                archive.extractall(unpacked)
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked: {one_line(error)}") from error
    inside = spec.model_copy(update={"path": unpacked, "source": None})
    try:
        name, found = sources.resolve(inside)
        labelled = sources.read(name, found, inside)
    except InputError as error:
        raise InputError(str(error).replace(str(unpacked), str(path))) from error
    return dataclasses.replace(labelled, scratch=scratch)


def _size(archive: zipfile.ZipFile | tarfile.TarFile) -> int:
    """Bytes of the unpacked files."""
    if isinstance(archive, zipfile.ZipFile):
        return sum(member.file_size for member in archive.infolist())
    return sum(member.size for member in archive.getmembers())


def _recognizes(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


SOURCE = Source(read=_read, recognizes=_recognizes, precedence=-1, fields=_FIELDS)
