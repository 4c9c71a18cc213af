"""The verbs beside enroll and poll: confirm, revoke, precheck, look_up."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.audit import AuditEvent
from gateway.ca.interfaces import NotSent, UpstreamRejected
from gateway.config.policy import DnsNames, PolicyConfig, SanRule
from gateway.errors import Reason
from gateway.model import Issued, ProfileName, Protocol, Rejected, RevocationReason, SanKind, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.pki.extensions import make_san
from gateway.ra.requests import (
    Acknowledged,
    ConfirmRequest,
    Found,
    LookUpRequest,
    Prechecked,
    PrecheckRequest,
    RevokeRequest,
    Sought,
)
from gateway.store.interfaces import CRLRow, LedgerState
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import CA_NAME, PROFILE, REVOKE, World


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world(REVOKE)


async def enrolled(world: World) -> tuple[Any, ConfirmRequest, RevokeRequest]:
    authority = await world.start()
    request = world.request()
    issued = await authority.enroll(world.snapshot, request)
    assert isinstance(issued, Issued)
    sha256 = parse_certificate(issued.certificate).sha256
    common: dict[str, Any] = {
        "profile": PROFILE,
        "protocol": Protocol.SCEP,
        "transaction_id": request.transaction_id,
        "requester_key": request.requester_key,
        "certificate_sha256": sha256,
        "source": "192.0.2.7",
    }
    confirm = ConfirmRequest(operation="certConf", accepted=True, **common)
    return authority, confirm, RevokeRequest(operation="rr", reason=RevocationReason.SUPERSEDED, **common)


async def test_confirmed_certificate_is_given_out_no_more(world: World) -> None:
    authority, confirm, _ = await enrolled(world)
    acknowledged = await authority.confirm(world.snapshot, confirm)
    assert isinstance(acknowledged, Acknowledged)
    assert not acknowledged.revoked
    [row] = await world.rows()
    assert row.state is LedgerState.CONFIRMED
    assert isinstance(await authority.confirm(world.snapshot, confirm), Acknowledged)
    again = await authority.enroll(world.snapshot, world.request())
    assert isinstance(again, Rejected)
    assert again.reason is Reason.TRANSACTION_IN_USE


async def test_refused_certificate_is_revoked(world: World) -> None:
    authority, confirm, _ = await enrolled(world)
    acknowledged = await authority.confirm(world.snapshot, replace(confirm, accepted=False))
    assert isinstance(acknowledged, Acknowledged)
    assert acknowledged.revoked
    [row] = await world.rows()
    assert row.state is LedgerState.REVOKED
    await authority.tell_revocations(world.snapshot)
    assert len(world.ca.revoked) == 1
    late = await authority.confirm(world.snapshot, confirm)
    assert isinstance(late, Rejected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"requester_key": b"\1" * 32}, Reason.UNKNOWN_TRANSACTION, id="another key"),
        pytest.param({"transaction_id": "2"}, Reason.UNKNOWN_TRANSACTION, id="another transaction"),
        pytest.param({"certificate_sha256": b"\1" * 32}, Reason.UNKNOWN_CERTIFICATE, id="another certificate"),
        pytest.param({"profile": ProfileName("other")}, Reason.UNKNOWN_PROFILE, id="another profile"),
    ],
)
async def test_confirmation_of_what_is_not_ones_own(world: World, changes: dict[str, Any], reason: Reason) -> None:
    authority, confirm, _ = await enrolled(world)
    outcome = await authority.confirm(world.snapshot, replace(confirm, **changes))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(NotSent("down"), Unavailable, id="CA down"),
        pytest.param(UpstreamRejected("no"), Rejected, id="CA refuses"),
    ],
)
async def test_revocation_that_the_ca_did_not_make_is_not_acknowledged(world: World, error: Exception, outcome: type) -> None:
    authority, _, revoke = await enrolled(world)
    good = world.ca.revoke

    async def fail(*_: object) -> None:
        raise error

    world.ca.revoke = fail
    assert isinstance(await authority.revoke(world.snapshot, revoke), outcome)
    row = await world.store.find_certificate(revoke.certificate_sha256)
    assert row is not None
    assert row.revoked_at is None
    world.ca.revoke = good
    assert isinstance(await authority.revoke(world.snapshot, revoke), Acknowledged)
    assert isinstance(await authority.revoke(world.snapshot, revoke), Acknowledged)
    assert len(world.ca.revoked) == 1


@pytest.mark.parametrize(
    ("name", "accepted"),
    [pytest.param("host.example.org", True, id="listed"), pytest.param("host.example.com", False, id="unlisted")],
)
async def test_names_are_judged_before_there_is_a_key(world: World, name: str, accepted: bool) -> None:
    authority = await world.start()
    policy = PolicyConfig(san=SanRule(dns=DnsNames.model_validate({"patterns": (r"[a-z]+\.example\.org",)})))
    asked = PrecheckRequest(
        profile=PROFILE,
        protocol=Protocol.SCEP,
        operation="newOrder",
        sans=(make_san(SanKind.DNS, name),),
        requester="account:1",
        source="192.0.2.7",
    )
    outcome = await authority.precheck(world.make_snapshot(policy=policy), asked)
    assert isinstance(outcome, Prechecked if accepted else Rejected)
    [event] = await world.audit()
    assert event["actor"] == "account:1"
    assert event["sans"] == [f"dns:{name}"]


async def test_crl_is_looked_up_where_there_is_one(world: World) -> None:
    authority = await world.start()
    asked = LookUpRequest(profile=PROFILE, protocol=Protocol.SCEP, operation="GetCRL", sought=Sought.CRL, source="")
    assert isinstance(await authority.look_up(world.snapshot, asked), Rejected)
    now = world.clock()
    event = AuditEvent(event="crl.published", at=now, actor="worker", decision="done")
    await world.store.list_revoked(CA_NAME, now)
    assert await world.store.put_crl(CRLRow(CA_NAME, 1, b"crl", now, now + timedelta(days=1)), event)
    assert await authority.look_up(world.snapshot, asked) == Found((b"crl",))
