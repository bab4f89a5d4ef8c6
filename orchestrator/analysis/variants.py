"""Short experiments that measure the arms of another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.experiment.spec import Experiment, first_problem
from orchestrator.store.storage import url_below
from trainers.errors import InputError

EPOCHS = 4


def short_experiment(
    experiment: Experiment,
    *,
    name: str,
    directory: str,
    arms: Mapping[str, Mapping[str, Any]],
    steps: int,
    workers: int,
    told: str,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> Experiment:
    """A few epochs of a few steps of some arms with one seed, one run at a time.

    Args:
        experiment: whose arms are measured.
        name: of the short one.
        directory: below the experiment's results, where the short one is kept.
        arms: by name, the fields in which an arm differs from the experiment's.
        steps: of an epoch of the arm with the largest batch.
        workers: of each run.
        told: begins the sentence about what cannot be trained so.
        fields: further ones of the blocks of an experiment.

    Raises:
        InputError: an arm cannot be trained so.
    """
    measured = {
        arm: experiment.arms[arm].model_dump(mode="json")
        | {**changed, "epochs": EPOCHS, "early_stopping": None, "seeds": [0]}
        for arm, changed in arms.items()
    }
    document = experiment.model_dump(mode="json") | {
        "name": name,
        "arms": measured,
        "storage": url_below(experiment.storage, experiment.name, directory),
        "corruption_robustness": False,
        "sweep": None,
        "attribution": None,
        "baseline": None,
    }
    document["scale"] |= {"workers": workers, "concurrent_runs": 1}
    document["data"] |= {"limit": steps * max(arm["batch_size"] for arm in measured.values())}
    for block, values in (fields or {}).items():
        document[block] |= values
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{told}: {first_problem(error)}") from error
