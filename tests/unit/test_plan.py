from __future__ import annotations

from typing import Any

import pytest

from orchestrator.experiment.spec import Arm, Experiment, Scale
from orchestrator.planning import nodes, preflight, run_plan
from trainers.errors import InputError


def experiment(**changes: object) -> Experiment:
    arms = {
        "keras": Arm(framework="keras", seeds=[0, 1, 2]),
        "torch": Arm(framework="torch", seeds=[0, 1]),
    }
    return Experiment(**{"name": "x", "arms": arms} | changes)


def test_arms_times_seeds_in_order() -> None:
    runs = run_plan.expand(experiment(), "f")
    assert [(run.arm, run.seed) for run in runs] == [
        ("keras", 0),
        ("keras", 1),
        ("keras", 2),
        ("torch", 0),
        ("torch", 1),
    ]
    assert len({run.id for run in runs}) == 5


def test_an_id_follows_what_decides_the_result_and_nothing_else() -> None:
    before = [run.id for run in run_plan.expand(experiment(), "f")]
    same = experiment(name="y", storage="elsewhere", scale=Scale(retries=5, concurrent_runs=1))
    assert [run.id for run in run_plan.expand(same, "f")] == before
    assert not set(before) & {run.id for run in run_plan.expand(experiment(), "other data")}
    wider = experiment(scale=Scale(workers=2))
    assert not set(before) & {run.id for run in run_plan.expand(wider, "f")}
    arms = experiment().arms | {"torch": Arm(framework="torch", seeds=[0, 1], epochs=3)}
    after = [run.id for run in run_plan.expand(experiment(arms=arms), "f")]
    assert after[:3] == before[:3], "the other arm's runs stay done"
    assert after[3:] != before[3:]


@pytest.mark.parametrize("off", [None, False, 0, 0.0, {}])
def test_a_field_added_by_a_later_version_changes_no_name_while_it_is_off(off: object) -> None:
    recipe = {"loss": {"name": "cross_entropy"}, "epochs": 10}
    later = {"loss": {"name": "cross_entropy", "weights": off}, "epochs": 10, "mixing": off}
    name = run_plan.short_hash({"recipe": recipe, "seed": 0})
    assert run_plan.short_hash({"recipe": later, "seed": 0}) == name
    assert run_plan.short_hash({"recipe": later | {"mixing": 0.5}, "seed": 0}) != name
    assert run_plan.short_hash({"recipe": recipe, "seed": 1}) != name
    assert run_plan.short_hash([0, recipe]) != run_plan.short_hash([recipe]), "places in a list stay"


def test_concurrent_runs_follow_the_scarcest_resource() -> None:
    assert run_plan.concurrent_runs(Scale(workers=2, cpus_per_worker=2), cpus=9, gpus=0) == 2
    assert run_plan.concurrent_runs(Scale(workers=2, gpus_per_worker=0.5), cpus=64, gpus=3) == 3
    assert run_plan.concurrent_runs(Scale(concurrent_runs=1), cpus=64, gpus=0) == 1
    assert run_plan.concurrent_runs(Scale(workers=4), cpus=2, gpus=0) == 0


def test_sessions_hold_every_run_once_and_one_framework_each() -> None:
    runs = run_plan.expand(experiment(), "f")
    for groups in (1, 2, 7):
        shared_out = run_plan.queues(runs, groups=groups)
        assert sorted(run.id for queue in shared_out for run in queue.runs) == sorted(run.id for run in runs)
        for queue in shared_out:
            assert {run.framework for run in queue.runs} == {queue.framework}
    assert len(run_plan.queues(runs, groups=1)) == 2


def test_runs_apart_have_a_queue_each_and_arms_take_turns() -> None:
    runs = run_plan.expand(experiment(), "f")
    apart = run_plan.queues(runs, groups=1, apart=True)
    assert sorted(queue.runs[0].id for queue in apart) == sorted(run.id for run in runs)
    assert all(len(queue.runs) == 1 for queue in apart)
    arms = list(dict.fromkeys(run.arm for run in runs))
    assert [queue.runs[0].arm for queue in apart][: 2 * len(arms)] == arms + arms[::-1]


@pytest.mark.parametrize(
    ("selector", "suits"),
    [
        ({"market": "spot"}, True),
        ({"market": "on-demand"}, False),
        ({"market": "!spot"}, False),
        ({"zone": "!a"}, True),
        ({"market": "in(on-demand, spot)"}, True),
        ({"market": "!in(on-demand, spot)"}, False),
        ({"market": "spot", "zone": "a"}, False),
    ],
)
def test_nodes_are_counted_by_their_labels(selector: dict[str, str], suits: bool) -> None:
    scale = Scale(label_selector=selector)
    assert nodes.suits(scale, resources={"CPU": 4}, labels={"market": "spot"}) == suits


def test_nodes_are_counted_by_their_accelerator() -> None:
    scale = Scale(gpus_per_worker=1, accelerator_type="H100")
    assert nodes.suits(scale, resources={"GPU": 8, "accelerator_type:H100": 1}, labels={})
    assert not nodes.suits(scale, resources={"GPU": 8, "accelerator_type:A100": 1}, labels={})
    assert nodes.restriction(scale) == " on nodes with H100"


def test_the_kind_of_gpu_decides_a_run_and_labels_do_not() -> None:
    def name(**scale: Any) -> str:
        return run_plan.expand(experiment(scale=Scale(**scale)), "f")[0].id

    assert name(gpus_per_worker=1) != name(gpus_per_worker=1, accelerator_type="H100")
    assert name() == name(label_selector={"market": "spot"})


def test_determinism_is_off_on_gpus_unless_it_is_asked_for() -> None:
    def name(deterministic: bool | str, gpus: float) -> str:
        arm = Arm(framework="torch", deterministic=deterministic)
        return run_plan.expand(experiment(arms={"a": arm}, scale=Scale(gpus_per_worker=gpus)), "f")[0].id

    assert name("auto", 0) == name(True, 0) != name(False, 0)
    assert name("auto", 1) == name(False, 1) != name(True, 1)


def test_a_scale_that_no_node_suits_is_refused_with_the_remedy() -> None:
    scale = Scale(gpus_per_worker=1, accelerator_type="H100", label_selector={"pool": "a"})
    with pytest.raises(InputError, match=r"there is no node with H100 and pool: a; correct scale\.accel"):
        preflight.check_capacity(scale, cpus=0, gpus=0)
    with pytest.raises(InputError, match="4 GPUs, but there are 2 on nodes with H100 and pool: a; lower"):
        preflight.check_capacity(scale.model_copy(update={"workers": 4}), cpus=64, gpus=2)
