"""Requests as bytes over a socket of their own, for what no HTTP library lets a client send."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class RawAnswer:
    """The last answer of a connection; `status` is 0 where there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "")


async def exchange(port: int, request: bytes) -> RawAnswer:
    """Send `request`, which must ask for the connection to be closed, and read until the server has done so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            received = await reader.read()
    except ConnectionResetError:
        received = b""
    finally:
        writer.close()
    return parse_answer(received)


def parse_answer(received: bytes) -> RawAnswer:
    """Take the last answer apart; a 100 Continue may stand before it (RFC 9110 §15.2.1)."""
    head, _, body = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return parse_answer(body)
    if not head:
        return RawAnswer(0, {}, b"")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return RawAnswer(int(status.split()[1]), headers, body)


def get(target: str, *, version: str = "1.0", headers: str = "") -> bytes:
    """Return a GET that asks for the connection to be closed."""
    host = "" if version == "1.0" else "Host: pki.example\r\nConnection: close\r\n"
    return f"GET {target} HTTP/{version}\r\n{host}{headers}\r\n".encode("latin-1")


def post(target: str, body: bytes, headers: str = "", *, version: str = "1.1") -> bytes:
    """Return a POST that asks for the connection to be closed and says nothing of its body but the length."""
    host = "" if version == "1.0" else "Host: pki.example\r\nConnection: close\r\n"
    head = f"POST {target} HTTP/{version}\r\n{host}Content-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body
