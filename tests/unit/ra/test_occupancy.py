"""A generation that was replaced ends with the last that works under it."""

import asyncio

import pytest

from gateway.ra.occupancy import Occupancy


async def ended(occupancy: Occupancy) -> bool:
    try:
        async with asyncio.timeout(0.01):
            await occupancy.end()
    except TimeoutError:
        return False
    return True


async def test_nobody_is_there() -> None:
    assert await ended(Occupancy())


async def test_the_last_leaves() -> None:
    occupancy = Occupancy()
    with occupancy:
        with occupancy:
            assert not await ended(occupancy)
        assert not await ended(occupancy)
    assert await ended(occupancy)


async def test_who_fails_has_left_too() -> None:
    occupancy = Occupancy()
    with pytest.raises(ValueError, match="no"), occupancy:
        raise ValueError("no")
    assert await ended(occupancy)


async def test_a_task_outlives_who_began_it() -> None:
    occupancy, gate = Occupancy(), asyncio.Event()
    with occupancy:
        task = asyncio.create_task(gate.wait())
        occupancy.extend(task)
    assert not await ended(occupancy)
    gate.set()
    await task
    assert await ended(occupancy)


async def test_a_task_that_is_cancelled_before_it_begins() -> None:
    occupancy = Occupancy()
    task = asyncio.create_task(asyncio.Event().wait())
    occupancy.extend(task)
    task.cancel()
    assert await ended(occupancy)


async def test_a_task_that_brings_another() -> None:
    """The end is not told between one and the next."""
    occupancy, gate = Occupancy(), asyncio.Event()

    async def first() -> None:
        occupancy.extend(asyncio.create_task(gate.wait()))

    occupancy.extend(asyncio.create_task(first()))
    end = asyncio.create_task(occupancy.end())
    await asyncio.sleep(0.01)
    assert not end.done()
    gate.set()
    await end
