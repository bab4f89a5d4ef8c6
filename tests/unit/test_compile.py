"""The field `compile`: the same losses, and one sentence where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.trains

SCRIPT = """
import sys
from tests.unit.measure_engine import Side, steps

side = Side(sys.argv[1])
for compiled in (False, True):
    engine = side.engine(model="lenet5", optimizer="sgd", compile=compiled, deterministic=False)
    print(*engine.train_steps(steps(0.01))[0])
"""


def run(framework: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, framework]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_compiled_steps_have_the_losses_of_the_others(framework: str) -> None:
    done = run(framework)
    assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = (np.array(line.split(), float) for line in done.stdout.splitlines()[-2:])
    assert np.ptp(plain) > 0.01
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_missing_compiler_is_one_sentence() -> None:
    done = run("torch", CXX="no-such-compiler")
    assert done.stderr.splitlines()[-1] == (
        "trainers.errors.InputError: compile: torch.compile needs a C++ compiler on CPUs, but there is no "
        "'no-such-compiler' on this node; install g++, name another compiler in the environment variable CXX, or "
        "leave compile out"
    )
