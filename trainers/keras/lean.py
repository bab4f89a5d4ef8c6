"""Imports Keras, on TensorFlow and without the packages that it would import for nobody here.

To be imported before anything that imports Keras. Matplotlib and scikit-learn serve Keras' galleries and its
wrappers for scikit-learn, and take a third of the time that Keras with TensorFlow takes.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN's kernels off on processors without AVX-512; they win there too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_UNUSED = {"matplotlib", "sklearn"} - sys.modules.keys()

sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type] # None: as if it were not installed
# What is imported stays: it is not searched for garbage while it comes, nor before every run and trial.
gc.disable()
importlib.import_module("keras")
gc.enable()
gc.freeze()
for _name in _UNUSED:
    del sys.modules[_name]
