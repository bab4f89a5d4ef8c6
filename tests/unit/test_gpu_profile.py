"""`tandem bench gpu`: which changes are tried, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.analysis import gpu_profile, variants
from orchestrator.analysis.gpu_profile import Measured
from orchestrator.cli.app import app
from orchestrator.experiment import reader
from trainers.errors import InputError

EXPERIMENT: dict[str, Any] = {
    "name": "shops",
    "storage": "s3://bucket/results",
    "arms": {
        "keras": {"framework": "keras", "batch_size": 64, "early_stopping": {"patience": 2}},
        "torch": {"framework": "torch", "compile": True, "precision": "bfloat16", "batch_size": 32},
    },
    "data": {"validation": 0.2},
    "scale": {"workers": {"min": 1, "max": 4}, "gpus_per_worker": 1},
    "baseline": "torch",
}


def test_one_change_at_a_time_is_tried_where_an_arm_has_not_made_it() -> None:
    plan = gpu_profile.variants(reader.load_mapping(EXPERIMENT))
    arms = {step.change: list(step.experiment.arms) for step in plan}
    assert arms == {
        "as-written": ["keras", "torch"],
        "compile": ["keras"],
        "bfloat16": ["keras"],
        "batch-size-x2": ["keras", "torch"],
        "batch-size-x4": ["keras", "torch"],
    }
    by_name = {step.change: step.experiment for step in plan}
    assert by_name["compile"].arms["keras"].compile and not by_name["as-written"].arms["keras"].compile
    assert by_name["batch-size-x4"].arms["torch"].batch_size == 128
    for experiment in by_name.values():
        assert experiment.scale.workers == 1 and experiment.storage == "s3://bucket/results/shops/gpu"
        assert {arm.epochs for arm in experiment.arms.values()} == {variants.EPOCHS}


def test_an_arm_whose_determinism_was_asked_for_is_tried_without_it() -> None:
    arms = {"torch": {"framework": "torch", "deterministic": True}}
    plan = gpu_profile.variants(reader.load_mapping(EXPERIMENT | {"arms": arms, "baseline": None}))
    assert "not-deterministic" in [step.change for step in plan]


def test_synchronized_normalization_needs_no_second_worker() -> None:
    arms = {"torch": {"framework": "torch", "sync_batch_norm": True}}
    assert gpu_profile.variants(reader.load_mapping(EXPERIMENT | {"arms": arms, "baseline": None}))


def test_what_is_faster_comes_first_and_what_failed_last() -> None:
    seconds = {"input": 1.0, "step": 8.0, "compile": 0.5, "evaluation": 0.5}
    written = Measured(
        arm="torch",
        change="as-written",
        images_per_second=1000.0,
        model_flops_utilisation=0.31,
        memory_bytes=3 << 30,
        seconds=seconds,
    )
    others = [
        Measured(arm="torch", change="bfloat16", images_per_second=1200.0),
        Measured(arm="torch", change="compile", images_per_second=1500.0),
        Measured(
            arm="torch",
            change="batch-size-x4",
            images_per_second=None,
            failure="out of memory with batch_size 128",
        ),
    ]
    profile = json.loads(json.dumps(gpu_profile.summary([written, *others]) | {"schema": 2}))
    assert list(gpu_profile.sentences(profile)) == [
        "torch: 1,000 images/s, MFU 31%, 3.0 GiB of GPU memory",
        "torch: time of the epochs: input 10%, step 80%, compile 5%, evaluation 5%",
        "torch: compile: 1.50 times the speed",
        "torch: bfloat16: 1.20 times the speed",
        "torch: batch-size-x4: failed: out of memory with batch_size 128",
    ]


def test_an_experiment_without_gpus_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "shops.yaml"
    file.write_text(json.dumps(EXPERIMENT | {"scale": {}}))
    refused = CliRunner().invoke(app, ["bench", "gpu", str(file)])
    assert refused.exit_code == InputError.exit_code
    assert "scale.gpus_per_worker is 0; give --set scale.gpus_per_worker=1" in refused.output


def test_a_kind_of_gpu_without_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="accelerator_type 'H100' is a kind of GPU, but workers have none"):
        reader.load_mapping(EXPERIMENT | {"scale": {"accelerator_type": "H100"}})
