"""Two workers of one thread each: tandem over torchrun DDP, Accelerate, Lightning and bare MWMS."""

from __future__ import annotations

from benchmarks import harness

MODEL, BATCH_SIZE, IMAGES, EPOCHS = "tutorial_cnn", 128, 50_000, 3
HEADER = ["comparison", "tandem", "peer", "ratio (lowest to highest pair)", "target"]


def main(*, pairs: int) -> None:
    """Measure PyTorch against three peers, Keras against one, and two workers against one."""
    against_peers(pairs)
    efficiency(pairs)


def against_peers(pairs: int) -> None:
    """Measure PyTorch against three peers and Keras against one."""
    path = harness.archive(IMAGES)

    def peer(name: str) -> float:
        measured = harness.script(name, path, MODEL, BATCH_SIZE, EPOCHS, 1, processes=2)
        return harness.steady(measured["images_per_second"])

    def ours(framework: str) -> float:
        experiment = harness.simple_experiment(
            framework, path, model=MODEL, batch_size=BATCH_SIZE, epochs=EPOCHS, threads=1, workers=2
        )
        return harness.tandem_speed(experiment)

    def mirrored() -> float:
        measured = harness.keras_pair("bare_keras.py", path, MODEL, BATCH_SIZE, EPOCHS, 1)
        return harness.steady(measured["images_per_second"])

    torch = harness.alternate(
        {
            "tandem": lambda: ours("torch"),
            "torchrun": lambda: peer("bare_torch.py"),
            "Accelerate": lambda: peer("accelerate_torch.py"),
            "Lightning": lambda: peer("lightning_torch.py"),
        },
        pairs,
    )
    keras = harness.alternate({"tandem": lambda: ours("keras"), "mirrored": mirrored}, pairs)
    rows = [
        harness.row(f"PyTorch: {name}", torch["tandem"], torch[name], target=1.0)
        for name in ("torchrun", "Accelerate", "Lightning")
    ]
    rows.append(
        harness.row("Keras: MultiWorkerMirroredStrategy", keras["tandem"], keras["mirrored"], target=1.0)
    )
    harness.keep(
        "data_parallel",
        "Data-parallel training against peers",
        f"Images/s of two workers with one thread each, {MODEL}, Adam, global batch {BATCH_SIZE}, "
        f"epochs of {IMAGES:,} images, median of {pairs} alternating runs, first epoch left out.",
        HEADER,
        rows,
    )


def efficiency(pairs: int) -> None:
    """Measure two workers against one of as many threads."""
    batch_size, images = 256, 3072
    path = harness.archive(images)
    rows = []
    for framework in ("keras", "torch"):

        def split(workers: int, framework: str = framework) -> float:
            experiment = harness.simple_experiment(
                framework,
                path,
                model="resnet9",
                batch_size=batch_size,
                epochs=2,
                threads=2 // workers,
                workers=workers,
            )
            return harness.tandem_speed(experiment)

        measured = harness.alternate({"two": lambda s=split: s(2), "one": lambda s=split: s(1)}, pairs)
        rows.append(harness.row(f"{framework} resnet9", measured["two"], measured["one"], target=0.95))
    harness.keep(
        "efficiency",
        "Two workers of one thread over one worker of two",
        f"Images/s, resnet9 with batch normalisation over the global batch, {batch_size} as in examples/best.yaml, "
        f"epochs of {images:,} images, median of {pairs} alternating pairs, first epoch left out.",
        ["arm", "two workers", "one worker", "ratio (lowest to highest pair)", "target"],
        rows,
    )
