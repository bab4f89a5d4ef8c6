"""The environment that training processes run in: one set of variables, for tandem's workers and for bare loops.

tandem sets these variables for the workers of every run, and the benchmarks for the plain scripts beside them. A
variable that the user has set keeps its value. Each run's records hold the values that its workers saw.

Everything else has the value that the frameworks give it when their user says nothing. The number of threads is
`scale.cpus_per_worker`, TF32 and bfloat16 are `precision` of an arm.
"""

from __future__ import annotations

import os

ENVIRONMENT = {
    # glibc returns the arrays of a training step to the kernel and takes them again, page by page, or does not:
    # that depends on the layout of the heap, which differs from process to process and between the main thread and
    # Ray Train's. The same loop of PyTorch then takes up to half as long again. With one heap that keeps freed
    # memory every process is the fast one. TensorFlow keeps its memory by itself.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    # TensorFlow's default depends on the processor; PyTorch always uses oneDNN. A run uses the same kernels on every
    # node.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # Warnings and errors of TensorFlow, without a line for each device.
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""To be set before a training process starts."""

THREADS = "OMP_NUM_THREADS"
"""Ray sets it to a worker's number of CPUs."""


def apply() -> None:
    """Set the variables in this process, for the processes that it starts and the libraries that it imports."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def environment(threads: int) -> dict[str, str]:
    """The variables of a bare loop that trains with a number of threads, as tandem's workers have them."""
    return {**ENVIRONMENT, THREADS: str(threads)}


def observed() -> dict[str, str | None]:
    """The variables as this process has them."""
    return {name: os.environ.get(name) for name in (*ENVIRONMENT, THREADS)}
