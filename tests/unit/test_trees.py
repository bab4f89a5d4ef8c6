"""Random folder trees: what is read is what Pillow reads, or one sentence says why nothing is."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
from PIL import Image

from tests.unit.images import everything, labels
from trainers.data import Dataset, DataSpec, open_dataset
from trainers.data.decoding import UnreadableError
from trainers.errors import InputError

SIDE = 6
SPLITS = ["train", "test", "val", "Training", "TEST", "valid", "test1", "train_images", "validation"]
CLASSES = ["cat", "dog", "Äpfel", "2023", "a b", "x|y", "trainer", "latest", "n01440764", "[0]"]
WRAPPERS = ["archive", "data", "animals", "images"]
LITTER = [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", ".hidden"]
FORMS = {
    "1": "png", "L": "png", "LA": "png", "P": "png", "RGB": "png", "RGBA": "png", "I;16": "png",
    "L.jpg": "jpg", "RGB.jpg": "jpeg", "CMYK.jpg": "JPG", "RGB.bmp": "bmp", "P.gif": "gif", "RGB.webp": "webp",
    "RGBA.webp": "webp", "L.tif": "tif", "I;16.tif": "tiff", "RGB.ppm": "ppm",
}  # fmt: skip
"""A mode and, after a point, the format that a picture is saved in."""
BROKEN = [
    b"",
    b"gone",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0" + bytes(40),
    b"GIF89a",
    b"II*\0" + bytes(20),
]


@dataclasses.dataclass
class Tree:
    """What was put into a directory."""

    pictures: list[Path] = dataclasses.field(default_factory=list)
    litter: list[Path] = dataclasses.field(default_factory=list)
    broken: list[Path] = dataclasses.field(default_factory=list)


def paint(file: Path, seed: int, form: str) -> None:
    mode, _, _ = form.partition(".")
    rng = np.random.default_rng(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)).save(file)
        return
    image = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8))
    image.convert("RGB" if mode in ("CMYK", "P", "1") else mode).convert(mode).save(file)


parents = st.lists(st.sampled_from(SPLITS + WRAPPERS + CLASSES[:2]), max_size=2)
names = st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True)
strays = st.lists(st.lists(st.sampled_from(SPLITS + CLASSES + WRAPPERS), max_size=3), max_size=2)


@st.composite
def trees(draw: st.DrawFn, *, tidy: bool = False) -> list[tuple[list[str], list[str], str]]:
    """For each folder its path, the forms of its pictures, and what else is in it."""
    if tidy:
        wrapper = draw(st.lists(st.sampled_from(WRAPPERS), max_size=2))
        splits = draw(st.sampled_from([[""], ["train"], ["train", "test"], ["Training", "valid", "test1"]]))
        above = [[*wrapper, *filter(None, [split])] for split in splits]
    else:
        above = draw(st.lists(parents, min_size=1, max_size=3, unique_by=tuple))
    classes = draw(names)
    paths = [[*parent, name] for parent in above for name in classes] + ([] if tidy else draw(strays))
    forms = st.lists(st.sampled_from([*FORMS]), min_size=6 if tidy else 0, max_size=7)
    other = st.sampled_from(["", "litter", "notes", *([] if tidy else ["", "broken"])])
    return [(path, draw(forms), draw(other)) for path in paths]


def plant(root: Path, drawn: list[tuple[list[str], list[str], str]], content: bytes = b"gone") -> Tree:
    tree, seed = Tree(), 0
    for place, (path, forms, other) in enumerate(drawn):
        directory = root.joinpath(*path)
        directory.mkdir(parents=True, exist_ok=True)
        for form in forms:
            seed += 1
            file = directory / f"{place}-{seed}.{FORMS[form]}"
            paint(file, seed, form)
            tree.pictures.append(file)
        if other == "litter":
            for name in LITTER:
                paint(directory / name / "copy.png", 0, "RGB")
                tree.litter.append(directory / name / "copy.png")
            paint(directory / "._1.png", 0, "RGB")
        elif other == "notes":
            (directory / "notes.txt").write_text("no picture")
            (directory / "empty").mkdir(exist_ok=True)
        elif other == "broken":
            (directory / f"{place}.png").write_bytes(content)
            tree.broken.append(directory / f"{place}.png")
    return tree


def by_pillow(file: Path, channels: int) -> np.ndarray:
    """A picture over white, by nothing but Pillow."""
    with Image.open(file) as image:
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        if image.has_transparency_data:
            over = Image.new("RGBA", image.size, "white")
            over.alpha_composite(image.convert("RGBA"))
            image = over
        return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(SIDE, SIDE, channels)


def assert_read(dataset: Dataset, pictures: list[Path], classes: list[str]) -> None:
    """Each picture was read once, as Pillow reads it, under its class."""
    channels = dataset.image_shape[2]
    read = sorted(
        zip(
            everything(dataset).tolist(),
            (dataset.class_names[label] for label in labels(dataset)),
            strict=True,
        )
    )
    expected = sorted(zip([by_pillow(file, channels).tolist() for file in pictures], classes, strict=True))
    assert [name for _, name in read] == [name for _, name in expected]
    difference = np.array([pixels for pixels, _ in read]) - np.array([pixels for pixels, _ in expected])
    assert np.abs(difference).max() <= 1, "a partly transparent pixel may be rounded differently"


SETTINGS = hypothesis.settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)


@SETTINGS
@hypothesis.given(drawn=trees(tidy=True))
def test_class_folders_are_read_as_pillow_reads_them(drawn: list[tuple[list[str], list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tree = plant(Path(scratch), drawn)
        dataset = open_dataset(DataSpec(source="folder", path=scratch))  # type: ignore[arg-type]
        assert_read(dataset, tree.pictures, [file.parent.name for file in tree.pictures])


@SETTINGS
@hypothesis.given(drawn=trees(), content=st.sampled_from(BROKEN), skips=st.booleans())
def test_any_tree_is_read_rightly_or_refused_in_one_sentence(
    drawn: list[tuple[list[str], list[str], str]], content: bytes, skips: bool
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        tree = plant(root, drawn, content)
        spec = DataSpec(source="folder", path=root, unreadable="skip" if skips else "error")
        told: InputError | None = None
        try:
            dataset = open_dataset(spec)
        except InputError as error:
            told = error
        if told is None:
            assert not {*dataset.class_names} & ({*SPLITS} - {"train"})
            if "train" in dataset.class_names:
                assert len(dataset.class_names) > 2, "a class among others that have pictures of their own"
            read = read_from(dataset, tree)
            assert len(read) == len(everything(dataset)), "no picture twice, and none that is litter"
            assert_read(dataset, read, [class_of(file, dataset, root) for file in read])
            return
        sentence, *listed = str(told).splitlines()
        assert str(root) in sentence
        if isinstance(told, UnreadableError):
            named = {line.strip() for line in listed if line.startswith("  ")}
            assert named <= {file.relative_to(root).as_posix() for file in tree.broken}
        else:
            assert not listed
            assert not (tree.pictures and "holds no images" in sentence)


def read_from(dataset: Dataset, tree: Tree) -> list[Path]:
    """The files whose pixels are in the data set; no two pictures of a tree are alike."""
    channels = dataset.image_shape[2]
    found = everything(dataset).astype(int)
    return [
        file
        for file in tree.pictures
        if (np.abs(found - by_pillow(file, channels).astype(int)).max(axis=(1, 2, 3)) <= 1).any()
    ]


def class_of(file: Path, dataset: Dataset, root: Path) -> str:
    """The class whose folder holds a file: the last of its path's that is one, if it is nested, the first."""
    return next(part for part in file.relative_to(root).parts if part in dataset.class_names)
