"""Sweeps on a cluster of several Ray nodes: nodes that are asked for, that join, that are killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.execution import driver
from orchestrator.experiment import reader
from orchestrator.planning import preflight
from orchestrator.store.trial_records import TrialRecord
from orchestrator.sweep import arm_search, sweep
from orchestrator.sweep.searcher import ArmSearcher

pytestmark = [pytest.mark.serial, pytest.mark.ray]

SWEEP = """\
name: swept
data: {{source: digits, image_size: 24}}
arms:
  torch: {{framework: torch, epochs: {epochs}, seeds: [0], batch_size: 16}}
scale: {{retries: 3}}
sweep:
  space: {{optimizer.learning_rate: {{loguniform: [1.0e-4, 1.0e-2]}}}}
  budget: {{trials: {trials}}}
storage: {storage}
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing and a node with one CPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run_sweep(file: Path, watch: Callable[[ArmSearcher], None]) -> list[TrialRecord]:
    """Search and train the winner on the cluster that is connected."""
    experiment = reader.load(file)
    prepared = preflight.prepare(experiment, preflight.open_records(experiment))
    session = sweep.begin(prepared, module_path=file.parent, command=[])
    won = sweep.search(
        prepared, session, module_path=file.parent, watch=lambda arm, searcher: watch(searcher)
    )
    driver.execute(won, session, module_path=file.parent, watch=lambda: None)
    assert won.records.run(won.runs[0].id).result() is not None
    return arm_search.records_of(prepared, "torch").history().trials


@pytest.mark.slow
def test_a_sweep_uses_a_node_that_joins_and_outlives_one_that_is_killed(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    nodes = []

    def watch(searcher: ArmSearcher) -> None:
        slots = {
            epoch["slot"].partition("-")[0] for trial in searcher.trials.values() for epoch in trial.epochs
        }
        if not nodes and slots:
            assert searcher.at_once == 1
            assert sum(bundle["CPU"] for bundle in asked_for()) == 10, "a CPU for each trial"
            nodes.append(cluster.add_node(num_cpus=1))
        if len(nodes) == 1 and len(slots) == 2:
            cluster.remove_node(nodes[0], allow_graceful=False)
            nodes.append(None)

    text = SWEEP.format(epochs=10, trials=10, storage=tmp_path)
    trials = run_sweep(experiment_file(text), watch)
    assert len(nodes) == 2, "a second slot was opened on the new node, which was then killed"
    assert asked_for() == []
    assert [trial.state for trial in trials] == ["done"] * 10
    assert all([epoch["epoch"] for epoch in trial.epochs] == list(range(1, 11)) for trial in trials)


def asked_for() -> list[dict[str, float]]:
    """The bundles that an autoscaler is asked to make room for."""
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    told = _internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
    return json.loads(told) if told else []
