from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import report
from orchestrator.analysis import compare
from orchestrator.analysis.compare import Comparison
from orchestrator.report import sections, tables
from orchestrator.report.figures import chart, claim, curves, images, interactive, predictions
from orchestrator.store.records import ExperimentRecords
from tests.conftest import within
from tests.unit import synthetic
from tests.unit.synthetic import LABELS, make_records, planted_predictions

LIGHT, DARK = "#ffffff", "#14171a"


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted([luminance(one), luminance(two)])
    return (high + 0.05) / (low + 0.05)


def test_twelve_arms_have_colours_of_their_own_that_show_on_light_and_on_dark_pages() -> None:
    colours = [chart.colour(place) for place in range(12)]
    assert len({*colours}) == 12
    assert min(contrast(colour, page) for colour in colours for page in (LIGHT, DARK)) >= 3
    looks = [(chart.colour(place), chart.marker(place)) for place in range(100)]
    assert len({*looks}) == 100, "an arm with another's colour has another marker"


def analysed(root: Path, accuracies: dict[str, list[float]], **settings: Any) -> Comparison:
    return compare.analyse(make_records(root / "x", accuracies, **settings))


def test_the_claim_shows_every_seed_the_gap_and_the_margin(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]})
    assert sections.draw(comparison)[0].name == "claim"
    seeds, gaps = claim.seeds(comparison), claim.gaps(comparison)
    assert seeds is not None and gaps is not None
    assert seeds.table.columns == ["seed", "keras", "torch"]
    assert seeds.table.rows[1] == ["1", "60.00 %", "65.00 %"]
    dots = {
        series.name: series.x for series in seeds.series if series.kind == "points" and len(series.x) == 3
    }
    assert dots["torch"] == pytest.approx([60, 65, 80])
    (joined,) = (series for series in seeds.series if series.kind == "line")
    assert [x for x in joined.x if x is not None] == pytest.approx([50, 60, 60, 65, 70, 80])
    assert gaps.shade == pytest.approx((-1, 1)) and gaps.rule == 0
    assert "The horizontal axis does not begin at 0." in seeds.notes
    (row,) = tables.evidences(comparison.pairs)
    assert gaps.table.rows[0][:2] == [row["pair"], row["gap, 95 %"]]
    (judgement,) = [pair.judgement for pair in comparison.pairs]
    assert judgement is not None and judgement.gap.low is not None
    lows = [series.low[0] for series in gaps.series if series.low]
    assert judgement.gap.low * 100 in [pytest.approx(low) for low in lows]


def test_of_many_arms_the_gaps_are_those_with_the_best(tmp_path: Path) -> None:
    arms = {f"arm{place:02d}": [0.5 + place / 100 + seed / 50 for seed in range(3)] for place in range(13)}
    comparison = analysed(tmp_path, arms)
    gaps = claim.gaps(comparison)
    assert gaps is not None and len(gaps.table.rows) == 12
    assert all("arm12" in row[0] for row in gaps.table.rows)
    assert f"the other {13 * 12 // 2 - 12}" in claim.caption(comparison)
    shown = sections.in_pictures(comparison)
    assert [arm.name for arm in shown.arms] == [f"arm{place:02d}" for place in range(1, 13)]
    in_picture = claim.gaps(shown)
    assert in_picture is not None and len(in_picture.table.rows) == 11


def test_arms_that_coincide_stay_visible_and_are_named(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"a": [0.5, 0.6, 0.7], "b": [0.5, 0.6, 0.7], "c": [0.6, 0.7, 0.8]})
    curve = curves.learning(comparison, "accuracy")
    assert curve is not None and "a and b coincide." in curve.notes
    named = {series.name: series for series in curve.series if series.is_named}
    assert named["a"].width > named["b"].width, "the one below shows beside the one above"
    noise = predictions.corruption_robustness(comparison)[0]
    places = {series.name: series.x for series in noise.series}
    assert len({tuple(places[name]) for name in "abc"}) == 3


def test_labels_are_the_values_and_not_rounded_ones(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"a": [0.975], "b": [0.975]})
    noise = predictions.corruption_robustness(comparison)[0]
    drawn = interactive.plotly(noise)
    assert drawn["data"][0]["y"][0] == 97.5
    assert "tickformat" not in drawn["layout"]["yaxis"], "ticks have the digits that they need"
    assert noise.table.rows[0][:2] == ["a", "97.50 %"]


def test_axes_say_when_they_are_cut() -> None:
    assert chart.cut(chart.limits([96.0, 97.0]), "vertical") == ["The vertical axis does not begin at 0."]
    assert chart.cut(chart.limits([0.0, 97.0]), "vertical") == []
    assert chart.limits([7.0, 97.0])[0] <= 0, "nothing is won by leaving so little out"
    low, high = chart.limits([99.0, 100.0], bounds=(0, 100))
    assert low < 99 and 100 < high < 100.1, "a marker at the bound is whole, and little beyond is shown"


def test_tables_know_the_numbers_that_they_sort_by(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.65, 0.8]})
    (row,) = tables.evidences(comparison.pairs)
    assert tables.sort_key(row["gap, 95 %"]) == pytest.approx(-0.0833, abs=1e-3)
    assert tables.sort_key(tables.took(comparison)[0]["peak memory"]) == 2**30
    assert tables.sort_key("–") == ""


def test_limits_say_what_was_the_same_and_what_has_no_verdict(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]})
    same = " ".join(tables.not_varied(comparison))
    for words in ("one data set with one split", "epochs 3", "none was searched for", "a CPU"):
        assert words in same
    assert "framework" not in same, "which differs"
    assert "no verdict on speed" in " ".join(tables.not_covered(comparison))


def keep(records: ExperimentRecords, indices: list[int]) -> None:
    records.keep_disagreements(
        {
            "indices": np.array(indices),
            "labels": LABELS[indices],
            "images": np.zeros((len(indices), 4, 4, 1), np.uint8),
            "test_labels": LABELS,
        }
    )


def gallery(records: ExperimentRecords) -> list[images.Item]:
    comparison = compare.analyse(records)
    predicted = {arm: found.predicted for arm, found in comparison.predictions.items()}
    return images.gallery(comparison, predicted, records.test_names())


def test_the_gallery_has_disputed_and_jointly_wrong_images(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]})
    predicted = {
        arm: [planted_predictions(share) for share in shares]
        for arm, shares in {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]}.items()
    }
    wrong = compare.jointly_wrong(predicted, LABELS, at_most=5)
    assert wrong.tolist() == [800, 801, 802, 803, 804]
    keep(records, [750, 801])
    records.keep_test_names([f"photos/{place}.png" for place in range(1000)])
    one, two = gallery(records)
    assert (one.kind, one.file, one.label) == ("disputed", "photos/750.png", "cat")
    assert one.predictions == [("dog", "keras"), ("dog ×2, cat ×1", "torch")]
    assert (two.kind, two.file) == ("wrong in every arm", "photos/801.png")
    assert two.predictions == [("dog", "keras, torch")], "of the class before it"


def test_the_gallery_is_capped_and_says_so(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5], "torch": [0.8]})
    keep(records, list(range(500, 500 + images.MOST + 10)))
    assert len(gallery(records)) == images.MOST
    report.write(records)
    assert (
        f"At most {images.MOST} images on which arms differ"
        in (tmp_path / "x/report/report.html").read_text()
    )


def written_within(records: ExperimentRecords, seconds: float) -> int:
    """Bytes of the page; fails if writing takes longer."""

    def cpu_seconds() -> float:
        started = time.process_time()
        report.write(records)
        return time.process_time() - started

    assert within(seconds, cpu_seconds)
    return (Path(records.storage.url) / "report/report.html").stat().st_size


def test_three_hundred_seeds_are_reported_within_ten_seconds_and_megabytes(tmp_path: Path) -> None:
    seeds = [0.5 + (seed * 37 % 300) / 1000 for seed in range(300)]
    records = make_records(tmp_path / "x", {"keras": seeds, "torch": seeds[::-1]}, epochs=3)
    assert written_within(records, 10) < 10e6


def test_a_thousand_classes_are_reported_within_ten_seconds_and_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "CLASSES", [f"class {number}" for number in range(1000)])
    monkeypatch.setattr(synthetic, "LABELS", np.arange(1000))
    records = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]}, epochs=3)
    assert written_within(records, 10) < 10e6
    comparison = compare.analyse(records)
    by_class = predictions.class_accuracy(comparison)
    assert by_class is not None and by_class.rows == 40 and len(by_class.table.rows) == 1000
    assert "40 of 1,000 classes, those with the largest gaps between arms." in by_class.notes
    matrix = predictions.confusion(comparison, comparison.arms[0])
    assert matrix is not None and matrix.heat is not None and matrix.heat.shape == (40, 40)


def test_an_arm_without_classes_that_are_known_has_no_matrix(tmp_path: Path) -> None:
    comparison = analysed(tmp_path, {"keras": [0.5], "torch": [0.6]})
    arms = [dataclasses.replace(arm, confusion=None) for arm in comparison.arms]
    names = [section.name for section in sections.draw(dataclasses.replace(comparison, arms=arms))]
    assert "confusion" not in names and "class-accuracy" not in names


def test_equal_dots_of_a_row_are_beside_each_other() -> None:
    offsets = chart.stacked([1.0, 1.0, 1.0, 2.0], within=0.3)
    assert offsets[3] == 0 and len({*offsets[:3]}) == 3 and max(map(abs, offsets)) <= 0.3
    assert all(abs(one - two) >= 0.05 for one, two in itertools.combinations(offsets[:3], 2))
