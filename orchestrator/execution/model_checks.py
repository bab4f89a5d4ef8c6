"""Try users' own models, optimizers and losses before anything is spent, each framework in a process of its own.

The two frameworks do not live in one process, and this one imports neither. Built-in parts are left out: tandem's tests
train them at the sizes that an experiment may have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.execution.monitoring import environment
from orchestrator.experiment.spec import Arm, Experiment
from orchestrator.planning.preflight import Prepared
from orchestrator.store.storage import Record
from trainers.errors import InputError
from trainers.machine import preset
from trainers.model_check import Found, Request
from trainers.recipes import OwnLoss, OwnOptimizer

_FILE = "model-check.json"
_VERSION = 1
"""Of what is tried; what passed another version is tried again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChecks:
    """What came of a check."""

    arms: list[str]
    """Those with own parts that were tried."""
    notes: list[str]
    left_out: list[str]
    """A sentence for each check that could not be made here."""

    def to_json(self) -> Record:
        """As plain JSON."""
        return dataclasses.asdict(self)


def check(prepared: Prepared, *, module_path: Path) -> ModelChecks:
    """Take a training step and make a prediction with every own part of an experiment's arms.

    Args:
        prepared: from `driver.prepare`.
        module_path: directory that users' own modules are imported from.

    Raises:
        InputError: something would make runs fail or their results wrong; all of it, one sentence a line.
    """
    experiment = prepared.experiment
    own = _with_own_parts(experiment)
    left_out: list[str] = []
    possible: dict[str, list[str]] = {}
    for framework in sorted({arm.framework for arm in own.values()}):
        names = [name for name, arm in own.items() if arm.framework == framework]
        reason = _obstacle(experiment, framework)
        if reason is None:
            possible[framework] = names
        else:
            listed = ", ".join(f"arms.{name}" for name in names)
            left_out.append(f"the training step and the prediction of {listed} are left out: {reason}")
    tried: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    for in_framework, found in _try(experiment, possible, module_path).items():
        if isinstance(found, str):
            left_out.append(found)
        else:
            tried += possible[in_framework]
            problems += found.problems
            notes += found.notes
    if problems:
        raise InputError("\n".join(problems))
    return ModelChecks(arms=tried, notes=notes, left_out=left_out)


def check_once(prepared: Prepared, *, module_path: Path) -> ModelChecks:
    """As `check`; nothing is tried if the records say that the same content of file, data and modules passed before.

    Raises:
        InputError: as `check`.
    """
    nothing = ModelChecks(arms=[], notes=[], left_out=[])
    if not _with_own_parts(prepared.experiment):
        return nothing
    key, storage = _key(prepared, module_path), prepared.records.storage
    if (storage.read_json(_FILE) or {}).get("passed") == key:
        return nothing
    result = check(prepared, module_path=module_path)
    if not result.left_out:
        storage.write_json(_FILE, {"passed": key})
    return result


def _with_own_parts(experiment: Experiment) -> dict[str, Arm]:
    """The arms that have a model, an optimizer or a loss of the user's own."""
    return {name: arm for name, arm in experiment.recipe_arms.items() if _own_parts(arm)}


def _own_parts(arm: Arm) -> list[str]:
    """The `package.module:function` of each."""
    own = [part.name for part in (arm.optimizer, arm.loss) if isinstance(part, OwnOptimizer | OwnLoss)]
    return [*own, arm.model] if ":" in arm.model else own


def _obstacle(experiment: Experiment, framework: str) -> str | None:
    """Why parts of a framework cannot be tried here, if they cannot."""
    name = environment.FRAMEWORK_NAMES[framework]
    if environment.missing_frameworks([framework]):
        return f"{name} is not installed here; {environment.install_command([framework])}"
    if experiment.scale.gpus_per_worker and not environment.gpus():
        return "the experiment trains on GPUs, and there is none here"
    return None


def _try(experiment: Experiment, arms: dict[str, list[str]], module_path: Path) -> dict[str, Found | str]:
    """What the process of each framework found, or a sentence about why it ended early; they run side by side."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = []
        for framework, names in arms.items():
            request, found = scratch / f"{framework}.json", scratch / f"{framework}-found.json"
            wanted = make_request(experiment, framework, names, module_path)
            request.write_text(wanted.model_dump_json())
            process = stack.enter_context(_process(request, found, has_gpu=wanted.use_gpu))
            started.append((framework, process, found))
        return {framework: _outcome(framework, process, found) for framework, process, found in started}


def make_request(experiment: Experiment, framework: str, names: list[str], module_path: Path) -> Request:
    """What the process of a framework tries.

    Args:
        experiment: the experiment.
        framework: of the arms.
        names: of the arms.
        module_path: directory that users' own modules are imported from.
    """
    scale = experiment.scale
    return Request.model_validate(
        {
            "framework": framework,
            "module_path": str(module_path),
            "data": experiment.data.model_dump(mode="json"),
            "arms": [
                {"name": name, "recipe": experiment.recipe_arms[name].recipe().model_dump(mode="json")}
                for name in names
            ],
            "workers": (scale.min_workers, scale.max_workers),
            "threads": scale.cpus_per_worker,
            "use_gpu": scale.gpus_per_worker > 0,
        }
    )


@contextlib.contextmanager
def _process(request: Path, found: Path, *, has_gpu: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that checks; it ends with the block at the latest."""
    hidden = {} if has_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "trainers.model_check", str(request), str(found)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**preset.ENVIRONMENT, **os.environ, **hidden},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _outcome(framework: str, process: subprocess.Popen[str], found: Path) -> Found | str:
    _, said = process.communicate()
    if process.returncode == 0:
        return Found.model_validate_json(found.read_text())
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    name, code = environment.FRAMEWORK_NAMES[framework], process.returncode
    ended = f"signal {-code}" if code < 0 else f"code {code}"
    return f"the check of own parts in {name} ended with {ended}{f': {lines[-1]}' if lines else ' and printed nothing'}"


def _key(prepared: Prepared, module_path: Path) -> str:
    """A hash of the experiment, the data, the modules beside the experiment file and the frameworks' versions."""
    experiment = prepared.experiment
    own = [part for arm in _with_own_parts(experiment).values() for part in _own_parts(arm)]
    packages = {part.partition(":")[0].partition(".")[0] for part in own}
    files = {*module_path.glob("*.py")}.union(*(module_path.glob(f"{name}/**/*.py") for name in packages))
    modules = {
        str(file.relative_to(module_path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    versions = {name: environment.version(name) for name in ("keras", "tensorflow", "torch")}
    known = [_VERSION, experiment.model_dump(mode="json"), prepared.data_fingerprint, modules, versions]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
