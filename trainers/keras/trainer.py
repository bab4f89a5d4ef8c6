"""How Ray Train connects TensorFlow workers.

Ray's `TensorflowTrainer` imports TensorFlow in the process that calls `fit()` and in Ray Train's controller, one
after the other, before a worker does. Only the workers need it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ray.train.backend import Backend, BackendConfig

from trainers.launch import call_each, connect_workers, free_address


class _TensorflowBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        def rendezvous() -> None:
            call_each(worker_group, _introduce, addresses=worker_group.execute(free_address))

        if len(worker_group) > 1:
            connect_workers(worker_group, rendezvous)


class Workers(BackendConfig):
    """Several workers have a `TF_CONFIG` each, as `MultiWorkerMirroredStrategy` needs."""

    backend_cls = _TensorflowBackend


def _introduce(*, addresses: list[str], index: int) -> None:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
