"""Signed challenges end to end: golden ones, every label with its failInfo, expired anchors, hostile tokens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.model import SanKind
from gateway.pki.certificate import der_to_pem, parse_certificate, self_signed_ca
from gateway.pki.keys import generate_private_key
from tests.flow.scep.challenge_fleet import (
    DEVICE,
    EC,
    RSA,
    SID,
    Fleet,
    intune,
    is_granted,
    is_refused,
    open_fleet,
)
from tests.flow.scep.service import KEY, Device
from tests.golden_challenges import GOLDEN, NOW, claims, issuer_key, read_golden, sign_challenge

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with open_fleet(tmp_path_factory.mktemp("intune") / "s") as fleet:
        yield fleet


# Golden challenges under a pinned clock


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pinned(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A service whose CA and clock live when the golden challenges were issued."""
    profiles = {"devices": intune(skew="0s", per_device=None)}
    async with open_fleet(tmp_path_factory.mktemp("golden") / "s", profiles, now=NOW) as fleet:
        yield fleet


GOLDEN_NAMES = (
    (SanKind.DNS, "gate-1.corp.example"),
    (SanKind.EMAIL, "gate-1@corp.example"),
)
ALL_NAMES = (
    *GOLDEN_NAMES,
    (SanKind.UPN, "gate-1@corp.example"),
    (SanKind.URI, "urn:uuid:6f2a7c1e-0b7d-4c55-8a53-0d5b4b8a1c11"),
    (SanKind.SID, SID),
    (SanKind.IP, "192.0.2.7"),
    (SanKind.IP, "2001:db8::7"),
)
GOLDEN_REFUSALS = {
    "es256-expired": "expired",
    "es256-too-old": "expired",
    "es256-not-yet-valid": "not_yet_valid",
    "es256-other-audience": "wrong_audience",
    "es256-unknown-version": "unknown_version",
    "es256-without-nonce": "malformed",
    "es256-fractional-iat": "malformed",
    "es256-tampered-signature": "signature_invalid",
    "rs256-tampered-signature": "signature_invalid",
    "es256-other-issuer": "signature_invalid",
}


@pytest.mark.parametrize("name", GOLDEN)
async def test_golden(pinned: Fleet, name: str) -> None:
    names = ALL_NAMES if name.endswith("all-names") else GOLDEN_NAMES
    answer = await pinned.enroll(read_golden(name), Device(KEY, "CN=gate-1.corp.example", sans=names))
    label = GOLDEN_REFUSALS.get(name)
    if label:
        is_refused(answer, label, FailInfo.BAD_MESSAGE_CHECK if label == "signature_invalid" else FailInfo.BAD_REQUEST)
    else:
        leaf = parse_certificate(is_granted(answer))
        assert {(san.kind, san.value) for san in leaf.sans} == set(names)


# Algorithms


@pytest.mark.parametrize(
    ("key", "der"),
    [pytest.param(RSA, False, id="rs256"), pytest.param(EC, False, id="es256-raw"), pytest.param(EC, True, id="es256-der")],
)
async def test_algorithms(fleet: Fleet, key: Any, der: bool) -> None:
    issued = int(fleet.service.clock().timestamp())
    payload = claims(san_dns=None, san_rfc822=None, device_name="gate-1", iat=issued, exp=issued + 60, nonce=secrets.token_hex())
    is_granted(await fleet.enroll(sign_challenge(key, payload, der=der), DEVICE))


# Labels


@pytest.mark.parametrize(
    ("changes", "label", "info"),
    [
        pytest.param({"iat": 1000, "exp": 2000}, "expired", FailInfo.BAD_REQUEST, id="expired"),
        pytest.param({"iat": 4000000000, "exp": 4000000060}, "not_yet_valid", FailInfo.BAD_REQUEST, id="not-yet-valid"),
        pytest.param({"aud": "https://other.example"}, "wrong_audience", FailInfo.BAD_REQUEST, id="wrong-audience"),
        pytest.param({"version": "v2"}, "unknown_version", FailInfo.BAD_REQUEST, id="unknown-version"),
        pytest.param({"nonce": None}, "malformed", FailInfo.BAD_REQUEST, id="malformed"),
        pytest.param({"device_name": "gate-2"}, "claim_mismatch", FailInfo.BAD_REQUEST, id="claim-mismatch"),
    ],
)
async def test_labels(fleet: Fleet, changes: dict[str, Any], label: str, info: FailInfo) -> None:
    is_refused(await fleet.enroll(fleet.challenge(**changes), DEVICE), label, info)


async def test_label_of_a_signature(fleet: Fleet) -> None:
    challenge = sign_challenge(issuer_key("other"), claims())
    is_refused(await fleet.enroll(challenge, DEVICE), "signature_invalid", FailInfo.BAD_MESSAGE_CHECK)


async def test_label_of_noncompliance(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check joins behind an interface, is told who the device is, and burns nothing."""
    told = []

    class Check:
        async def find_fault(self, request: object, requester: Any, now: datetime) -> str | None:
            told.append(dict(requester.claims))
            return "jailbroken" if len(told) == 1 else None

    profiles = fleet.service.gateway.generation.snapshot.profiles
    checked = {name: replace(profile, compliance=(Check(),)) for name, profile in profiles.items()}
    snapshot = replace(fleet.service.gateway.generation.snapshot, profiles=checked)
    authority = fleet.service.gateway.authority
    enroll = authority.enroll
    monkeypatch.setattr(authority, "enroll", lambda _, request: enroll(snapshot, request))
    challenge = fleet.challenge(sub="guid-7")
    is_refused(await fleet.enroll(challenge, DEVICE), "compliance_failed")
    is_granted(await fleet.enroll(challenge, DEVICE))
    assert told == [{"device": "guid-7", "issuer": "connector-7f3a"}] * 2


async def test_refusals_that_are_not_the_challenges_have_no_label(fleet: Fleet) -> None:
    challenge = fleet.challenge(san_dns=["under_score.example"])
    device = replace(DEVICE, sans=((SanKind.DNS, "under_score.example"),))
    is_refused(await fleet.enroll(challenge, device), None)


async def test_audit_names_device_and_issuer(fleet: Fleet) -> None:
    is_granted(await fleet.enroll(fleet.challenge(sub="guid-8"), DEVICE))
    is_refused(await fleet.enroll(fleet.challenge(sub="guid-9", aud="x"), DEVICE), "wrong_audience")
    is_refused(await fleet.enroll(fleet.challenge(sub="guid-10", device_name="x"), DEVICE), "claim_mismatch")
    rows = await fleet.audit("devices")
    [opened] = [row for row in rows if row["event"] == "enrollment.opened" and "device guid-8, issuer" in row["detail"]]
    assert opened["actor"].startswith("intune_jws:")
    refused = {row["reason"]: row["detail"] for row in rows if row["event"] == "enrollment.rejected"}
    assert "device guid-9 of issuer connector-7f3a" in refused["credential_audience"]
    assert "device guid-10, issuer connector-7f3a" in refused["name_not_bound"]


async def test_owner_is_the_device(fleet: Fleet) -> None:
    leaf = parse_certificate(is_granted(await fleet.enroll(fleet.challenge(sub="guid-11"), DEVICE)))
    [row] = [r for r in await fleet.service.run("GET", "/v1/certificates", limit=1000) if r["serial"] == format(leaf.serial, "x")]
    assert row["owner"] == "guid-11"
    assert row["requester"].startswith("intune_jws:")


# Only signed challenges, unless the profile says so


@pytest.mark.parametrize(
    ("challenge", "label"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("correct-horse-battery", "malformed", id="a-password"),
        pytest.param("x" * 300, "malformed", id="long"),
        pytest.param("x" * 300 + ".y.z", "malformed", id="signed-by-its-looks"),
    ],
)
async def test_no_other_challenge(fleet: Fleet, challenge: str | None, label: str | None) -> None:
    is_refused(await fleet.enroll(challenge, DEVICE), label)


async def test_other_challenges_where_the_profile_says_so(fleet: Fleet) -> None:
    is_granted(await fleet.enroll(fleet.challenge(), DEVICE, "mixed"))
    secret = (fleet.service.folder / "secrets" / "mixed-challenge").read_text()
    for challenge in (secret, await fleet.service.new_challenge("mixed")):
        reply, told = await fleet.enroll(challenge, replace(DEVICE, subject=f"CN=gate-{len(challenge)}"), "mixed")
        assert (reply.status, told) == (PkiStatus.SUCCESS, None)
    is_refused(await fleet.enroll("wrong", DEVICE, "mixed"), None)
    tampered = fleet.challenge()[:-4] + "AAAA"
    is_refused(await fleet.enroll(tampered, DEVICE, "mixed"), "signature_invalid", FailInfo.BAD_MESSAGE_CHECK)


# Anchors


async def test_an_anchor_that_expired_meanwhile(tmp_path: Path) -> None:
    """It was good when the configuration was read; what counts is the request."""
    key = generate_private_key("ec-p256")
    now = datetime.now(UTC).replace(microsecond=0)
    short = self_signed_ca(key, "CN=short-lived", now - timedelta(days=1), now + timedelta(hours=1))
    async with open_fleet(tmp_path / "s", {"devices": intune(per_device=None)}, anchors=der_to_pem(short)) as fleet:

        def challenge() -> str:
            issued = int(fleet.service.clock().timestamp())
            payload = claims(iat=issued, exp=issued + 60, nonce=secrets.token_hex(), device_name="gate-1")
            return sign_challenge(key, {k: v for k, v in payload.items() if not k.startswith("san_")})

        is_granted(await fleet.enroll(challenge(), DEVICE))
        fleet.service.clock.ahead = timedelta(hours=2)
        is_refused(await fleet.enroll(challenge(), DEVICE), "signature_invalid", FailInfo.BAD_MESSAGE_CHECK)


# Hostile tokens


PAYLOADS: Mapping[str, bytes] = {
    "deep": b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "name-twice": b'{"nonce":"a","nonce":"b"}',
    "nan": b'{"iat":NaN,"exp":Infinity}',
    "huge-integer": b'{"iat":' + b"9" * 4400 + b"}",
    "no-utf-8": b'{"iss":"\xff\xfe"}',
    "surrogate-bytes": b'{"iss":"\xed\xa0\x80"}',
    "no-object": b'["a"]',
    "empty-object": b"{}",
}


@pytest.mark.parametrize("case", PAYLOADS)
async def test_hostile_payloads(fleet: Fleet, case: str) -> None:
    """Signed by a trusted issuer all the same: a broken one must not break us."""
    is_refused(await fleet.enroll(sign_challenge(RSA, PAYLOADS[case].ljust(200)), DEVICE), "malformed")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iat": 1.5}, id="fractional-iat"),
        pytest.param({"iat": True}, id="bool-iat"),
        pytest.param({"exp": 10**30}, id="huge-exp"),
        pytest.param({"exp": -1}, id="negative-exp"),
        pytest.param({"iss": "a\ud800"}, id="lone-surrogate"),
        pytest.param({"sub": "a\nb"}, id="control-character"),
        pytest.param({"nonce": ""}, id="empty-nonce"),
        pytest.param({"nonce": "n" * 2000}, id="huge-nonce"),
        pytest.param({"san_dns": "a.example"}, id="text-for-a-list"),
        pytest.param({"san_dns": ["a"] * 101}, id="too-many-names"),
        pytest.param({"pad": "x" * 7000}, id="huge"),
    ],
)
async def test_hostile_claims(fleet: Fleet, changes: dict[str, Any]) -> None:
    is_refused(await fleet.enroll(fleet.challenge(**changes), DEVICE), "malformed")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "PS256", "RS512", "ES384", "EdDSA"])
async def test_other_algorithms(fleet: Fleet, algorithm: str) -> None:
    challenge = sign_challenge(RSA, claims(), {"alg": algorithm})
    is_refused(await fleet.enroll(challenge, DEVICE), "signature_invalid", FailInfo.BAD_MESSAGE_CHECK)


async def test_a_challenge_beyond_any_bound(fleet: Fleet) -> None:
    """More than a CSR's challengePassword may have: what is wrong behind the encryption is told to nobody."""
    is_refused(await fleet.enroll("x" * 17000 + "..", DEVICE), None, FailInfo.BAD_MESSAGE_CHECK)


async def test_a_challenge_of_a_few_kilobytes(fleet: Fleet) -> None:
    is_granted(await fleet.enroll(fleet.challenge(groups=["g" * 30] * 150), DEVICE))
