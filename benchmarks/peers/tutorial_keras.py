"""TensorFlow's tutorial "Convolutional Neural Network (CNN)" as published: `compile` and `fit`, Adam, batch 32.

https://www.tensorflow.org/tutorials/images/cnn; the images come from Parquet files, and a seed is set.

Usage: python -m benchmarks.peers.tutorial_keras DIRECTORY EPOCHS THREADS SEED
Prints one JSON line: test accuracy, seconds of training.
"""

import json
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

from benchmarks.peers import cifar10

directory, epochs, threads, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
keras.utils.set_random_seed(seed)
(train_images, train_labels), (test_images, test_labels) = (
    cifar10.read(directory, split) for split in ("train", "test")
)
train_images, test_images = train_images / 255.0, test_images / 255.0

model = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        layers.Conv2D(32, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
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
start = time.perf_counter()
model.fit(train_images, train_labels, epochs=epochs, verbose=0)
seconds = time.perf_counter() - start
_, accuracy = model.evaluate(test_images, test_labels, verbose=0)
print(json.dumps({"test_accuracy": float(accuracy), "train_seconds": seconds}), flush=True)
