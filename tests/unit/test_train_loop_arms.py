"""Arms with a training function of the user's own: what the file may say, what is found before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.execution import train_loops
from orchestrator.experiment import reader, spec
from orchestrator.experiment.spec import Experiment
from orchestrator.planning import crossings, run_plan, train_loop_source
from orchestrator.planning.job import JobSpec
from orchestrator.planning.run_plan import LoopRun
from orchestrator.store.records import CHECKPOINTS
from trainers.errors import InputError

MINE: dict[str, Any] = {"train_loop": "mine:train", "trainer": "torch", "config": {"lr": 0.1}}
GOOD = """\
import ray.train


def train(config):
    ray.train.report({"loss": config["lr"]})
"""


def load(*overrides: str, **arm: Any) -> Experiment:
    document = {"name": "own", "metric": {"name": "loss", "goal": "minimize"}, "arms": {"mine": MINE | arm}}
    return reader.load_mapping(document, overrides)


def expand(experiment: Experiment, source: str = "") -> list[LoopRun]:
    return run_plan.expand_loops(experiment, dict.fromkeys(experiment.train_loop_arms, source))


def look(directory: Path, text: str = GOOD, **arm: Any) -> list[str]:
    (directory / "mine.py").write_text(text)
    (directory / "train.csv").write_text("")
    return train_loop_source.look("mine", load(**arm).train_loop_arms["mine"], directory).notes


def test_the_config_has_the_seed_and_what_is_bound() -> None:
    bind = {"epochs": "num_epochs", "batch_size": "size"}
    arm = load("mine.config.lr=0.01", "mine.epochs=4", bind=bind, batch_size=32).train_loop_arms["mine"]
    assert arm.loop_config(7) == {"lr": 0.01, "seed": 7, "num_epochs": 4, "size": 32}
    assert load(bind={"seed": "rng"}).train_loop_arms["mine"].loop_config(7) == {"lr": 0.1, "rng": 7}
    assert load(bind={"seed": None}).train_loop_arms["mine"].loop_config(7) == {"lr": 0.1}


def test_a_run_is_new_when_what_decides_its_result_changes() -> None:
    def first(source: str = "", *overrides: str, **arm: Any) -> str:
        return expand(load(*overrides, **arm), source)[0].id

    known = first()
    assert known == first("", "mine.checkpoint.keep=2"), "what is kept decides no result"
    changed = [
        first("other text"),
        first("", "mine.config.lr=0.2"),
        first("", "mine.config.dropout=0"),
        first("", "scale.workers=2"),
        first(trainer="none"),
        first(datasets="mine:data"),
        first(bind={"seed": None}),
    ]
    assert len({known, *changed}) == len(changed) + 1


def test_seeds_and_defaults_are_those_of_every_arm() -> None:
    document = {
        "name": "both",
        "metric": "test_accuracy",
        "defaults": {"optimizer": "adam", "seeds": 2},
        "arms": {
            "mine": MINE,
            "keras": {"framework": "keras"},
            "again": {"extends": "mine", "config": {"lr": 1}},
        },
    }
    experiment = reader.load_mapping(document)
    assert [(run.arm, run.seed) for run in expand(experiment)] == [
        ("mine", 0),
        ("mine", 1),
        ("again", 0),
        ("again", 1),
    ]
    assert [*experiment.recipe_arms] == ["keras"]
    assert spec.from_json(experiment.model_dump(mode="json")) == experiment


@pytest.mark.parametrize(
    ("arm", "sentence"),
    [
        ({"trainer": "torhc"}, "trainer 'torhc' is not one of torch, tensorflow, keras, jax, none"),
        ({"train_loop": "mine"}, "'mine' names no function; write package.module:function"),
        ({"epochs": 3}, "name the key, such as bind: {epochs: epochs}"),
        ({"seeds": [1, 1]}, "arms.mine.seeds: seeds [1, 1] repeat"),
        ({"optimizer": "adam"}, "arms.mine.optimizer: unknown field"),
        ({"bind": {"sed": None}}, "arms.mine.bind.sed: unknown field, did you mean 'seed'?"),
        ({"checkpoint": {"keep": 0}}, "arms.mine.checkpoint.keep"),
    ],
)
def test_a_wrong_field_is_named(arm: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load(**arm)
    assert sentence in str(caught.value)


def test_what_needs_a_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="metric: missing"):
        reader.load_mapping({"name": "own", "arms": {"mine": MINE}})
    two = {"name": "own", "metric": "test_accuracy", "arms": {"mine": MINE, "other": MINE | {"config": {}}}}
    with pytest.raises(InputError, match=r"attribution: arms.mine has a training function of its own"):
        crossings.expand(reader.load_mapping(two), most_recipes=16)


@pytest.mark.parametrize(
    ("text", "arm", "sentence"),
    [
        (GOOD, {"train_loop": "mine:trian"}, "mine.py has no function 'trian', did you mean 'train'?"),
        (GOOD, {"train_loop": "nowhere:train"}, "arms.mine.train_loop: there is no module 'nowhere'"),
        (GOOD, {"datasets": "mine:data"}, "arms.mine.datasets: mine.py has no function 'data'"),
        ("def train(config:\n", {}, "mine.py, line 1"),
        ("def train(model, data): ...", {}, "train(model, data) needs more than a config"),
        ("def train(config, *, device): ...", {}, "train(config, device=) needs more than a config"),
        ("def train(): ...", {}, "train() takes no config; leave out the arm's config"),
        ("async def train(config): ...", {}, "a training function is a plain function"),
        ("def train(config):\n    yield 1", {}, "a training function is a plain function"),
        (
            "from ray.air import session\ndef train(config):\n    session.report({})",
            {},
            "mine.py, line 1: ray.air is of Ray Train's first generation; import from ray.train instead",
        ),
        (
            "from ray.train import session\ndef train(config):\n    session.report({})",
            {},
            "line 3: session.report is of Ray Train's first generation; call ray.train.report",
        ),
        (
            "import ray\ndef helper():\n    ray.air.session.report({})\ndef train(config):\n    helper()",
            {},
            "mine.py, line 3: ",
        ),
        (
            "from ray.train.torch import TorchTrainer\ndef train(config): ...\n"
            "trainer = TorchTrainer(train, metadata={})",
            {},
            "TorchTrainer(metadata=) raises an error in Ray 2.58 and later",
        ),
        (
            "from ray.train.torch import TorchTrainer\ndef train(config): ...\ntrainer = TorchTrainer(train)\n"
            "result = trainer.fit()",
            {},
            "line 4: the module starts Ray or trains when it is imported",
        ),
        ("import ray\nray.init()\ndef train(config): ...", {}, "line 2: the module starts Ray"),
        (
            "import tensorflow as tf\ndef train(config):\n    tf.keras.Sequential()",
            {"trainer": "tensorflow"},
            "write trainer: keras for Keras 3",
        ),
    ],
)
def test_a_mistake_in_the_module_is_named(
    tmp_path: Path, text: str, arm: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        look(tmp_path, text, **arm)
    assert sentence in str(caught.value)
    assert all(line.startswith("arms.mine") for line in str(caught.value).splitlines())


def test_what_the_arm_does_not_run_is_a_note(tmp_path: Path) -> None:
    script = """
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
import ray.air.integrations.wandb


def train(config):
    pass


def main():
    TorchTrainer(train, scaling_config=ScalingConfig(trainer_resources={"CPU": 1}), resume_from_checkpoint=None)


if __name__ == "__main__":
    if TorchTrainer.can_restore("/results"):
        TorchTrainer.restore("/results").fit()
    main()
"""
    notes = look(tmp_path, script)
    assert len(notes) == 4
    assert all(note.endswith("the arm does not run that line") for note in notes)
    for word in ("trainer_resources=", "resume_from_checkpoint=", "can_restore()", "restore()"):
        assert any(word in note for note in notes), word


def test_a_function_may_be_in_a_package_or_come_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "training.py").write_text(GOOD)
    assert look(tmp_path, "from project.training import train") == []
    assert look(tmp_path, "def decorated(f): ...\n@decorated\ndef train(a, b, c): ...") == []
    assert look(tmp_path, train_loop="project.training:train") == []
    assert look(tmp_path, "def train(): ...", config={}) == []


def test_a_job_carries_the_packages_that_arms_name(tmp_path: Path) -> None:
    for name in ("project/__init__.py", "project/deep/training.py", "unrelated/other.py", "beside.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    experiment = load(train_loop="project.deep.training:train")
    bundle = JobBundle(
        spec=JobSpec(experiment=experiment, searches=False, command=[]), module_path=tmp_path, resumes=None
    )
    modules = {name for name in bundle.files() if name.endswith(".py")}
    assert modules == {"project/__init__.py", "project/deep/training.py", "beside.py"}
    with bundle.directory() as directory:
        assert (directory / "project" / "deep" / "training.py").read_text() == GOOD


@pytest.mark.parametrize(
    ("path", "is_checkpoint"),
    [
        ("runs/mine-seed0-abc/reports.jsonl", False),
        ("runs/mine-seed0-abc/checkpoint_2026/state.pt", True),
        ("runs/mine-seed0-abc/kept/elsewhere/state.pt", True),
        ("runs/keras-seed0-abc/checkpoints/00001.npz", True),
        ("sweep/keras-abc/runs/trial/checkpoints/00001.npz", True),
        ("report/figures/seconds.svg", False),
    ],
)
def test_checkpoints_are_what_is_in_a_directory_of_a_run(path: str, is_checkpoint: bool) -> None:
    assert (CHECKPOINTS.search(path) is not None) is is_checkpoint


@pytest.mark.parametrize(
    ("checkpoint", "order"),
    [
        ({"metric": "loss"}, "min"),
        ({"metric": "loss", "goal": "maximize"}, "max"),
        ({"metric": "rmse"}, "min"),
        ({"metric": "score"}, "max"),
    ],
)
def test_the_best_checkpoints_are_those_of_the_metrics_goal(checkpoint: dict[str, str], order: str) -> None:
    experiment = load(checkpoint=checkpoint)
    config = train_loops.checkpoint_config(experiment, expand(experiment)[0].loop)
    assert config["checkpoint_score_order"] == order
