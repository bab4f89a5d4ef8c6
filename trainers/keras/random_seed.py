"""Seeds Keras and its backend for a training function."""

from __future__ import annotations

import os


def seed(value: int) -> None:
    """Seed the random numbers of the Keras that Ray's trainer selects.

    Keras 3 seeds its backend too. Keras 2 draws from TensorFlow's global generator.
    """
    if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
        import tensorflow

        tensorflow.random.set_seed(value)
    else:
        import keras

        keras.utils.set_random_seed(value)
