"""The winner of an experiment as a model that others can use: weights, preprocessing, class names, and a card.

Each framework saves and loads in a process of its own: the two do not live in one. What only saving needs is imported
there, so that a prediction does not wait for it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.execution import environment
from trainers.data.decoding import Broken, UnreadableError, decode
from trainers.data.labelled import Encoded
from trainers.data.spec import PictureSpec
from trainers.errors import InputError, TandemError, one_line
from trainers.loop import evaluation_batch

if TYPE_CHECKING:
    from orchestrator.analysis.arms import ArmSummary, RunSummary
    from orchestrator.analysis.compare import Comparison
    from orchestrator.store.records import ExperimentRecords

DESCRIPTION = "tandem-model.json"
_CARD = """# {experiment}: {arm}

{framework}, `{model}`, {parameters:,} trainable weights, trained by tandem.

| | |
|---|---|
| classes | {classes} |
| input | uint8 pixels [n, {height}, {width}, {channels}]; the preprocessing is in the model |
| output | probabilities, in the order of the classes |
| test accuracy of this run | {accuracy:.2%} on {test_images:,} images |
| {metric} of the arm | {arm_score} over {seeds} seeds, with the 95 % interval |
| trained on | {train_images:,} images, data fingerprint `{fingerprint}` |
| recipe | {recipe} |
| run | `{run}`, seed {seed} |

{conclusion}

The run was chosen among the arm's seeds by its validation accuracy, never by the test images. What the data lacks, the
model has not learned: it gives one of the classes above to any picture.

Try it: `tandem predict DIRECTORY picture.jpg`
"""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one picture."""

    image: str
    label: str
    probability: float


def save(records: ExperimentRecords, directory: Path, *, arm: str | None) -> list[str]:
    """Write the model of an experiment's best arm, or of one by name; returns the names of the files.

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
    (directory / "README.md").write_text(_card(comparison, chosen, run))
    return [*files, DESCRIPTION, "README.md"]


def predict(directory: Path, images: list[Path]) -> list[Prediction]:
    """What a saved model says of picture files, resized to what it was trained on.

    Raises:
        InputError: there is no model, its framework is not installed, or a picture cannot be read.
    """
    try:
        description = json.loads((directory / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} holds no model of tandem's; give a directory that tandem model wrote"
        ) from error
    environment.require_frameworks([description["framework"]])
    missing = [str(image) for image in images if not image.is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)}: there is no such file")
    height, width, channels = description["image_shape"]
    encoded = [Encoded.of_file(image, str(image)) for image in images]
    broken: list[Broken] = []
    spec = PictureSpec.model_validate(description.get("pictures", {}))
    pixels = [*decode(encoded, (height, width, channels), spec, broken)]
    if broken:
        raise UnreadableError.of(broken, images=len(images), remedy="")
    with tempfile.TemporaryDirectory() as scratch:
        np.save(Path(scratch) / "images.npy", np.concatenate(pixels))
        _in_process("predict", str(directory), scratch, module_path=str(directory))
        probabilities = np.load(Path(scratch) / "probabilities.npy", allow_pickle=False)
    names = description["class_names"]
    return [
        Prediction(str(image), names[int(row.argmax())], float(row.max()))
        for image, row in zip(images, probabilities, strict=True)
    ]


def picture_fields(data: dict[str, Any]) -> dict[str, Any]:
    """How the pictures of an experiment became pixels."""
    return {field: data[field] for field in PictureSpec.model_fields if field in data}


def _arm(comparison: Comparison, name: str | None) -> ArmSummary:
    from orchestrator.analysis.sentences import ranked

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


def _card(comparison: Comparison, arm: ArmSummary, run: RunSummary) -> str:
    from orchestrator.experiment.spec import describe_value

    data = comparison.document["data"]
    height, width, channels = data["image_shape"]
    assert run.result is not None
    recipe = "; ".join(f"{key.replace('_', ' ')} {describe_value(arm.recipe[key])}" for key in arm.recipe)
    return _CARD.format(
        experiment=comparison.name,
        arm=arm.name,
        framework=environment.FRAMEWORK_NAMES[str(arm.framework)],
        model=arm.recipe["model"],
        parameters=arm.parameters or 0,
        classes=", ".join(data["class_names"]),
        height=height,
        width=width,
        channels=channels,
        accuracy=run.result["test_accuracy"],
        test_images=data["test_images"],
        metric=arm.metric.title,
        arm_score=arm.metric.interval(arm.score),
        seeds=len(arm.done),
        train_images=data["train_images"],
        fingerprint=data["fingerprint"][:16],
        recipe=recipe,
        run=run.id,
        seed=run.seed,
        conclusion=comparison.conclusion,
    )


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
