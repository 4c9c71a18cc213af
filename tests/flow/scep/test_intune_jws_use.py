"""Signed challenges end to end: the names that they bind, their one use, their limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from gateway.asn1.scep import PkiStatus
from gateway.ca.interfaces import NotSent, UpstreamRejected
from gateway.ca.local import LocalCA
from gateway.model import SanKind
from gateway.pki.certificate import parse_certificate
from tests.flow.scep.challenge_fleet import (
    DEVICE,
    OTHER_DEVICE,
    SID,
    SID_URI,
    Fleet,
    is_granted,
    is_refused,
    open_fleet,
)
from tests.flow.scep.service import KEY, OTHER_KEY, Device, leaf_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with open_fleet(tmp_path_factory.mktemp("intune") / "s") as fleet:
        yield fleet


# Names


MATCHES: Mapping[str, tuple[dict[str, Any], str, tuple[tuple[SanKind, str], ...]]] = {
    "common-name": ({"device_name": "gate-1"}, "CN=gate-1", ()),
    "no-common-name": ({"device_name": None, "san_dns": ["a.example"]}, "", ((SanKind.DNS, "a.example"),)),
    "dns": ({"san_dns": ["a.example", "B.example"]}, "CN=gate-1", ((SanKind.DNS, "b.example"), (SanKind.DNS, "a.example"))),
    "email": ({"san_rfc822": ["a@b.example"]}, "CN=gate-1", ((SanKind.EMAIL, "a@B.example"),)),
    "upn": ({"san_upn": ["a@b.example"]}, "CN=gate-1", ((SanKind.UPN, "a@b.example"),)),
    "uri": ({"san_uri": ["urn:a:b"]}, "CN=gate-1", ((SanKind.URI, "urn:a:b"),)),
    "ip": ({"san_ip": ["192.0.2.7", "2001:db8::0:7"]}, "CN=gate-1", ((SanKind.IP, "2001:db8::7"), (SanKind.IP, "192.0.2.7"))),
    "sid": ({"san_uri": [SID_URI]}, "CN=gate-1", ((SanKind.SID, SID),)),
}


@pytest.mark.parametrize("profile", ["devices", "open"])
@pytest.mark.parametrize("case", MATCHES)
async def test_names_that_match(fleet: Fleet, case: str, profile: str) -> None:
    changes, subject, sans = MATCHES[case]
    device = Device(KEY, subject, sans=sans)
    leaf = parse_certificate(is_granted(await fleet.enroll(fleet.challenge(**changes), device, profile)))
    assert {(san.kind, san.value) for san in leaf.sans} == set(sans)


MISMATCHES: Mapping[str, tuple[dict[str, Any], str, tuple[tuple[SanKind, str], ...]]] = {
    "common-name": ({"device_name": "gate-2"}, "CN=gate-1", ()),
    "common-name-case": ({"device_name": "GATE-1"}, "CN=gate-1", ()),
    "common-name-missing": ({}, "O=gate-1", ()),
    "common-name-twice": ({}, "CN=gate-1,CN=admin", ()),
    "dns": ({"san_dns": ["a.example"]}, "CN=gate-1", ((SanKind.DNS, "b.example"),)),
    "dns-missing": ({"san_dns": ["a.example"]}, "CN=gate-1", ()),
    "dns-one-more": ({"san_dns": ["a.example"]}, "CN=gate-1", ((SanKind.DNS, "a.example"), (SanKind.DNS, "b.example"))),
    "dns-none": ({"san_dns": []}, "CN=gate-1", ((SanKind.DNS, "a.example"),)),
    "email": ({"san_rfc822": ["a@b.example"]}, "CN=gate-1", ((SanKind.EMAIL, "b@b.example"),)),
    "upn": ({"san_upn": ["a@b.example"]}, "CN=gate-1", ((SanKind.UPN, "admin@b.example"),)),
    "upn-missing": ({"san_upn": ["a@b.example"]}, "CN=gate-1", ()),
    "uri": ({"san_uri": ["urn:a:b"]}, "CN=gate-1", ((SanKind.URI, "urn:a:c"),)),
    "ip": ({"san_ip": ["192.0.2.7"]}, "CN=gate-1", ((SanKind.IP, "192.0.2.8"),)),
    "sid": ({"san_uri": [SID_URI]}, "CN=gate-1", ((SanKind.SID, "S-1-5-21-1-2-3-500"),)),
    "sid-missing": ({"san_uri": [SID_URI]}, "CN=gate-1", ()),
    "sid-beside-another-uri": ({"san_uri": ["urn:a:b"]}, "CN=gate-1", ((SanKind.URI, "urn:a:b"), (SanKind.SID, SID))),
}


@pytest.mark.parametrize("profile", ["devices", "open"])
@pytest.mark.parametrize("case", MISMATCHES)
async def test_names_that_do_not_match(fleet: Fleet, case: str, profile: str) -> None:
    changes, subject, sans = MISMATCHES[case]
    challenge = fleet.challenge(**changes)
    is_refused(await fleet.enroll(challenge, Device(KEY, subject, sans=sans), profile), "claim_mismatch")


ABSENT: Mapping[str, tuple[dict[str, Any], str, tuple[tuple[SanKind, str], ...]]] = {
    "common-name": ({"device_name": None}, "CN=gate-1", ()),
    "dns": ({}, "CN=gate-1", ((SanKind.DNS, "a.example"),)),
    "email": ({}, "CN=gate-1", ((SanKind.EMAIL, "a@b.example"),)),
    "upn": ({}, "CN=gate-1", ((SanKind.UPN, "a@b.example"),)),
    "uri": ({}, "CN=gate-1", ((SanKind.URI, "urn:a:b"),)),
    "ip": ({}, "CN=gate-1", ((SanKind.IP, "192.0.2.7"),)),
}


@pytest.mark.parametrize("case", ABSENT)
async def test_names_whose_claim_is_absent(fleet: Fleet, case: str) -> None:
    """A refused CSR burns nothing: the same challenge is good in a profile that leaves such names to its policy."""
    changes, subject, sans = ABSENT[case]
    device = Device(KEY, subject, sans=sans)
    challenge = fleet.challenge(**changes)
    is_refused(await fleet.enroll(challenge, device), "claim_mismatch")
    is_granted(await fleet.enroll(challenge, device, "open"))


async def test_a_sid_that_no_claim_names(fleet: Fleet) -> None:
    """Old issuers leave URIs free, and still nobody vouches for the SID: policy refuses it."""
    device = replace(DEVICE, sans=((SanKind.SID, SID),))
    is_refused(await fleet.enroll(fleet.challenge(), device), "claim_mismatch")
    is_refused(await fleet.enroll(fleet.challenge(), device, "open"), None)


# Single use


async def test_an_identical_retry_gets_the_same_certificate(fleet: Fleet) -> None:
    client = await fleet.client("once")
    challenge = fleet.challenge()
    request, signer = DEVICE.request(client.ra, challenge)
    first = leaf_of(await client.send(request, signer))
    assert leaf_of(await client.send(request, signer)) == first
    assert is_granted(await fleet.enroll(challenge, DEVICE, "once")) == first


async def test_another_csr_is_a_replay(fleet: Fleet) -> None:
    challenge = fleet.challenge()
    is_granted(await fleet.enroll(challenge, DEVICE))
    is_refused(await fleet.enroll(challenge, OTHER_DEVICE), "replay")
    is_refused(await fleet.enroll(challenge, replace(DEVICE, subject="CN=gate-1,O=Other")), "replay")


async def test_another_profile_is_a_replay(fleet: Fleet) -> None:
    challenge = fleet.challenge()
    is_granted(await fleet.enroll(challenge, DEVICE, "other"))
    is_refused(await fleet.enroll(challenge, DEVICE), "replay")


async def test_another_challenge_with_the_nonce_is_a_replay(fleet: Fleet) -> None:
    is_granted(await fleet.enroll(fleet.challenge(nonce="one"), DEVICE))
    is_refused(await fleet.enroll(fleet.challenge(nonce="one", sub="another"), OTHER_DEVICE), "replay")


async def test_many_devices_race_for_one_challenge(fleet: Fleet) -> None:
    client, challenge = await fleet.client("devices"), fleet.challenge()
    devices = [DEVICE, OTHER_DEVICE, *(replace(DEVICE, subject=f"CN=gate-1,O={n}") for n in range(14))]
    replies = await asyncio.gather(*(client.enroll(device, challenge) for device in devices))
    assert sorted(reply.status for reply in replies) == [PkiStatus.SUCCESS] + [PkiStatus.FAILURE] * 15


async def test_a_pending_request_is_the_challenges_one_use(fleet: Fleet) -> None:
    challenge = fleet.challenge()
    reply, told = await fleet.enroll(challenge, DEVICE, "manual")
    assert (reply.status, told) == (PkiStatus.PENDING, "success")
    assert (await fleet.enroll(challenge, DEVICE, "manual"))[0].status is PkiStatus.PENDING
    is_refused(await fleet.enroll(challenge, OTHER_DEVICE, "manual"), "replay")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(NotSent("out of reach"), 503, id="out-of-reach"),
        pytest.param(UpstreamRejected("no"), 200, id="refused"),
    ],
)
async def test_a_failed_ca_gives_the_challenge_back(
    fleet: Fleet, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nonce and the device's one certificate a day are free again: for another CSR too."""
    client = await fleet.client("once")
    challenge = fleet.challenge()

    async def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(LocalCA, "issue", fail)
        request, _ = DEVICE.request(client.ra, challenge)
        assert (await client.post(request.message))[0] == status
    is_granted(await fleet.enroll(challenge, OTHER_DEVICE, "once"), OTHER_DEVICE)
    is_refused(await fleet.enroll(challenge, DEVICE, "once"), "replay")


async def test_a_spent_challenge_in_a_renewal_is_not_judged(fleet: Fleet) -> None:
    """Clients leave it in (scepclient, sscep, strongSwan): the certificate speaks for them."""
    challenge = fleet.challenge()
    old = is_granted(await fleet.enroll(challenge, DEVICE, "renewing"))
    renewing = DEVICE.renewing(old, OTHER_KEY)
    reply, told = await fleet.enroll(challenge, renewing, "renewing")
    assert (reply.status, told) == (PkiStatus.SUCCESS, None)


# Limits


async def test_three_certificates_a_day_for_one_device(fleet: Fleet) -> None:
    for count in range(3):
        is_granted(await fleet.enroll(fleet.challenge(sub="greedy"), replace(DEVICE, subject=f"CN=gate-1,O={count}"), "limited"))
    challenge = fleet.challenge(sub="greedy")
    is_refused(await fleet.enroll(challenge, DEVICE, "limited"), "rate_limited")
    is_granted(await fleet.enroll(fleet.challenge(sub="modest"), DEVICE, "limited"))
    is_granted(await fleet.enroll(fleet.challenge(sub="greedy", iss="another"), DEVICE, "limited"))
    is_granted(await fleet.enroll(challenge, DEVICE, "other"))


async def test_full_memory_refuses(fleet: Fleet) -> None:
    challenges = [fleet.challenge() for _ in range(3)]
    for challenge in challenges[:2]:
        is_granted(await fleet.enroll(challenge, DEVICE, "full"))
    is_refused(await fleet.enroll(challenges[2], DEVICE, "full"), "rate_limited")
    is_granted(await fleet.enroll(challenges[0], DEVICE, "full"))
