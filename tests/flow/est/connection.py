"""One TLS connection of an EST client, kept alive, with every octet of what it sends in the test's hands."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.wire.est.client import EstAnswer, EstRequest, decode_answer
from tests.flow.scep.raw import RawAnswer

ANSWER_SECONDS = 30


@dataclass
class Connection:
    """Reads answers by their Content-Length, which every one of them must have (libest and strongSwan ask for it)."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str = ""
    """Status line and headers of the last answer, as they came."""

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None, *, source: str | None = None) -> Connection:
        """Connect; raises ssl.SSLError or ConnectionError where TLS 1.2 says no, TLS 1.3 says it with the first answer."""
        address = (source, 0) if source else None
        name = "localhost" if context else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name, local_addr=address))

    @property
    def tls(self) -> ssl.SSLObject:
        found = self.writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    @property
    def binding(self) -> str:
        """base64 of tls-unique as the client sees it (RFC 7030 §3.5)."""
        unique = self.tls.get_channel_binding("tls-unique")
        assert unique
        return base64.b64encode(unique).decode()

    async def send(self, data: bytes) -> RawAnswer:
        """Send one request as it stands; status 0 where the connection ended before an answer."""
        self.writer.write(data)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.writer.drain()
                return await self._read()
        except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
            return RawAnswer(0, {}, b"")

    async def _read(self) -> RawAnswer:
        self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n")
        status, *lines = self.head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return RawAnswer(int(status.split()[1]), headers, body)

    async def ask(self, request: EstRequest, headers: Mapping[str, str] | None = None) -> RawAnswer:
        """Send a request of our own client, with more headers."""
        named = {"Host": "pki.example", **request.headers, **(headers or {})}
        if request.method == "POST":
            named["Content-Length"] = str(len(request.body))
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return await self.send("\r\n".join((*lines, "", "")).encode("latin-1") + request.body)

    def close(self) -> None:
        self.writer.close()


def decoded(operation: str, answer: RawAnswer) -> EstAnswer:
    """Read an answer as our own client does."""
    return decode_answer(operation, answer.status, answer.headers, answer.body)
