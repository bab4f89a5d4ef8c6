"""The environment that training processes run in: one set of variables, for tandem's workers and for bare loops.

`tandem run` and submitted jobs set these variables for every worker, and the benchmarks for the plain scripts that
tandem is compared with. A variable that is already set keeps its value. The records hold the values that each
worker saw, and the report shows them.

All other settings are those that the frameworks have when their user says nothing. The number of threads is
`scale.cpus_per_worker`; TF32 and bfloat16 are `precision` of an arm.
"""

from __future__ import annotations

ENVIRONMENT = {
    # Ray Train calls the training function in a thread. glibc gives such a thread a heap of its own, which returns
    # large arrays to the kernel at every step. With one heap for all threads the function has the heap that a
    # script has.
    "MALLOC_ARENA_MAX": "1",
    # TensorFlow's default depends on the processor, PyTorch always uses oneDNN. A run then uses the same kernels on
    # every node.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # Warnings and errors of TensorFlow, without its notes on each device.
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""Variables to set before a training process starts."""


def environment(threads: int) -> dict[str, str]:
    """Variables of a process that trains with a number of threads.

    Ray sets `OMP_NUM_THREADS` of a worker to its number of CPUs; a bare loop gets it from here.
    """
    return {**ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
