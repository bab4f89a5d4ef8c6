"""The check of own models before training: one process for each framework tries models of all kinds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution import model_checks
from orchestrator.execution.monitoring import environment
from orchestrator.experiment import reader
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import preflight
from tests.conftest import ROOT, tandem
from trainers.errors import InputError
from trainers.model_check import Found

pytestmark = pytest.mark.trains

NEEDED = "are needed, one for each class"
TORCH: dict[str, tuple[dict[str, Any], str | None]] = {
    "softmax": (
        {},
        "model 'M:softmax' gives probabilities: its outputs lie between 0 and 1 and add up to 1; logits are needed, "
        "so leave out the last softmax",
    ),
    "log_softmax": ({}, None),
    "Auxiliary": ({}, None),
    "Mapped": ({"find_unused_parameters": True}, None),
    "Unnamed": ({}, f"gives a dict without `logits` for one image; logits of shape (1, 10) {NEEDED}"),
    "Pair": ({}, "gives a tuple of 2 outputs for one image"),
    "Features": ({}, "gives shape (16, 8) in training; logits of shape (n, 10) are needed, alone, as `logits` of a"),
    "Labels": ({}, "gives logits of type torch.int64; floating-point numbers are needed"),
    "Infinite": ({}, "gives logits that are NaN or infinite for 16 of 16 images"),
    "norm": (
        {"batch_size": 4},
        "batch_size 4 leaves a worker one image of the last batch, and batch normalization '1' of model 'M:norm' has "
        "no variance of a single value; choose another batch_size",
    ),
    "frozen": ({}, None),
    "all_frozen": ({}, "model 'M:all_frozen' has no trainable weights"),
    "lazy": ({}, None),
    "thousand": ({}, f"gives shape (1, 1000) for one image; logits of shape (1, 10) {NEEDED}"),
    "of_28_pixels": (
        {},
        "model 'M:of_28_pixels' takes images of 28x28 pixels but not of 8x8; set data.image_size: 28, or build the "
        "model for the image_shape that its function gets",
    ),
    "Unused": (
        {},
        "model 'M:Unused' does not use its weights auxiliary.weight, auxiliary.bias in training, which fails on "
        "several workers; remove them, or set find_unused_parameters: true",
    ),
    "Raising": ({}, "RuntimeError: no such thing (checked_torch.py, line LINE)"),
    "nothing": ({}, "model 'M:nothing' returns NoneType; a torch Module is needed"),
    "three_arguments": ({}, "missing 1 required positional argument: 'width'"),
    "missing_package": ({}, "ModuleNotFoundError: No module named 'no_such_package' (checked_torch.py, line "),
    "no_such_function": ({}, "'tests.unit.checked_torch' has no function 'no_such_function'"),
    "lazy ": ({"loss": "M:nan_loss"}, "the loss of the first batch is NaN, before any update of the weights; look at"),
}  # fmt: skip
"""By function: fields of the arm, and what is said of it; a space sets arms with the same model apart."""
KERAS: dict[str, tuple[dict[str, Any], str | None]] = {
    "softmax": ({}, "model 'M:softmax' gives probabilities"),
    "mapped": ({}, None),
    "pair": ({}, f"gives a list of 2 outputs for one image; logits of shape (1, 10) {NEEDED}"),
    "one_sigmoid": ({}, f"gives shape (1, 1) for one image; logits of shape (1, 10) {NEEDED}"),
    "augmented": ({}, None),
    "of_28_pixels": ({}, "takes images of 28x28 pixels but not of 8x8; set data.image_size: 28"),
    "raising": ({}, "no such thing"),
}
UNSAVED = "trains, but tandem model cannot save it, or not so that it loads:"
NOTES: dict[str, tuple[str, dict[str, Any], str]] = {
    "Branching": ("torch", {"find_unused_parameters": True}, f"model 'M:Branching' {UNSAVED}"),
    "Hungry": (
        "torch",
        {},
        "a step with 16 images, a worker's share of batch_size 32, ran out of memory here",
    ),
    "with_lambda": ("keras", {}, f"model 'M:with_lambda' {UNSAVED}"),
    "auxiliary": ("keras", {}, f"model 'M:auxiliary' {UNSAVED}"),
    "norm": (
        "keras",
        {"batch_size": 4},
        "batch_size 4 leaves a worker one image of the last batch, and batch normalization 'last_norm' of model",
    ),
}


def arm(framework: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    module = f"tests.unit.checked_{framework}"
    own = {
        key: str(value).replace("M:", f"{module}:") if key == "loss" else value
        for key, value in fields.items()
    }
    return {"framework": framework, "model": f"{module}:{name.strip()}", "batch_size": 32, "seeds": 1} | own


def label(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.replace(" ", "-again").lower())


def experiment(root: Path, arms: dict[str, dict[str, Any]], *, workers: int = 1) -> Experiment:
    return reader.load_mapping(
        {"name": "tried", "arms": arms, "scale": {"workers": workers}, "storage": str(root / "results")}
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What one process of each framework says of all of the models, for two workers."""
    outcomes = {}
    for framework, cases in (("torch", TORCH), ("keras", KERAS)):
        root = tmp_path_factory.mktemp(framework)
        arms = {label(name): arm(framework, name, fields) for name, (fields, _) in cases.items()}
        arms |= {
            label(name): arm(framework, name, fields)
            for name, (of, fields, _) in NOTES.items()
            if of == framework
        }
        request = model_checks.make_request(experiment(root, arms, workers=2), framework, [*arms], ROOT)
        (root / "request.json").write_text(request.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-m", "trainers.model_check", root / "request.json", root / "found.json"],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outcomes[framework] = Found.model_validate_json((root / "found.json").read_text())
    return outcomes


def of(name: str, sentences: list[str]) -> list[str]:
    return [sentence for sentence in sentences if sentence.startswith(f"arms.{label(name)}: ")]


@pytest.mark.parametrize(
    ("framework", "name", "told"),
    [("torch", name, told) for name, (_, told) in TORCH.items()]
    + [("keras", name, told) for name, (_, told) in KERAS.items()],
)
def test_what_is_wrong_with_a_model_is_one_sentence(
    found: dict[str, Found], framework: str, name: str, told: str | None
) -> None:
    problems = of(name, found[framework].problems)
    if told is None:
        assert not problems
        return
    source = (ROOT / "tests" / "unit" / f"checked_{framework}.py").read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if "# line of the sentence" in text)
    (sentence,) = problems
    assert told.replace("M:", f"tests.unit.checked_{framework}:").replace("LINE", str(line)) in sentence
    assert len(sentence.splitlines()) == 1
    if name == "raising":
        assert sentence.endswith(f"(checked_keras.py, line {line})")


@pytest.mark.parametrize("name", NOTES)
def test_what_does_not_fail_but_should_be_known_is_a_note(found: dict[str, Found], name: str) -> None:
    framework, _, told = NOTES[name]
    (note,) = of(name, found[framework].notes)
    assert told.replace("M:", f"tests.unit.checked_{framework}:") in note
    assert len(note.splitlines()) == 1
    notes = {note.partition(":")[0] for outcome in found.values() for note in outcome.notes}
    assert notes == {f"arms.{label(name)}" for name in NOTES}, "the others can be saved"


MODELS = """
from torch import nn

def good(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

def bad(shape, classes):
    return nn.Sequential(good(shape, classes), nn.Softmax(dim=1))
"""
EXPERIMENT = """
name: own
data: {{source: digits, limit: 100}}
defaults: {{framework: torch, epochs: 1, seeds: 1, batch_size: 20}}
arms: {{first: {{model: "mine:good"}}, second: {{model: "mine:{second}"}}, third: {{}}}}
storage: results
"""


def written(root: Path, *, second: str) -> Path:
    (root / "mine.py").write_text(MODELS)
    file = root / "experiment.yaml"
    file.write_text(EXPERIMENT.format(second=second))
    return file


def test_check_names_what_it_tried_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = written(tmp_path, second="good")
    done = tandem("check", file, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["own_parts"] == {"arms": ["first", "second"], "notes": [], "left_out": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.yaml", "mine.py"]


@pytest.mark.serial
@pytest.mark.ray
def test_run_refuses_a_wrong_model_before_it_trains_and_tries_each_content_once(tmp_path: Path) -> None:
    done = tandem("run", written(tmp_path, second="bad"), cwd=tmp_path)
    assert done.returncode == 2
    assert "tandem: arms.second: model 'mine:bad' gives probabilities" in done.stderr
    assert not (tmp_path / "results" / "own" / "experiment.json").exists()

    file = written(tmp_path, second="good")
    assert tandem("run", file, cwd=tmp_path).returncode == 0
    kept = tmp_path / "results" / "own" / "model-check.json"
    first = kept.read_text(), kept.stat().st_mtime_ns
    assert tandem("run", file, cwd=tmp_path).returncode == 0
    assert (kept.read_text(), kept.stat().st_mtime_ns) == first, "it was not tried again"


def test_a_check_is_repeated_when_file_data_or_modules_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, second="good")
    tried = []
    monkeypatch.setattr(
        model_checks,
        "check",
        lambda *_, **__: tried.append(1) or model_checks.ModelChecks(arms=[], notes=[], left_out=[]),
    )

    def checked(*overrides: str) -> bool:
        before = len(tried)
        wanted = reader.load(file, [f"storage={tmp_path / 'results'}", *overrides])
        prepared = preflight.prepare(wanted, preflight.open_records(wanted))
        model_checks.check_once(prepared, module_path=tmp_path)
        return len(tried) > before

    assert checked() and not checked()
    assert checked("first.batch_size=10") and not checked("first.batch_size=10")
    assert checked("first.batch_size=10", "data.limit=90")
    assert checked() and not checked()
    (tmp_path / "helper.py").write_text("")
    assert checked() and not checked()
    (tmp_path / "mine.py").write_text(MODELS + "\n")
    assert checked() and not checked()
    assert not checked("arms.first.model=lenet5", "arms.second.model=lenet5"), "nothing of the user's own"


def test_without_a_framework_the_checks_that_are_left_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "missing_frameworks", lambda names: [*names])
    wanted = reader.load(written(tmp_path, second="good"), [f"storage={tmp_path / 'results'}"])
    prepared = preflight.prepare(wanted, preflight.open_records(wanted))
    result = model_checks.check(prepared, module_path=tmp_path)
    assert result.arms == []
    assert result.left_out == [
        "the training step and the prediction of arms.first, arms.second are left out: PyTorch is not installed here; "
        "pip install 'tandem-compare[torch]'"
    ]
    model_checks.check_once(prepared, module_path=tmp_path)
    assert not (tmp_path / "results").exists(), "what was left out did not pass"


def test_gpus_that_are_elsewhere_leave_the_checks_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "gpus", list)
    overrides = [f"storage={tmp_path / 'results'}", "scale.gpus_per_worker=1"]
    wanted = reader.load(written(tmp_path, second="good"), overrides)
    result = model_checks.check(
        preflight.prepare(wanted, preflight.open_records(wanted)), module_path=tmp_path
    )
    (told,) = result.left_out
    assert told.endswith("are left out: the experiment trains on GPUs, and there is none here")


def test_a_check_that_ends_early_is_named(tmp_path: Path) -> None:
    wanted = experiment(tmp_path, {"torch": arm("torch", "gone", {})})
    result = model_checks.check(preflight.prepare(wanted, preflight.open_records(wanted)), module_path=ROOT)
    (told,) = result.left_out
    assert told.startswith("the check of own parts in PyTorch ended with code 3") and not result.arms


def test_find_unused_parameters_is_for_pytorch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="find_unused_parameters: is for PyTorch"):
        experiment(tmp_path, {"keras": {"framework": "keras", "find_unused_parameters": True}})
