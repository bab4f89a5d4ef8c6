"""Folders of pictures as people and archives lay them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.images import everything, fill, noted, opened, refused, saved, sizes


def classes(root: Path, *names: str, count: int = 10) -> Path:
    for name in names:
        fill(root / name, count)
    return root


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (["train", "test"], "train/ and test/ hold pictures but no class folders (5 and 5)"),
        (["Train", "test1"], "Train/ and test1/ hold pictures but no class folders"),
        (["train", "val", "test"], "train/ and val/ and test/ hold pictures but no class folders"),
        (["birds_train", "birds_test"], "birds_train/ and birds_test/ hold pictures but no class folders"),
        (["train_images", "test_images"], "train_images/ and test_images/ hold pictures"),
        (
            ["train"],
            "train/ holds 5 pictures but no class folders; if train is a class, give its folder another",
        ),
        (["train", "sample"], "train/ holds 5 pictures but no class folders"),
        (["trainset", "TestData"], "trainset/ and TestData/ hold pictures but no class folders"),
        (["trainA", "trainB", "testA", "testB"], "hold pictures but no class folders (5 and 5 and 5 and 5)"),
        (["train_images", "cat", "dog"], "train_images/ holds 5 pictures but no class folders"),
        (["train", "test", "cat"], "train/ and test/ hold pictures but no class folders"),
        (["train", "test/a", "test/b"], "train/ holds 5 pictures but no class folders"),
        (["test/a", "test/b", "val/a", "val/b"], "holds val/ and test/ but no train/ with class folders"),
        (
            ["train/train/a", "train/train/b", "train/test/a", "x"],
            "/train holds train/ and test/ instead of class",
        ),
        (["."], "holds 5 pictures but no class folders"),
        (["animals"], "holds one class folder only, animals with 5 pictures; at least 2 classes are needed"),
        (["animals", "."], "holds one class folder only, animals with 5 pictures, and 5 pictures beside it"),
        (["train/images", "test/images"], "train holds one class folder only, images with 5 pictures"),
    ],
)
def test_pictures_without_class_folders_are_refused_by_what_there_is(
    tmp_path: Path, folders: list[str], told: str
) -> None:
    for folder in folders:
        fill(tmp_path / folder, 5)
    message = refused(tmp_path)
    assert told in message and "holds no images" not in message


def test_a_table_beside_flat_splits_is_named_as_the_remedy(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 5)
    (tmp_path / "labels.csv").write_text("id,breed\n")
    assert f"or give a table that does, such as data.path={tmp_path / 'labels.csv'}" in refused(tmp_path)


def test_a_folder_of_other_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.mha", "b.mha", "notes.txt"):
        (tmp_path / "scans" / name).write_text("")
    assert "holds no images, only other files: 2 .mha, 1 .txt" in refused(tmp_path)


@pytest.mark.parametrize(
    ("wrapper", "note"),
    [
        ("animals/animals", "the class folders were found in animals/animals"),
        ("archive/data/all", "the class folders were found in archive/data/all"),
    ],
)
def test_wrapper_folders_are_followed_where_there_is_one_way(tmp_path: Path, wrapper: str, note: str) -> None:
    classes(tmp_path / wrapper, "cat", "dog")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("")
    dataset = opened(tmp_path)
    assert dataset.class_names == ["cat", "dog"] and noted(dataset, note)


def test_wrapper_folders_of_each_split_are_followed(tmp_path: Path) -> None:
    """As Intel's scenes are published."""
    classes(tmp_path / "seg_train" / "seg_train", "sea", "street")
    classes(tmp_path / "seg_test" / "seg_test", "sea", "street", count=4)
    fill(tmp_path / "seg_pred" / "seg_pred", 5)
    dataset = opened(tmp_path, validation=0)
    assert dataset.class_names == ["sea", "street"] and sizes(dataset) == [20, 0, 8]
    assert noted(dataset, "folders beside the splits were left out: seg_pred")


def test_a_copy_beside_the_splits_and_what_a_mac_leaves_are_left_out(tmp_path: Path) -> None:
    """As chest X-rays are published."""
    for split, count in (("train", 10), ("test", 5), ("val", 3)):
        classes(tmp_path / split, "NORMAL", "PNEUMONIA", count=count)
        classes(tmp_path / "chest_xray" / split, "NORMAL", "PNEUMONIA", count=2)
        classes(tmp_path / "__MACOSX" / split, "NORMAL", count=1)
    dataset = opened(tmp_path)
    assert sizes(dataset) == [20, 6, 10]
    assert noted(dataset, "folders beside the splits were left out: chest_xray")


def test_of_two_test_folders_the_one_with_the_classes_is_read(tmp_path: Path) -> None:
    """As Fruits-360 is published."""
    classes(tmp_path / "Training", "Apple Red 1", "Pear")
    classes(tmp_path / "Test", "Apple Red 1", "Pear", count=3)
    fill(tmp_path / "test-multiple_fruits", 4)
    (tmp_path / "papers").mkdir()
    dataset = opened(tmp_path, validation=0)
    assert sizes(dataset) == [20, 0, 6] and noted(dataset, "were left out: test-multiple_fruits")


@pytest.mark.parametrize("test", ["test", "test/unknown", "test/test"])
def test_an_unlabelled_test_folder_is_left_out_with_a_note(tmp_path: Path, test: str) -> None:
    classes(tmp_path / "train", "a", "b")
    fill(tmp_path / test, 7)
    dataset = opened(tmp_path, validation=0)
    assert dataset.class_names == ["a", "b"] and sizes(dataset) == [16, 0, 4]
    assert noted(
        dataset, "test/ holds 7 pictures but no class folders, so it was left out; test pictures are held out"
    )


def test_an_unlabelled_test_folder_beside_classes_is_no_class(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    fill(tmp_path / "test1", 7)
    dataset = opened(tmp_path)
    assert dataset.class_names == ["cat", "dog"] and noted(dataset, "test1/ holds 7 pictures but no class")


def test_a_class_called_train_among_others_is_one(tmp_path: Path) -> None:
    dataset = opened(classes(tmp_path, "bus", "train", "car"))
    assert dataset.class_names == ["bus", "car", "train"] and noted(dataset, "train/ is taken for a class")


def test_several_data_sets_in_one_folder_are_refused_with_the_one_to_give(tmp_path: Path) -> None:
    for name in ("first", "second"):
        for split in ("train", "test"):
            classes(tmp_path / name / split, "a", "b", count=2)
    assert (
        f"{tmp_path / 'first'} holds test/ and train/ and would be one class; give it as data.path"
        in refused(tmp_path)
    )


def test_splits_below_the_classes_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        classes(tmp_path / name, "train", "test", count=2)
    assert "put the splits above the classes, as train/cat" in refused(tmp_path)


def test_folders_of_the_same_names_in_every_class_are_noted(tmp_path: Path) -> None:
    for site in ("site1", "site2"):
        classes(tmp_path / site, "ok", "ng")
    dataset = opened(tmp_path)
    assert dataset.class_names == ["site1", "site2"]
    assert noted(dataset, "each class folder holds the folders ng, ok: if these are the classes")
    for site in ("a", "b"):
        classes(tmp_path / "by-year" / site, "2023", "2024")
    assert not noted(opened(tmp_path / "by-year"), "each class folder holds")


def test_what_lies_beside_the_classes_is_noted(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    fill(tmp_path, 4)
    (tmp_path / "docs").mkdir()
    dataset = opened(tmp_path)
    assert dataset.class_names == ["cat", "dog"] and sum(sizes(dataset)) == 20
    assert noted(dataset, f"4 pictures beside the class folders of {tmp_path.name}/ were left out")
    assert noted(dataset, f"folders of {tmp_path.name}/ without pictures were left out: docs")


@pytest.mark.parametrize(
    "litter", [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "deep/.cache", "deep/@eaDir"]
)
def test_copies_that_programs_leave_behind_are_passed_over_at_every_depth(
    tmp_path: Path, litter: str
) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / name, 15)
        fill(tmp_path / name / litter, 15)
        saved(tmp_path / name / "._00.png", np.zeros((8, 8), np.uint8))
    dataset = opened(tmp_path)
    assert sum(sizes(dataset)) == 30 and not noted(dataset, "also training images")


def test_hidden_parents_of_the_directory_do_not_matter(tmp_path: Path) -> None:
    assert opened(classes(tmp_path / ".cache" / "@eaDir", "a", "b")).class_names == ["a", "b"]


def test_linked_class_folders_are_followed_but_no_links_inside_them(tmp_path: Path) -> None:
    classes(tmp_path / "real", "a", "b")
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "a" / "loop").symlink_to(tmp_path / "links")
    for root in ("real", "links"):
        assert sum(sizes(opened(tmp_path / root))) == 20
    saved(tmp_path / "real" / "a" / "new.png", np.zeros((8, 8), np.uint8))
    assert sum(sizes(opened(tmp_path / "links"))) == 21, "a changed source is read again, through links too"


def test_a_folder_that_is_called_like_a_picture(tmp_path: Path) -> None:
    fill(tmp_path / "cat" / "old.png", 5)
    fill(tmp_path / "dog", 5)
    assert sum(sizes(opened(tmp_path))) == 10


def metadata(directory: Path, names: list[str], *, form: str, labels: bool = True) -> None:
    rows = [
        {"file_name": name} | ({"label": "ab"[place % 2]} if labels else {})
        for place, name in enumerate(names)
    ]
    if form == "jsonl":
        text = "\n".join(map(json.dumps, rows))
    else:
        text = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])
    (directory / f"metadata.{form}").write_text(text)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("above", ["", "archive"])
def test_flat_splits_are_read_with_their_metadata(tmp_path: Path, form: str, above: str) -> None:
    """Hugging Face's image folders: a table in the root, or one in each split."""
    for split, count in (("train", 12), ("validation", 4), ("test", 6)):
        fill(tmp_path / "each" / above / split, count)
        fill(tmp_path / "root" / above / split, count)
        pictures = [f"{number:02}.png" for number in range(count)]
        metadata(tmp_path / "each" / above / split, pictures, form=form)
    root = tmp_path / "root" / above
    metadata(root, [str(file.relative_to(root)) for file in sorted(root.rglob("*.png"))], form=form)
    for kind in ("each", "root"):
        dataset = opened(tmp_path / kind)
        assert dataset.class_names == ["a", "b"] and sizes(dataset) == [12, 4, 6]
        assert not dataset.warnings


@pytest.mark.parametrize("has_table", [False, True])
def test_test_pictures_without_labels_are_left_out_of_metadata(tmp_path: Path, has_table: bool) -> None:
    pictures = [f"{number:02}.png" for number in range(10)]
    for split in ("train", "test"):
        fill(tmp_path / split, 10)
    metadata(tmp_path / "train", pictures, form="csv")
    if has_table:
        metadata(tmp_path / "test", pictures, form="csv", labels=False)
    dataset = opened(tmp_path, validation=0)
    assert sizes(dataset) == [8, 0, 2] and noted(dataset, "left out")
    trained = {bytes(image) for image in everything(dataset)}
    assert len(trained) == 10


def test_metadata_without_labels_is_refused_by_its_columns(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    metadata(tmp_path, ["00.png", "01.png"], form="jsonl", labels=False)
    assert "has the columns file_name; one with labels is needed" in refused(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "00.png"}\n[1]\n')
    assert "metadata.jsonl:2: is no JSON object" in refused(tmp_path)
