"""A trained model leaves its experiment and gives the same answers elsewhere, in both frameworks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator import spec_file
from orchestrator.records import ExperimentRecords
from orchestrator.storage import Storage
from tests.conftest import tandem
from trainers.data import open_dataset
from trainers.processor import has_bfloat16

EXPERIMENT = """
name: digits
data: {{path: {storage}/oblong.npz}}
defaults:
  model: speednet
  precision: auto
  epochs: 3
  seeds: [0, 1]
  optimizer: {{name: adamw, learning_rate: 0.003}}
  weight_average: 0.9
  flip_averaging: true
  shift_averaging: 1
  whitening: {{patch: 2}}
arms:
  keras: {{framework: keras}}
  torch: {{framework: torch}}
scale: {{workers: 2}}
storage: {storage}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("products")
    digits = load_digits()
    oblong = np.pad(digits.images * (255 / 16), ((0, 0), (2, 1), (0, 0))).astype(np.uint8)
    np.savez(root / "oblong.npz", images=oblong, labels=digits.target)
    file = root / "experiment.yaml"
    file.write_text(EXPERIMENT.format(storage=root))
    done = tandem("run", file)
    assert done.returncode == 0, done.stderr
    return root / "digits"


@pytest.mark.parametrize("arm", ["keras", "torch"])
def test_the_saved_model_answers_as_the_run_did(trained: Path, tmp_path: Path, arm: str) -> None:
    saved = tandem("model", trained, tmp_path / "model", "--arm", arm)
    assert saved.returncode == 0, saved.stderr
    described = json.loads((tmp_path / "model/tandem-model.json").read_text())
    assert described["framework"] == arm
    card = (tmp_path / "model/README.md").read_text()
    assert "test accuracy of this run" in card and "speednet" in card

    if arm == "keras":
        with zipfile.ZipFile(tmp_path / "model/model.keras") as archive:
            layers = archive.read("config.json").decode()
        assert '"synchronized": false' in layers, "other backends of Keras refuse a layer that is"
        assert '"synchronized": true' not in layers

    dataset = open_dataset(spec_file.load(trained.parent / "experiment.yaml").data)
    run = ExperimentRecords(Storage(str(trained))).run(described["run"])
    assert run.attempts()[-1]["precision"] == ("bfloat16" if has_bfloat16() else "float32")
    predictions = run.predictions()
    assert predictions is not None
    files = []
    for place in range(40):
        files.append(tmp_path / f"{place}.png")
        Image.fromarray(np.asarray(dataset.test_images[place])[..., 0]).save(files[-1])
    told = tandem("predict", tmp_path / "model", *files, "--json")
    assert told.returncode == 0, told.stderr
    answers = json.loads(told.stdout)
    names = described["class_names"]
    assert [answer["label"] for answer in answers] == [names[label] for label in predictions["answers"][:40]]
    probabilities = [answer["probability"] for answer in answers]
    assert probabilities == pytest.approx(predictions["confidences"][:40].tolist(), abs=1e-4)

    session = onnxruntime.InferenceSession(tmp_path / "model/model.onnx")
    (images,) = session.get_inputs()
    (elsewhere,) = session.run(None, {images.name: np.asarray(dataset.test_images[:40])})
    assert elsewhere.max(axis=1) == pytest.approx(probabilities, abs=1e-4)
    assert elsewhere.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-4)


def test_the_best_arm_is_taken_and_what_is_wrong_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    saved = tandem("model", trained, tmp_path / "best")
    assert saved.returncode == 0, saved.stderr
    results = json.loads((trained / "report/results.json").read_text())
    best = max(results["arms"], key=lambda arm: arm["test_accuracy"]["mean"])
    assert json.loads((tmp_path / "best/tandem-model.json").read_text())["arm"] == best["name"]
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for wrong, words in [
        (tandem("model", trained, tmp_path / "x", "--arm", "jax"), "no arm 'jax' has a finished run"),
        (tandem("predict", tmp_path, text), "holds no model of tandem's"),
        (tandem("predict", tmp_path / "best", tmp_path / "none.png"), "there is no such file"),
        (tandem("predict", tmp_path / "best", text), "cannot be decoded"),
    ]:
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr, (
            wrong.stderr
        )
