"""What both frameworks' trainers share: workers launched by Ray Train as tandem needs them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import ray
from ray._private.log import PlainRayHandler
from ray.train.v2._internal.constants import ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, create_scaling_policy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker, WorkerStatus
from ray.train.v2._internal.logging import LoggingManager
from ray.train.v2._internal.util import ObjectRefWrapper
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_UNUSED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
_ANSWER_SECONDS = 2
_END_SECONDS = 10


class Launched:
    """A group of workers that is starting or at work, led by a thread of this process."""

    def __init__(self, lead: Callable[[], Exception | None], groups: _Groups) -> None:
        """Begin.

        Args:
            lead: returns when the workers have ended, with why they failed, if they did.
            groups: those that `lead` makes.
        """
        self.ended: futures.Future[Exception | None] = futures.Future()
        """Done when the workers have ended; why they failed, if they did."""
        self._lead = lead
        self._groups = groups
        threading.Thread(target=self._run, name="tandem-lead", daemon=True).start()

    def _run(self) -> None:
        try:
            error = self._lead()
        except Exception as failure:
            error = failure
        try:
            self._groups.close()
        except Exception as failure:  # Ray is gone
            error = error or failure
        self.ended.set_result(error)

    def close(self) -> None:
        """End the workers at once, and do not wait for them."""
        self._groups.close()


def end(launched: Iterable[Launched]) -> None:
    """End all workers at once, and wait until nobody leads them: what leads them must not outlive Ray."""
    launched = list(launched)
    for each in launched:
        each.close()
    futures.wait([each.ended for each in launched], timeout=_END_SECONDS)


class LeanWorker(RayTrainWorker):
    """Ray Train's worker, which takes its time to answer as long as it trains.

    A process that waits for the next question instead is woken by Ray a hundred times a second.
    """

    def poll_status(self) -> WorkerStatus:
        """Called by Ray Train: whether the training goes on; at once when it ends."""
        training = get_train_context().execution_context.training_thread_runner._thread
        if training is not None:
            training.join(_ANSWER_SECONDS)
        return super().poll_status()


class LeanWorkerGroup(worker_group.WorkerGroup):
    """Ray Train's group of workers, whose resources can be taken from it at any moment."""

    _worker_cls = LeanWorker
    _reserved: Any = None
    _closed = False

    def close(self) -> None:
        """Let others have the resources; whatever runs on them ends."""
        self._closed = True
        if self._reserved is not None:
            self._reserved.shutdown()

    def _create_placement_group(self, *given: Any) -> Any:
        self._reserved = super()._create_placement_group(*given)
        if self._closed:
            self._reserved.shutdown()
        return self._reserved

    def _start(self) -> None:
        _meeting.alone = self._worker_group_context.num_workers == 1
        try:
            super()._start()
        except Exception:
            self.close()  # Ray would keep the resources of workers that cannot meet until the driver ends
            raise

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        """As Ray's own, for a controller that is no actor."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[rank] for name, values in train_context_args.items()},
                )
                for rank, worker in enumerate(workers)
            ]
        )
        self._decorate_worker_log_file_paths(workers)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        """None of their own where workers have the driver's from their node: Ray has processes for those in stock."""
        node = ray._private.worker._global_node
        if node is not None and node.is_head():  # this process has started Ray, on this machine alone
            return custom_runtime_env
        return worker_group.WorkerGroup._get_worker_runtime_env(custom_runtime_env)


@dataclasses.dataclass
class _Groups:
    """What a controller makes groups of workers with: one, or one after another where their number changes."""

    hang_seconds: float
    _current: LeanWorkerGroup | None = None
    _closed: bool = False

    def create(self, **given: Any) -> LeanWorkerGroup:
        """Called by Ray Train, to start a group.

        Raises:
            RuntimeError: there are to be none any more.
        """
        group = self._current = LeanWorkerGroup(**given)
        group._worker_health_check_timeout_s = self.hang_seconds + _ANSWER_SECONDS
        if self._closed:
            raise RuntimeError("the workers were told to end")
        group._start()
        return group

    def close(self) -> None:
        """End the present group at once, and have no other."""
        self._closed = True
        if self._current is not None:
            self._current.close()


class _FixedSize(FixedScalingPolicy):
    """A number of workers that stays, which their placement group alone asks an autoscaler for.

    Ray would first start an actor of Ray Data's to ask it as well, and wait for it.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called by Ray Train, in the controller."""

    def _maybe_send_resource_request(self) -> None:
        pass


class _Told:
    def remote(self, *, data: Any, **_: Any) -> ray.ObjectRef[Any]:
        return ray.put(data)


class _Alone:
    """What one worker has instead of the actor at which several wait for each other: a process less."""

    @classmethod
    def remote(cls, **_: Any) -> _Alone:
        return cls()

    broadcast_from_rank_zero = _Told()


class _Meeting(threading.local):
    """What Ray Train makes such an actor with, for the group of workers that the present thread starts."""

    alone = False

    def options(self, **given: Any) -> Any:
        return _Alone if self.alone else SynchronizationActor.options(**given)


def _end_meeting(actor: Any) -> None:
    if not isinstance(actor, _Alone):
        ray.kill(actor)


_meeting = _Meeting()
worker_group.SynchronizationActor = _meeting
state._shutdown_sync_actor = _end_meeting


_logged_to: set[str | None] = set()


def _log_to_files(context: Any) -> None:
    """Have Ray Train's controllers write their log to the files of Ray's session alone.

    Each would set that up anew: it would close the files of those at work in this process, or wait for
    ever for one that writes, which waits for it.

    Args:
        context: of the run that is launched.
    """
    os.environ[ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR] = "0"
    directory = LoggingManager.get_log_directory()
    if directory in _logged_to:
        return
    _logged_to.add(directory)
    LoggingManager.configure_controller_logger(context)
    logger = logging.getLogger("ray.train")
    for handler in [*logger.handlers]:
        if isinstance(handler, PlainRayHandler):
            logger.removeHandler(handler)


class LeanTrainController(TrainController):
    """Ray Train's controller, which is no process of its own."""

    def __init__(self, groups: _Groups, **given: Any) -> None:
        """Begin to lead workers.

        Args:
            groups: to start them with.
            given: to Ray Train's own.
        """
        super().__init__(**given)
        self.worker_group_cls = groups


class LeanTrainer(DataParallelTrainer):
    """Ray Train without the processes that tandem does not need.

    These lead the workers, hand out shards of Ray Data, share a cluster out between Ray Data and Ray Train,
    watch whether the controller lives, wait for the workers, and let one worker wait for itself.
    """

    def launch(self, *, hang_seconds: float) -> Launched:
        """Start the workers and do not wait for them, where `fit` would.

        Args:
            hang_seconds: for which a worker may not answer before it counts as lost.
        """
        _log_to_files(self.train_run_context)
        groups = _Groups(hang_seconds)
        train = ObjectRefWrapper(self._get_train_func())

        def lead() -> Exception | None:
            scaling = self.scaling_config
            controller = LeanTrainController(
                groups,
                train_fn_ref=train,
                train_run_context=self.train_run_context,
                scaling_policy=create_scaling_policy(scaling)
                if scaling.elasticity_enabled
                else _FixedSize(scaling),
                failure_policy=create_failure_policy(self.run_config.failure_config),
                callbacks=self._create_default_callbacks(),
            )
            asyncio.run(controller.run())
            return controller.get_training_failed_error()

        return Launched(lead, groups)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in _UNUSED]


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
