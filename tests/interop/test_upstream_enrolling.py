"""CAs that are asked as devices ask: another pki-gateway by EST and SCEP, Debian's scepserver by SCEP."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.verify import verify_issued
from gateway.model import SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from tests.conftest import RunningServer, launch
from tests.interop.settings import Change, edit
from tests.peers import gateway as other
from tests.peers import scepserver
from tests.peers.gateway import GatewayPeer
from tests.peers.opening import make_request, opened
from tests.peers.scepserver import ScepPeer

pytestmark = pytest.mark.interop

Opened = Callable[..., AbstractAsyncContextManager[GuardedCA]]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayPeer]:
    with other.running(tmp_path_factory.mktemp("other") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def scep_peer(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str, str], str]) -> Iterator[ScepPeer]:
    require_program("scepserver", "scep")
    if not scepserver.is_possible():
        message = "scepserver binds all addresses, and this user may not make a network namespace for it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    with scepserver.running(tmp_path_factory.mktemp("scepserver") / "ca") as running:
        yield running


@pytest.fixture(params=["est", "scep"])
def section(request: pytest.FixtureRequest, peer: GatewayPeer) -> Callable[..., dict[str, Any]]:
    return partial(getattr(peer, request.param))


def wanted(name: str = "device-7.example.org", **more: Any) -> IssueRequest:
    usage = ("digitalSignature", "keyEncipherment")
    sans = (make_san(SanKind.DNS, name),)
    return make_request(subject=f"CN={name}", sans=sans, key=generate_private_key("rsa-2048"), usage=usage, days=365, **more)


def check_issued(ca: GuardedCA, request: IssueRequest, answer: object) -> bytes:
    assert isinstance(answer, UpstreamIssued)
    leaf = parse_certificate(answer.certificate)
    verify_issued(request, leaf, answer.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
    return answer.certificate


async def test_issues(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        request = wanted()
        certificate = check_issued(ca, request, await ca.issue(request))
    assert peer.issued(request.public_key) == [certificate]


async def test_what_waits_is_fetched_when_it_is_approved(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section(other.WAITING)) as ca:
        request = wanted()
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert isinstance(await ca.poll(request, pending.reference), UpstreamPending)
        await asyncio.to_thread(peer.approve)
        async with asyncio.timeout(20):
            while isinstance(answer := await ca.poll(request, pending.reference), UpstreamPending):
                await asyncio.sleep(0.2)
        certificate = check_issued(ca, request, answer)
        # an answer that is lost is no harm: the next poll has it again
        assert check_issued(ca, request, await ca.poll(request, pending.reference)) == certificate
    assert peer.issued(request.public_key) == [certificate]


async def test_a_lost_answer_is_told_again(peer: GatewayPeer, section: Callable[..., dict[str, Any]]) -> None:
    async with opened(section()) as ca:
        request = wanted()
        first = check_issued(ca, request, await ca.issue(request))
        doubted = replace(request, in_doubt_since=datetime.now(UTC))
        again = await (ca.find(doubted) if Capability.FIND in ca.capabilities else ca.issue(doubted))
        assert check_issued(ca, request, again) == first
    assert peer.issued(request.public_key) == [first]


async def test_the_same_scep_transaction_never_has_two_certificates(peer: GatewayPeer) -> None:
    async with opened(peer.scep()) as ca:
        request = wanted()
        answers = await asyncio.gather(*(ca.issue(request) for _ in range(3)))
        got = {check_issued(ca, request, answer) for answer in answers if isinstance(answer, UpstreamIssued)}
        assert len(got) == 1
        unknown = replace(wanted(), in_doubt_since=datetime.now(UTC) - timedelta(minutes=10))
        assert await ca.find(unknown) is None
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


async def test_somebody_else_is_refused(peer: GatewayPeer, tmp_path: Path) -> None:
    """A certificate of the same CA that is no registration authority's."""
    other_pair = {"certificate": str(peer.state / "ca" / "ra.pem"), "key": {"file": str(peer.state / "secrets" / "ra.key")}}
    async with opened(peer.scep(signer=other_pair)) as ca:
        with pytest.raises(UpstreamRejected):
            await ca.issue(wanted())
    connection = {"anchors": str(peer.server.root)}
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text("wrong")
    async with opened(peer.est(connection=connection, username="demo", password={"file": str(secret)})) as ca:
        with pytest.raises((AuthFailed, UpstreamRejected)):
            await ca.issue(wanted())


# Debian's scepserver


def plain(challenge: str | None = scepserver.CHALLENGE) -> IssueRequest:
    """What scepserver certifies: the subject, host names and e-mail addresses as they are asked for, one usage and purpose."""
    key = generate_private_key("rsa-2048")
    subject, sans = "CN=pump-3.example.org", (make_san(SanKind.DNS, "pump-3.example.org"),)
    request = make_request(subject=subject, sans=sans, key=key, ekus=(eku_oid("clientAuth"),), days=365)
    return replace(request, request=build_csr(key, parse_name_text(subject).der, sans, challenge), public_key=public_key_der(key))


async def test_scepserver_issues(scep_peer: ScepPeer) -> None:
    async with opened(scep_peer.section()) as ca:
        assert not ca.capabilities & (Capability.FIND | Capability.REPEATABLE)
        request = plain()
        certificate = check_issued(ca, request, await ca.issue(request))
        assert [trial for trial in await ca.check() if not trial.good] == []
    assert scep_peer.issued(request.public_key) == [certificate]


async def test_scepserver_wants_its_challenge(scep_peer: ScepPeer) -> None:
    wrong = plain("wrong")
    async with opened(scep_peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match="does not bring the challenge"):
            await ca.issue(wrong)
    section = scep_peer.section()
    del section["challenge"]
    async with opened(section) as ca:
        with pytest.raises(UpstreamRejected, match="bad_request"):
            await ca.issue(wrong)
    assert scep_peer.issued(wrong.public_key) == []


async def test_scepserver_knows_no_poll(scep_peer: ScepPeer) -> None:
    async with opened(scep_peer.section(remembers="10m")) as ca:
        request = plain()
        check_issued(ca, request, await ca.issue(request))
        with pytest.raises(NotSent):
            await ca.find(replace(request, in_doubt_since=datetime.now(UTC)))
    assert len(scep_peer.issued(request.public_key)) == 1


async def test_scepserver_remembers_nothing(scep_peer: ScepPeer) -> None:
    """Why `remembers` is not for it, and why a doubt is held."""
    async with opened(scep_peer.section()) as ca:
        request = plain()
        first, second = await ca.issue(request), await ca.issue(request)
    assert check_issued(ca, request, first) != check_issued(ca, request, second)


# gateway behind gateway


def _behind(section: dict[str, Any]) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["upstream_cas"]["there"] = section
        demo = document["profiles"]["demo"]
        demo["upstream_ca"] = "there"
        demo["credentials"] = [one for one in demo["credentials"] if one["type"] != "static"]

    return change


@pytest.fixture
def front(tmp_path: Path, section: Callable[..., dict[str, Any]]) -> Iterator[RunningServer]:
    running = launch(tmp_path / "state", edit=edit(_behind(section())))
    try:
        yield running
    finally:
        assert running.stop() == 0


def test_gateway_behind_gateway(front: RunningServer, peer: GatewayPeer) -> None:
    key = generate_private_key("rsa-2048")
    leaf, _ = front.enroll_by_est("CN=behind.example.org", key)
    assert peer.issued(public_key_der(key)) == [leaf.der]
    rows = json.loads(front.cli("certs", "list", "--format", "json").stdout)
    assert [row["upstream_ca"] for row in rows] == ["there"]


def test_a_static_challenge_goes_nowhere(peer: GatewayPeer, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="gets requests as they came"):
        launch(
            tmp_path / "state",
            edit=edit(lambda document: document["upstream_cas"].update(there=peer.est()), _to_there),
        )


def _to_there(document: dict[str, Any]) -> None:
    document["profiles"]["demo"]["upstream_ca"] = "there"
