"""Search a learning rate with Keras Tuner, one trial at a time on two threads.

Usage: python search_keras.py DATA.npz TRIALS EPOCHS LOWEST HIGHEST
Prints one JSON line: seconds of the search, start-up apart, and the best validation accuracy.
"""

import json
import os
import sys
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from trainers.keras.models import build_model

path, trials, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lowest, highest = float(sys.argv[4]), float(sys.argv[5])
tf.config.threading.set_intra_op_parallelism_threads(2)
data = np.load(path)
images = data["x_train"].astype(np.float32) / 127.5 - 1
labels = data["y_train"]
held_out = len(labels) // 10


def build(parameters: keras_tuner.HyperParameters) -> keras.Model:
    model = build_model("tutorial_cnn", images.shape[1:], 10)
    rate = parameters.Float("rate", lowest, highest, sampling="log")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


tuner = keras_tuner.BayesianOptimization(
    build,
    objective="val_accuracy",
    max_trials=trials,
    seed=0,
    directory=tempfile.mkdtemp(),
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
best = tuner.oracle.get_best_trials()[0].score
print(json.dumps({"seconds": seconds, "best": float(best)}), flush=True)
