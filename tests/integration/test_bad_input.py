"""Bad input, through the command: one clear sentence, exit code 2, no traceback, nothing started."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import tandem
from tests.unit.synthetic import make_records

Write = Callable[[str], Path]


def refusal(*arguments: str | Path, command: str = "run") -> str:
    finished = tandem(command, *arguments)
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("tandem: ")]
    assert len(lines) == 1, finished.stderr
    return lines[0]


def experiment(storage: Path, *, arm: str = "framework: keras", rest: str = "") -> str:
    return f"name: bad\narms:\n  keras:\n    {arm}\nstorage: {storage}\n{rest}"


def test_unknown_field(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, rest="sead: 1\n"))
    assert "experiment.yaml:6: sead: unknown field" in refusal(file)


def test_misspelt_model(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, arm="{framework: keras, model: lenet}"))
    assert "did you mean 'lenet5'?" in refusal(file)


def test_batch_that_does_not_divide(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path))
    message = refusal(file, "--set", "scale.workers=2", "--set", "keras.batch_size=33")
    assert "32 and 34 do" in message


def test_missing_data(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, rest="data: {path: nowhere}\n"))
    assert f"{tmp_path / 'nowhere'}' does not exist" in refusal(file)


def test_empty_folder(tmp_path: Path, experiment_file: Write) -> None:
    (tmp_path / "empty").mkdir()
    file = experiment_file(experiment(tmp_path, rest="data: {path: empty}\n"))
    assert "holds no images" in refusal(file)


def test_truncated_jpeg(tmp_path: Path, experiment_file: Write) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    for name in ("cat", "dog"):
        directory = tmp_path / "pictures" / name
        directory.mkdir(parents=True)
        (directory / "whole.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "pictures" / "dog" / "torn.jpg").write_bytes(buffer.getvalue()[:600])
    file = experiment_file(experiment(tmp_path, rest="data: {path: pictures}\n"))
    assert "dog/torn.jpg" in refusal(file)


def test_label_out_of_range(tmp_path: Path, experiment_file: Write) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.arange(9) - 1)
    file = experiment_file(experiment(tmp_path, rest="data: {path: d.npz}\n"))
    assert "row 0 has -1; labels must be 0 to 7" in refusal(file)


def test_more_workers_than_cpus_says_what_fits(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path))
    arguments = (file, "--set", "scale.workers=64", "--set", "keras.batch_size=64")
    for command in ("run", "check"):
        message = refusal(*arguments, command=command)
        assert "64 workers with 1 CPUs each need 64 CPUs" in message
        assert "set scale.workers=" in message


def test_gpus_that_are_not_there(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, rest="scale: {gpus_per_worker: 9}\n"))
    assert "set scale.gpus_per_worker=0" in refusal(file)


def test_storage_that_cannot_be_written(tmp_path: Path, experiment_file: Write) -> None:
    (tmp_path / "file").write_text("")
    file = experiment_file(experiment(tmp_path / "file"))
    assert "cannot be written" in refusal(file)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    make_records(tmp_path / "x", {"torch": [0.6, 0.7]})
    (tmp_path / "file").write_text("")
    told = refusal(tmp_path / "x", "--junit", tmp_path / "file" / "junit.xml", command="report")
    assert f"--junit {tmp_path}/file/junit.xml: cannot be written" in told
    assert "file cannot be written: File exists" in refusal(
        tmp_path / "x", tmp_path / "file", command="model"
    )


def test_storage_without_a_bucket() -> None:
    assert "names no bucket; give one, such as s3://bucket/results" in refusal("s3://", command="report")


def test_not_an_experiment(tmp_path: Path) -> None:
    assert "holds no experiment" in refusal(tmp_path, command="report")
    assert "holds no experiment" in refusal(tmp_path, command="resume")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    finished = tandem("report", tmp_path, "--debug")
    assert finished.returncode != 0
    assert "Traceback" in finished.stderr


def test_check_says_what_would_run_and_runs_nothing(tmp_path: Path, experiment_file: Write) -> None:
    finished = tandem("check", experiment_file(experiment(tmp_path)))
    assert finished.returncode == 0
    assert "3 runs" in finished.stdout
    assert "1294 training, 144 validation and 359 test images of 8x8x1 in 10 classes" in finished.stdout
    assert not (tmp_path / "bad" / "runs").exists()


def test_schema_is_json() -> None:
    assert json.loads(tandem("schema").stdout)["properties"]["arms"]


def test_early_stopping_needs_a_validation_split(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, rest="data: {source: digits, validation: 0}\n"))
    message = refusal(file, "--set", "keras.early_stopping.patience=3")
    assert "arms.keras.early_stopping needs a validation split; set data.validation to a share" in message


def test_an_image_too_small_for_the_network(tmp_path: Path, experiment_file: Write) -> None:
    file = experiment_file(experiment(tmp_path, rest="data: {source: digits}\n"))
    whitened = ("--set", "keras.model=resnet9", "--set", "keras.whitening.patch=3")
    message = refusal(file, *whitened)
    assert "arms.keras.model resnet9 needs at least 8x8 pixels but sees 3x3" in message
    message = refusal(file, *whitened, "--set", "keras.model=lenet5")
    assert "arms.keras.model lenet5 needs at least 4x4 pixels but sees 3x3" in message
    message = refusal(file, "--set", "keras.whitening.patch=9")
    assert "arms.keras.whitening.patch 9 is larger than images of 8x8 pixels" in message
    message = refusal(file, "--set", "keras.test_time_augmentation.shift=8")
    assert "arms.keras.test_time_augmentation.shift 8 shifts all of images of 8x8 pixels away" in message


@pytest.mark.parametrize("workers", ["2", "1,two"])
def test_scaling_without_two_scales(tmp_path: Path, experiment_file: Write, workers: str) -> None:
    message = refusal("scaling", experiment_file(experiment(tmp_path)), "--workers", workers, command="bench")
    assert f"--workers '{workers}': give " in message and "numbers" in message
