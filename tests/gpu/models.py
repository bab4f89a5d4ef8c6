"""A network of the user's own: ResNet-50 of torchvision."""

from __future__ import annotations

from typing import Any


def resnet50(image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """For 224-pixel pictures."""
    from torchvision.models import resnet50

    return resnet50(num_classes=num_classes)
