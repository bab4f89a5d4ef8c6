"""Tables that name pictures, with the columns that public data sets have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.images import everything, labels, noted, opened, refused, saved, sizes
from trainers.data import Dataset

PICTURES = 20
CLASSES = ["cat" if number % 2 else "dog" for number in range(PICTURES)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures whose shades are their numbers."""
    for number in range(PICTURES):
        saved(tmp_path / "pics" / f"img_{number:02}.png", np.full((9, 9), number * 8, np.uint8))
    return tmp_path


def write(file: Path, header: str, row: str, values: list[object] | None = None) -> Path:
    """A table with a row for each picture, in which {n} is its number and {v} its value."""
    rows = [row.format(n=f"{number:02}", v=value) for number, value in enumerate(values or CLASSES)]
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def assert_right(dataset: Dataset) -> None:
    """Every picture has its class."""
    numbers = everything(dataset)[:, 0, 0, 0] // 8
    assert sorted(numbers.tolist()) == [*range(PICTURES)]
    assert [dataset.class_names[label] for label in labels(dataset)] == [
        CLASSES[number] for number in numbers
    ]


@pytest.mark.parametrize("column", ["filepath", "Filename", "file_name", "IMAGE_ID", " id ", "path", "image"])
@pytest.mark.parametrize("label", ["label", "Class", "dx", "breed ", "category"])
def test_usual_columns_are_known_whatever_their_case_and_spaces(root: Path, column: str, label: str) -> None:
    file = write(root / "t.csv", f"{column},{label}", "pics/img_{n}.png, {v} ")
    assert_right(opened(file))


def test_names_of_columns_extension_and_folder_may_be_given(root: Path) -> None:
    file = write(root / "t.csv", "split_id,Photo No,Kind", "7,img_{n},{v}")
    found = {"image_column": "photo no", "label_column": "KIND", "images": root / "pics"}
    for extension in ("png", ".png"):
        assert_right(opened(file, extension=extension, **found))
    with_extension = write(root / "w.csv", "Photo No,Kind", "img_{n}.PNG,{v}")
    for picture in (root / "pics").iterdir():
        picture.rename(picture.with_suffix(".PNG"))
    assert_right(opened(with_extension, extension="png", **found))


def test_pictures_in_several_folders_are_found_by_their_names(root: Path) -> None:
    """As HAM10000 is published: one table, and two folders of pictures."""
    for number in range(PICTURES):
        part = root / f"part_{1 + number % 2}"
        part.mkdir(exist_ok=True)
        (root / "pics" / f"img_{number:02}.png").rename(part / f"img_{number:02}.png")
    file = write(root / "t.csv", "image_id,dx", "img_{n},{v}")
    assert_right(opened(file, images=root, extension="png"))
    (root / "part_1" / "img_01.png").write_bytes((root / "part_2" / "img_01.png").read_bytes())
    message = refused(file, images=root, extension="png")
    assert "1 of the 20 pictures that" in message and "such as 'img_01.png'" in message


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("image_column", "scan", "data.image_column 'scan' is not a column of"),
        ("label_column", "species", "data.label_column 'species' is not a column of"),
        ("group_by", "patient", "data.group_by 'patient' is not a column of"),
    ],
)
def test_a_column_that_is_not_there(root: Path, field: str, value: str, told: str) -> None:
    message = refused(write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}"), **{field: value})
    assert told in message and "file_name, label" in message


def test_columns_of_unknown_names_say_which_field_names_them(root: Path) -> None:
    message = refused(write(root / "t.csv", "photo,label", "pics/img_{n}.png,{v}"))
    assert "has the columns photo, label" in message and "or named by data.image_column" in message
    message = refused(write(root / "t.csv", "id,MEL,NV", "pics/img_{n}.png,0,1"))
    assert "one with labels is needed" in message and "or named by data.label_column" in message


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        ("img_{n},{v}", "; set data.images: {root}/pics and data.extension: png"),
        ("img_{n}.png,{v}", "; set data.images: {root}/pics"),
        ("pics/img_{n},{v}", "; set data.extension: png"),
        ("C:\\data\\img_{n}.png,{v}", ""),
    ],
)
def test_pictures_that_are_elsewhere_name_the_fields_that_find_them(
    root: Path, row: str, remedy: str
) -> None:
    message = refused(write(root / "t.csv", "id,breed", row))
    assert f"20 of the 20 pictures that {root / 't.csv'} names are not in {root}" in message
    assert message.endswith(f"'{remedy.format(root=root)}")


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.tsv", "t.jsonl"])
def test_tables_of_every_form(root: Path, name: str) -> None:
    if name == "t.jsonl":
        rows = [
            json.dumps(
                {"file_name": f"pics/img_{number:02}.png", "label": kind, "text": "a\u2028b"},
                ensure_ascii=False,
            )
            for number, kind in enumerate(CLASSES)
        ]
        (root / name).write_text("\n".join(rows) + "\n\n")
    else:
        separator = "\t" if name == "t.tsv" else ","
        write(root / name, f"file_name{separator}label", "pics/img_{n}.png" + separator + "{v}")
    assert_right(opened(root / name))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filepath,label", "{root}/pics/img_{n}.png,{v}"),
        ("path;label", "pics\\img_{n}.png;{v}"),
        (",file_name,label", "{n},pics/img_{n}.png,{v}"),
        ('"file_name","label"', '"pics/img_{n}.png","{v}"'),
        ("file_name,label,split", "pics/img_{n}.png,{v},TRAIN"),
    ],
    ids=["absolute", "Windows and semicolons", "an index first", "quotes", "all for training"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_as_programs_write_them(root: Path, header: str, row: str, encoding: str) -> None:
    file = write(root / "t.csv", header, row.replace("{root}", str(root)))
    file.write_text(file.read_text(), encoding=encoding)
    assert_right(opened(file))


def test_classes_may_be_numbers_from_1(root: Path) -> None:
    values: list[object] = [1 + number % 3 for number in range(PICTURES)]
    dataset = opened(write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", values))
    assert dataset.class_names == ["1", "2", "3"]
    numbers = everything(dataset)[:, 0, 0, 0] // 8
    assert [dataset.class_names[label] for label in labels(dataset)] == [
        str(values[number]) for number in numbers
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_tables_in_other_encodings_are_refused(root: Path, encoding: str) -> None:
    kinds: list[object] = ["Äpfel" if number % 2 else "Birnen" for number in range(PICTURES)]
    file = write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", kinds)
    file.write_text(file.read_text(), encoding=encoding)
    assert "cannot be read as comma-separated values in UTF-8" in refused(file)


def test_addresses_in_the_web_are_no_files(root: Path) -> None:
    file = write(root / "t.csv", "image,label", "https://example.org/img_{n}.png,{v}")
    assert f"20 of the 20 pictures that {file} names are not in" in refused(file)


def test_quotes_after_a_space_belong_to_no_value(root: Path) -> None:
    file = write(root / "t.csv", '"file_name", "label"', '"pics/img_{n}.png", "{v}"')
    assert_right(opened(file))


@pytest.mark.parametrize("empty", ["", " ", "nan", "NaN"])
def test_an_empty_label_is_refused(root: Path, empty: str) -> None:
    file = write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", [empty, *CLASSES[1:]])
    assert "has no label for 1 pictures, such as 'pics/img_00.png'" in refused(file)


MEASURED = [
    [round(20 + 1.37 * number, 2) for number in range(PICTURES)],
    [round(0.5 * (number // 4), 1) for number in range(PICTURES)],
    [number * 3 for number in range(PICTURES)],
    [f"person {number}" for number in range(PICTURES - 2)] + ["person 1"] * 2,
]


@pytest.mark.parametrize("values", MEASURED, ids=["all different", "few fractions", "whole numbers", "names"])
def test_measurements_are_no_classes(root: Path, values: list[object]) -> None:
    message = refused(write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", values))
    assert f"the labels have {len(set(values))} values in 20 pictures" in message
    assert "a regression is trained by a function of your own, arms.NAME.train_loop" in message


@pytest.mark.parametrize(
    "values",
    [
        ["cat|dog", "cat", "dog", "cat|bird"] * 5,
        ["cat|dog"] * 10 + ["bird"] * 10,
        ["scab rust", "scab", "rust", "healthy"] * 5,
        ["cat;dog", "cat", "dog", "bird"] * 5,
        ["['cat'; 'dog']", "['cat']"] * 10,
    ],
)
def test_several_labels_are_no_class(root: Path, values: list[object]) -> None:
    message = refused(write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", values))
    assert "names 2 classes" in message
    assert "a model of several labels is trained by a function of your own, arms.NAME.train_loop" in message


def test_a_list_of_labels_in_json_lines_is_no_class(root: Path) -> None:
    rows = [
        json.dumps({"image": f"pics/img_{number:02}.png", "label": ["a", "b"][: 1 + number % 2]})
        for number in range(PICTURES)
    ]
    (root / "t.jsonl").write_text("\n".join(rows))
    assert "the label 'a|b' names 2 classes" in refused(root / "t.jsonl")


@pytest.mark.parametrize(
    "values",
    [
        ['"moth, night"', "bee"] * 10,
        ["golden retriever", "labrador retriever"] * 10,
        ["black/white", "colour"] * 10,
        ["0.0", "1.0"] * 10,
        [number // 2 for number in range(PICTURES)],
    ],
)
def test_classes_whose_names_hold_separators_or_numbers_are_classes(root: Path, values: list[object]) -> None:
    dataset = opened(write(root / "t.csv", "file_name,label", "pics/img_{n}.png,{v}", values))
    assert len(dataset.class_names) == len(set(values))


def test_columns_of_parquet_may_be_named_as_well(root: Path) -> None:
    pictures = [file.read_bytes() for file in sorted((root / "pics").iterdir())]
    pq.write_table(pa.table({"Scan": pictures, "Finding": CLASSES}), root / "t.parquet")
    assert_right(opened(root / "t.parquet", image_column="scan", label_column="finding"))
    assert "or named by data.image_column" in refused(root / "t.parquet")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([[0, 2], [1], [0], [2]] * 5, "the label '0|2' names 2 classes"),
        (
            [20 + 1.37 * number for number in range(PICTURES)],
            "a regression is trained by a function of your own",
        ),
        ([*range(PICTURES)], "a regression is trained by a function of your own"),
        (
            [f"{number / 7:.3f}" for number in range(PICTURES)],
            "a regression is trained by a function of your own",
        ),
    ],
)
def test_labels_of_parquet_that_are_no_classes(root: Path, values: list[object], told: str) -> None:
    pictures = [file.read_bytes() for file in sorted((root / "pics").iterdir())]
    pq.write_table(pa.table({"image": pictures, "label": values}), root / "t.parquet")
    with pytest.raises(Exception, match="label") as caught:
        opened(root / "t.parquet")
    assert told in str(caught.value)


def test_multi_hot_labels_are_no_classes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    several = np.tile([[1, 0, 1], [0, 1, 0], [0, 0, 1]], (4, 1))
    for dtype in (np.int64, np.float32, bool):
        np.savez(tmp_path / "a.npz", images=images, labels=several.astype(dtype))
        message = refused_array(tmp_path / "a.npz")
        assert "the label '0|2' names 2 classes" in message and "arms.NAME.train_loop" in message
        assert "argmax" not in message
    np.savez(tmp_path / "a.npz", images=images, labels=several * [[1, 0, 0]])
    assert "8 images have no label" in refused_array(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=images, labels=np.eye(3)[np.arange(12) % 3])
    assert "labels with a single 1 in each row, its place in the row" in refused_array(tmp_path / "a.npz")


def refused_array(path: Path) -> str:
    with pytest.raises(Exception, match="labels have the shape") as caught:
        opened(path)
    return str(caught.value)


@pytest.mark.parametrize("field", ["image_column", "label_column", "extension", "images"])
def test_fields_of_tables_are_refused_where_there_is_none(root: Path, field: str) -> None:
    saved(root / "a" / "1.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(Exception, match=f"data.{field} 'x': source folder has no such thing, only .*table"):
        opened(root, **{field: "x"})


def test_pictures_that_metadata_does_not_name_are_noted_but_for_hidden_ones(root: Path) -> None:
    write(root / "metadata.csv", "file_name,label", "pics/img_{n}.png,{v}", CLASSES[:18])
    saved(root / "pics" / ".thumbnails" / "x.png", np.zeros((9, 9), np.uint8))
    dataset = opened(root)
    assert sum(sizes(dataset)) == 18 and noted(dataset, "2 pictures are not named in metadata.csv")
