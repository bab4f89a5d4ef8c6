"""The Ray trainer that launches TensorFlow workers.

Ray's `TensorflowTrainer` imports TensorFlow in the process that launches and in the one that controls, one
after the other, before any worker does. Nothing but the workers needs it.
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any

from ray.train.backend import Backend, BackendConfig

from trainers.launch import LeanTrainer, call_each, free_address


class _TensorflowBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            call_each(worker_group, _introduce, addresses=worker_group.execute(free_address))


class TensorflowWorkers(BackendConfig):
    """Several workers that each have a `TF_CONFIG`, as `MultiWorkerMirroredStrategy` needs."""

    backend_cls = _TensorflowBackend


Trainer = functools.partial(LeanTrainer, backend_config=TensorflowWorkers())


def _introduce(*, addresses: list[str], index: int) -> None:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
