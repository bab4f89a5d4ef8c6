"""Accuracies that a confusion matrix tells."""

from __future__ import annotations

import numpy as np


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Float64 [classes], the share of each class's images classified correctly; 0 for a class without any.

    Args:
        confusion: int [classes, classes], true class by predicted class.
    """
    return np.asarray(np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1))


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean accuracy of the classes that have images (Brodersen et al., 2010).

    Args:
        confusion: int [classes, classes], true class by predicted class.
    """
    return float(class_accuracy(confusion)[confusion.sum(axis=1) > 0].mean())
