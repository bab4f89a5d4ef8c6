"""What benchmarks keep and show of their measurements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import orchestration, results, tutorials
from benchmarks.results import Ratio, Results, section
from tests.conftest import ROOT


def test_an_interrupted_benchmark_measures_only_what_is_missing(tmp_path: Path) -> None:
    def measure_both(settings: dict[str, int]) -> list[int]:
        measured = []

        def measure(pair: int) -> dict[str, int]:
            measured.append(pair)
            return {"seconds": pair}

        kept = Results(tmp_path / "startup.json", settings)
        for pair in (1, 2):
            kept.once(lambda pair=pair: measure(pair), pair=pair)
        return measured

    interrupted = Results(tmp_path / "startup.json", {"threads": 2})
    interrupted.once(lambda: {"seconds": 1}, pair=1)
    assert measure_both({"threads": 2}) == [2]
    assert measure_both({"threads": 2}) == []
    assert measure_both({"threads": 1}) == [1, 2], "other settings measure something else"


def test_measurements_of_other_versions_are_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = results.environment.describe()
    before = here | {"packages": here["packages"] | {"torch": "1.0"}}
    monkeypatch.setattr(results.environment, "describe", lambda: dict(before))
    Results(tmp_path / "startup.json", {}).once(lambda: {"seconds": 1}, pair=1)
    monkeypatch.setattr(results.environment, "describe", lambda: dict(here))
    again = []
    Results(tmp_path / "startup.json", {}).once(lambda: again.append(1) or {"seconds": 2}, pair=1)
    assert again


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.97, 1.0, 1.2], "met"),
        ([0.90, 0.94, 0.96], "undecided: the pairs reach into the band"),
        ([0.90, 0.92, 0.94], "missed"),
        ([1.06, 1.07, 1.08], "missed"),
    ],
)
def test_a_median_outside_its_band_is_missed_only_where_all_pairs_are_outside(
    ratios: list[float], verdict: str
) -> None:
    assert Ratio.of(ratios, [1.0] * len(ratios)).verdict(at_least=0.95, at_most=1.05) == verdict


def test_results_say_what_is_not_measured_yet(tmp_path: Path) -> None:
    assert "Not measured yet" in section("Start-up", tmp_path / "startup.json", lambda measured: "table")


def test_orchestration_shows_each_framework_and_the_two_beside_each_other(tmp_path: Path) -> None:
    settings = {"pairs": 2, "threads": [1], "epochs": 3, "cases": {"resnet9": orchestration.CASES["resnet9"]}}
    kept = Results(tmp_path / "orchestration.json", settings)
    for pair, tandem in ((1, 50.0), (2, 52.0)):
        value = {"tandem": {"keras": tandem, "torch": 60.0}, "bare": {"keras": 50.0, "torch": 50.0}}
        kept.once(lambda value=value: value, model="resnet9", threads=1, pair=pair)
    shown = section("Orchestration", tmp_path / "orchestration.json", orchestration.show)
    assert "| keras, `resnet9`, 1 thread | 51.0 | 50.0 | **1.020** (1.000 to 1.040) | met |" in shown
    assert "| torch, `resnet9`, 1 thread | 60.0 | 50.0 | **1.200** (1.200 to 1.200) | missed |" in shown
    assert "| `resnet9`, 1 thread | 0.85 | 1.00 | **0.850** (0.833 to 0.867) | missed |" in shown
    assert "commit " in shown


def test_tutorials_compare_means_with_the_spread_of_their_seeds(tmp_path: Path) -> None:
    kept = Results(tmp_path / "tutorials.json", {"epochs": 10, "seeds": [0, 1, 2], "threads": 2})
    for seed, (script, tandem) in enumerate([(0.69, 0.695), (0.70, 0.705), (0.71, 0.715)]):
        for name in ("keras", "torch"):
            kept.once(lambda script=script: {"test_accuracy": script}, side=name, seed=seed)
        kept.once(lambda tandem=tandem: {"keras": tandem, "torch": tandem - 0.1}, side="tandem", seed=seed)
    shown = section("Tutorials", tmp_path / "tutorials.json", tutorials.show)
    assert "| +0.50 points | ≤ 2.00 points: met |" in shown
    assert "| -9.50 points | ≤ 2.00 points: missed |" in shown


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(1800)
def test_tandem_is_measured_beside_bare_loops(cifar10: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "orchestration", "--smoke", "--data", str(cifar10)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| torch, `resnet9`, 2 threads |" in (ROOT / "build" / "benchmarks" / "smoke.md").read_text()
