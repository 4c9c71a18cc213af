"""One service with tight limits for each test, and a plain socket to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flow.scep.service import Service, start_service

LIMITS = """server:
  limits:
    body_bytes: 8192
    request_line_bytes: 16384
    header_bytes: 4096
    body_timeout: 1s
    connections: 12
    connections_per_address: 8
    requests_in_flight: 4
"""


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = await start_service(tmp_path / "s", edit={"server:\n": LIMITS})
    yield service
    await service.close()


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, or an empty one where the connection was closed without any."""

    status: int
    head: str
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return None


def parse(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    return Answer(int(text.split(" ")[1]) if text else 0, text, body)


Talk = Callable[..., Awaitable[Answer]]


@pytest.fixture
def talk(service: Service) -> Talk:
    """Send bytes, and read until the server closes or `seconds` are over."""

    async def send(*parts: bytes, seconds: float = 10, close: bool = False) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        data = b""
        try:
            async with asyncio.timeout(seconds):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                if close:
                    writer.write_eof()
                while chunk := await reader.read(65536):
                    data += chunk
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return parse(data)

    return send
