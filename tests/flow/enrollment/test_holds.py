"""Certificates that are on hold and taken off it (RFC 5280 §5.3.1): by an operator, or by a registration authority."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.ca.interfaces import Capability, NotSent, UpstreamRejected
from gateway.errors import Reason, Rejection
from gateway.model import Issued, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.requests import Acknowledged, RevokeRequest
from gateway.store.interfaces import InventoryRow, LedgerState
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, REVOKE, World

HOLD = RevocationReason.CERTIFICATE_HOLD
OPERATOR = "uid:0 (root)"
RA = "ra_certificate:00"


@pytest.fixture
def world(new_world: NewWorld) -> World:
    world = new_world(REVOKE | Capability.REVIVE)
    world.ca.revived = []

    async def revive(_certificate: bytes, serial: int, _when: object) -> None:
        world.ca.revived.append(serial)

    world.ca.revive = revive
    return world


async def held(world: World, authority: RegistrationAuthority, reason: RevocationReason = HOLD) -> InventoryRow:
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    sha256 = parse_certificate(issued.certificate).sha256
    return await world.administration().revoke_certificate(sha256.hex(), reason, OPERATOR)


def revival(row: InventoryRow, authorized: str | None = RA) -> RevokeRequest:
    key = row.public_key_sha256
    reason = RevocationReason.UNSPECIFIED
    asked = RevokeRequest(PROFILE, Protocol.SCEP, "rr", "t", key, row.sha256, reason, "192.0.2.7", authorized=authorized)
    return replace(asked, revive=True)


async def found(world: World, row: InventoryRow) -> InventoryRow:
    again = await world.store.find_certificate(row.sha256)
    assert again is not None
    return again


async def test_registration_authority_takes_it_off(world: World) -> None:
    authority = await world.start()
    row = await held(world, authority)
    assert await authority.revoke(world.snapshot, revival(row)) == Acknowledged(row.request_id, revoked=False)
    assert (await found(world, row)).revoked_at is None
    assert world.ca.revived == [row.serial]
    event = (await world.audit())[-1]
    assert (event["event"], event["actor"], event["serial"]) == ("certificate.revived", RA, format(row.serial, "x"))
    assert row.request_id is not None
    ledger = await world.store.get_row(row.request_id)
    assert ledger is not None
    assert ledger.state is LedgerState.DELIVERED


async def test_holder_does_not(world: World) -> None:
    authority = await world.start()
    row = await held(world, authority)
    outcome = await authority.revoke(world.snapshot, revival(row, None))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.NOT_AUTHORIZED
    assert await found(world, row) == row
    assert world.ca.revived == []


async def test_operator_takes_it_off(world: World) -> None:
    authority = await world.start()
    row = await held(world, authority)
    revived = await world.administration().revive_certificate(row.sha256.hex(), OPERATOR)
    assert revived == replace(row, revoked_at=None, revocation_reason=None)
    assert (await world.audit())[-1]["actor"] == OPERATOR


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param(RevocationReason.SUPERSEDED, Reason.ALREADY_REVOKED, id="revoked for good"),
        pytest.param(None, Reason.UNKNOWN_CERTIFICATE, id="in force"),
    ],
)
async def test_nothing_else_is_taken_off(world: World, reason: RevocationReason | None, told: Reason) -> None:
    authority = await world.start()
    row = await held(world, authority, reason or HOLD)
    if reason is None:
        await authority.revoke(world.snapshot, revival(row))
    outcome = await authority.revoke(world.snapshot, revival(row))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is told
    with pytest.raises(Rejection, match="not on hold"):
        await world.administration().revive_certificate(row.sha256.hex(), OPERATOR)


async def test_ca_that_cannot_keeps_the_hold(world: World) -> None:
    authority = await world.start()
    row = await held(world, authority)
    world.ca.capabilities = REVOKE
    outcome = await authority.revoke(world.snapshot, revival(row))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.UPSTREAM_REJECTED
    assert await found(world, row) == row


@pytest.mark.parametrize(
    ("error", "answer"),
    [pytest.param(NotSent("down"), Unavailable, id="CA down"), pytest.param(UpstreamRejected("no"), Rejected, id="CA refuses")],
)
async def test_ca_that_does_not_keeps_the_hold(world: World, error: Exception, answer: type) -> None:
    authority = await world.start()
    row = await held(world, authority)

    async def fail(*_: object) -> Any:
        raise error

    world.ca.revive = fail
    assert isinstance(await authority.revoke(world.snapshot, revival(row)), answer)
    assert await found(world, row) == row


async def test_hold_of_which_the_ca_was_not_told_stays(world: World) -> None:
    world.ca.queue = timedelta(days=1)
    authority = await world.start()
    world.ca.revoke_faults.append("lost after")
    row = await held(world, authority)
    assert isinstance(await authority.revoke(world.snapshot, revival(row)), Unavailable)
    assert world.ca.revived == []
    world.clock.advance(timedelta(hours=1))
    await authority.tell_revocations(world.snapshot)
    assert isinstance(await authority.revoke(world.snapshot, revival(row)), Acknowledged)
