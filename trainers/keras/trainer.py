"""The Ray trainer that launches TensorFlow workers.

Ray's `TensorflowTrainer` imports TensorFlow in the process that launches and in the one that controls, one
after the other, before any worker does. Nothing but the workers needs it.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class Trainer(DataParallelTrainer):
    """Ray Train with a `TF_CONFIG` on every worker, as `MultiWorkerMirroredStrategy` needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, backend_config=TensorflowWorkers(), **options)


class TensorflowWorkers(BackendConfig):
    """Workers that know each other's addresses."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when the workers are there."""
        return _TensorflowBackend


class _TensorflowBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_free_address)
        ray.get(
            [
                worker_group.execute_single_async(rank, _introduce, addresses=addresses, index=rank)
                for rank in range(len(addresses))
            ]
        )


def _free_address() -> str:
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _introduce(*, addresses: list[str], index: int) -> None:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
