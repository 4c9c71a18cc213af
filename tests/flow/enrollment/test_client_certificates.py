"""Every verb of a profile that demands a TLS client certificate, with one, without, and with a bad one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.model import Issued, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import der_to_pem, parse_certificate, to_signer
from gateway.pki.trust import TrustAnchors
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.client_certificate import ClientTrust
from gateway.ra.profile import Snapshot
from gateway.ra.requests import Acknowledged, ConfirmRequest, Found, LookUpRequest, RevokeRequest, Sought
from gateway.ra.strangers import ROWS_A_MINUTE
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, QUICK, REVOKE, FlakyStore, World


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world(REVOKE)


def open_profile(world: World) -> Snapshot:
    return world.make_snapshot()


def closed_profile(world: World, store: Any = None, **options: Any) -> Snapshot:
    """The profile takes client certificates of its own CA."""
    anchors = TrustAnchors.parse(der_to_pem(world.ca.chain()[0]))
    return world.make_snapshot(client_trust=ClientTrust(anchors, store or world.store, frozenset()), **options)


async def enroll_client(world: World, authority: RegistrationAuthority) -> bytes:
    """The certificate that the TLS client has from before."""
    issued = await authority.enroll(open_profile(world), world.request("client", transaction="client"))
    assert isinstance(issued, Issued)
    return issued.certificate


async def enroll_device(world: World, authority: RegistrationAuthority) -> bytes:
    issued = await authority.enroll(open_profile(world), world.request())
    assert isinstance(issued, Issued)
    return issued.certificate


def requests(world: World, certificate: bytes) -> dict[str, Any]:
    """One request of each verb, all of which would be granted without client certificate."""
    first = world.request()
    common: dict[str, Any] = {
        "profile": PROFILE,
        "protocol": Protocol.SCEP,
        "transaction_id": first.transaction_id,
        "source": "192.0.2.7",
    }
    own: dict[str, Any] = {"requester_key": first.requester_key, "certificate_sha256": parse_certificate(certificate).sha256}
    signer = to_signer(parse_certificate(certificate))
    sought: dict[str, Any] = {"issuer_der": signer.issuer_der, "serial": signer.serial, "signer": signer}
    return {
        "enroll": world.request("other", transaction="2"),
        "poll": world.poll(first),
        "confirm": ConfirmRequest(operation="certConf", accepted=True, **own, **common),
        "look_up": LookUpRequest(operation="GetCert", sought=Sought.CERTIFICATE, **sought, **common),
        "revoke": RevokeRequest(operation="rr", reason=RevocationReason.SUPERSEDED, **own, **common),
    }


VERBS = ("enroll", "poll", "confirm", "look_up", "revoke")
"""Revocation last: it ends what the others ask about."""


@pytest.mark.parametrize("verb", VERBS)
async def test_served_with_one(world: World, verb: str) -> None:
    authority = await world.start()
    client, device = await enroll_client(world, authority), await enroll_device(world, authority)
    request = replace(requests(world, device)[verb], client_certificate=client)
    outcome = await getattr(authority, verb)(closed_profile(world), request)
    assert isinstance(outcome, Issued | Acknowledged | Found)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda world: None, Reason.CREDENTIAL_MISSING, id="none"),
        pytest.param(lambda world: b"\x30\x00", Reason.NOT_AUTHORIZED, id="broken"),
        pytest.param(lambda world: world.ca.chain()[0], Reason.NOT_AUTHORIZED, id="of-the-ca"),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
async def test_refused_without_a_good_one(world: World, verb: str, make: Callable[[World], bytes | None], reason: Reason) -> None:
    authority = await world.start()
    device = await enroll_device(world, authority)
    rows, calls = await world.rows(), list(world.ca.calls)
    request = replace(requests(world, device)[verb], client_certificate=make(world))
    outcome = await getattr(authority, verb)(closed_profile(world), request)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason
    assert await world.rows() == rows
    assert world.ca.calls == calls
    assert not world.ca.revoked
    event = (await world.audit())[-1]
    assert (event["actor"], event["decision"], event["reason"]) == ("unauthenticated", "refused", reason)


async def test_a_revoked_one_is_refused_from_then_on(world: World) -> None:
    authority = await world.start()
    client, device = await enroll_client(world, authority), await enroll_device(world, authority)
    poll = replace(requests(world, device)["poll"], client_certificate=client)
    assert isinstance(await authority.poll(closed_profile(world), poll), Issued)
    revocation = replace(
        requests(world, client)["revoke"], requester_key=parse_certificate(client).public_key.sha256, client_certificate=client
    )
    assert isinstance(await authority.revoke(closed_profile(world), revocation), Acknowledged)
    refused = await authority.poll(closed_profile(world), poll)
    assert getattr(refused, "reason", None) is Reason.CREDENTIAL_REVOKED


async def test_the_challenge_is_asked_for_all_the_same(world: World) -> None:
    authority = await world.start()
    client = await enroll_client(world, authority)
    request = replace(world.request(challenge=None), client_certificate=client)
    refused = await authority.enroll(closed_profile(world), request)
    assert getattr(refused, "reason", None) is Reason.CREDENTIAL_MISSING


async def test_ca_certificates_are_public(world: World) -> None:
    authority = await world.start()
    device = await enroll_device(world, authority)
    asked = replace(requests(world, device)["look_up"], sought=Sought.CA_CERTIFICATES, signer=None)
    assert await authority.look_up(closed_profile(world), asked) == Found(world.ca.chain())


async def test_strangers_have_a_bounded_number_of_rows(world: World) -> None:
    authority = await world.start()
    before = len(await world.events())
    for _ in range(ROWS_A_MINUTE + 5):
        assert isinstance(await authority.enroll(closed_profile(world), world.request()), Rejected)
    assert len(await world.events()) == before + ROWS_A_MINUTE


async def test_a_store_that_fails_admits_nobody(world: World) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    client = await enroll_client(world, authority)
    store.faults["find_issued"] = ["before"]
    request = replace(world.request(), client_certificate=client)
    outcome = await authority.enroll(closed_profile(world, store), request)
    assert outcome == Unavailable(Reason.STORE_UNAVAILABLE, QUICK.busy_retry)
    assert isinstance(await authority.enroll(closed_profile(world, store), request), Issued)
