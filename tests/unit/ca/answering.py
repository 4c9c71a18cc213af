"""An HTTP server on loopback that answers what a test says, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.interfaces import AuthFailed, IssueRequest, NotSent, Unavailable, UnknownResult
from gateway.model import Grant, ProfileName, RequestForm, RequestId
from gateway.pki.certificate import Issuer, build_certificate, new_serial, pem_to_ders
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der
from gateway.pki.names import parse_name_text

DROP = b""
"""An answer that never comes: the connection is closed."""
DEVICE = generate_private_key("ec-p256")


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Asked], bytes]


@dataclass
class Peer:
    """The server; `answer` may be changed at any time."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(head[0], headers, body))
                answer = self.answer(self.asked[-1])
                if answer == DROP:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Peer]:
    peer = Peer(answer)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


def http(status: int, body: bytes = b"", media_type: str = "text/plain", **headers: str) -> bytes:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} x\r\nContent-Type: {media_type}\r\n{named}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chain_of(hierarchy: Hierarchy) -> tuple[bytes, ...]:
    return (*pem_to_ders(hierarchy.issuing.certificate), *pem_to_ders(hierarchy.root.certificate))


def certify(hierarchy: Hierarchy, csr: bytes) -> bytes:
    """Issue what a CSR asks for, as a CA would."""
    asked = parse_csr(csr)
    issuer = Issuer.from_certificate(chain_of(hierarchy)[0], load_private_key(hierarchy.issuing.key))
    now = datetime.now(UTC).replace(microsecond=0)
    ekus = (eku_oid("clientAuth"),)
    grant = Grant(asked.subject.der, asked.sans, ("digitalSignature",), ekus, now, now + timedelta(days=30))
    return build_certificate(issuer, new_serial(), grant, asked.public_key.der)


def new_request(number: int = 1, challenge: str | None = None, **changes: object) -> IssueRequest:
    now = datetime.now(UTC).replace(microsecond=0)
    subject = parse_name_text("CN=device").der
    grant = Grant(subject, (), ("digitalSignature",), (eku_oid("clientAuth"),), now, now + timedelta(days=30))
    csr = build_csr(DEVICE, subject, (), challenge)
    fields: dict[str, object] = {"in_doubt_since": None, "timeout": 5.0, **changes}
    identifier = RequestId(f"01JTEST{number:019d}")
    return IssueRequest(
        identifier,
        ProfileName("demo"),
        RequestForm.PKCS10,
        csr,
        public_key_der(DEVICE),
        grant,
        None,
        **fields,  # type: ignore[arg-type] # fields by name
    )


BY_STATUS = [
    pytest.param(http(401), AuthFailed, id="401"),
    pytest.param(http(403), AuthFailed, id="403"),
    pytest.param(http(404), NotSent, id="404"),
    pytest.param(http(405), NotSent, id="405"),
    pytest.param(http(301), NotSent, id="redirect"),
    pytest.param(http(503), Unavailable, id="503"),
    pytest.param(http(429), Unavailable, id="429"),
    pytest.param(http(400), UnknownResult, id="400-that-anybody-may-have-written"),
    pytest.param(http(500), UnknownResult, id="500"),
    pytest.param(http(502), UnknownResult, id="502"),
    pytest.param(http(204), UnknownResult, id="204"),
    pytest.param(http(200, b"<html>", "text/html"), UnknownResult, id="html-with-200"),
    pytest.param(DROP, UnknownResult, id="dropped"),
]
"""What comes over plain HTTP in place of a message of the protocol, and what it means for a request."""
