"""tandem from Python: experiments as files or mappings, and training functions as they are.

import tandem

comparison = tandem.sweep("experiment.yaml", overrides=["sweep.budget.trials=8"])
print(comparison.conclusion)

result = tandem.compare({"a": train_a, "b": train_b}, seeds=5, metric={"name": "val_loss", "goal": "minimize"})
print(result.verdict)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.errors import InputError, TandemError

if TYPE_CHECKING:
    from orchestrator.analysis.compare import Comparison
    from orchestrator.report.notebook import ComparisonResult

__all__ = ["InputError", "TandemError", "compare", "run", "sweep"]


def run(experiment: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> Comparison:
    """Train every arm of an experiment on this machine and write the report, as `tandem run` does.

    Args:
        experiment: a file, or its contents as a mapping.
        overrides: `field=value`, as for `--set`.

    Raises:
        InputError: one sentence for each problem.
    """
    return _train("run", experiment, overrides)


def sweep(experiment: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> Comparison:
    """Search each arm's hyperparameters, then train and compare the winners, as `tandem sweep` does.

    Args:
        experiment: a file with a `sweep:` block, or its contents as a mapping.
        overrides: `field=value`, as for `--set`.

    Raises:
        InputError: one sentence for each problem.
        SweepError: all trials fail.
    """
    return _train("sweep", experiment, overrides)


def compare(
    arms: Mapping[str, Callable[..., None] | str | Mapping[str, Any]],
    *,
    metric: str | Mapping[str, Any],
    seeds: int | Iterable[int] = 3,
    scaling: Mapping[str, Any] | None = None,
    name: str = "comparison",
    storage: str | Path = "tandem-results",
) -> ComparisonResult:
    """Train functions under Ray Train on this machine, each with every seed, compare them, and write the report.

    A function that can be imported by its name is imported by the workers, and the same call later trains only what is
    not done. A function of a notebook or a script is sent to the workers as Ray sends functions. It is not stored, so
    that each call trains it anew; the report says so.

    Args:
        arms: by name a training function as Ray Train takes it, its name as `package.module:function`, or a mapping
            with the fields of such an arm of an experiment file, whose `train_loop` may be a function. Without
            `trainer`, workers are connected by the packages that the function uses: Keras and TensorFlow as `keras`,
            PyTorch, Lightning and Transformers as `torch`, JAX as `jax`, else `none`.
        metric: what arms are compared by, by its name or as a mapping with `name`, `goal`, `margin` and `unit`.
        seeds: of each arm, or their number.
        scaling: the fields of `scale` of an experiment file, such as `{"workers": 2}`.
        name: of the experiment: lower-case letters, digits and hyphens.
        storage: directory or URL that holds experiments.

    Raises:
        InputError: one sentence for each problem.
    """
    from orchestrator import workflows
    from orchestrator.execution.monitoring.progress import open_console
    from orchestrator.experiment import reader
    from orchestrator.planning import preflight, python_functions
    from orchestrator.report.notebook import ComparisonResult

    found = python_functions.read(arms)
    counted = seeds if isinstance(seeds, int) else list(seeds)
    experiment = reader.load_mapping(
        {
            "name": name,
            "metric": metric if isinstance(metric, str) else dict(metric),
            "arms": {arm: {"seeds": counted, **fields} for arm, fields in found.arms.items()},
            "scale": dict(scaling or {}),
            "storage": str(storage),
        }
    )
    records = preflight.open_records(experiment)
    comparison = workflows.train(
        experiment,
        records,
        found.module_path,
        open_console(sys.stderr),
        searches=False,
        command=["tandem.compare"],
        functions=found.sent,
    )
    return ComparisonResult(comparison, f"{records.storage.url}/report/report.html")


def _train(verb: str, experiment: str | Path | Mapping[str, Any], overrides: Iterable[str]) -> Comparison:
    from orchestrator import workflows
    from orchestrator.execution.monitoring.progress import open_console
    from orchestrator.experiment import reader
    from orchestrator.planning import preflight

    changes = list(overrides)
    command = [verb, "experiment.yaml", *(f"--set={change}" for change in changes)]
    if isinstance(experiment, Mapping):
        read, module_path = reader.load_mapping(experiment, changes), Path.cwd()
    else:
        path = Path(experiment)
        read, module_path = reader.load(path, changes), path.resolve().parent
        command[1] = str(path)
    if verb == "sweep" and read.sweep is None:
        raise InputError("the experiment has no sweep: block; give one with a space and a budget")
    return workflows.train(
        read,
        preflight.open_records(read),
        module_path,
        open_console(sys.stderr),
        searches=verb == "sweep",
        command=command,
    )
