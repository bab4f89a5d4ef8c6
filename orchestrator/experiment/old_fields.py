"""Fields of an experiment that were renamed. Files that use an old name are refused; old records are converted."""

from __future__ import annotations

RECIPE_FIELDS = {
    "weight_average": "ema_decay",
    "flip_averaging": "test_time_augmentation.flip",
    "shift_averaging": "test_time_augmentation.shift",
}
"""New dotted names of a recipe's fields by old ones."""

EXPERIMENT_FIELDS = {"robustness": "corruption_robustness"}
"""Likewise of an experiment's own fields."""


def new_name(path: tuple[str, ...]) -> str | None:
    """The dotted name that a field has now, by its old path in an experiment file; None where the path is not old."""
    *blocks, field = path
    if not blocks:
        return EXPERIMENT_FIELDS.get(field)
    if blocks[0] == "arms" and "config" in blocks[2:]:
        return None  # a key of a training function's config
    is_old = field in RECIPE_FIELDS and blocks[0] in ("defaults", "arms", "sweep")
    return ".".join((*blocks, RECIPE_FIELDS[field])) if is_old else None
