"""Behind a proxy that verifies no certificate and hands over every one: the registration authority lets in the same, no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.wire.est import messages
from gateway.wire.est.client import post_request
from tests.flow.est.connection import Connection
from tests.flow.est.fleet import ENROLLING, PROXY, granted
from tests.flow.est.nobody import PROFILES, NobodyFleet, Proof
from tests.flow.est.nobody_fleet import running
from tests.flow.est.test_nobody_without_proof import RENEWS, who_gets

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

BY_PROXY = [name for name in PROFILES if name != "linked"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NobodyFleet]:
    async with running(tmp_path_factory.mktemp("proxied") / "s", by_proxy=True) as fleet:
        yield fleet


async def bad(fleet: NobodyFleet, profile: str) -> list[Proof]:
    """Return bad proofs; what a client says in the proxy's own header the proxy has replaced."""
    return [proof for proof in await fleet.bad(profile) if "X-SSL-Client-Cert" not in proof.headers]


@pytest.mark.parametrize("profile", BY_PROXY)
async def test_no_operation_with_a_bad_proof_gets_a_certificate(fleet: NobodyFleet, profile: str) -> None:
    before = await fleet.est.certificates()
    for operation in ENROLLING:
        assert await who_gets(fleet, profile, operation, await bad(fleet, profile)) == []
    assert await fleet.est.certificates() == before


@pytest.mark.parametrize("profile", BY_PROXY)
async def test_nothing_but_its_own_certificate_renews(fleet: NobodyFleet, profile: str) -> None:
    allowed = RENEWS.get(profile, frozenset())
    before = await fleet.est.certificates()
    proofs = [proof for proof in await bad(fleet, profile) if proof.name not in allowed]
    assert await who_gets(fleet, profile, messages.SIMPLEREENROLL, proofs) == []
    assert await fleet.est.certificates() == before


@pytest.mark.parametrize("profile", [name for name in BY_PROXY if name not in {"heir", "manual"}])
async def test_the_right_proof_gets_one(fleet: NobodyFleet, profile: str) -> None:
    right = await fleet.right(profile)
    assert right is not None
    assert await fleet.gets(profile, messages.SIMPLEENROLL, right)


@pytest.mark.parametrize("profile", list(RENEWS))
async def test_its_own_certificate_renews(fleet: NobodyFleet, profile: str) -> None:
    [name, *_] = sorted(RENEWS[profile])
    answer = await fleet.try_proof(profile, messages.SIMPLEREENROLL, Proof(name, holder=fleet.holders[name]))
    assert answer.status == (403 if profile == "heir" else 200), "another profile's has been renewed by another key by now"


async def test_what_the_proxy_says_of_http_is_refused(fleet: NobodyFleet) -> None:
    """Its client's password came in the clear."""
    right = await fleet.right("basic")
    assert right is not None
    request = post_request("simpleenroll", right.wanted().csr, "basic")
    for said in ("http", "", "https, http"):
        connection = await Connection.open(fleet.est.service.tls_port, fleet.est.context(), source=PROXY)
        headers = {"Authorization": str(right.authorization)} | ({"X-Forwarded-Proto": said} if said else {})
        answer = await connection.ask(request, headers)
        assert (answer.status, granted("simpleenroll", answer)) == (403, None)
        connection.close()
