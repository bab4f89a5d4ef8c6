"""A training state as bytes: an archive of plain arrays without pickled objects, with a checksum beside it."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from trainers.contract import State


def pack(state: State) -> tuple[bytes, str]:
    """Serialise a state as .npz; returns the bytes and their SHA-256 in hexadecimal."""
    buffer = io.BytesIO()
    np.savez(buffer, **state)  # type: ignore[arg-type]
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()


def unpack(content: bytes, sha256: str) -> State | None:
    """The reverse of `pack`; None if the bytes are not those that were packed."""
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
