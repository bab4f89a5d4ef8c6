"""What `tandem check` says of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import workflows
from orchestrator.execution import driver
from orchestrator.experiment import reader
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import preflight
from tests.conftest import tandem
from tests.unit.images import fill, saved
from trainers.data.decoding import UnreadableError
from trainers.errors import InputError


def experiment(root: Path, **data: Any) -> Experiment:
    document = {
        "name": "checked",
        "data": {"path": str(root / "pictures")} | data,
        "arms": {"torch": {"framework": "torch", "model": "lenet5", "batch_size": 4, "seeds": 1}},
        "storage": str(root / "results"),
    }
    return reader.load_mapping(document)


def classes_told(root: Path, counts: dict[str, int]) -> list[str]:
    """The lines about classes of so many pictures each."""
    for place, (name, count) in enumerate(counts.items()):
        for number in range(count):
            saved(
                root / "pictures" / name / f"{number}.png",
                np.full((4, 4), (place * 7 + number) % 256, np.uint8),
            )
    return [
        line for line in workflows.check(experiment(root), fit=2, module_path=root) if line.startswith("  ")
    ]


def test_the_classes_are_printed_with_their_counts_in_each_split(tmp_path: Path) -> None:
    assert classes_told(tmp_path, {"cat": 20, "long name": 40}) == [
        "  cat        15 training, 1 validation, 4 test",
        "  long name  28 training, 4 validation, 8 test",
    ]


@pytest.mark.parametrize("number", [20, 21, 300])
def test_of_many_classes_the_first_the_last_and_the_extremes_are_printed(tmp_path: Path, number: int) -> None:
    counts = dict.fromkeys([f"class{place:03}" for place in range(number)], 3)
    lines = classes_told(tmp_path, counts | {"class004": 9, "class007": 2})
    if number == 20:
        assert [line.split()[0] for line in lines] == [*counts]
    else:
        assert [line.partition("  ")[2].split("  ")[0] for line in lines] == [
            "first: class000", f"last: class{number - 1:03}", "largest: class004", "smallest: class007"
        ]  # fmt: skip
        assert "largest: class004   6 training" in lines[2] or "7 training" in lines[2]


def test_json_has_what_the_lines_say(tmp_path: Path) -> None:
    fill(tmp_path / "pictures" / "cat", 10)
    fill(tmp_path / "pictures" / "dog", 10)
    (tmp_path / "pictures" / "dog" / "odd.txt").write_text("")
    file = tmp_path / "experiment.json"  # YAML too
    file.write_text(json.dumps(experiment(tmp_path).model_dump(mode="json", exclude={"kubernetes", "sweep"})))
    done = tandem("check", file, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["runs"], told["at_once"], told["time"], told["sweep"]) == (1, 1, None, None)
    assert told["data"]["image_shape"] == [8, 8, 3]
    assert told["data"]["images"] == {"train": 14, "validation": 2, "test": 4}
    assert told["data"]["classes"] == [
        {"name": name, "train": 7, "validation": 1, "test": 2} for name in ("cat", "dog")
    ]
    assert told["data"]["groups"] is None
    assert told["data"]["notes"][0].startswith("1 files in the class folders are not pictures")
    assert not (tmp_path / "results" / "checked" / "runs").exists()


def test_unreadable_pictures_are_listed_in_the_results(tmp_path: Path) -> None:
    fill(tmp_path / "pictures" / "cat", 10)
    fill(tmp_path / "pictures" / "dog", 10)
    for number in range(3):
        (tmp_path / "pictures" / "cat" / f"broken{number}.png").write_text("gone")
    wanted = experiment(tmp_path)
    listing = tmp_path / "results" / "checked" / "unreadable.txt"
    names = ["no picture of a known kind:", *(f"  cat/broken{number}.png" for number in range(3))]
    with pytest.raises(UnreadableError) as caught:
        preflight.prepare(wanted, preflight.open_records(wanted))
    sentence, *listed = str(caught.value).splitlines()
    assert sentence.startswith("3 of 23 images cannot be decoded")
    assert listed == [*names, f"This list is in {listing}"]
    assert listing.read_text().splitlines() == names

    listing.unlink()
    skipping = experiment(tmp_path, unreadable="skip")
    prepared = preflight.prepare(skipping, preflight.open_records(skipping))
    assert listing.read_text().splitlines() == names
    driver.describe(prepared, module_path=tmp_path)
    kept = preflight.open_records(skipping).document()["data"]["warnings"]
    assert "3 of 23 images cannot be read and were left out: unreadable.txt lists them" in kept

    for file in (tmp_path / "pictures" / "cat").glob("broken*"):
        file.unlink()
    preflight.prepare(wanted, preflight.open_records(wanted))
    assert not listing.exists(), "nothing is unreadable any more"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (
            "image_size",
            3,
            "image_size 3 is wrong; give a number of pixels from 4, such as 64, or [height, width]",
        ),
        ("image_size", [64], None),
        ("image_size", [64, 32, 16], "image_size [64, 32, 16] is wrong"),
        ("image_size", "big", "image_size 'big' is wrong"),
        ("image_size", True, "image_size True is wrong"),
        ("image_size", [48, 96], None),
        (
            "window",
            [1, 0],
            "window [1, 0] is wrong; give [low, high] with low below high, such as [-100, 200]",
        ),
        ("window", [1], "window [1] is wrong"),
        ("window", 5, "window 5 is wrong"),
        ("window", [0, float("inf")], "is wrong; give [low, high]"),
        ("window", [-100, 200.5], None),
        ("background", "blurple", "background 'blurple' is no colour; give a name such as black, or #rrggbb"),
        ("background", "#ffffff00", "is no colour"),
        ("background", "#0a0b0c", None),
        ("resize", "squash", "data.resize: 'squash' is not one of stretch, crop, pad"),
        ("unreadable", "ignore", "data.unreadable: 'ignore' is not one of error, skip"),
        ("stretch", "minmax", "data.stretch: 'minmax' is not one of percentiles"),
        ("max_pixels", 0, "data.max_pixels: 0 is wrong"),
    ],
)
def test_fields_of_data_are_checked(tmp_path: Path, field: str, value: object, told: str | None) -> None:
    if told is None:
        assert experiment(tmp_path, **{field: value}).data
        return
    with pytest.raises(InputError) as caught:
        experiment(tmp_path, **{field: value})
    message = str(caught.value)
    assert told in message and f"data.{field}" in message and len(message.splitlines()) == 1


def test_a_window_and_a_stretch_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="window and stretch exclude each other"):
        experiment(tmp_path, window=[0, 1], stretch="percentiles")


def test_the_folder_of_a_tables_pictures_is_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("name: x\ndata: {path: t.csv, images: pics}\narms: {torch: {framework: torch}}\n")
    assert reader.load(file).data.images == tmp_path / "pics"
    assert reader.load(file, ["data.images=other"]).data.images == Path.cwd() / "other"
