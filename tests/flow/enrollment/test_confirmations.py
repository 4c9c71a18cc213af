"""Certificates that CMP clients do not confirm, or do not want: revoked or kept, by one worker, whatever happens meanwhile."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.ca.interfaces import Capability
from gateway.config.cmp import CmpEndpoint
from gateway.errors import Reason
from gateway.model import (
    EnrollmentRequest,
    Issued,
    MessageProof,
    Pending,
    ProfileName,
    Protocol,
    Rejected,
    RequestForm,
    RevocationReason,
)
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.cmp.confirmations import Confirmations, _is_unproved
from gateway.ra.profile import CmpTerms, Snapshot
from gateway.ra.requests import Acknowledged, ConfirmRequest
from gateway.store.interfaces import InventoryRow, LedgerRow, LedgerState
from tests.contract.store.rows import ledger_row
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, REVOKE, World

WAIT = timedelta(minutes=10)
DAY = timedelta(days=1)
SIGNER = {"certificate": "cmp.pem", "key": {"file": "cmp.key"}}


def terms(on_timeout: str) -> CmpTerms:
    return CmpTerms(CmpEndpoint.model_validate({"signer": SIGNER, "confirmation": {"on_timeout": on_timeout}}))


@pytest.fixture
def world(new_world: NewWorld) -> World:
    world = new_world(REVOKE)
    world.profile_options = {"cmp": terms("revoke")}
    return world


def asked(world: World, name: str = "device") -> EnrollmentRequest:
    proof = MessageProof(secret=None, transaction=name.encode(), confirm_by=world.clock() + WAIT)
    return replace(world.request(name, transaction=name), proof=proof)


async def certify(world: World, authority: RegistrationAuthority, name: str = "device") -> InventoryRow:
    issued = await authority.enroll(world.snapshot, asked(world, name))
    assert isinstance(issued, Issued)
    return await inventory_row(world, issued.certificate)


async def inventory_row(world: World, certificate: bytes) -> InventoryRow:
    row = await world.store.find_certificate(parse_certificate(certificate).sha256)
    assert row is not None
    return row


async def ledger_row_of(world: World, row: InventoryRow) -> LedgerRow:
    assert row.request_id is not None
    found = await world.store.get_row(row.request_id)
    assert found is not None
    return found


def confirmations(world: World, number: int = 0) -> Confirmations:
    store = world.stores[number]
    return Confirmations(store, store, world.clock, f"w{number + 1}")


def confirmation(row: InventoryRow, name: str = "device", *, accepted: bool = True) -> ConfirmRequest:
    key = row.public_key_sha256
    return ConfirmRequest(PROFILE, Protocol.SCEP, "certConf", name, key, row.sha256, accepted, "192.0.2.7")


async def test_is_left_alone_in_time(world: World) -> None:
    row = await certify(world, await world.start())
    world.clock.advance(WAIT - timedelta(minutes=1))
    assert await confirmations(world).pass_over(world.snapshot) == 0
    assert await world.store.find_certificate(row.sha256) == row


async def test_is_revoked_when_its_time_is_over_and_its_ca_is_told(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.clock.advance(WAIT)
    with capture_logs() as logs:
        assert await confirmations(world).pass_over(world.snapshot) == 1
    revoked = await world.store.find_certificate(row.sha256)
    assert revoked is not None
    assert revoked.revocation_reason is RevocationReason.CESSATION_OF_OPERATION
    assert (await ledger_row_of(world, row)).state is LedgerState.REVOKED
    assert world.ca.revoked == []
    await authority.tell_revocations(world.snapshot)
    assert world.ca.revoked == [row.serial]
    assert await confirmations(world).pass_over(world.snapshot) == 0
    event = next(one for one in await world.audit() if one["event"] == "certificate.revoked")
    assert (event["actor"], event["detail"]) == ("w1", "it was not confirmed in time")
    assert (event["serial"], event["profile"]) == (format(row.serial, "x"), PROFILE)
    assert [entry["log_level"] for entry in logs] == ["warning"]


async def test_is_kept_where_the_profile_says_so(world: World) -> None:
    world.profile_options = {"cmp": terms("keep")}
    row = await certify(world, await world.start())
    world.clock.advance(WAIT)
    assert await confirmations(world).pass_over(world.snapshot) == 0
    assert await world.store.find_certificate(row.sha256) == row
    assert (await ledger_row_of(world, row)).confirm_by is None
    await confirmations(world).pass_over(world.snapshot)
    assert [name for name in await world.events() if name == "enrollment.unconfirmed"] == ["enrollment.unconfirmed"]


@pytest.mark.parametrize(
    "profiles",
    [pytest.param(False, id="profile gone"), pytest.param(True, id="profile without CMP")],
)
async def test_is_revoked_where_nothing_says_otherwise(world: World, profiles: bool) -> None:
    world.profile_options = {"cmp": terms("keep")}
    row = await certify(world, await world.start())
    world.clock.advance(WAIT)
    there: Mapping[ProfileName, Any] = world.make_snapshot(cmp=None).profiles if profiles else {}
    snapshot = Snapshot(2, there, world.snapshot.upstream_cas)
    assert await confirmations(world).pass_over(snapshot) == 1
    revoked = await world.store.find_certificate(row.sha256)
    assert revoked is not None
    assert revoked.revoked_at is not None


async def test_that_was_confirmed_stays(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.clock.advance(WAIT)
    assert isinstance(await authority.confirm(world.snapshot, confirmation(row)), Acknowledged)
    assert await confirmations(world).pass_over(world.snapshot) == 0
    assert await world.store.find_certificate(row.sha256) == row


async def test_that_was_revoked_is_not_confirmed(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.clock.advance(WAIT)
    await confirmations(world).pass_over(world.snapshot)
    outcome = await authority.confirm(world.snapshot, confirmation(row))
    assert isinstance(outcome, Rejected)


async def test_is_either_confirmed_or_revoked_when_both_come_at_once(world: World) -> None:
    authority = await world.start()
    rows = [await certify(world, authority, f"device-{number}") for number in range(8)]
    world.clock.advance(WAIT)
    confirmed = (authority.confirm(world.snapshot, confirmation(row, f"device-{n}")) for n, row in enumerate(rows))
    _, *answers = await asyncio.gather(confirmations(world).pass_over(world.snapshot), *confirmed)
    for row, answer in zip(rows, answers, strict=True):
        found = await world.store.find_certificate(row.sha256)
        assert found is not None
        assert (found.revoked_at is None) == isinstance(answer, Acknowledged)


async def test_is_ended_by_one_worker_after_a_restart(world: World) -> None:
    first = await world.start("w1")
    row = await certify(world, first)
    await world.start("w2")
    world.clock.advance(DAY)
    done = await asyncio.gather(*(confirmations(world, number).pass_over(world.snapshot) for number in range(2)))
    assert sum(done) == 1
    assert (await world.events()).count("certificate.revoked") == 1
    assert (await world.store.list_revocations(10))[0].serial == row.serial


async def test_is_known_as_revoked_though_its_ca_is_down(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.down = True
    world.clock.advance(WAIT)
    assert await confirmations(world).pass_over(world.snapshot) == 1
    await authority.tell_revocations(world.snapshot)
    world.ca.down = False
    world.clock.advance(timedelta(hours=1))
    await authority.tell_revocations(world.snapshot)
    assert world.ca.revoked == [row.serial]


async def test_of_a_ca_that_takes_no_revocations_is_reported(world: World) -> None:
    world.ca.capabilities = Capability.NONE
    await certify(world, await world.start())
    world.clock.advance(WAIT)
    with capture_logs() as logs:
        assert await confirmations(world).pass_over(world.snapshot) == 1
    assert "revoked in the inventory only" in logs[0]["event"]
    assert await world.store.list_revocations(10) == ()


async def test_time_begins_when_the_certificate_comes(world: World) -> None:
    world.profile_options["manual_approval"] = True
    authority = await world.start()
    pending = await authority.enroll(world.snapshot, asked(world))
    assert isinstance(pending, Pending)
    world.clock.advance(DAY)
    await world.administration().approve(pending.request_id, "uid:0 (root)")
    await authority.recover(world.snapshot)
    row = await world.store.get_row(pending.request_id)
    while row is not None and row.state is not LedgerState.DELIVERED:
        await asyncio.sleep(0.02)
        row = await world.store.get_row(pending.request_id)
    assert row is not None
    assert row.confirm_by is not None
    assert WAIT < row.confirm_by - row.updated_at < 2 * WAIT
    assert await confirmations(world).pass_over(world.snapshot) == 0


async def test_that_its_client_does_not_want_is_revoked(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    world.ca.down = True
    outcome = await authority.confirm(world.snapshot, confirmation(row, accepted=False))
    assert outcome == Acknowledged(row.request_id, revoked=True)
    world.ca.down = False
    await authority.tell_revocations(world.snapshot)
    assert world.ca.revoked == [row.serial]
    event = next(one for one in await world.audit() if one["event"] == "certificate.revoked")
    assert event["detail"] == "its client does not want it"


async def test_that_was_confirmed_cannot_be_unwanted(world: World) -> None:
    authority = await world.start()
    row = await certify(world, authority)
    await authority.confirm(world.snapshot, confirmation(row))
    outcome = await authority.confirm(world.snapshot, confirmation(row, accepted=False))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.ALREADY_CONFIRMED
    assert await world.store.find_certificate(row.sha256) == row


REQUEST = der.sequence(der.integer(0))
UNPROVED = [
    pytest.param(der.sequence(REQUEST, b"\xa1\x00"), False, id="signature"),
    pytest.param(der.sequence(REQUEST, b"\x80\x00"), False, id="raVerified"),
    pytest.param(der.sequence(REQUEST), False, id="nothing"),
    pytest.param(der.sequence(REQUEST, b"\xa2\x03\x81\x01\x00"), True, id="keyEncipherment"),
    pytest.param(der.sequence(REQUEST, b"\xa3\x03\x81\x01\x00"), True, id="keyAgreement"),
    pytest.param(b"\x30\x05\x00", True, id="unreadable"),
]


@pytest.mark.parametrize(("request_der", "unproved"), UNPROVED)
async def test_key_that_only_the_confirmation_proves(world: World, request_der: bytes, unproved: bool) -> None:
    assert _is_unproved(ledger_row(form=RequestForm.CRMF, request=request_der)) is unproved
    assert not _is_unproved(ledger_row(form=RequestForm.PKCS10, request=request_der))
