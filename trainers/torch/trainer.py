"""The Ray trainer that launches PyTorch workers."""

from ray.train.torch import TorchTrainer as Trainer

__all__ = ["Trainer"]
