"""Parity: agreement where there is agreement, and the right suspect for each planted difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis import parity
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import ROOT
from tests.unit.synthetic import make_records
from trainers.parity import _sketch

Arrays = dict[str, np.ndarray]
STEPWISE = ("losses", "gradients", "updates")
SUSPECTS = [
    "epsilon placement in Adam",
    "weight decay coupling",
    "batch-norm momentum",
    "batch-norm epsilon",
    "padding of strided convolutions",
    "bias initialisation",
    "loss reduction",
    "epoch-end partial batches",
]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    output = tmp_path_factory.mktemp("parity") / "traces.npz"
    command = [sys.executable, "-m", "tests.unit.trace_faults", str(output)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    by_fault: dict[str, Arrays] = {}
    with np.load(output) as archive:
        for name in archive.files:
            fault, _, key = name.rpartition("/")
            by_fault.setdefault(fault, {})[key] = archive[name]
    return by_fault


def without_control(trace: Arrays) -> Arrays:
    return {key: value for key, value in trace.items() if not key.startswith("control")}


def compared(traces: dict[str, Arrays], fault: str) -> parity.Parity:
    base = traces[str(traces[fault]["base"])]
    return parity.compare(base, traces[fault], ("keras", "torch"))


def test_rounding_is_not_a_difference(traces: dict[str, Arrays]) -> None:
    result = compared(traces, "rounding")
    assert result.agrees, result.sentence()
    assert 0 < result.loss_difference < 1e-4
    assert result.sentence().startswith("same work: losses of keras and torch differ by at most ")


@pytest.mark.parametrize("fault", SUSPECTS)
def test_a_planted_difference_is_found_and_named(traces: dict[str, Arrays], fault: str) -> None:
    result = compared(traces, fault)
    assert not result.agrees
    assert any(suspect.startswith(fault) for suspect in result.suspects[:2]), result.sentence()
    if fault == "epoch-end partial batches":
        assert "step 4" in str(result.parts_at)
    if fault == "bias initialisation":
        assert "conv1.bias" in str(result.parts_at)


@pytest.mark.parametrize("fault", SUSPECTS)
def test_a_planted_difference_is_found_from_the_same_weights_alone(
    traces: dict[str, Arrays], fault: str
) -> None:
    """Only the first step starts there, where no step goes on from another's, as in lockstep."""
    last = 4 if fault == "epoch-end partial batches" else 1
    sides = [
        {
            key: value[:last] if key in STEPWISE else value
            for key, value in without_control(traces[name]).items()
        }
        for name in (str(traces[fault]["base"]), fault)
    ]
    assert not parity.compare(*sides, ("keras", "torch")).agrees


def test_lockstep_has_fixed_tolerances(traces: dict[str, Arrays]) -> None:
    alone = without_control(traces["adam"])
    assert parity.compare(alone, alone, ("keras", "torch")).agrees
    off = alone | {"losses": alone["losses"] * (1 + 2e-4)}
    result = parity.compare(alone, off, ("keras", "torch"))
    assert "the loss parts at step 1 by 2.0e-04" in str(result.parts_at)
    assert "in lockstep" in result.sentence()


@pytest.mark.parametrize(
    ("every", "by", "agrees"),
    [(1, 5e-4, True), (8, 0.05, True), (8, 0.2, False), (2, 0.05, False), (1, 2e-3, False)],
)
def test_in_lockstep_a_winner_that_switches_now_and_then_is_no_difference(
    traces: dict[str, Arrays], every: int, by: float, agrees: bool
) -> None:
    alone = without_control(traces["adam"])
    alone |= {key: np.concatenate([alone[key]] * 2) for key in STEPWISE}
    gradients = alone["gradients"].copy()
    gradients[::every] *= 1 + by
    result = parity.compare(alone, alone | {"gradients": gradients}, ("keras", "torch"))
    assert result.agrees == agrees, result.sentence()


@pytest.mark.parametrize(("share", "agrees"), [(2.0**-24, True), (2.0**-20, False)])
def test_what_float32_does_not_hold_is_no_difference(
    traces: dict[str, Arrays], share: float, agrees: bool
) -> None:
    """Steps so small that rounding the weights after them is much of what they change."""
    alone = without_control(traces["adam"])
    small = alone | {"updates": alone["updates"] * 1e-4}
    noise = np.random.default_rng(0).normal(size=small["updates"].shape) / 8
    off = noise * np.linalg.norm(small["initial"], axis=1)[:, None] * share
    assert np.linalg.norm(off) > 1e-3 * np.linalg.norm(small["updates"])
    result = parity.compare(small, small | {"updates": small["updates"] + off}, ("keras", "torch"))
    assert result.agrees == agrees, result.sentence()


def test_sketches_keep_differences() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for place in range(30):
        a, b = rng.normal(size=(2, 5000))
        sketched = np.linalg.norm(_sketch(f"layer{place}", a) - _sketch(f"layer{place}", b))
        ratios.append(sketched / np.linalg.norm(a - b))
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)
    assert np.std(ratios) < 0.2
    small = np.arange(5.0)
    assert np.array_equal(_sketch("bias", small)[:5], small)


def test_a_pair_that_fails_is_flagged_in_the_first_paragraph(
    tmp_path: Path, traces: dict[str, Arrays]
) -> None:
    from orchestrator import report
    from orchestrator.analysis import compare

    records = make_records(tmp_path / "x", {"keras": [0.9, 0.8], "torch": [0.9, 0.8]})
    arm = compare.spec.from_json(records.document()["experiment"]).arms["keras"]
    recipe = parity.traced_recipe(arm)
    assert recipe is not None
    key = parity.recipe_key(recipe, records.document()["data"]["fingerprint"])
    stored = ExperimentRecords(Storage(str(tmp_path / "x")))
    stored.keep_parity(key, "keras", 5, {k: v for k, v in traces["adam"].items() if k != "base"})
    faulty = {k: v for k, v in traces["loss reduction"].items() if k != "base"}
    stored.keep_parity(key, "torch", 5, faulty)
    written = report.write(stored)
    assert "Beware: the two frameworks do not do the same work" in written.answer
    assert "gradient" in written.answer
    markdown = (tmp_path / "x" / "report" / "report.md").read_text()
    assert "## Parity" in markdown
    assert "not the same work" in markdown

    stored.keep_parity(key, "torch", 5, {k: v for k, v in traces["adam"].items() if k != "base"})
    assert "Beware" not in report.write(stored).answer
