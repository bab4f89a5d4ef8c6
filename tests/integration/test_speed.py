"""`measure_speed: true` on real local Ray: fresh processes for each run, one at a time, arms in turn."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.analysis import compare
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import tandem

pytestmark = [pytest.mark.serial, pytest.mark.ray, pytest.mark.slow]

EXPERIMENT = """\
name: timed
data: {{source: digits, limit: 400}}
defaults: {{framework: torch, model: lenet5, epochs: 2, seeds: 3, batch_size: 50}}
arms:
  small: {{}}
  large: {{batch_size: 100}}
measure_speed: true
corruption_robustness: false
storage: {root}
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> ExperimentRecords:
    root = tmp_path_factory.mktemp("timed")
    file = root / "experiment.yaml"
    file.write_text(EXPERIMENT.format(root=root))
    done = tandem("run", file)
    assert done.returncode == 0, done.stderr
    return ExperimentRecords(Storage(str(root / "timed")))


def test_each_run_has_processes_of_its_own_and_arms_take_turns(records: ExperimentRecords) -> None:
    spans = []
    for entry in records.document()["runs"]:
        run = records.run(entry["id"])
        (attempt,) = run.attempts()
        result = run.result()
        assert result is not None
        assert attempt["startup"]["workers_seconds"] > 0 and attempt["startup"]["import_seconds"] > 0
        spans.append((attempt["started_at"], result["finished_at"], entry["arm"], entry["seed"]))
    spans.sort()
    assert [(arm, seed) for _, _, arm, seed in spans] == [
        ("small", 0), ("large", 0), ("large", 1), ("small", 1), ("small", 2), ("large", 2)
    ]  # fmt: skip
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_report_judges_speed_over_the_groups_of_processes(records: ExperimentRecords) -> None:
    comparison = compare.analyse(records)
    (pair,) = comparison.pairs
    assert pair.speed is not None and pair.speed.groups == (3, 3)
    assert pair.speed.end is not None and pair.speed.end.low is not None and pair.speed.end.high is not None
    assert "to the end of the test" in comparison.conclusion
