"""The least that Ray Train can do with a framework: start one worker that takes one training step.

Usage: python ray_train_hello.py FRAMEWORK THREADS
Prints one JSON line: seconds from the start of this process to the first step.
"""

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

framework, threads = sys.argv[1], int(sys.argv[2])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"


def train_torch(config):
    """One step of a linear model."""
    import torch

    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Path(config["mark"]).write_text(str(time.time()))
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()


def train_keras(config):
    """One step of a linear model."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)
    Path(config["mark"]).write_text(str(time.time()))

    @tf.function
    def step(x):
        def replica(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        strategy.run(replica, args=(x,))

    step(tf.ones((4, 8)))


import ray

ray.init(
    address="local",
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
)
from ray.train import RunConfig, ScalingConfig

if framework == "torch":
    from ray.train.torch import TorchTrainer as Trainer

    loop = train_torch
else:
    from ray.train.tensorflow import TensorflowTrainer as Trainer

    loop = train_keras
scratch = Path(tempfile.mkdtemp())
Trainer(
    loop,
    train_loop_config={"mark": str(scratch / "first-step")},
    scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": threads}),
    run_config=RunConfig(storage_path=str(scratch)),
).fit()
first_step = float((scratch / "first-step").read_text())
print(json.dumps({"seconds": first_step - psutil.Process().create_time()}))
