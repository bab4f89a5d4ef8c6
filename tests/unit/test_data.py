from __future__ import annotations

import hashlib
import http.server
import io
import multiprocessing
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.data import Dataset, DataSpec, open_dataset, validation
from trainers.data.decoding import UnreadableError
from trainers.data.download import download
from trainers.data.sources import resolve
from trainers.errors import InputError


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def picture(size: tuple[int, int] = (12, 12), *, value: int = 0, form: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", size, (value % 256, value * 7 % 256, value * 13 % 256)), form)


def folder(root: Path, *, classes: int = 2, images: int = 10, size: tuple[int, int] = (12, 12)) -> Path:
    for label in range(classes):
        directory = root / f"class{label}"
        directory.mkdir(parents=True)
        for number in range(images):
            (directory / f"{number}.png").write_bytes(picture(size, value=label * images + number))
    return root


def opened(**spec: object) -> Dataset:
    return open_dataset(DataSpec(**spec))  # type: ignore[arg-type]


def refused(**spec: object) -> str:
    with pytest.raises(InputError) as caught:
        opened(**spec)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def unreadable(**spec: object) -> list[str]:
    """The lines of a refusal that lists pictures: a sentence, then each reason with the pictures below it."""
    with pytest.raises(UnreadableError) as caught:
        opened(**spec)
    return str(caught.value).splitlines()


def test_digits_need_no_network_and_are_split_without_overlap() -> None:
    dataset = opened()
    counts = [len(dataset.train_labels), len(dataset.validation_labels), len(dataset.test_labels)]
    assert counts == [1294, 144, 359]
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.class_names == [str(digit) for digit in range(10)]
    again = opened(source="digits")
    assert again.fingerprint == dataset.fingerprint
    assert isinstance(again.train_images.base, np.memmap), "workers of a node share one copy"
    assert type(again.train_images[[0]]) is np.ndarray, "TensorFlow is slower to take in others"


def test_cifar10_from_parquet(cifar10: Path) -> None:
    dataset = opened(source="cifar10", path=cifar10, validation=0)
    assert dataset.train_images.shape == (50000, 32, 32, 3)
    assert dataset.test_images.shape == (10000, 32, 32, 3)
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert dataset.class_names[3] == "cat"
    assert dataset.channel_mean == pytest.approx([0.491, 0.482, 0.447], abs=0.005)


def test_cifar10_is_found_by_its_variable(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA", str(cifar10.parent))
    assert resolve(DataSpec(source="cifar10")) == ("parquet", cifar10)
    monkeypatch.setenv("TANDEM_DATA", str(cifar10 / "nowhere"))
    assert "$TANDEM_DATA" in refused(source="cifar10")


class Python2Pickler(pickle._Pickler):  # type: ignore[misc]
    """Writes bytes as Python 2 wrote its strings, which is what CIFAR-10's files hold."""

    dispatch = pickle._Pickler.dispatch | {
        bytes: lambda self, value: self.write(b"T" + struct.pack("<i", len(value)) + value)
    }


def python2_pickle(content: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def batches_py(root: Path) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 20, 3, 32, 32)).astype(np.uint8)
    root.mkdir()
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for batch, name in zip(pixels, names, strict=True):
        content = {b"data": batch.reshape(20, -1), b"labels": [place % 10 for place in range(20)]}
        (root / name).write_bytes(python2_pickle(content))
    meta = {b"label_names": [f"name{label}".encode() for label in range(10)]}
    (root / "batches.meta").write_bytes(python2_pickle(meta))
    return root, pixels


def test_cifar10_batches_py(tmp_path: Path) -> None:
    _, pixels = batches_py(tmp_path / "cifar-10-batches-py")
    dataset = opened(path=tmp_path, validation=0)
    assert len(dataset.train_labels) == 100
    assert np.array_equal(dataset.test_images, pixels[5].transpose(0, 2, 3, 1))
    assert dataset.class_names[9] == "name9"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"I9x\n.", "data_batch_2 cannot be read as a CIFAR-10 batch: ValueError"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)}),
            "data_batch_2 is not a CIFAR-10 batch: it needs data and",
        ),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
            "data_batch_2 is not a CIFAR-10 batch: data are uint8 [2, 3072]; uint8 [1, 3072] is needed",
        ),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    root, _ = batches_py(tmp_path / "cifar-10-batches-py")
    (root / "data_batch_2").write_bytes(content)
    assert expected in refused(path=root)


def test_a_batch_that_would_run_code_is_refused_unrun(tmp_path: Path) -> None:
    root, _ = batches_py(tmp_path / "cifar-10-batches-py")
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(witness),)

    (root / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}))
    assert "has no place in a CIFAR batch" in refused(path=root)
    assert not witness.exists()


def test_parquet_in_the_hugging_face_layout(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": [{"bytes": picture(value=row), "path": None} for row in range(10)],
            "label": pa.array([row % 2 for row in range(10)]),
        }
    ).replace_schema_metadata({"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 4), tmp_path / "data" / "test-00000-of-00001.parquet")
    dataset = opened(path=tmp_path, validation=0)
    assert dataset.class_names == ["cat", "dog"]
    assert len(dataset.train_labels) == 10
    assert "4 of 4 test images are also training images" in dataset.warnings[0]


def test_parquet_files_are_told_apart_by_their_folders_too(tmp_path: Path) -> None:
    for name, rows in (("train", 10), ("validation", 4), ("test", 6)):
        table = {
            "img": [picture(value=row) for row in range(rows)],
            "label": [row % 2 for row in range(rows)],
        }
        (tmp_path / "default" / name).mkdir(parents=True)
        pq.write_table(pa.table(table), tmp_path / "default" / name / "0000.parquet")
    dataset = opened(path=tmp_path)
    assert [len(dataset.train_labels), len(dataset.validation_labels), len(dataset.test_labels)] == [10, 4, 6]


def test_a_folder_of_class_folders_is_split(tmp_path: Path) -> None:
    dataset = opened(path=folder(tmp_path / "pictures", classes=3), validation=0.25)
    assert dataset.class_names == ["class0", "class1", "class2"]
    assert (
        len(dataset.train_labels),
        len(dataset.validation_labels),
        len(dataset.test_labels),
    ) == (
        18,
        6,
        6,
    )
    assert dataset.image_shape == (12, 12, 3)


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "test", images=3)
    dataset = opened(source="folder", path=tmp_path)
    assert len(dataset.test_labels) == 6
    (tmp_path / "test" / "stranger").mkdir()
    assert "folders of test/ without pictures were left out: stranger" in opened(path=tmp_path).warnings
    (tmp_path / "test" / "stranger" / "0.png").write_bytes(picture())
    assert "has the classes stranger, which" in refused(source="folder", path=tmp_path)


def test_mixed_sizes_are_resized_when_a_size_is_chosen(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "class0" / "large.jpg").write_bytes(picture((50, 30), form="JPEG"))
    message = refused(path=tmp_path)
    assert "2 different sizes, from 12x12 to 50x30" in message
    assert "set data.image_size" in message
    assert opened(path=tmp_path, image_size=16).image_shape == (16, 16, 3)


def test_truncated_jpegs_are_listed_by_name(tmp_path: Path) -> None:
    folder(tmp_path)
    whole = picture((64, 64), form="JPEG")
    for name in ("broken.jpg", "cut.jpg"):
        (tmp_path / "class1" / name).write_bytes(whole[: len(whole) // 2])
    sentence, _, *names = unreadable(path=tmp_path, image_size=12)
    assert sentence.startswith(
        f"2 of 22 images cannot be decoded, such as class1/broken.jpg, in {tmp_path}; mend or remove them"
    )
    assert names == ["  class1/broken.jpg", "  class1/cut.jpg"]


def test_broken_pictures_of_all_splits_are_listed_at_once(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "test", images=3)
    whole = picture((64, 64), form="JPEG")
    (tmp_path / "train" / "class0" / "cut.jpg").write_bytes(whole[:-200])
    (tmp_path / "test" / "class1" / "text.png").write_text("not a picture")
    (tmp_path / "test" / "class1" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    sentence, *listed = unreadable(path=tmp_path, image_size=12)
    assert "3 of 29 images cannot be decoded" in sentence
    assert {"  train/class0/cut.jpg", "  test/class1/text.png", "  test/class1/gone.png"} < {*listed}
    assert listed[listed.index("  test/class1/gone.png") - 1] == "No such file or directory:"


def saved(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("form", ["png", "tiff"])
def test_sixteen_bits_of_grey_become_eight(tmp_path: Path, form: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9, 7)).astype(np.uint16)
    for number, pixels in enumerate(deep):
        saved(tmp_path / f"class{number % 2}" / f"{number}.{form}", pixels)
    dataset = opened(path=tmp_path, validation=0)
    assert dataset.image_shape == (9, 7, 1)
    found = [*dataset.train_images[..., 0], *dataset.test_images[..., 0]]
    assert sorted(map(bytes, found)) == sorted(map(bytes, (deep / 256).astype(np.uint8)))
    assert not any("grey levels" in warning for warning in dataset.warnings)


def test_twelve_bits_in_sixteen_are_noted(tmp_path: Path) -> None:
    for number in range(6):
        saved(tmp_path / f"class{number % 2}" / f"{number}.png", np.full((9, 9), 4000 + number, np.uint16))
    noted = opened(path=tmp_path, validation=0).warnings
    assert "keep 1 of 256 grey levels; set data.window" in noted[0]


def test_pixels_without_a_known_range_are_refused_by_name(tmp_path: Path) -> None:
    folder(tmp_path)
    saved(tmp_path / "class1" / "float.tif", np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12))
    sentence, reason, name = unreadable(path=tmp_path)
    assert "1 of 21 images" in sentence and name == "  class1/float.tif"
    assert reason.startswith(
        "pixels of the kind F; 8 bits a channel, or 16 of grey, are needed, or data.window"
    )


def test_pictures_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    upright = np.zeros((20, 12, 3), np.uint8)
    upright[:10] = 250
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for number in range(10):
        turned = {"exif": on_its_side} if number % 2 else {}
        pixels = np.rot90(upright) if turned else upright
        saved(tmp_path / f"class{number // 5}" / f"{number}.png", pixels, **turned)
    dataset = opened(path=tmp_path, validation=0)
    assert dataset.image_shape == (20, 12, 3)
    assert all(np.array_equal(image, upright) for image in dataset.train_images)


def test_every_split_holds_the_classes_in_their_proportions(tmp_path: Path) -> None:
    for label, images in enumerate((60, 20, 5)):
        for number in range(images):
            saved(
                tmp_path / f"class{label}" / f"{number}.png", np.full((9, 9), label * 60 + number, np.uint8)
            )
    dataset = opened(path=tmp_path, test=0.2, validation=0.25, limit=51)
    parts = (dataset.train_labels, dataset.validation_labels, dataset.test_labels)
    shares = [np.bincount(labels, minlength=3) / len(labels) for labels in parts]
    assert shares == pytest.approx(np.tile([60 / 85, 20 / 85, 5 / 85], (3, 1)), abs=0.08)
    assert min(np.bincount(dataset.test_labels)) >= 1


def patients(root: Path, *, first: int = 0, count: int = 30) -> Path:
    """Up to five pictures of each patient, whose number is their shade; every third is ill, and well later."""
    for patient in range(first, first + count):
        for visit in range(1 + patient % 5):
            ill = patient % 3 == 0 and visit < 3
            file = root / ("ill" if ill else "well") / f"p{patient:02}_{visit}.png"
            saved(file, np.full((9, 9), patient, np.uint8))
    return root


def shades(images: np.ndarray) -> set[int]:
    return set(images[:, 0, 0, 0].tolist())


def splits_of(dataset: Dataset) -> list[np.ndarray]:
    return [dataset.train_images, dataset.validation_images, dataset.test_images]


def test_what_belongs_together_is_held_out_together(tmp_path: Path) -> None:
    patients(tmp_path)
    apart = opened(path=tmp_path, validation=0.2)
    assert shades(apart.train_images) & shades(apart.test_images), "at random, a patient is on both sides"
    dataset = opened(path=tmp_path, validation=0.2, group_by=r"/(p\d+)_")
    train, validation, test = (shades(images) for images in splits_of(dataset))
    assert not train & test and not train & validation and not validation & test
    assert train | validation | test == set(range(30))
    assert dataset.groups == {"train": len(train), "validation": len(validation), "test": len(test)}
    sizes = [len(images) for images in splits_of(dataset)]
    assert sum(sizes) == 90 and sizes[2] == pytest.approx(18, abs=5) and sizes[1] == pytest.approx(14, abs=5)
    for labels in (dataset.train_labels, dataset.validation_labels, dataset.test_labels):
        assert 0.05 < np.mean(labels == dataset.class_names.index("ill")) < 0.5
    starts = dataset.train_labels[: len(train) // 2]
    assert len(set(starts.tolist())) == 2, "classes are mixed again within the training images"
    assert not any("groups" in warning for warning in dataset.warnings)


def test_groups_of_a_column_and_of_an_array(tmp_path: Path) -> None:
    visits = np.arange(40) // 4
    shaded = np.tile(visits.astype(np.uint8)[:, None, None, None], (1, 9, 9, 3))
    labels = visits % 2
    table = {
        "img": [encoded(Image.fromarray(image)) for image in shaded],
        "label": labels,
        "patient": visits * 1.5,
    }
    pq.write_table(pa.table(table), tmp_path / "whole.parquet")
    array = npz(tmp_path / "whole.npz", images=shaded, labels=labels, patient=visits)
    for path in (tmp_path / "whole.parquet", array):
        train, validation, test = (
            shades(images) for images in splits_of(opened(path=path, group_by="patient"))
        )
        assert [len(train), len(validation), len(test)] == [7, 1, 2]
        assert len(train | validation | test) == 10


def test_a_source_whose_own_splits_share_a_group_is_told(tmp_path: Path) -> None:
    patients(tmp_path / "train", count=20)
    patients(tmp_path / "test", first=18, count=6)
    (warning,) = [text for text in opened(path=tmp_path, group_by=r"(p\d+)_").warnings if "groups" in text]
    assert warning.startswith("2 of 6 groups of the test images, such as 'p18', have training or validation")


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("(", "data.group_by '(' is not a regular expression"),
        (r"p(1\d)_", "matches nothing in the name of 60 of 90 pictures, such as 'ill/p00_0.png'"),
        (
            "well|ill",
            "the 24 images left to split all belong to 'ill'; at least two groups are needed",
        ),
    ],
)
def test_groups_that_cannot_be_told(tmp_path: Path, group_by: str, expected: str) -> None:
    assert expected in refused(path=patients(tmp_path), group_by=group_by)


def test_groups_that_a_source_does_not_tell(tmp_path: Path) -> None:
    assert "source digits has no such thing" in refused(group_by="p")
    one = npz(tmp_path / "one.npz", images=IMAGES, labels=LABELS, who=np.array([b"p"] * 40))
    assert "all belong to 'p'" in refused(path=one, group_by="who")
    array = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS, who=LABELS[:3])
    assert "'p' is not one of the arrays images, labels, who" in refused(path=array, group_by="p")
    assert "'who' has 3 values for 40 training images" in refused(path=array, group_by="who")
    pq.write_table(pa.table({"img": [picture()], "label": [0]}), tmp_path / "a.parquet")
    assert "a.parquet: img, label" in refused(path=tmp_path / "a.parquet", group_by="p")


def test_an_image_without_a_group_is_refused(tmp_path: Path) -> None:
    rows = [
        f"pictures/{number}.png,{number % 2},{'' if number in (3, 4) else number}" for number in range(10)
    ]
    csv = table(tmp_path / "labels.csv", "file_name,label,patient", *rows)
    patients_of_rows = [None, *range(39)]
    pq.write_table(
        pa.table({"img": [picture()] * 40, "label": LABELS, "patient": patients_of_rows}),
        tmp_path / "a.parquet",
    )
    array = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS, patient=np.r_[np.nan, np.nan, range(38)])
    of_bytes = npz(tmp_path / "b.npz", images=IMAGES, labels=LABELS, patient=np.array([b"", *[b"p"] * 39]))
    for path, missing in (
        (csv, "2 of 10"),
        (tmp_path / "a.parquet", "1 of 40"),
        (array, "2 of 40"),
        (of_bytes, "1 of 40"),
    ):
        message = refused(path=path, group_by="patient")
        assert f"{missing} images have no patient in {path}" in message


def table(file: Path, *rows: str, separator: str = ",") -> Path:
    """A table beside ten pictures whose shades are their numbers."""
    for number in range(10):
        saved(file.parent / "pictures" / f"{number}.png", np.full((9, 9), number, np.uint8))
    file.write_text("\n".join(rows).replace(",", separator) + "\n", encoding="utf-8-sig")
    return file


def test_a_table_tells_each_pictures_class(tmp_path: Path) -> None:
    rows = [f"pictures/{number}.png,{'moth, night' if number % 2 else 'bee'}" for number in range(9)]
    quoted = [row.replace("moth, night", '"moth, night"') for row in rows]
    table(tmp_path / "metadata.csv", "file_name,label", *quoted)
    dataset = opened(path=tmp_path, validation=0)
    assert dataset.class_names == ["bee", "moth, night"]
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert (images[:, 0, 0, 0] % 2).tolist() == labels.tolist()
    assert len(dataset.train_labels) + len(dataset.test_labels) == 9
    assert "1 pictures are not named in metadata.csv and were left out" in dataset.warnings
    before = dataset.fingerprint
    table(tmp_path / "metadata.csv", "file_name,label", *quoted[:8])
    assert opened(path=tmp_path, validation=0).fingerprint != before


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_tells_splits_and_groups(tmp_path: Path, separator: str) -> None:
    splits = ["train"] * 6 + ["val"] + ["Test"] * 3
    rows = [f"pictures\\{n}.png,{n % 2 * 10},{split},p{n // 2}" for n, split in enumerate(splits)]
    file = table(tmp_path / "labels.csv", "image,class,split,patient", *rows, separator=separator)
    dataset = opened(path=file, group_by="patient")
    assert dataset.class_names == ["0", "10"]
    assert [sorted(shades(images)) for images in splits_of(dataset)] == [[*range(6)], [6], [7, 8, 9]]
    assert dataset.groups == {"train": 3, "validation": 1, "test": 2}
    assert any("'p3', have training or validation" in text for text in dataset.warnings)
    saved(tmp_path / "pictures" / "0.png", np.full((9, 9), 200, np.uint8))
    assert 200 in shades(opened(path=file).train_images), "a changed picture is read again"


def test_folders_of_a_tables_pictures_tell_their_splits(tmp_path: Path) -> None:
    for number in range(10):
        place = "test" if number > 7 else "train"
        saved(tmp_path / place / f"{number}.png", np.full((9, 9), number, np.uint8))
    rows = [f"{'test' if n > 7 else 'train'}/{n}.png,{n % 2}" for n in range(10)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    assert shades(opened(path=tmp_path).test_images) == {8, 9}
    saved(tmp_path / "more" / "0.png", np.full((9, 9), 0, np.uint8))
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows, "more/0.png,1"]))
    assert "the folder of 'more/0.png' tells no split" in refused(path=tmp_path)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["file_name,kind", "pictures/0.png,a"], "the columns file_name, kind; one with labels is needed"),
        (["picture,label", "pictures/0.png,a"], "called file_name or filename or filepath or"),
        (["file_name,label", "pictures/0.png,a", "0.png,b"], "1 of the 2 pictures that"),
        (["file_name,label", "pictures/0.png,a", "pictures/1.png,"], "has no label for 1 pictures"),
        (["file_name,label", "pictures/0.png,a", "pictures/1.png"], "has no label for 1 pictures"),
        (["file_name,label,split", "pictures/0.png,a,train", "pictures/1.png,b,both"], "tells no split"),
        (["file_name,label,split", "pictures/0.png,a,test"], "no picture whose split is train"),
        (
            ["file_name,label,split", "pictures/0.png,a,train", "pictures/1.png,b,test"],
            "no training picture is of the classes b",
        ),
        (["file_name,label", "pictures/0.png,a"], "at least 2 are needed"),
        (["file_name,label", 'pictures/0.png,"a'], "cannot be read as comma-separated values"),
        ([""], "the columns ; one with the pictures' files is needed"),
        (["file_name,label"], "names no pictures"),
        (["file_name,label", "x" * 300 + ".png,a"], "1 of the 1 pictures that"),
    ],
)
def test_tables_that_do_not_do(tmp_path: Path, rows: list[str], expected: str) -> None:
    assert expected in refused(path=table(tmp_path / "labels.csv", *rows))


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    folder(tmp_path)
    assert "holds no metadata.csv or metadata.jsonl" in refused(source="table", path=tmp_path)
    table(tmp_path / "labels.csv", "file_name,label", "pictures/0.png,a", "pictures/1.png,b")
    message = refused(path=tmp_path / "labels.csv", group_by="patient")
    assert "data.group_by 'patient' is not a column of" in message and "file_name, label" in message


def test_what_notebooks_and_file_managers_leave_behind_is_no_class_and_no_picture(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    folder(tmp_path / "__MACOSX")
    (tmp_path / "class0" / "._0.png").write_bytes(b"resources")
    dataset = opened(path=tmp_path, validation=0)
    assert dataset.class_names == ["class0", "class1"]
    assert len(dataset.train_labels) + len(dataset.test_labels) == 20


def test_files_that_are_no_known_pictures_are_told(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in ("a.mha", "b.mha", "c.txt", ".DS_Store"):
        (tmp_path / "class0" / name).write_bytes(b"")
    (warning,) = (text for text in opened(path=tmp_path).warnings if "left out" in text)
    assert warning.startswith("3 files in the class folders") and warning.endswith("2 .mha, 1 .txt")


def test_a_picture_under_two_classes_is_told(tmp_path: Path) -> None:
    folder(tmp_path)
    for number in range(10):
        (tmp_path / "class1" / f"{number}.png").write_bytes(picture(value=number))
    assert any("under two classes or more" in text for text in opened(path=tmp_path).warnings)


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("Training", "Validation", "Testing"), ("training_set", "valid", "test_set")],
)
def test_a_folder_with_its_own_validation_split(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for place, (name, images) in enumerate(zip(names, (10, 4, 3), strict=True)):
        folder(tmp_path / name, images=images, size=(12 + place, 12))
    folder(tmp_path / f"{names[0]}_old", images=1)
    dataset = opened(path=tmp_path, image_size=12, validation=0.5)
    assert dataset.class_names == ["class0", "class1"]
    assert [len(dataset.train_labels), len(dataset.validation_labels), len(dataset.test_labels)] == [20, 8, 6]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder(tmp_path, classes=3)
    (tmp_path / "class0").rename(tmp_path / "test tube")
    (tmp_path / "class1").rename(tmp_path / "train")
    dataset = opened(path=tmp_path)
    assert dataset.class_names == ["class2", "test tube", "train"]
    assert "train/ is taken for a class, as the folders beside it are" in dataset.warnings


def test_empty_folders_and_missing_paths(tmp_path: Path) -> None:
    assert "holds no images" in refused(source="folder", path=tmp_path)
    (tmp_path / "class0").mkdir()
    assert "holds no images" in refused(source="folder", path=tmp_path)
    assert "does not exist" in refused(path=tmp_path / "nowhere")
    assert "holds no Parquet files" in refused(source="parquet", path=tmp_path)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 not really")
    assert "cannot be read as Parquet" in refused(path=tmp_path)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"img": ["a.png", "b.png"], "label": [0, 1]}, "row 0: img holds no picture; structs with bytes"),
        ({"img": [{"path": "a.png"}] * 2, "label": [0, 1]}, "row 0: img holds no picture"),
        ({"img": [picture()] * 2, "label": [0, None]}, "has no label in 1 of its 2 rows"),
        ({"img": [picture()] * 2, "label": [[0], [1]]}, "whole numbers, or names, are needed"),
    ],
)
def test_parquet_that_does_not_do(tmp_path: Path, columns: dict[str, list[object]], expected: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert expected in refused(path=tmp_path / "a.parquet")


@pytest.mark.parametrize("said", ["no JSON", '{"info": null}', '{"info": {"features": [1]}}'])
def test_what_parquet_says_of_classes_may_be_anything(tmp_path: Path, said: str) -> None:
    table = pa.table({"img": [picture(value=row) for row in range(10)], "label": [0, 1] * 5})
    pq.write_table(table.replace_schema_metadata({"huggingface": said}), tmp_path / "a.parquet")
    assert opened(path=tmp_path / "a.parquet").class_names == ["0", "1"]


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


IMAGES = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4


NAMES = np.array(["dog", "cat", "eel", "bee"])[LABELS]


def test_labels_may_be_the_names_of_classes(tmp_path: Path) -> None:
    dataset = opened(path=npz(tmp_path / "n.npz", images=IMAGES, labels=NAMES), validation=0)
    assert dataset.class_names == ["bee", "cat", "dog", "eel"]
    named = dict(zip(map(bytes, IMAGES), NAMES.tolist(), strict=True))
    found = [dataset.class_names[label] for label in dataset.train_labels]
    assert found == [named[bytes(image)] for image in dataset.train_images]

    table = pa.table(
        {"img": [encoded(Image.fromarray(image)) for image in IMAGES], "label": LABELS.astype(str) + "0"}
    )
    pq.write_table(table, tmp_path / "n.parquet")
    dataset = opened(path=tmp_path / "n.parquet", validation=0)
    assert dataset.class_names == ["00", "10", "20", "30"]


def test_npz_by_either_convention(tmp_path: Path) -> None:
    keras = npz(
        tmp_path / "k.npz",
        x_train=IMAGES,
        y_train=LABELS[:, None],
        x_test=IMAGES[:8, ::-1],
        y_test=LABELS[:8],
    )
    assert len(opened(path=keras).test_labels) == 8
    medical = npz(
        tmp_path / "m.npz",
        train_images=IMAGES[..., 0],
        train_labels=LABELS,
        test_images=IMAGES[:8, ::-1, :, 0],
        test_labels=LABELS[:8],
        val_images=IMAGES[:4, ::-1, ::-1, 0],
        val_labels=LABELS[:4, None],
    )
    dataset = opened(path=medical)
    assert dataset.image_shape == (8, 8, 1)
    assert np.array_equal(dataset.validation_images, IMAGES[:4, ::-1, ::-1, :1])
    assert [len(dataset.train_labels), len(dataset.test_labels)] == [40, 8]
    plain = npz(tmp_path / "p.npz", images=IMAGES / 255.0, labels=LABELS.astype(np.uint64))
    dataset = opened(path=plain, validation=0)
    assert len(dataset.test_labels) == 8
    assert sorted(map(bytes, [*dataset.train_images, *dataset.test_images])) == sorted(map(bytes, IMAGES))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (
            {"images": IMAGES, "labels": LABELS - 1},
            "out of range: row 0 has -1; labels must be 0 to 2",
        ),
        (
            {
                "x_train": IMAGES,
                "y_train": LABELS,
                "x_test": IMAGES[:2],
                "y_test": np.array([0, 9]),
            },
            "1 test labels are out of range: row 1 has 9",
        ),
        ({"images": IMAGES, "labels": LABELS / 2}, "whole numbers, or names, are needed"),
        ({"images": IMAGES, "labels": np.where(LABELS, LABELS, np.nan)}, "labels are float64"),
        (
            {"images": IMAGES, "labels": LABELS * 10**12},
            "label is 3000000000000, but there are 40 training images",
        ),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "images are uint8 [40, 0, 8, 3]; numbers for pixels"),
        ({"images": IMAGES * 1j, "labels": LABELS}, "images are complex128"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b", "a", "c"])},
            "several classes called a; give each a name of its own",
        ),
        (
            {"x_train": IMAGES, "y_train": NAMES, "x_test": IMAGES[:1], "y_test": np.array(["owl"])},
            "no training picture is of the classes owl",
        ),
        (
            {"x_train": IMAGES, "y_train": NAMES, "x_test": IMAGES, "y_test": LABELS},
            "training labels are <U3",
        ),
        ({"images": IMAGES[:5], "labels": LABELS}, "5 training images but 40 labels"),
        (
            {"images": IMAGES, "labels": np.eye(4)[LABELS]},
            "labels have the shape [40, 4]; one number for each",
        ),
        ({"images": IMAGES * 9.0, "labels": LABELS}, "0 to 255, or 0.0 to 1.0, is needed"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "[n, height, width, 1 or 3] is needed"),
        ({"pixels": IMAGES}, "holds the arrays pixels"),
        ({"images": IMAGES, "labels": LABELS * 0}, "at least 2 are needed"),
    ],
)
def test_inconsistent_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], expected: str
) -> None:
    assert expected in refused(path=npz(tmp_path / "bad.npz", **arrays))


def test_damaged_and_pickled_npz(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 not really")
    assert "cannot be read" in refused(path=tmp_path / "torn.npz")
    objects = npz(tmp_path / "o.npz", images=np.array([{}], object), labels=LABELS[:1])
    assert "plain arrays" in refused(path=objects)
    np.save(tmp_path / "single.npy", IMAGES)
    assert "plain arrays" in refused(path=(tmp_path / "single.npy").rename(tmp_path / "single.npz"))


def test_imbalance_is_noted(tmp_path: Path) -> None:
    labels = np.r_[np.zeros(37, int), 1, 1, 1]
    dataset = opened(path=npz(tmp_path / "i.npz", images=IMAGES, labels=labels), test=0.05)
    assert any("out of balance" in warning for warning in dataset.warnings)


def test_a_changed_source_is_decoded_again(tmp_path: Path) -> None:
    folder(tmp_path)
    before = opened(path=tmp_path).fingerprint
    (tmp_path / "class0" / "new.png").write_bytes(picture(value=99))
    assert opened(path=tmp_path).fingerprint != before


def _open_in_process(path: Path, queue: multiprocessing.Queue[str]) -> None:
    queue.put(opened(path=path).fingerprint)


def test_two_processes_may_decode_at_once(tmp_path: Path) -> None:
    folder(tmp_path, images=50)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_open_in_process, args=(tmp_path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert len({queue.get(timeout=60) for _ in workers}) == 1
    for worker in workers:
        worker.join()


CONTENT = os.urandom(3 << 20)


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with byte ranges; the first answer breaks off half-way if told to."""

    break_off = False
    requests: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).requests.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        if type(self).break_off:
            type(self).break_off = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    RangeHandler.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/archive.tar.gz"
        httpd.shutdown()


MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_download_is_resumed_where_it_broke_off(server: str, tmp_path: Path) -> None:
    RangeHandler.break_off = True
    target = tmp_path / "archive.tar.gz"
    with pytest.raises(InputError, match="run again to go on"):
        download(server, target, md5=MD5)
    assert not target.exists()
    assert download(server, target, md5=MD5).read_bytes() == CONTENT
    assert RangeHandler.requests == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_wrong_checksum_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arrived with checksum"):
        download(server, tmp_path / "archive.tar.gz", md5="0" * 32)
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "archive.tar.gz").exists()


def test_an_unreachable_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot download http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", tmp_path / "x", md5=MD5)


def test_two_downloads_at_once_fetch_once(server: str, tmp_path: Path) -> None:
    target = tmp_path / "archive.tar.gz"
    threads = [
        threading.Thread(target=download, args=(server, target), kwargs={"md5": MD5}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(RangeHandler.requests) == 1


def test_a_thousand_classes_without_test_images_are_one_note() -> None:
    names = [f"class{number:04}" for number in range(1200)]
    train, test = np.repeat(np.arange(1200), 2), np.arange(500)
    arrays = {
        f"{split}_{what}": values
        for split, labels in (("train", train), ("validation", train[:0]), ("test", test))
        for what, values in (
            ("labels", labels),
            (
                "images",
                np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 4, 4, 1)).astype(np.uint8),
            ),
        )
    }
    assert validation.warnings(arrays, names) == [
        "700 of 1200 classes, such as 'class0500', have no test image"
    ]
    arrays["test_labels"] = np.arange(1199)
    arrays["test_images"] = np.random.default_rng(7).integers(0, 256, (1199, 4, 4, 1)).astype(np.uint8)
    assert validation.warnings(arrays, names) == ["class 'class1199' has no test image"]
