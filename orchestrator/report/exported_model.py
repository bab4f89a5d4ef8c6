"""The winner of an experiment as a model that others can use: weights, preprocessing, class names, and a card.

Each framework saves and loads in a process of its own: the two do not live in one. What only saving needs is imported
there, so that a prediction does not wait for it.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.execution.monitoring import environment
from trainers.data.decoding import Broken, UnreadableError, write
from trainers.data.labelled import Encoded, pictures_below
from trainers.data.spec import PictureSpec
from trainers.errors import InputError, TandemError, one_line
from trainers.loop import evaluation_batch

if TYPE_CHECKING:
    from orchestrator.analysis.arms import ArmSummary
    from orchestrator.analysis.compare import Comparison
    from orchestrator.analysis.runs import RunSummary
    from orchestrator.store.records import ExperimentRecords

from orchestrator.report.model_card import card, picture_fields

DESCRIPTION = "tandem-model.json"


@dataclasses.dataclass(frozen=True)
class Likely:
    """A class that a picture may be of."""

    label: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one picture."""

    image: str
    label: str
    probability: float
    top: list[Likely]
    """The most probable classes, the first of which is the label."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What `save` wrote, and which run it is of."""

    files: list[str]
    choice: str
    """Which arm and seed were taken, and why."""


def save(records: ExperimentRecords, directory: Path, *, arm: str | None) -> Saved:
    """Write the model of an experiment's best arm, or of one by name.

    Raises:
        InputError: there is no such arm, it has no finished run, its checkpoint is gone, its framework is not
            installed, or the directory cannot be made.
        TandemError: the framework cannot save it.
    """
    from orchestrator.analysis import compare

    comparison = compare.analyse(records)
    chosen = _arm(comparison, arm)
    run = _run(chosen)
    framework = chosen.framework
    assert framework is not None  # of a built-in arm
    environment.require_frameworks([framework])
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written: {error.strerror}; give another directory"
        ) from error
    module_path = str(records.document()["module_path"])
    _in_process("save", records.storage.url, run.id, str(directory), module_path=module_path)
    files = sorted(file.name for file in directory.iterdir() if file.name.startswith("model."))
    data = comparison.document["data"]
    assert run.result is not None
    description = {
        "schema": 1,
        "experiment": comparison.name,
        "arm": chosen.name,
        "framework": framework,
        "run": run.id,
        "class_names": data["class_names"],
        "image_shape": data["image_shape"],
        "test_accuracy": run.result["test_accuracy"],
        "recipe": chosen.recipe,
        "pictures": picture_fields(comparison.document["experiment"].get("data") or {}),
        "data_fingerprint": data["fingerprint"],
        "files": files,
    }
    (directory / DESCRIPTION).write_text(json.dumps(description, indent=1))
    (directory / "README.md").write_text(card(comparison, chosen, run))
    return Saved(
        [*files, DESCRIPTION, "README.md"], _choice(comparison, chosen, run, is_named=arm is not None)
    )


def predict(directory: Path, images: list[Path], *, top: int = 1) -> tuple[list[Prediction], list[Broken]]:
    """What a saved model says of picture files, resized to what it was trained on.

    Args:
        directory: of the model.
        images: picture files, and folders of them at any depth.
        top: how many of the most probable classes to give.

    Returns:
        The predictions, and the pictures in folders that cannot be read.

    Raises:
        InputError: there is no model, its framework is not installed, a picture that is named cannot be read, or there
            is none.
    """
    try:
        description = json.loads((directory / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} holds no model of tandem's; give a directory that tandem model wrote"
        ) from error
    environment.require_frameworks([description["framework"]])
    if missing := [str(image) for image in images if not image.exists()]:
        raise InputError(f"{', '.join(missing)}: there is no such file")
    files = [file for image in images for file in (pictures_below(image) if image.is_dir() else [image])]
    if not files:
        raise InputError(f"{', '.join(map(str, images))}: there are no pictures in it")
    height, width, channels = description["image_shape"]
    encoded = [Encoded.of_file(file, str(file)) for file in files]
    broken: list[Broken] = []
    spec = PictureSpec.model_validate(description.get("pictures", {}))
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "images.npy", encoded, (height, width, channels), spec, broken)
        named = {str(image) for image in images}
        if len(broken) == len(files) or any(picture.name in named for picture in broken):
            raise UnreadableError.of(broken, images=len(files), remedy="")
        _in_process("predict", str(directory), scratch, module_path=str(directory))
        probabilities = np.load(Path(scratch) / "probabilities.npy", allow_pickle=False)
    without = {picture.place for picture in broken}
    names = description["class_names"]
    predictions = []
    for file, row in zip(
        (f for place, f in enumerate(files) if place not in without), probabilities, strict=True
    ):
        places = np.argsort(-row, kind="stable")[:top].tolist()
        likely = [Likely(names[place], float(row[place])) for place in places]
        predictions.append(Prediction(str(file), likely[0].label, likely[0].probability, likely))
    return predictions, broken


def as_csv(predictions: list[Prediction]) -> str:
    """A row for each picture: its file, and each of the most probable classes with its probability."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    places = range(1, 1 + max((len(prediction.top) for prediction in predictions), default=0))
    table.writerow(["image", *(f"{what}_{place}" for place in places for what in ("label", "probability"))])
    for prediction in predictions:
        table.writerow(
            [prediction.image, *(part for each in prediction.top for part in (each.label, each.probability))]
        )
    return text.getvalue()


def _arm(comparison: Comparison, name: str | None) -> ArmSummary:
    from orchestrator.analysis.text.phrases import ranked

    done = [arm for arm in comparison.arms if arm.score is not None]
    if name is not None:
        done = [arm for arm in done if arm.name == name]
    own = [arm for arm in done if arm.is_own]
    if own and len(own) == len(done):
        raise InputError(
            f"{own[0].name} is a training function of your own, which tandem cannot export; its checkpoints are below "
            f"runs/{own[0].done[0].id}"
        )
    done = [arm for arm in done if not arm.is_own]
    if not done:
        raise InputError(
            f"no arm{'' if name is None else f' {name!r}'} has a finished run to take a model from"
        )
    return ranked(done)[0]


def _run(arm: ArmSummary) -> RunSummary:
    """The seed with the best validation accuracy; without a validation split, or its records, the first."""
    return max(arm.done, key=_validation_accuracy)


def _validation_accuracy(run: RunSummary) -> float:
    by_epoch = {epoch["epoch"]: epoch["validation_accuracy"] for epoch in run.epochs}
    return by_epoch.get(run.tested_epoch) or 0.0


def _choice(comparison: Comparison, arm: ArmSummary, run: RunSummary, *, is_named: bool) -> str:
    exportable = [other for other in comparison.arms if other.score is not None and not other.is_own]
    others = [other.name for other in exportable if other is not arm]
    why = f"arm {arm.name}"
    if others and not is_named:
        why += f", the best by {arm.metric.title}"
    seeds = f", which has the highest validation accuracy of {len(arm.done)}" if len(arm.done) > 1 else ""
    remedy = f"; --arm exports another: {', '.join(others)}" if others else ""
    return f"{why}; seed {run.seed}{seeds}{remedy}"


def _in_process(action: str, *arguments: str, module_path: str) -> None:
    """Run a part of this module in a process of its own.

    Raises:
        TandemError: it failed; says how.
    """
    path = os.pathsep.join(filter(None, [module_path, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.report.exported_model", action, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        failed = {"save": "the model cannot be saved", "predict": "the prediction failed"}[action]
        raise TandemError(f"{failed}: {lines[-1] if lines else 'no word'}")


def _save_here(results: str, run_id: str, directory: str) -> None:
    from orchestrator.experiment import spec
    from orchestrator.store.records import ExperimentRecords
    from orchestrator.store.storage import Storage
    from trainers.contract import Task
    from trainers.data import open_dataset
    from trainers.inputs import input_transform

    records = ExperimentRecords(Storage(results))
    document, run = records.document(), records.run(run_id)
    experiment = spec.from_json(document["experiment"])
    entry = next(entry for entry in document["runs"] if entry["id"] == run_id)
    tested = (run.result() or {}).get("tested_epoch")
    state = run.resume_point().state if tested is None else run.state(tested)
    if state is None:
        raise InputError(
            f"{run_id} has no checkpoint here to take a model from; results are fetched with --checkpoints"
        )
    recipe = experiment.recipe_arms[entry["arm"]].recipe()
    framework: Any = importlib.import_module(f"trainers.{entry['framework']}.engine")
    exported: Any = importlib.import_module(f"trainers.{entry['framework']}.exported_model")
    height, width, channels = document["data"]["image_shape"]
    task = Task(
        recipe=recipe,
        seed=entry["seed"],
        rank=0,
        world_size=1,
        image_shape=(height, width, channels),
        num_classes=len(document["data"]["class_names"]),
        inputs=run.inputs() or input_transform(open_dataset(experiment.data), recipe),
        class_weights=None,
    )
    engine = framework.Runtime(threads=1, use_gpu=False).engine(task.in_float32())
    engine.load_state(state)
    exported.save(engine.exported_model(), Path(directory), task.image_shape)


def _predict_here(directory: str, scratch: str) -> None:
    description = json.loads((Path(directory) / DESCRIPTION).read_text())
    exported: Any = importlib.import_module(f"trainers.{description['framework']}.exported_model")
    images = np.load(Path(scratch) / "images.npy", mmap_mode="r", allow_pickle=False)
    predicts, batch = exported.load(Path(directory)), evaluation_batch(images.shape[1:])
    parts = [predicts(np.array(images[start : start + batch])) for start in range(0, len(images), batch)]
    np.save(Path(scratch) / "probabilities.npy", np.concatenate(parts))


if __name__ == "__main__":
    actions: dict[str, Callable[..., None]] = {"save": _save_here, "predict": _predict_here}
    try:
        actions[sys.argv[1]](*sys.argv[2:])
    except Exception as error:
        sys.exit(one_line(error))
