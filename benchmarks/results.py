"""What benchmarks measured: kept as JSON after each measurement, shown in RESULTS.md."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.execution.monitoring import environment


class Results:
    """The measurements of one benchmark.

    A benchmark that is interrupted starts again with the measurements it has. They are discarded where the settings,
    the machine or the versions have changed since.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        """Take up what the file holds of the same settings on the same machine."""
        machine = environment.describe()
        del machine["commit"]
        self._file = file
        self._document = {"settings": settings, "machine": machine, "measurements": []}
        if file.exists():
            kept = json.loads(file.read_text())
            if kept | {"measurements": []} == json.loads(json.dumps(self._document)):
                self._document = kept
            else:
                print(f"{file.name} holds other settings, another machine or other versions: starting afresh")

    def once(self, measure: Callable[[], dict[str, Any]], **case: Any) -> None:
        """Measure a case unless its measurement is kept already.

        Args:
            measure: returns what was measured, as plain JSON.
            case: what tells this measurement from the others, such as model="resnet9", pair=1.
        """
        if any(kept["case"] == case for kept in self._document["measurements"]):
            return
        value = measure()
        print(" ", *(f"{name} {value}" for name, value in case.items()), json.dumps(value), flush=True)
        self._document["measurements"].append(
            {"case": case, "value": value, "date": time.strftime("%Y-%m-%d"), "commit": _commit()}
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._document, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measurements of one benchmark, to be shown."""

    settings: dict[str, Any]
    measurements: list[dict[str, Any]]

    def values(self, **case: Any) -> list[dict[str, Any]]:
        """What was measured in the cases with these properties, in order."""
        return [
            measurement["value"]
            for measurement in self.measurements
            if case.items() <= measurement["case"].items()
        ]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios, with the lowest and the highest.

    Lowest to highest of five pairs is a 94 % confidence interval of the median, whatever the distribution.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """Of measurements in pairs."""
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"**{self.median:.3f}** ({self.lowest:.3f} to {self.highest:.3f})"

    def verdict(self, *, at_least: float = 0.0, at_most: float = math.inf) -> str:
        """Whether the median is within bounds; where it is not, whether the pairs decide that."""
        if at_least <= self.median <= at_most:
            return "met"
        outside = self.highest < at_least or self.lowest > at_most
        return "missed" if outside else "undecided: the pairs reach into the band"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def section(title: str, file: Path, show: Callable[[Measured], str]) -> str:
    """One benchmark's part of RESULTS.md.

    Args:
        title: its heading.
        file: that `Results` wrote; "not measured yet" stands where there is none.
        show: makes Markdown of the measurements.
    """
    if not file.exists():
        return f"## {title}\n\nNot measured yet.\n"
    document = json.loads(file.read_text())
    measured = Measured(document["settings"], document["measurements"])
    return f"## {title}\n\n{show(measured)}\n\n{_provenance(document)}\n"


def _provenance(document: dict[str, Any]) -> str:
    machine = document["machine"]
    dates = sorted({measurement["date"] for measurement in document["measurements"]})
    commits = dict.fromkeys(measurement["commit"] for measurement in document["measurements"])
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    return (
        f"Measured {' to '.join(dict.fromkeys([dates[0], dates[-1]]))} at {', '.join(commits)} on {machine['cpu']}, "
        f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB, GPUs: {', '.join(machine['gpus']) or 'none'}; "
        f"Python {machine['python']}, {packages}."
    )


def _commit() -> str:
    """The commit that is checked out, and whether files differ from it, other than those that are written here."""
    others = [".", ":!benchmarks/results", ":!benchmarks/RESULTS.md"]
    changed = _git("status", "--porcelain", "--", *others)
    return f"commit {_git('rev-parse', '--short=10', 'HEAD')}{' (modified)' if changed else ''}"


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
