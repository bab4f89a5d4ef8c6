"""Keras 3 on TensorFlow with several workers: a loop of its own under MultiWorkerMirroredStrategy.

`Model.fit` of Keras 3 does not run under this strategy; a custom loop does.
"""

from __future__ import annotations

from typing import Any

import keras
import ray.train
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train calls this on every worker, after TF_CONFIG was set."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    batches = (
        tf.data.Dataset.from_tensor_slices((x, y))
        .shuffle(len(x), seed=config["seed"])
        .batch(config["batch_size"], drop_remainder=True)
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = strategy.experimental_distribute_dataset(batches.with_options(options))

    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
        )
        optimizer = keras.optimizers.Adam(config["lr"])
        optimizer.build(model.trainable_variables)
        losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)

    @tf.function
    def step(batch: Any) -> Any:
        def on_replica(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(losses(labels, model(images, training=True))) / config["batch_size"]
            gradients = tape.gradient(loss, model.trainable_variables)
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(on_replica, batch), axis=None)

    for _ in range(config["epochs"]):
        for batch in batches:
            loss = step(batch)
        right = keras.ops.argmax(model(x_test), axis=1) == y_test
        accuracy = float(keras.ops.mean(keras.ops.cast(right, "float32")))
        ray.train.report({"test_accuracy": accuracy, "train_loss": float(loss)})
