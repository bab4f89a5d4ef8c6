"""A bare Ray Train script: one worker takes one training step of a dense layer, with Ray Train's own trainer.

Usage: python -m benchmarks.peers.ray_train_hello FRAMEWORK CPUS
Prints one JSON line: when the first step began, in seconds since 1970.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray.train import RunConfig, ScalingConfig


def train_torch(config):
    """One step in PyTorch."""
    import torch
    from ray.train.torch import prepare_model

    model = prepare_model(torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Path(config["mark"]).write_text(str(time.time()))
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()


def train_keras(config):
    """One step in Keras."""
    import keras
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

    def replica_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    @tf.function
    def train_step(x):
        strategy.run(replica_step, args=(x,))

    Path(config["mark"]).write_text(str(time.time()))
    train_step(tf.ones((4, 8)))


if __name__ == "__main__":
    framework, cpus = sys.argv[1], int(sys.argv[2])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    if framework == "torch":
        from ray.train.torch import TorchTrainer as Trainer
    else:
        from ray.train.tensorflow import TensorflowTrainer as Trainer
    with tempfile.TemporaryDirectory() as scratch:
        mark = Path(scratch) / "first-step"
        Trainer(
            train_torch if framework == "torch" else train_keras,
            train_loop_config={"mark": str(mark)},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(storage_path=scratch),
        ).fit()
        first_step_at = float(mark.read_text())
    ray.shutdown()
    print(json.dumps({"first_step_at": first_step_at}), flush=True)
