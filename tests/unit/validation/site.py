"""What tests of challenges share: a profile's validation over the tests' DNS server, tasks, and servers that answer as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.config.acme import AcmeValidation, TrustMode
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.validation.interfaces import ValidationFailed, ValidationTask
from gateway.validation.profile import ProfileValidation, ValidationRoom, build_validation
from tests.conftest import free_port

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TOKEN = "DGyRejmCefe7v4NfDGDKfA"
THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
KEY_AUTHORIZATION = f"{TOKEN}.{THUMBPRINT}"
ACCOUNT = "https://pki.test/acme/corp/acct/one"


def settings(server: str | None = None, **fields: Any) -> AcmeValidation:
    """Read a validation as it stands in a file; loopback may be connected to unless `fields` says otherwise."""
    resolver = {"timeout": "3s"} | ({"servers": [server]} if server else {}) | fields.pop("resolver", {})
    return AcmeValidation.model_validate_json(json.dumps({"allow_cidrs": ["127.0.0.0/8"], "resolver": resolver} | fields))


def validation(
    server: str | None = None, mode: TrustMode = "standard", room: ValidationRoom | None = None, **fields: Any
) -> ProfileValidation:
    return build_validation(settings(server, **fields), mode, room or ValidationRoom(), webhook_secret=b"secret")


def dns_name(name: str) -> Identifier:
    return Identifier(IdentifierType.DNS, name)


def ip_name(address: str) -> Identifier:
    return Identifier(IdentifierType.IP, address)


def task(
    type: ChallengeType = ChallengeType.HTTP_01,
    identifier: Identifier | None = None,
    *,
    wildcard: bool = False,
    subdomains: bool = False,
) -> ValidationTask:
    return ValidationTask(
        type,
        identifier or dns_name("www.acme.test"),
        TOKEN,
        THUMBPRINT,
        ACCOUNT,
        "127.0.0.1",
        wildcard=wildcard,
        subdomains=subdomains,
    )


async def refused(work: Awaitable[object], reason: Reason, words: str = "") -> ValidationFailed:
    """Await a refusal and return it."""
    with pytest.raises(ValidationFailed) as caught:
        await work
    assert caught.value.reason is reason, caught.value
    assert words in caught.value.detail, caught.value.detail
    return caught.value


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1", port: int = 0, **arguments: Any) -> AsyncIterator[int]:
    """Serve TCP with `handler` while the block runs; yields the port."""

    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        tasks.add(current)
        try:
            await handler(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            tasks.discard(current)

    server = await asyncio.start_server(handle, host, port or free_port(), **arguments)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for running in tuple(tasks):
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def answering(*responses: str | bytes, requests: list[str] | None = None) -> Handler:
    """Answer the first request with the first response, and so on, the last one again and again."""
    rest = [r.encode("latin-1") if isinstance(r, str) else r for r in responses]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(head.decode("latin-1"))
        writer.write(rest.pop(0) if len(rest) > 1 else rest[0])
        await writer.drain()

    return handle


def ok(body: str = KEY_AUTHORIZATION, headers: str = "") -> str:
    return f"HTTP/1.1 200 OK\r\n{headers}\r\n{body}"


def redirect(location: str, status: int = 302) -> str:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
