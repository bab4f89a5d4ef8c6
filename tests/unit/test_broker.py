"""The broker between trials and slots: who gets which run, and what becomes of it when somebody is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from orchestrator.planning.run_plan import Run
from orchestrator.sweep.broker import Broker
from trainers.recipes import Recipe

LOST = {"failure": "the worker of rank 0 died", "diverged": False}


def a_run(name: str, epochs: int = 3) -> Run:
    return Run(id=name, arm="arm", framework="torch", seed=0, recipe=Recipe(epochs=epochs))


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 5))


async def soon(*waiting: asyncio.Task[Any]) -> None:
    """Let everything happen that can, and see that these still wait."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)


def test_a_trial_gets_epoch_by_epoch_what_a_slot_reports() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        outcome = asyncio.create_task(broker.outcome(a_run("a"), 1))
        assert await broker.next_run("slot") == "a"
        await soon(outcome)
        await broker.report("a", [{"epoch": 1, "loss": 0.5}])
        assert await outcome == {"epoch": 1, "loss": 0.5, "slot": "slot"}
        goes_on = asyncio.create_task(broker.goes_on("a", 1))
        await soon(goes_on)
        second = asyncio.create_task(broker.outcome(a_run("a"), 2))
        assert await goes_on is True
        await broker.report("a", [{"epoch": 2, "loss": 0.4}])
        await second
        await broker.release("a")
        assert await broker.goes_on("a", 2) is False
        await broker.leave("a", None)
        idle = asyncio.create_task(broker.next_run("slot"))
        await soon(idle)
        await broker.close()
        assert await idle is None

    play(scene())


def test_a_trial_that_asks_again_is_told_again() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        first = asyncio.create_task(broker.outcome(a_run("a"), 1))
        await broker.next_run("slot")
        await broker.report("a", [{"epoch": 1}])
        assert await first == await broker.outcome(a_run("a"), 1)

    play(scene())


@pytest.mark.parametrize(("losses", "permanent"), [(1, False), (2, True)])
def test_a_lost_slots_run_is_tried_again_and_fails_permanently_in_the_end(
    losses: int, permanent: bool
) -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        outcome = asyncio.create_task(broker.outcome(a_run("a"), 1))
        for loss in range(losses):
            assert await broker.next_run(f"slot{loss}") == "a"
            assert await broker.lose(f"slot{loss}", LOST, retries=1) is True
        if permanent:
            assert await outcome == LOST
        else:
            assert await broker.next_run("another") == "a"
        assert await broker.lose("idle", LOST, retries=1) is False

    play(scene())


def test_a_group_that_starts_again_gets_its_run_back_and_a_dead_lane_none() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        dead = asyncio.create_task(broker.next_run("dead"))
        await soon(dead)
        await broker.lose("dead", LOST, retries=1)
        assert await dead is None
        waiting = asyncio.create_task(broker.outcome(a_run("a"), 1))
        assert await broker.next_run("alive") == "a"
        assert await broker.next_run("alive") == "a"
        waiting.cancel()

    play(scene())


def test_an_error_ends_the_run_but_not_the_slot() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        failing = asyncio.create_task(broker.outcome(a_run("a"), 1))
        other = asyncio.create_task(broker.outcome(a_run("b"), 1))
        assert await broker.next_run("slot") == "a"
        await broker.leave("a", {"failure": "NaN", "diverged": True})
        assert await failing == {"failure": "NaN", "diverged": True}
        assert await broker.next_run("slot") == "b"
        other.cancel()

    play(scene())


def test_a_population_takes_turns() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=1)
        outcomes = [asyncio.create_task(broker.outcome(a_run(name), 1)) for name in "ab"]
        trained = []
        for _ in range(6):
            name = await broker.next_run("slot")
            assert name is not None
            trained.append(name)
            epoch = trained.count(name)
            assert await broker.wants(name, epoch - 1)
            await broker.report(name, [{"epoch": epoch}])
            await outcomes["ab".index(name)]
            if epoch < 3:
                outcomes["ab".index(name)] = asyncio.create_task(broker.outcome(a_run(name), epoch + 1))
            await asyncio.sleep(0)
            assert await broker.goes_on(name, epoch) is (len(trained) > 4 and epoch < 3)
            await broker.leave(name, None)
        assert trained == ["a", "b"] * 3

    play(scene())


def test_a_process_that_a_trial_has_left_does_not_stop_it_in_its_new_one() -> None:
    async def scene() -> None:
        broker = Broker(slice_epochs=None)
        first = asyncio.create_task(broker.outcome(a_run("a"), 1))
        assert await broker.next_run("slot") == "a"
        await broker.report("a", [{"epoch": 1}])
        await first
        onward = asyncio.create_task(broker.outcome(a_run("a"), 2))
        await asyncio.sleep(0)
        await broker.release("a", 1)
        assert await broker.wants("a", 1)
        await broker.report("a", [{"epoch": 2}])
        await onward
        await broker.release("a", 2)
        assert not await broker.wants("a", 2)

    play(scene())
