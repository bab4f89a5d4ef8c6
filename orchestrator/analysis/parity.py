"""Do two frameworks the same work? From the traces of `trainers.parity.trace`. Pure.

Every step of the traces starts from the same weights and optimizer state. Three things are compared:

- losses, which may differ by `TOLERANCE`, relative;
- gradients, of which three steps in four may differ by a thousandth and the others by a tenth: in a large network
  rounding switches a ReLU or the winner of a pooling, which moves a step's gradient by some ten-thousandths, now and
  then by some hundredths. In very deep networks it switches many in every step. So some steps are taken once more
  from weights moved by a rounding error, and three steps in four may differ by three times what that does;
- updates, given the gradient. Each framework's update and optimizer state must follow the framework's own rule to
  `TOLERANCE`. Where the two rules differ, `trainers.parity.update_rules` names the difference. Updates of moving
  statistics must agree to `TOLERANCE` after the named difference.

Differences below the float32 resolution of the weights are ignored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from trainers.parity.trace import TOLERANCE, beyond
from trainers.parity.update_rules import KNOWN_DIFFERENCES, VARIANCE

_USUAL_TOLERANCE, _RARE_TOLERANCE = 1e-3, 1e-1
_CONTROL_FACTOR = 3
_SMALL_LOSS = 0.01

Trace = Mapping[str, np.ndarray]
Verdict = Literal["same work", "same work up to named differences", "not the same work"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedDifference:
    """A difference between the frameworks' classes that shows in a recipe."""

    name: str
    """In `trainers.parity.update_rules.KNOWN_DIFFERENCES`."""
    sentence: str
    formula: str
    source: str
    share: float
    """Its largest size, relative to the update of one weight or statistic."""
    weight: str
    """Whose update that is."""
    step: int
    """From 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """What two traces of one recipe say."""

    frameworks: tuple[str, str]
    steps: int
    workers: int
    loss_difference: float
    """The largest relative difference of a step's loss."""
    loss_step: int
    """The step of it, from 1."""
    update_difference: float
    """The largest relative difference of an update that no named difference explains."""
    named: list[NamedDifference]
    """What explains the others."""
    differs_at: str | None
    """Where the work first differs by more: quantity, layer, step and relative difference."""
    likely_causes: list[str]
    """Usual causes that fit, the likeliest first."""

    @property
    def verdict(self) -> Verdict:
        """One of three."""
        if self.differs_at is not None:
            return "not the same work"
        return "same work up to named differences" if self.named else "same work"

    @property
    def agrees(self) -> bool:
        """Whether the work is the same, with or without named differences."""
        return self.differs_at is None

    def json(self) -> dict[str, Any]:
        """For scripts: the fields and the verdict."""
        return {"verdict": self.verdict} | dataclasses.asdict(self)

    def sentence(self) -> str:
        """One line for a person."""
        first, second = self.frameworks
        workers = f" on {self.workers} workers" if self.workers > 1 else ""
        losses = (
            f"losses of {first} and {second}{workers} differ by at most {self.loss_difference:.1e} "
            f"(step {self.loss_step} of {self.steps})"
        )
        if self.differs_at is not None:
            causes = f"; likely causes: {', '.join(self.likely_causes)}" if self.likely_causes else ""
            return f"{self.verdict}: {self.differs_at}{causes}; {losses}"
        left = f"updates by at most {self.update_difference:.1e}"
        if not self.named:
            return f"{self.verdict}: {losses}, {left}"
        named = "; ".join(
            f"{difference.sentence} (up to {_percent(difference.share)} of an update)"
            for difference in self.named
        )
        return f"{self.verdict}: {named}; after these, {losses}, {left}"


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %"


def compare(first: Trace, second: Trace, frameworks: tuple[str, str]) -> Parity:
    """Compare two traces of the same recipe, step by step and layer by layer.

    Args:
        first: arrays of `trainers.parity.trace.Tracer`.
        second: likewise, of the other framework.
        frameworks: their names.
    """
    steps = min(len(first["losses"]), len(second["losses"]))
    losses = _relative(first["losses"][:steps], second["losses"][:steps])
    worst = int(np.argmax(losses))
    differs_at, causes = _incomparable(first, second), list[str]()
    named: list[NamedDifference] = []
    update_difference = 1.0
    if differs_at is None:
        off = [_off(side) for side in (first, second)]
        statistics = _statistics_distances(first, second)
        update_difference = max(float(found.max(initial=0.0)) for found in (*off, statistics))
        differs_at, causes = _first_difference(first, second, frameworks, losses, off, statistics)
        named = _named(first, second)
    return Parity(
        frameworks=frameworks,
        steps=steps,
        workers=int(first["workers"]),
        loss_difference=float(losses[worst]),
        loss_step=worst + 1,
        update_difference=update_difference,
        named=named,
        differs_at=differs_at,
        likely_causes=causes,
    )


def _incomparable(first: Trace, second: Trace) -> str | None:
    for kind in ("names", "update_names", "statistic_names"):
        here, there = (set(json.loads(str(side[kind]))) for side in (first, second))
        if here != there:
            return f"the models have different layers; {sorted(here ^ there)[0]} is in one of them"
    if len(first["losses"]) != len(second["losses"]):
        return "the traces have different numbers of steps"
    return None


def _first_difference(
    first: Trace,
    second: Trace,
    frameworks: tuple[str, str],
    losses: np.ndarray,
    off: list[np.ndarray],
    statistics: np.ndarray,
) -> tuple[str | None, list[str]]:
    """Where the work first differs, and the likely causes."""
    names, update_names, statistic_names = (
        json.loads(str(first[key])) for key in ("names", "update_names", "statistic_names")
    )
    if "initial" in first and "initial" in second:
        starts = _distances(first["initial"][None], second["initial"][None])[0]
        if starts.max() > TOLERANCE:
            layer = sorted([*names, *statistic_names])[int(starts.argmax())]
            causes = ["bias initialisation"] if layer.endswith(".bias") else ["initial weights"]
            return f"initial {layer} differs by {starts.max():.1e}", causes
    gradients = _distances(first["gradients"], second["gradients"])
    together = [side["gradients"].reshape(len(losses), 1, -1) for side in (first, second)]
    rounding = max(float(side["controls"].max(initial=0.0)) for side in (first, second))
    gradient_differs = _beyond_switches(_distances(*together)[:, 0], rounding)
    for step in range(len(losses)):
        at = f"at step {step + 1} by"
        if losses[step] > TOLERANCE:
            return f"the loss differs {at} {losses[step]:.1e}", _loss_causes(step, first, second)
        if gradient_differs[step]:
            worst = int(gradients[step].argmax())
            where = f"the gradient of {names[worst]} differs {at} {gradients[step, worst]:.1e}"
            return where, _gradient_causes(step, first, second)
        for framework, side, ratios in zip(frameworks, (first, second), off, strict=True):
            if ratios[step].max(initial=0.0) > TOLERANCE:
                worst = int(ratios[step].argmax())
                weight, _, kind = update_names[worst].partition("#")
                what = f"the {kind or 'update'} of {weight} in {framework}"
                return f"{what} is off its rule {at} {ratios[step, worst]:.1e}", _update_causes(step, side)
        if statistics[step].max(initial=0.0) > TOLERANCE:
            worst = int(statistics[step].argmax())
            where = f"the update of {statistic_names[worst]} differs {at} {statistics[step, worst]:.1e}"
            return where, _statistics_causes(statistics[step] > TOLERANCE, statistic_names)
    return None, []


def _named(first: Trace, second: Trace) -> list[NamedDifference]:
    """The known differences that are larger than the tolerance in a step."""
    found = []
    for name, known in KNOWN_DIFFERENCES.items():
        kind = "statistics_held" if name == VARIANCE else "held"
        weights = json.loads(str(first["statistic_names" if name == VARIANCE else "update_names"]))
        if name == VARIANCE:
            moved = np.linalg.norm(first["statistics"], axis=2)
        else:
            moved = np.maximum(first["moved"], second["moved"])
        sizes = [side[key] for side in (first, second) if (key := f"differences/{name}") in side]
        if not sizes or not weights:
            continue
        shares = beyond(np.max(sizes, axis=0), moved, first[kind])
        step, worst = (int(place) for place in np.unravel_index(shares.argmax(), shares.shape))
        if shares[step, worst] > TOLERANCE:
            found.append(
                NamedDifference(
                    name=name,
                    **dataclasses.asdict(known),
                    share=float(shares[step, worst]),
                    weight=weights[worst],
                    step=step + 1,
                )
            )
    return found


def _off(side: Trace) -> np.ndarray:
    """Relative distance of each update and optimizer state from the framework's own rule, [steps, updates]."""
    return beyond(side["off"], side["moved"], side["held"])


def _statistics_distances(first: Trace, second: Trace) -> np.ndarray:
    """Relative differences of the updates of moving statistics, [steps, statistics]."""
    norms = np.maximum(*(np.linalg.norm(side["statistics"], axis=2) for side in (first, second)))
    difference = np.linalg.norm(first["statistics"] - second["statistics"], axis=2)
    return beyond(difference, norms, first["statistics_held"])


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference over the larger, or over a hundredth, element by element; NaN in one alone counts as 1.

    A smaller loss than that is known no better, since float32 rounds the logits that it comes from.
    """
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), _SMALL_LOSS)
    difference = np.abs(a - b) / scale
    return np.asarray(np.where(np.isnan(a) & np.isnan(b), 0.0, np.nan_to_num(difference, nan=1.0)), float)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Relative differences [steps, layers] of sketches [steps, layers, 64], layer by layer."""
    norm = np.maximum(np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2))
    difference = np.linalg.norm(a - b, axis=2)
    return np.asarray(np.nan_to_num(difference / np.maximum(norm, 1e-12), nan=1.0))


def _beyond_switches(distances: np.ndarray, rounding: float) -> np.ndarray:
    """Bool [steps]: whether a gradient differs by more than a switched ReLU or pooling explains."""
    usual = max(_USUAL_TOLERANCE, _CONTROL_FACTOR * rounding)
    is_rare = np.percentile(distances, 75, method="inverted_cdf") <= usual
    return np.asarray(distances > (max(_RARE_TOLERANCE, usual) if is_rare else usual))


def _loss_causes(step: int, first: Trace, second: Trace) -> list[str]:
    if step == len(first["losses"]) - 1 and step > 0:
        return ["epoch-end partial batches"]
    ratio = first["losses"][step] / second["losses"][step]
    if step == 0 and max(ratio, 1 / ratio) > 1.9:
        return ["loss reduction"]
    return ["padding of strided convolutions", "batch-norm epsilon", "preprocessing"]


def _gradient_causes(step: int, first: Trace, second: Trace) -> list[str]:
    if step == len(first["losses"]) - 1 and step > 0:
        return ["epoch-end partial batches"]
    norms = [np.linalg.norm(side["gradients"][step], axis=1) for side in (first, second)]
    ratios = norms[0] / np.maximum(norms[1], 1e-12)
    if np.ptp(ratios) < 0.01 * ratios.mean() and abs(ratios.mean() - 1) > 0.01:
        return [f"loss reduction: every gradient is {ratios.mean():.3g} times the other's"]
    return ["batch-norm epsilon", "gradient of a tied maximum"]


def _update_causes(step: int, side: Trace) -> list[str]:
    """The usual mistakes that would come nearer to the measured updates than the rule does, the nearest first."""
    off = float(np.linalg.norm(side["off"][step] / np.maximum(side["moved"][step], 1e-12)))
    made = {
        key.removeprefix("mistakes/"): float(values[step])
        for key, values in side.items()
        if key.startswith("mistakes/")
    }
    is_update = np.array(["#" not in name for name in json.loads(str(side["update_names"]))])
    scaled, moved = (float(np.linalg.norm(side[key][step][is_update])) for key in ("off", "moved"))
    factor = float(side["factor"][step])
    if abs(scaled - abs(1 - 1 / factor) * moved) < 0.05 * scaled:
        made[f"learning rate: every update is {factor:.4g} times the rule's"] = 0.05 * off
    return sorted((mistake for mistake, left in made.items() if left < 0.5 * off), key=made.__getitem__)


def _statistics_causes(differs: np.ndarray, names: list[str]) -> list[str]:
    causes = ["batch-norm momentum", "biased or unbiased batch-norm variance"]
    only_variances = all(name.endswith(".variance") for name, yes in zip(names, differs, strict=True) if yes)
    return causes[::-1] if only_variances else causes
