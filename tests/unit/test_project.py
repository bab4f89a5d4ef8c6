"""Rules for the code as a whole: what an import loads, and what is documented."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from orchestrator.cli.app import app
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("orchestrator.cli.app", ["ray", "pydantic", "numpy", "pandas", "pyarrow", "matplotlib"]),
        ("orchestrator.workflows", ["torch", "tensorflow", "scipy", "pandas", "matplotlib", "optuna"]),
        ("trainers.keras.trainer", ["torch", "tensorflow", "keras"]),
        ("trainers.torch.models", ["tensorflow", "keras"]),
    ],
)
def test_an_import_does_not_drag_in_what_it_does_not_need(module: str, absent: list[str]) -> None:
    script = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert finished.stdout.splitlines()[-1] == "[]"


def test_every_command_has_help_and_is_documented() -> None:
    documentation = (ROOT / "docs" / "commands.md").read_text()
    commands = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for name, command in list(commands.items()):
        if hasattr(command, "commands"):
            del commands[name]
            commands |= {f"{name} {below}": entry for below, entry in command.commands.items()}
    for name, command in commands.items():
        assert command.help
        assert f"## tandem {name}" in documentation
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in documentation, option


def test_every_example_is_named_in_the_documentation() -> None:
    text = "".join(file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for example in (ROOT / "examples").glob("*.yaml"):
        assert f"examples/{example.name}" in text


def test_every_field_of_an_experiment_is_documented() -> None:
    from orchestrator.experiment.spec import json_schema

    pages = ("experiment-file.md", "own-training.md", "sweeps.md", "kubernetes.md", "records-and-report.md")
    documentation = "".join((ROOT / "docs" / page).read_text() for page in pages)
    schema = json_schema()
    for block in [schema, *schema["$defs"].values()]:
        for field in block.get("properties", {}):
            assert f"`{field}`" in documentation, field
