"""What a driver makes of the errors that workers end with."""

from __future__ import annotations

import pytest
from ray.exceptions import OutOfMemoryError

from orchestrator.execution.workers.worker_group import diagnose


class WorkerHealthCheckFailedError(Exception):
    """As Ray Train's: a worker did not answer, for the reason in it."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(str(failure))
        self.health_check_failure = failure


class TrainingFailedError(Exception):
    """As Ray Train's: the error of each worker."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("training failed")
        self.worker_failures = failures


KILLED = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.7, ID: 1f) where the task "
    "(actor ID: 2a, name=train) was running was 7.61GB / 8.00GB (0.951), which exceeds the memory usage threshold of "
    "0.95. Ray killed this worker (ID: 3c) because it was the most recently scheduled task."
)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_worker_that_ray_killed_for_memory_is_out_of_memory(wrapped: bool) -> None:
    killed: Exception = OutOfMemoryError(KILLED)
    failure = diagnose(TrainingFailedError({1: WorkerHealthCheckFailedError(killed) if wrapped else killed}))
    assert failure.kind == "error", "the same again would end alike"
    assert failure.cause.startswith("out of memory: Ray ended the worker of rank 1")
    assert "7.61GB of 8.00GB" in failure.cause and "batch_size" in failure.cause
    silent = diagnose(TrainingFailedError({0: WorkerHealthCheckFailedError(TimeoutError("no answer"))}))
    assert silent.kind == "lost" and "hung" in silent.cause
