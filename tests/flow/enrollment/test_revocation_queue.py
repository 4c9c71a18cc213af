"""Revocations of a CA that cannot be reached: known here at once, told to the CA when it is back, by exactly one worker."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import pytest
from structlog.testing import capture_logs

from gateway.ca.interfaces import Capability, NotSent, UnknownResult, UpstreamRejected
from gateway.errors import Reason
from gateway.model import Issued, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.requests import Acknowledged, RevokeRequest
from gateway.ra.timing import Timing
from gateway.store.interfaces import InventoryRow, PendingRevocation
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, QUICK, REVOKE, World

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
OPERATOR = "uid:0 (root)"
IMPATIENT = replace(QUICK, revoke_within=0.05)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    world = new_world(REVOKE, IMPATIENT)
    world.ca.queue = DAY
    return world


async def certify(world: World, authority: RegistrationAuthority, name: str = "device") -> InventoryRow:
    issued = await authority.enroll(world.snapshot, world.request(name, transaction=name))
    assert isinstance(issued, Issued)
    row = await world.store.find_certificate(parse_certificate(issued.certificate).sha256)
    assert row is not None
    return row


def revocation_of(row: InventoryRow) -> RevokeRequest:
    return RevokeRequest(
        PROFILE, Protocol.SCEP, "rr", "", row.public_key_sha256, row.sha256, RevocationReason.KEY_COMPROMISE, "192.0.2.7"
    )


async def pass_time(world: World, authority: RegistrationAuthority, time: timedelta) -> None:
    for _ in range(round(time / MINUTE)):
        world.clock.advance(MINUTE)
        await authority.tell_revocations(world.snapshot)


async def revoke_while_down(world: World, authority: RegistrationAuthority, name: str = "device") -> InventoryRow:
    world.ca.down = False
    row = await certify(world, authority, name)
    world.ca.down = True
    assert await authority.revoke(world.snapshot, revocation_of(row)) == Acknowledged(row.request_id, revoked=True)
    return row


async def only(world: World) -> PendingRevocation:
    [pending] = await world.store.list_revocations(10)
    return pending


async def test_it_is_known_here_at_once_and_told_when_the_ca_is_back(world: World) -> None:
    authority = await world.start()
    row = await revoke_while_down(world, authority)
    revoked = await world.store.find_certificate(row.sha256)
    assert revoked is not None
    assert revoked.revocation_reason is RevocationReason.KEY_COMPROMISE
    pending = await only(world)
    assert (pending.serial, pending.reason, pending.cause) == (row.serial, RevocationReason.KEY_COMPROMISE, "connection refused")
    assert pending.revoked_at == revoked.revoked_at
    await pass_time(world, authority, HOUR)
    assert world.ca.revoked == []
    world.ca.down = False
    await pass_time(world, authority, 3 * MINUTE)
    assert world.ca.revoked == [row.serial]
    assert await world.store.list_revocations(10) == ()
    told = [event for event in await world.audit() if event["event"] in {"certificate.revoked", "revocation.told"}]
    assert [event["event"] for event in told] == ["certificate.revoked", "revocation.told"]
    assert "the CA is told later: connection refused" in told[0]["detail"]
    assert told[1]["serial"] == format(row.serial, "x")


async def test_restart_in_the_middle_resumes(world: World) -> None:
    first = await world.start("w1")
    row = await revoke_while_down(world, first)
    await pass_time(world, first, 5 * MINUTE)
    await first.drain(0)
    world.ca.down = False
    second = await world.start("w2")
    await pass_time(world, second, 20 * MINUTE)
    assert world.ca.revoked == [row.serial]


async def test_several_workers_tell_each_once(world: World) -> None:
    workers = [await world.start(f"w{n}") for n in range(3)]
    rows = [await revoke_while_down(world, workers[0], f"device-{n}") for n in range(6)]
    world.ca.down = False
    world.clock.advance(HOUR)
    told = await asyncio.gather(*(worker.tell_revocations(world.snapshot) for worker in workers))
    assert sum(told) == 6
    assert sorted(world.ca.revoked) == sorted(row.serial for row in rows)


async def test_ca_that_is_down_is_tried_by_one_of_many(world: World) -> None:
    authority = await world.start()
    for number in range(12):
        await revoke_while_down(world, authority, f"device-{number}")
    before = len(world.ca.calls)
    await pass_time(world, authority, HOUR)
    assert len(world.ca.calls) - before <= 70
    world.ca.down = False
    await pass_time(world, authority, 20 * MINUTE)
    assert len(world.ca.revoked) == 12


@pytest.mark.parametrize("fault", ["lost after", "stall"])
async def test_answer_that_did_not_come_is_asked_for_again(world: World, fault: str) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.revoke_faults = [fault, fault]
    assert isinstance(await authority.revoke(world.snapshot, revocation_of(row)), Acknowledged)
    await pass_time(world, authority, MINUTE)
    assert (await only(world)).attempts == 2
    await pass_time(world, authority, 3 * MINUTE)
    assert world.ca.revoked[-1] == row.serial
    assert await world.store.list_revocations(10) == ()


async def test_refusal_at_once_revokes_nothing(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.revoke_faults = ["rejected"]
    outcome = await authority.revoke(world.snapshot, revocation_of(row))
    assert outcome == Rejected(Reason.UPSTREAM_REJECTED, "the CA does not know it")
    kept = await world.store.find_certificate(row.sha256)
    assert kept is not None
    assert kept.revoked_at is None
    assert await world.store.list_revocations(10) == ()


async def test_refusal_later_is_told_to_an_operator_and_tried_again_rarely(world: World) -> None:
    authority = await world.start()
    await revoke_while_down(world, authority)
    world.ca.down, world.ca.revoke_faults = False, ["rejected"]
    with capture_logs() as logs:
        await pass_time(world, authority, HOUR)
    assert [line["cause"] for line in logs if line["log_level"] == "error"] == ["it refuses: the CA does not know it"]
    assert (await only(world)).cause == "it refuses: the CA does not know it"
    assert world.ca.revoked == []
    world.clock.advance(QUICK.hold)
    assert await authority.tell_revocations(world.snapshot) == 1


async def test_certificate_that_has_ended_need_not_be_told(world: World) -> None:
    authority = await world.start()
    row = await revoke_while_down(world, authority)
    world.clock.advance(row.not_after - world.clock() + MINUTE)
    await authority.tell_revocations(world.snapshot)
    assert await world.store.list_revocations(10) == ()
    assert (await world.events())[-1] == "revocation.lapsed"


@pytest.mark.parametrize("change", ["not configured", "revokes no more"])
async def test_ca_that_can_be_told_no_more_is_named_and_waits(world: World, change: str) -> None:
    authority = await world.start()
    await revoke_while_down(world, authority)
    world.ca.down = False
    snapshot = world.snapshot
    if change == "not configured":
        snapshot = replace(snapshot, upstream_cas=MappingProxyType({}))
    world.ca.capabilities = Capability.NONE if change == "revokes no more" else REVOKE
    with capture_logs() as logs:
        for _ in range(3):
            world.clock.advance(MINUTE)
            assert await authority.tell_revocations(snapshot) == 0
    assert len([line for line in logs if "revoke the certificate there" in line["event"]]) == 1
    world.ca.capabilities = REVOKE
    world.clock.advance(QUICK.hold)
    assert await authority.tell_revocations(world.snapshot) == 1


async def test_ca_without_a_queue_is_told_at_once_or_not_at_all(world: World) -> None:
    world.ca.queue = timedelta(0)
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.down = True
    assert isinstance(await authority.revoke(world.snapshot, revocation_of(row)), Unavailable)
    world.ca.down, world.ca.revoke_faults = False, ["stall"]
    assert isinstance(await authority.revoke(world.snapshot, revocation_of(row)), Unavailable)
    kept = await world.store.find_certificate(row.sha256)
    assert kept is not None
    assert kept.revoked_at is None
    assert await world.store.list_revocations(10) == ()


async def test_operators_revoke_while_the_ca_is_down(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.down = True
    administration = world.administration()
    revoked = await administration.revoke_certificate(row.sha256.hex(), RevocationReason.SUPERSEDED, OPERATOR)
    assert revoked.revoked_at is not None
    assert (await administration.status()).revocations_to_tell == {world.ca.name: 1}
    [listed] = await administration.list_revocations()
    assert listed == await administration.find_revocation(row.sha256)
    again = await administration.revoke_certificate(row.sha256.hex(), RevocationReason.KEY_COMPROMISE, OPERATOR)
    assert again.revocation_reason is RevocationReason.SUPERSEDED
    assert len(await administration.list_revocations()) == 1


async def test_operators_are_told_of_a_ca_without_a_queue(world: World) -> None:
    world.ca.queue = timedelta(0)
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.down = True
    with pytest.raises(NotSent):
        await world.administration().revoke_certificate(row.sha256.hex(), RevocationReason.SUPERSEDED, OPERATOR)
    world.ca.down, world.ca.revoke_faults = False, ["rejected", "lost after"]
    for error in (UpstreamRejected, UnknownResult):
        with pytest.raises(error):
            await world.administration().revoke_certificate(row.sha256.hex(), RevocationReason.SUPERSEDED, OPERATOR)


async def test_long_words_of_a_ca_are_cut(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)

    async def fail(*_: object) -> None:
        raise NotSent("no " * 10_000, 10**9)

    good, world.ca.revoke = world.ca.revoke, fail
    assert isinstance(await authority.revoke(world.snapshot, revocation_of(row)), Acknowledged)
    await pass_time(world, authority, MINUTE)
    pending = await only(world)
    assert len(pending.cause) <= 500
    assert pending.next_at <= world.clock() + Timing().longest_trial
    world.ca.revoke = good
    await pass_time(world, authority, 5 * MINUTE)
    assert world.ca.revoked == [row.serial]
