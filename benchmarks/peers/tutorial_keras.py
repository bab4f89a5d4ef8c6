"""The Keras tutorial as published: one process, `model.fit`, Adam, batch 32, inputs in 0..1.

Usage: python tutorial_keras.py DATA.npz EPOCHS THREADS
Prints one JSON line: images/s of each epoch, test accuracy, seconds of training.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

path, epochs, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
data = np.load(path)
train, test = data["x_train"] / np.float32(255), data["x_test"] / np.float32(255)

model = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]
)
model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch's training."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


clock = Clock()
model.fit(train, data["y_train"], batch_size=32, epochs=epochs, verbose=0, callbacks=[clock])
_, accuracy = model.evaluate(test, data["y_test"], batch_size=512, verbose=0)
print(
    json.dumps(
        {
            "images_per_second": [len(train) / seconds for seconds in clock.seconds],
            "test_accuracy": float(accuracy),
            "train_seconds": sum(clock.seconds),
        }
    )
)
