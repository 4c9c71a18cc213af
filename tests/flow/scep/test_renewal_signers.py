"""A certificate is no passport: every certificate that the gateway knows, as renewal signer at every profile by every route."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import cache

import pytest
import pytest_asyncio

from gateway.asn1.scep import PkiStatus
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.wire.scep.client import pki_operation_url
from tests.flow.scep.fleet import Answer, message, read_answer, seal
from tests.flow.scep.service import Client
from tests.flow.scep.signer_fleet import PROFILES, RENEWS, ROUTES, Holder, SignerFleet, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

NEW_KEY = generate_private_key("rsa-2048")
RENEWING = (17, 19)


WHERE_KEYS_OF_ECDSA_MATTER = ("own", "migrating", "password")
FLEETS = [("rsa-2048", profile) for profile in PROFILES] + [("ec-p256", profile) for profile in WHERE_KEYS_OF_ECDSA_MATTER]
"""The CA's key, and the profile: an RSA CA could receive a reply, an ECDSA certificate can be changed and still verify."""
Fleets = dict[str, SignerFleet]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleets(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleets]:
    """Return one running fleet for each kind of CA key."""
    async with AsyncExitStack() as stack:
        folder = tmp_path_factory.mktemp("signers")
        keys = sorted({ca_key for ca_key, _ in FLEETS})
        yield {key: await stack.enter_async_context(running(folder / key / "s", key)) for key in keys}


def may_renew(profile: str, holder: Holder, number: int) -> bool:
    """Whether the configuration says so."""
    source, types = RENEWS.get(profile, ("", frozenset()))
    migrates = profile == "migrating" and holder.name == "client of TLS"
    return migrates or (holder.name == f"device of {source}" and number in types)


def pairs(fleet: SignerFleet, profile: str) -> Iterator[tuple[Holder, int, PrivateKey]]:
    """Yield every signer that may not renew here, with each message type, for a new key and for its own."""
    for holder in (*fleet.devices.values(), *fleet.others):
        for number in RENEWING:
            if not may_renew(profile, holder, number):
                yield holder, number, NEW_KEY
                yield holder, number, holder.key


@cache
def prepared(ra: bytes, holder: Holder, number: int, key: PrivateKey) -> bytes:
    """Return a renewal, the same one for all profiles that share an RA."""
    parsed = holder.parsed
    content = seal(build_csr(key, parsed.subject.der, parsed.sans), ra)
    return message(number, content, holder.signer, f"{holder.name[:60]} {number}".replace("'", ""))


async def ask(client: Client, method: str, holder: Holder, number: int, key: PrivateKey) -> Answer:
    """Ask for a certificate with the names of the signer's own, as a renewal does."""
    data = prepared(client.ra, holder, number, key)
    if method == "GET":
        async with client.session.get(pki_operation_url(client.url, data)) as reply:
            return read_answer(reply.status, await reply.read())
    status, body, _ = await client.post(data)
    return read_answer(status, body)


async def ready(fleet: SignerFleet, profile: str, route: str) -> Client:
    """Return a client that knows the RA; where the route does not exist, it is told the RA of another."""
    client = fleet.client(profile, route)
    other = fleet.client(profile, "http")
    client.ra = await other.fetch_ra()
    return client


async def held(fleet: SignerFleet) -> Counter[str]:
    """Count certificates, and requests that are open or wait."""
    certificates = await fleet.service.run("GET", "/v1/certificates", limit=10000)
    waiting = await fleet.service.run("GET", "/v1/requests", limit=10000)
    return Counter([row["profile"] for row in certificates] + [f"{row['profile']} {row['state']}" for row in waiting])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("ca_key", "profile"), FLEETS)
async def test_no_other_certificate_renews(fleets: Fleets, ca_key: str, profile: str, route: str, method: str) -> None:
    fleet = fleets[ca_key]
    client = await ready(fleet, profile, route)
    before = await held(fleet)
    granted = {}
    for holder, number, key in pairs(fleet, profile):
        answer = await ask(client, method, holder, number, key)
        if answer.status in {PkiStatus.SUCCESS, PkiStatus.PENDING} or answer.content:
            granted[holder.name, number] = answer
    assert granted == {}
    assert await held(fleet) == before


@pytest.mark.parametrize(
    ("profile", "name", "number"),
    [
        pytest.param(profile, name, number, id=f"{profile}-{name}-{number}")
        for profile, name, types in (
            *((profile, f"device of {source}", types) for profile, (source, types) in RENEWS.items()),
            ("migrating", "client of TLS", frozenset(RENEWING)),
        )
        for number in sorted(types)
    ],
)
async def test_the_one_that_may_does(fleets: Fleets, profile: str, name: str, number: int) -> None:
    """The same request, signed by the certificate that the profile renews: the test above can fail."""
    fleet = fleets["rsa-2048"]
    [holder] = [h for h in (*fleet.devices.values(), *fleet.others) if h.name == name]
    client = await ready(fleet, profile, "scep-mtls" if profile == "mtls" else "http")
    answer = await ask(client, "POST", holder, number, NEW_KEY)
    assert answer.status is (PkiStatus.PENDING if profile == "manual" else PkiStatus.SUCCESS), answer.text


async def test_a_tls_certificate_alone_proves_nothing(fleets: Fleets) -> None:
    """Nor does a device's own certificate, by a listener to which none is shown."""
    fleet = fleets["rsa-2048"]
    holder = fleet.devices["mtls"]
    answer = await ask(await ready(fleet, "mtls", "http"), "POST", holder, 17, NEW_KEY)
    assert (answer.http, answer.status) == (200, PkiStatus.FAILURE)
    answer = await ask(await ready(fleet, "mtls", "scep-mtls"), "POST", fleet.others[-1], 19, NEW_KEY)
    assert (answer.http, answer.status) == (200, PkiStatus.FAILURE)
