"""What a client may cost: every limit holds before anything is parsed, and its answer names nothing of the inside."""

import asyncio
import gzip
import resource
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.flow.scep.service import Service, start_service
from tests.flow.web.conftest import Answer, Talk, parse

POST = b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: h\r\n"
CLOSE = b"Connection: close\r\n"
CAPS = b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\nHost: h\r\n"


def assert_plain(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    for word in (b"Traceback", b"File ", b".py", b"gateway.", b"asn1"):
        assert word not in answer.body


async def test_a_body_that_says_it_is_too_large_is_not_read(talk: Talk) -> None:
    begun = time.monotonic()
    assert_plain(await talk(POST + b"Content-Length: 1073741824\r\n\r\n", b"x" * 1000), 413)
    assert time.monotonic() - begun < 5


async def test_a_chunked_body_without_end(talk: Talk) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    assert_plain(await talk(POST + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 20), 413)


async def test_a_trickled_body_has_a_deadline(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(POST + b"Content-Length: 4000\r\n\r\n")
    begun = time.monotonic()
    data = b""
    while time.monotonic() - begun < 8:
        try:
            writer.write(b"x")
            data += await asyncio.wait_for(reader.read(65536), 0.2)
            break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    writer.close()
    assert parse(data).status == 408
    assert 0.8 < time.monotonic() - begun < 4


async def test_trickled_headers_have_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.server.KEEPALIVE_SECONDS", 1.0)
    service = await start_service(tmp_path / "quick")
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    begun = time.monotonic()
    writer.write(b"GET /ca/local.crt HTTP/1.1\r\n")
    while time.monotonic() - begun < 8 and not reader.at_eof():
        writer.write(b"X: 1\r\n")
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(100), 0.2)
    writer.close()
    assert time.monotonic() - begun < 4
    await service.close()


async def test_a_stalled_body_has_a_deadline(talk: Talk) -> None:
    begun = time.monotonic()
    assert_plain(await talk(POST + b"Content-Length: 4000\r\n\r\nxx"), 408)
    assert time.monotonic() - begun < 4


async def test_a_body_that_breaks_off(talk: Talk) -> None:
    answer = await talk(POST + b"Content-Length: 4000\r\n\r\nxx", close=True)
    assert answer.status in {0, 400, 408}


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"GZIP", b"identity, gzip", b"x"])
async def test_content_encodings_are_refused_unread(talk: Talk, encoding: bytes) -> None:
    bomb = gzip.compress(bytes(4_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    head = POST + CLOSE + b"Content-Encoding: " + encoding + b"\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    assert_plain(await talk(head, bomb), 415)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3000


async def test_identity_is_no_encoding(talk: Talk) -> None:
    assert (await talk(POST + CLOSE + b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\nxx")).status == 400
    two = b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"
    assert (await talk(POST + CLOSE + two)).status == 415


async def test_long_request_lines_are_served_up_to_the_limit(talk: Talk) -> None:
    padding = b"&message=" + b"x" * 12000
    head = b"GET /scep/demo?operation=GetCACaps" + padding + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    assert (await talk(head)).status == 200


@pytest.mark.parametrize("length", [17000, 200000])
async def test_longer_request_lines_are_refused(talk: Talk, length: int) -> None:
    answer = await talk(b"GET /scep/demo?operation=GetCACaps&x=" + b"x" * length + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.status in {0, 400}
    assert len(answer.body) < 1000


async def test_a_long_header_is_refused(talk: Talk) -> None:
    answer = await talk(CAPS + b"X: " + b"x" * 9000 + b"\r\n\r\n")
    assert answer.status in {0, 400}


async def test_many_headers_are_refused(talk: Talk) -> None:
    answer = await talk(CAPS + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n")
    assert answer.status in {0, 400}


@pytest.mark.parametrize("host", [b"", b"Host: h\r\n"])
async def test_http_1_0(talk: Talk, host: bytes) -> None:
    answer = await talk(b"GET /scep/demo?operation=GetCACaps HTTP/1.0\r\n" + host + b"\r\n")
    assert answer.head.startswith("HTTP/1.0 200")
    assert b"POSTPKIOperation" in answer.body


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, id="tls-on-the-http-port"),
        pytest.param(b"\r\n\r\n\r\n\r\n", id="empty-lines"),
        pytest.param(b"GET\r\n\r\n", id="no-target"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="other-version"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", id="negative-length"),
        pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two-lengths"),
        pytest.param(b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % (b"\xff" * 20), id="bytes-in-the-path"),
    ],
)
async def test_noise(talk: Talk, noise: bytes) -> None:
    answer = await talk(noise, seconds=1)
    assert answer.status in {0, 400, 404}
    assert b"Traceback" not in answer.body


async def test_answers_name_no_software_of_ours(talk: Talk) -> None:
    answer = await talk(CAPS + CLOSE + b"\r\n")
    assert answer.header("Server") == "pki-gateway"
    assert answer.header("X-Content-Type-Options") == "nosniff"


async def caps(service: Service) -> int:
    """Return the status of one GetCACaps on a connection of its own, 0 when it is closed or waits."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(CAPS + CLOSE + b"\r\n")
            data = await reader.read()
            writer.close()
            return parse(data).status
    except (TimeoutError, ConnectionError):
        return 0


@pytest.mark.parametrize("port", ["port", "tls_port"], ids=["http", "tls-without-handshake"])
async def test_connections_of_one_address_are_capped(service: Service, port: str) -> None:
    held = [await asyncio.open_connection("127.0.0.1", getattr(service, port)) for _ in range(8)]
    await asyncio.sleep(0.2)
    assert await caps(service) == 0
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.2)
    assert await caps(service) == 200


async def test_all_connections_are_capped_and_later_ones_wait(service: Service) -> None:
    held = []
    for n in range(12):
        sock = socket.socket()
        sock.bind((f"127.0.0.{2 + n % 3}", 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", service.port))
        held.append(sock)
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(caps(service))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    held.pop().close()
    assert await waiting == 200
    for sock in held:
        sock.close()


async def test_failed_handshakes_give_their_place_back(service: Service) -> None:
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.tls_port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
    context = ssl.create_default_context(cafile=str(service.folder / "ca" / "root.pem"))
    reader, writer = await asyncio.open_connection("localhost", service.tls_port, ssl=context)
    writer.write(CAPS + CLOSE + b"\r\n")
    assert parse(await reader.read()).status == 200
    writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_no_tickets_are_given(service: Service, version: ssl.TLSVersion) -> None:
    def has_ticket() -> bool:
        context = ssl.create_default_context(cafile=str(service.folder / "ca" / "root.pem"))
        context.minimum_version = context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", service.tls_port))
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(CAPS + CLOSE + b"\r\n")
            while tls.recv(65536):
                pass
            return tls.session is not None and tls.session.has_ticket

    assert not await asyncio.to_thread(has_ticket)


async def test_old_tls_is_refused(service: Service) -> None:
    def connect() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", service.tls_port)) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain)

    await asyncio.to_thread(connect)


async def test_requests_in_flight_are_capped(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def slow(*_: object) -> None:
        await gate.wait()

    monkeypatch.setattr("gateway.store.sqlite.store.SqliteStore.newest_crl", slow)

    async def crl() -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET /crl/local.crl HTTP/1.1\r\nHost: h\r\n" + CLOSE + b"\r\n")
        data = await reader.read()
        writer.close()
        return parse(data)

    busy = [asyncio.create_task(crl()) for _ in range(4)]
    await asyncio.sleep(0.3)
    operators = aiohttp.UnixConnector(str(service.admin))
    async with aiohttp.ClientSession(connector=operators) as session, session.get("http://localhost/livez") as reply:
        assert reply.status == 200
    refused = await crl()
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    gate.set()
    assert {answer.status for answer in await asyncio.gather(*busy)} == {503}
    assert await caps(service) == 200


async def test_a_failure_inside_is_a_plain_500(service: Service, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("gateway.wire.scep.operations.parse_query", fail)
    answer = await talk(CAPS + CLOSE + b"\r\n")
    assert_plain(answer, 500)
    assert b"secret" not in answer.body


async def test_requests_in_flight_are_finished_at_the_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> None:
        begun.set()
        await gate.wait()

    monkeypatch.setattr("gateway.store.sqlite.store.SqliteStore.newest_crl", slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /crl/local.crl HTTP/1.1\r\nHost: h\r\n\r\n")
    await begun.wait()
    closing = asyncio.create_task(service.close())
    await asyncio.sleep(0.2)
    assert not closing.done()
    gate.set()
    assert parse(await reader.read()).status == 503
    writer.close()
    await closing
