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
            addresses = worker_group.execute(free_address)
            call_each(worker_group, join, addresses=addresses, has_own_gpu=False)


class TensorflowWorkers(BackendConfig):
    """Several workers that each have a `TF_CONFIG`, as `MultiWorkerMirroredStrategy` needs."""

    backend_cls = _TensorflowBackend


Trainer = functools.partial(LeanTrainer, backend_config=TensorflowWorkers())


def join(*, addresses: list[str], index: int, has_own_gpu: bool) -> None:
    """Tell TensorFlow in this process which workers there are, and which of them it is.

    Args:
        addresses: a free one of each worker.
        index: of this worker.
        has_own_gpu: ignored; TensorFlow finds out.
    """
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
