"""Every message type that there can be, at every kind of profile, with every kind of bad proof: no certificate."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from gateway.asn1.scep import PkiStatus
from gateway.pki import envelope
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.fleet import Answer, challenge_file, message, read_answer, seal, static, write_fleet
from tests.flow.scep.other_ca import OtherCA, client_context
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, Service, start_service
from tests.golden_challenges import anchor, claims, issuer_key, sign_challenge

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DEVICE = Device(KEY, "CN=device-1")
THIEF = Device(OTHER_KEY, "CN=device-1")
"""Another key under the same name: whatever he used up must not serve the device, whose name fits it."""
ONE_TIME = {"type": "one_time"}
ALL_TYPES = range(256)
ISSUER = issuer_key("ec")
ANCHORS = "challenge-anchors.pem"


def signed(profile: str, **more: Any) -> dict[str, Any]:
    """Return a credential of signed challenges for this profile."""
    return {"type": "intune_jws", "anchors": ANCHORS, "audience": audience(profile), "per_device": None} | more


def audience(profile: str) -> str:
    return f"https://pki.example/scep/{profile}"


PROFILES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "static": {"credentials": [static("static")]},
        "one-time": {"credentials": [ONE_TIME]},
        "both": {
            "credentials": [ONE_TIME, static("both")],
            "renewal": {"from": ["both", "static"], "messages": ["RenewalReq", "PKCSReq"]},
        },
        "renewal-only": {"renewal": {"from": ["both"], "messages": ["RenewalReq", "PKCSReq"], "grace": "365d"}},
        "manual": {"credentials": [ONE_TIME, static("manual")], "approval": "manual", "renewal": {"from": ["manual"]}},
        "lenient": {
            "credentials": [static("lenient")],
            "policy": {"subject": {"mode": "warn"}},
            "endpoints": {"legacy": {"sha1": True, "md5": True, "triple_des": True, "des": True}, "reply_chain": True},
        },
        "password": {"credentials": [static("password")], "endpoints": {"pwri": True}},
        "mtls": {
            "credentials": [ONE_TIME, static("mtls")],
            "endpoints": {"client_certificate": "require", "client_anchors": "ca/clients.pem"},
        },
        "signed": {"credentials": [signed("signed")], "renewal": {"from": ["signed"], "messages": ["RenewalReq", "PKCSReq"]}},
        "mixed": {"credentials": [ONE_TIME, static("mixed"), signed("mixed", with_other_challenges=True)]},
        "unconstrained": {"credentials": [signed("unconstrained", absent_claims="unconstrained")]},
        "migrating": {
            "credentials": [static("migrating")],
            "renewal": {
                "from": ["migrating"],
                "messages": ["RenewalReq", "PKCSReq"],
                "anchors": {"certificates": "ca/clients.pem", "crls": "ca/clients.crl"},
            },
        },
    }
)
"""Profiles by name; what authenticates here and how."""


@dataclass(frozen=True)
class Proofs:
    """Challenges by the kind of proof that they are, for one profile; `right` is the one that would do."""

    bad: Mapping[str, str | None]
    right: str | None


@dataclass
class Fleet:
    """The service, sessions with and without a TLS client certificate, and the proofs of each profile."""

    service: Service
    plain: aiohttp.ClientSession
    mutual: aiohttp.ClientSession
    proofs: dict[str, Proofs]

    async def client(self, profile: str) -> Client:
        """Return a client that lacks nothing but proof: where a TLS certificate is asked for, it has one."""
        client = Client(self.plain, f"{self.service.url}/scep/{profile}")
        if profile == "mtls":
            client = Client(self.mutual, f"https://localhost:{self.service.mtls_port}/scep-mtls/{profile}")
        await client.fetch_ra()
        return client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("nobody") / "s"
    listener = {"listen": "127.0.0.1:3", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}
    write_fleet(folder, PROFILES, server={"https_mtls": listener})
    clients = OtherCA.create("clients of TLS")
    (folder / "ca" / "clients.pem").write_bytes(clients.pem)
    (folder / "ca" / "clients.crl").write_bytes(clients.crl())
    (folder / ANCHORS).write_bytes(anchor("ec"))
    service = await start_service(folder)
    connector = aiohttp.TCPConnector(ssl=client_context(folder, clients.issue(KEY, "CN=client of TLS"), KEY))
    try:
        async with aiohttp.ClientSession() as plain, aiohttp.ClientSession(connector=connector) as mutual:
            fleet = Fleet(service, plain, mutual, {})
            await prove(fleet)
            yield fleet
    finally:
        await service.close()


async def prove(fleet: Fleet) -> None:
    """Draw the challenges of every profile, let some expire, and have a thief use others."""
    service = fleet.service
    kinds = {name: {credential["type"] for credential in PROFILES[name].get("credentials", ())} for name in PROFILES}
    expired = {name: await service.new_challenge(name, ttl=60) for name in PROFILES if "one_time" in kinds[name]}
    service.clock.ahead = timedelta(minutes=2)
    for name in PROFILES:
        static_one = (service.folder / challenge_file(name)).read_text()
        other = "mixed" if name != "mixed" else "both"
        if "intune_jws" in kinds[name]:
            proofs = signed_proofs(name, service)
        else:
            one_time = "one_time" in kinds[name]
            proofs = {
                "wrong": f"{static_one[:-1]}{'0' if static_one[-1] != '0' else '1'}",
                "expired": expired.get(name, expired["one-time"]),
                "used": await service.new_challenge(name) if one_time else await service.new_challenge("one-time"),
                "foreign": await service.new_challenge(other)
                if one_time
                else (service.folder / challenge_file(other)).read_text(),
                "right": await service.new_challenge(name) if one_time else static_one,
            }
        spender = name if len(kinds[name] - {"static"}) else "one-time"
        used = await (await fleet.client(spender)).enroll(THIEF, proofs["used"])
        assert used.status in {PkiStatus.SUCCESS, PkiStatus.PENDING}, used.fail_info_text
        right = proofs.pop("right")
        fleet.proofs[name] = Proofs({"none": None, **proofs}, right if kinds[name] else None)


def signed_proofs(profile: str, service: Service) -> dict[str, str]:
    """Return signed challenges for the device by what is wrong with them."""
    now = int(service.clock().timestamp())

    def challenge(key: PrivateKey = ISSUER, **changes: Any) -> str:
        names = {"device_name": "device-1", "san_dns": None, "san_rfc822": None, "nonce": secrets.token_hex(16)}
        times = {"aud": audience(profile), "iat": now, "exp": now + 3000}
        return sign_challenge(key, claims(**{**names, **times, **changes}))

    return {
        "wrong": challenge(issuer_key("other")),
        "expired": challenge(iat=now - 7200, exp=now - 3600),
        "used": challenge(),
        "foreign": challenge(aud=audience("another")),
        "right": challenge(),
    }


async def certificates(service: Service) -> int:
    return len(await service.run("GET", "/v1/certificates", limit=10000))


async def send_all(client: Client, device: Device, challenge: str | None, types: range | list[int]) -> dict[int, Answer]:
    """Send one sealed request as every one of these types; answers by type."""
    signer = device.own_signer()
    sealed = seal(device.csr(challenge), client.ra)
    answers = {}
    for number in types:
        status, body, _ = await client.post(message(number, sealed, signer, f"T-{number}"))
        answers[number] = read_answer(status, body)
    return answers


def granted(answers: Mapping[int, Answer]) -> dict[int, Answer]:
    """Return the answers that are not a refusal: a promise counts as a grant."""
    return {number: a for number, a in answers.items() if a.status is not PkiStatus.FAILURE or a.content}


KINDS = ["none", "wrong", "expired", "used", "foreign"]
"""`wrong` is almost right: another last character, or the right words signed by another issuer."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", list(PROFILES))
async def test_no_type_with_a_bad_proof_gets_a_certificate(fleet: Fleet, profile: str, kind: str) -> None:
    client = await fleet.client(profile)
    before = await certificates(fleet.service)
    assert granted(await send_all(client, DEVICE, fleet.proofs[profile].bad[kind], ALL_TYPES)) == {}
    assert await certificates(fleet.service) == before


@pytest.mark.parametrize("profile", list(PROFILES))
async def test_the_right_proof_serves_one_type_only(fleet: Fleet, profile: str) -> None:
    """The same challenge in every other type gets nothing, above all in the obsolete UpdateReq (18); and this test can fail."""
    client = await fleet.client(profile)
    right = fleet.proofs[profile].right
    others = [number for number in ALL_TYPES if number != MessageType.PKCS_REQ]
    before = await certificates(fleet.service)
    assert granted(await send_all(client, DEVICE, right, others)) == {}
    assert await certificates(fleet.service) == before
    asked = await send_all(client, DEVICE, right, [MessageType.PKCS_REQ])
    expected = {"manual": PkiStatus.PENDING, "renewal-only": PkiStatus.FAILURE}.get(profile, PkiStatus.SUCCESS)
    assert asked[MessageType.PKCS_REQ].status is expected
    assert await certificates(fleet.service) == before + (expected is PkiStatus.SUCCESS)


async def test_a_right_proof_of_another_device_is_none(fleet: Fleet) -> None:
    """Whoever sends the sealed request of another device under his own signature gets nothing by any type."""
    client = await fleet.client("static")
    right = fleet.proofs["static"].right
    sealed = seal(replace(DEVICE, subject="CN=victim").csr(right), client.ra)
    signer = THIEF.own_signer()
    for number in ALL_TYPES:
        status, body, _ = await client.post(message(number, sealed, signer, "T"))
        assert read_answer(status, body).status is PkiStatus.FAILURE, number


@pytest.mark.parametrize("password", ["wrong-but-long-enough", "foreign", ""])
async def test_a_wrong_password_serves_no_type(fleet: Fleet, password: str) -> None:
    """A device whose key cannot encrypt has nothing but the challenge, which is the password too."""
    client = await fleet.client("password")
    device = replace(DEVICE, key=generate_private_key("ec-p256"))
    right = fleet.proofs["password"].right
    guess = (fleet.proofs["password"].bad["foreign"] or "") if password == "foreign" else password
    before = await certificates(fleet.service)
    for challenge in (right, None):
        sealed = envelope.encrypt_with_password(device.csr(challenge), "aes-256-cbc", guess.encode())
        signer = device.own_signer()
        for number in ALL_TYPES:
            status, body, _ = await client.post(message(number, sealed, signer, f"T-{number}"))
            assert read_answer(status, body).status is PkiStatus.FAILURE, number
    assert await certificates(fleet.service) == before
