"""What both frameworks' trainers share: workers launched by Ray Train as tandem needs them."""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.experimental import internal_kv
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, create_scaling_policy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.util import ObjectRefWrapper
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group

_UNUSED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
_NAMESPACE = b"tandem-reservations"


@dataclasses.dataclass(frozen=True)
class Launched:
    """A group of workers that is starting or at work."""

    controller: Any
    """Ray Train's actor that leads them; they end with it."""
    ended: ray.ObjectRef[None]
    """Ready when they are done or have failed."""
    reservation: _Reservation

    def error(self) -> Exception | None:
        """Wait until they have ended; why they failed, if they did.

        Raises:
            ray.exceptions.RayActorError: the process that leads them died.
        """
        try:
            ray.get(self.ended)
            error: Exception | None = ray.get(self.controller.get_result.remote()).error
        except ray.exceptions.RayActorError:
            self.reservation.give_back()
            raise
        self.kill()  # left to itself the controller may hang for good as it exits
        return error

    def kill(self) -> None:
        """End the workers at once, and the controller, which outlives them."""
        ray.kill(self.controller)
        self.reservation.give_back()


class _Reservation(WorkerGroupCallback):
    """The resources that Ray has set aside for a group of workers, known to the driver too.

    Ray would keep them until the driver ends when the controller, who asked for them, dies.
    """

    def __init__(self) -> None:
        self._name = uuid.uuid4().bytes

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called by Ray Train, in the controller, when the workers are there."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        internal_kv._internal_kv_put(
            self._name, handle.placement_group.id.binary(), overwrite=True, namespace=_NAMESPACE
        )

    def give_back(self) -> None:
        """Let others have the resources; whatever still runs on them ends."""
        group = internal_kv._internal_kv_get(self._name, namespace=_NAMESPACE)
        if group is not None:
            remove_placement_group(PlacementGroup(PlacementGroupID(group)))


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
    def options(cls, **_: Any) -> type[_Alone]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> _Alone:
        return cls()

    broadcast_from_rank_zero = _Told()


class LeanTrainController(TrainController):
    """Ray Train's controller, for workers that are as it needs them."""

    def __init__(self, *, variables: dict[str, str], inherits: bool, **given: Any) -> None:
        """Begin to lead workers.

        Args:
            variables: of this process's environment, besides those that it was started with.
            inherits: whether workers have the driver's environment from their node, so that they need none of their
                own, and Ray can have processes in stock for them.
            given: to Ray Train's own.
        """
        os.environ |= variables
        if inherits:
            worker_group.get_env_vars_to_propagate = dict
        scaling = given["scaling_policy"].scaling_config
        if not scaling.elasticity_enabled and scaling.num_workers == 1:
            worker_group.SynchronizationActor = _Alone
            state._shutdown_sync_actor = lambda actor: None
        super().__init__(**given)


class LeanTrainer(DataParallelTrainer):
    """Ray Train without the processes that tandem does not need.

    These hand out shards of Ray Data, share a cluster out between Ray Data and Ray Train, watch whether
    the controller lives, wait for the workers, and let one worker wait for itself.
    """

    def launch(self, **variables: str) -> Launched:
        """Start the workers and do not wait for them, where `fit` would.

        Args:
            variables: of the environment that the controller and the workers get.
        """
        reservation = _Reservation()
        scaling = self.scaling_config
        node = ray._private.worker._global_node
        inherits = node is not None and node.is_head()  # this process has started Ray, on this machine alone
        controller = (
            ray.remote(LeanTrainController)
            .options(
                num_cpus=0,
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
                runtime_env=None if inherits else {"env_vars": get_env_vars_to_propagate()},
            )
            .remote(
                variables=variables,
                inherits=inherits,
                train_fn_ref=ObjectRefWrapper(self._get_train_func()),
                train_run_context=self.train_run_context,
                scaling_policy=create_scaling_policy(scaling)
                if scaling.elasticity_enabled
                else _FixedSize(scaling),
                failure_policy=create_failure_policy(self.run_config.failure_config),
                callbacks=[reservation, *self._create_default_callbacks()],
            )
        )
        return Launched(controller, controller.run.remote(), reservation)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in _UNUSED]


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
