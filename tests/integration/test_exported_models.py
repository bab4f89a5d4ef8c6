"""A saved model predicts what its run predicted, in both frameworks and in both precisions of training."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from orchestrator.experiment import reader
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import tandem
from trainers.data import open_dataset

pytestmark = pytest.mark.serial

ARMS = {
    "keras-averaged": "bfloat16",
    "torch-averaged": "bfloat16",
    "keras-norm": "float32",
    "torch-norm": "float32",
}
"""What is saved, and what it was trained in."""
TOLERANCE = 1e-4
"""Of probabilities, as docs/commands.md states."""


@pytest.fixture(scope="module")
def results(trained: dict[int, ExperimentRecords]) -> Path:
    return Path(trained[2].storage.url)


def best_arm(results: Path) -> dict[str, Any]:
    arms = json.loads((results / "report/results.json").read_text())["arms"]
    return max(arms, key=lambda arm: arm["score"]["mean"])


@pytest.fixture(scope="module")
def fetched(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results on a machine that has nothing of the data."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "results"
    assert tandem("fetch", results, elsewhere, "--checkpoints").returncode == 0
    document = (elsewhere / "experiment.json").read_text()
    (elsewhere / "experiment.json").write_text(document.replace("oblong.npz", "away.npz"))
    assert "away.npz" in (elsewhere / "experiment.json").read_text()
    return elsewhere


@pytest.fixture(scope="module")
def models(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models by arm; the best arm is saved without its name."""
    root, best = tmp_path_factory.mktemp("models"), best_arm(fetched)
    assert best["name"] in ARMS

    def save(arm: str) -> Path:
        named = [] if best["name"] == arm else ["--arm", arm]
        done = tandem("model", fetched, root / arm, *named)
        assert done.returncode == 0, done.stderr
        return root / arm

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ARMS, pool.map(save, ARMS), strict=True))


@pytest.mark.parametrize(("arm", "precision"), ARMS.items())
def test_the_saved_model_predicts_as_the_run_did(
    results: Path, models: dict[str, Path], tmp_path: Path, arm: str, precision: str
) -> None:
    saved = models[arm]
    described = json.loads((saved / "tandem-model.json").read_text())
    assert described["framework"] == arm.partition("-")[0] and described["arm"] == arm
    card = (saved / "README.md").read_text()
    assert "test accuracy of this run" in card and "speednet" in card

    if described["framework"] == "keras":
        with zipfile.ZipFile(saved / "model.keras") as archive:
            layers = archive.read("config.json").decode()
        assert '"synchronized": false' in layers, "other backends of Keras refuse a layer that is"
        assert '"synchronized": true' not in layers

    dataset = open_dataset(reader.load(results.with_suffix(".yaml")).data)
    run = ExperimentRecords(Storage(str(results))).run(described["run"])
    assert run.attempts()[-1]["precision"] == precision
    predictions = run.predictions()
    assert predictions is not None
    files = []
    for place in range(40):
        files.append(tmp_path / f"{place}.png")
        Image.fromarray(np.asarray(dataset.test_images[place])[..., 0]).save(files[-1])
    told = tandem("predict", saved, *files, "--json")
    assert told.returncode == 0, told.stderr
    predicted = json.loads(told.stdout)
    names = described["class_names"]
    assert [entry["label"] for entry in predicted] == [
        names[label] for label in predictions["predicted"][:40]
    ]
    probabilities = [entry["probability"] for entry in predicted]
    assert probabilities == pytest.approx(predictions["confidences"][:40].tolist(), abs=TOLERANCE)

    session = onnxruntime.InferenceSession(saved / "model.onnx")
    (images,) = session.get_inputs()
    (elsewhere,) = session.run(None, {images.name: np.asarray(dataset.test_images[:40])})
    assert elsewhere.max(axis=1) == pytest.approx(probabilities, abs=TOLERANCE)
    assert elsewhere.sum(axis=1) == pytest.approx(np.ones(40), abs=TOLERANCE)


def test_a_folder_is_classified_into_a_file(models: dict[str, Path], results: Path, tmp_path: Path) -> None:
    dataset = open_dataset(reader.load(results.with_suffix(".yaml")).data)
    folder = tmp_path / "new" / "below"
    folder.mkdir(parents=True)
    for place in range(6):
        Image.fromarray(np.asarray(dataset.test_images[place])[..., 0]).save(folder / f"{place}.png")
    (folder / "broken.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture either")
    model = models["torch-norm"]
    told = tandem("predict", model, tmp_path / "new", "--top", "3")
    assert told.returncode == 0 and len(told.stdout.splitlines()) == 6
    assert all(line.count("%") == 3 for line in told.stdout.splitlines())
    assert f"note: {folder / 'broken.png'} cannot be read and was left out" in told.stderr
    for name in ("out.csv", "out.json"):
        done = tandem("predict", model, tmp_path / "new", "--top", "2", "--out", tmp_path / name)
        assert done.returncode == 0 and "6 predictions are in" in done.stdout, done.stderr
    entries = json.loads((tmp_path / "out.json").read_text())
    with open(tmp_path / "out.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    for entry, row in zip(entries, rows, strict=True):
        assert entry["label"] == entry["top"][0]["label"] == row["label_1"]
        assert entry["top"][1]["probability"] == float(row["probability_2"])
    wrong = tandem("predict", model, tmp_path / "new", "--out", tmp_path / "out.txt")
    assert wrong.returncode == 2 and "give a file that ends in .csv or .json" in wrong.stderr


@pytest.mark.parametrize("arm", ["keras-norm", "torch-norm"])
def test_the_program_in_the_card_gives_what_tandem_predicts(
    models: dict[str, Path], results: Path, tmp_path: Path, arm: str
) -> None:
    dataset = open_dataset(reader.load(results.with_suffix(".yaml")).data)
    directory = shutil.copytree(models[arm], tmp_path / "model")
    picture = directory / "picture.jpg"
    Image.fromarray(np.asarray(dataset.test_images[0])[..., 0]).save(picture, "PNG")
    (predicted,) = json.loads(tandem("predict", directory, picture, "--json").stdout)
    program = (directory / "README.md").read_text().partition("```python")[2].partition("```")[0]
    assert "tandem" not in program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=directory
    )
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()
    assert label == predicted["label"] and float(probability) == pytest.approx(
        predicted["probability"], abs=TOLERANCE
    )


def test_the_choice_of_arm_is_explained(fetched: Path, tmp_path: Path) -> None:
    best = best_arm(fetched)["name"]
    other = next(arm for arm in ARMS if arm != best)
    told = tandem("model", fetched, tmp_path / "best").stdout
    assert told.startswith(f"arm {best}, the best by test accuracy; seed 3; --arm exports another: ")
    assert other in told.splitlines()[0]
    assert tandem("model", fetched, tmp_path / "other", "--arm", other).stdout.startswith(
        f"arm {other}; seed "
    )


def test_what_is_wrong_is_one_sentence(results: Path, models: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for wrong, words in [
        (tandem("model", results, tmp_path / "x", "--arm", "jax"), "no arm 'jax' has a finished run"),
        (tandem("predict", tmp_path, text), "holds no model of tandem's"),
        (tandem("predict", models["torch-norm"], tmp_path / "none.png"), "there is no such file"),
        (tandem("predict", models["torch-norm"], text), "cannot be decoded"),
    ]:
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr, (
            wrong.stderr
        )
