"""The Keras side: models, optimizers, engine. Twin of `trainers.torch`.

Keras reads its backend from the environment when it is first imported, which only modules of this package do.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN's kernels off on processors without AVX-512, where they are faster too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
