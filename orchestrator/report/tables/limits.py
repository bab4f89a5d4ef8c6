"""What an experiment did not vary, and what its verdict does not cover, in sentences."""

from __future__ import annotations

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.wording import counted, listed
from orchestrator.experiment.spec import describe_value

_NAMED = ("model", "optimizer", "batch_size", "epochs", "precision", "init", "loss", "augmentation")
"""Fields of a recipe whose values are named where no arm has another; of the rest, their number is."""


def not_varied(comparison: Comparison) -> list[str]:
    """What all runs had in common, so that its effect is not known."""
    sentences = []
    document, arms = comparison.document, comparison.arms
    if document["data"] is not None:
        sentences.append("Data: one data set with one split. Other data may put the arms in another order.")
    else:
        sentences.append(
            "Data: whatever the training functions read; their records do not say whether it was alike."
        )
    if len(arms) > 1 and (same := _same(comparison)):
        sentences.append(f"Recipe: every arm has {same}.")
    if comparison.sweep is None:
        sentences.append(
            "Hyperparameters: each arm was trained with one recipe, and none was searched for. An arm whose recipe "
            "suits it less may come out worse for that alone."
        )
    else:
        sentences.append(
            "Hyperparameters: each arm has the best recipe of its own search, within that search's space and budget."
        )
    epochs = sorted({count for arm in arms if (count := arm.recipe.get("epochs")) is not None})
    if epochs:
        sentences.append(
            f"Length of training: {' or '.join(map(str, epochs))} epochs. With more, the order may be another."
        )
    scale = document["experiment"]["scale"]
    if not isinstance(scale["workers"], dict):
        sentences.append(
            f"Scale: {counted(scale['workers'], 'worker')}. Times and speeds on another number are not known"
            + (", except as measured in Scaling." if comparison.scales else ".")
        )
    cpus = sorted({session["environment"]["cpu"] for session in comparison.sessions})
    if cpus:
        sentences.append(
            f"Hardware: the driver ran on {listed(cpus)}. Times, speeds and memory hold for such machines."
        )
    return sentences


def _same(comparison: Comparison) -> str:
    """The fields in which no two arms differ."""
    first, *others = (arm.recipe for arm in comparison.arms)
    same = [key for key, value in first.items() if all(key in arm and arm[key] == value for arm in others)]
    named = [f"{key.replace('_', ' ')} {describe_value(first[key])}" for key in _NAMED if key in same]
    rest = len([key for key in same if key not in _NAMED])
    if rest:
        named.append(f"{counted(rest, 'further field')} in common (Configuration lists them)")
    return listed(named) if named else ""


def not_covered(comparison: Comparison) -> list[str]:
    """What the verdict says nothing of."""
    metric = comparison.metric
    sentences = [
        f"The verdict is on {metric.title} alone. No other metric, class, kind of damage or calibration error in this "
        "report has a verdict, and their intervals do not hold together with it."
    ]
    if comparison.pairs and all(pair.images is None for pair in comparison.pairs):
        sentences.append("Its intervals are over seeds; that other test examples would differ is left out.")
    elif comparison.pairs:
        sentences.append(
            "Its intervals are over seeds and test images of the same kind; images of another origin are not covered."
        )
    if metric.margin is None:
        sentences.append("Without a margin, it says which arm is ahead, and not whether that matters.")
    if any(pair.speed is not None and pair.speed.groups is None for pair in comparison.pairs):
        sentences.append(
            "There is no verdict on speed, since runs shared processes or were fewer than three."
        )
    if any(not pair.same_framework and pair.differences for pair in comparison.pairs):
        sentences.append(
            "Arms that differ in more than the framework are compared as a whole; which difference matters is not known"
            + (" beyond the parts of the gap above." if comparison.attribution else ".")
        )
    if any(arm.is_own for arm in comparison.arms):
        sentences.append("What training functions of the user's own do is not checked.")
    return sentences
