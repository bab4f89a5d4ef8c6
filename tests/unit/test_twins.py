"""The Keras and the PyTorch side do the same work: same weights, outputs, updates, statistics."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.unit.measure_engine import LABELS, OPTIMIZERS, SHAPES, WRONG
from trainers.contract import SMALLEST_IMAGE
from trainers.recipes import BUILT_IN_MODELS

pytestmark = pytest.mark.trains

PARAMETERS = {
    "tutorial_cnn": 122_570,
    "lenet5": 62_006,
    "resnet9": 6_573_120,
    "resnet18": 11_173_962,
    "speednet": 373_824,
}
FRAMEWORKS = ("keras", "torch")

Measured = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    root = tmp_path_factory.mktemp("twins")
    processes = {}
    for framework in FRAMEWORKS:
        command = [
            sys.executable,
            "-m",
            "tests.unit.measure_engine",
            framework,
            str(root / f"{framework}.npz"),
        ]
        processes[framework] = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    results = {}
    for framework, process in processes.items():
        _, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
        with np.load(root / f"{framework}.npz") as archive:
            results[framework] = {name: archive[name] for name in archive.files}
    return results


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", BUILT_IN_MODELS)
def test_same_layers_and_same_outputs(measured: Measured, model: str, shape: tuple[int, ...]) -> None:
    key = f"{model}/{'x'.join(map(str, shape))}"
    keras, torch = (measured[framework] for framework in FRAMEWORKS)
    assert str(keras[f"shapes/{key}"]) == str(torch[f"shapes/{key}"])
    assert keras[f"outputs/{key}"] == pytest.approx(torch[f"outputs/{key}"], rel=1e-3, abs=1e-4)
    assert np.ptp(keras[f"outputs/{key}"]) > 0.01


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_smallest_images_are_enough(measured: Measured, framework: str) -> None:
    for model in SMALLEST_IMAGE:
        assert measured[framework][f"smallest/{model}"].shape == (1, 7)


@pytest.mark.parametrize("model", BUILT_IN_MODELS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parameter_counts_are_the_published_ones(measured: Measured, framework: str, model: str) -> None:
    assert measured[framework][f"parameters/{model}"] == PARAMETERS[model]


@pytest.mark.parametrize("model", BUILT_IN_MODELS)
def test_both_frameworks_count_the_same_arithmetic(measured: Measured, model: str) -> None:
    keras, torch = (int(measured[framework][f"flops/{model}"]) for framework in FRAMEWORKS)
    assert keras == torch == measured["torch"][f"counted/{model}"]
    if model == "tutorial_cnn":
        convolutions = 30 * 30 * 32 * 27 + 13 * 13 * 64 * 288 + 4 * 4 * 64 * 576
        assert torch == 2 * (convolutions + 1024 * 64 + 64 * 10)


def test_matrix_products_reach_what_a_processor_can(measured: Measured) -> None:
    for framework in FRAMEWORKS:
        assert 1e9 < measured[framework]["matmul"] < 1e14


@pytest.mark.parametrize("place", range(len(OPTIMIZERS)), ids=lambda place: str(OPTIMIZERS[place]))
def test_same_losses_and_weights_step_by_step(measured: Measured, place: int) -> None:
    keras, torch = (measured[framework] for framework in FRAMEWORKS)
    assert keras[f"losses/{place}"] == pytest.approx(torch[f"losses/{place}"], rel=1e-4)
    assert keras[f"logits/{place}"] == pytest.approx(torch[f"logits/{place}"], abs=1e-2)
    assert np.ptp(keras[f"losses/{place}"]) > 0.1, "the steps must have moved the weights"


def test_examples_count_by_the_weights_of_their_classes(measured: Measured) -> None:
    labels, smoothing = LABELS[:16], 0.1
    weights = len(LABELS) / (10 * np.bincount(LABELS, minlength=10))
    targets = np.eye(10)[labels] * (1 - smoothing) + smoothing / 10
    for framework in FRAMEWORKS:
        logits = measured[framework]["weighted/logits"].astype(np.float64)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = (weights[labels] * -(targets * log_probabilities).sum(axis=1)).sum()
        assert measured[framework]["weighted/losses"][0] == pytest.approx(expected, rel=1e-5)
        assert expected != pytest.approx(-(targets * log_probabilities).sum(), rel=1e-2)
    keras, torch = (measured[framework]["weighted/losses"] for framework in FRAMEWORKS)
    assert keras == pytest.approx(torch, rel=1e-4)


def test_batch_normalisation_keeps_the_same_statistics(measured: Measured) -> None:
    keras, torch = (measured[framework] for framework in FRAMEWORKS)
    assert keras["norm/losses"] == pytest.approx(torch["norm/losses"], rel=1e-4)
    assert keras["norm/logits"] == pytest.approx(torch["norm/logits"], abs=5e-3)


def test_the_fast_recipe_is_the_same_work(measured: Measured) -> None:
    keras, torch = (measured[framework] for framework in FRAMEWORKS)
    assert keras["fast/losses"] == pytest.approx(torch["fast/losses"], rel=1e-4)
    assert keras["fast/correct"] == torch["fast/correct"]
    assert keras["fast/averaged"] == pytest.approx(torch["fast/averaged"], abs=5e-3)
    names = [name for name in keras if name.startswith(("fast/weight/", "fast/gradient/"))]
    assert len(names) == 16 + 10
    for name in names:
        # As pytest.approx(rel=1e-2, abs=2e-3), which takes seconds for so many numbers.
        assert (np.abs(keras[name] - torch[name]) <= np.maximum(1e-2 * np.abs(torch[name]), 2e-3)).all(), name


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_failing_evaluation_of_averaged_weights_leaves_training_as_it_was(
    measured: Measured, framework: str
) -> None:
    found = measured[framework]
    assert not np.allclose(found["failed/averaged"], found["failed/before"])
    assert np.array_equal(found["failed/after"], found["failed/before"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_wrong_parts_of_a_users_own_are_one_sentence(measured: Measured, framework: str) -> None:
    needed = {
        "keras": "a keras.optimizers.Optimizer is needed",
        "torch": "a torch.optim.Optimizer is needed, or a pair of one and a torch.optim.lr_scheduler.LRScheduler",
    }
    assert [str(measured[framework][f"wrong/{place}"]) for place in range(len(WRONG))] == [
        f"optimizer 'tests.unit.own_models:no_optimizer' returns dict; {needed[framework]}",
        "optimizer 'tests.unit.own_models:no_such_function': 'tests.unit.own_models' has no function "
        "'no_such_function'",
        "loss 'tests.unit.own_models:one_loss' gives shape () for two examples; shape (2,) is needed, one loss for "
        "each",
        "loss 'no_such_module:loss': cannot import 'no_such_module': No module named 'no_such_module'",
    ]


@pytest.mark.parametrize("model", ["tutorial_cnn", "speednet", "lenet5", "within an epoch"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    measured: Measured, framework: str, model: str
) -> None:
    assert measured[framework][f"resumed/{model}"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_bfloat16_trains_near_float32(measured: Measured, framework: str) -> None:
    exact, mixed = (measured[framework][f"precision/{name}"] for name in ("float32", "bfloat16"))
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.02)
    assert str(measured[framework]["dtype/bfloat16"]) == "float32"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_seeds_give_other_weights(measured: Measured, framework: str) -> None:
    assert not np.allclose(measured[framework]["seed/0"], measured[framework]["seed/1"])
