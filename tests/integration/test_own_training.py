"""Training functions of the user's own as arms, with real Ray: contract, records, resume, mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.store.records import ExperimentRecords, RunRecords
from orchestrator.store.storage import Storage
from tests.conftest import start_tandem, tandem
from tests.integration.test_faults import training_workers, wait_for

pytestmark = [pytest.mark.serial, pytest.mark.ray]


def experiment(directory: Path, module: str, arms: dict[str, dict[str, Any]], **fields: Any) -> Path:
    """An experiment file whose functions are in `mine.py` beside it."""
    (directory / "mine.py").write_text(module)
    own = {
        name: {"train_loop": f"mine:{name.replace('-', '_')}", "trainer": "none", "seeds": [0]} | arm
        for name, arm in arms.items()
    }
    document = {"name": "own", "metric": {"name": "loss", "goal": "minimize"}, "arms": own} | fields
    file = directory / "experiment.yaml"
    file.write_text(yaml.safe_dump(document | {"storage": str(directory / "results")}))
    return file


def runs_of(directory: Path) -> dict[tuple[str, int], RunRecords]:
    records = ExperimentRecords(Storage(str(directory / "results" / "own")))
    return {(run["arm"], run["seed"]): records.run(run["id"]) for run in records.document()["runs"]}


def result_of(run: RunRecords) -> dict[str, Any]:
    result = run.result()
    assert result is not None, run.failures()
    return result


CONTRACT = """
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import ray.train
from ray.train import Checkpoint, CheckpointUploadMode


def contract(config):
    context = ray.train.get_context()
    rank = context.get_world_rank()
    print(f"rank {rank} of {context.get_world_size()} in {context.get_experiment_name()}")
    assert ray.train.get_checkpoint() is None
    assert sorted(config) == ["lr", "seed", "steps"]
    with open("made.txt", "a") as file:  # the working directory is the run's own
        file.write(os.getcwd())
    drawn = np.float32(random.random() + np.random.rand())
    ray.train.report({"loss": 1.0, "rank": rank, "drawn": drawn, "text": "ignored"})
    for step, mode in enumerate(CheckpointUploadMode):
        directory = tempfile.mkdtemp()
        if mode is CheckpointUploadMode.NO_UPLOAD:
            directory = Path(context.get_storage().experiment_fs_path) / "kept" / "elsewhere"
            directory.mkdir(parents=True, exist_ok=True)
        (Path(directory) / f"{rank}.txt").write_text(mode.name)
        ray.train.report(
            {"loss": 0.5 / (step + 1)},
            checkpoint=Checkpoint.from_directory(str(directory)),
            checkpoint_upload_mode=mode,
        )
    ray.train.report({"loss": 0.125, "nan": float("nan"), "inf": float("inf")})


def nothing_taken():
    ray.train.report({"loss": 0.25})
    return {"ignored": True}
"""


def test_a_function_runs_under_the_contract_of_ray_train(tmp_path: Path) -> None:
    arms = {
        "contract": {"config": {"lr": 0.1}, "bind": {"epochs": "steps"}, "epochs": 4, "seeds": [5, 6]},
        "nothing-taken": {"bind": {"seed": None}},
    }
    done = tandem("run", experiment(tmp_path, CONTRACT, arms, scale={"workers": 2}))
    assert done.returncode == 0, done.stderr
    assert "rank 1 of 2 in contract-seed5-" in done.stderr, "what workers print is in the log"
    runs = runs_of(tmp_path)

    run = runs["contract", 5]
    reports = run.reports()
    assert [report["report"] for report in reports] == [*range(len(reports))]
    assert [report["metrics"]["loss"] for report in reports][:2] == [1.0, 0.5]
    assert all(report["seconds"] > 0 for report in reports)
    assert reports[0]["metrics"]["rank"] == 0 and "text" not in reports[0]["metrics"]
    assert reports[-1]["metrics"] == {"loss": 0.125, "nan": None, "inf": None}
    assert reports[-1]["not_finite"] == {"nan": "nan", "inf": "inf"}
    assert reports[0]["checkpoint"] is None and all(report["checkpoint"] for report in reports[1:-1])
    assert "kept/elsewhere" in [report["checkpoint"] for report in reports]
    other = runs["contract", 6].reports()
    assert other[0]["metrics"]["drawn"] != reports[0]["metrics"]["drawn"], "the seed differs"

    (attempt,) = run.attempts()
    assert attempt["workers"] == 2 and attempt["checkpoint"] is None
    result = result_of(run)
    assert result["metrics"]["loss"] == 0.125 and result["reports"] == len(reports)
    assert result["workers"] == 2 and result["trainer"] == "none"
    assert 0 < result["training_seconds"] < 120 and 0 < result["startup_seconds"] < 120
    assert result_of(runs["nothing-taken", 0])["metrics"]["loss"] == 0.25

    again = tandem("run", tmp_path / "experiment.yaml")
    assert again.returncode == 0 and len(run.attempts()) == 1, "runs that are done are not done again"


RESUMED = """
import json
import tempfile
import time
from pathlib import Path

import ray.train


def resumed(config):
    first, checkpoint = 0, ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            first = json.loads((Path(directory) / "state.json").read_text()) + 1
    for epoch in range(first, 8):
        time.sleep(1)
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "state.json").write_text(json.dumps(epoch))
            has_checkpoint = epoch % 2 == 1
            ray.train.report(
                {"loss": 1 / (epoch + 1), "epoch": epoch, "first": first},
                checkpoint=ray.train.Checkpoint.from_directory(directory) if has_checkpoint else None,
            )
"""


def reported(directory: Path) -> int:
    with contextlib.suppress(Exception):
        return len(runs_of(directory)["resumed", 0].reports())
    return 0


def check_resumed(directory: Path, *, attempts: int) -> None:
    run = runs_of(directory)["resumed", 0]
    assert [report["metrics"]["epoch"] for report in run.reports()] == [*range(8)], (
        "later reports replace earlier ones"
    )
    assert len(run.attempts()) == attempts
    assert run.attempts()[-1]["checkpoint"] is not None
    assert run.reports()[-1]["metrics"]["first"] > 0, "the function resumed from its own checkpoint"
    assert result_of(run)["reports"] == 8


def test_a_killed_worker_resumes_from_the_functions_own_checkpoint(tmp_path: Path) -> None:
    process = start_tandem("run", experiment(tmp_path, RESUMED, {"resumed": {}}))
    wait_for(lambda: reported(tmp_path) >= 4, process)
    training_workers(process)[0].send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "the worker of rank 0 died; retried" in err
    check_resumed(tmp_path, attempts=2)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_driver_resumes_from_the_functions_own_checkpoint(
    tmp_path: Path, ending: signal.Signals
) -> None:
    process = start_tandem("run", experiment(tmp_path, RESUMED, {"resumed": {"checkpoint": {"keep": 1}}}))
    wait_for(lambda: reported(tmp_path) >= 4, process)
    os.killpg(process.pid, ending) if ending is signal.SIGINT else process.send_signal(ending)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=60)
    done = tandem("resume", tmp_path / "results" / "own")
    assert done.returncode == 0, done.stderr
    check_resumed(tmp_path, attempts=2)


MISTAKES = """
import ray.train


def silent(config):
    pass


def other_metric(config):
    ray.train.report({"accuracy": 0.5, "error": 0.5})


def not_a_number(config):
    ray.train.report({"loss": 1.0})
    ray.train.report({"loss": float("nan")})


def other_rank(config):
    ray.train.report({"loss": 1.0} if ray.train.get_context().get_world_rank() else {"error": 1.0})


def raising(config):
    helper(config)


def helper(config):
    raise KeyError("the weights")


def seedless(config):
    ray.train.report({"loss": 1.0})
"""


def test_mistakes_are_named_after_the_first_run(tmp_path: Path) -> None:
    arms: dict[str, dict[str, Any]] = {
        "silent": {"seeds": 2},
        "other-metric": {},
        "not-a-number": {},
        "other-rank": {},
        "raising": {},
        "seedless": {"seeds": 3},
    }
    done = tandem("run", experiment(tmp_path, MISTAKES, arms, scale={"workers": 2}))
    assert done.returncode == 1, done.stderr
    causes = {
        place: [failure["cause"] for failure in run.failures()] for place, run in runs_of(tmp_path).items()
    }
    for place, words in {
        ("silent", 0): "returned without a call of ray.train.report",
        ("silent", 1): "not trained, since silent seed 0 showed a mistake",
        ("other-metric", 0): "never reported the metric loss; it reported accuracy, error",
        ("not-a-number", 0): "reported loss as nan in its last report",
        ("other-rank", 0): "reported loss on other workers than rank 0",
        ("raising", 0): "KeyError: 'the weights' (mine.py, line 27)",
    }.items():
        (cause,) = causes[place]
        assert words in cause
        assert cause in done.stderr and "\n" not in cause
    report = (tmp_path / "results" / "own" / "report" / "report.md").read_text()
    assert "Seeds 0, 1, 2 of seedless gave identical results: the function ignores its seed" in report


PREDICTED = """
import tempfile
from pathlib import Path

import numpy as np
import ray.train


def predicted(config):
    rng = np.random.default_rng(config["seed"])
    labels = rng.integers(0, 3, 50)
    with tempfile.TemporaryDirectory() as directory:
        np.savez(Path(directory) / "predictions.npz", predictions=np.eye(3)[labels], labels=labels, ids=np.arange(50))
        ray.train.report({"loss": 0.1 * config["seed"]}, checkpoint=ray.train.Checkpoint.from_directory(directory))
    ray.train.report({"loss": 0.05 + 0.1 * config["seed"]})


def pickled(config):
    with tempfile.TemporaryDirectory() as directory:
        np.savez(Path(directory) / "predictions.npz", predictions=np.array([{}], object), labels=np.zeros(1))
        ray.train.report({"loss": 0.1}, checkpoint=ray.train.Checkpoint.from_directory(directory))
"""


def test_predictions_are_taken_from_the_last_checkpoint(tmp_path: Path) -> None:
    done = tandem("run", experiment(tmp_path, PREDICTED, {"predicted": {"seeds": 2}, "pickled": {}}))
    assert done.returncode == 0, done.stderr
    runs = runs_of(tmp_path)
    with np.load(
        tmp_path / "results" / "own" / "runs" / runs["predicted", 1].id / "predictions.npz"
    ) as arrays:
        assert sorted(arrays) == ["ids", "labels", "predictions"]
        assert arrays["predictions"].shape == (50, 3)
    note = result_of(runs["pickled", 0])["note"]
    assert "predictions.npz is not an .npz file that can be read without pickle" in note


DATASETS = """
import ray.data
import ray.train
import toy_trainer


def shards(config):
    return {"train": ray.data.range(40).map_batches(lambda rows: {"id": rows["id"] * config["factor"]})}


def sharded(config):
    total = sum(row["id"] for row in ray.train.get_dataset_shard("train").iter_rows())
    ray.train.report({"loss": float(total), "meeting": toy_trainer.meeting()})
"""
TOY_TRAINER = """
import os

from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


def _meet():
    os.environ["TOY_MEETING"] = "7"


class _Meeting(Backend):
    def on_start(self, worker_group, backend_config):
        worker_group.execute(_meet)


class Meeting(BackendConfig):
    backend_cls = _Meeting


def connect(train_loop, **arguments):
    return DataParallelTrainer(train_loop, backend_config=Meeting(), **arguments)


def meeting():
    return int(os.environ["TOY_MEETING"])
"""


def test_a_way_to_connect_workers_is_one_file(tmp_path: Path) -> None:
    """With Ray Data, whose datasets a function makes."""
    (tmp_path / "toy_trainer.py").write_text(TOY_TRAINER)
    arm = {"trainer": "toy_trainer:connect", "datasets": "mine:shards", "config": {"factor": 2}}
    done = tandem("run", experiment(tmp_path, DATASETS, {"sharded": arm}))
    assert done.returncode == 0, done.stderr
    metrics = result_of(runs_of(tmp_path)["sharded", 0])["metrics"]
    assert metrics["loss"] == 2 * sum(range(40)) and metrics["meeting"] == 7


def test_ray_data_needs_a_cpu_of_its_own(tmp_path: Path, experiment_file: Callable[[str], Path]) -> None:
    arm = {"datasets": "mine:shards", "config": {"factor": 2}}
    workers = len(os.sched_getaffinity(0))
    (tmp_path / "toy_trainer.py").write_text(TOY_TRAINER)
    done = tandem("run", experiment(tmp_path, DATASETS, {"sharded": arm}, scale={"workers": workers}))
    assert done.returncode == 2
    assert (
        f"{workers} workers with 1 CPUs each need {workers} CPUs, but there are {workers - 1}" in done.stderr
    )


def test_a_check_names_a_mistake_before_anything_runs(tmp_path: Path) -> None:
    file = experiment(tmp_path, RESUMED, {"resumed": {"train_loop": "mine:resume"}})
    done = tandem("check", file)
    assert done.returncode == 2
    assert "arms.resumed.train_loop: mine.py has no function 'resume', did you mean 'resumed'?" in done.stderr
    done = tandem("check", file, "--set", "resumed.train_loop=mine:resumed", "--json")
    assert json.loads(done.stdout)["runs"] == 1
