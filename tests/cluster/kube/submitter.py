"""The submitter of K8sJobMode: a Job whose pods run KubeRay's submission as real processes on this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from typing import Any

from tests.cluster.kube.nodes import RayNodes, pod_environment
from tests.cluster.kube.store import Manifest, Store, now, reference, suffix

_BACKOFF_LIMIT = 2
_WAIT_SECONDS = 1.0
_SUBMISSION = """
until ray job list > /dev/null 2>&1; do sleep 1; done
if ! ray job status {id} > /dev/null 2>&1; then
  ray job submit --no-wait --submission-id {id} {options} -- {entrypoint}
fi
ray job logs --follow {id}
"""
"""The entrypoint is pasted unquoted, as KubeRay pastes it."""


class Submitter:
    """One RayJob's submitter. A pod that fails is replaced, `_BACKOFF_LIMIT` times."""

    def __init__(
        self, store: Store, job: Manifest, nodes: RayNodes, *, submission: Manifest, starts: bool
    ) -> None:
        """Take what the Jobs API is to be asked for, and whether the image has the commands (`starts`)."""
        self._store, self._nodes, self._starts = store, nodes, starts
        self._namespace, self._name = job["metadata"]["namespace"], job["metadata"]["name"]
        options = ""
        if "runtime_env" in submission:
            options = f"--runtime-env-json {shlex.quote(json.dumps(submission['runtime_env']))}"
        self._script = _SUBMISSION.format(
            id=submission["submission_id"], options=options, entrypoint=submission["entrypoint"]
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._failed, self._pod, self._again_at = 0, "", 0.0
        self.state = "active"
        """Or `succeeded`, or `failed`."""
        metadata = {"name": self._name, "namespace": self._namespace, "ownerReferences": [reference(job)]}
        self._job = store.put(
            ("jobs.batch", self._namespace, self._name),
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": metadata,
                "spec": {"backoffLimit": _BACKOFF_LIMIT},
                "status": {"startTime": now()},
            },
        )

    def look(self) -> None:
        """Start the pod that is missing, and note how one ended."""
        if self.state != "active" or time.monotonic() < self._again_at:
            return
        if not self._pod:
            self._start()
        elif self._process is None:
            self._end(128, "StartError")
        elif (code := self._process.poll()) is not None:
            self._end(code, "Error" if code else "Completed")

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def remove(self) -> None:
        """End it and delete the Job, as a retry does."""
        self.kill()
        self._store.delete(("jobs.batch", self._namespace, self._name))

    def _start(self) -> None:
        self._pod = f"{self._name}-{suffix()}"
        self._process = None
        if self._starts:
            self._process = subprocess.Popen(
                ["bash", "-ec", self._script],
                env=pod_environment(
                    {
                        "RAY_ADDRESS": self._nodes.dashboard,
                        "RAY_AUTH_MODE": "token",
                        "RAY_AUTH_TOKEN": self._nodes.token,
                    }
                ),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._store.put(
            ("pods", self._namespace, self._pod),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": self._pod,
                    "namespace": self._namespace,
                    "labels": {
                        "batch.kubernetes.io/job-name": self._name,
                        "ray.io/originated-from-cr-name": self._name,
                        "ray.io/originated-from-crd": "RayJob",
                    },
                    "ownerReferences": [reference(self._job)],
                },
                "status": _pod_status("Running", {"running": {"startedAt": now()}}),
            },
        )
        self._tell(active=1)

    def _end(self, code: int, reason: str) -> None:
        phase = "Failed" if code else "Succeeded"
        ended = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        self._store.update(
            ("pods", self._namespace, self._pod),
            lambda found: found.update(status=_pod_status(phase, ended)),
        )
        if not code:
            self.state = "succeeded"
            self._tell(
                "Complete", "CompletionsReached", "Reached expected number of succeeded pods", succeeded=1
            )
            return
        self._failed += 1
        self._pod, self._again_at = "", time.monotonic() + _WAIT_SECONDS
        if self._failed > _BACKOFF_LIMIT:
            self.state = "failed"
            self._tell("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        else:
            self._tell()

    def _tell(self, condition: str = "", reason: str = "", message: str = "", **counts: int) -> None:
        status: dict[str, Any] = {
            "startTime": self._job["status"]["startTime"],
            "failed": self._failed,
        } | counts
        if condition:
            status["conditions"] = [
                {"type": condition, "status": "True", "reason": reason, "message": message}
            ]
        self._store.update(
            ("jobs.batch", self._namespace, self._name), lambda found: found.update(status=status)
        )


def _pod_status(phase: str, state: Manifest) -> Manifest:
    container = {"name": "ray-job-submitter", "image": "", "state": state, "restartCount": 0}
    return {"phase": phase, "conditions": [], "containerStatuses": [container]}
