"""Recipes' losses in PyTorch, averaged over the examples of a worker's share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.contract import check_losses, own_function
from trainers.recipes import OwnLoss, Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [n, classes] and labels [n] to the mean of the examples' losses."""


def build_loss(recipe: Recipe, num_classes: int, class_weights: Tensor | None, device: torch.device) -> Loss:
    """Translate a recipe's loss, or call the user's function.

    Raises:
        InputError: the user's function cannot be found, or does not return one loss for each example.
    """
    if isinstance(recipe.loss, OwnLoss):
        own = own_function("loss", recipe.loss.name)
        logits = torch.zeros((2, num_classes), device=device)
        check_losses(recipe.loss.name, own(logits, torch.zeros(2, dtype=torch.int64, device=device)))
        return lambda logits, labels: own(logits, labels).mean()
    smoothing = recipe.loss.label_smoothing
    if class_weights is None:
        return lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * class_weights[labels]).mean()

    return loss
