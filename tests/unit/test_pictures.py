"""Pictures of many kinds become the 8-bit pixels that people see."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.report import exported_model, model_card
from tests.unit.images import everything, fill, noted, opened, refused, saved, sizes
from trainers.data import DataSpec, open_dataset
from trainers.data.decoding import Broken, decode
from trainers.data.labelled import Encoded

HERE = (40, 40)


def two_classes(
    root: Path, make: Callable[[Path, int], object], *, count: int = 20, form: str = "png"
) -> Path:
    for number in range(count):
        file = root / f"class{number % 2}" / f"{number:02}.{form}"
        file.parent.mkdir(parents=True, exist_ok=True)
        make(file, number)
    return root


def scan(number: int, top: float = 1.0, side: int = 24) -> np.ndarray:
    """A noisy slope from 0 to `top`."""
    rows, columns = np.mgrid[:side, :side] / (side - 1)
    noise = np.random.default_rng(number).uniform(0, 0.1, (side, side))
    return ((columns if number % 2 else rows) * 0.9 + noise) * top


def shown(root: Path, **spec: object) -> dict[int, np.ndarray]:
    """What is read of each picture of `two_classes`, by number; each is alone in its own data set's test split."""
    files = sorted(root.rglob("*.*"), key=lambda file: file.stem)
    dataset = opened(root, **spec)
    broken: list[Broken] = []
    encoded = [Encoded.of_file(file, file.name) for file in files]
    decoded = np.concatenate(
        [*decode(encoded, dataset.image_shape, DataSpec(**spec), broken)]  # type: ignore[arg-type]
    )
    assert not broken
    assert sorted(map(bytes, everything(dataset))) == sorted(map(bytes, decoded))
    return dict(enumerate(decoded))


def big_endian_tiff(file: Path, pixels: np.ndarray) -> None:
    """As many microscopes write it."""
    height, width = pixels.shape
    content = pixels.astype(">u2").tobytes()
    entries = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    directory = struct.pack(">H", len(entries) + 1)
    for tag, value in entries:
        directory += struct.pack(">HHIHH", tag, 3, 1, value, 0)
    directory += struct.pack(">HHII", 279, 4, 1, len(content)) + bytes(4)
    file.write_bytes(b"MM\0*" + struct.pack(">I", 8 + len(content)) + content + directory)


def png_of_16_bits(file: Path, pixels: np.ndarray) -> None:
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


FULL = {number: scan(number, 65535).astype(np.uint16) for number in range(20)}


@pytest.mark.parametrize("form", ["png", "tiff", "tif", "pgm"])
def test_full_16_bits_of_grey_are_their_upper_half_without_a_note(tmp_path: Path, form: str) -> None:
    def make(file: Path, number: int) -> None:
        if form == "tif":
            big_endian_tiff(file, FULL[number])
        elif form == "pgm":
            file.write_bytes(b"P5 24 24 65535\n" + FULL[number].astype(">u2").tobytes())
        else:
            saved(file, FULL[number])

    two_classes(tmp_path, make, form=form)
    assert all(np.array_equal(image[..., 0], FULL[number] >> 8) for number, image in shown(tmp_path).items())
    assert not opened(tmp_path).warnings


def test_16_bits_of_colour_are_their_upper_half(tmp_path: Path) -> None:
    colours = {number: np.stack([grey, grey // 2, grey // 4], -1) for number, grey in FULL.items()}
    two_classes(tmp_path, lambda file, number: png_of_16_bits(file, colours[number]))
    for number, image in shown(tmp_path).items():
        assert np.abs(image.astype(int) - (colours[number] >> 8)).max() <= 1
    assert not opened(tmp_path).warnings
    assert "20 of 20 images cannot be decoded" in refused(tmp_path, window=[0, 40000])
    narrow = {number: colour // 16 for number, colour in colours.items()}
    two_classes(tmp_path / "narrow", lambda file, number: png_of_16_bits(file, narrow[number]))
    assert noted(opened(tmp_path / "narrow"), "keep 16 of 256 grey levels")


def test_one_class_of_16_bits_and_one_of_8_look_alike(tmp_path: Path) -> None:
    def make(file: Path, number: int) -> None:
        saved(file, FULL[number] if number % 2 else (FULL[number] >> 8).astype(np.uint8))

    two_classes(tmp_path, make)
    assert all(np.array_equal(image[..., 0], FULL[number] >> 8) for number, image in shown(tmp_path).items())
    dataset = opened(tmp_path, window=[1000, 60000])
    assert noted(dataset, "10 of 20 images, such as class0/")
    assert noted(dataset, "lie wholly outside data.window and are plain black or white")


def hounsfield(number: int) -> np.ndarray:
    """A CT slice as DeepLesion stores it."""
    rng = np.random.default_rng(number)
    slice_ = 40 + rng.normal(0, 12, (32, 32))
    slice_[:3] = -1000
    if number % 2:
        row, column = rng.integers(8, 20, 2)
        slice_[row : row + 7, column : column + 7] += 60
    return (slice_ + 32768).round().astype(np.uint16)


def marked(number: int) -> np.ndarray:
    """12 bits with a white mark burnt in."""
    pixels = scan(number, 4095).astype(np.uint16)
    pixels[2:4, 2:4] = 65535
    return pixels


@pytest.mark.parametrize(
    ("make", "levels"),
    [
        (lambda number: scan(number, 4095).astype(np.uint16), 16),
        (lambda number: (scan(number, 2000) - 1000 + 32768).astype(np.uint16), 8),
        (marked, 17),
        (hounsfield, 3),
    ],
    ids=["12 bits", "CT", "12 bits and a mark", "soft tissue"],
)
def test_few_remaining_grey_levels_are_noted_whatever_the_maximum(
    tmp_path: Path, make: Callable[[int], np.ndarray], levels: int
) -> None:
    two_classes(tmp_path, lambda file, number: saved(file, make(number)))
    first, *_ = opened(tmp_path, image_size=16).warnings
    assert f"keep {levels} of 256 grey levels; set data.window" in first


def test_a_mark_of_many_greys_does_not_hide_few_levels(tmp_path: Path) -> None:
    def make(file: Path, number: int) -> None:
        pixels = scan(number, 4095, side=128).astype(np.uint16)
        pixels[0, :] = np.linspace(0, 65535, 128)  # 0.8 % of the pixels
        saved(file, pixels)

    two_classes(tmp_path, make)
    assert (
        opened(tmp_path)
        .warnings[0]
        .startswith("99 % of the pixels of the images stored in more than 8 bits keep ")
    )


def test_the_note_on_levels_comes_before_the_duplicates_that_follow_from_it(tmp_path: Path) -> None:
    two_classes(tmp_path, lambda file, number: saved(file, np.full((9, 9), 32768 + number, np.uint16)))
    levels, *others = opened(tmp_path).warnings
    assert "keep 1 of 256 grey levels" in levels
    assert any("under two classes" in note for note in others)
    assert any("also training images" in note for note in others)


def test_a_window_keeps_what_16_bits_hold(tmp_path: Path) -> None:
    slices = {number: hounsfield(number) for number in range(20)}
    two_classes(tmp_path, lambda file, number: saved(file, slices[number]))
    low, high = 32768 - 100, 32768 + 200
    for number, image in shown(tmp_path, window=[low, high]).items():
        by_hand = np.clip((slices[number].astype(float) - low) / (high - low) * 255, 0, 255)
        assert np.abs(image[..., 0] - by_hand).max() <= 0.5
    assert not opened(tmp_path, window=[low, high]).warnings


def test_a_window_that_no_picture_lies_in_is_refused_with_what_is_stored(tmp_path: Path) -> None:
    two_classes(tmp_path, lambda file, number: saved(file, hounsfield(number)))
    message = refused(tmp_path, window=[-100, 200])
    assert "data.window [-100, 200] leaves all images of" in message
    assert "their stored values go from 31768 to 32" in message


def test_a_saved_model_reads_new_pictures_as_it_read_those_of_training(
    tmp_path: Path, monkeypatch: Any
) -> None:
    low, high = 32668, 32968
    two_classes(tmp_path / "data", lambda file, number: saved(file, hounsfield(number)))
    data = DataSpec(path=tmp_path / "data", window=[low, high], source="folder")  # type: ignore[arg-type]
    description = {
        "framework": "torch",
        "class_names": ["class0", "class1"],
        "image_shape": [32, 32, 1],
        "pictures": model_card.picture_fields(data.model_dump(mode="json")),
    }
    (tmp_path / exported_model.DESCRIPTION).write_text(json.dumps(description))
    given: list[np.ndarray] = []

    def predict(_action: str, _directory: str, scratch: str, **_: str) -> None:
        given.append(np.load(Path(scratch) / "images.npy"))
        np.save(Path(scratch) / "probabilities.npy", np.array([[0.2, 0.8]]))

    monkeypatch.setattr(exported_model, "_in_process", predict)
    file = tmp_path / "data" / "class1" / "01.png"
    assert exported_model.predict(tmp_path, [file])[0][0].label == "class1"
    assert bytes(given[0][0]) in {bytes(image) for image in everything(open_dataset(data))}


def test_percentiles_stretch_each_picture(tmp_path: Path) -> None:
    greys = {number: scan(number, 4095).astype(np.uint16) for number in range(20)}
    two_classes(tmp_path, lambda file, number: saved(file, greys[number]))
    for number, image in shown(tmp_path, stretch="percentiles").items():
        low, high = np.percentile(greys[number], [1, 99])
        by_hand = np.clip((greys[number] - low) / (high - low) * 255, 0, 255)
        assert np.abs(image[..., 0] - by_hand).max() <= 0.5
    assert not opened(tmp_path, stretch="percentiles").warnings


def test_window_and_stretch_apply_to_8_bits_and_to_colour_too(tmp_path: Path) -> None:
    dark = {number: np.stack([scan(number, 15)] * 3, -1).astype(np.uint8) for number in range(20)}
    two_classes(tmp_path, lambda file, number: saved(file, dark[number]))
    assert noted(opened(tmp_path), "the training pixels have 15 of 256 grey levels, from 0 to 14")
    for image in shown(tmp_path, window=[0, 15]).values():
        assert image.max() > 200
    for image in shown(tmp_path, stretch="percentiles").values():
        assert image.min() == 0 and image.max() == 255


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_range_need_a_window_or_a_stretch(tmp_path: Path, kind: Any) -> None:
    top = 1 if kind is np.float32 else 100_000
    values = {number: scan(number, top).astype(kind) for number in range(20)}
    two_classes(tmp_path, lambda file, number: saved(file, values[number]), form="tiff")
    assert "20 of 20 images cannot be decoded" in refused(tmp_path)
    for number, image in shown(tmp_path, window=[0, top]).items():
        assert np.abs(image[..., 0] - np.clip(values[number].astype(float) / top * 255, 0, 255)).max() <= 0.5
    assert opened(tmp_path, stretch="percentiles").train_images.max() == 255


def test_float_pixels_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    def make(file: Path, number: int) -> None:
        values = scan(number).astype(np.float32)
        values[0] = np.nan
        saved(file, values)

    two_classes(tmp_path, make, form="tiff")
    for spec in ({"window": [0, 1]}, {"stretch": "percentiles"}):
        assert not everything(opened(tmp_path, **spec))[:, 0].any()
    two_classes(
        tmp_path / "nothing", lambda file, _: saved(file, np.full((9, 9), np.nan, np.float32)), form="tiff"
    )
    assert "20 of 20" in refused(tmp_path / "nothing", stretch="percentiles")


def test_arrays_of_other_numbers_take_a_window(tmp_path: Path) -> None:
    images = np.stack([hounsfield(number) for number in range(20)])
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 2)
    with pytest.raises(Exception, match=r"uint16 from 31768 to .* or data\.window or data\.stretch"):
        opened(tmp_path / "a.npz")
    dataset = opened(tmp_path / "a.npz", window=[32668, 32968])
    by_hand = np.rint(np.clip((images.astype(float) - 32668) / 300 * 255, 0, 255)).astype(np.uint8)
    assert sorted(map(bytes, everything(dataset))) == sorted(map(bytes, by_hand))


@pytest.mark.parametrize("form", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_transparent_pixels_are_white_whatever_colour_hides_below(tmp_path: Path, form: str) -> None:
    """Cut-outs of a shop: JPEGs on white, and PNGs whose surroundings are transparent noise."""

    def make(file: Path, number: int) -> None:
        rng = np.random.default_rng(number)
        object_ = np.zeros(HERE, bool)
        object_[10:30, 10:30] = True
        noise = rng.integers(0, 200, HERE).astype(np.uint8)
        grey = np.where(object_, 60, noise if form in ("RGBA", "LA") else 201).astype(np.uint8)
        alpha = np.where(object_, 255, 0).astype(np.uint8)
        if number % 4 < 2:
            saved(
                file,
                np.where(object_, 60, 255).astype(np.uint8),
                "L" if form in ("L", "LA", "I;16") else "RGB",
            )
        elif form == "RGBA":
            saved(file, np.dstack([grey, grey, grey, alpha]))
        elif form == "LA":
            Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(file)
        elif form == "P":
            image = Image.fromarray(np.where(object_, 1, 0).astype(np.uint8), "P")
            image.putpalette([201, 0, 0, 60, 60, 60])
            image.save(file, transparency=0)
        elif form == "RGB":
            saved(file, np.dstack([grey] * 3), transparency=(201, 201, 201))
        elif form == "L":
            saved(file, grey, transparency=201)
        else:
            saved(file, grey.astype(np.uint16) * 256, transparency=201 * 256)

    two_classes(tmp_path, make)
    for image in shown(tmp_path).values():
        assert (image[0] == 255).all() and (image[15, 15] == 60).all()
    for image in list(shown(tmp_path, background="black").values())[2:4]:
        assert (image[0] == 0).all() and (image[15, 15] == 60).all()


def test_a_coloured_background_makes_grey_pictures_colour(tmp_path: Path) -> None:
    grey = Image.merge("LA", [Image.new("L", (8, 8), 60), Image.new("L", (8, 8), 0)])
    two_classes(
        tmp_path, lambda file, number: grey.save(file) if number else saved(file, np.eye(8, dtype=np.uint8))
    )
    dataset = opened(tmp_path, background="#ff0000")
    assert dataset.image_shape == (8, 8, 3)
    assert [255, 0, 0] in everything(dataset)[:, 0, 0].tolist()


def broken(root: Path) -> Path:
    """Two classes of 30 pictures, of which 12 and 13 are broken."""
    for name, bad in (("cat", 12), ("dog", 13)):
        fill(root / name, 30, form="png")
        for number in range(bad):
            (root / name / f"{number:02}.png").write_text("gone")
    return root


def test_all_unreadable_pictures_are_listed_one_a_line_below_their_reason(tmp_path: Path) -> None:
    (broken(tmp_path) / "cat" / "12.png").write_bytes(b"")
    with pytest.raises(Exception, match="26 of 60 images cannot be decoded") as caught:
        opened(tmp_path)
    sentence, *listed = str(caught.value).splitlines()
    assert str(tmp_path) in sentence and sentence.endswith("train without them by data.unreadable: skip:")
    assert "no picture of a known kind:" in listed and "the file is empty:" in listed
    names = [f"  {name}/{number:02}.png" for name, bad in (("cat", 13), ("dog", 13)) for number in range(bad)]
    assert sorted(line for line in listed if line.startswith("  ")) == names


def test_unreadable_pictures_may_be_left_out_with_a_note(tmp_path: Path) -> None:
    dataset = opened(broken(tmp_path), unreadable="skip")
    assert sum(sizes(dataset)) == 35
    assert noted(dataset, "25 of 60 images cannot be read and were left out: unreadable.txt lists them")
    assert len(dataset.unreadable.splitlines()) == 26
    kept = {
        (bytes(np.asarray(Image.open(file))), file.parent.name)
        for file in tmp_path.rglob("*.png")
        if file.read_bytes() != b"gone"
    }
    for split in ("train", "validation", "test"):
        pairs = zip(getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels"), strict=True)
        assert {(bytes(image), dataset.class_names[label]) for image, label in pairs} <= kept


def test_a_split_that_would_be_left_empty_is_refused(tmp_path: Path) -> None:
    broken(tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.write_text("gone")
    assert "60 of 60 images cannot be decoded" in refused(tmp_path, unreadable="skip")
    for split in ("train", "test"):
        for name in ("a", "b"):
            fill(tmp_path / "own" / split / name, 4)
    for file in (tmp_path / "own" / "test").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:-30])
    message = refused(tmp_path / "own", unreadable="skip")
    assert "8 of 16 images cannot be decoded" in message and "which leaves no test image" in message


@pytest.mark.parametrize("size", [64, [48, 96]])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_pictures_keep_their_aspect_ratio_if_asked(tmp_path: Path, resize: str, size: Any) -> None:
    """A white square in the middle of a wide grey picture."""

    def make(file: Path, _: int) -> None:
        pixels = np.full((60, 180, 3), 100, np.uint8)
        pixels[20:40, 80:100] = 255
        saved(file, pixels)

    two_classes(tmp_path, make)
    dataset = opened(tmp_path, image_size=size, resize=resize, background="black")
    height, width = (size, size) if isinstance(size, int) else size
    assert dataset.image_shape == (height, width, 3)
    image = dataset.train_images[0, ..., 0].astype(int)
    tall, wide = ((image > 180).any(axis=axis).sum() for axis in (1, 0))
    if resize == "stretch":
        assert wide / tall == pytest.approx(width / height / 3, rel=0.2)
    else:
        assert wide / tall == pytest.approx(1, abs=0.15)
    assert (image[0, 0] == 0) == (resize == "pad")


def test_differing_sizes_without_an_image_size_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a", 4, side=8)
    fill(tmp_path / "b", 4, side=9)
    assert "have 2 different sizes, from 8x8 to 9x9" in refused(tmp_path, resize="crop")


def test_the_limit_on_large_pictures_is_a_field(tmp_path: Path) -> None:
    fill(tmp_path / "a", 4, side=20)
    fill(tmp_path / "b", 4, side=30)
    with pytest.raises(Exception, match=r"30x30 are 900 pixels; data\.max_pixels allows 800"):
        opened(tmp_path, image_size=8, max_pixels=800)
    assert sizes(opened(tmp_path, image_size=8, max_pixels=900))


def test_pictures_larger_than_pillows_own_limit_may_be_allowed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    fill(tmp_path / "a", 4, side=20)
    fill(tmp_path / "b", 4, side=20)
    assert sum(sizes(opened(tmp_path))) == 8


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_upright_in_every_format(tmp_path: Path, form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = np.zeros((24, 16, 3), np.uint8)
    stored[:8, :8] = 255
    two_classes(tmp_path, lambda file, _: saved(file, stored, exif=exif), form=form)
    dataset = opened(tmp_path)
    by_hand = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[turn]  # fmt: skip
    assert dataset.image_shape == by_hand.shape
    assert np.abs(dataset.train_images[0].astype(int) - by_hand).max() <= 60


def test_damaged_exif_data_do_not_matter(tmp_path: Path) -> None:
    def make(file: Path, number: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(buffer, "JPEG", exif=b"Exif\0\0nonsense")
        file.write_bytes(buffer.getvalue())

    two_classes(tmp_path, make, form="jpg")
    assert sum(sizes(opened(tmp_path))) == 20


def test_avif_is_read_by_pillow(tmp_path: Path) -> None:
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    two_classes(
        tmp_path, lambda file, number: saved(file, np.full((16, 16, 3), number * 10, np.uint8)), form="avif"
    )
    assert sum(sizes(opened(tmp_path))) == 20


def test_heic_is_read_by_pillow_heif(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")

    def make(file: Path, number: int) -> None:
        heif.from_pillow(Image.fromarray(np.full((64, 48, 3), number * 10, np.uint8))).save(file, quality=-1)

    two_classes(tmp_path, make, form="heic")
    images = shown(tmp_path)
    assert all(np.abs(image.astype(int) - number * 10).max() <= 3 for number, image in images.items())


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an import of a module fail, as where it is not installed."""
    import builtins

    imported = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize(
    ("content", "suffix", "module", "told"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(50), "heic", "pillow_heif", "pip install 'tandem-compare[heic]'"),
        (bytes(128) + b"DICM" + bytes(50), "dcm", "pydicom", "pip install 'tandem-compare[dicom]'"),
        (bytes(200), "dcm", "pydicom", "pip install 'tandem-compare[dicom]'"),
    ],
)
@pytest.mark.parametrize("unreadable", ["error", "skip"])
def test_a_missing_library_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: Any, content: bytes, suffix: str, module: str, told: str, unreadable: str
) -> None:
    from trainers.data import pictures

    pictures._register_heif.cache_clear()
    without(module, monkeypatch)
    fill(tmp_path / "class0", 5)
    fill(tmp_path / "class1", 5)
    (tmp_path / "class1" / f"scan.{suffix}").write_bytes(content)
    with pytest.raises(Exception, match="pip install") as caught:
        opened(tmp_path, unreadable=unreadable)
    message = str(caught.value)
    assert f"class1/scan.{suffix} is a " in message and told in message and "\n" not in message


def dicom(file: Path, pixels: np.ndarray, **tags: Any) -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(file, enforce_file_format=True)


def tissue(number: int) -> np.ndarray:
    """Hounsfield units plus 1024."""
    return (hounsfield(number).astype(int) - 32768 + 1024).astype(np.uint16)


CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}


def test_dicom_is_read_with_the_window_of_its_tags(tmp_path: Path) -> None:
    tags = CT | {"WindowCenter": [50, 500], "WindowWidth": [300, 1500]}
    two_classes(tmp_path, lambda file, number: dicom(file, tissue(number), **tags), form="dcm")
    for number, image in shown(tmp_path).items():
        units = tissue(number).astype(float) - 1024
        by_hand = np.clip((units - (50 - 0.5 - 299 / 2)) / 299 * 255, 0, 255)  # DICOM PS3.3 C.11.2.1.2.1
        assert np.abs(image[..., 0] - by_hand).max() <= 0.5
    assert not opened(tmp_path).warnings


def test_an_experiments_window_wins_over_that_of_dicoms_tags(tmp_path: Path) -> None:
    tags = CT | {"WindowCenter": 0, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}
    two_classes(tmp_path, lambda file, number: dicom(file, tissue(number), **tags), form="dcm")
    assert "20 of 20 images cannot be decoded" in refused(tmp_path)
    for number, image in shown(tmp_path, window=[-100, 200]).items():
        by_hand = np.clip((tissue(number).astype(float) - 1024 + 100) / 300 * 255, 0, 255)
        assert np.abs(image[..., 0] - by_hand).max() <= 0.5


def test_dicom_without_a_window_keeps_its_whole_range_and_notes_few_levels(tmp_path: Path) -> None:
    two_classes(
        tmp_path, lambda file, number: dicom(file, tissue(number), BitsStored=12, HighBit=11), form="dcm"
    )
    assert noted(opened(tmp_path), "of 256 grey levels; set data.window")
    image = shown(tmp_path)[0]
    assert np.abs(image[..., 0] - tissue(0) / 4095 * 255).max() <= 0.5


def test_dicom_of_inverted_grey_signed_values_and_colour(tmp_path: Path) -> None:
    signed = (tissue(0).astype(int) - 1024).astype(np.int16)
    two_classes(
        tmp_path / "inverted",
        lambda file, _: dicom(
            file, signed, PhotometricInterpretation="MONOCHROME1", WindowCenter=50, WindowWidth=300
        ),
        form="dcm",
    )
    image = shown(tmp_path / "inverted")[0]
    assert (image[0] == 255).all(), "air is the lowest, and white"
    colour = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    two_classes(tmp_path / "colour", lambda file, _: dicom(file, colour), form="dcm")
    assert np.array_equal(shown(tmp_path / "colour")[0], colour)


def test_dicom_of_several_frames_or_cut_off_is_listed(tmp_path: Path) -> None:
    two_classes(tmp_path, lambda file, number: dicom(file, tissue(number)), form="dcm")
    dicom(tmp_path / "class0" / "film.dcm", np.zeros((9, 9), np.uint16), NumberOfFrames=3)
    whole = (tmp_path / "class1" / "01.dcm").read_bytes()
    (tmp_path / "class1" / "cut.dcm").write_bytes(whole[:-300])
    with pytest.raises(Exception, match="2 of 22 images cannot be decoded") as caught:
        opened(tmp_path, image_size=16)
    listed = str(caught.value).splitlines()
    assert (
        listed[listed.index("  class0/film.dcm") - 1]
        == "it holds 3 frames; save each as a picture of its own:"
    )
    assert "  class1/cut.dcm" in listed
