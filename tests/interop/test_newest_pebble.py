"""pebble 2.10, built by the Go proxy: renewal windows, orders that replace a certificate, profiles and alternate chains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.ca.interfaces import IssueRequest, UpstreamIssued, UpstreamPending, UpstreamRejected
from gateway.model import RevocationReason, SanKind
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.extensions import eku_oid, make_san
from tests.contract.ca.test_acme import follow
from tests.peers import pebble
from tests.peers.opening import make_request, opened
from tests.peers.pebble import PebblePeer

pytestmark = [pytest.mark.extra, pytest.mark.interop, pytest.mark.timeout(900)]
VERSION = "v2.10.1"
USAGE, EKUS = ("digitalSignature",), (eku_oid("serverAuth"),)
WEEK = 7 * 86_400
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PebblePeer]:
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH")
    folder = tmp_path_factory.mktemp("newest-pebble")
    try:
        program = pebble.build_newest(folder / "build", VERSION)
    except OSError as error:
        pytest.skip(f"pebble {VERSION} cannot be built: {error}")
    profiles = {"default": YEAR, "shortlived": WEEK}
    with pebble.running(str(program), folder / "ca", profiles=profiles, PEBBLE_ALTERNATE_ROOTS="2") as found:
        yield found


def wanted(name: str, days: int = 366) -> IssueRequest:
    return make_request(subject=f"CN={name}", sans=(make_san(SanKind.DNS, name),), usage=USAGE, ekus=EKUS, days=days)


async def issue(peer: PebblePeer, request: IssueRequest, **options: Any) -> UpstreamIssued:
    async with opened(peer.section(**options)) as ca:
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        return await follow(ca, request, pending.reference)


async def test_issue_and_revoke(peer: PebblePeer) -> None:
    request = wanted("plain.acme.test")
    issued = await issue(peer, request)
    assert peer.issued(request.public_key) == [issued.certificate]
    leaf = parse_certificate(issued.certificate)
    async with opened(peer.section()) as ca:
        assert all(trial.good for trial in await ca.check())
        for _ in range(2):
            await ca.revoke(issued.certificate, leaf.serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    assert peer.status(leaf.serial) == "Revoked"


async def test_it_says_when_to_renew_and_is_told_what_is(peer: PebblePeer) -> None:
    first = await issue(peer, wanted("renewed.acme.test"))
    leaf = parse_certificate(first.certificate)
    async with opened(peer.section()) as ca:
        hint = await ca.renewal_hint(first.certificate)
    assert hint is not None
    assert leaf.not_before < hint.start < hint.end < leaf.not_after
    with capture_logs() as logs:
        await issue(peer, replace(wanted("renewed.acme.test"), renews=first.certificate))
        assert [line for line in logs if "in place of a certificate" in line["event"]] == []
        again = await issue(peer, replace(wanted("renewed.acme.test"), renews=first.certificate))
    assert next(line["cause"] for line in logs if "in place of a certificate" in line["event"]).startswith("alreadyReplaced")
    assert parse_certificate(again.certificate).serial != leaf.serial


async def test_a_profile(peer: PebblePeer) -> None:
    issued = await issue(peer, wanted("short.acme.test"), profile="shortlived")
    leaf = parse_certificate(issued.certificate)
    assert leaf.not_after - leaf.not_before <= timedelta(seconds=WEEK)
    async with opened(peer.section(profile="none-such")) as ca:
        trials = {trial.subject: trial for trial in await ca.check()}
        assert not trials["profile"].good
        assert "default, shortlived" in trials["profile"].finding
        with pytest.raises(UpstreamRejected, match="invalidProfile"):
            await ca.issue(wanted("short.acme.test"))


async def test_alternate_chains(peer: PebblePeer) -> None:
    """The chain that is pinned is taken, whatever the CA shows first."""
    chains = [peer.shown_chain(number) for number in range(3)]
    for number, (issuing, root) in enumerate(chains):
        path = peer.folder / f"chain-{number}.pem"
        path.write_bytes(der_to_pem(issuing) + der_to_pem(root))
        issued = await issue(peer, wanted(f"chain-{number}.acme.test"), chain=[str(path)])
        assert issued.chain == (issuing, root)
