"""Do two frameworks the same work? From the traces of `trainers.parity`. Pure.

Every loss, gradient and update of one framework is compared with the other's. They agree where they
differ by at most `TOLERANCE`, or by no more than ten times what a rounding error in the initial
weights does to one framework alone, measured in the same trace.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

TOLERANCE = 1e-4
_CONTROL_FACTOR = 10

Trace = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two traces of one recipe part."""

    frameworks: tuple[str, str]
    steps: int
    loss_difference: float
    """The largest relative difference of a step's loss."""
    loss_step: int
    """The step of it, from 1."""
    control_difference: float
    """The largest that rounding alone made, within one framework."""
    parts_at: str | None
    """Where they first part by more than rounding: quantity, layer, step and relative difference."""
    suspects: list[str]
    """Usual causes that fit, the likeliest first."""

    @property
    def agrees(self) -> bool:
        """Whether rounding explains every difference."""
        return self.parts_at is None

    def sentence(self) -> str:
        """One line for a person."""
        first, second = self.frameworks
        losses = (
            f"losses of {first} and {second} differ by at most {self.loss_difference:.1e} "
            f"(step {self.loss_step} of {self.steps}; rounding alone: {self.control_difference:.1e})"
        )
        if self.agrees:
            return f"same work: {losses}"
        causes = f"; usual suspects: {', '.join(self.suspects)}" if self.suspects else ""
        return f"not the same work: {self.parts_at}{causes}; {losses}"


def compare(first: Trace, second: Trace, frameworks: tuple[str, str]) -> Parity:
    """Compare two traces of the same recipe, step by step and layer by layer.

    Args:
        first: arrays of `trainers.parity.trace`.
        second: likewise, of the other framework.
        frameworks: their names.
    """
    losses = _relative(first["losses"], second["losses"])
    control = np.maximum(*(_relative(side["losses"], side["control_losses"]) for side in (first, second)))
    parts_at, suspects = _first_parting(first, second, losses, control)
    worst = int(np.argmax(losses))
    return Parity(
        frameworks=frameworks,
        steps=len(losses),
        loss_difference=float(losses[worst]),
        loss_step=worst + 1,
        control_difference=float(control.max()),
        parts_at=parts_at,
        suspects=suspects,
    )


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference over the larger, element by element; NaN in one alone counts as 1."""
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-12)
    difference = np.abs(a - b) / scale
    return np.asarray(np.where(np.isnan(a) & np.isnan(b), 0.0, np.nan_to_num(difference, nan=1.0)), float)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Relative differences [steps, layers] of sketches [steps, layers, 64].

    A layer is measured against its own norm, but never less than a millionth of the largest.
    """
    norm = np.maximum(np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2))
    floor = 1e-6 * norm.max(axis=1, keepdims=True) + 1e-12
    return np.asarray(np.nan_to_num(np.linalg.norm(a - b, axis=2) / np.maximum(norm, floor), nan=1.0))


def _allowed(control: np.ndarray) -> np.ndarray:
    """What rounding explains: differences may grow from step to step, never shrink."""
    return np.maximum(TOLERANCE, _CONTROL_FACTOR * np.maximum.accumulate(control, axis=0))


def _first_parting(
    first: Trace, second: Trace, losses: np.ndarray, control_losses: np.ndarray
) -> tuple[str | None, list[str]]:
    names, gradient_names = (json.loads(str(first[key])) for key in ("names", "gradient_names"))
    if names != json.loads(str(second["names"])):
        return "the models have different layers", []
    if len(first["losses"]) != len(second["losses"]):
        return "the traces have different numbers of steps", []
    starts = _distances(first["weights"][:1], second["weights"][:1])[0]
    if starts.max() > TOLERANCE:
        layer = names[int(starts.argmax())]
        causes = ["bias initialisation"] if layer.endswith(".bias") else ["initial weights"]
        return f"initial {layer} differs by {starts.max():.1e}", causes

    def controlled(quantity: str) -> tuple[np.ndarray, np.ndarray]:
        def values(side: Trace, prefix: str = "") -> np.ndarray:
            array = side[prefix + quantity]
            return np.diff(array, axis=0) if quantity == "weights" else array

        control = np.maximum(*(_distances(values(s), values(s, "control_")) for s in (first, second)))
        return _distances(values(first), values(second)), control

    gradients, gradient_control = controlled("gradients")
    updates, update_control = controlled("weights")
    loss_parts = losses > _allowed(control_losses)
    gradient_parts = gradients > _allowed(gradient_control)
    update_parts = updates > _allowed(update_control)
    for step in range(len(losses)):
        if loss_parts[step]:
            where = f"the loss parts at step {step + 1} by {losses[step]:.1e}"
            return where, _loss_suspects(step, first, second)
        if gradient_parts[step].any():
            layer = int(np.argmax(gradients[step] * gradient_parts[step]))
            where = (
                f"the gradient of {gradient_names[layer]} parts at step {step + 1} "
                f"by {gradients[step, layer]:.1e}"
            )
            return where, _gradient_suspects(step, first, second)
        if update_parts[step].any():
            layer = int(np.argmax(updates[step] * update_parts[step]))
            where = f"the update of {names[layer]} parts at step {step + 1} by {updates[step, layer]:.1e}"
            return where, _update_suspects(step, names, update_parts[step], first, second)
    return None, []


def _loss_suspects(step: int, first: Trace, second: Trace) -> list[str]:
    if step == len(first["losses"]) - 1 and step > 0:
        return ["epoch-end partial batches"]
    ratio = first["losses"][step] / second["losses"][step]
    if step == 0 and max(ratio, 1 / ratio) > 1.9:
        return ["loss reduction"]
    return ["padding of strided convolutions", "batch-norm epsilon", "preprocessing"]


def _gradient_suspects(step: int, first: Trace, second: Trace) -> list[str]:
    if step == len(first["losses"]) - 1 and step > 0:
        return ["epoch-end partial batches"]
    norms = [np.linalg.norm(side["gradients"][step], axis=1) for side in (first, second)]
    ratios = norms[0] / np.maximum(norms[1], 1e-12)
    if np.ptp(ratios) < 0.01 * ratios.mean() and abs(ratios.mean() - 1) > 0.01:
        return [f"loss reduction: every gradient is {ratios.mean():.3g} times the other's"]
    return ["batch-norm epsilon", "gradient of a tied maximum"]


def _update_suspects(
    step: int, names: list[str], parts: np.ndarray, first: Trace, second: Trace
) -> list[str]:
    """Tell the causes of unlike updates from equal gradients by what the difference resembles."""
    parted = [name for name, part in zip(names, parts, strict=True) if part]
    if all(name.endswith((".mean", ".variance")) for name in parted):
        return ["batch-norm momentum", "biased or unbiased batch-norm variance"]
    updates = [side["weights"][step + 1] - side["weights"][step] for side in (first, second)]
    difference = updates[0] - updates[1]
    weights, gradients = first["weights"][step], updates[1]

    def alignment(direction: np.ndarray) -> float:
        size = np.linalg.norm(difference) * np.linalg.norm(direction)
        return float(abs((difference * direction).sum()) / size) if size else 0.0

    trained = [not name.endswith((".mean", ".variance")) for name in names]
    difference, weights, gradients = difference[trained], weights[trained], gradients[trained]
    if alignment(weights) > max(0.9, alignment(gradients)):
        return ["weight decay coupling"]
    if step == 0:
        return ["epsilon placement in Adam", "weight decay coupling"]
    return ["momentum or its damping", "epsilon placement in Adam", "weight decay coupling"]
