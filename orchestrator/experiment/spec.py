"""What an experiment file may say. `spec_file` reads one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from orchestrator.experiment.kubernetes import Kubernetes
from orchestrator.experiment.metric import DEFAULT_MARGIN, CompareBy, ShownMetrics
from orchestrator.experiment.seeds import Seeds, default_seeds
from orchestrator.experiment.sweep import Sweep
from orchestrator.experiment.train_loop import TrainLoopArm
from trainers.data.spec import DataSpec
from trainers.errors import InputError
from trainers.named_recipes import NAMED_RECIPES
from trainers.recipes import BUILT_IN_MODELS, RECIPE_TAGS, Block, OwnOptimizer, Recipe

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Arm(Recipe):
    """One side of the comparison: a framework and a recipe, trained once for each seed."""

    framework: Literal["keras", "torch"]
    seeds: Seeds = Field(default_factory=default_seeds)

    @model_validator(mode="after")
    def _known_model(self) -> Arm:
        if ":" not in self.model and self.model not in BUILT_IN_MODELS:
            hint = nearest(self.model, BUILT_IN_MODELS)
            raise ValueError(
                f"model {self.model!r} is not known{hint}; choose from "
                f"{', '.join(BUILT_IN_MODELS)} or give your own as package.module:function"
            )
        if self.framework == "keras" and self.ema_decay and isinstance(self.optimizer, OwnOptimizer):
            raise ValueError(
                f"ema_decay is for built-in optimizers in Keras; give the one of {self.optimizer.name} "
                "use_ema=True and ema_momentum, and leave ema_decay out"
            )
        if self.framework == "keras" and self.find_unused_parameters:
            raise ValueError(
                "find_unused_parameters: is for PyTorch; Keras exchanges the gradients that there are, so leave it out"
            )
        return self

    def recipe(self) -> Recipe:
        """The part of an arm that trainers see."""
        return Recipe.model_validate(self.model_dump(exclude={"framework", "seeds"}))


BUILT_IN_ARM, OWN_ARM = "built-in arm", "own arm"
TAGS = RECIPE_TAGS | {BUILT_IN_ARM, OWN_ARM}
"""What validation errors put into the path of an arm's field to tell kinds of arms and of their parts apart."""


def _kind_of_arm(value: Any) -> str:
    is_own = "train_loop" in value if isinstance(value, dict) else isinstance(value, TrainLoopArm)
    return OWN_ARM if is_own else BUILT_IN_ARM


_AnyArm = Annotated[
    Annotated[Arm, Tag(BUILT_IN_ARM)] | Annotated[TrainLoopArm, Tag(OWN_ARM)], Discriminator(_kind_of_arm)
]


class Elastic(Block):
    """As many workers as the cluster has room for, between two bounds."""

    min: int = Field(1, gt=0)
    max: int = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Elastic:
        if self.min > self.max:
            raise ValueError(f"workers min {self.min} exceeds max {self.max}")
        return self


_Workers = Annotated[
    Annotated[int, Field(gt=0), Tag("count")] | Annotated[Elastic, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | Elastic) else "count"),
]


class Scale(Block):
    """How many workers share one run, and what each is given."""

    workers: _Workers = Field(1, description="A number, or {min, max} to grow and shrink with the cluster.")
    cpus_per_worker: int = Field(1, gt=0, description="Also the number of intra-op threads.")
    gpus_per_worker: float = Field(0.0, ge=0, description="A share of a GPU, or whole GPUs.")
    accelerator_type: str | None = Field(
        None,
        min_length=1,
        description="Ray's name of the GPUs to train on, such as H100 or A100-80G; any GPU when left out.",
    )
    label_selector: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="Labels of the nodes to train on, such as ray.io/market-type: on-demand; a value may be negated or "
        "listed as in Ray: !value, in(a,b), !in(a,b).",
    )
    concurrent_runs: int | None = Field(
        None, gt=0, description="At most this many runs at once; as many as fit when left out."
    )
    retries: int = Field(2, ge=0, description="Restarts of a run whose workers were lost.")
    hang_seconds: float = Field(
        600, gt=0, description="Workers that do nothing for so long are ended and started again."
    )
    price_per_worker_hour: float | None = Field(None, ge=0, description="What a worker costs, in your money.")

    @model_validator(mode="after")
    def _accelerator_of_gpus(self) -> Scale:
        if self.accelerator_type is not None and not self.gpus_per_worker:
            raise ValueError(
                f"accelerator_type {self.accelerator_type!r} is a kind of GPU, but workers have none; set "
                "gpus_per_worker, or leave accelerator_type out"
            )
        return self

    @property
    def min_workers(self) -> int:
        """The fewest workers that a run trains with."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def max_workers(self) -> int:
        """The most workers that a run trains with."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """As Ray names them."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    @property
    def price_per_hour(self) -> float | None:
        """What the workers of one run cost an hour, if there is a price."""
        price = self.price_per_worker_hour
        return None if price is None else price * self.max_workers


class Attribution(Block):
    """Take the gap between two arms apart by what they differ in."""

    most_recipes: int = Field(
        16, ge=4, description="Train every crossing of the factors up to this many; above, a part of them."
    )


class Parity(Block):
    """Which weights of a user's own models correspond, where their names and shapes do not tell."""

    weights: dict[str, str] = Field(
        {},
        description="Keys of PyTorch's state_dict by paths of Keras' variables without the model's own name, such as "
        "dense/kernel.",
    )
    flattened: dict[str, tuple[int, int, int]] = Field(
        {},
        description="Height, width and channels that are flattened into a dense kernel's inputs, by its path in "
        "Keras; for PyTorch models that flatten channels first.",
    )


class Experiment(Block):
    """A whole experiment file, every default filled in."""

    name: str = Field(description="Lower-case letters, digits and hyphens; names the results.")
    data: DataSpec = DataSpec()
    arms: dict[str, _AnyArm] = Field(min_length=1)
    scale: Scale = Scale()
    sweep: Sweep | None = Field(None, description="What `tandem sweep` searches.")
    attribution: Attribution | None = Field(None, description="Whether two arms' gap is taken apart.")
    metric: CompareBy | None = Field(
        None, description="What arms are compared by; test accuracy for built-in arms when left out."
    )
    metrics: ShownMetrics = Field([], description="Others to show.")
    margin: float = Field(
        DEFAULT_MARGIN,
        gt=0,
        lt=1,
        description="Accuracies, or other shares, that differ by less count as the same; metric.margin is that of any "
        "metric.",
    )
    baseline: str | None = Field(
        None, description="Compare every arm with this one only; when left out, all arms with each other."
    )
    measure_speed: bool = Field(
        False,
        description="Train each run in fresh processes of its own, one at a time, arms in turn, so that speeds can be "
        "compared with an interval.",
    )
    target_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="What the time to an accuracy is told for; when left out, the most that every run reached.",
    )
    parity: Parity = Parity()
    corruption_robustness: bool = Field(
        True, description="Test trained models on noisy, blurred and JPEG-compressed images as well."
    )
    kubernetes: Kubernetes | None = Field(None, description="The cluster that KubeRay makes for it.")
    storage: str = Field(
        "tandem-results", description="Directory or URL (s3://, gs://) that results are kept in."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if re.match(r"\w+://[^/]*@", self.storage):
            raise ValueError(
                "storage must not hold credentials, which would be kept in records and reports; "
                "give them in the environment or the cloud's own configuration"
            )
        for name in [self.name, *self.arms]:
            if not NAME.fullmatch(name) or len(name) > 40:
                raise ValueError(f"name {name!r} must be at most 40 lower-case letters, digits and hyphens")
        for name, arm in self.recipe_arms.items():
            if isinstance(self.scale.workers, int) and arm.batch_size % self.scale.workers:
                raise ValueError(
                    f"arms.{name}.batch_size {arm.batch_size} does not divide over "
                    f"{self.scale.workers} workers; {_divisible(arm.batch_size, self.scale.workers)}"
                    f" do, and so do {_divisors(arm.batch_size)} workers"
                )
            on_gpu = self.scale.gpus_per_worker > 0
            if arm.framework == "keras" and arm.compile and arm.is_deterministic(on_gpu=on_gpu):
                raise ValueError(
                    f"arms.{name}.compile: XLA has no deterministic kernel for some of Keras' layers, such as max "
                    "pooling; set deterministic: false"
                )
            _check_sync_batch_norm(name, arm.framework, arm, self.scale)
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(
                f"baseline: no arm is called {self.baseline!r}{nearest(self.baseline, self.arms)}; the arms are "
                f"{', '.join(self.arms)}"
            )
        if self.metric is None and not all(isinstance(arm, Arm) for arm in self.arms.values()):
            raise ValueError(
                "metric: missing; name what the training functions report and its goal, such as "
                "metric: {name: val_loss, goal: minimize}"
            )
        if self.sweep is not None:
            _check_sweep(self, self.sweep)
        return self

    @property
    def recipe_arms(self) -> dict[str, Arm]:
        """The arms that train a recipe of tandem's."""
        return {name: arm for name, arm in self.arms.items() if isinstance(arm, Arm)}

    @property
    def train_loop_arms(self) -> dict[str, TrainLoopArm]:
        """The arms that train with a function of the user's own."""
        return {name: arm for name, arm in self.arms.items() if isinstance(arm, TrainLoopArm)}


def _check_sync_batch_norm(name: str, framework: str, recipe: Recipe, scale: Scale) -> None:
    if not recipe.sync_batch_norm or scale.max_workers == 1:
        return
    if framework == "torch" and not scale.gpus_per_worker:
        raise ValueError(
            f"arms.{name}.sync_batch_norm: PyTorch synchronizes batch normalization on GPUs only; set "
            "scale.gpus_per_worker, scale.workers to 1, or sync_batch_norm to false"
        )
    if framework == "keras" and ":" in recipe.model:
        raise ValueError(
            f"arms.{name}.sync_batch_norm: a Keras model of your own says so itself, with "
            "BatchNormalization(synchronized=True); leave the field out"
        )
    if framework == "keras" and recipe.compile:
        raise ValueError(
            f"arms.{name}.sync_batch_norm: XLA compiles no exchange between workers; leave compile out, or "
            "sync_batch_norm"
        )


def _check_sweep(experiment: Experiment, sweep: Sweep) -> None:
    from orchestrator.experiment import search_space

    for name in sweep.arms:
        if name not in experiment.arms:
            hint = nearest(name, experiment.arms)
            raise ValueError(f"sweep.arms.{name}: no arm is called {name!r}{hint}")
    if experiment.train_loop_arms:
        name = next(iter(experiment.train_loop_arms))
        raise ValueError(
            f"sweep: arms.{name} has a training function of its own, and sweeps search built-in recipes only"
        )
    if experiment.data.validation == 0:
        raise ValueError("sweep: trials are judged on the validation split; set data.validation above 0")
    workers = experiment.scale.workers
    for name, arm in experiment.recipe_arms.items():
        for recipe in search_space.check(name, arm.recipe(), sweep):
            if isinstance(workers, int) and recipe.batch_size % workers:
                raise ValueError(
                    f"sweep.space.batch_size: {recipe.batch_size} does not divide over {workers} workers"
                )
            _check_sync_batch_norm(name, arm.framework, recipe, experiment.scale)
        if sweep.budget_of(name).cost is not None and not experiment.scale.price_per_worker_hour:
            raise ValueError("sweep.budget.cost: needs a price; set scale.price_per_worker_hour")


def _divisible(size: int, workers: int) -> str:
    below, above = size // workers * workers, -(-size // workers) * workers
    return f"{below} and {above}" if below else f"{above} and {above + workers}"


def _divisors(size: int) -> str:
    return ", ".join(str(count) for count in range(1, min(size, 64) + 1) if size % count == 0)


def nearest(given: object, choices: Iterable[str]) -> str:
    """`, did you mean 'adam'?`, or nothing where no choice is near."""
    close = difflib.get_close_matches(str(given), list(choices), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a document, and the field that it is about."""
    problem = error.errors()[0]
    field = ".".join(str(step) for step in problem["loc"] if step not in TAGS)
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def describe_value(value: Any) -> str:
    """A recipe's field in a few words: `adam 0.001, epsilon 1e-07`."""
    if value is None or isinstance(value, bool):
        return "yes" if value else "none"
    if not isinstance(value, dict):
        return str(value)
    name = value.get("name", "")
    rate = f" {_short(value['learning_rate'])}" if "learning_rate" in value else ""
    rest = [
        key if entry is True else f"{key.replace('_', ' ')} {_short(entry)}"
        for key, entry in value.items()
        if key not in ("name", "learning_rate") and entry
    ]
    return f"{name}{rate}{', ' if rest and name else ''}{', '.join(rest)}" or "none"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def from_json(document: Mapping[str, Any]) -> Experiment:
    """The experiment that `Experiment.model_dump(mode="json")` wrote into the records.

    Raises:
        InputError: it has something in it that this version does not know.
    """
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        raise InputError(
            f"the experiment was recorded by another version of tandem ({first_problem(error)}); use that version"
        ) from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of an experiment file, for editors; arms may be partial and extend another."""
    schema = Experiment.model_json_schema()
    arm, own = schema["$defs"]["Arm"], schema["$defs"]["TrainLoopArm"]
    arm.pop("required", None)
    for kind in (arm, own):
        kind["properties"]["extends"] = {
            "type": "string",
            "description": "Name of the arm whose fields this one starts from.",
        }
    arm["properties"]["recipe"] = {
        "enum": list(NAMED_RECIPES),
        "description": "Named recipe whose fields the arm starts from.",
    }
    schema["properties"]["defaults"] = {
        "$ref": "#/$defs/Arm",
        "description": "Fields that every arm starts from.",
    }
    return schema
