"""The Ray trainer that launches TensorFlow workers."""

from ray.train.tensorflow import TensorflowTrainer as Trainer

__all__ = ["Trainer"]
