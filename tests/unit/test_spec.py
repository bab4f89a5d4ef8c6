from __future__ import annotations

import contextlib
import functools
import json
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jsonschema
import pytest
import yaml

from orchestrator.experiment import reader, spec
from orchestrator.planning import run_plan
from trainers.errors import InputError

Write = Callable[[str], Path]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

MINIMAL = """\
name: tiny
arms:
  keras: {framework: keras}
  torch: {extends: keras, framework: torch}
"""

_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
ODD = (
    _PLAIN
    | st.lists(_PLAIN, max_size=2)
    | st.dictionaries(st.sampled_from(["name", "min", "a"]), _PLAIN, max_size=2)
)


def problem(write: Write, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        reader.load(write(text), overrides)
    return str(caught.value)


def test_every_default_is_filled_in(experiment_file: Write) -> None:
    experiment = reader.load(experiment_file(MINIMAL))
    assert experiment.arms["torch"].seeds == [0, 1, 2]
    assert experiment.arms["torch"].recipe() == experiment.arms["keras"].recipe()
    assert experiment.scale.workers == 1


def test_defaults_and_extends_are_merged_field_by_field(experiment_file: Write) -> None:
    experiment = reader.load(
        experiment_file(
            """\
name: merged
defaults: {batch_size: 64, optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9}}
arms:
  a: {framework: keras, optimizer: {learning_rate: 0.2}}
  b: {extends: a, framework: torch, optimizer: {nesterov: true}}
  c: {extends: a, optimizer: adam}
"""
        )
    )
    a, b, c = (experiment.arms[name].optimizer.model_dump() for name in "abc")
    assert (a["learning_rate"], a["momentum"], a["nesterov"]) == (0.2, 0.9, False)
    assert b == a | {"nesterov": True}
    assert c["name"] == "adam"
    assert c["learning_rate"] == 0.001
    assert experiment.arms["b"].batch_size == 64


def test_a_name_alone_can_be_extended(experiment_file: Write) -> None:
    text = """\
name: short
defaults: {optimizer: sgd}
arms:
  a: {framework: keras, optimizer: {momentum: 0.9}}
"""
    for overrides, rate in (([], 0.01), (["a.optimizer.learning_rate=0.5"], 0.5)):
        optimizer = reader.load(experiment_file(text), overrides).arms["a"].optimizer.model_dump()
        assert (optimizer["name"], optimizer["momentum"], optimizer["learning_rate"]) == ("sgd", 0.9, rate)


def test_a_named_recipe_is_the_framework_s_own_and_what_is_written_besides_it_wins(
    experiment_file: Write,
) -> None:
    text = """\
name: recipes
defaults: {recipe: tutorial, seeds: 1}
arms:
  keras: {framework: keras}
  torch: {framework: torch, epochs: 2}
  longer: {extends: torch, epochs: 20}
  fast: {framework: torch, recipe: fast, optimizer: {learning_rate: 0.1}}
"""
    arms = reader.load(experiment_file(text)).arms
    assert (arms["keras"].model, arms["keras"].batch_size) == ("tutorial_cnn", 32)
    assert (arms["torch"].model, arms["torch"].batch_size, arms["torch"].epochs) == ("lenet5", 4, 2)
    assert (arms["longer"].model, arms["longer"].epochs) == ("lenet5", 20)
    assert arms["fast"].model == "speednet"
    assert arms["fast"].optimizer.learning_rate == 0.1
    assert arms["fast"].optimizer.momentum == 0.9
    misspelt = problem(experiment_file, text.replace("recipe: fast", "recipe: fats"))
    assert misspelt.endswith(
        "experiment.yaml:7: recipe: 'fats' is not one of tutorial, fast, defaults, did you mean 'fast'?"
    )


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ("0", "scale.workers: 0 is wrong; it should be greater than 0"),
        ("{min: 3, max: 2}", "workers min 3 exceeds max 2"),
        ("{min: 1}", "scale.workers.max: missing"),
    ],
)
def test_bad_numbers_of_workers(experiment_file: Write, workers: str, expected: str) -> None:
    assert expected in problem(experiment_file, MINIMAL + f"scale: {{workers: {workers}}}\n")


def test_elastic_workers_need_not_divide_the_batch(experiment_file: Write) -> None:
    experiment = reader.load(experiment_file(MINIMAL + "scale: {workers: {min: 1, max: 3}}\n"))
    assert (experiment.scale.min_workers, experiment.scale.max_workers) == (1, 3)
    assert run_plan.concurrent_runs(experiment.scale, cpus=2, gpus=0) == 1
    assert run_plan.concurrent_runs(experiment.scale, cpus=7, gpus=0) == 2
    assert run_plan.concurrent_runs(experiment.scale, cpus=0, gpus=0) == 0


def test_synchronized_batch_norm_is_for_one_worker_and_for_gpus_in_pytorch(experiment_file: Write) -> None:
    text = MINIMAL.replace("framework: torch", "framework: torch, sync_batch_norm: true")
    assert text != MINIMAL
    for scale in ("{workers: 1}", "{workers: 2, gpus_per_worker: 1}"):
        reader.load(experiment_file(text + f"scale: {scale}\n"))


def test_overrides_reach_arms_by_name_and_by_star(experiment_file: Write) -> None:
    experiment = reader.load(
        experiment_file(MINIMAL),
        ["keras.epochs=2", "arms.*.batch_size=32", "torch.optimizer.learning_rate=1e-2"],
    )
    assert experiment.arms["keras"].epochs == 2
    assert {arm.batch_size for arm in experiment.arms.values()} == {32}
    assert experiment.arms["torch"].optimizer.learning_rate == 0.01


def test_paths_in_the_file_are_relative_to_it_and_overrides_to_the_working_directory(
    experiment_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = experiment_file(MINIMAL + "data: {path: pictures}\nstorage: results\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    written = reader.load(file)
    assert written.data.path == tmp_path / "pictures"
    assert written.storage == str(tmp_path / "results")
    assert reader.load(file, ["data.path=pictures"]).data.path == elsewhere / "pictures"


def test_scientific_notation_is_a_number(experiment_file: Write) -> None:
    text = MINIMAL.replace("keras}", "keras, optimizer: {name: adam, epsilon: 1e-7}}", 1)
    assert reader.load(experiment_file(text)).arms["keras"].optimizer.epsilon == 1e-7


def test_unknown_field_names_its_line_and_the_nearest_field(experiment_file: Write) -> None:
    message = problem(
        experiment_file,
        "name: x\narms:\n  keras:\n    framework: keras\n    batchsize: 3\n",
    )
    assert "experiment.yaml:5: arms.keras.batchsize: unknown field, did you mean 'batch_size'?" in message


def test_unknown_field_that_resembles_none_is_told_with_those_there_are(experiment_file: Write) -> None:
    message = problem(experiment_file, MINIMAL + "data: {qqq: 1}\n")
    assert "data.qqq: unknown field; the fields here are " in message
    assert all(f" {field}" in message for field in ("source", "path", "image_size", "resize", "limit"))


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("arms.keras.learning_rate", "optimizer.learning_rate"),
        ("arms.keras.lr", "optimizer.learning_rate"),
        ("arms.keras.image_size", "data.image_size"),
        ("arms.keras.label_smoothing", "loss.label_smoothing"),
        ("learning_rate", "defaults.optimizer.learning_rate"),
        ("workers", "scale.workers"),
        ("epochs", "defaults.epochs"),
        ("num_workers", "scale.workers"),
        ("data.batch_size", "defaults.batch_size"),
        ("data.img_size", "image_size"),
    ],
)
def test_a_field_of_another_block_is_found_in_the_whole_file(
    experiment_file: Write, field: str, meant: str
) -> None:
    *above, last = field.split(".")
    document = yaml.safe_load(MINIMAL)
    functools.reduce(lambda block, step: block.setdefault(step, {}), above, document)[last] = 1
    message = problem(experiment_file, yaml.safe_dump(document, sort_keys=False))
    assert f"{field}: unknown field, did you mean {meant!r}?" in message


def test_a_field_of_a_recipe_is_not_suggested_for_a_training_function(experiment_file: Write) -> None:
    arm = "{train_loop: 'm:f', trainer: torch, configs: {}, ema_decay: 0.5}"
    message = problem(
        experiment_file, f"name: x\narms: {{a: {arm}}}\nmetric: {{name: loss, goal: minimize}}\n"
    )
    assert "arms.a.configs: unknown field, did you mean 'config'?" in message
    assert "arms.a.ema_decay: unknown field" in message


def test_an_override_without_its_block_is_told_where_the_field_is(experiment_file: Write) -> None:
    told = problem(experiment_file, MINIMAL, "learning_rate=0.1")
    assert "neither a field nor an arm, did you mean 'arms.*.optimizer.learning_rate'?" in told
    assert "did you mean 'scale.workers'?" in problem(experiment_file, MINIMAL, "workers=2")


def test_unknown_field_of_an_optimizer(experiment_file: Write) -> None:
    message = problem(
        experiment_file,
        "name: x\narms:\n  a:\n    framework: torch\n    optimizer: {name: sgd, momentun: 0.9}\n",
    )
    assert "arms.a.optimizer.momentun: unknown field, did you mean 'momentum'?" in message


def test_misspelt_model_and_framework_and_optimizer(experiment_file: Write) -> None:
    message = problem(
        experiment_file,
        "name: x\narms:\n"
        "  a: {framework: keras, model: resnet_9}\n"
        "  b: {framework: pytorch}\n"
        "  c: {framework: torch, optimizer: adan}\n",
    )
    lines = message.splitlines()
    assert len(lines) == 3, "all problems are told at once"
    assert "experiment.yaml:3:" in lines[0]
    assert "did you mean 'resnet9'?" in lines[0]
    assert "arms.b.framework: 'pytorch' is not one of keras, torch, did you mean 'torch'?" in lines[1]
    assert "did you mean 'adam'?" in lines[2]


def test_batch_that_does_not_divide_names_sizes_that_do(experiment_file: Write) -> None:
    text = MINIMAL + "defaults: {batch_size: 50}\nscale: {workers: 4}\n"
    message = problem(experiment_file, text)
    assert "batch_size 50 does not divide over 4 workers" in message
    assert "48 and 52 do" in message
    assert "1, 2, 5, 10, 25, 50 workers" in message
    assert ":5:" in message, "the line is that of the default it came from"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("name: [", "not valid YAML"),
        ("name: x\nname: y\n", "written twice"),
        ("name: x\n", "arms: missing"),
        ("name: Has Spaces\narms: {a: {framework: keras}}", "lower-case letters"),
        ("name: x\narms: {a: {extends: b}}", "no arm is called 'b'"),
        ("name: x\narms: {a: {extends: b}, b: {extends: a}}", "goes round in a circle"),
        ("name: x\narms: {a: {framework: keras, seeds: [1, 1]}}", "repeat"),
        ("name: x\narms: {a: {framework: keras, epochs: 0}}", "arms.a.epochs: 0 is wrong"),
        ("name: x\narms: {a: {framework: keras, batch_size: many}}", "'many' is wrong"),
        ("name: x\narms: {a: {}}", "write framework: keras or framework: torch"),
        (
            "name: x\narms: {a: {framework: torch, optimizer: {name: sgd, nesterov: true}}}",
            "momentum",
        ),
        (
            "name: x\narms: {a: {framework: keras, optimizer: 'mine:make', schedule: one_cycle}}",
            "schedule one_cycle is for built-in optimizers; make the schedule of mine:make in that function",
        ),
        (
            "name: x\narms: {a: {framework: keras, optimizer: 'mine:make', ema_decay: 0.9}}",
            "ema_decay is for built-in optimizers in Keras; give the one of mine:make use_ema=True",
        ),
        (
            "name: x\narms: {a: {framework: keras, compile: true}}",
            "XLA has no deterministic kernel for some of Keras' layers, such as max pooling; set deterministic: false",
        ),
        (
            "name: x\nscale: {workers: 2}\narms: {a: {framework: torch, sync_batch_norm: true}}",
            "arms.a.sync_batch_norm: PyTorch synchronizes batch normalization on GPUs only",
        ),
        (
            "name: x\nscale: {workers: 2}\narms: {a: {framework: keras, model: 'mine:build', sync_batch_norm: true}}",
            "a Keras model of your own says so itself, with BatchNormalization(synchronized=True)",
        ),
        (
            "name: x\narms: {a: {framework: keras, optimizer: 5}}",
            "5 is not one of sgd, adam, adamw, rmsprop, package",
        ),
        ("name: x\narms: {a: {framework: keras, loss: mse}}", "'mse' is not one of cross_entropy, package"),
        ("name: x\ndata: {source: npz}\narms: {a: {framework: keras}}", "needs a path"),
        ("name: x\narms: {a: keras}", "must be a mapping"),
        (
            "name: x\nstorage: s3://key:secret@bucket\narms: {a: {framework: keras}}",
            "must not hold credentials",
        ),
        ("- 1", "an experiment is a mapping"),
        ("name: x\narms: &a {b: *a}", "an alias refers to itself"),
        ("name: 2026-13-01\n", ":1: invalid YAML value '2026-13-01'; quote it if it is text"),
        ("name: !!timestamp now\n", "invalid YAML value 'now'"),
        ("name: !!python/name:os.system x\n", "invalid YAML value 'x'"),
        ("name: x\narms: {a: {extends: [b]}}", "no arm is called ['b']"),
        ("name: x\narms: {a: {framework: keras, recipe: {fast: 1}}}", "{'fast': 1} is not one of"),
        (
            "name: x\narms: {a: {framework: keras, seeds: 10000000000000000000000}}",
            "seeds are too many; at most 1000",
        ),
        (
            "name: x\narms: {a: {framework: keras}}\nsweep: {space: {epochs: [1]}, constraints: [.nan]}",
            "sweep.constraints.0: nan is wrong",
        ),
    ],
)
def test_bad_files_get_one_clear_sentence(experiment_file: Write, text: str, expected: str) -> None:
    message = problem(experiment_file, text)
    assert expected in message
    assert len(message.splitlines()) == 1


def fields(block: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = (
        block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
    )
    for key, value in entries:
        yield (*path, key)
        yield from fields(value, (*path, key))


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(example=st.sampled_from(EXAMPLES), value=ODD, data=st.data())
def test_whatever_a_field_says_it_is_read_or_refused(example: Path, value: Any, data: st.DataObject) -> None:
    document = yaml.safe_load(example.read_text())
    *above, field = data.draw(st.sampled_from(list(fields(document))))
    functools.reduce(operator.getitem, above, document)[field] = value
    with contextlib.suppress(InputError):
        reader.load_mapping(document)


def test_bad_overrides(experiment_file: Write) -> None:
    assert "write it as field.path=value" in problem(experiment_file, MINIMAL, "epochs")
    assert "neither a field nor an arm, did you mean 'keras'?" in problem(
        experiment_file, MINIMAL, "kears.epochs=2"
    )
    assert "--set keras.epochs: arms.keras.epochs: 'two' is wrong" in problem(
        experiment_file, MINIMAL, "keras.epochs=two"
    )
    assert "arms" in problem(experiment_file, MINIMAL, "arms=1", "arms.*.epochs=2")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        reader.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_match_the_published_schema(example: Path) -> None:
    reader.load(example)
    jsonschema.validate(yaml.safe_load(example.read_text()), spec.json_schema())


def test_an_experiment_survives_its_records(experiment_file: Write) -> None:
    experiment = reader.load(experiment_file(MINIMAL))
    read_back = spec.from_json(json.loads(experiment.model_dump_json()))
    assert read_back == experiment
    ids = [[run.id for run in run_plan.expand(each, "data")] for each in (experiment, read_back)]
    assert ids[0] == ids[1], "a resumed experiment is made of the same runs"


def test_records_of_another_version_are_refused_with_what_is_unknown(experiment_file: Write) -> None:
    document = reader.load(experiment_file(MINIMAL)).model_dump(mode="json")
    document["arms"]["keras"]["warp"] = 9
    with pytest.raises(InputError, match=r"another version of tandem \(arms\.keras\.warp: Extra inputs"):
        spec.from_json(document)
