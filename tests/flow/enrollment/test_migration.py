"""A fleet of another CA renews here: each old certificate is exchanged once, whoever holds its key."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.model import EnrollmentRequest, Issued, Pending, Rejected, Unavailable
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.ra.profile import RenewalRule, Snapshot
from gateway.ra.renewal import RenewalCredential
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import FIND, PROFILE, QUICK, FlakyStore, World
from tests.unit.ra.fleet import SANS, anchors_of, enroll, with_the_other_signature

DAY = timedelta(days=1)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world(FIND)


def old_certificate(world: World, **changes: Any) -> bytes:
    now = world.clock().replace(microsecond=0)
    times: dict[str, Any] = {"not_before": now - 300 * DAY, "not_after": now + 20 * DAY}
    return enroll(**({"subject": "CN=device", "sans": ()} | times | changes))


def migrating(world: World, *revoked: bytes, store: Any = None) -> Snapshot:
    """The profile takes renewals of the old CA's certificates."""
    now = world.clock().replace(microsecond=0)
    anchors = anchors_of("Old CA", *revoked, this_update=now - DAY, next_update=now + 7 * DAY)
    rule = RenewalRule(frozenset({PROFILE}), frozenset({"RenewalReq"}), None, timedelta(0), anchors)
    return world.make_snapshot(renewal=rule, credentials=(RenewalCredential(rule, store or world.store),))


def renewal(world: World, certificate: bytes, key: str = "new key", transaction: str = "1") -> EnrollmentRequest:
    signer = to_signer(parse_certificate(certificate))
    request = world.request(
        "device", key=key, challenge=None, operation="RenewalReq", signer=signer, transaction=f"{key} {transaction}"
    )
    return replace(request, is_renewal=True)


REFUSED = Rejected(Reason.RENEWAL_REFUSED, "this certificate was renewed with another key already")


async def test_an_old_certificate_is_exchanged_once(world: World) -> None:
    authority, certificate = await world.start(), old_certificate(world)
    issued = await authority.enroll(migrating(world), renewal(world, certificate))
    assert isinstance(issued, Issued)
    assert await authority.enroll(migrating(world), renewal(world, certificate)) == issued
    again = await authority.enroll(migrating(world), renewal(world, certificate, transaction="2"))
    assert isinstance(again, Issued)
    for theirs in (certificate, with_the_other_signature(certificate)):
        assert await authority.enroll(migrating(world), renewal(world, theirs, "stolen")) == REFUSED
    event = (await world.audit())[-1]
    assert (event["event"], event["reason"]) == ("enrollment.rejected", "renewal_refused")
    assert len(world.ca.issued()) == 2


async def test_the_new_certificate_is_renewed_as_one_of_ours(world: World) -> None:
    authority = await world.start()
    first = await authority.enroll(migrating(world), renewal(world, old_certificate(world)))
    assert isinstance(first, Issued)
    second = await authority.enroll(migrating(world), renewal(world, first.certificate, "newer key"))
    assert isinstance(second, Issued)
    row = await world.store.find_certificate(parse_certificate(first.certificate).sha256)
    assert row is not None
    assert row.renewed_by == parse_certificate(second.certificate).public_key.sha256


async def test_of_many_keys_at_two_workers_one_gets_it(world: World) -> None:
    authorities = [await world.start("w1"), await world.start("w2")]
    certificate = old_certificate(world)
    outcomes = await asyncio.gather(
        *(authorities[n % 2].enroll(migrating(world), renewal(world, certificate, f"key {n}")) for n in range(16))
    )
    assert sum(isinstance(outcome, Issued) for outcome in outcomes) == 1
    assert outcomes.count(REFUSED) == 15
    assert len(world.ca.issued()) == 1


async def test_a_refusal_of_the_ca_gives_the_certificate_back(world: World) -> None:
    authority, certificate = await world.start(), old_certificate(world)
    world.ca.faults = ["rejected"]
    assert isinstance(await authority.enroll(migrating(world), renewal(world, certificate)), Rejected)
    assert isinstance(await authority.enroll(migrating(world), renewal(world, certificate, "other key")), Issued)


async def test_what_the_ca_may_have_issued_gives_nothing_back(new_world: NewWorld) -> None:
    world = new_world()
    authority, certificate = await world.start(), old_certificate(world)
    world.ca.faults = ["lost after"]
    assert isinstance(await authority.enroll(migrating(world), renewal(world, certificate)), Pending)
    assert await authority.enroll(migrating(world), renewal(world, certificate, "other key")) == REFUSED


@pytest.mark.parametrize(
    ("changes", "revoked", "reason"),
    [
        pytest.param({"ca": "Another CA"}, False, Reason.UNKNOWN_CERTIFICATE, id="of-another-ca"),
        pytest.param({"is_ca": True}, False, Reason.RENEWAL_REFUSED, id="a-ca"),
        pytest.param({}, True, Reason.CREDENTIAL_REVOKED, id="revoked"),
        pytest.param({"sans": SANS}, False, Reason.RENEWAL_REFUSED, id="other-names"),
    ],
)
async def test_refused(world: World, changes: dict[str, Any], revoked: bool, reason: Reason) -> None:
    authority, certificate = await world.start(), old_certificate(world, **changes)
    snapshot = migrating(world, *([certificate] if revoked else []))
    refused = await authority.enroll(snapshot, renewal(world, certificate))
    assert getattr(refused, "reason", None) is reason
    assert not world.ca.calls
    assert (await world.audit())[-1]["reason"] == reason


async def test_a_store_that_fails_exchanges_nothing(world: World) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority, certificate = await world.start("w1", store), old_certificate(world)
    store.faults["find_issued"] = ["before"]
    outcome = await authority.enroll(migrating(world, store=store), renewal(world, certificate))
    assert outcome == Unavailable(Reason.STORE_UNAVAILABLE, QUICK.busy_retry)
    assert not world.ca.calls
