"""Whoever waits for a request's task waits for a time, and never ends the task by leaving."""

import asyncio

import pytest

from gateway.ra.leases import done_within


async def test_a_task_that_ends_in_time() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    assert await done_within(task, 5)


async def test_a_task_that_had_ended() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    assert await done_within(task, 5)


async def test_a_failure_is_an_end_too_and_is_the_tasks_own() -> None:
    async def fail() -> None:
        raise ValueError("no")

    task = asyncio.create_task(fail())
    assert await done_within(task, 5)
    with pytest.raises(ValueError, match="no"):
        task.result()


async def test_a_task_that_was_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(5))
    asyncio.get_running_loop().call_soon(task.cancel)
    assert await done_within(task, 5)
    assert task.cancelled()


async def test_a_task_that_takes_longer_goes_on() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())
    assert not await done_within(task, 0.01)
    gate.set()
    assert await done_within(task, 5)
    assert task.result()


async def test_who_is_cancelled_while_waiting_leaves_the_task_alone() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())
    waiting = [asyncio.create_task(done_within(task, 5)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    gate.set()
    assert await waiting[1]
    assert task.result()
