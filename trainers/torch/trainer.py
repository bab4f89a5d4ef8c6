"""How Ray Train connects PyTorch workers.

Ray's `TorchTrainer` imports PyTorch in the process that calls `fit()` and in Ray Train's controller, one after the
other, before a worker does. Only the workers need it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from trainers.ray_train.launch import call_each, connect_workers, free_address

_LEAVE_SECONDS = 30


class _TorchBackend(Backend):
    share_cuda_visible_devices = True  # NCCL copies directly between GPUs that both workers see

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        def rendezvous() -> None:
            addresses = worker_group.execute(free_address)
            has_own_gpu = worker_group.get_resources_per_worker().get("GPU", 0) >= 1
            call_each(worker_group, join, addresses=addresses, has_own_gpu=has_own_gpu)

        if len(worker_group) > 1:
            connect_workers(worker_group, rendezvous)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            with contextlib.suppress(ray.exceptions.GetTimeoutError):
                ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_SECONDS)


class Workers(BackendConfig):
    """Several workers form one process group: NCCL if each has a GPU of its own, else Gloo.

    A single worker has no process group, and so no thread of Gloo.
    """

    backend_cls = _TorchBackend

    @property
    def train_func_context(self) -> Callable[[], contextlib.AbstractContextManager[None]]:
        """What surrounds the training function, in its own thread."""
        return _own_gpu


def join(*, addresses: list[str], index: int, has_own_gpu: bool) -> None:
    """Make this process one of a group that exchanges gradients.

    Args:
        addresses: a free one of each worker; the first one's is used.
        index: of this worker.
        has_own_gpu: whether each worker has a GPU of its own, as NCCL needs; Gloo does not.
    """
    import torch.distributed

    torch.distributed.init_process_group(
        "nccl" if has_own_gpu else "gloo",
        init_method=f"tcp://{addresses[0]}",
        rank=index,
        world_size=len(addresses),
    )


def _leave() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _own_gpu() -> Iterator[None]:
    if ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        import torch
        from ray.train.torch import get_device

        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
    yield
