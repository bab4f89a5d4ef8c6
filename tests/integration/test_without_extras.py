"""The package without extras: all but training works, and what is missing is one sentence with the command for it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.unit.synthetic import make_records

EXPERIMENT = """
name: there
data: {source: digits}
arms: {one: {framework: keras}, two: {framework: torch}}
storage: s3://bucket/results
kubernetes: {image: "registry.example/tandem:1"}
"""
INSTALL = "pip install 'tandem-compare[keras,torch]'"


def installed(requirements: Iterable[str]) -> set[str]:
    """What pip installs for some requirements."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        wanted = waiting.pop()
        key = wanted.name, frozenset(wanted.extras)
        if key in found:
            continue
        found.add(key)
        environments = [{"extra": extra} for extra in ("", *wanted.extras)]
        for line in importlib.metadata.requires(wanted.name) or []:
            required = Requirement(line)
            if required.marker is None or any(map(required.marker.evaluate, environments)):
                waiting.append(required)
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def tandem(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command where only the package's own dependencies can be imported."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = installed(project["dependencies"])
    assert {"numpy", "ray", "pandas"} <= names and not names & {
        "tensorflow",
        "keras",
        "torch",
        "tensorboardx",
    }
    for name in names:
        distribution = importlib.metadata.distribution(name)
        for entry in {file.parts[0] for file in distribution.files or []} - {".."}:
            if not (site / entry).exists():
                (site / entry).symlink_to(distribution.locate_file(entry))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        script = (
            f"import sys; sys.path += {[str(ROOT), str(site)]!r}; from orchestrator.cli import main; main()"
        )
        command = [sys.executable, "-I", "-S", "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_what_needs_no_framework_works(
    tandem: Callable[..., subprocess.CompletedProcess[str]],
    experiment_file: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    file = experiment_file(EXPERIMENT)
    records = make_records(tmp_path / "x", {"one": [0.5, 0.6], "two": [0.6, 0.7]})
    here = ["--set", f"storage={tmp_path}", "--set", "kubernetes=null"]
    own = ["--set", "two.model=mine:build"]
    untried = (
        "note: the training step and the prediction of arms.two are left out: PyTorch is not installed here"
    )
    for arguments, output in [
        (["--help"], "render"),
        (["schema"], '"$defs"'),
        (["render", file], "kind: RayJob"),
        (["report", records.storage.url], "report.html"),
        (["fetch", records.storage.url, tmp_path / "copy"], "files in"),
        (["check", file, *here], f"note: to train here, install Keras and PyTorch: {INSTALL}"),
        (["check", file, *here, *own], untried),
    ]:
        done = tandem(*arguments)
        assert done.returncode == 0 and output in done.stdout, (arguments, done.stdout, done.stderr)
    unreachable = tandem("submit", file, "--on", "http://127.0.0.1:1")
    assert unreachable.returncode == 3 and "does not answer" in unreachable.stderr


def test_a_missing_framework_is_one_sentence(
    tandem: Callable[..., subprocess.CompletedProcess[str]],
    experiment_file: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    file = experiment_file(EXPERIMENT)
    here = ["--set", f"storage={tmp_path}", "--set", "kubernetes=null"]
    for command in (["run"], ["parity"], ["bench", "scaling"]):
        done = tandem(*command, file, *here)
        assert (done.returncode, done.stderr) == (
            2,
            f"tandem: Keras and PyTorch are not installed here; {INSTALL}\n",
        )
    one = tandem("run", file, *here, "--set", "two.framework=keras")
    assert one.stderr == "tandem: Keras is not installed here; pip install 'tandem-compare[keras]'\n"
    examined = tandem("doctor")
    assert examined.returncode == 1
    assert "PyTorch is not installed, so its arms cannot be trained on this machine" in examined.stdout
