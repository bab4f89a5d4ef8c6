from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestrator.analysis import scaling, scaling_simulator, variants
from orchestrator.analysis.scaling import Point, ScalingModel
from orchestrator.analysis.scaling_simulator import Forecast, Link, Network
from orchestrator.cli.app import app
from orchestrator.experiment import reader
from orchestrator.report.figures import performance
from orchestrator.store.storage import Storage
from trainers.errors import InputError

EXPERIMENT = {
    "name": "shops",
    "storage": "s3://bucket/results?endpoint_override=minio:9000",
    "arms": {"keras": {"framework": "keras", "batch_size": 64, "early_stopping": {"patience": 2}}},
    "scale": {"workers": {"min": 1, "max": 4}},
    "sweep": {"space": {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]}}},
}


def planted(noise: float = 0.0, *, cores: int = 4) -> list[Point]:
    """Points of 2 ms an image, 10 ms a step and 40 ms for an exchange among infinitely many, of 8 MB of gradients."""
    rng = np.random.default_rng(0)
    points = []
    for mode in ("strong", "weak"):
        for workers in (1, 2, 4):
            for _ in range(5):
                batch = 64 * (workers if mode == "weak" else 1)
                turns = max(1.0, workers / cores)
                seconds = turns * (0.002 * batch / workers + 0.010 + 0.040 * (1 - 1 / workers))
                speed = batch / seconds * (1 + noise * rng.normal())
                points.append(
                    Point(
                        arm="a",
                        mode=mode,
                        workers=workers,
                        batch_size=batch,
                        images_per_second=speed,
                        parameters=2_000_000,
                        turns=turns,
                    )
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
        assert (arm.epochs, arm.early_stopping, arm.seeds) == (variants.EPOCHS, None, [0])
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


@pytest.mark.parametrize("cores", [2, 4])
def test_four_workers_are_predicted_from_one_and_two_even_where_they_share_cores(cores: int) -> None:
    points = planted(cores=cores)
    assert scaling.error_of_largest(points) == pytest.approx(0, abs=1e-9)
    assert scaling.error_of_largest(planted(noise=0.02, cores=cores)) < 0.1
    assert scaling.error_of_largest([point for point in points if point.workers < 4]) is None


def forecast(**changes: Any) -> Forecast:
    wanted: dict[str, Any] = {
        "workers": (1, 8, 64),
        "workers_per_node": 8,
        "link_bytes_per_second": None,
        "overlaps": False,
        "price_per_worker_hour": 3.6,
        "mode": "weak",
    }
    return scaling_simulator.forecast("a", planted(), **wanted | changes)


def test_a_forecast_has_the_measured_link_and_the_price() -> None:
    made = forecast()
    assert made.gradient_bytes == 8_000_000
    assert made.link_bytes_per_second == pytest.approx(2 * 8e6 / 0.040)
    one, node, many = made.scales
    assert (one.nodes, node.nodes, many.nodes) == (1, 1, 8)
    assert one.images_per_second == pytest.approx(64 / 0.138) and one.efficiency == 1
    assert node.images_per_second == pytest.approx(8 * 64 / (0.138 + 0.040 * 7 / 8))
    assert one.price_per_million == pytest.approx(1e6 / (64 / 0.138) * 3.6 / 3600)
    assert many.price_per_million > node.price_per_million > one.price_per_million
    assert made.pays_up_to is None, "weak scaling goes on"


def test_a_slow_link_between_nodes_ends_strong_scaling_early() -> None:
    fast = forecast(mode="strong", workers=(1, 2, 4, 8, 16, 32))
    slow = forecast(mode="strong", workers=(1, 2, 4, 8, 16, 32), link_bytes_per_second=1e7)
    assert fast.pays_up_to is not None and slow.pays_up_to is not None
    assert slow.scales[-1].images_per_second < fast.scales[-1].images_per_second
    assert slow.scales[3] == fast.scales[3], "8 workers share a node"
    text = "\n".join(scaling_simulator.lines(slow, mode="strong"))
    assert "it stops paying at" in text and "8.0 MB of gradients, measured link 3.20 Gbit/s" in text


def test_gradients_that_are_exchanged_in_the_backward_pass_cost_their_end_alone() -> None:
    model = ScalingModel(per_image=0.001, per_step=0.01, exchange=0.0, error=0.0)
    link = Link(bytes_per_second=1e10)
    network = Network(workers_per_node=8, within=link, between=link)
    size = 100 << 20

    def seconds(*, overlaps: bool, share: float = 64) -> float:
        return scaling_simulator.step_seconds(
            model, share=share, workers=4, gradient_bytes=size, network=network, overlaps=overlaps
        )

    whole = scaling_simulator.exchange_seconds(size, 4, link)
    assert whole == pytest.approx(2 * 3 / 4 * size / 1e10)
    assert seconds(overlaps=False) == pytest.approx(0.074 + whole)
    last = scaling_simulator.exchange_seconds(24 << 20, 4, link)
    assert seconds(overlaps=True) == pytest.approx(0.074 + last), (
        "the last bucket is ready when the pass ends"
    )
    assert seconds(overlaps=True, share=0.001) == pytest.approx(0.01 + whole, rel=0.01), (
        "nothing to hide behind"
    )


def test_the_command_simulates_what_storage_holds(tmp_path: Path) -> None:
    file = tmp_path / "shops.yaml"
    file.write_text(json.dumps(EXPERIMENT | {"storage": str(tmp_path)}))
    command = ["bench", "scaling", str(file), "--simulate", "8,64", "--workers-per-node", "8"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "nothing was measured; first give tandem bench scaling" in refused.output
    Storage(str(tmp_path / "shops" / "scaling")).write_json(
        "scaling.json", scaling.summary(planted(), predict=[8])
    )
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "a, weak scaling: 8.0 MB of gradients" in shown.output
    assert "error on the largest measured scale, predicted from the smaller ones: 0%" in shown.output
    as_json = CliRunner().invoke(app, [*command, "--json", "--link-gbit", "100"])
    assert [scale["nodes"] for scale in json.loads(as_json.output)["strong"][0]["scales"]] == [1, 8]
    assert "give a speed above 0" in CliRunner().invoke(app, [*command, "--link-gbit", "0"]).output
