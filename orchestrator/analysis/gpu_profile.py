"""What an experiment's arms reach on one GPU, where their time goes, and which changes make them faster.

Each arm is trained for a few epochs as it is written and with one change at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.analysis.variants import short_experiment
from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.store.storage import Record

STEPS = 60
AS_WRITTEN = "as-written"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """An experiment with one change in its arms."""

    change: str
    experiment: Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What one arm reached with one change."""

    arm: str
    change: str
    images_per_second: float | None
    """None if it failed."""
    failure: str | None = None
    model_flops_utilisation: float | None = None
    """Model FLOPs over those of a large matrix product on the same device in the same precision."""
    memory_bytes: int | None = None
    """Of the GPU, at most; None on CPUs."""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Where the time of all epochs went."""


def _changed(arm: Arm) -> dict[str, dict[str, Any]]:
    """The changes that are tried on an arm, each by its name."""
    changes: dict[str, dict[str, Any]] = {AS_WRITTEN: {}}
    if arm.is_deterministic(on_gpu=True):
        changes["not-deterministic"] = {"deterministic": False}
    if not arm.compile:
        changes["compile"] = {"compile": True, "deterministic": False}
    if arm.precision not in ("bfloat16", "auto"):
        changes["bfloat16"] = {"precision": "bfloat16"}
    for times, name in ((2, "batch-size-x2"), (4, "batch-size-x4")):
        changes[name] = {"batch_size": arm.batch_size * times}
    return changes


def variants(experiment: Experiment) -> list[Variant]:
    """What is trained to profile an experiment's arms: one experiment for each change.

    Raises:
        InputError: the experiment cannot be trained by one worker.
    """
    changes = {name: _changed(arm) for name, arm in experiment.recipe_arms.items()}
    names = dict.fromkeys(change for of_arm in changes.values() for change in of_arm)
    return [
        Variant(
            change=change,
            experiment=short_experiment(
                experiment,
                name=change,
                directory="gpu",
                arms={name: of_arm[change] for name, of_arm in changes.items() if change in of_arm},
                steps=STEPS,
                workers=1,
                told="bench gpu",
            ),
        )
        for change in names
    ]


def summary(measured: Sequence[Measured]) -> Record:
    """What was measured, by arm and change, as plain JSON."""
    arms: Record = {}
    for each in measured:
        figures = {
            key: value for key, value in dataclasses.asdict(each).items() if key not in ("arm", "change")
        }
        arms.setdefault(each.arm, {})[each.change] = figures
    return arms


def sentences(profile: Record) -> Iterator[str]:
    """What a summary says of each arm: its speed, where the time goes, and what each change brings."""
    for arm, changes in profile.items():
        if arm == "schema":
            continue
        written = changes[AS_WRITTEN]
        if written["images_per_second"] is None:
            yield f"{arm}: failed: {written['failure']}"
            continue
        yield f"{arm}: {', '.join(_figures(written))}"
        total = sum(written["seconds"].values())
        parts = ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in written["seconds"].items())
        yield f"{arm}: time of the epochs: {parts}"
        speeds = {
            change: figures["images_per_second"]
            for change, figures in changes.items()
            if change != AS_WRITTEN and figures["images_per_second"] is not None
        }
        for change, speed in sorted(speeds.items(), key=lambda entry: -entry[1]):
            yield f"{arm}: {change}: {speed / written['images_per_second']:.2f} times the speed"
        for change, figures in changes.items():
            if figures["images_per_second"] is None:
                yield f"{arm}: {change}: failed: {figures['failure']}"


def _figures(written: Record) -> Iterator[str]:
    yield f"{written['images_per_second']:,.0f} images/s"
    if written["model_flops_utilisation"] is not None:
        yield f"MFU {written['model_flops_utilisation']:.0%}"
    if written["memory_bytes"] is not None:
        yield f"{written['memory_bytes'] / 2**30:.1f} GiB of GPU memory"
