"""A search for a learning rate with Keras Tuner, one trial at a time on two threads.

Usage: python -m benchmarks.peers.search_keras DATA.npz TRIALS EPOCHS LOWEST HIGHEST
Prints one JSON line: seconds of the search, start-up not counted.
"""

import json
import sys
import tempfile
import time

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from trainers.keras.models import build_model

path, trials, epochs = sys.argv[1], *map(int, sys.argv[2:4])
lowest, highest = map(float, sys.argv[4:6])
tf.config.threading.set_intra_op_parallelism_threads(2)
data = np.load(path)
images, labels = data["x_train"].astype(np.float32) / 127.5 - 1, data["y_train"]
held_out = len(labels) // 10


def build(parameters):
    """The model of one trial."""
    model = build_model("tutorial_cnn", images.shape[1:], 10)
    rate = parameters.Float("rate", lowest, highest, sampling="log")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


with tempfile.TemporaryDirectory() as scratch:
    tuner = keras_tuner.BayesianOptimization(
        build,
        objective="val_accuracy",
        max_trials=trials,
        seed=0,
        directory=scratch,
        project_name="search",
    )
    start = time.perf_counter()
    tuner.search(
        images[held_out:],
        labels[held_out:],
        validation_data=(images[:held_out], labels[:held_out]),
        epochs=epochs,
        batch_size=128,
        verbose=0,
    )
    seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds}), flush=True)
