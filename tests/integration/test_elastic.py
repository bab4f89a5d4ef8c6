"""A cluster of several Ray nodes: runs that grow and shrink, nodes that announce their end, scaling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.analysis import gpu_profile, scaling
from orchestrator.execution import driver
from orchestrator.experiment import reader, spec
from orchestrator.planning import preflight
from orchestrator.store.records import RunRecords
from orchestrator.store.storage import Storage
from orchestrator.workflows.gpu import measure as measure_gpu
from orchestrator.workflows.scaling import measure
from tests.conftest import tandem
from trainers.errors import InputError

pytestmark = [pytest.mark.serial, pytest.mark.ray]

ELASTIC = """\
name: elastic
data: {{source: digits, image_size: 24}}
arms:
  only: {{framework: torch, model: "{model}", epochs: {epochs}, seeds: [0], batch_size: {batch_size}}}
scale: {{workers: {workers}, retries: 3}}
storage: {storage}
"""
SLOW_MODEL = """
import time
from torch import nn


class Slow(nn.Module):
    def __init__(self, image_shape, num_classes, seconds):
        super().__init__()
        self.seconds = seconds
        self.dense = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes)

    def forward(self, x):
        if self.training:
            time.sleep(self.seconds)
        return self.dense(x.flatten(1))


def slow(image_shape, num_classes):
    return Slow(image_shape, num_classes, 0.1)


def slower(image_shape, num_classes):
    return Slow(image_shape, num_classes, 0.25)
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that trains nothing and a node with one CPU."""
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def execute(file: Path, watch: Callable[[RunRecords], None]) -> RunRecords:
    """Train the one run of an experiment on the cluster that is connected."""
    experiment = reader.load(file)
    prepared = preflight.prepare(experiment, preflight.open_records(experiment))
    run = prepared.records.run(prepared.runs[0].id)
    session = driver.begin(prepared, module_path=file.parent, command=[])
    driver.execute(prepared, session, module_path=file.parent, watch=lambda: watch(run))
    return run


@pytest.mark.slow
def test_a_run_grows_and_shrinks_with_the_cluster_and_keeps_its_result(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    (tmp_path / "slow_models.py").write_text(SLOW_MODEL)
    text = ELASTIC.format(
        model="slow_models:slow", epochs=9, batch_size=32, workers="{min: 1, max: 2}", storage=tmp_path
    )
    nodes = []

    def watch(run: RunRecords) -> None:
        epochs, attempts = run.epochs(), run.attempts()
        if not nodes and epochs:
            nodes.append(cluster.add_node(num_cpus=1))
        two = [attempt for attempt in attempts if attempt["workers"] == 2]
        if len(nodes) == 1 and two and len(epochs) > two[0]["first_epoch"]:
            cluster.remove_node(nodes[0])
            nodes.append(None)

    run = execute(experiment_file(text), watch)
    assert [attempt["workers"] for attempt in run.attempts()][:3] == [1, 2, 1]
    assert [epoch["epoch"] for epoch in run.epochs()] == list(range(1, 10))
    assert run.result() is not None

    alone = text.replace("{min: 1, max: 2}", "1").replace("name: elastic", "name: alone")
    assert tandem("run", experiment_file(alone.replace("epochs: 9", "epochs: 2"))).returncode == 0
    same = next((tmp_path / "alone" / "runs").iterdir()).name
    expected = RunRecords(Storage(str(tmp_path / "alone")), same).epochs()
    for epoch, reference in zip(run.epochs(), expected, strict=False):
        assert epoch["train_loss"] == pytest.approx(reference["train_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_node_that_announces_its_end_is_drained_with_a_checkpoint(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    (tmp_path / "slow_models.py").write_text(SLOW_MODEL)
    text = ELASTIC.format(
        model="slow_models:slower", epochs=1, batch_size=12, workers="{min: 1, max: 2}", storage=tmp_path
    )
    doomed = cluster.add_node(num_cpus=1)
    announced, gone = [], []

    def watch(run: RunRecords) -> None:
        if run.attempts() and not announced:
            announced.append(time.monotonic())
            _drain(doomed.node_id, grace_seconds=60)
        if announced and not gone and "partial.json" in run._files.names("checkpoints"):
            gone.append(time.monotonic())
            cluster.remove_node(doomed)

    run = execute(experiment_file(text), watch)
    assert gone[0] - announced[0] < 30, "the checkpoint came well within the grace period"
    assert any(attempt["first_step"] > 0 for attempt in run.attempts()), "it went on within the epoch"
    assert [epoch["epoch"] for epoch in run.epochs()] == [1]


@pytest.mark.slow
def test_scaling_is_measured_over_several_nodes(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    cluster.add_node(num_cpus=1)
    text = ELASTIC.format(model="tutorial_cnn", epochs=1, batch_size=32, workers=1, storage=tmp_path)
    experiment = reader.load(experiment_file(text))
    plan = scaling.variants(experiment, [1, 2])
    points = measure(plan, module_path=tmp_path)
    measured = {(point.mode, point.workers, point.batch_size) for point in points}
    assert measured == {("strong", 1, 32), ("strong", 2, 32), ("weak", 1, 32), ("weak", 2, 64)}
    assert len(points) == 4 * (scaling.EPOCHS - 1)

    scales = scaling.summary(points, predict=[2, 4])
    only = scales["only"]
    assert only["efficiency"]["weak"][1] == 1
    assert 0 < only["efficiency"]["strong"][2] < 2
    assert 0 < only["predicted_efficiency"]["weak"][4] <= 1
    assert measure(plan, module_path=tmp_path) == points, "nothing is trained again"


@pytest.mark.slow
def test_four_workers_on_two_labelled_nodes_train_as_one(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=2, labels={"pool": "training"})
    text = ELASTIC.format(model="lenet5", epochs=2, batch_size=32, workers=4, storage=tmp_path)
    labelled = text.replace("retries: 3", "retries: 0, label_selector: {pool: training}")
    run = execute(experiment_file(labelled), lambda _: None)
    assert [attempt["workers"] for attempt in run.attempts()] == [4]
    alone = labelled.replace("workers: 4", "workers: 1").replace("name: elastic", "name: alone")
    expected = execute(experiment_file(alone), lambda _: None).epochs()
    for epoch, reference in zip(run.epochs(), expected, strict=True):
        assert epoch["train_loss"] == pytest.approx(reference["train_loss"], rel=1e-4)
    elsewhere = spec.Scale(label_selector={"pool": "serving"})
    with pytest.raises(InputError, match="there is no node with pool: serving; correct scale"):
        driver.cluster_capacity(elsewhere)


@pytest.mark.slow
def test_arms_are_profiled_with_one_change_at_a_time(
    tmp_path: Path, experiment_file: Callable[[str], Path], cluster: Cluster
) -> None:
    text = ELASTIC.format(model="lenet5", epochs=1, batch_size=16, workers=1, storage=tmp_path)
    wanted = ("as-written", "batch-size-x2")
    plan = [
        step for step in gpu_profile.variants(reader.load(experiment_file(text))) if step.change in wanted
    ]
    measured = measure_gpu(plan, module_path=tmp_path)
    assert [(each.arm, each.change, each.failure) for each in measured] == [
        ("only", change, None) for change in wanted
    ]
    assert measure_gpu(plan, module_path=tmp_path) == measured, "nothing is trained again"
    speed, times, faster = gpu_profile.sentences(gpu_profile.summary(measured))
    assert "images/s, MFU" in speed and "input" in times and "only: batch-size-x2: " in faster


def test_a_driver_waits_for_the_node_that_it_asked_for(cluster: Cluster) -> None:
    scale = spec.Scale(cpus_per_worker=2)
    with pytest.raises(InputError, match="2 CPUs each need 2 CPUs, but there are 1"):
        driver.await_capacity(scale, seconds=0)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(driver.await_capacity, scale, seconds=200)
        time.sleep(3)
        assert not waiting.done()
        cluster.add_node(num_cpus=2)
        waiting.result()


def _drain(node_id: str, *, grace_seconds: float) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    deadline = int((time.time() + grace_seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node_id, reason, "spot reclaim", deadline)
    assert accepted, why
