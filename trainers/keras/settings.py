"""What TensorFlow computes with in this process, as it says itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def observed() -> dict[str, Any]:
    """Threads and precision of matrix products."""
    threading = tf.config.threading
    return {
        "threads": threading.get_intra_op_parallelism_threads(),
        "threads between operations": threading.get_inter_op_parallelism_threads(),
        "TF32": tf.config.experimental.tensor_float_32_execution_enabled(),
    }
