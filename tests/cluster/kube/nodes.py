"""Pods as processes: each is a real `ray start --block` on this machine, with what its container would be given."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import psutil

from tests.conftest import ROOT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pod_environment(given: dict[str, str]) -> dict[str, str]:
    """What a process sees that stands for a pod: this machine's paths and what its container is given."""
    passed = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "KUBE"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return passed | {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"} | given


class RayNode:
    """One Ray node in a process group of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--disable-usage-stats", "--block"]
        self._scratch = tempfile.TemporaryDirectory(prefix="pod")
        self.output = Path(self._scratch.name) / "output"
        with self.output.open("wb") as output:
            self._process = psutil.Popen(
                [*command, *arguments],
                env=pod_environment(environment),
                cwd=self._scratch.name,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End every process that the node started, as the end of a pod does."""
        family = [self._process]
        with contextlib.suppress(psutil.NoSuchProcess):
            family += self._process.children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        with contextlib.suppress(OSError):
            self._scratch.cleanup()


class RayNodes:
    """The pods of one RayCluster, by name."""

    def __init__(self, token: str, environment: dict[str, str]) -> None:
        self._environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} | environment
        self.token = token
        self.gcs_port, self.dashboard_port = free_port(), free_port()
        self._scratch = tempfile.mkdtemp(prefix="ray")
        self._nodes: dict[str, RayNode] = {}

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def start_head(self, pod: str, *, cpus: str) -> None:
        arguments = ["--head", f"--port={self.gcs_port}", f"--num-cpus={cpus}", f"--temp-dir={self._scratch}"]
        arguments += [
            f"--dashboard-port={self.dashboard_port}",
            f"--dashboard-agent-listen-port={free_port()}",
        ]
        (Path(self._scratch) / "ray_current_cluster").unlink(missing_ok=True)  # a new pod remembers no other
        if password := self._environment.get("REDIS_PASSWORD"):
            arguments.append(f"--redis-password={password}")
        self._nodes[pod] = RayNode(arguments, self._environment)

    def start_worker(self, pod: str, *, cpus: str) -> None:
        arguments = [f"--address=127.0.0.1:{self.gcs_port}", f"--num-cpus={cpus}"]
        arguments += [f"--dashboard-agent-listen-port={free_port()}"]
        self._nodes[pod] = RayNode(arguments, self._environment)

    def is_alive(self, pod: str) -> bool:
        return pod in self._nodes and self._nodes[pod].is_alive

    def kill(self, pod: str) -> None:
        if node := self._nodes.pop(pod, None):
            node.kill()

    def kill_all(self) -> None:
        for pod in list(self._nodes):
            self.kill(pod)
        shutil.rmtree(self._scratch, ignore_errors=True)
