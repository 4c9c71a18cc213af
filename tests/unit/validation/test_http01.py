"""http-01: what is followed, what is refused, what is read, and that nothing of it comes back (RFC 8555 §8.3, §10.4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import Reason
from gateway.validation import http01 as module
from gateway.validation import reach
from gateway.validation.http01 import MAX_REDIRECTS
from gateway.validation.interfaces import Validated
from tests.conftest import free_port
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.certificates import server_context
from tests.unit.validation.site import (
    KEY_AUTHORIZATION,
    NOW,
    TOKEN,
    answering,
    dns_name,
    ip_name,
    ok,
    redirect,
    refused,
    serving,
    task,
    validation,
)

INCORRECT, CONNECTION, DNS = Reason.VALIDATION_INCORRECT, Reason.VALIDATION_CONNECTION, Reason.VALIDATION_DNS


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


async def test_host_header_and_path(dns: DnsServer) -> None:
    requests: list[str] = []
    async with serving(answering(ok(), requests=requests)) as port:
        assert await validation(dns.address, http01_port=port).validate(task(), NOW) == Validated()
    lines = requests[0].split("\r\n")
    assert lines[0] == f"GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1"
    assert f"Host: www.acme.test:{port}" in lines
    assert "Accept: */*" in lines


GOOD = {
    "to_the_end": ok(),
    "content_length": ok(headers=f"Content-Length: {len(KEY_AUTHORIZATION)}\r\n"),
    "trailing_whitespace": ok(KEY_AUTHORIZATION + " \r\n\t\n"),
    "chunked": ok(f"{len(KEY_AUTHORIZATION):x}\r\n{KEY_AUTHORIZATION}\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
    "chunks": ok(
        f"10\r\n{KEY_AUTHORIZATION[:16]}\r\n{len(KEY_AUTHORIZATION) - 16:x};x=y\r\n{KEY_AUTHORIZATION[16:]}\r\n0\r\n\r\n"
    ).replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", 1),
    "early_hints": "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(),
    "http_1_0": ok().replace("HTTP/1.1", "HTTP/1.0"),
    "no_reason_phrase": ok().replace(" OK", " "),
    "bare_line_feeds": ok().replace("\r\n", "\n"),
    "any_media_type": ok(headers="Content-Type: application/octet-stream\r\n"),
}


@pytest.mark.parametrize("response", GOOD.values(), ids=GOOD)
async def test_taken(dns: DnsServer, response: str) -> None:
    async with serving(answering(response)) as port:
        await validation(dns.address, http01_port=port).validate(task(), NOW)


LONG = KEY_AUTHORIZATION + "x" * 200
BAD = {
    "other_body": (ok("secret of another page"), INCORRECT),
    "empty": (ok(""), INCORRECT),
    "leading_whitespace": (ok(" " + KEY_AUTHORIZATION), INCORRECT),
    "more_than_is_read": (ok(LONG), INCORRECT),
    "short_content_length": (ok(headers="Content-Length: 10\r\n"), INCORRECT),
    "token_alone": (ok(TOKEN), INCORRECT),
    "other_thumbprint": (ok(f"{TOKEN}.AAAA"), INCORRECT),
    "html": (ok(f"<html>{KEY_AUTHORIZATION}</html>"), INCORRECT),
    "not_found": ("HTTP/1.1 404 Not Found\r\n\r\n" + KEY_AUTHORIZATION, INCORRECT),
    "server_error": ("HTTP/1.1 500 Oops\r\n\r\n" + KEY_AUTHORIZATION, INCORRECT),
    "partial_content": ("HTTP/1.1 206 Partial\r\n\r\n" + KEY_AUTHORIZATION, INCORRECT),
    "see_other": (redirect("/x", 303), INCORRECT),
    "multiple_choices": (redirect("/x", 300), INCORRECT),
    "no_http": ("SSH-2.0-OpenSSH_9.2\r\n", CONNECTION),
    "http_2": ("HTTP/2 200 OK\r\n\r\n" + KEY_AUTHORIZATION, CONNECTION),
    "nothing": ("", CONNECTION),
    "no_end_of_headers": ("HTTP/1.1 200 OK\r\nA: b\r\n", CONNECTION),
    "no_header": ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n" + KEY_AUTHORIZATION, CONNECTION),
    "many_headers": (ok(headers="X: y\r\n" * 70), CONNECTION),
    "long_header": (ok(headers=f"X: {'y' * 70000}\r\n"), CONNECTION),
    "interim_without_end": ("HTTP/1.1 100 Continue\r\n\r\n" * 20 + ok(), CONNECTION),
    "content_length_no_number": (ok(headers="Content-Length: many\r\n"), CONNECTION),
    "content_length_negative": (ok(headers="Content-Length: -1\r\n"), CONNECTION),
    "transfer_coding": (ok(headers="Transfer-Encoding: gzip, chunked\r\n"), CONNECTION),
    "no_chunk": (ok("zz\r\n", "Transfer-Encoding: chunked\r\n"), CONNECTION),
    "endless_chunk": (ok("ffffffff\r\n" + "x" * 300, "Transfer-Encoding: chunked\r\n"), INCORRECT),
}


@pytest.mark.parametrize(("response", "reason"), BAD.values(), ids=BAD)
async def test_refused(dns: DnsServer, response: str, reason: Reason) -> None:
    async with serving(answering(response)) as port:
        failure = await refused(validation(dns.address, http01_port=port).validate(task(), NOW), reason)
    assert "secret" not in failure.detail
    assert "html" not in failure.detail


async def test_never_more_than_little_is_read(dns: DnsServer) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 64 << 20:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with serving(pour) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), INCORRECT)
    assert sent < 32 << 20


async def test_slow_server(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.5)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for octet in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.1)

    begun = time.monotonic()
    async with serving(drip) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION, "in time")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_followed(dns: DnsServer, status: int) -> None:
    requests: list[str] = []
    async with serving(answering(redirect("/elsewhere?x=y", status), ok(), requests=requests)) as port:
        await validation(dns.address, http01_port=port).validate(task(), NOW)
    assert requests[1].startswith("GET /elsewhere?x=y HTTP/1.1\r\n")


async def test_redirect_to_another_host(dns: DnsServer) -> None:
    requests: list[str] = []
    port = free_port()
    async with serving(answering(redirect(f"http://other.acme.test:{port}/x"), ok(), requests=requests), port=port):
        await validation(dns.address, http01_port=port).validate(task(), NOW)
    assert f"Host: other.acme.test:{port}\r\n" in requests[1]


async def test_redirect_to_https_that_nobody_vouches_for(dns: DnsServer, tmp_path: Path) -> None:
    async with serving(answering(ok()), ssl=server_context(tmp_path, "other.test")) as secure:
        location = f"https://www.acme.test:{secure}/x"
        async with serving(answering(redirect(location))) as port:
            await validation(dns.address, http01_port=port, tlsalpn01_port=secure).validate(task(), NOW)


BAD_REDIRECTS = {
    "other_port": "http://www.acme.test:8080/",
    "ssh": "http://www.acme.test:22/",
    "user": "http://user@www.acme.test/",
    "user_and_password": "http://user:pass@www.acme.test/",
    "ftp": "ftp://www.acme.test/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://www.acme.test:80/x",
    "javascript": "javascript:alert(1)",
    "no_host": "http://:80/x",
    "nothing": "",
    "bad_port": "http://www.acme.test:99999/",
    "port_no_number": "http://www.acme.test:x/",
    "half_an_address": "http://[::1/",
    "long_path": "/" + "x" * 2001,
    "space": "/a b",
    "beyond_ascii": "/\xfc",
    "zone": "http://[fe80::1%25eth0]/",
}


@pytest.mark.parametrize("location", BAD_REDIRECTS.values(), ids=BAD_REDIRECTS)
async def test_redirects_that_are_not_followed(dns: DnsServer, location: str) -> None:
    requests: list[str] = []
    async with serving(answering(redirect(location), ok(), requests=requests)) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION)
    assert len(requests) == 1


INNER_HOSTS = {
    "private_beside_allowed": "10.0.0.1",
    "metadata": "169.254.169.254",
    "metadata_mapped": "[::ffff:a9fe:a9fe]",
    "metadata_6to4": "[2002:a9fe:a9fe::1]",
}
NO_NAMES = {"decimal": "2130706433", "octal": "0177.0.0.1", "hexadecimal": "0x7f000001", "short": "127.1"}
"""What some libraries take for 127.0.0.1, and we for names that no DNS server knows."""


@pytest.mark.parametrize("host", INNER_HOSTS.values(), ids=INNER_HOSTS)
async def test_redirects_lead_nowhere_that_the_profile_does_not_allow(dns: DnsServer, host: str) -> None:
    async with serving(answering(redirect(f"http://{host}/latest/meta-data"), ok())) as port:
        begun = time.monotonic()
        failure = await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION)
        assert time.monotonic() - begun < 2
    assert host.strip("[]") not in failure.detail


@pytest.mark.parametrize("host", NO_NAMES.values(), ids=NO_NAMES)
async def test_numbers_are_no_addresses(dns: DnsServer, host: str) -> None:
    async with serving(answering(redirect(f"http://{host}/"), ok())) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), DNS)


async def test_circle(dns: DnsServer) -> None:
    async with serving(answering(redirect("/a"), redirect("/b"), redirect("/a"), ok())) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION, "circle")


async def test_ten_redirects_and_not_eleven(dns: DnsServer) -> None:
    steps = [redirect(f"/{number}") for number in range(MAX_REDIRECTS)]
    async with serving(answering(*steps, ok())) as port:
        await validation(dns.address, http01_port=port).validate(task(), NOW)
    async with serving(answering(*steps, redirect("/more"), ok())) as port:
        await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION, "more than 10")


async def test_nothing_is_told_of_where_redirects_lead(dns: DnsServer) -> None:
    """A client must not read pages through us, nor scan hosts that only we can reach."""
    closed = free_port()
    steps = answering(redirect(f"http://inner.acme.test:{closed}/x"))
    async with serving(steps) as port:
        failure = await refused(
            validation(dns.address, http01_port=port, tlsalpn01_port=closed).validate(task(), NOW), CONNECTION
        )
    assert failure.detail == "what a redirect led to could not be fetched"
    assert "inner.acme.test" in failure.cause


async def test_refused_connection_is_said(dns: DnsServer) -> None:
    port = free_port()
    failure = await refused(validation(dns.address, http01_port=port).validate(task(), NOW), CONNECTION, f"port {port}")
    assert not failure.final


async def test_no_address(dns: DnsServer) -> None:
    await refused(validation(dns.address, http01_port=free_port()).validate(task(identifier=dns_name("nowhere.test")), NOW), DNS)


async def test_ip_identifier() -> None:
    requests: list[str] = []
    async with serving(answering(ok(), requests=requests)) as port:
        await validation(http01_port=port).validate(task(identifier=ip_name("127.0.0.1")), NOW)
    assert f"Host: 127.0.0.1:{port}\r\n" in requests[0]


async def test_ipv6_identifier() -> None:
    requests: list[str] = []
    async with serving(answering(ok(), requests=requests), host="::1") as port:
        allow = ["::1/128", "127.0.0.0/8"]
        await validation(http01_port=port, allow_cidrs=allow).validate(task(identifier=ip_name("::1")), NOW)
    assert f"Host: [::1]:{port}\r\n" in requests[0]


async def test_ipv6_is_tried_before_ipv4(dns: DnsServer) -> None:
    dns.add("both.test", "AAAA", "::1")
    dns.add("both.test", "A", "127.0.0.1")
    port = free_port()
    async with serving(answering(ok()), host="::1", port=port), serving(answering(ok("no")), port=port):
        work = validation(dns.address, http01_port=port, allow_cidrs=["::1/128", "127.0.0.0/8"])
        await work.validate(task(identifier=dns_name("both.test")), NOW)


async def test_ipv4_is_tried_where_ipv6_cannot_be_connected_to(dns: DnsServer) -> None:
    dns.add("both.test", "AAAA", "::1")
    dns.add("both.test", "A", "127.0.0.1")
    async with serving(answering(ok())) as port:
        work = validation(dns.address, http01_port=port, allow_cidrs=["::1/128", "127.0.0.0/8"])
        await work.validate(task(identifier=dns_name("both.test")), NOW)


async def test_ipv4_is_not_tried_where_ipv6_says_no(dns: DnsServer) -> None:
    dns.add("both.test", "AAAA", "::1")
    dns.add("both.test", "A", "127.0.0.1")
    port = free_port()
    async with serving(answering(ok("no")), host="::1", port=port), serving(answering(ok()), port=port):
        work = validation(dns.address, http01_port=port, allow_cidrs=["::1/128", "127.0.0.0/8"])
        await refused(work.validate(task(identifier=dns_name("both.test")), NOW), INCORRECT)


async def test_one_ipv4_address_only(dns: DnsServer) -> None:
    dns.add("many.test", "A", *(f"127.0.0.{number}" for number in range(10, 30)))
    closed = free_port()
    await refused(validation(dns.address, http01_port=closed).validate(task(identifier=dns_name("many.test")), NOW), CONNECTION)
    assert dns.asked("many.test", "A") == 1


async def test_resolved_once_and_pinned(dns: DnsServer) -> None:
    """Whoever answers with another address the second time finds that there is no second time (DNS rebinding)."""
    async with serving(answering(ok())) as port:
        await validation(dns.address, http01_port=port).validate(task(), NOW)
    assert dns.asked("www.acme.test", "A") == 1


async def test_allowed_addresses_of_a_name_with_others(dns: DnsServer) -> None:
    dns.add("mixed.test", "A", "169.254.169.254", "127.0.0.1", "10.0.0.1")
    async with serving(answering(ok())) as port:
        await validation(dns.address, http01_port=port).validate(task(identifier=dns_name("mixed.test")), NOW)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0"])
async def test_addresses_that_are_refused_by_default(dns: DnsServer, address: str) -> None:
    dns.add("inner.test", "A", address)
    work = validation(dns.address, allow_cidrs=[]).validate(task(identifier=dns_name("inner.test")), NOW)
    failure = await refused(work, CONNECTION, "no address of inner.test may be connected to")
    assert address not in failure.detail


async def test_hosts_of_the_gateway_and_its_cas(dns: DnsServer) -> None:
    dns.add("ca.test", "A", "192.0.2.9")
    room = reach.ValidationRoom(("192.0.2.9", "localhost", "no-such-host.invalid"))
    work = validation(dns.address, room=room, allow_cidrs=["192.0.2.0/24"]).validate(task(identifier=dns_name("ca.test")), NOW)
    failure = await refused(work, CONNECTION)
    assert "CAs" in failure.cause


async def test_hosts_of_the_gateway_are_looked_up_before_anybody_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while they are looked up waits, too."""
    begun = 0

    async def slow(*_: object, **__: object) -> list[tuple[object, ...]]:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.05)
        return [(2, 1, 6, "", ("192.0.2.9", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    room = reach.ValidationRoom(("ca.test",))
    found = await asyncio.gather(*(room.refused() for _ in range(5)))
    assert {address for addresses in found for address in map(str, addresses)} == {"192.0.2.9"}
    assert all(found)
    assert begun == 1


async def test_blackhole(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CONNECT_SECONDS", 0.2)

    async def never(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    await refused(validation(http01_port=5).validate(task(identifier=ip_name("127.0.0.1")), NOW), CONNECTION, "no answer")


async def test_environment_proxies_do_not_count(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(answering(ok())) as port:
        await validation(dns.address, http01_port=port).validate(task(), NOW)
