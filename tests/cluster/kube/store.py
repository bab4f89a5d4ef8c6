"""The API server's memory: objects with uids and resource versions, the history that watches are served from."""

from __future__ import annotations

import copy
import dataclasses
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""Resource (`plural.group`), namespace, name."""
_WITHOUT_GENERATION = {
    "configmaps",
    "events",
    "namespaces",
    "nodes",
    "secrets",
    "serviceaccounts",
    "services",
}


@dataclasses.dataclass(frozen=True)
class Change:
    """What a watch is told."""

    version: int
    type: str
    key: Key
    object: Manifest


class Store:
    """All objects. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self._objects: dict[Key, Manifest] = {}
        self._history: list[Change] = []
        self._version = 100
        self._compacted = self._version

    @property
    def version(self) -> int:
        return self._version

    @property
    def oldest(self) -> int:
        """The version before which history is gone."""
        return self._compacted

    def compact(self) -> None:
        """Forget the history: a watch from before now has expired."""
        with self.lock:
            self._version += 1
            self._history.clear()
            self._compacted = self._version
            self.lock.notify_all()

    def get(self, key: Key) -> Manifest | None:
        with self.lock:
            return copy.deepcopy(self._objects.get(key))

    def list(self, resource: str, namespace: str | None) -> list[Manifest]:
        with self.lock:
            found = [
                (key, manifest)
                for key, manifest in self._objects.items()
                if key[0] == resource and namespace in (None, key[1])
            ]
            return [copy.deepcopy(manifest) for _, manifest in sorted(found, key=lambda pair: pair[0])]

    def put(self, key: Key, manifest: Manifest) -> Manifest:
        """Create or replace an object; gives it as it now is."""
        with self.lock:
            before = self._objects.get(key)
            self._version += 1
            manifest = copy.deepcopy(manifest)
            metadata = manifest.setdefault("metadata", {})
            if before is None:
                metadata.setdefault("uid", str(uuid.uuid4()))
                metadata.setdefault("creationTimestamp", now())
                if key[0] not in _WITHOUT_GENERATION:
                    metadata.setdefault("generation", 1)
            elif key[0] not in _WITHOUT_GENERATION and before.get("spec") != manifest.get("spec"):
                metadata["generation"] = before["metadata"].get("generation", 1) + 1
            metadata["resourceVersion"] = str(self._version)
            if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
                del self._objects[key]
                self._tell("DELETED", key, manifest)
                self._collect(metadata["uid"])
            else:
                self._objects[key] = manifest
                self._tell("ADDED" if before is None else "MODIFIED", key, manifest)
            return copy.deepcopy(manifest)

    def delete(self, key: Key) -> Manifest | None:
        """Delete an object, or mark it when finalizers hold it; gives it as it last was."""
        with self.lock:
            manifest = self._objects.get(key)
            if manifest is None:
                return None
            marked = copy.deepcopy(manifest)
            marked["metadata"].setdefault("deletionTimestamp", now())
            marked["metadata"].setdefault("deletionGracePeriodSeconds", 0)
            return self.put(key, marked)

    def changes_after(self, version: int, resource: str, namespace: str | None) -> Iterator[Change]:
        with self.lock:
            found = [
                change
                for change in self._history
                if change.version > version
                and change.key[0] == resource
                and namespace in (None, change.key[1])
            ]
        yield from found

    def update(self, key: Key, change: Callable[[Manifest], None]) -> Manifest | None:
        """Change an object in place, if it is there."""
        with self.lock:
            manifest = self.get(key)
            if manifest is None:
                return None
            change(manifest)
            return self.put(key, manifest)

    def _tell(self, type_: str, key: Key, manifest: Manifest) -> None:
        self._history.append(Change(self._version, type_, key, copy.deepcopy(manifest)))
        self.lock.notify_all()

    def _collect(self, owner: str) -> None:
        """Delete what an object owned, as Kubernetes' garbage collector does."""
        for key, manifest in list(self._objects.items()):
            owners = manifest["metadata"].get("ownerReferences") or []
            if any(reference["uid"] == owner for reference in owners):
                self.delete(key)


def reference(owner: Manifest) -> Manifest:
    """An entry of `ownerReferences`."""
    metadata = owner["metadata"]
    names = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    return {**names, "name": metadata["name"], "uid": metadata["uid"]}


def suffix() -> str:
    """What tells a generated name from its siblings."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def now() -> str:
    return timestamp(time.time())


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as the API writes them."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
