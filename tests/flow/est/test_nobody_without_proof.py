"""Every operation that asks for a certificate, at every kind of profile, with every kind of bad proof: no certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

import pytest
import pytest_asyncio

from gateway.wire.est import messages
from gateway.wire.est.client import post_request
from tests.flow.est.connection import Connection
from tests.flow.est.fleet import ENROLLING, OPERATIONS, granted
from tests.flow.est.nobody import PROFILES, NobodyFleet, Proof
from tests.flow.est.nobody_fleet import running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

RENEWS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "renewing": frozenset({"device of renewing"}),
        "heir": frozenset({"device of renewing"}),
        "migrating": frozenset({"device of migrating", "migrant"}),
        "ra": frozenset({"ra"}),
    }
)
"""Whose certificates each profile renews; a registration authority brings others' renewals."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NobodyFleet]:
    async with running(tmp_path_factory.mktemp("nobody") / "s") as fleet:
        yield fleet


async def who_gets(fleet: NobodyFleet, profile: str, operation: str, proofs: list[Proof]) -> list[str]:
    return [proof.name for proof in proofs if await fleet.gets(profile, operation, proof)]


@pytest.mark.parametrize("operation", ENROLLING)
@pytest.mark.parametrize("profile", list(PROFILES))
async def test_no_operation_with_a_bad_proof_gets_a_certificate(fleet: NobodyFleet, profile: str, operation: str) -> None:
    before = await fleet.est.certificates()
    assert await who_gets(fleet, profile, operation, await fleet.bad(profile)) == []
    assert await fleet.est.certificates() == before


@pytest.mark.parametrize("profile", list(PROFILES))
async def test_nothing_but_its_own_certificate_renews(fleet: NobodyFleet, profile: str) -> None:
    """What enrolls a device renews nothing; a certificate renews where a rule says so, and nowhere else."""
    allowed = RENEWS.get(profile, frozenset())
    right = await fleet.right(profile)
    proofs = [proof for proof in await fleet.bad(profile) if proof.name not in allowed]
    proofs += [right] if right is not None and profile not in allowed else []
    before = await fleet.est.certificates()
    assert await who_gets(fleet, profile, messages.SIMPLEREENROLL, proofs) == []
    assert await fleet.est.certificates() == before


@pytest.mark.parametrize("operation", ENROLLING)
@pytest.mark.parametrize("profile", list(PROFILES))
async def test_the_right_proof_gets_one(fleet: NobodyFleet, profile: str, operation: str) -> None:
    """Which shows that the tests above can fail."""
    right = await fleet.right(profile)
    if right is None:
        return
    before = await fleet.est.certificates()
    answer = await fleet.try_proof(profile, operation, right)
    if profile == "manual":
        assert answer.status == (404 if operation == messages.SERVERKEYGEN else 202)
        return
    assert granted(operation, answer) is not None, answer
    assert await fleet.est.certificates() == before + 1


@pytest.mark.parametrize("profile", list(RENEWS))
async def test_its_own_certificate_renews(fleet: NobodyFleet, profile: str) -> None:
    for name in sorted(RENEWS[profile]):
        if (profile, name) == ("heir", "device of renewing"):
            continue  # its certificate has been renewed by another key
        answer = await fleet.try_proof(profile, messages.SIMPLEREENROLL, Proof(name, holder=fleet.holders[name]))
        assert answer.status == 200, (name, answer)


REFUSED_BY_TLS = {
    "SCEP RA",
    "TLS",
    "issuing CA",
    "issued by a namesake of the CA",
    "maker's for servers",
    "maker's that may not sign",
    "self-signed by a device's key",
}
"""Strangers, and usages that OpenSSL takes for no client's."""


async def test_who_is_refused_by_tls_itself(fleet: NobodyFleet) -> None:
    """Expired certificates come as far as the registration authority, since one profile grants grace."""
    for holder in fleet.holders.values():
        await fleet.est.send(holder, "renewing", messages.SIMPLEREENROLL, Proof("", holder=holder).wanted())
    assert fleet.est.refused_by_tls == REFUSED_BY_TLS


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("profile", list(PROFILES))
async def test_plain_http_and_a_listener_that_asks_for_nothing(fleet: NobodyFleet, profile: str, operation: str) -> None:
    """Without TLS nobody is served, and a certificate that nobody asked for is none."""
    right = await fleet.right(profile)
    proof = right or Proof("device of renewing", holder=fleet.holders["device of renewing"])
    before = await fleet.est.certificates()
    service, headers = fleet.est.service, {}
    if isinstance(proof.authorization, str):
        headers["Authorization"] = proof.authorization
    request = post_request(operation, proof.wanted().body(operation), profile)
    plain = await Connection.open(service.port, None)
    assert (await plain.ask(request, headers)).status == 403
    plain.close()
    if proof.holder is not None:
        asked = await Connection.open(service.tls_port, fleet.est.context(proof.holder))
        assert granted(operation, await asked.ask(request, headers)) is None
        asked.close()
    assert await fleet.est.certificates() == before
