"""The Ray trainer that launches TensorFlow workers.

Ray's `TensorflowTrainer` imports TensorFlow in the process that launches and in the one that controls, one
after the other, before any worker does. Nothing but the workers needs it.
"""

from __future__ import annotations

import json
import os
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from trainers.launch import LeanTrainer, MeetingBackend, free_address


class Trainer(LeanTrainer):
    """Ray Train with a `TF_CONFIG` on every worker, as `MultiWorkerMirroredStrategy` needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, backend_config=TensorflowWorkers(), **options)


class TensorflowWorkers(BackendConfig):
    """Workers that know each other's addresses."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when the workers are there."""
        return _TensorflowBackend


class _TensorflowBackend(MeetingBackend):
    def meet(self, worker_group: Any) -> None:
        addresses = worker_group.execute(free_address)
        ray.get(
            [
                worker_group.execute_single_async(rank, _introduce, addresses=addresses, index=rank)
                for rank in range(len(addresses))
            ]
        )


def _introduce(*, addresses: list[str], index: int) -> None:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
