"""Every message type that there can be, at every kind of profile, with every kind of bad proof: no certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from gateway.asn1.scep import PkiStatus
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.fleet import Answer, message, read_answer, seal, static, write_fleet
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, Service, start_service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DEVICE = Device(KEY, "CN=device-1")
THIEF = Device(OTHER_KEY, "CN=thief")
ONE_TIME = {"type": "one_time"}
ALL_TYPES = range(256)

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
        "warns-only": {"credentials": [static("warns-only")], "policy": {"subject": {"mode": "warn"}}},
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
    """The service, and the proofs of each profile."""

    service: Service
    session: aiohttp.ClientSession
    proofs: dict[str, Proofs]

    async def client(self, profile: str) -> Client:
        client = Client(self.session, f"{self.service.url}/scep/{profile}")
        await client.fetch_ra()
        return client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("nobody") / "s"
    write_fleet(folder, PROFILES)
    service = await start_service(folder)
    try:
        async with aiohttp.ClientSession() as session:
            fleet = Fleet(service, session, {})
            await prove(fleet)
            yield fleet
    finally:
        await service.close()


async def prove(fleet: Fleet) -> None:
    """Draw the challenges of every profile, let some expire, and have a thief's device use others."""
    service = fleet.service
    takes_one_time = [name for name in PROFILES if ONE_TIME in PROFILES[name].get("credentials", ())]
    expired = {name: await service.new_challenge(name, ttl=60) for name in takes_one_time}
    service.clock.ahead = timedelta(minutes=2)
    used: dict[str, str] = {}
    for name in takes_one_time:
        used[name] = await service.new_challenge(name)
        client = await fleet.client(name)
        assert (await client.enroll(THIEF, used[name])).status in {PkiStatus.SUCCESS, PkiStatus.PENDING}
    for name in PROFILES:
        own = (service.folder / "secrets" / f"{name}-challenge").read_text()
        foreign = "static" if name != "static" else "both"
        bad = {
            "none": None,
            "wrong": "wrong-but-long-enough",
            "almost": f"{own[:-1]}{'0' if own[-1] != '0' else '1'}",
            "expired": expired.get(name, expired["one-time"]),
            "used": used.get(name, used["one-time"]),
            "foreign": (service.folder / "secrets" / f"{foreign}-challenge").read_text(),
            "foreign one-time": await service.new_challenge("one-time" if name != "one-time" else "both"),
        }
        right = await service.new_challenge(name) if name in takes_one_time else own
        fleet.proofs[name] = Proofs(bad, right if PROFILES[name].get("credentials") else None)


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


KINDS = ["none", "wrong", "almost", "expired", "used", "foreign", "foreign one-time"]


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
