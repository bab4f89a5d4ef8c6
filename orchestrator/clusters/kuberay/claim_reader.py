"""Copies results from a claim: a short-lived pod that sees it prints them, as a compressed archive in its log."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import secrets
import tarfile
import time
from pathlib import Path

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.kuberay import api, manifests
from orchestrator.clusters.kuberay.api import KubernetesApi
from orchestrator.clusters.kuberay.diagnosis import diagnose
from orchestrator.clusters.kuberay.objects import status_of
from orchestrator.clusters.kuberay.snapshot import Snapshot
from trainers.errors import ClusterError, InputError

_START_SECONDS = 600.0
_POLL_SECONDS = 1.0
_SCRIPT = """
import base64, hashlib, re, sys, tarfile
from pathlib import Path

root, skipped = Path(sys.argv[1]), [re.compile(pattern) for pattern in sys.argv[2:]]


class Printed:
    def __init__(self):
        self.left, self.sum = b"", hashlib.sha256()

    def write(self, content):
        self.sum.update(content)
        self.left += content
        whole = len(self.left) // 3000 * 3000
        self.print(self.left[:whole])
        self.left = self.left[whole:]
        return len(content)

    def print(self, content):
        for start in range(0, len(content), 3000):
            print(base64.b64encode(content[start : start + 3000]).decode())


if not root.is_dir():
    sys.exit(f"no directory {root}")
printed = Printed()
with tarfile.open(fileobj=printed, mode="w|gz") as archive:
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        if file.is_file() and not any(pattern.search(path) for pattern in skipped):
            archive.add(file, path)
printed.print(printed.left)
print("sha256", printed.sum.hexdigest(), flush=True)
"""
"""Run by the pod with the results' directory and patterns of paths that are left out."""


def fetch(
    kubernetes: KubernetesApi, bundle: JobBundle, directory: Path, *, skip: re.Pattern[str] | None
) -> int:
    """Copy an experiment's results from its claim to a local directory; returns the number of files.

    Raises:
        InputError: the claim does not hold the results.
        ClusterError: the pod does not start, or its log is incomplete.
    """
    name = f"tandem-fetch-{secrets.token_hex(4)}"
    command = ["python", "-c", _SCRIPT, bundle.spec.results]
    command += [] if skip is None else [skip.pattern]
    pod = manifests.claim_pod(bundle, name=name, namespace=kubernetes.namespace, command=command)
    kubernetes.create(api.POD, pod)
    try:
        phase = _await_end(kubernetes, name)
        log = kubernetes.pod_log(name, manifests.CLAIM_CONTAINER) or ""
    finally:
        kubernetes.delete(api.POD, name)
    if phase == "Failed":
        raise InputError(
            f"{bundle.spec.results} cannot be read from its claim: {log.strip()[-300:] or 'no log'}"
        )
    return _unpacked(log, directory)


def _await_end(kubernetes: KubernetesApi, name: str) -> str:
    """Wait until a pod has ended; returns its phase."""
    limit = time.monotonic() + _START_SECONDS
    while True:
        found = kubernetes.list(api.POD, fields=f"metadata.name={name}")
        if not found:
            raise ClusterError(f"pod {name}, which read the claim, was deleted; give the same command again")
        phase = str(status_of(found[0]).get("phase"))
        if phase in ("Succeeded", "Failed"):
            return phase
        if phase == "Running":
            limit = time.monotonic() + _START_SECONDS
        if time.monotonic() > limit:
            findings = diagnose(Snapshot(namespace=kubernetes.namespace, pods=found))
            why = findings[0] if findings else f"kubectl describe pod {name}"
            raise ClusterError(f"the pod that reads the claim does not start: {why}")
        time.sleep(_POLL_SECONDS)


def _unpacked(log: str, directory: Path) -> int:
    *lines, last = log.split("\n")[:-1] or [""]
    try:
        content = base64.b64decode("".join(lines), validate=True)
    except ValueError:
        content = b""
    if last != f"sha256 {hashlib.sha256(content).hexdigest()}":
        raise ClusterError(
            "the log of the pod that reads the claim is incomplete, since kubelets keep the end of a long log only; "
            "leave checkpoints out, or copy the results to a bucket"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        members = archive.getmembers()
        archive.extractall(directory, filter="data")
    return len(members)
