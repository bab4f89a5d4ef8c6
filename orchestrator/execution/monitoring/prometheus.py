"""What a driver on a cluster exports to Prometheus, through Ray's own metrics port on every node."""

from __future__ import annotations

import time

from orchestrator.planning.preflight import Prepared

_EXPORT_SECONDS = 10.0
"""Ray's own interval."""


class Metrics:
    """Gauges for each run, read from the records: `ray_tandem_epoch` and the like, by experiment, arm and run."""

    def __init__(self, prepared: Prepared) -> None:
        from ray.util.metrics import Gauge

        tags = ("experiment", "arm", "run")
        self._prepared = prepared
        self._gauges = {
            "epoch": Gauge("tandem_epoch", "Finished epochs.", tags),
            "train_loss": Gauge("tandem_train_loss", "Training loss of the last epoch.", tags),
            "validation_accuracy": Gauge("tandem_validation_accuracy", "Of the last epoch.", tags),
            "images_per_second": Gauge("tandem_images_per_second", "Of the last epoch.", tags),
        }
        self._told: dict[str, int] = {}
        self._refreshed_at = 0.0

    def refresh(self) -> None:
        """Export what is new, as often as it is looked at."""
        if time.monotonic() - self._refreshed_at < _EXPORT_SECONDS:
            return
        self._refreshed_at = time.monotonic()
        for run in self._prepared.runs:
            epochs = self._prepared.records.run(run.id).epochs()
            if len(epochs) == self._told.get(run.id, 0):
                continue
            self._told[run.id] = len(epochs)
            labels = {"experiment": self._prepared.experiment.name, "arm": run.arm, "run": run.id}
            for name, gauge in self._gauges.items():
                value = epochs[-1].get(name)
                if value is not None:
                    gauge.set(float(value), labels)
