"""Rows whose worker is gone or stands still: taken over only after their lease ran out, by exactly one."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from gateway.errors import Rejection
from gateway.model import Issued, Pending, RequestId, UpstreamCAName
from gateway.ra import recovery
from gateway.ra.authority import RegistrationAuthority
from gateway.store.interfaces import LedgerRow, LedgerState, WaitingFor
from tests.contract.store.rows import ledger_row, opening
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import FIND, POLL, PROFILE, QUICK, FlakyStore, World


async def die_after_opening(world: World) -> LedgerRow:
    """Leave a row as a worker leaves it that is killed while it asks the CA."""
    worker = await world.start("dead")
    world.ca.faults = ["stall"]
    client = asyncio.create_task(worker.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    world.ca.reached.clear()
    await worker.drain(0)
    await client
    [row] = await world.rows()
    return row


@pytest.mark.parametrize("capabilities", [FIND], ids=["find"])
async def test_row_is_left_alone_until_its_lease_runs_out(new_world: NewWorld, capabilities: object) -> None:
    world = new_world(capabilities, replace(QUICK, answer_within=0.1))
    row = await die_after_opening(world)
    successor = await world.start("w2")
    assert await successor.recover(world.snapshot) == 0
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Pending)
    assert await world.store.get_row(row.id) == row
    await world.lapse()
    assert await successor.recover(world.snapshot) == 1
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Issued)
    assert "enrollment.taken_over" in await world.events()


async def test_exactly_one_of_many_workers_takes_over(new_world: NewWorld) -> None:
    world = new_world(FIND)
    await die_after_opening(world)
    workers = [await world.start(f"w{n}") for n in range(4)]
    await world.lapse()
    outcomes = await asyncio.gather(*(worker.enroll(world.snapshot, world.request()) for worker in workers))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Issued)
    assert (await world.events()).count("enrollment.sent") == 1
    assert len(world.ca.issued()) == 1


async def test_sent_row_without_find_is_held_after_takeover(new_world: NewWorld) -> None:
    world = new_world()
    await die_after_opening(world)
    successor = await world.start("w2")
    await world.lapse()
    with capture_logs() as logs:
        assert await successor.recover(world.snapshot) == 1
    [row] = await world.rows()
    assert (row.state, row.worker) == (LedgerState.UNKNOWN, "")
    assert any("requests resolve" in line.get("command", "") for line in logs)


async def stalled_worker(world: World) -> tuple[RegistrationAuthority, asyncio.Task[object]]:
    """A worker that cannot renew its lease while the CA thinks."""
    store = FlakyStore(await world.open_store("slow"))
    store.faults["renew_leases"] = ["before"] * 1000
    slow = await world.start("slow", store)
    world.ca.faults = ["gate"]
    client: asyncio.Task[object] = asyncio.create_task(slow.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    return slow, client


async def test_worker_that_stood_still_delivers_what_its_successor_recorded(new_world: NewWorld) -> None:
    world = new_world(FIND)
    _, client = await stalled_worker(world)
    successor = await world.start("w2")
    await world.lapse()
    second = await successor.enroll(world.snapshot, world.request())
    assert isinstance(second, Issued)
    with capture_logs() as logs:
        world.ca.gate.set()
        first = await client
    assert first == second
    assert any("is not recorded for its request" in line["event"] for line in logs)


async def test_worker_that_stood_still_ends_the_doubt_of_its_successor(new_world: NewWorld) -> None:
    world = new_world()
    _, client = await stalled_worker(world)
    successor = await world.start("w2")
    await world.lapse()
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Pending)
    world.ca.gate.set()
    first = await client
    assert isinstance(first, Issued)
    assert await successor.enroll(world.snapshot, world.request()) == first
    assert world.ca.issued() == [first.certificate]


async def test_late_certificate_of_a_request_that_was_ended_is_logged(new_world: NewWorld) -> None:
    world = new_world()
    _, client = await stalled_worker(world)
    successor = await world.start("w2")
    await world.lapse()
    held = await successor.enroll(world.snapshot, world.request())
    assert isinstance(held, Pending)
    await world.administration().fail(held.request_id, "uid:0 (root)")
    with capture_logs() as logs:
        world.ca.gate.set()
        await client
    assert any("certificate" in line for line in logs)


async def test_rows_of_a_ca_that_is_not_configured_any_more_are_set_aside_and_named_once_a_hold(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ROWS_A_PASS", 2)
    world = new_world(FIND)
    await die_after_opening(world)
    worker = await world.start("w2")
    gone = UpstreamCAName("gone")
    long_ago = world.clock() - timedelta(hours=1)
    for state in (LedgerState.UNKNOWN, LedgerState.OPEN, LedgerState.PENDING):
        waiting_for = WaitingFor.UPSTREAM if state is LedgerState.PENDING else WaitingFor.NOTHING
        row = ledger_row(
            upstream_ca=gone, state=state, waiting_for=waiting_for, poll_at=long_ago, lease_until=long_ago, profile=PROFILE
        )
        await world.store.open(opening(row))
    await world.lapse()
    with capture_logs() as logs:
        assert [await worker.recover(world.snapshot) for _ in range(4)][-1] == 0
        named = [line["request_id"] for line in logs if "not configured any more" in line["event"]]
    assert (len(named), len(set(named))) == (3, 3)
    assert {(row.state, row.worker) for row in await world.rows() if row.upstream_ca == gone} == {
        (LedgerState.UNKNOWN, ""),
        (LedgerState.OPEN, ""),
        (LedgerState.PENDING, ""),
    }
    assert [row.state for row in await world.rows() if row.upstream_ca != gone] == [LedgerState.DELIVERED]
    world.clock.advance(QUICK.hold)
    assert await worker.recover(world.snapshot) == 2


async def test_lease_of_a_clock_that_ran_ahead_does_not_outlive_its_correction(new_world: NewWorld) -> None:
    world = new_world(FIND)
    world.clock.advance(timedelta(days=365))
    row = await die_after_opening(world)
    world.clock.advance(timedelta(days=-365))
    successor = await world.start("w2")
    assert row.worker == "dead"
    assert await successor.recover(world.snapshot) == 1
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Issued)


async def test_operator_ends_a_request_whose_lease_lies_in_the_future(new_world: NewWorld) -> None:
    world = new_world(FIND)
    worker = await world.start("w1")
    far = world.clock() + timedelta(days=365)
    held = ledger_row(state=LedgerState.UNKNOWN, profile=PROFILE, lease_until=world.clock() + timedelta(seconds=50))
    stranded = ledger_row(state=LedgerState.UNKNOWN, profile=PROFILE, lease_until=far)
    for row in (held, stranded):
        await world.store.open(opening(row))
    administration = world.administration()
    with pytest.raises(Rejection, match="just now"):
        await administration.fail(held.id, "uid:0 (root)")
    assert (await administration.fail(stranded.id, "uid:0 (root)")).state is LedgerState.REJECTED
    await worker.drain(0)


async def test_worker_at_work_puts_its_own_lease_right(new_world: NewWorld) -> None:
    world = new_world(FIND)
    world.clock.advance(timedelta(days=365))
    worker = await world.start("w1")
    world.ca.faults = ["stall"]
    client = asyncio.create_task(worker.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    world.clock.advance(timedelta(days=-365))
    await asyncio.sleep(QUICK.renew_every * 4)
    [row] = await world.rows()
    assert row.lease_until <= world.clock() + QUICK.lease
    await worker.drain(0)
    await client


async def test_recovered_request_is_answered_to_a_poll(new_world: NewWorld) -> None:
    world = new_world(FIND)
    await die_after_opening(world)
    successor = await world.start("w2")
    await world.lapse()
    assert isinstance(await successor.poll(world.snapshot, world.poll(world.request())), Issued)


async def test_ca_out_of_reach_in_the_background_is_tried_again_and_the_request_kept(new_world: NewWorld) -> None:
    world = new_world(FIND)
    await die_after_opening(world)
    successor = await world.start("w2")
    await world.lapse()
    world.ca.faults = ["not sent"]
    assert await successor.recover(world.snapshot) == 1
    [row] = await world.rows()
    assert (row.state, row.sent) == (LedgerState.OPEN, False)
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Pending)
    world.clock.advance(timedelta(minutes=1))
    assert await successor.recover(world.snapshot) == 1
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Issued)


async def test_recovery_survives_a_store_that_fails_in_the_middle(new_world: NewWorld) -> None:
    world = new_world(FIND)
    await die_after_opening(world)
    store = FlakyStore(await world.open_store("w2"))
    successor = await world.start("w2", store)
    await world.lapse()
    store.faults["take_over"] = ["after"]
    assert await successor.recover(world.snapshot) == 0
    await world.lapse()
    assert await successor.recover(world.snapshot) == 1
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Issued)
    assert len(world.ca.issued()) == 1


async def test_a_poll_that_outlasts_its_turn_is_made_by_one_worker(new_world: NewWorld) -> None:
    """The lease goes on for as long as the CA is asked, and nobody else asks meanwhile."""
    world = new_world(POLL)
    first, second = await world.start("w1"), await world.start("w2", await world.open_store("w2"))
    world.ca.faults = ["pending", "gate"]
    assert isinstance(await first.enroll(world.snapshot, world.request()), Pending)
    world.clock.advance(timedelta(seconds=31))
    world.ca.reached.clear()
    asking = asyncio.create_task(first.recover(world.snapshot))
    await world.ca.reached.wait()
    for _ in range(3):
        world.clock.advance(QUICK.lease - timedelta(seconds=10))
        await asyncio.sleep(4 * QUICK.renew_every)
        assert await second.recover(world.snapshot) == 0
    world.ca.gate.set()
    assert await asking == 1
    assert isinstance(await second.enroll(world.snapshot, world.request()), Issued)
    assert [call.partition(" ")[0] for call in world.ca.calls] == ["issue", "poll"]
    assert len(world.ca.issued()) == 1


async def test_unknown_request_id_is_nobodys(new_world: NewWorld) -> None:
    world = new_world()
    await world.start()
    assert await world.store.get_row(RequestId("0" * 26)) is None
