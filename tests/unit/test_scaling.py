from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis import scaling
from orchestrator.analysis.scaling import Point
from orchestrator.experiment import reader
from orchestrator.report.figures import performance
from trainers.errors import InputError

EXPERIMENT = {
    "name": "shops",
    "storage": "s3://bucket/results?endpoint_override=minio:9000",
    "arms": {"keras": {"framework": "keras", "batch_size": 64, "early_stopping": {"patience": 2}}},
    "scale": {"workers": {"min": 1, "max": 4}},
    "sweep": {"space": {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]}}},
}


def planted(noise: float = 0.0) -> list[Point]:
    """Points of 2 ms an image, 10 ms a step and 40 ms for an exchange among infinitely many."""
    rng = np.random.default_rng(0)
    points = []
    for mode in ("strong", "weak"):
        for workers in (1, 2, 4):
            for _ in range(5):
                batch = 64 * (workers if mode == "weak" else 1)
                seconds = 0.002 * batch / workers + 0.010 + 0.040 * (1 - 1 / workers)
                speed = batch / seconds * (1 + noise * rng.normal())
                points.append(
                    Point(arm="a", mode=mode, workers=workers, batch_size=batch, images_per_second=speed)
                )
    return points


def test_the_model_finds_what_was_planted_and_predicts_larger_scales() -> None:
    model = scaling.fit(planted())
    assert (model.per_image, model.per_step, model.exchange) == pytest.approx((0.002, 0.010, 0.040))
    assert model.error == pytest.approx(0, abs=1e-9)
    assert model.step_seconds(640, 16) == pytest.approx(0.002 * 40 + 0.010 + 0.040 * 15 / 16)


def test_the_stated_error_grows_with_the_noise() -> None:
    assert scaling.fit(planted(noise=0.1)).error == pytest.approx(0.1, rel=0.5)


def test_efficiency_compares_with_the_fewest_workers() -> None:
    by_workers = scaling.efficiency(planted(), "weak")
    assert list(by_workers) == [1, 2, 4]
    assert by_workers[1] == 1
    assert by_workers[2] == pytest.approx(0.138 / 0.158)
    assert by_workers[4] < by_workers[2]


def test_a_summary_predicts_what_was_not_measured_and_is_drawn() -> None:
    scales = scaling.summary(planted(), predict=[4, 8])
    predicted = scales["a"]["predicted_efficiency"]
    assert predicted["weak"][8] == pytest.approx(0.138 / (0.138 + 0.040 * 7 / 8))
    assert predicted["strong"][8] < predicted["weak"][8]
    charts = performance.scaling(scales | {"schema": 1})
    assert [chart.title for chart in charts] == ["Strong scaling", "Weak scaling"]


def test_every_scale_trains_the_same_steps_whatever_else_the_file_asks_for() -> None:
    plan = scaling.variants(reader.load_mapping(EXPERIMENT), [2, 4])
    sizes = {(step.mode, step.workers): step.experiment.arms["keras"].batch_size for step in plan}
    assert sizes == {("strong", 2): 64, ("strong", 4): 64, ("weak", 2): 64, ("weak", 4): 128}
    for step in plan:
        arm = step.experiment.arms["keras"]
        assert step.experiment.scale.workers == step.workers
        assert (arm.epochs, arm.early_stopping, arm.seeds) == (scaling.EPOCHS, None, [0])
        assert step.experiment.sweep is None and step.experiment.data.validation == 0
        assert step.experiment.storage == "s3://bucket/results/shops/scaling?endpoint_override=minio:9000"


def test_weak_scaling_keeps_each_workers_share() -> None:
    plan = scaling.variants(reader.load_mapping(EXPERIMENT), [2, 4])
    odd = reader.load_mapping(EXPERIMENT | {"arms": {"keras": {"framework": "keras", "batch_size": 66}}})
    plan += scaling.variants(odd, [2, 3])
    shares = [step.experiment.arms["keras"].batch_size / step.workers for step in plan if step.mode == "weak"]
    assert shares == [32, 32, 33, 33]


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(
        InputError, match=r"--workers 3: arms\.keras\.batch_size 64 does not divide over 3 workers"
    ):
        scaling.variants(reader.load_mapping(EXPERIMENT), [1, 3])
