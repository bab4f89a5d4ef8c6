"""Do two frameworks the same work? From the traces of `trainers.parity`. Pure.

Every loss, gradient and update of one framework is compared with the other's. Where each framework
ran by itself, they agree if they differ by at most `TOLERANCE`, or by no more than ten times what a
rounding error in the initial weights does to one framework alone, measured in the same trace:
training amplifies rounding. In lockstep every step starts from the same weights, so nothing is
amplified: losses must stay within `TOLERANCE`. Gradients and updates of three steps in four must stay
within a thousandth: in a large network rounding switches a ReLU or the winner of a pooling in many
steps, which moves a step's gradient by some ten-thousandths, now and then by up to some hundredths.

An update is known no better than float32 holds the weights before and after it: that much is never a difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.planning.run_plan import short_hash
from trainers.contract import FRAMEWORKS
from trainers.parity import parity_recipe
from trainers.recipes import BUILT_IN_MODELS, Recipe

TOLERANCE = 1e-4
_BATCH_SIZE = 16
_STATISTICS = (".mean", ".variance")
_CONTROL_FACTOR = 10
_USUAL_TOLERANCE, _RARE_TOLERANCE = 1e-3, 1e-1
_SMALL_LOSS = 0.01
_RESOLUTION = 2.0**-22
"""Of a weight in two updates by float32: half a unit in the last place at each of up to three roundings, times two."""

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
    control_difference: float | None
    """The largest that rounding alone made, within one framework; None in lockstep."""
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
        how = (
            "in lockstep"
            if self.control_difference is None
            else f"rounding alone: {self.control_difference:.1e}"
        )
        losses = (
            f"losses of {first} and {second} differ by at most {self.loss_difference:.1e} "
            f"(step {self.loss_step} of {self.steps}; {how})"
        )
        if self.agrees:
            return f"same work: {losses}"
        causes = f"; usual suspects: {', '.join(self.suspects)}" if self.suspects else ""
        return f"not the same work: {self.parts_at}{causes}; {losses}"


def traced_recipe(arm: Arm) -> Recipe | None:
    """What is traced of an arm in either framework; None for a user's own model, which has no twin."""
    if arm.model not in BUILT_IN_MODELS:
        return None
    return parity_recipe(arm.recipe(), batch_size=_BATCH_SIZE)


def traced_recipes(experiment: Experiment) -> list[Recipe]:
    """The distinct recipes to trace in both frameworks; none where all arms are of one."""
    if len({arm.framework for arm in experiment.arms.values()}) < len(FRAMEWORKS):
        return []
    recipes = (traced_recipe(arm) for arm in experiment.arms.values())
    return list({json.dumps(r.model_dump(mode="json")): r for r in recipes if r is not None}.values())


def recipe_key(recipe: Recipe, data_fingerprint: str) -> str:
    """Names the traces of a recipe: the same work has the same key."""
    return short_hash([data_fingerprint, recipe.model_dump(mode="json")])


def compare(first: Trace, second: Trace, frameworks: tuple[str, str]) -> Parity:
    """Compare two traces of the same recipe, step by step and layer by layer.

    Args:
        first: arrays of `trainers.parity.trace`.
        second: likewise, of the other framework.
        frameworks: their names.
    """
    losses = _relative(first["losses"], second["losses"])
    control = None
    if "control_losses" in first:
        control = np.maximum(*(_relative(side["losses"], side["control_losses"]) for side in (first, second)))
    parts_at, suspects = _first_parting(first, second, losses, control)
    worst = int(np.argmax(losses))
    return Parity(
        frameworks=frameworks,
        steps=len(losses),
        loss_difference=float(losses[worst]),
        loss_step=worst + 1,
        control_difference=None if control is None else float(control.max()),
        parts_at=parts_at,
        suspects=suspects,
    )


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference over the larger, or over a hundredth, element by element; NaN in one alone counts as 1.

    A smaller loss than that is known no better, since float32 rounds the logits that it comes from.
    """
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), _SMALL_LOSS)
    difference = np.abs(a - b) / scale
    return np.asarray(np.where(np.isnan(a) & np.isnan(b), 0.0, np.nan_to_num(difference, nan=1.0)), float)


def _distances(a: np.ndarray, b: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Relative differences [steps, layers] of sketches [steps, layers, 64], layer by layer.

    Args:
        a: sketches.
        b: the other side's.
        blur: norm of the difference that each layer's may have without counting, [layers].
    """
    norm = np.maximum(np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2))
    beyond = np.maximum(np.linalg.norm(a - b, axis=2) - blur, 0)
    return np.asarray(np.nan_to_num(beyond / np.maximum(norm, 1e-12), nan=1.0))


def _distance(a: np.ndarray, b: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Relative difference [steps] over all layers together, which no single small one decides."""
    flat = [side.reshape(len(side), 1, -1) for side in (a, b)]
    return _distances(flat[0], flat[1], np.array([np.linalg.norm(blur)]))[:, 0]


def _parts(distance: np.ndarray, control: np.ndarray | None) -> np.ndarray:
    """Bool [steps]: whether rounding explains a step's difference no longer."""
    if control is None:
        is_rare = np.percentile(distance, 75) <= _USUAL_TOLERANCE
        return np.asarray(distance > (_RARE_TOLERANCE if is_rare else TOLERANCE))
    explained = _CONTROL_FACTOR * np.maximum.accumulate(control, axis=0)
    return np.asarray(distance > np.maximum(TOLERANCE, explained))


def _first_parting(
    first: Trace, second: Trace, losses: np.ndarray, control_losses: np.ndarray | None
) -> tuple[str | None, list[str]]:
    names, gradient_names = (json.loads(str(first[key])) for key in ("names", "gradient_names"))
    if names != json.loads(str(second["names"])):
        return "the models have different layers", []
    if len(first["losses"]) != len(second["losses"]):
        return "the traces have different numbers of steps", []
    exact = np.zeros(len(names))
    starts = _distances(first["initial"][None], second["initial"][None], exact)[0]
    if starts.max() > TOLERANCE:
        layer = names[int(starts.argmax())]
        causes = ["bias initialisation"] if layer.endswith(".bias") else ["initial weights"]
        return f"initial {layer} differs by {starts.max():.1e}", causes

    trained = [place for place, name in enumerate(names) if not name.endswith(_STATISTICS)]
    statistics = [place for place, name in enumerate(names) if name.endswith(_STATISTICS)]
    everything = list(range(len(gradient_names)))
    rounded = _RESOLUTION * np.linalg.norm(first["initial"], axis=1)
    checks = []
    for quantity, members in (("gradients", everything), ("updates", trained), ("updates", statistics)):
        if members:
            blur = (exact if quantity == "gradients" else rounded)[members]
            sides = [side[quantity][:, members] for side in (first, second)]
            control = None
            if control_losses is not None:
                nudged = [side[f"control_{quantity}"][:, members] for side in (first, second)]
                control = np.maximum(*(_distance(a, b, blur) for a, b in zip(sides, nudged, strict=True)))
            parts = _parts(_distance(sides[0], sides[1], blur), control)
            checks.append((quantity, members, parts, _distances(sides[0], sides[1], blur)))
    loss_parts = losses > TOLERANCE if control_losses is None else _parts(losses, control_losses)
    for step in range(len(losses)):
        if loss_parts[step]:
            where = f"the loss parts at step {step + 1} by {losses[step]:.1e}"
            return where, _loss_suspects(step, first, second)
        for quantity, members, parts, by_layer in checks:
            if parts[step]:
                worst = int(by_layer[step].argmax())
                what = "gradient" if quantity == "gradients" else "update"
                layer = (gradient_names if quantity == "gradients" else names)[members[worst]]
                where = f"the {what} of {layer} parts at step {step + 1} by {by_layer[step, worst]:.1e}"
                if quantity == "gradients":
                    return where, _gradient_suspects(step, first, second)
                if members is statistics:
                    return where, ["batch-norm momentum", "biased or unbiased batch-norm variance"]
                return where, _update_suspects(step, trained, first, second)
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


def _update_suspects(step: int, trained: list[int], first: Trace, second: Trace) -> list[str]:
    """Tell the causes of unlike updates from equal gradients by what the difference resembles."""
    difference = first["updates"][step, trained] - second["updates"][step, trained]

    def alignment(direction: np.ndarray) -> float:
        size = np.linalg.norm(difference) * np.linalg.norm(direction)
        return float(abs((difference * direction).sum()) / size) if size else 0.0

    if alignment(first["initial"][trained]) > 0.9:
        return ["weight decay coupling"]
    if step == 0:
        return ["epsilon placement in Adam", "weight decay coupling"]
    return ["momentum or its damping", "epsilon placement in Adam", "weight decay coupling"]
