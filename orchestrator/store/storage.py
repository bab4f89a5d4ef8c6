"""Files in a directory or behind a URL, written whole; anything that pyarrow has a filesystem for."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from pydantic_core import from_json

from orchestrator.store.old_records import upgraded
from trainers.errors import InputError

SCHEMA_VERSION = 2
_PROBE = "write-check"
_DAMAGED = (
    ValueError, TypeError, LookupError, AttributeError, OSError, EOFError, RuntimeError, MemoryError, zlib.error,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged archive of arrays raises."""

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
            StorageError: the URL is of no known kind, or names no bucket.
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
        if not self._base:
            raise StorageError(
                f"storage {url!r} names no bucket; give one, such as {url.rstrip('/')}//bucket/results"
            )
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

    def is_file(self, name: str) -> bool:
        """Whether there is a file of this name, and not a directory.

        Raises:
            StorageError: no permission, no connection.
        """
        try:
            return bool(self._files.get_file_info(self._path(name)).type is pafs.FileType.File)
        except OSError as error:
            raise StorageError(f"storage {self.url!r}: {name} cannot be read: {_reason(error)}") from error

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

    def try_writing(self, size: int) -> None:
        """Write a file of so many bytes and remove it again, with the directories that were made for it.

        Raises:
            StorageError: no permission, no space, no connection.
        """
        base = Path(self._base)
        made = [path for path in (base, *base.parents) if not path.exists()] if self.is_local else []
        try:
            self.write(_PROBE, bytes(size))
            self.delete(_PROBE)
        finally:
            for path in made:
                with contextlib.suppress(OSError):  # it was not made after all, or has come into use
                    path.rmdir()

    def names(self, directory: str = "") -> list[str]:
        """Names of the files and directories right below a directory, sorted; none where it is not there.

        Raises:
            StorageError: no permission, no connection, or it is a file.
        """
        selector = pafs.FileSelector(self._path(directory), allow_not_found=True)
        try:
            return sorted(entry.base_name for entry in self._files.get_file_info(selector))
        except OSError as error:
            raise StorageError(
                f"storage {self._path(directory)!r} cannot be listed: {_reason(error)}"
            ) from error

    def delete(self, name: str) -> None:
        """Remove a file if it is there.

        Raises:
            StorageError: no permission, no connection.
        """
        self._remove(name, self._files.delete_file)

    def delete_directory(self, name: str) -> None:
        """Remove a directory with all that is in it, if it is there.

        Raises:
            StorageError: no permission, no connection.
        """
        self._remove(name, self._files.delete_dir)

    def _remove(self, name: str, remove: Callable[[str], None]) -> None:
        try:
            remove(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"storage {self.url!r}: {name} cannot be removed: {_reason(error)}") from error

    def copy_to(self, directory: Path, *, skip: re.Pattern[str] | None = None) -> int:
        """Copy all files to a local directory, but for those whose path matches; returns how many.

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
            if entry.type is not pafs.FileType.File or (skip is not None and skip.search(name)):
                continue
            target.write(name, self.read(name) or b"")
            copied += 1
        return copied

    def read_json(self, name: str) -> Record | None:
        """A JSON file's contents, or None where there is none or it is damaged."""
        content = self.read(name)
        try:
            document = None if content is None else json.loads(content)
            return upgraded(document) if isinstance(document, dict) else None
        except (ValueError, RecursionError):
            return None

    def write_json(self, name: str, document: Record) -> None:
        """Write a JSON document with the schema's version in it."""
        text = json.dumps({"schema": SCHEMA_VERSION} | document, indent=1, allow_nan=True)
        self.write(name, text.encode())

    def read_lines(self, name: str) -> list[Record]:
        """The records of a .jsonl file; damaged lines are left out."""
        records = []
        for line in (self.read(name) or b"").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(record := from_json(line), dict):
                    records.append(upgraded(record))
        return records

    def append_line(self, name: str, record: Record) -> None:
        """Add one record to a .jsonl file."""
        self.append_lines(name, [record])

    def append_lines(self, name: str, records: list[Record]) -> None:
        """Add records to a .jsonl file."""
        lines = "".join(json.dumps({"schema": SCHEMA_VERSION} | record) + "\n" for record in records)
        self.write(name, (self.read(name) or b"") + lines.encode())

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
        except _DAMAGED:
            return None


def _reason(error: OSError) -> str:
    """The system's own words, without the path that pyarrow puts before them."""
    detail = error.strerror or str(error)
    return detail.rpartition("Detail: ")[2].removeprefix("[errno ").partition("] ")[2] or detail
