"""`tandem.compare` from a script and from a notebook, with real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.serial

FUNCTIONS = """\
import ray.train
import tandem

OFFSET = 0.2


def first(config):
    for epoch in range(2):
        ray.train.report({"val_accuracy": 0.5 + 0.01 * config["seed"] + 0.1 * epoch, "<b>odd</b>": epoch})


def second(config):
    ray.train.report({"val_accuracy": OFFSET + 0.6 + 0.012 * config["seed"]})
"""
COMPARE = """\
result = tandem.compare(
    {{"a": first, "b": second}},
    seeds={seeds},
    scaling={{"workers": {workers}}},
    metric="val_accuracy",
    storage={storage!r},
)
"""
SHOW = """\
import json
print(json.dumps({
    "verdict": result.verdict,
    "runs": result.runs.to_dict("records"),
    "reports": len(result.reports),
    "pairs": result.pairs["ahead"].tolist(),
    "html": result._repr_html_(),
    "report": result.report,
}))
"""


def test_a_script_compares_its_own_functions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    compare = COMPARE.format(seeds=3, workers=1, storage=str(tmp_path / "results"))
    script.write_text(f"{FUNCTIONS}\n{compare}{SHOW}")
    finished = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "arms.a: the function cannot be imported by its name" in finished.stderr
    shown = json.loads(finished.stdout.splitlines()[-1])
    assert shown["verdict"].startswith("b is better in val_accuracy than a")
    assert [(run["arm"], run["seed"]) for run in shown["runs"]] == [
        (arm, seed) for arm in "ab" for seed in range(3)
    ]
    scores = [run["val_accuracy"] for run in shown["runs"]]
    assert scores == pytest.approx([0.6, 0.61, 0.62, 0.8, 0.812, 0.824])
    assert {run["state"] for run in shown["runs"]} == {"done"}
    assert shown["reports"] == 3 * 2 * 2 + 3
    assert shown["pairs"] == ["b"]
    assert "<td>a</td><td>3</td><td>0.61" in shown["html"]
    assert "better in val_accuracy" in shown["html"]
    assert Path(shown["report"]).is_file()


def test_a_notebook_shows_the_comparison(tmp_path: Path) -> None:
    compare = COMPARE.format(seeds=1, workers=2, storage=str(tmp_path / "results"))
    cells = [FUNCTIONS, compare, "result", SHOW]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    (shown,) = [output for output in notebook.cells[2].outputs if output.output_type == "execute_result"]
    assert "<table>" in shown["data"]["text/html"]
    assert "<td>b</td><td>1</td><td>0.8" in shown["data"]["text/html"]
    printed = "".join(output.text for output in notebook.cells[3].outputs if output.name == "stdout")
    assert json.loads(printed.splitlines()[-1])["reports"] == 2 * 2 + 1


def test_functions_of_a_module_are_trained_once(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(FUNCTIONS)
    script = tmp_path / "script.py"
    compare = COMPARE.format(seeds=1, workers=1, storage=str(tmp_path / "results"))
    script.write_text(f"from loops import first, second, tandem\n\n{compare}{SHOW}")
    runs = []
    for _ in range(2):
        finished = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False
        )
        assert finished.returncode == 0, finished.stderr
        assert "cannot be imported" not in finished.stderr
        runs.append([run["id"] for run in json.loads(finished.stdout.splitlines()[-1])["runs"]])
    assert runs[0] == runs[1]
    assert "report 1" not in finished.stderr, "nothing was trained again"
