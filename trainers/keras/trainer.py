"""How Ray Train connects TensorFlow workers.

Ray's `TensorflowTrainer` imports TensorFlow in the process that calls `fit()` and in Ray Train's controller, one
after the other, before a worker does. Only the workers need it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from trainers.ray_train.launch import call_each, connect_workers, free_address


class _TensorflowBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        def rendezvous() -> None:
            addresses = worker_group.execute(free_address)
            call_each(worker_group, join, addresses=addresses, has_own_gpu=False)

        if len(worker_group) > 1:
            connect_workers(worker_group, rendezvous)


class Workers(BackendConfig):
    """Several workers have a `TF_CONFIG` each, as `MultiWorkerMirroredStrategy` needs."""

    backend_cls = _TensorflowBackend


def join(*, addresses: list[str], index: int, has_own_gpu: bool) -> None:
    """Tell TensorFlow in this process which workers there are, and which of them it is.

    Args:
        addresses: a free one of each worker.
        index: of this worker.
        has_own_gpu: ignored; TensorFlow finds its GPUs itself.
    """
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)


def keras_trainer(train_loop_per_worker: Callable[..., Any], **arguments: Any) -> DataParallelTrainer:
    """A trainer whose workers have a `TF_CONFIG` each; which Keras they use is left to the training function.

    Ray's `TensorflowTrainer` selects Keras 2 instead, with `TF_USE_LEGACY_KERAS=1`.
    """
    return DataParallelTrainer(train_loop_per_worker, backend_config=Workers(), **arguments)
