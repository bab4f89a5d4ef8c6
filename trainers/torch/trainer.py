"""The Ray trainer that launches PyTorch workers.

Ray's `TorchTrainer` imports PyTorch in the process that launches and in the one that controls, one after
the other, before any worker does. Nothing but the workers needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from trainers.launch import LeanTrainer, MeetingBackend, free_address

_LEAVE_SECONDS = 30


class Trainer(LeanTrainer):
    """Ray Train with a process group of `torch.distributed` over all workers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, backend_config=TorchWorkers(), **options)


class TorchWorkers(BackendConfig):
    """Workers that are one process group: NCCL where each has a GPU of its own, which it demands, else Gloo."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when the workers are there."""
        return _TorchBackend

    @property
    def train_func_context(self) -> Callable[[], contextlib.AbstractContextManager[None]]:
        """What surrounds the training, in its own thread."""
        return _own_gpu


class _TorchBackend(MeetingBackend):
    share_cuda_visible_devices = True  # NCCL copies directly between GPUs that both workers see

    def meet(self, worker_group: Any) -> None:
        address = worker_group.execute_single(0, free_address)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) >= 1 else "gloo"
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join, address, index=rank, world_size=len(worker_group), backend=backend
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_SECONDS)


def _join(address: str, *, index: int, world_size: int, backend: str) -> None:
    import torch.distributed

    torch.distributed.init_process_group(
        backend, init_method=f"tcp://{address}", rank=index, world_size=world_size
    )


def _leave() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _own_gpu() -> Iterator[None]:
    import torch

    if torch.cuda.is_available():
        import ray.train.torch

        device = ray.train.torch.get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
    yield
