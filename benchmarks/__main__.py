"""Run benchmarks. Usage: python -m benchmarks [NAME…] [--pairs N]; without names, all of them."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    "orchestration",
    "data_parallel",
    "startup",
    "time_to_accuracy",
    "best_accuracy",
    "sweep_overhead",
    "sweep_peers",
)


def main() -> None:
    """Measure what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name!r}; there are {', '.join(NAMES)}")
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main(pairs=options.pairs)


if __name__ == "__main__":
    main()
