"""A bare Keras loop on one of tandem's networks: Adam, one tf.function, no Ray.

With TF_CONFIG set, under MultiWorkerMirroredStrategy.

Usage: python bare_keras.py DATA.npz MODEL BATCH_SIZE EPOCHS THREADS
Prints a JSON line after each epoch: images/s of each over all processes, and when each ended.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from trainers.keras.models import build_model

path, name, batch_size, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
cluster = json.loads(os.environ.get("TF_CONFIG", "{}"))
world_size = len(cluster["cluster"]["worker"]) if cluster else 1
rank = cluster["task"]["index"] if cluster else 0
strategy = tf.distribute.MultiWorkerMirroredStrategy() if cluster else tf.distribute.get_strategy()
data = np.load(path)
images = data["x_train"].astype(np.float32) / 127.5 - 1
labels = data["y_train"]

with strategy.scope():
    model = build_model(name, images.shape[1:], 10)
    optimizer = keras.optimizers.Adam(0.001)
    optimizer.build(model.trainable_variables)


def replica_step(x, y):
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
        loss = tf.reduce_sum(losses) / batch_size
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


@tf.function(reduce_retracing=True)
def step(x, y):
    strategy.run(replica_step, args=(x, y))


share = batch_size // world_size
speeds, ends = [], []
for epoch in range(epochs):
    order = np.random.default_rng(epoch).permutation(len(labels))
    start = time.perf_counter()
    for first in range(0, len(order) - batch_size + 1, batch_size):
        mine = order[first + rank * share : first + (rank + 1) * share]
        step(tf.constant(images[mine]), tf.constant(labels[mine]))
    model.trainable_variables[-1].numpy()
    speeds.append(len(order) // batch_size * batch_size / (time.perf_counter() - start))
    ends.append(time.time())
    if rank == 0:
        print(json.dumps({"images_per_second": speeds, "ended_at": ends}), flush=True)
