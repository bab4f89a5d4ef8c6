"""The loop of Keras' guide to custom training on one of tandem's networks: Adam, one tf.function, no Ray.

With TF_CONFIG set, under MultiWorkerMirroredStrategy, where Keras' own `fit` does not run.

Usage: python -m benchmarks.peers.bare_keras DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints one JSON line: when each epoch ended, in seconds since 1970.
"""

import json
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from trainers.keras.models import build_model

path, name, batch_size, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
keras.utils.set_random_seed(0)
tf.config.experimental.enable_op_determinism()  # as in tandem's workers
cluster = json.loads(os.environ.get("TF_CONFIG", "{}"))
world_size = len(cluster["cluster"]["worker"]) if cluster else 1
rank = cluster["task"]["index"] if cluster else 0
strategy = tf.distribute.MultiWorkerMirroredStrategy() if cluster else tf.distribute.get_strategy()
data = np.load(path)
pixels, labels = data["x_train"], data["y_train"]

with strategy.scope():
    model = build_model(name, pixels.shape[1:], 10)
    optimizer = keras.optimizers.Adam(0.001)
    optimizer.build(model.trainable_variables)
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")


def replica_step(images, targets):
    """One step on this process's share of a batch; the optimizer adds the processes' gradients up."""
    with tf.GradientTape() as tape:
        logits = model(tf.cast(images, tf.float32) / 127.5 - 1, training=True)
        loss = cross_entropy(targets, logits) / batch_size
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


@tf.function(reduce_retracing=True)
def train_step(images, targets):
    """One step of all processes."""
    return strategy.run(replica_step, args=(images, targets))


share = batch_size // world_size
epoch_ends = []
for epoch in range(epochs):
    order = np.random.default_rng(epoch).permutation(len(labels))
    running_loss = 0.0
    for first in range(0, len(order), batch_size):
        mine = order[first + rank * share : first + (rank + 1) * share]
        running_loss += float(train_step(pixels[mine], labels[mine]))
    epoch_ends.append(time.time())
if rank == 0:
    print(json.dumps({"epoch_ends": epoch_ends}), flush=True)
