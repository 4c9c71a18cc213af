"""A CA whose poll is the request itself once more: what has no answer is in doubt, whoever died or was lost on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from gateway.ca.interfaces import Capability
from gateway.model import Issued, Pending, Rejected
from gateway.store.interfaces import LedgerState, WaitingFor
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import POLL, World

SENDS = POLL | Capability.POLL_SENDS
LATER = timedelta(seconds=31)


async def state_of(world: World) -> LedgerState:
    [row] = await world.rows()
    return row.state


def polls(world: World) -> int:
    return sum(call.startswith("poll") for call in world.ca.calls)


async def test_it_waits_and_issues(new_world: NewWorld) -> None:
    world = new_world(SENDS)
    authority = await world.start()
    world.ca.faults = ["pending", "pending", "unreachable"]
    request = world.request()
    assert isinstance(await authority.enroll(world.snapshot, request), Pending)
    for _ in range(2):
        world.clock.advance(LATER)
        assert await authority.recover(world.snapshot) == 1
        [row] = await world.rows()
        assert (row.state, row.waiting_for) == (LedgerState.PENDING, WaitingFor.UPSTREAM)
    world.clock.advance(LATER)
    issued = await authority.poll(world.snapshot, world.poll(request))
    assert isinstance(issued, Issued)
    assert world.ca.issued() == [issued.certificate]


async def test_a_lost_answer_is_held_and_never_asked_for_again(new_world: NewWorld) -> None:
    world = new_world(SENDS)
    authority = await world.start()
    world.ca.faults = ["pending", "lost after"]
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    for _ in range(5):
        world.clock.advance(timedelta(hours=1))
        await authority.recover(world.snapshot)
    assert await state_of(world) is LedgerState.UNKNOWN
    assert (polls(world), len(world.ca.issued())) == (1, 1)


async def test_a_refusal_ends_it(new_world: NewWorld) -> None:
    world = new_world(SENDS)
    authority = await world.start()
    world.ca.faults = ["pending", "rejected"]
    request = world.request()
    assert isinstance(await authority.enroll(world.snapshot, request), Pending)
    world.clock.advance(LATER)
    assert await authority.recover(world.snapshot) == 1
    assert isinstance(await authority.poll(world.snapshot, world.poll(request)), Rejected)
    assert await state_of(world) is LedgerState.REJECTED


async def test_a_worker_that_dies_over_a_poll_leaves_a_doubt(new_world: NewWorld) -> None:
    world = new_world(SENDS)
    first, second = await world.start("w1"), await world.start("w2")
    world.ca.faults = ["pending"]
    request = world.request()
    assert isinstance(await first.enroll(world.snapshot, request), Pending)
    world.clock.advance(LATER)
    world.ca.faults = ["gate"]
    world.ca.reached.clear()
    dying = asyncio.create_task(first.recover(world.snapshot))
    await world.ca.reached.wait()
    world.clock.advance(timedelta(hours=1))
    await second.recover(world.snapshot)
    assert await state_of(world) is LedgerState.UNKNOWN
    assert polls(world) == 1
    world.ca.gate.set()
    await dying
    assert await state_of(world) is LedgerState.DELIVERED
    assert len(world.ca.issued()) == 1
