"""Each data source on small files that the test writes, against the library of the format."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, tandem
from tests.unit.images import everything, fill, labels, noted, opened, refused, saved, sizes
from tests.unit.test_data import python2_pickle
from trainers.data import DataSpec, open_dataset
from trainers.data.sources import resolve
from trainers.errors import InputError

RNG = np.random.default_rng(0)


def pixels(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape)).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.tobytes()


def mnist(raw: Path, *, packed: bool = False) -> Path:
    raw.mkdir(parents=True)
    for split, count in (("train", 40), ("t10k", 12)):
        for name, array in (
            ("images-idx3-ubyte", pixels(count, 8, 9)),
            ("labels-idx1-ubyte", (np.arange(count) % 4).astype(np.uint8)),
        ):
            content = idx(array)
            (raw / f"{split}-{name}").write_bytes(content)
            if packed:
                (raw / f"{split}-{name}").rename(raw / f"{split}-{name}.gz")
                (raw / f"{split}-{name}.gz").write_bytes(gzip.compress(content))
    return raw


def test_idx_equals_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    mnist(tmp_path / "MNIST" / "raw")
    dataset = opened(tmp_path, validation=0)
    assert resolve(DataSpec(path=tmp_path))[0] == "idx"
    test = MNIST(tmp_path, train=False)
    assert np.array_equal(dataset.test_images[..., 0], test.data.numpy())
    assert np.array_equal(dataset.test_labels, test.targets.numpy())
    train = MNIST(tmp_path, train=True)
    assert sorted(map(bytes, dataset.train_images)) == sorted(map(bytes, train.data.numpy()))
    assert dataset.class_names == ["0", "1", "2", "3"]


def test_packed_idx_files_are_the_same_and_damaged_ones_are_named(tmp_path: Path) -> None:
    raw = mnist(tmp_path / "packed", packed=True)
    assert sizes(opened(raw)) == [36, 4, 12]
    damaged = raw / "train-images-idx3-ubyte.gz"
    damaged.write_bytes(gzip.compress(gzip.decompress(damaged.read_bytes())[:-5]))
    assert "train-images-idx3-ubyte.gz has 2891 bytes; 2896 are needed" in refused(raw)
    damaged.write_bytes(gzip.compress(b"P5 8 9"))
    assert "is no IDX file" in refused(raw)
    damaged.unlink()
    assert "has no images for 'train-'" in refused(raw)


def cifar100(directory: Path) -> dict[str, dict[bytes, object]]:
    directory.mkdir(parents=True)
    written: dict[str, dict[bytes, object]] = {}
    for split, count in (("train", 60), ("test", 20)):
        fine = [place % 10 for place in range(count)]
        written[split] = {
            b"data": pixels(count, 3072),
            b"fine_labels": fine,
            b"coarse_labels": [label // 5 for label in fine],
        }
    written["meta"] = {
        b"fine_label_names": [f"fine{label}".encode() for label in range(10)],
        b"coarse_label_names": [b"animal", b"plant"],
    }
    for name, content in written.items():
        (directory / name).write_bytes(python2_pickle(content))
    return written


def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = cifar100(tmp_path / "cifar-100-python")
    fine = opened(tmp_path, validation=0)
    assert fine.class_names == [f"fine{label}" for label in range(10)]
    assert fine.test_labels.tolist() == written["test"][b"fine_labels"]
    images = written["test"][b"data"]
    assert isinstance(images, np.ndarray)
    assert np.array_equal(fine.test_images, images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    coarse = opened(tmp_path, validation=0, label_column="coarse_label")
    assert coarse.class_names == ["animal", "plant"]
    assert coarse.test_labels.tolist() == written["test"][b"coarse_labels"]
    assert "data.label_column 'x' is not a column of" in refused(tmp_path, label_column="x")
    monkeypatch.setenv("TANDEM_DATA", str(tmp_path))
    assert open_dataset(DataSpec(source="cifar100", validation=0)).fingerprint == fine.fingerprint


def test_an_archive_is_read_as_the_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        fill(tmp_path / "photos" / name, 10)
    folder = opened(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in (tmp_path / "photos").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "photos", "photos")
    for name in ("photos.zip", "photos.tar.gz"):
        packed = opened(tmp_path / name)
        assert packed.fingerprint == folder.fingerprint
        assert noted(packed, "the class folders were found in photos")
    assert [*(tmp_path / "cache" / "scratch").iterdir()] == [], "nothing stays unpacked"


def test_what_is_wrong_inside_an_archive_is_said_of_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.write(saved(tmp_path / "a.png", pixels(1, 8, 8)[0]), "cat/a.png")
    assert "one.zip holds one class folder only, cat" in refused(tmp_path / "one.zip")
    (tmp_path / "broken.zip").write_bytes((tmp_path / "one.zip").read_bytes()[:-30])
    assert "broken.zip cannot be unpacked: BadZipFile" in refused(tmp_path / "broken.zip")


def shards(directory: Path, *, form: str = "png", ending: str = "tar") -> Path:
    directory.mkdir(exist_ok=True)
    for number, split in enumerate(["train", "train", "test"]):
        with tarfile.open(
            directory / f"{split}-{number:06}.{ending}", f"w:{'gz' if ending != 'tar' else ''}"
        ) as tar:
            for sample in range(10):
                picture = saved(directory / f"picture.{form}", pixels(1, 8, 8, 3)[0])
                tar.add(picture, f"some/{number}{sample:03}.{form}")
                picture.unlink()
                for field, content in (("cls", f"{sample % 3}"), ("json", '{"caption": "a.b"}')):
                    member = tarfile.TarInfo(f"some/{number}{sample:03}.{field}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content.encode()))
    return directory


def test_webdataset_shards_equal_what_its_own_library_reads(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    directory = shards(tmp_path / "shards")
    dataset = opened(directory, validation=0)
    test = webdataset.WebDataset(str(directory / "test-000002.tar"), shardshuffle=False)
    samples = [*test.decode("rgb8").to_tuple("png", "cls")]
    assert np.array_equal(dataset.test_images, np.stack([image for image, _ in samples]))
    assert dataset.test_labels.tolist() == [label for _, label in samples]
    train = [str(file) for file in sorted(directory.glob("train-*.tar"))]
    read = webdataset.WebDataset(train, shardshuffle=False).decode("rgb8").to_tuple("png", "cls")
    assert sorted(map(bytes, dataset.train_images)) == sorted(bytes(image) for image, _ in read)


def test_webdataset_shards_may_be_packed_and_their_fields_named(tmp_path: Path) -> None:
    plain = opened(shards(tmp_path / "shards"))
    assert sizes(plain) == [18, 2, 10] and plain.class_names == ["0", "1", "2"]
    packed = opened(shards(tmp_path / "packed", ending="tar.gz"))
    assert sizes(packed) == [18, 2, 10]
    grouped = opened(tmp_path / "shards", group_by=r"some/(\d)")
    assert grouped.groups is not None
    message = refused(tmp_path / "shards", label_column="species")
    assert "the sample 'some/2000' has the fields png, cls, json; an image and species are needed" in message


OWN = """
import numpy as np

IMAGES = np.arange(30 * 8 * 8 * 3, dtype=np.uint32).reshape(30, 8, 8, 3).astype(np.uint8)
LABELS = np.arange(30) % 3

def pair():
    return IMAGES, LABELS

def batches():
    for start in range(0, 30, 7):
        yield {"image": IMAGES[start:start + 7], "label": LABELS[start:start + 7]}

def splits(path):
    return {"train": (IMAGES, LABELS), "test": batches(), "class_names": [path.name, "b", "c"]}

class Ray:
    def iter_batches(self, *, batch_size, batch_format):
        assert batch_format == "numpy"
        return batches()

def ray_dataset():
    return Ray()

def of_several_sizes():
    return {"image": [IMAGES[n, : 4 + n % 5] for n in range(30)], "label": ["ab"[n % 2] for n in range(30)]}

def files(path):
    found = sorted(path.glob("*/*.png"))
    return [str(file.relative_to(path)) for file in found], [file.parent.name for file in found]

def nothing():
    return 3

def failing():
    raise KeyError("left out")

def growing():
    yield {"image": IMAGES[:5], "label": LABELS[:5]}
    yield {"image": IMAGES[5:, :4], "label": LABELS[5:]}

def unequal():
    return {"image": IMAGES, "label": LABELS[1:]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_images.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_images", raising=False)
    return tmp_path


def test_a_function_may_return_arrays_batches_or_a_ray_dataset(own: Path) -> None:
    arrays, batches, ray = (
        open_dataset(DataSpec(source=f"own_images:{name}")) for name in ("pair", "batches", "ray_dataset")
    )
    assert sizes(arrays) == [22, 2, 6]
    assert arrays.fingerprint == batches.fingerprint == ray.fingerprint
    dataset = open_dataset(DataSpec(source="own_images:splits", path=own / "own_images.py", validation=0))
    assert sizes(dataset) == [30, 0, 30]
    assert dataset.class_names == ["own_images.py", "b", "c"]
    assert np.array_equal(dataset.test_labels, np.arange(30) % 3)


def test_a_function_may_return_images_of_several_sizes_or_files(own: Path) -> None:
    assert open_dataset(DataSpec(source="own_images:of_several_sizes", image_size=8)).class_names == [
        "a",
        "b",
    ]
    for name in ("cat", "dog"):
        fill(own / "photos" / name, 10)
    dataset = open_dataset(DataSpec(source="own_images:files", path=own / "photos"))
    folder = opened(own / "photos")
    assert sorted(map(bytes, everything(dataset))) == sorted(map(bytes, everything(folder)))
    assert np.bincount(labels(dataset)).tolist() == [10, 10]


def test_a_pair_of_arrays_has_no_groups(own: Path) -> None:
    with pytest.raises(InputError, match=r"data\.group_by 'patient' is not a column of .*: image, label"):
        open_dataset(DataSpec(source="own_images:pair", group_by="patient"))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("own_images:nothing", "returns int; images and labels are needed"),
        ("own_images:failing", "failed: KeyError: 'left out'"),
        (
            "own_images:growing",
            "training batch 1 has images of uint8 [4, 8, 3], the first has uint8 [8, 8, 3]",
        ),
        ("own_images:unequal", "training batch 0 has 30 images but 29 labels"),
        ("own_images:absent", "'own_images' has no function 'absent'"),
        ("no_such_module:load", "cannot import 'no_such_module'"),
    ],
)
def test_a_function_that_gives_something_else_is_refused(own: Path, function: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        open_dataset(DataSpec(source=function))
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_changed_function_is_called_again(own: Path) -> None:
    before = open_dataset(DataSpec(source="own_images:pair"))
    (own / "own_images.py").write_text(OWN.replace("% 3", "% 2  # two"))
    sys.modules.pop("own_images")
    assert open_dataset(DataSpec(source="own_images:pair")).class_names == ["0", "1"] != before.class_names


def test_check_imports_the_function_from_beside_the_experiment_file(own: Path) -> None:
    (own / "experiment.yaml").write_text(
        "name: own\ndata: {source: 'own_images:pair'}\narms: {a: {framework: torch, batch_size: 4}}\nstorage: results\n"
    )
    done = tandem("check", own / "experiment.yaml", cwd="/")
    assert done.returncode == 0, done.stderr
    assert "22 training, 2 validation and 6 test images of 8x8x3 in 3 classes" in done.stdout


TOY = """
from trainers.data.labelled import Labelled, Split
from trainers.data.source import Source
import numpy as np

def read(path, spec):
    size = int(path.read_text())
    return Labelled(Split(np.zeros((size, 4, 4, 1), np.uint8), np.arange(size) % 2), ["even", "odd"])

SOURCE = Source(read=read, recognizes=lambda path: path.suffix == ".toy")
"""


def test_another_package_adds_a_source_with_one_file(tmp_path: Path) -> None:
    (tmp_path / "toy_source.py").write_text(TOY)
    (tmp_path / "toys-1.0.dist-info").mkdir()
    (tmp_path / "toys-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n"
    )
    (tmp_path / "toys-1.0.dist-info" / "entry_points.txt").write_text(
        "[tandem.sources]\ntoy = toy_source:SOURCE\n"
    )
    (tmp_path / "data.toy").write_text("20")
    script = (
        "from trainers.data import open_dataset, DataSpec; from pathlib import Path\n"
        "for spec in (DataSpec(path=Path('data.toy')), DataSpec(source='toy', path=Path('data.toy'))):\n"
        "    data = open_dataset(spec); print(data.class_names, len(data.train_labels))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "TANDEM_CACHE": str(tmp_path / "cache")},
    )
    assert done.stdout.splitlines() == ["['even', 'odd'] 14"] * 2, done.stderr


def test_an_unknown_source_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"source 'floder' is not one of archive, .*, did you mean 'folder'"):
        DataSpec(source="floder")
