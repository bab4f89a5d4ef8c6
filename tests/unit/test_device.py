"""What `tests/gpu` asserts of a GPU, on this machine's CPUs and in tiny sizes; and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.trains

CHECKS = """
import pathlib, tempfile, torch
from tests.gpu import checks, throughput
from tests.gpu.pictures import synthetic

torch.set_num_threads(1)
cpu = torch.device("cpu")
checks.device_batches_equal_those_of_the_host(cpu, side=9)
checks.training_does_not_depend_on_who_holds_the_images(cpu, images=50)
checks.losses_are_those_of_cpus(cpu, model="lenet5", steps=5, tolerance=1e-6)
checks.a_resumed_run_is_the_same_bit_for_bit(cpu, model="lenet5", steps=4)
checks.a_step_takes_the_gradients_of_cpus(cpu, model="lenet5", tolerance=1e-6)
checks.bfloat16_learns_with_float32_weights(cpu, model="lenet5", steps=4)
checks.memory_peak_grows_with_the_batch(cpu, model="lenet5")
assert checks.synchronizations(cpu, model="lenet5", steps=2) == 0
with tempfile.TemporaryDirectory() as directory:
    checks.one_process_exchanges_gradients(cpu, pathlib.Path(directory))

dataset = synthetic(40, 32)
recipe = {
    "model": "lenet5",
    "optimizer": {"name": "sgd", "learning_rate": 0.01, "decoupled": True, "weight_decay": 0.01},
    "batch_size": 16,
    "augmentation": {"flip": True, "crop": 2},
    "test_time_augmentation": {"flip": True},
}
speeds = throughput.compare("lenet5", recipe, dataset, cpu, timed_epochs=1)
assert speeds.tandem > 0 and speeds.bare > 0 and speeds.memory_peak == 0
assert throughput.images_per_second(recipe, dataset, cpu, timed_epochs=1) > 0
task = checks.task_for(dataset, recipe)
assert 0 <= throughput.BareLoop(task, dataset, cpu).accuracy(dataset) <= 1
assert 0 <= checks.accuracy_of(task, dataset, checks.engine_on(cpu, task)) <= 1

import sys
unwanted = {"ray", "tensorflow", "keras", "PIL", "pandas", "scipy", "platformdirs", "torchvision", "orchestrator"}
print(*sorted(unwanted & {name.partition(".")[0] for name in sys.modules}))
"""

COMPILED = """
import torch
from tests.gpu import checks

torch.set_num_threads(1)
checks.compiled_steps_have_the_losses_of_the_others(torch.device("cpu"), model="lenet5", steps=4)
"""


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False
    )


def test_the_checks_hold_on_cpus_and_need_few_packages() -> None:
    done = python(CHECKS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1:] in ([], [""])


@pytest.mark.slow
def test_the_check_of_compiled_steps_holds_on_cpus() -> None:
    done = python(COMPILED)
    assert done.returncode == 0, done.stderr[-3000:]


def test_without_a_gpu_the_checks_of_one_are_skipped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/gpu/test_engine.py", "--confcutdir=tests/gpu", "-rs"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "PyTorch sees no NVIDIA GPU on this machine" in done.stdout
    assert "passed" not in done.stdout.splitlines()[-1]
