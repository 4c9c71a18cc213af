"""What HTTP says of CMP: paths, methods, media types, unreadable bodies, connections (RFC 9811 §3)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from gateway.asn1.cmp import OID_CA_CERTS, OID_SUPP_LANG_TAGS, FailInfo
from gateway.cmp import ErrorAnswer, General, GeneralInfo
from gateway.pki.certificate import pem_to_ders
from gateway.ra.strangers import ROWS_A_MINUTE
from gateway.web.floods import LOGGED_A_MINUTE
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import MacIdentity, Received, Sent, decode_answer, encode_message, pinned
from tests.flow.scep.raw import RawAnswer, parse_answer
from tests.flow.scep.service import Service, configure, make_folder, start_service

MEDIA_TYPE = "application/pkixcmp"
DEMO = "/.well-known/cmp/p/demo"
FAILURES = {"failures_per_address": {"count": 2, "window": "1h"}}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    folder = make_folder(tmp_path / "s")
    cmp = {"default": True, "aliases": ["pkix", "ejbca/publicweb/cmp/demo"]}
    configure(folder, demo={"endpoints": {"cmp": cmp}})
    running = await start_service(folder)
    yield running
    await running.close()


@dataclass
class Asker:
    """Sends general messages under a shared secret."""

    service: Service
    identity: MacIdentity

    @classmethod
    async def of(cls, service: Service, profile: str = "demo") -> Asker:
        made = await service.run("POST", "/v1/cmp-secrets", profile=profile)
        return cls(service, MacIdentity(made["reference"].encode(), made["secret"].encode()))

    def question(self, oid: str = OID_SUPP_LANG_TAGS) -> Sent:
        return encode_message(requests.genm((GeneralInfo(oid),)), self.identity, now=datetime.now(UTC))

    def read(self, answer: RawAnswer, sent: Sent) -> Received:
        assert (answer.status, answer.headers.get("content-type")) == (200, MEDIA_TYPE), answer
        signer = pem_to_ders((self.service.folder / "ca/cmp.pem").read_bytes())
        return decode_answer(answer.body, sent, secret=self.identity.secret, trusts=pinned(*signer), known=signer)


async def exchange(service: Service, *heads: str, body: bytes = b"", tls: ssl.SSLContext | None = None) -> list[RawAnswer]:
    """Send requests, whose heads lack their length, over one connection, and return their answers."""
    port = service.tls_port if tls else service.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None)
    answers = []
    try:
        for head in heads:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body)
            await writer.drain()
            received = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in received.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            answers.append(parse_answer(received + await reader.readexactly(length)))
    finally:
        writer.close()
        await writer.wait_closed()
    return answers


def post(path: str, *, media_type: str = MEDIA_TYPE, method: str = "POST", version: str = "1.1", more: str = "") -> str:
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: {media_type}\r\n{more}"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(DEMO, id="profile"),
        pytest.param(f"{DEMO}/", id="slash-at-the-end"),
        pytest.param("/.well-known//cmp/p//demo", id="doubled-slashes"),
        pytest.param("//.well-known/cmp/p/demo", id="doubled-in-front"),
        pytest.param("/.well-known/cmp", id="default"),
        pytest.param("/.well-known/cmp/", id="default-with-slash"),
        pytest.param(f"{DEMO}/getcacerts", id="operation"),
        pytest.param("/pkix/", id="alias"),
        pytest.param("/ejbca/publicweb/cmp/demo", id="long-alias"),
    ],
)
async def test_paths_that_are_served(service: Service, path: str) -> None:
    asker = await Asker.of(service)
    sent = asker.question(OID_CA_CERTS)
    (answer,) = await exchange(service, post(path), body=sent.message)
    received = asker.read(answer, sent)
    assert isinstance(received.body, General)
    assert received.protected
    assert answer.headers.get("cache-control") == "no-store"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(post("/.well-known/cmp/p/nobody"), 404, id="unknown-profile"),
        pytest.param(post(f"{DEMO}/enroll"), 404, id="unknown-operation"),
        pytest.param(post("/.well-known/cmpx"), 404, id="another-name"),
        pytest.param(post("/pki"), 404, id="no-alias"),
        pytest.param(post(DEMO, method="GET"), 405, id="get"),
        pytest.param(post(DEMO, method="PUT"), 405, id="put"),
        pytest.param(post("/pkix", method="GET"), 405, id="get-an-alias"),
        pytest.param(post("/crl/local.crl"), 405, id="another-ones-path"),
        pytest.param(post(DEMO, media_type="application/octet-stream"), 415, id="media-type"),
        pytest.param(post(DEMO, media_type="application/pkixcmp-poll"), 415, id="old-media-type"),
        pytest.param(post(DEMO), 400, id="no-message"),
        pytest.param(post(DEMO, media_type="Application/PKIXCMP; charset=x"), 400, id="media-type-with-parameters"),
        pytest.param(post(DEMO, more="Content-Encoding: gzip\r\n"), 415, id="encoded"),
    ],
)
async def test_what_http_refuses(service: Service, head: str, status: int) -> None:
    (answer,) = await exchange(service, head, body=b"nothing")
    assert answer.status == status
    assert (answer.headers.get("allow") == "POST") is (status == 405 and "crl" not in head)


async def test_a_body_that_is_too_large(service: Service) -> None:
    (answer,) = await exchange(service, post(DEMO), body=bytes(65537))
    assert answer.status == 413


async def test_an_operation_that_is_not_the_messages(service: Service) -> None:
    asker = await Asker.of(service)
    sent = asker.question()
    (answer,) = await exchange(service, post(f"{DEMO}/initialization"), body=sent.message)
    received = asker.read(answer, sent)
    assert isinstance(received.body, ErrorAnswer)
    assert received.fail_info == {FailInfo.BAD_REQUEST}


async def test_it_is_served_over_tls_too(service: Service) -> None:
    asker = await Asker.of(service)
    sent = asker.question()
    tls = ssl.create_default_context(cafile=service.folder / "ca/root.pem")
    (answer,) = await exchange(service, post(DEMO), body=sent.message, tls=tls)
    assert isinstance(asker.read(answer, sent).body, General)


@pytest.mark.parametrize(
    ("version", "more"),
    [pytest.param("1.0", "Connection: keep-alive\r\n", id="openssl"), pytest.param("1.1", "", id="http-1.1")],
)
async def test_a_connection_is_kept(service: Service, version: str, more: str) -> None:
    asker = await Asker.of(service)
    sent = asker.question()
    first, second = await exchange(service, *[post(DEMO, version=version, more=more)] * 2, body=sent.message)
    assert (first.status, second.status) == (200, 200)
    assert version == "1.1" or first.headers.get("connection") == "keep-alive"


async def test_an_address_that_fails_too_often(tmp_path: Path) -> None:
    service = await start_service(make_folder(tmp_path / "s"), demo={"limits": FAILURES})
    try:
        asker = await Asker.of(service)
        stranger = Asker(service, MacIdentity(b"nobody", b"a secret of nobody's"))
        (malformed,) = await exchange(service, post(DEMO), body=b"nothing")
        sent = stranger.question()
        (refused,) = await exchange(service, post(DEMO), body=sent.message)
        assert (malformed.status, refused.status) == (400, 200)
        (limited,) = await exchange(service, post(DEMO), body=asker.question().message)
        assert limited.status == 429
        assert int(limited.headers.get("retry-after") or 0) > 0
    finally:
        await service.close()


async def test_a_signer_that_has_ended(service: Service) -> None:
    asker = await Asker.of(service)
    service.clock.ahead = timedelta(days=365 * 6)
    (answer,) = await exchange(service, post(DEMO), body=asker.question().message)
    assert (answer.status, answer.headers.get("retry-after")) == (503, "300")


async def test_a_line_of_the_log(service: Service) -> None:
    asker = await Asker.of(service)
    sent = asker.question()
    with structlog.testing.capture_logs() as lines:
        await exchange(service, post(DEMO), body=sent.message)
    (line,) = [line for line in lines if line["event"] == "cmp"]
    assert {"profile": "demo", "operation": "genm", "outcome": "done", "source": "127.0.0.1"}.items() <= line.items()
    assert line["transaction_id"] == sent.transaction_id.hex()
    assert asker.identity.secret.decode() not in json.dumps(line, default=str)


async def test_strangers_fill_neither_log_nor_audit_trail(service: Service) -> None:
    stranger = Asker(service, MacIdentity(b"nobody", b"a secret of nobody's"))
    before, more = len(await service.audit()), 9
    with structlog.testing.capture_logs() as lines:
        for _ in range(ROWS_A_MINUTE + more):
            (answer,) = await exchange(service, post(DEMO), body=stranger.question().message)
            assert answer.status == 200
    assert len(await service.audit()) == before + ROWS_A_MINUTE
    assert len([line for line in lines if line["event"] == "cmp"]) == ROWS_A_MINUTE + LOGGED_A_MINUTE
    await service.endpoints.floods.flush()
    row = json.loads((await service.audit())[-1])
    assert (row["reason"], row["count"]) == ("bad_message_check", more)
