"""One driver at a time: a lease in the experiment's storage, renewed while its driver lives.

Object storage has no locks, so a lease is won by writing it, waiting a moment, and finding it unchanged. A
driver whose lease is no longer renewed is taken for dead; on the same machine a look at its process tells at once.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from orchestrator.store.storage import Record, Storage, StorageError
from trainers.errors import TandemError

_FILE = "lease.json"
_RENEW_SECONDS = 5.0
_EXPIRED_SECONDS = 30.0
"""Without a renewal; several times what a slow storage takes for one."""
_SETTLE_SECONDS = 0.5
_ROUNDING_SECONDS = 2.0
"""By which two readings of when a process began may differ."""


class HeldError(TandemError):
    """Another driver trains the same experiment into the same storage."""


@contextlib.contextmanager
def held(
    storage: Storage, *, on_loss: Callable[[], None], expired_after: float = _EXPIRED_SECONDS
) -> Iterator[None]:
    """Hold an experiment's lease while the block lasts.

    Args:
        storage: the experiment's.
        on_loss: called from another thread if somebody else has taken the lease.
        expired_after: seconds without a renewal after which its holder is taken for dead.

    Raises:
        HeldError: another driver holds it, and renews it.
        StorageError: the storage cannot be written.
    """
    _wait_until_free(storage, expired_after)
    mine: Record = {
        "holder": uuid.uuid4().hex,
        "host": platform.node(),
        "boot": _boot(),
        "pid": os.getpid(),
        "process_created": _created(os.getpid()),
        "renewals": 0,
        "renewed_at": time.time(),
    }
    storage.write_json(_FILE, mine)
    if not storage.is_local:
        time.sleep(_SETTLE_SECONDS)
    _check_mine(storage, mine)
    over = threading.Event()

    def renew() -> None:
        nonlocal mine
        while not over.wait(_RENEW_SECONDS):
            with contextlib.suppress(StorageError):  # a storage that is gone stops the training by itself
                found = storage.read_json(_FILE)
                if found is not None and found["holder"] != mine["holder"]:
                    on_loss()
                    return
                mine |= {"renewals": mine["renewals"] + 1, "renewed_at": time.time()}
                storage.write_json(_FILE, mine)

    renewing = threading.Thread(target=renew, daemon=True, name="tandem-lease")
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join(timeout=_RENEW_SECONDS)
        found = storage.read_json(_FILE)
        if found is not None and found["holder"] == mine["holder"]:
            storage.delete(_FILE)


def renewed_at(storage: Storage) -> float | None:
    """When a driver last renewed its lease, by its own clock; None where no driver holds one."""
    found = storage.read_json(_FILE)
    return None if found is None else float(found["renewed_at"])


def _wait_until_free(storage: Storage, expired_after: float) -> None:
    first = storage.read_json(_FILE)
    limit = time.monotonic() + expired_after
    while (found := storage.read_json(_FILE)) is not None and not _is_dead(found):
        renewed = first is None or (found["holder"], found["renewals"]) != (
            first["holder"],
            first["renewals"],
        )
        if renewed or _is_alive(found):
            raise HeldError(_sentence(storage, found))
        if time.monotonic() > limit:
            return
        time.sleep(min(1.0, expired_after / 10))


def _check_mine(storage: Storage, mine: Record) -> None:
    found = storage.read_json(_FILE)
    if found is None or found["holder"] != mine["holder"]:
        raise HeldError(_sentence(storage, found or mine))


def _sentence(storage: Storage, lease: Record) -> str:
    return (
        f"{storage.url} is being trained by another driver (process {lease['pid']} on {lease['host']}); "
        "wait for it, or give this experiment another name"
    )


def _is_alive(lease: Record) -> bool:
    """Whether the holder is seen to run, which only its own machine can tell."""
    return _is_here(lease) and _has_same_process(lease)


def _is_dead(lease: Record) -> bool:
    return _is_here(lease) and not _has_same_process(lease)


def _is_here(lease: Record) -> bool:
    """Whether the holder's process can be seen from here; earlier versions did not record when it began."""
    return "process_created" in lease and (lease["host"], lease["boot"]) == (platform.node(), _boot())


def _boot() -> str:
    """Names the kernel and the processes that this one sees: two containers do not see each other's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _has_same_process(lease: Record) -> bool:
    """Whether the holder's process runs; a later one may have been given its number."""
    created = _created(lease["pid"])
    return created is not None and abs(created - lease["process_created"]) < _ROUNDING_SECONDS


def _created(pid: int) -> float | None:
    """When a process began, in seconds after the system's start; None where there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time() - psutil.boot_time())
    except psutil.NoSuchProcess:
        return None
