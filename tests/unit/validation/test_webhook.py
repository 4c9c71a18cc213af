"""Trust by webhook: only a clear yes to a signed question is one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import Reason
from gateway.validation.profile import ProfileValidation, ValidationRoom, build_validation
from gateway.validation.webhook import MAX_ANSWER
from tests.conftest import free_port
from tests.unit.validation.site import dns_name, redirect, refused, serving, settings, validation

NAME = dns_name("*.host.test")
YES = '{"allow": true}'


@asynccontextmanager
async def service(response: str, questions: list[tuple[str, bytes]] | None = None) -> AsyncIterator[ProfileValidation]:
    """Serve one answer, and yield the validation that asks for it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        body = await reader.readexactly(length)
        if questions is not None:
            questions.append((head, body))
        writer.write(response.encode())
        await writer.drain()

    async with serving(handle) as port:
        yield asking(port)


def asking(port: int) -> ProfileValidation:
    webhook = {"url": f"http://127.0.0.1:{port}/names", "secret": {"env": "X"}, "timeout": "1s"}
    return validation(mode="webhook", webhook=webhook)


def http(body: str, status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"


async def test_yes_to_a_signed_question() -> None:
    questions: list[tuple[str, bytes]] = []
    async with service(http(YES), questions) as given:
        assert await given.vouch(NAME, "10.0.0.7", account="one", external_account="fleet")
    head, body = questions[0]
    assert head.startswith("POST /names HTTP/1.1\r\n")
    assert json.loads(body) == {
        "identifier": {"type": "dns", "value": "*.host.test"},
        "account": "one",
        "external_account": "fleet",
        "address": "10.0.0.7",
    }
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    assert f"X-Gateway-Signature: {signature}\r\n" in head
    assert "secret" not in head


async def test_no_is_final() -> None:
    async with service(http('{"allow": false}')) as given:
        failure = await refused(given.vouch(NAME, "10.0.0.7"), Reason.VALIDATION_UNAUTHORIZED, "*.host.test")
    assert failure.final


NOT_A_YES = {
    "no_json": http("yes"),
    "text": http('{"allow": "true"}'),
    "one": http('{"allow": 1}'),
    "null": http('{"allow": null}'),
    "absent": http("{}"),
    "list": http("[true]"),
    "true": http("true"),
    "empty": http(""),
    "nested": http("[" * 20000)[: MAX_ANSWER + 100],
    "too_large": http(" " * (MAX_ANSWER + 1) + YES),
    "other_status": http(YES, "201 Created"),
    "no_content": "HTTP/1.1 204 No Content\r\n\r\n",
    "forbidden": http(YES, "403 Forbidden"),
    "error": http(YES, "500 Oops"),
    "redirect": redirect("/other"),
    "no_http": "nonsense\r\n\r\n",
    "nothing": "",
}


@pytest.mark.parametrize("response", NOT_A_YES.values(), ids=NOT_A_YES)
async def test_whatever_is_not_a_yes(response: str) -> None:
    async with service(response) as given:
        failure = await refused(given.vouch(NAME, "10.0.0.7"), Reason.VALIDATION_UNAUTHORIZED, "cannot be found out now")
    assert not failure.final
    assert "127.0.0.1" not in failure.detail


async def test_nobody_answers() -> None:
    await refused(asking(free_port()).vouch(NAME, "10.0.0.7"), Reason.VALIDATION_UNAUTHORIZED)


async def test_silence() -> None:
    async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(idle) as port:
        await refused(asking(port).vouch(NAME, "10.0.0.7"), Reason.VALIDATION_UNAUTHORIZED)


def test_needs_url_and_secret() -> None:
    with pytest.raises(ValueError, match="URL and secret"):
        build_validation(settings(), "webhook", ValidationRoom(), webhook_secret=b"x")
    given = settings(webhook={"url": "http://127.0.0.1:1", "secret": {"env": "X"}})
    with pytest.raises(ValueError, match="URL and secret"):
        build_validation(given, "webhook", ValidationRoom())
