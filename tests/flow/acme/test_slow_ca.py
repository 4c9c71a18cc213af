"""A CA that takes an hour: the order stays `processing`, the client comes back when it is told to, and gets one certificate."""

import asyncio
import json
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.ca.interfaces import Capability, IssueRequest, UpstreamIssued, UpstreamPending
from gateway.ca.local import LocalCA
from gateway.model import SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.ra.acme import authority
from gateway.ra.acme.terms import AcmeTiming
from gateway.wire.acme.client import Trial, drive_async
from tests.flow.acme.driver import account, dns
from tests.flow.acme.site import Site, start_site
from tests.flow.scep.service import MovableClock

HOUR = timedelta(hours=1)


class SlowCA:
    """The CA signs an hour after it was asked, by the gateway's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = MovableClock()
        self.asked: list[IssueRequest] = []
        self.polled = 0
        self.signed = 0
        issue, start = LocalCA.issue, LocalCA.start

        async def begin(ca: LocalCA) -> None:
            await start(ca)
            ca.capabilities |= Capability.POLL

        async def accept(_: LocalCA, request: IssueRequest) -> UpstreamPending:
            self.asked.append(request)
            self.due = self.clock() + HOUR
            return UpstreamPending("ticket-1", 30)

        async def poll(ca: LocalCA, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
            assert reference == "ticket-1"
            self.polled += 1
            if self.clock() < self.due:
                return UpstreamPending(reference, 30)
            self.signed += 1
            return await issue(ca, request)

        monkeypatch.setattr(LocalCA, "start", begin)
        monkeypatch.setattr(LocalCA, "issue", accept)
        monkeypatch.setattr(LocalCA, "poll", poll, raising=False)


@pytest.fixture
def slow_ca(monkeypatch: pytest.MonkeyPatch) -> SlowCA:
    """Requests are held for a moment only: the time that passes here is the clock's."""
    monkeypatch.setattr(authority, "AcmeTiming", partial(AcmeTiming, poll_wait=0.05))
    return SlowCA(monkeypatch)


async def pass_time(site: Site, slow_ca: SlowCA, seconds: float, pauses: list[float]) -> None:
    """Let the time pass that the client was told to wait, and the gateway do what it does in the background."""
    pauses.append(seconds)
    site.service.clock.ahead += timedelta(seconds=seconds)
    slow_ca.clock.ahead = site.service.clock.ahead
    await site.service.gateway.recover()
    await site.service.gateway.validate()
    await asyncio.sleep(0.02)


async def test_an_hour(tmp_path: Path, slow_ca: SlowCA) -> None:
    site = await start_site(tmp_path / "s", lab={"finalize_wait": "1s"})
    pauses: list[float] = []
    key = generate_private_key("ec-p256")
    csr = build_csr(key, parse_name_text("").der, (make_san(SanKind.DNS, "www.demo.test"),))

    def respond(trial: Trial) -> dict[str, object] | None:
        if trial.type.value != "http-01":
            return None
        site.responder.tokens[trial.token] = trial.authorization
        return {}

    try:
        async with account(site, "lab") as driver:
            slow_ca.clock.ahead = site.service.clock.ahead
            flow = driver.client.issue(dns("www.demo.test"), csr, respond)
            async with asyncio.timeout(90):
                chain = await drive_async(flow, driver.send, lambda seconds: pass_time(site, slow_ca, seconds, pauses))
        audited = await site.audited()
    finally:
        await site.close()
    leaf = parse_certificate(chain[0])
    assert {san.value for san in leaf.sans} == {"www.demo.test"}
    assert (len(slow_ca.asked), slow_ca.signed) == (1, 1)
    assert site.service.clock.ahead >= HOUR
    assert sum(pauses) < 2 * HOUR.total_seconds()
    events = [json.loads(row)["event"] for row in audited]
    assert [event for event in events if event.startswith("acme.order.")] == [
        "acme.order.created",
        "acme.order.processing",
        "acme.order.valid",
    ]
    assert max(pauses) <= 60
    assert len(pauses) < 200
