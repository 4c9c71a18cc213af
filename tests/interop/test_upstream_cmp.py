"""CAs that are asked by CMP: OpenSSL's mock server, which checks what it gets, and another pki-gateway, which does all."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import AuthFailed, IssueRequest, UnknownResult, UpstreamIssued, UpstreamPending, UpstreamRejected
from gateway.ca.verify import verify_issued
from gateway.model import RequestForm, RevocationReason, SanKind
from gateway.pki import crmf_writer
from gateway.pki.certificate import parse_certificate
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key
from tests.conftest import launch
from tests.interop.cmp_site import CmpClient, CmpSite
from tests.interop.settings import Change, edit
from tests.peers import cmp_mock
from tests.peers import gateway as other
from tests.peers.gateway import GatewayPeer
from tests.peers.opening import make_request, opened

pytestmark = pytest.mark.interop
FORWARDS = ("p10cr", "ra_verified", "nested")


def wanted(key: PrivateKey | None = None, name: str = "device-7.example.org", *, crmf: bool = False, **more: Any) -> IssueRequest:
    """A request, as PKCS#10, or as the CertReqMsg that a CMP device sends."""
    key, sans = key or generate_private_key("ec-p256"), (make_san(SanKind.DNS, name),)
    request = make_request(subject=f"CN={name}", sans=sans, key=key, **{"days": 365, **more})
    if not crmf:
        return request
    template = crmf_writer.template_of_grant(request.grant, request.public_key)
    asked = crmf_writer.encode_cert_request(0, template)
    message = crmf_writer.encode_cert_req_msg(asked, crmf_writer.prove_by_signature(asked, key))
    return replace(request, form=RequestForm.CRMF, request=message)


def check_issued(ca: GuardedCA, request: IssueRequest, answer: object) -> bytes:
    assert isinstance(answer, UpstreamIssued)
    leaf = parse_certificate(answer.certificate)
    verify_issued(request, leaf, answer.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
    return answer.certificate


async def revoke(ca: GuardedCA, certificate: bytes) -> None:
    serial = parse_certificate(certificate).serial
    await ca.revoke(certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))


# OpenSSL's mock server


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if not cmp_mock.is_possible():
        message = "openssl cmp binds all addresses, and this user may not make a network namespace for it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


BY = pytest.mark.parametrize("by", ["signature", "secret"])


@BY
@pytest.mark.parametrize(
    ("options", "settings", "crmf"),
    [
        pytest.param(["-grant_implicitconf"], {}, False, id="implicit confirmation"),
        pytest.param([], {}, False, id="explicit confirmation"),
        pytest.param(["-accept_raverified"], {"forward": "ra_verified"}, False, id="raVerified"),
        pytest.param(["-accept_raverified"], {"forward": "ra_verified"}, True, id="raVerified for CRMF"),
        pytest.param(["-rsp_capubs", "root.pem"], {"forward": "ra_verified"}, False, id="raVerified not taken"),
    ],
)
async def test_openssl_issues(tmp_path: Path, by: str, options: list[str], settings: dict[str, Any], crmf: bool) -> None:
    request = wanted(crmf=crmf)
    with cmp_mock.running(tmp_path, request, *options, by=by) as peer:
        async with opened(peer.section(by=by, **settings)) as ca:
            if settings and "-accept_raverified" not in options:
                with pytest.raises(UpstreamRejected, match=r"badPOP|badRequest"):
                    await ca.issue(request)
                return
            certificate = check_issued(ca, request, await ca.issue(request))
            assert certificate == peer.certificate
            await revoke(ca, certificate)
            assert [trial for trial in await ca.check() if not trial.good] == []


@BY
async def test_openssl_lets_wait(tmp_path: Path, by: str) -> None:
    request = wanted()
    with cmp_mock.running(tmp_path, request, "-poll_count", "2", "-check_after", "1", by=by) as peer:
        async with opened(peer.section(by=by)) as ca:
            answer = await ca.issue(request)
            seen = []
            while isinstance(answer, UpstreamPending):
                seen.append(answer.retry_after)
                answer = await ca.poll(request, answer.reference)
            assert seen == [60, 1]
            check_issued(ca, request, answer)


@BY
async def test_openssl_refuses(tmp_path: Path, by: str) -> None:
    request = wanted()
    with cmp_mock.running(
        tmp_path, request, "-pkistatus", "2", "-failure", "19", "-statusstring", "no such thing", by=by
    ) as peer:
        async with opened(peer.section(by=by)) as ca:
            with pytest.raises(UpstreamRejected, match=r"\(badCertTemplate\): no such thing"):
                await ca.issue(request)


async def test_openssl_does_not_know_us(tmp_path: Path) -> None:
    """A wrong secret: what it answers is protected by another one than ours, so it is not believed, over plain HTTP."""
    request = wanted()
    with cmp_mock.running(tmp_path, request, by="secret") as peer:
        section = peer.section(by="secret")
        wrong = tmp_path / "wrong"
        wrong.touch(0o600)
        wrong.write_text("another secret altogether")
        section["auth"]["secret"] = {"file": str(wrong)}
        async with opened(section) as ca:
            with pytest.raises((UnknownResult, AuthFailed)):
                await ca.issue(request)


async def test_openssl_unprotected_refusals_are_not_believed(tmp_path: Path) -> None:
    request = wanted()
    with cmp_mock.running(tmp_path, request, "-send_error", "-send_unprot_err") as peer:
        async with opened(peer.section()) as ca:
            with pytest.raises(UnknownResult, match="nothing protects"):
                await ca.issue(request)


# another pki-gateway


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayPeer]:
    with other.running(tmp_path_factory.mktemp("other") / "state") as running:
        yield running


@pytest.fixture(params=["signature", "secret"])
def section(request: pytest.FixtureRequest, peer: GatewayPeer, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    return partial(peer.cmp, secret=tmp_path if request.param == "secret" else None)


@pytest.mark.parametrize(
    ("forward", "crmf"),
    [*((forward, False) for forward in FORWARDS), ("ra_verified", True), ("nested", True)],
    ids=lambda value: value if isinstance(value, str) else "crmf" if value else "pkcs10",
)
async def test_issues(peer: GatewayPeer, forward: str, crmf: bool) -> None:
    request = wanted(crmf=crmf, days=30 if forward == "ra_verified" or crmf else 365)
    async with opened(peer.cmp(forward=forward)) as ca:
        certificate = check_issued(ca, request, await ca.issue(request))
        assert peer.issued(request.public_key) == [certificate]
        for _ in range(2):
            await revoke(ca, certificate)


async def test_a_template_asks_for_the_end_that_was_granted(peer: GatewayPeer) -> None:
    async with opened(peer.cmp(forward="ra_verified")) as ca:
        request = wanted(days=7)
        certificate = parse_certificate(check_issued(ca, request, await ca.issue(request)))
        assert certificate.not_after == request.grant.not_after
        with pytest.raises(UpstreamRejected, match="longer than it may"):
            await ca.issue(wanted(days=3650))


async def test_puts_on_hold_and_takes_off_it(peer: GatewayPeer) -> None:
    request = wanted()
    async with opened(peer.cmp()) as ca:
        certificate = check_issued(ca, request, await ca.issue(request))
        serial, now = parse_certificate(certificate).serial, datetime.now(UTC)
        await ca.revoke(certificate, serial, RevocationReason.CERTIFICATE_HOLD, now)
        await ca.revive(certificate, serial, now)
        with pytest.raises(UpstreamRejected, match="not on hold"):
            await ca.revive(certificate, serial, now)


async def test_issues_by_a_secret(peer: GatewayPeer, tmp_path: Path) -> None:
    request = wanted()
    async with opened(peer.cmp(secret=tmp_path)) as ca:
        certificate = check_issued(ca, request, await ca.issue(request))
        with pytest.raises(UpstreamRejected, match="notAuthorized"):  # it may be many gateways' secret
            await revoke(ca, certificate)
        vouched = wanted(crmf=True)
    async with opened(peer.cmp(secret=tmp_path, forward="ra_verified")) as ca:
        with pytest.raises(UpstreamRejected, match=r"notAuthorized|badPOP"):
            await ca.issue(vouched)
    assert peer.issued(request.public_key) == [certificate]
    assert peer.issued(vouched.public_key) == []


async def test_what_waits_is_fetched_when_it_is_approved(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section(other.WAITING)) as ca:
        request = wanted()
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        again = await ca.poll(request, pending.reference)
        assert isinstance(again, UpstreamPending)
        await asyncio.to_thread(peer.approve)
        async with asyncio.timeout(20):
            while isinstance(answer := await ca.poll(request, again.reference), UpstreamPending):
                await asyncio.sleep(0.2)
        certificate = check_issued(ca, request, answer)
    assert peer.issued(request.public_key) == [certificate]


async def test_a_lost_answer_is_told_again(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        request = wanted()
        first = check_issued(ca, request, await ca.issue(request))
        again = await ca.issue(replace(request, in_doubt_since=datetime.now(UTC)))
        assert check_issued(ca, request, again) == first
    assert peer.issued(request.public_key) == [first]


async def test_the_same_transaction_never_has_two_certificates(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        request = wanted()
        answers = await asyncio.gather(*(ca.issue(request) for _ in range(3)), return_exceptions=True)
        got = {check_issued(ca, request, answer) for answer in answers if isinstance(answer, UpstreamIssued)}
        assert len(got) == 1
    assert len(peer.issued(request.public_key)) == 1


async def test_a_name_that_the_ca_does_not_certify(section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        sans = (make_san(SanKind.IP, "192.0.2.1"),)
        with pytest.raises(UpstreamRejected, match=r"^the CA refused the request"):
            await ca.issue(make_request(subject="CN=x", sans=sans))


async def test_check_is_content(section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        await ca.health()
        trials = await ca.check()
        assert [trial for trial in trials if not trial.good] == []
        assert len(trials) >= 3
        assert (await ca.fetch_chain())[0] == ca.chain()[0]


async def test_somebody_else_is_refused(peer: GatewayPeer, tmp_path: Path) -> None:
    """A certificate of the same CA that is no registration authority's, and a secret that nobody made."""
    pair = {"certificate": str(peer.state / "ca" / "ra.pem"), "key": {"file": str(peer.state / "secrets" / "ra.key")}}
    request = wanted()
    async with opened(peer.cmp(auth={"type": "signature", "signer": pair})) as ca:
        with pytest.raises((UpstreamRejected, AuthFailed)):
            await ca.issue(request)
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text("nobody made this one")
    async with opened(peer.cmp(auth={"type": "secret", "reference": "nobody", "secret": {"file": str(file)}})) as ca:
        with pytest.raises(AuthFailed, match="badMessageCheck"):
            await ca.issue(request)
        assert {trial.subject: trial.good for trial in await ca.check()}["auth"] is False
    assert peer.issued(request.public_key) == []


# gateway behind gateway


def _behind(section: dict[str, Any]) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["upstream_cas"]["there"] = section
        demo = document["profiles"]["demo"]
        demo["upstream_ca"] = "there"
        demo["credentials"] = [one for one in demo["credentials"] if one["type"] != "static"]

    return change


@pytest.mark.parametrize("forward", FORWARDS)
def test_gateway_behind_gateway(peer: GatewayPeer, tmp_path: Path, forward: str) -> None:
    """A device's ir, p10cr and rr by openssl, and an EST client, reach the other gateway; ir only where templates can go on."""
    running = launch(tmp_path / "state", edit=edit(_behind(peer.cmp(forward=forward))))
    try:
        device = tmp_path / "device"
        device.mkdir()
        client = CmpClient(device, CmpSite(running))
        (device / "root.pem").write_bytes((peer.state / "ca" / "root.pem").read_bytes() + client.site.root.read_bytes())
        key = client.new_key()
        got = client.cmp("ir", *client.by_secret(client.site.new_secret()), "-newkey", key, "-subject", f"/CN=behind-{forward}")
        assert got == (forward != "p10cr"), client.said
        if not got:
            options = (*client.by_secret(client.site.new_secret()), "-csr", client.new_csr("/CN=behind-p10cr"), "-newkey", key)
            assert client.cmp("p10cr", *options), client.said
        leaf = parse_certificate(client.certificate.public_bytes(Encoding.DER))
        assert peer.issued(leaf.public_key.der) == [leaf.der]
        untrusted = str(running.state / "ca" / "issuing.pem")  # the CMP signer's, which is not that of the profile
        revoked = client.cmp("rr", *client.keep(), "-oldcert", "own.pem", "-revreason", "4", "-untrusted", untrusted)
        assert revoked, client.said
        rows = json.loads(peer.server.cli("certs", "list", "--revoked", "--format", "json").stdout)
        assert f"CN=behind-{forward}" in {row["subject"] for row in rows}
        est_key = generate_private_key("rsa-2048")
        leaf, _ = running.enroll_by_est("CN=behind-est.example.org", est_key)
        assert peer.issued(leaf.public_key.der) == [leaf.der]
    finally:
        assert running.stop() == 0
