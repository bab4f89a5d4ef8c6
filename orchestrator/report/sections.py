"""The report's figures by section: what is drawn, and the words with it."""

from __future__ import annotations

import dataclasses

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.compare import Comparison
from orchestrator.report import sweep
from orchestrator.report.figures import claim, curves, performance, predictions
from orchestrator.report.figures.chart import Chart

MOST_IN_PICTURES = 12
"""Arms in pictures that are files; the page has all."""
MOST_MATRICES = 2
"""Confusion matrices that are open, and that are pictures in Markdown; of many arms, those of the best."""

_TITLES = {
    "claim": ("The claim", ""),
    "attribution": (
        "Parts of the gap",
        "Each factor's share with its 95 % interval over seeds; the shares sum to the gap.",
    ),
    "learning": (
        "Learning curves",
        "Means over seeds; the band runs from the lowest to the highest seed. Dotted: training.",
    ),
    "reported": (
        "Reported by training functions",
        "The metric that arms are compared by: mean over seeds by report, with a band from the lowest to the highest "
        "seed; and over time, the means of both over seeds.",
    ),
    "speed": (
        "Speed",
        "Accuracy against seconds of training, evaluation and checkpoints, means over seeds; and training images "
        "per second after the first epoch, which also compiles.",
    ),
    "seconds": ("Where the time went", "Means of the runs; start-up is that of the cold one."),
    "scaling": (
        "Scaling",
        "Images per second on n workers over n times those on the fewest; dashed: what the fitted model predicts.",
    ),
    "sweep": (
        "Search",
        "The best validation result so far, by the number of trials; dots: the trials.",
    ),
    "class-accuracy": ("Accuracy by class", "On the test images, over all seeds."),
    "corruption-robustness": (
        "Corruption robustness",
        "Accuracy on at most 1,000 test images with noise, blur or JPEG compression; means of the seeds.",
    ),
    "reliability": (
        "Calibration",
        "How often predictions of each confidence are correct; on the dashed line, confidence equals accuracy.",
    ),
    "confusion": ("Confusion matrices", "Percent of each true class (row) by predicted class."),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Charts under one heading."""

    name: str
    title: str
    caption: str
    pictures: dict[str, list[Chart]]
    """By file name, the charts that are beside each other in it."""
    folded: list[Chart] = dataclasses.field(default_factory=list)
    """Charts that the page has in a closed part and Markdown leaves out."""

    @property
    def charts(self) -> list[Chart]:
        """All that are open."""
        return [chart for charts in self.pictures.values() for chart in charts]


def draw(comparison: Comparison) -> list[Section]:
    """All sections with a figure, in the order of the report."""
    whole, comparison = comparison, ends(comparison)
    matrices = _matrices(comparison)
    searched = sweep.best_so_far(whole.sweep) if whole.sweep else None
    drawn: dict[str, dict[str, list[Chart | None]]] = {
        "claim": {"claim": [claim.seeds(comparison), claim.gaps(comparison)]},
        "attribution": {"attribution": [claim.parts(whole)]},
        "learning": {
            "accuracy-by-epoch": [curves.learning(comparison, "accuracy")],
            "loss-by-epoch": [curves.learning(comparison, "loss")],
        },
        "reported": {
            "metric-by-report": [curves.reported(comparison)],
            "metric-over-time": [curves.reported_over_time(comparison)],
        },
        "speed": {
            "accuracy-over-time": [curves.accuracy_over_time(comparison)],
            "throughput": [performance.throughput(comparison)],
        },
        "seconds": {"seconds": [performance.seconds(comparison)]},
        "scaling": {"scaling": [*performance.scaling(comparison.scales)] if comparison.scales else []},
        "sweep": {"best-by-trials": [searched]},
        "class-accuracy": {"class-accuracy": [predictions.class_accuracy(comparison)]},
        "corruption-robustness": {"corruption-robustness": [*predictions.corruption_robustness(comparison)]},
        "reliability": {"reliability": [predictions.reliability(comparison)]},
        "confusion": {chart.name: [chart] for chart in matrices[:MOST_MATRICES]},
    }
    sections = []
    for name, pictures in drawn.items():
        present = {
            file: [chart for chart in charts if chart is not None] for file, charts in pictures.items()
        }
        present = {file: charts for file, charts in present.items() if charts}
        if present:
            title, caption = _TITLES[name]
            sections.append(
                Section(
                    name=name,
                    title=title,
                    caption=claim.caption(comparison) if name == "claim" else caption,
                    pictures=present,
                    folded=matrices[MOST_MATRICES:] if name == "confusion" else [],
                )
            )
    return sections


def in_pictures(comparison: Comparison) -> Comparison:
    """What pictures in files show: all arms, or of many the best, since more cannot be told apart on paper."""
    if len(comparison.arms) <= MOST_IN_PICTURES or comparison.attribution is not None:
        return comparison
    names = {arm.name for arm in _best_first(comparison)[:MOST_IN_PICTURES]}
    return dataclasses.replace(
        comparison,
        arms=[arm for arm in comparison.arms if arm.name in names],
        pairs=[pair for pair in comparison.pairs if names.issuperset(pair.names)],
    )


def _best_first(comparison: Comparison) -> list[ArmSummary]:
    """The baseline, if there is one, and the arms by their means."""
    return sorted(
        comparison.arms,
        key=lambda arm: (
            arm.name != comparison.baseline,
            arm.score is None,
            -arm.metric.advantage(arm.score.mean) if arm.score else 0.0,
        ),
    )


def _matrices(comparison: Comparison) -> list[Chart]:
    """The confusion matrices; of many arms, those of the best first."""
    arms = comparison.arms if len(comparison.arms) <= MOST_MATRICES else _best_first(comparison)
    return [chart for arm in arms if (chart := predictions.confusion(comparison, arm)) is not None]


def ends(comparison: Comparison) -> Comparison:
    """All arms; of an attribution only the two that it is about, since the others are on the way between them."""
    found = comparison.attribution
    if found is None:
        return comparison
    names = (found.plan.first, found.plan.second)
    return dataclasses.replace(comparison, arms=[arm for arm in comparison.arms if arm.name in names])
