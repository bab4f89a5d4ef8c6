"""What both frameworks' trainers share: workers launched by Ray Train as tandem needs them."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_UNUSED = "DatasetsCallback"


class LeanTrainer(DataParallelTrainer):
    """Ray Train without the process that hands out shards of Ray Data, which tandem does not read."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != _UNUSED]


class MeetingBackend(Backend):
    """Lets workers meet each other, and gives their resources back when they cannot.

    Ray would keep the placement group of workers that fail here until the driver ends, and the next workers
    would wait for its CPUs for ever.
    """

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called by Ray Train when the workers are there."""
        try:
            self.meet(worker_group)
        except Exception:
            worker_group.shutdown()
            raise

    @abstractmethod
    def meet(self, worker_group: Any) -> None:
        """Let the workers know of each other."""


def call_each(worker_group: Any, function: Callable[..., None], **arguments: Any) -> None:
    """Call a function in every worker at once, with its rank as `index`, and wait for all."""
    ray.get(
        [
            worker_group.execute_single_async(rank, function, index=rank, **arguments)
            for rank in range(len(worker_group))
        ]
    )


def free_address() -> str:
    """A `host:port` on this node that nobody listens on, for workers to meet at."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
