"""step-ca 0.30, built by the Go proxy: the same as Debian's, and a CRL and intermediates, which that one does not have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.ca.interfaces import AuthFailed, UnknownResult, UpstreamIssued, UpstreamRejected
from gateway.ca.verify import verify_issued
from gateway.model import RevocationReason, SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.trust import verify_crl
from tests.peers import step_ca
from tests.peers.opening import make_request, opened
from tests.peers.step_ca import StepPeer

pytestmark = [pytest.mark.extra, pytest.mark.interop, pytest.mark.timeout(900)]
VERSION = "v0.30.2"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepPeer]:
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH")
    folder = tmp_path_factory.mktemp("newest-step-ca")
    try:
        program = step_ca.build_newest(folder / "build", VERSION)
    except OSError as error:
        pytest.skip(f"step-ca {VERSION} cannot be built: {error}")
    with step_ca.running(program, folder / "ca") as found:
        yield found


@pytest.mark.parametrize("provisioner", ["gateway", "granting", "x5c"])
async def test_issue_and_revoke(peer: StepPeer, provisioner: str) -> None:
    async with opened(peer.section(provisioner)) as ca:
        request = make_request()
        issued = await ca.issue(request)
        assert isinstance(issued, UpstreamIssued)
        leaf = parse_certificate(issued.certificate)
        verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
        with pytest.raises(UnknownResult, match="has taken the token of this request before"):
            await ca.issue(request)
        assert peer.issued(request.public_key) == [issued.certificate]
        for _ in range(2):
            await ca.revoke(issued.certificate, leaf.serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
        crl = await ca.crl()
        assert crl is not None
        verify_crl(parse_crl(crl, scoped=True), parse_certificate(peer.chain[0]))
        assert all(trial.good for trial in await ca.check())
        backend: Any = ca.ca
        assert await backend.fetch_chain() == peer.chain


async def test_everything_granted_is_certified_by_the_template(peer: StepPeer) -> None:
    request = make_request(
        subject="CN=Gerät 7,OU=a,O=Example AG,DC=example,DC=org",
        sans=(make_san(SanKind.DNS, "device-7.example.org"), make_san(SanKind.UPN, "device@example.org")),
        asked=("CN=wished", (make_san(SanKind.DNS, "wished.example.org"),)),
        usage=("digitalSignature", "keyAgreement"),
        ekus=(eku_oid("clientAuth"),),
    )
    async with opened(peer.section("granting")) as ca:
        issued = await ca.issue(request)
        assert isinstance(issued, UpstreamIssued)
        leaf = parse_certificate(issued.certificate)
        verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)


async def test_refusals(peer: StepPeer) -> None:
    async with opened(peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match="more than the authorized maximum"):
            await ca.issue(make_request(days=300))
    section = peer.section()
    section["provisioner"] = {**section["provisioner"], "name": "granting"}
    async with opened(section) as ca:
        with pytest.raises(AuthFailed):
            await ca.issue(make_request())
