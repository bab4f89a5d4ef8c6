"""Each arm of examples/blog.yaml against the plain script of the same tutorial, in pairs.

Usage: python -m benchmarks.tutorial_speed [--data DIR] [--pairs N] [--images N]

Runs tandem and the plain script in turn on the same images with the same threads, takes each
run's median images/s over the epochs after the first, and prints the ratio pair by pair. Writes
benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from orchestrator import environment
from trainers.data import DataSpec, open_dataset

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
EPOCHS = 3
TARGET = 0.95


def steady(images_per_second: list[float]) -> float:
    """Median over the epochs after the first, which also compiles and fills caches."""
    return statistics.median(images_per_second[1:])


def plain(framework: str, archive: Path) -> float:
    """Images/s of the tutorial's own script."""
    script = ROOT / "benchmarks" / f"plain_{framework}.py"
    command = [sys.executable, str(script), str(archive), str(EPOCHS), str(THREADS)]
    thread_limit = {"OMP_NUM_THREADS": str(THREADS)}
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | thread_limit
    )
    return steady(json.loads(finished.stdout.splitlines()[-1])["images_per_second"])


def tandem(framework: str, archive: Path, storage: Path) -> float:
    """Images/s of the same arm under tandem."""
    experiment = yaml.safe_load((ROOT / "examples" / "blog.yaml").read_text())
    experiment["arms"] = {framework: experiment["arms"][framework]}
    file = storage / "one-arm.yaml"
    file.write_text(yaml.safe_dump(experiment))
    name = f"speed-{time.monotonic_ns()}"
    overrides = {
        "name": name,
        "data.source": "npz",
        "data.path": archive,
        "storage": storage,
        f"{framework}.epochs": EPOCHS,
        "scale.cpus_per_worker": THREADS,
    }
    settings = [f"--set={field}={value}" for field, value in overrides.items()]
    command = [str(Path(sys.executable).with_name("tandem")), "run", str(file), *settings]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (epochs,) = (storage / name / "runs").glob("*/epochs.jsonl")
    lines = epochs.read_text().splitlines()
    return steady([json.loads(line)["images_per_second"] for line in lines])


def main() -> None:
    """Measure both frameworks and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cifar10")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--images", type=int, default=16000)
    options = parser.parse_args()

    data = open_dataset(DataSpec(source="cifar10", path=options.data, validation=0))
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        archive = storage / "images.npz"
        np.savez(
            archive,
            x_train=data.train_images[: options.images],
            y_train=data.train_labels[: options.images],
            x_test=data.test_images,
            y_test=data.test_labels,
        )
        for framework in ("keras", "torch"):
            pairs = []
            for pair in range(options.pairs):
                pairs.append((tandem(framework, archive, storage), plain(framework, archive)))
                ours, theirs = pairs[-1]
                print(f"{framework} pair {pair + 1}: {ours:,.0f} / {theirs:,.0f} = {ours / theirs:.3f}")
            ratios = sorted(ours / theirs for ours, theirs in pairs)
            ratio = statistics.median(ratios)
            verdict = "met" if ratio >= TARGET else "missed"
            lines.append(
                f"| {framework} | {statistics.median(ours for ours, _ in pairs):,.0f} "
                f"| {statistics.median(theirs for _, theirs in pairs):,.0f} "
                f"| **{ratio:.3f}** ({ratios[0]:.3f} to {ratios[-1]:.3f}) | {verdict} |"
            )
            print(f"{framework}: median ratio {ratio:.3f}, target {TARGET} {verdict}")
    _write_results(lines, options.pairs, options.images)


def _write_results(lines: list[str], pairs: int, images: int) -> None:
    machine = environment.describe()
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    text = f"""# Benchmark results

Measured {time.strftime("%Y-%m-%d")} by `make bench` on {machine["cpu"]}, {machine["cpus"]} CPUs,
{machine["memory_gib"]} GiB, GPUs: {", ".join(machine["gpus"]) or "none"};
Python {machine["python"]}, {packages}.

## The tutorials under tandem against their plain scripts

`benchmarks/tutorial_speed.py`: images/s, median of {pairs} alternating pairs, {THREADS} threads on both
sides, {images:,} CIFAR-10 images, {EPOCHS} epochs of which the first is left out.

| arm | tandem | plain script | ratio (lowest to highest pair) | at least {TARGET} |
|---|---|---|---|---|
""" + "".join(f"{line}\n" for line in lines)
    (ROOT / "benchmarks" / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
