"""An EST server as upstream CA: what each answer means, what is sent twice and what never is."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.ca import est
from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.est import EstBackend
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.local import CaUrls
from gateway.ca.setup import Setup
from gateway.ca.verify import verify_issued
from gateway.config.fields import SecretSource
from gateway.config.load import Sources
from gateway.config.remote_cas import EstCA
from gateway.errors import ConfigurationError
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate
from gateway.wire.est import messages
from tests.unit.ca.answering import DROP, Answer, Asked, Peer, answering, certify, chain_of, http, new_request

CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
NAME = UpstreamCAName("partner")
PASSWORD = "a password of ours"
SECRET = SecretSource.model_validate({"file": "password"}, strict=False)


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


def make(hierarchy: Hierarchy, url: str, password: bytes = PASSWORD.encode(), **settings: Any) -> EstBackend:
    raw = {"type": "est", "url": f"{url}/.well-known/est/devices", "chain": ["ca.pem"], "username": "gateway"}
    config = EstCA.model_validate({**raw, "password": {"file": "password"}, **settings}, strict=False)
    held = Sources(Path("/etc/gw/profiles.yaml"), "profiles.yaml", b"", {}, {str(SECRET): password})
    made = est.create(config, Setup(NAME, chain_of(hierarchy), held))
    assert isinstance(made, EstBackend)
    return made


@asynccontextmanager
async def upstream(hierarchy: Hierarchy, answer: Answer, **settings: Any) -> AsyncIterator[tuple[EstBackend, Peer]]:
    async with answering(answer) as peer:
        ca = make(hierarchy, peer.url, **settings)
        await ca.start()
        try:
            yield ca, peer
        finally:
            await ca.close()


def issuing(hierarchy: Hierarchy) -> Answer:
    def answer(asked: Asked) -> bytes:
        csr = base64.b64decode(asked.body)
        return http(200, messages.encode_certs_only((certify(hierarchy, csr),), True), CERTS_ONLY)

    return answer


async def test_issues_what_the_device_asked_for(hierarchy: Hierarchy) -> None:
    request = new_request()
    async with upstream(hierarchy, issuing(hierarchy)) as (ca, peer):
        issued = await ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
    [asked] = peer.asked
    assert asked.line == "POST /.well-known/est/devices/simpleenroll HTTP/1.1"
    assert base64.b64decode(asked.body) == request.request
    assert asked.headers["content-type"] == "application/pkcs10"
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"gateway:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(http(401, WWW_Authenticate="Basic realm=x"), AuthFailed, "401", id="401"),
        pytest.param(http(404), NotSent, "no EST service", id="404"),
        pytest.param(http(302, Location="https://elsewhere.example/"), NotSent, "no EST service", id="redirect"),
        pytest.param(http(503, Retry_After="77"), Unavailable, "503", id="503"),
        pytest.param(http(429), Unavailable, "429", id="429"),
        pytest.param(http(403, b"the name is not allowed\n"), UpstreamRejected, "the name is not allowed", id="403"),
        pytest.param(http(400, b"<h1>no</h1>", "text/html"), UpstreamRejected, r"refused the request \(400\)", id="a-page"),
        pytest.param(http(500), UnknownResult, "500", id="500"),
        pytest.param(http(502), UnknownResult, "502", id="502"),
        pytest.param(http(504), UnknownResult, "504", id="504"),
        pytest.param(http(204), UnknownResult, "204", id="204"),
        pytest.param(http(200, b"<html>", "text/html"), UnknownResult, "no certificate", id="html-with-200"),
        pytest.param(http(200, b"MAA=", CERTS_ONLY), UnknownResult, "no certificate", id="empty"),
        pytest.param(http(200, b"!", CERTS_ONLY), UnknownResult, "no certificate", id="no-base64"),
        pytest.param(DROP, UnknownResult, "no whole answer", id="dropped"),
    ],
)
async def test_other_answers(hierarchy: Hierarchy, answer: bytes, error: type[UpstreamError], said: str) -> None:
    async with upstream(hierarchy, lambda _: answer) as (ca, peer):
        with pytest.raises(error, match=said) as raised:
            await ca.issue(new_request())
    assert len(peer.asked) == 1
    assert type(raised.value) is error
    assert PASSWORD not in repr(raised.value)
    if isinstance(raised.value, Unavailable) and b"77" in answer:
        assert raised.value.retry_after == 77


async def test_two_certificates_are_no_answer(hierarchy: Hierarchy) -> None:
    body = messages.encode_certs_only(chain_of(hierarchy), True)
    async with upstream(hierarchy, lambda _: http(200, body, CERTS_ONLY)) as (ca, _):
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())


async def test_nobody_is_there(hierarchy: Hierarchy) -> None:
    async with upstream(hierarchy, lambda _: DROP) as (_, peer):
        pass
    gone = make(hierarchy, peer.url)
    await gone.start()
    try:
        with pytest.raises(NotSent):
            await gone.issue(new_request())
    finally:
        await gone.close()


@pytest.mark.parametrize(("header", "seconds"), [("120", 120), ("99999999", 3600), ("Fri, 31 Dec 2027 23:59:59 GMT", 300)])
async def test_what_waits_is_sent_again_as_it_is(hierarchy: Hierarchy, header: str, seconds: int) -> None:
    async with upstream(hierarchy, lambda _: http(202, Retry_After=header)) as (ca, peer):
        assert {Capability.POLL, Capability.POLL_SENDS} <= set(ca.capabilities)
        request = new_request()
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert pending.retry_after == seconds
        peer.answer = issuing(hierarchy)
        assert isinstance(await ca.poll(request, pending.reference), UpstreamIssued)
    first, second = peer.asked
    assert (first.line, first.body) == (second.line, second.body)


async def test_what_waited_for_too_long_may_be_forgotten(hierarchy: Hierarchy) -> None:
    """A gateway that was away for long: the server may have issued and would issue again."""
    async with upstream(hierarchy, lambda _: http(202, Retry_After="3000"), remembers="10m") as (ca, peer):
        pending = await ca.issue(new_request())
        assert isinstance(pending, UpstreamPending)
        assert pending.retry_after == 150
        assert isinstance(await ca.poll(new_request(), pending.reference), UpstreamPending)
        for reference in (str(int(pending.reference) - 601), "", "x"):
            with pytest.raises(UnknownResult, match="forgotten"):
                await ca.poll(new_request(), reference)
    assert len(peer.asked) == 2


async def test_a_doubt_is_never_sent_again_where_nobody_remembers(hierarchy: Hierarchy) -> None:
    async with upstream(hierarchy, issuing(hierarchy)) as (ca, peer):
        assert not ca.capabilities & (Capability.FIND | Capability.REPEATABLE | Capability.REVOKE)
        with pytest.raises(UnknownResult, match="issued twice"):
            await ca.issue(new_request(in_doubt_since=datetime.now(UTC)))
        with pytest.raises(UnknownResult):
            await ca.find(new_request())
    assert peer.asked == []


async def test_a_doubt_is_sent_again_while_the_server_remembers(hierarchy: Hierarchy) -> None:
    async with upstream(hierarchy, issuing(hierarchy), remembers="10m") as (ca, peer):
        assert Capability.REPEATABLE in ca.capabilities
        now = datetime.now(UTC)
        assert isinstance(await ca.issue(new_request(in_doubt_since=now - timedelta(minutes=9))), UpstreamIssued)
        with pytest.raises(UnknownResult, match="so long"):
            await ca.issue(new_request(in_doubt_since=now - timedelta(minutes=11)))
    assert len(peer.asked) == 1


async def test_check(hierarchy: Hierarchy) -> None:
    shown = messages.encode_certs_only(tuple(reversed(chain_of(hierarchy))), True)
    async with upstream(hierarchy, lambda _: http(200, shown, CERTS_ONLY)) as (ca, peer):
        await ca.health()
        assert await ca.fetch_chain() == chain_of(hierarchy)
        assert [(trial.subject, trial.good) for trial in await ca.check()] == [("connection", True), ("chain", True)]
        other = chain_of(create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC)))
        peer.answer = lambda _: http(200, messages.encode_certs_only(other, True), CERTS_ONLY)
        assert [trial.good for trial in await ca.check()] == [True, False]
        peer.answer = lambda _: http(200, b"<html>", "text/html")
        assert [trial.good for trial in await ca.check()] == [False]
        with pytest.raises(NotSent):
            await ca.health()
    assert all("authorization" not in asked.headers for asked in peer.asked)


@pytest.mark.parametrize("password", [b"", b"two\nlines", b"\xff"], ids=["empty", "lines", "bytes"])
def test_passwords_that_cannot_be_sent(hierarchy: Hierarchy, password: bytes) -> None:
    with pytest.raises(ConfigurationError, match="password"):
        make(hierarchy, "http://127.0.0.1:1", password)


def test_a_name_with_a_colon(hierarchy: Hierarchy) -> None:
    with pytest.raises(ConfigurationError, match="colon") as raised:
        make(hierarchy, "http://127.0.0.1:1", username="a:b")
    assert PASSWORD not in str(raised.value)
