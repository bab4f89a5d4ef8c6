"""The Keras side: models, optimizers, engine. Twin of `trainers.torch`.

Keras reads its backend from the environment when it is first imported, which only modules of this package do.
"""

from __future__ import annotations

import os

from trainers.machine import preset

os.environ["KERAS_BACKEND"] = "tensorflow"
preset.apply()  # for processes that Ray did not start, such as those of parity and of saved models
