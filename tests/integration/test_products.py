"""A trained model leaves its experiment and gives the same answers elsewhere, in both frameworks."""

from __future__ import annotations

import json
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
from trainers.processor import has_bfloat16

pytestmark = pytest.mark.serial

FRAMEWORKS = ("keras", "torch")


@pytest.fixture(scope="module")
def results(trained: dict[int, ExperimentRecords]) -> Path:
    return Path(trained[2].storage.url)


def best_arm(results: Path) -> dict[str, Any]:
    arms = json.loads((results / "report/results.json").read_text())["arms"]
    return max(arms, key=lambda arm: arm["test_accuracy"]["mean"])


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
    """An arm with averaged weights of each framework; the best arm is saved without its name."""
    root, best = tmp_path_factory.mktemp("models"), best_arm(fetched)

    def save(framework: str) -> Path:
        named = [] if best["framework"] == framework else ["--arm", f"{framework}-averaged"]
        done = tandem("model", fetched, root / framework, *named)
        assert done.returncode == 0, done.stderr
        return root / framework

    with ThreadPoolExecutor() as pool:
        return dict(zip(FRAMEWORKS, pool.map(save, FRAMEWORKS), strict=True))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_saved_model_answers_as_the_run_did(
    results: Path, models: dict[str, Path], tmp_path: Path, framework: str
) -> None:
    saved = models[framework]
    described = json.loads((saved / "tandem-model.json").read_text())
    assert described["framework"] == framework and described["arm"] == f"{framework}-averaged"
    card = (saved / "README.md").read_text()
    assert "test accuracy of this run" in card and "speednet" in card

    if framework == "keras":
        with zipfile.ZipFile(saved / "model.keras") as archive:
            layers = archive.read("config.json").decode()
        assert '"synchronized": false' in layers, "other backends of Keras refuse a layer that is"
        assert '"synchronized": true' not in layers

    dataset = open_dataset(reader.load(results.with_suffix(".yaml")).data)
    run = ExperimentRecords(Storage(str(results))).run(described["run"])
    assert run.attempts()[-1]["precision"] == ("bfloat16" if has_bfloat16() else "float32")
    predictions = run.predictions()
    assert predictions is not None
    files = []
    for place in range(40):
        files.append(tmp_path / f"{place}.png")
        Image.fromarray(np.asarray(dataset.test_images[place])[..., 0]).save(files[-1])
    told = tandem("predict", saved, *files, "--json")
    assert told.returncode == 0, told.stderr
    answers = json.loads(told.stdout)
    names = described["class_names"]
    assert [answer["label"] for answer in answers] == [names[label] for label in predictions["answers"][:40]]
    probabilities = [answer["probability"] for answer in answers]
    assert probabilities == pytest.approx(predictions["confidences"][:40].tolist(), abs=1e-4)

    session = onnxruntime.InferenceSession(saved / "model.onnx")
    (images,) = session.get_inputs()
    (elsewhere,) = session.run(None, {images.name: np.asarray(dataset.test_images[:40])})
    assert elsewhere.max(axis=1) == pytest.approx(probabilities, abs=1e-4)
    assert elsewhere.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-4)


def test_what_is_wrong_is_one_sentence(results: Path, models: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for wrong, words in [
        (tandem("model", results, tmp_path / "x", "--arm", "jax"), "no arm 'jax' has a finished run"),
        (tandem("predict", tmp_path, text), "holds no model of tandem's"),
        (tandem("predict", models["torch"], tmp_path / "none.png"), "there is no such file"),
        (tandem("predict", models["torch"], text), "cannot be decoded"),
    ]:
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr, (
            wrong.stderr
        )
