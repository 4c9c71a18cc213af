"""OCSP over HTTP: one question for many who wait, bounds on what responders may cost, and openssl's own responder."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.x509 import ocsp

from gateway.config.credentials import Ocsp
from gateway.errors import Reason, Rejection
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import serialize_private_key
from gateway.pki.ocsp import MAX_RESPONSE_BYTES, build_ocsp_request
from gateway.validation import ocsp as module
from gateway.validation.ocsp import ASKED_AGAIN_AFTER, KEPT_FOR, MAX_QUESTIONS, OcspClient
from tests.conftest import free_port
from tests.unit.pki.test_ocsp import CA, CA_PARSED, LEAF, LEAF_PARSED, OCSP_METHOD, access, answer, uri
from tests.unit.pki.test_path_building import LOW, MID, ROOT
from tests.unit.pki.test_path_building import device as device_of
from tests.unit.ra.fleet import DAY, NOW, enroll, key_of

SECOND = timedelta(seconds=1)
GOOD, REVOKED, UNKNOWN = (ocsp.OCSPCertStatus[name] for name in ("GOOD", "REVOKED", "UNKNOWN"))


@dataclass
class Responder:
    """A server that answers as told, and notes what it was asked."""

    url: str
    body: bytes = field(default_factory=answer)
    bodies: list[bytes] = field(default_factory=list)
    """What is answered first, one after the other."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: asyncio.Event | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def respond(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked.append((request.method, request.headers.get("Content-Type", "")))
        if self.wait is not None:
            await self.wait.wait()
        return web.Response(body=self.bodies.pop(0) if self.bodies else self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def serve(**options: Any) -> AsyncIterator[Responder]:
    port = free_port()
    responder = Responder(f"http://127.0.0.1:{port}/ocsp", **options)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", responder.respond)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield responder
    finally:
        if responder.wait is not None:
            responder.wait.set()
        await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[OcspClient]:
    made = OcspClient()
    yield made
    await made.close()


def config(url: str | None, **changes: Any) -> Ocsp:
    return Ocsp.model_validate({"url": url, **changes}, strict=False)


async def check(client: OcspClient, url: str | None, at: datetime = NOW, leaf: bytes = LEAF, **settings: Any) -> Reason | None:
    try:
        await client.source(config(url, **settings)).check(parse_certificate(leaf), (CA_PARSED,), at)
    except Rejection as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(GOOD, None, id="good"),
        pytest.param(REVOKED, Reason.CREDENTIAL_REVOKED, id="revoked"),
        pytest.param(UNKNOWN, Reason.NOT_AUTHORIZED, id="unknown"),
    ],
)
@pytest.mark.parametrize("mode", ["refuse", "accept"])
async def test_what_a_responder_says_counts(client: OcspClient, status: Any, reason: Reason | None, mode: str) -> None:
    async with serve(body=answer(status=status)) as responder:
        assert await check(client, responder.url, if_unavailable=mode) is reason
        assert await check(client, responder.url, if_unavailable=mode) is reason
        assert responder.asked == [("POST", "application/ocsp-request")], "and is kept"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"status": 500}, id="error"),
        pytest.param({"status": 404}, id="nothing-there"),
        pytest.param({"status": 302, "headers": {"Location": "/elsewhere"}}, id="redirection"),
        pytest.param({"body": b"<html>"}, id="a-page"),
        pytest.param({"body": b""}, id="nothing"),
        pytest.param({"body": b"\x30\x03\x0a\x01\x03"}, id="try-later"),
        pytest.param({"body": b"x" * (MAX_RESPONSE_BYTES + 1)}, id="large"),
        pytest.param({"body": answer(leaf=enroll(subject="CN=other"))}, id="another-certificates"),
        pytest.param({"body": answer(next_update=NOW)}, id="over"),
    ],
)
async def test_nobody_vouches(client: OcspClient, options: dict[str, Any]) -> None:
    async with serve(**options) as responder:
        for mode, reason in (("refuse", Reason.UPSTREAM_UNAVAILABLE), ("accept", None)):
            assert await check(client, responder.url, if_unavailable=mode) is reason
        assert len(responder.asked) == 1, "the question is not asked again for a while"
        responder.body, responder.status = answer(), 200
        assert await check(client, responder.url, NOW + ASKED_AGAIN_AFTER - SECOND) is Reason.UPSTREAM_UNAVAILABLE
        other = enroll(subject="CN=other")
        responder.bodies = [answer(leaf=other)]
        assert await check(client, responder.url, leaf=other) is None, "nobody else is refused for it"
        assert await check(client, responder.url, NOW + ASKED_AGAIN_AFTER) is None


async def test_nobody_listens(client: OcspClient) -> None:
    assert await check(client, f"http://127.0.0.1:{free_port()}") is Reason.UPSTREAM_UNAVAILABLE


async def test_a_silent_responder_holds_up_once(client: OcspClient) -> None:
    async with serve(wait=asyncio.Event()) as responder:
        begun = asyncio.get_running_loop().time()
        for leaf in (LEAF, enroll(subject="CN=other")):
            assert await check(client, responder.url, leaf=leaf, timeout="1s") is Reason.UPSTREAM_UNAVAILABLE
        assert asyncio.get_running_loop().time() - begun < 1.9
        assert len(responder.asked) == 1


@pytest.mark.parametrize(
    ("next_update", "kept_for"),
    [
        pytest.param(NOW + timedelta(minutes=5), timedelta(minutes=5), id="until-next-update"),
        pytest.param(NOW + 30 * DAY, KEPT_FOR, id="an-hour-at-most"),
    ],
)
async def test_how_long_an_answer_is_kept(client: OcspClient, next_update: datetime, kept_for: timedelta) -> None:
    async with serve(body=answer(next_update=next_update)) as responder:
        assert await check(client, responder.url) is None
        assert await check(client, responder.url, NOW + kept_for - SECOND) is None
        assert len(responder.asked) == 1
        responder.body = answer(status=REVOKED, this_update=NOW, next_update=NOW + DAY)
        assert await check(client, responder.url, NOW + kept_for) is Reason.CREDENTIAL_REVOKED
        await check(client, responder.url, NOW - SECOND)
        assert len(responder.asked) == 3, "a clock that was put back makes nothing last"


async def test_many_wait_for_one_question(client: OcspClient) -> None:
    wait = asyncio.Event()
    async with serve(wait=wait) as responder:
        asking = [asyncio.create_task(check(client, responder.url)) for _ in range(20)]
        while not responder.asked:
            await asyncio.sleep(0.01)
        asking[0].cancel()
        await asyncio.sleep(0)
        wait.set()
        assert await asyncio.gather(*asking[1:]) == [None] * 19, "whoever asked first may have gone"
        assert len(responder.asked) == 1


async def test_questions_are_bounded(client: OcspClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 2)
    wait = asyncio.Event()
    async with serve(wait=wait) as responder:
        asking = [asyncio.create_task(check(client, responder.url, leaf=enroll(subject=f"CN={n}"))) for n in range(2)]
        while len(responder.asked) < 2:
            await asyncio.sleep(0.01)
        assert await check(client, responder.url) is Reason.UPSTREAM_UNAVAILABLE
        assert len(responder.asked) == 2
        wait.set()
        await asyncio.gather(*asking)


async def test_memory_is_bounded(client: OcspClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 2)
    async with serve() as responder:
        for number in range(4):
            await check(client, responder.url, leaf=enroll(subject=f"CN={number}"))
    assert len(client._answers) == 2
    for number in range(MAX_QUESTIONS + 3):
        client._leave_alone(f"http://{number}", NOW)
    assert len(client._silent) == MAX_QUESTIONS


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://127.0.0.1:port/", "http://user@127.0.0.1/", "http://127.0.0.1:99999/"]
)
async def test_urls_that_a_certificate_should_not_have(client: OcspClient, url: str) -> None:
    leaf = enroll(extensions=(access((OCSP_METHOD, uri(url))),))
    assert await check(client, None, leaf=leaf) is Reason.UPSTREAM_UNAVAILABLE
    assert client._session is None


async def test_whom_to_ask(client: OcspClient) -> None:
    """The configured responder about the leaf, else the one that it names; neither is nobody."""
    assert await check(client, None) is Reason.UPSTREAM_UNAVAILABLE
    async with serve() as configured, serve() as named:
        leaf = enroll(extensions=(access((OCSP_METHOD, uri(named.url))),))
        named.body = configured.body = answer(leaf=leaf)
        assert await check(client, configured.url, leaf=leaf) is None
        assert (len(configured.asked), len(named.asked)) == (1, 0)
        assert await check(client, None, leaf=leaf) is None
        assert (len(configured.asked), len(named.asked)) == (1, 1)


@pytest.mark.parametrize("revoked", ["leaf", "low", "mid", ""])
async def test_the_cas_of_a_path_are_asked_about(client: OcspClient, revoked: str) -> None:
    low, mid, root = map(parse_certificate, (LOW, MID, ROOT))
    leaf = device_of("Low", LOW)
    pairs = {"leaf": ("Low", LOW, leaf), "low": ("Mid", MID, LOW), "mid": ("Root", ROOT, MID)}
    bodies = [
        answer(ca, certificate, subject, certificate, REVOKED if name == revoked else GOOD)
        for name, (ca, certificate, subject) in pairs.items()
    ]
    async with serve(bodies=bodies) as responder:
        source = client.source(config(responder.url))
        try:
            await source.check(parse_certificate(leaf), (low, mid, root), NOW)
            reason = None
        except Rejection as refused:
            reason = refused.reason
        assert reason is (Reason.CREDENTIAL_REVOKED if revoked else None)
        assert len(responder.asked) == (list(pairs).index(revoked) + 1 if revoked else 3)


async def test_close_ends_what_is_under_way() -> None:
    client = OcspClient()
    async with serve(wait=asyncio.Event()) as responder:
        asking = asyncio.create_task(check(client, responder.url))
        while not responder.asked:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await client.close()


def ask_openssl(folder: Path, line: str) -> bytes:
    """What `openssl ocsp` answers to our question from an index of this one line."""
    (folder / "index.txt").write_text(line)
    (folder / "ca.pem").write_bytes(der_to_pem(CA))
    (folder / "ca.key").write_bytes(serialize_private_key(key_of("Old CA")))
    (folder / "q.der").write_bytes(build_ocsp_request(LEAF_PARSED, CA_PARSED))
    signer = ["-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key", "-nmin", "5"]
    command = ["openssl", "ocsp", "-index", "index.txt", *signer, "-reqin", "q.der", "-respout", "r.der"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return (folder / "r.der").read_bytes()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("V\t300101000000Z\t\t{serial}\tunknown\t/CN=gate-1\n", None, id="good"),
        pytest.param(
            "R\t300101000000Z\t250101000000Z,keyCompromise\t{serial}\tunknown\t/CN=gate-1\n",
            Reason.CREDENTIAL_REVOKED,
            id="revoked",
        ),
        pytest.param("", Reason.NOT_AUTHORIZED, id="unknown"),
    ],
)
async def test_openssls_answers(client: OcspClient, tmp_path: Path, line: str, reason: Reason | None) -> None:
    serial = f"{LEAF_PARSED.serial:X}"
    body = ask_openssl(tmp_path, line.format(serial="0" * (len(serial) % 2) + serial))
    async with serve(body=body) as responder:
        assert await check(client, responder.url, datetime.now(UTC) + SECOND) is reason
