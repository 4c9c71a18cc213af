"""When to renew: told to whoever can name a certificate that the profile renews, and nothing else (RFC 9773 §4.2)."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.model import Issued, ProfileName, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import RenewalRule
from gateway.ra.requests import RenewalWindow, RenewalWindowRequest, RevokeRequest
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, FlakyStore, World

DAY = timedelta(days=1)


def rule(window: timedelta | None = None, origin: ProfileName = PROFILE) -> RenewalRule:
    return RenewalRule(frozenset({origin}), frozenset({"simplereenroll"}), window, timedelta(0))


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


async def certify(world: World, authority: RegistrationAuthority) -> Certificate:
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    return parse_certificate(issued.certificate)


def about(certificate: Certificate, **changes: Any) -> RenewalWindowRequest:
    asked = {"authority_key_id": certificate.authority_key_id, "serial": certificate.serial, "protocol": Protocol.SCEP, **changes}
    return RenewalWindowRequest(profile=PROFILE, operation="renewal-info", source="192.0.2.7", **asked)


@pytest.mark.parametrize(
    ("window", "left"),
    [
        pytest.param(timedelta(days=20), timedelta(days=20), id="the-rule's"),
        pytest.param(timedelta(days=4000), None, id="longer-than-its-life"),
        pytest.param(None, "third", id="no-rule"),
    ],
)
async def test_the_window(world: World, window: timedelta | None, left: timedelta | str | None) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    before = len(await world.audit())
    found = await authority.look_up_renewal(world.make_snapshot(renewal=rule(window)), about(certificate))
    life = certificate.not_after - certificate.not_before
    expected = left if isinstance(left, timedelta) else life / 3 if left else life
    assert found == RenewalWindow(certificate.not_after - expected, certificate.not_after - expected / 2)
    assert len(await world.audit()) == before


async def test_a_revoked_certificate_is_to_be_replaced_at_once(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    revoked = RevokeRequest(
        PROFILE, Protocol.SCEP, "", "", certificate.public_key.sha256, certificate.sha256, RevocationReason.SUPERSEDED, ""
    )
    await authority.revoke(world.snapshot, revoked)
    found = await authority.look_up_renewal(world.make_snapshot(renewal=rule()), about(certificate))
    assert isinstance(found, RenewalWindow)
    assert found.start < found.end <= world.clock() + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("renewal", "changes", "reason"),
    [
        pytest.param(None, {}, Reason.UNKNOWN_CERTIFICATE, id="no-renewals"),
        pytest.param(rule(origin=ProfileName("lab")), {}, Reason.UNKNOWN_CERTIFICATE, id="another-profile's"),
        pytest.param(rule(), {"serial": 1}, Reason.UNKNOWN_CERTIFICATE, id="unknown-serial"),
        pytest.param(rule(), {"serial": -1}, Reason.UNKNOWN_CERTIFICATE, id="negative-serial"),
        pytest.param(rule(), {"serial": 2**167}, Reason.UNKNOWN_CERTIFICATE, id="large-serial"),
        pytest.param(rule(), {"authority_key_id": b"other"}, Reason.UNKNOWN_CERTIFICATE, id="another-issuer"),
        pytest.param(rule(), {"protocol": Protocol.EST}, Reason.ENDPOINT_CLOSED, id="closed-endpoint"),
    ],
)
async def test_what_is_not_told(world: World, renewal: RenewalRule | None, changes: dict[str, Any], reason: Reason) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    before = len(await world.audit())
    found = await authority.look_up_renewal(world.make_snapshot(renewal=renewal), about(certificate, **changes))
    assert isinstance(found, Rejected)
    assert found.reason is reason
    assert len(await world.audit()) == before


async def test_without_a_store(world: World) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start(store=store)
    certificate = await certify(world, authority)
    store.faults["find_serial"] = ["before"]
    found = await authority.look_up_renewal(world.make_snapshot(renewal=rule()), about(certificate))
    assert isinstance(found, Unavailable)
