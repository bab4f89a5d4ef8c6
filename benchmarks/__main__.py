"""Run benchmarks and write RESULTS.md. Usage: python -m benchmarks [NAME…]; without names, all of them.

Measurements are kept in benchmarks/results as they finish: an interrupted benchmark goes on, and a finished one is
only shown. --again measures it anew. --smoke uses tiny sizes and leaves benchmarks/results and RESULTS.md alone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
from pathlib import Path

from benchmarks.harness import ROOT, SCRATCH, Options
from benchmarks.results import Results, section

NAMES = (
    "orchestration",
    "tutorials",
    "startup",
    "data_parallel",
    "time_to_accuracy",
    "sweep_overhead",
    "sweep_peers",
    "best_accuracy",
    "own_training",
)
_NO_GPU_TABLE = """\
The table is empty: no machine with a GPU was at hand, so that neither PyTorch nor Keras was run on one.
`make test-gpu` on a machine with an NVIDIA GPU writes it to benchmarks/results/gpu.md. The code is tested on CPUs, in
`tests/unit/test_device.py`."""
_DATA = os.environ.get("TANDEM_BENCH_DATA", ROOT.parent / "shared" / "data" / "cifar10")


def main() -> None:
    """Measure what is named, then write all results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--data", type=Path, default=_DATA, help="CIFAR-10's Parquet files; or TANDEM_BENCH_DATA"
    )
    parser.add_argument("--pairs", type=int, default=5, help="of alternating measurements (default 5)")
    parser.add_argument("--epochs", type=int, default=10, help="of the tutorials, on both sides (default 10)")
    parser.add_argument("--again", action="store_true", help="discard kept measurements first")
    parser.add_argument("--smoke", action="store_true", help="one pair of tiny sizes, to see that it works")
    given = parser.parse_args()
    data = Path(given.data).resolve()
    if not (data / "train.parquet").is_file():
        parser.error(
            f"no train.parquet in {data}; give the directory of CIFAR-10's Parquet files with --data"
        )
    for name in given.names:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name!r}; there are {', '.join(NAMES)}")
    options = Options(data, 1 if given.smoke else given.pairs, given.epochs, given.smoke)
    directory = SCRATCH / "smoke" if given.smoke else ROOT / "benchmarks" / "results"
    if given.again:
        shutil.rmtree(SCRATCH, ignore_errors=True)  # interrupted runs, too
    for name in given.names or NAMES:
        print(f"== {name}", flush=True)
        file = directory / f"{name}.json"
        if given.again or given.smoke:
            file.unlink(missing_ok=True)
        benchmark = importlib.import_module(f"benchmarks.{name}")
        settings = benchmark.settings(options)
        benchmark.measure(settings, Results(file, settings), options.data)
        _write(directory, SCRATCH / "smoke.md" if given.smoke else ROOT / "benchmarks" / "RESULTS.md")


def _write(directory: Path, file: Path) -> None:
    benchmarks = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    sections = [
        section(each.TITLE, directory / f"{name}.json", each.show) for name, each in benchmarks.items()
    ]
    file.write_text("\n".join(["# Benchmark results\n", *sections, _gpu_section(directory / "gpu.md")]))


def _gpu_section(table: Path) -> str:
    """What `make test-gpu` wrote on a machine with a GPU."""
    text = table.read_text() if table.is_file() else _NO_GPU_TABLE
    return f"## One GPU\n\n{text.strip()}\n"


if __name__ == "__main__":
    main()
