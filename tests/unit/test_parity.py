"""Parity: the three verdicts, the named differences, and each planted fault found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis import parity
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import parity_plan
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import ROOT
from tests.unit.synthetic import make_records
from trainers.contract import FRAMEWORKS
from trainers.parity.trace import sketch
from trainers.parity.update_rules import CORRECTION, EPSILON, VARIANCE, VELOCITY

pytestmark = pytest.mark.trains

Arrays = dict[str, np.ndarray]
STEPWISE = {
    "losses",
    "gradients",
    "moved",
    "off",
    "held",
    "factor",
    "statistics",
    "statistics_held",
}
NAMED = {
    "plain": [],
    "momentum": [],
    "one-cycle": [VELOCITY],
    "nesterov": [VELOCITY],
    "adam": [EPSILON],
    "adamw": [EPSILON],
    "slow square": [CORRECTION],
    "norm": [VARIANCE],
    "strided": [VARIANCE],
}
TORCH_FAULTS = {
    "epsilon placement in Adam": "adamw",
    "another epsilon": "adamw",
    "weight decay coupling": "adamw",
    "weight decay of Adam coupling": "adam",
    "weight decay of SGD coupling": "one-cycle",
    "weight decay on both sides": "one-cycle",
    "weight decay left out": "nesterov",
    "another beta": "adam",
    "momentum or its damping": "momentum",
    "Nesterov's momentum": "nesterov",
    "velocity in the other framework's units": "one-cycle",
    "velocity of the step before": "momentum",
    "learning rate": "plain",
    "batch-norm momentum": "norm",
    "batch-norm epsilon": "norm",
    "biased or unbiased batch-norm variance": "norm",
    "biased batch-norm variance": "norm",
    "padding of strided convolutions": "strided",
    "bias initialisation": "adamw",
    "loss reduction": "adamw",
    "epoch-end partial batches": "adamw",
}
KERAS_FAULTS = {
    "epsilon placement in Adam": "adamw",
    "weight decay left out": "one-cycle",
    "weight decay twice": "adamw",
    "velocity in the other framework's units": "one-cycle",
    "velocity without the learning rate": "one-cycle",
    "Nesterov's momentum": "nesterov",
    "batch-norm momentum": "norm",
    "batch-norm epsilon": "norm",
}
CAUSES = {
    "weight decay of Adam coupling": "weight decay coupling",
    "weight decay of SGD coupling": "weight decay coupling",
    "biased batch-norm variance": "biased or unbiased batch-norm variance",
    "velocity without the learning rate": "learning rate in the velocity",
    # No usual mistake.
    "another epsilon": "",
    "weight decay on both sides": "",
    "another beta": "",
    "velocity of the step before": "",
    "weight decay twice": "",
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Arrays]]:
    """By framework and case, what `tests.unit.trace_faults` wrote."""
    by_framework: dict[str, dict[str, Arrays]] = {}
    for framework in FRAMEWORKS:
        output = tmp_path_factory.mktemp("parity") / f"{framework}.npz"
        command = [sys.executable, "-m", "tests.unit.trace_faults", framework, str(output)]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr[-3000:]
        cases = by_framework.setdefault(framework, {})
        with np.load(output) as archive:
            for name in archive.files:
                case, _, key = name.partition("/")
                cases.setdefault(case, {})[key] = archive[name]
    return by_framework


Traces = dict[str, dict[str, Arrays]]


def compared(traces: Traces, keras: str, torch: str) -> parity.Parity:
    return parity.compare(traces["keras"][keras], traces["torch"][torch], FRAMEWORKS)


def changed(trace: Arrays, **changes: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return trace | {name: change(trace[name]) for name, change in changes.items()}


@pytest.mark.parametrize("recipe", NAMED)
def test_the_frameworks_do_the_same_work_up_to_named_differences(traces: Traces, recipe: str) -> None:
    result = compared(traces, recipe, recipe)
    assert result.agrees, result.sentence()
    assert result.verdict == ("same work up to named differences" if NAMED[recipe] else "same work")
    assert [found.name for found in result.named] == NAMED[recipe]
    assert result.sentence().startswith(f"{result.verdict}: ")
    assert 0 < result.loss_difference < 1e-5
    assert result.update_difference < 1e-5
    for found in result.named:
        assert found.share > 1e-4
        assert found.sentence in result.sentence()


def test_rounding_is_not_a_difference(traces: Traces) -> None:
    result = compared(traces, "adamw", "rounding")
    assert result.agrees, result.sentence()


@pytest.mark.parametrize("fault", TORCH_FAULTS)
def test_a_fault_in_pytorch_is_found_and_named(traces: Traces, fault: str) -> None:
    result = compared(traces, TORCH_FAULTS[fault], fault)
    check_found(result, fault)
    if fault == "epoch-end partial batches":
        assert "step 4" in str(result.differs_at)
    if fault == "bias initialisation":
        assert "conv1.bias" in str(result.differs_at)
    assert "in keras" not in str(result.differs_at)


@pytest.mark.parametrize("fault", KERAS_FAULTS)
def test_a_fault_in_keras_is_found_and_named(traces: Traces, fault: str) -> None:
    result = compared(traces, fault, KERAS_FAULTS[fault])
    check_found(result, fault)
    if KERAS_FAULTS[fault] != "norm":
        assert "in keras is off its rule" in str(result.differs_at)


def check_found(result: parity.Parity, fault: str) -> None:
    assert result.verdict == "not the same work"
    assert result.sentence().startswith("not the same work: ")
    cause = CAUSES.get(fault, fault)
    if cause:
        assert any(found.startswith(cause) for found in result.likely_causes[:2]), result.sentence()


def test_losses_may_differ_by_a_ten_thousandth(traces: Traces) -> None:
    keras, torch = (traces[framework]["plain"] for framework in FRAMEWORKS)
    off = changed(torch, losses=lambda losses: losses * (1 + 2e-4))
    result = parity.compare(keras, off, FRAMEWORKS)
    assert "the loss differs at step 1 by 2.0e-04" in str(result.differs_at)
    assert parity.compare(keras, changed(torch, losses=lambda losses: losses * (1 + 5e-5)), FRAMEWORKS).agrees


@pytest.mark.parametrize(
    ("every", "by", "agrees"),
    [(1, 5e-4, True), (8, 0.05, True), (8, 0.2, False), (2, 0.05, False), (1, 2e-3, False)],
)
def test_a_winner_that_switches_now_and_then_is_no_difference(
    traces: Traces, every: int, by: float, agrees: bool
) -> None:
    alone = dict(traces["torch"]["plain"])
    alone |= {key: np.concatenate([alone[key]] * 2) for key in STEPWISE & alone.keys()}
    gradients = alone["gradients"].copy()
    gradients[::every] *= 1 + by
    result = parity.compare(alone, alone | {"gradients": gradients}, FRAMEWORKS)
    assert result.agrees == agrees, result.sentence()


@pytest.mark.parametrize(("share", "agrees"), [(2.0**-23, True), (2.0**-20, False)])
def test_what_float32_does_not_hold_is_no_difference(traces: Traces, share: float, agrees: bool) -> None:
    """Steps so small that rounding the weights after them is much of what they change."""
    keras, torch = (
        changed(traces[framework]["plain"], moved=lambda moved: moved * 1e-4) for framework in FRAMEWORKS
    )
    off = share * torch["held"]
    assert (off > 1e-3 * torch["moved"]).any(axis=1).all()
    assert parity.compare(keras, torch | {"off": off}, FRAMEWORKS).agrees == agrees


def test_models_that_differ_are_told_apart(traces: Traces) -> None:
    result = compared(traces, "plain", "norm")
    assert "the models have different layers" in str(result.differs_at)
    assert not result.agrees


def test_sketches_keep_differences() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for place in range(30):
        a, b = rng.normal(size=(2, 5000))
        sketched = np.linalg.norm(sketch(f"layer{place}", a) - sketch(f"layer{place}", b))
        ratios.append(sketched / np.linalg.norm(a - b))
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)
    assert np.std(ratios) < 0.2
    small = np.arange(5.0)
    assert np.array_equal(sketch("bias", small)[:5], small)


def test_the_verdict_is_in_the_first_paragraph_and_in_the_report(tmp_path: Path, traces: Traces) -> None:
    from orchestrator import report
    from orchestrator.analysis import compare
    from orchestrator.report.markdown import escape

    records = make_records(tmp_path / "x", {"keras": [0.9, 0.8], "torch": [0.9, 0.8]})
    experiment = compare.spec.from_json(records.document()["experiment"])
    (work,), missing = parity_plan.works(experiment)
    assert work.arms == ("keras", "torch")
    assert not missing
    key = work.key(records.document()["data"]["fingerprint"])
    stored = ExperimentRecords(Storage(str(tmp_path / "x")))
    markdown = tmp_path / "x" / "report" / "report.md"

    stored.keep_parity(key, "keras", traces["keras"]["adamw"])
    assert "same work" not in report.write(stored).conclusion

    stored.keep_parity(key, "torch", traces["torch"]["loss reduction"])
    written = report.write(stored)
    assert "Beware: the two frameworks do not do the same work" in written.conclusion
    assert "gradient" in written.conclusion
    assert "not the same work" in markdown.read_text().partition("## Parity")[2]

    stored.keep_parity(key, "torch", traces["torch"]["adamw"])
    written = report.write(stored)
    assert "do the same work on these recipes up to named differences: Keras' Adam adds" in written.conclusion
    section = markdown.read_text().partition("## Parity")[2]
    assert "same work up to named differences" in section
    assert escape("PyTorch with epsilon equals Keras with epsilon * sqrt(1 - beta_2^t)") in section
    assert "PyTorch with epsilon equals Keras" in (tmp_path / "x" / "report" / "report.html").read_text()

    for framework in FRAMEWORKS:
        stored.keep_parity(key, framework, traces[framework]["plain"])
    assert "Both frameworks do the same work on these recipes. " in report.write(stored).conclusion


def own(keras: str, torch: str, **fields: object) -> Experiment:
    arms = {"a": {"framework": "keras", "model": keras}, "b": {"framework": "torch", "model": torch} | fields}
    return Experiment.model_validate({"name": "x", "arms": arms})


def test_own_models_are_compared_on_each_arms_recipe() -> None:
    (work,), missing = parity_plan.works(own("m:keras", "m:torch"))
    assert work.arms == ("a", "b")
    assert [recipe.model for recipe in work.recipes] == ["m:keras", "m:torch"]
    assert not missing
    works, _ = parity_plan.works(own("m:keras", "m:torch", optimizer="sgd"))
    assert [(work.arms, work.recipes[1].optimizer.name) for work in works] == [
        (("a",), "adam"),
        (("b",), "sgd"),
    ]


def test_an_own_model_without_a_twin_is_told() -> None:
    works, missing = parity_plan.works(own("m:keras", "lenet5"))
    assert [work.arms for work in works] == [("b",)]
    assert missing == [
        "arms.a: parity compares your own model with those of an arm of the other framework, and there is none"
    ]


def test_what_pytorch_cannot_synchronize_is_not_traced() -> None:
    arms = {
        "keras": {"framework": "keras", "model": "speednet", "sync_batch_norm": True},
        "torch": {"framework": "torch", "model": "speednet"},
    }
    for scale, traced in (({"workers": 2}, ("torch",)), ({"workers": 1}, ("keras", "torch"))):
        experiment = Experiment.model_validate({"name": "x", "arms": arms, "scale": scale})
        works, missing = parity_plan.works(experiment)
        assert {arm for work in works for arm in work.arms} == {*traced}
        assert bool(missing) == (scale["workers"] == 2)
