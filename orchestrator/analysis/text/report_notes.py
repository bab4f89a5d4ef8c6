"""What a reader must know before trusting a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.analysis.arms import ArmSummary, Predictions
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.wording import counted, listed
from orchestrator.store.storage import SCHEMA_VERSION, Record
from orchestrator.store.validation import CheckedRecords


def of_runs(document: Record, arms: list[ArmSummary], pairs: list[PairComparison]) -> list[str]:
    """What is particular about the data and about how the runs went."""
    runs = [run for arm in arms for run in arm.runs]
    data = document["data"] or {"warnings": [], "validation_images": None}
    notes = [f"Data: {warning}." for warning in data["warnings"]]
    for run in runs:
        if run.state == "failed":
            notes.append(f"{run.arm} seed {run.seed} failed: {run.cause}.")
        elif run.state == "unfinished":
            came = counted(len(run.reports), "report") if run.reports else f"{len(run.epochs)} epochs"
            notes.append(f"{run.arm} seed {run.seed} is not finished ({came}).")
    if restarts := sum(run.restarts for run in runs):
        notes.append(f"Workers were lost and started again {_times(restarts)}; see the runs below.")
    if data["validation_images"] == 0:
        notes.append(
            "There is no validation split, so the curves show training accuracy and the test "
            "images were used once, after the last epoch."
        )
    for pair in pairs:
        if not pair.is_paired and min(pair.seeds) > 0:
            notes.append(
                f"{pair.first} and {pair.second} do not have the same finished seeds. Their gap is between the means "
                "of all their seeds, which are taken for independent."
            )
    for arm in arms:
        if len({run.precision for run in arm.runs} - {None}) > 1:
            notes.append(
                f"Some runs of {arm.name} were computed in bfloat16 and some in float32, since they ran on "
                "different processors; set precision to one of the two."
            )
    if short := [arm.name for arm in arms if arm.is_too_short_to_time]:
        notes.append(
            f"Less than half a second of training went into the speed of {', '.join(short)}, after the first epoch "
            "where there are several. That is too little to compare by."
        )
    if warming := [arm.name for arm in arms if arm.done and all(len(run.epochs) == 1 for run in arm.done)]:
        notes.append(
            f"The speed of {', '.join(warming)} is that of the first epoch, which may include warming up."
        )
    if crowded := [arm for arm in arms if arm.is_crowded]:
        taken = ", ".join(f"{arm.name} {100 * arm.others_share:.0f} %" for arm in crowded)
        notes.append(
            f"Other programs took CPU time of the machine while these trained: {taken}. Their speeds are lower than "
            "the machine allows, and not all suffer alike; train them again with nothing else running."
        )
    if any(math.isnan(epoch["train_loss"]) for run in runs for epoch in run.epochs):
        notes.append("A training loss became NaN: that run diverged.")
    return notes


def of_training_functions(arms: list[ArmSummary], predictions: Mapping[str, Predictions]) -> list[str]:
    """What cannot be known of the user's own training functions, and what their reports lack.

    Args:
        arms: all of them.
        predictions: of each arm that has predicted classes.
    """
    own = [arm for arm in arms if arm.is_own]
    if not own:
        return []
    notes = [
        f"{listed([arm.name for arm in own])} {_are(own, 'a training function', 'training functions')} of the user's "
        "own: how recipes differ is not known beyond their config, parity cannot be checked, and corruption robustness "
        "is not tested."
    ]
    without = [arm for arm in own if arm.done and arm.name not in predictions]
    if without:
        notes.append(
            f"There are no predicted classes of {listed([arm.name for arm in without])}, so that confusion matrices, "
            "accuracies by class, calibration and disagreements are left out."
        )
    for arm in own:
        notes += [
            f"{arm.name} seed {run.seed}: {note}."
            for run in arm.done
            if (note := (run.result or {}).get("note"))
        ]
        for seeds in arm.identical:
            alike = ", ".join(map(str, seeds))
            notes.append(
                f"Seeds {alike} of {arm.name} gave identical results: the function ignores its seed."
            )
    for arm in arms:
        lacking = [run for run in arm.done if arm.metric.name not in run.metrics]
        for run in lacking:
            known = f"it has {', '.join(sorted(run.metrics))}" if run.metrics else "it reported nothing"
            notes.append(f"{arm.name} seed {run.seed} has no {arm.metric.name}; {known}.")
    return notes


def _are(arms: list[ArmSummary], one: str, several: str) -> str:
    return f"is {one}" if len(arms) == 1 else f"are {several}"


def of_versions(document: Record, *, untold: list[str]) -> list[str]:
    """What the report lacks because records are of another version.

    Args:
        document: the experiment's own.
        untold: what is left out since this version cannot read it.
    """
    notes = []
    if document.get("schema", SCHEMA_VERSION) > SCHEMA_VERSION:
        notes.append(
            f"These records were written by a newer tandem (version {document['schema']} of their schema; this one "
            f"knows {SCHEMA_VERSION}), so what it does not know is left out."
        )
    if untold:
        notes.append(
            f"The recorded experiment has fields that this tandem does not know, so the report leaves out "
            f"{' and '.join(untold)}."
        )
    return notes


def of_missing(checked: CheckedRecords, arms: list[ArmSummary], left_out: list[str]) -> list[str]:
    """What the report lacks because records are missing or were left out."""
    notes = []
    if not checked.sessions:
        notes.append("No driver session is recorded, so the environment and the command are not known.")
    for arm in arms:
        for run in arm.runs:
            who = f"{run.arm} seed {run.seed}"
            if run.result is None and any(
                line.startswith(f"runs/{run.id}/result.json ") for line in left_out
            ):
                notes.append(f"Delete result.json of {who}, and tandem resume tests the run again.")
            elif (
                run.result is not None
                and not arm.is_own
                and len(run.epochs) < arm.recipe["epochs"]
                and not arm.recipe.get("early_stopping")
            ):
                notes.append(f"{len(run.epochs)} of {arm.recipe['epochs']} epochs of {who} are recorded.")
        runs = [run for run in checked.runs if run.entry["arm"] == arm.name and run.result is not None]
        missing = sum(run.predictions is None for run in runs)
        if missing and not arm.is_own and not arm.scores.overlap:
            notes.append(
                f"Predictions of {missing} of {len(runs)} finished runs of {arm.name} are missing. Calibration and the "
                "images on which arms disagree are without them."
            )
        if arm.score is not None and arm.scores.items is None and not arm.scores.overlap:
            notes.append(f"{_why_alone(arm)}. {_OVER_SEEDS_ALONE}")
    return notes


_OVER_SEEDS_ALONE = (
    "Its intervals are over seeds alone and leave out that other test examples would give other values."
)


def _why_alone(arm: ArmSummary) -> str:
    """Why the interval of an arm is not over its test examples."""
    if arm.right is None and not arm.is_own:
        return f"Which test images {arm.name} classifies correctly is not known for every run"
    return f"What single test examples add to the {arm.metric.title} of {arm.name} is not known"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
