"""Requests to a CA over HTTP: what a failure means depends on whether a byte has left, and no answer is unbounded."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from socket import SHUT_RDWR, SHUT_WR, create_server, socket

import pytest

from gateway.ca.bootstrap import Hierarchy, Identity, KeyChoice, create_hierarchy
from gateway.ca.http import LONGEST_RETRY, MAX_BODY, HttpClient, HttpSettings, Response, check_status, refuse_unavailable
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamError, UpstreamRejected
from gateway.ca.local import CaUrls
from gateway.ca.setup import Setup, load_identity
from gateway.config.fields import FilePath, RaPair, SecretSource
from gateway.config.load import Sources
from gateway.config.remote_cas import Connection
from gateway.errors import ConfigurationError
from gateway.model import Grant, UpstreamCAName
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, pem_to_ders
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import format_name, parse_name_text

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOST = "127.0.0.1"
PAIR = RaPair.model_validate({"certificate": "client.pem", "key": {"file": "client.key"}}, strict=False)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 9\r\n\r\n" + b'{"a": 1} '


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


def make_client(hierarchy: Hierarchy) -> Identity:
    """Make a certificate that clients may show, right below the root."""
    key, now = generate_private_key("ec-p256"), datetime.now(UTC).replace(microsecond=0)
    issuer = Issuer.from_certificate(pem_to_ders(hierarchy.root.certificate)[0], load_private_key(hierarchy.root.key))
    ekus = (eku_oid("clientAuth"),)
    grant = Grant(parse_name_text("CN=gateway").der, (), ("digitalSignature",), ekus, now, now + timedelta(days=1))
    certificate = build_certificate(issuer, new_serial(), grant, public_key_der(key))
    return Identity(der_to_pem(certificate), serialize_private_key(key))


class Peer:
    """A server that answers as told and keeps what it read."""

    def __init__(self, handler: Handler | bytes) -> None:
        self._handler = handler
        self.heads: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not isinstance(self._handler, bytes):
                await self._handler(reader, writer)
                return
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if b"Content-Length:" in self.heads[-1]:
                    await reader.readexactly(int(self.heads[-1].split(b"Content-Length: ")[1].split(b"\r")[0]))
                writer.write(self._handler)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def peer(handler: Handler | bytes, tls: ssl.SSLContext | None = None, host: str = HOST) -> AsyncIterator[Peer]:
    found = Peer(handler)
    server = await asyncio.start_server(found.serve, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


@asynccontextmanager
async def client(port: int, *, timeout: float = 2, connect: float = 1, places: int = 4) -> AsyncIterator[HttpClient]:
    made = HttpClient(HttpSettings(f"http://127.0.0.1:{port}/ca", None, connect, timeout, places))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def after_reading(reader: asyncio.StreamReader, *, body: bool = True) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if body and b"Content-Length: " in head:
        await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r")[0]))


async def test_an_answer() -> None:
    async with peer(OK) as there, client(there.port) as asking:
        answer = await asking.change("POST", "/sign", json_body={"csr": "x"}, headers={"X-Token": "t"})
        assert (answer.status, answer.media_type, answer.json()) == (200, "application/json", {"a": 1})
        await asking.read("/chain")
    first, second = there.heads
    assert first.startswith(b"POST /ca/sign HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in first
    assert b"X-Token: t\r\n" in first
    assert b"User-Agent: pki-gateway\r\n" in first
    assert second.startswith(b"GET /ca/chain HTTP/1.1\r\n")


async def test_cookies_are_not_kept() -> None:
    async with peer(OK.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\n", 1)) as there, client(there.port) as asking:
        await asking.read("/")
        await asking.read("/")
    assert not any(b"Cookie" in head for head in there.heads)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with peer(OK) as there, client(there.port) as asking:
        assert (await asking.read("/")).status == 200


async def test_redirects_are_not_followed() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with peer(moved) as there, client(there.port) as asking:
        assert (await asking.change("POST", "/sign", body=b"x")).status == 307
    assert len(there.heads) == 1


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    await reader.read()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)


async def resets_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def stops_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.02)


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b"10000\r\n" + b"a" * 65536 + b"\r\n")
        await writer.drain()


async def sends_headers_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        if writer.transport.is_closing():
            return
        writer.write(b"X-%d: %s\r\n" % (number, b"a" * 1000))
        await writer.drain()


async def speaks_no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_reading(reader)
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()


FAILURES = [hangs, hangs_up, resets_at_once, stops_in_the_body, drips, floods, sends_headers_without_end, speaks_no_http]


@pytest.mark.parametrize("handler", FAILURES)
@pytest.mark.parametrize("question", ["change", "read"])
async def test_no_whole_answer(handler: Handler, question: str) -> None:
    async with peer(handler) as there, client(there.port, timeout=0.3) as asking:
        ask = partial(asking.change, "POST") if question == "change" else partial(asking.read, method="POST")
        with pytest.raises(UpstreamError) as raised:
            await ask("/sign", body=b"secret words")
    assert type(raised.value) is (UnknownResult if question == "change" else NotSent)
    assert "secret" not in str(raised.value)


async def test_nobody_listens() -> None:
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    async with client(port) as asking:
        with pytest.raises(NotSent, match="cannot be reached: Connect call failed"):
            await asking.change("POST", "/sign", body=b"x")


async def test_a_name_that_is_none() -> None:
    made = HttpClient(HttpSettings("http://ca.invalid", None, 1, 2, 1))
    await made.open()
    try:
        with pytest.raises(NotSent, match="cannot be reached"):
            await made.change("POST", "/sign", body=b"x")
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("connect", "timeout"), [pytest.param(0.2, 5, id="connect"), pytest.param(5, 0.2, id="whole time while connecting")]
)
async def test_connecting_takes_too_long(hierarchy: Hierarchy, connect: float, timeout: float) -> None:
    """A server that takes the connection and says nothing in the TLS handshake has read nothing of a request."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(silent) as there:
        asking = HttpClient(HttpSettings(f"https://127.0.0.1:{there.port}", ssl.create_default_context(), connect, timeout, 1))
        await asking.open()
        try:
            with pytest.raises(NotSent, match="it took too long"):
                await asking.change("POST", "/sign", body=b"x")
        finally:
            await asking.close()


async def test_places_are_waited_for_within_the_time() -> None:
    async with peer(hangs) as there, client(there.port, timeout=0.5, places=1) as asking:
        first = asyncio.create_task(asking.change("POST", "/sign", body=b"x"))
        await asyncio.sleep(0.05)
        with pytest.raises(NotSent, match="all 1 connections to the CA were busy") as raised:
            await asking.change("POST", "/sign", body=b"x", within=0.1)
        assert raised.value.retry_after > 0
        with pytest.raises(UnknownResult):
            await first


async def test_a_request_that_is_given_up_frees_its_place() -> None:
    async with peer(hangs) as there, client(there.port, timeout=5, places=1) as asking:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asking.change("POST", "/sign", body=b"x")


async def test_what_would_be_sent_twice_is_not_sent() -> None:
    async with peer(OK) as there, client(there.port) as asking:
        with pytest.raises(ValueError, match="PUT may be sent twice"):
            await asking.change("PUT", "/sign", body=b"x")
    assert there.heads == []


async def test_a_kept_connection_that_breaks_is_a_doubt() -> None:
    """The server answers once and closes on the second request without a word: it may have read it."""
    posts = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        await after_reading(reader)
        posts += 1
        writer.write(OK)
        await writer.drain()
        await after_reading(reader)
        posts += 1

    async with peer(once) as there, client(there.port) as asking:
        await asking.change("POST", "/sign", body=b"x")
        with pytest.raises(UnknownResult):
            await asking.change("POST", "/sign", body=b"x")
    assert posts == 2


async def test_closed_and_closed_again() -> None:
    asking = HttpClient(HttpSettings("http://127.0.0.1:9", None, 1, 1, 1))
    await asking.close()
    with pytest.raises(NotSent, match="are closed"):
        await asking.read("/")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>maintenance</html>", id="a page"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' * 5_000 + b"1" + b"}" * 5_000, id="deep objects"),
        pytest.param(b'{"a": 1, "a": 2}', id="twice"),
        pytest.param(b'{"a": NaN}', id="no JSON number"),
        pytest.param(b"\xff\xfe{}", id="no text"),
        pytest.param(b'{"a": ' + b"9" * 10_000 + b"}", id="a number beyond all bounds"),
    ],
)
@pytest.mark.parametrize("failed", [NotSent, UnknownResult])
def test_no_json(body: bytes, failed: type[NotSent] | type[UnknownResult]) -> None:
    with pytest.raises(failed, match="answered 200 with what is no JSON object"):
        Response(200, {"content-type": "text/html"}, body, failed).json()


def test_the_largest_body() -> None:
    body = json.dumps({"a": "b" * (MAX_BODY - 20)}).encode()
    assert len(Response(200, {}, body).json()["a"]) == MAX_BODY - 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0", 1),
        ("86400", LONGEST_RETRY),
        ("-1", 30),
        ("1e3", 30),
        ("9" * 5000, 30),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 30),
    ],
)
def test_retry_after(text: str, seconds: int) -> None:
    assert Response(503, {"retry-after": text}, b"").retry_after(30) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_it_did_nothing(status: int) -> None:
    with pytest.raises(Unavailable) as raised:
        refuse_unavailable(Response(status, {"retry-after": "120"}, b""))
    assert raised.value.retry_after == 120


@pytest.mark.parametrize("status", [200, 400, 500, 502, 504])
def test_a_server_that_says_nothing_of_the_kind(status: int) -> None:
    refuse_unavailable(Response(status, {}, b""))


def server_tls(hierarchy: Hierarchy, *, clients: bytes = b"", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    load_identity(context, hierarchy.tls.certificate, hierarchy.tls.key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=b"".join(pem_to_ders(clients)))
    return context


def secure(hierarchy: Hierarchy, port: int, anchors: bytes | None = None, *, shows: bool = False, host: str = HOST) -> HttpClient:
    client = make_client(hierarchy)
    files = {"anchors.pem": anchors or hierarchy.root.certificate, "client.pem": client.certificate}
    secrets = {str(SecretSource(file=FilePath("client.key"))): client.key}
    setup = Setup(UpstreamCAName("corp"), (), Sources(Path("/gw/p.yaml"), "p.yaml", b"", files, secrets))
    pair = PAIR if shows else None
    connection = Connection(anchors=FilePath("anchors.pem"), client_certificate=pair, timeout=timedelta(seconds=2))
    return setup.connect(f"https://{host}:{port}", connection)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificate_is_shown(hierarchy: Hierarchy, version: ssl.TLSVersion) -> None:
    seen: list[bytes] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await after_reading(reader)
        seen.append(writer.get_extra_info("ssl_object").getpeercert(True))
        writer.write(OK)
        await writer.drain()

    async with peer(look, server_tls(hierarchy, clients=hierarchy.root.certificate, version=version)) as there:
        asking = secure(hierarchy, there.port, shows=True)
        await asking.open()
        try:
            assert (await asking.change("POST", "/sign", body=b"x")).status == 200
        finally:
            await asking.close()
    assert [format_name(parse_certificate(der).subject) for der in seen] == ["CN=gateway"]


def refuse_handshakes(listening: socket, tls: ssl.SSLContext) -> None:
    """Take connections whose handshakes fail, until the socket closes; OpenSSL sends alerts, which asyncio's server would not."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            with suppress(ssl.SSLError), tls.wrap_socket(connection.dup(), server_side=True):
                pass
            connection.shutdown(SHUT_WR)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shows", [False, True], ids=["none", "of another CA"])
@pytest.mark.parametrize("question", ["change", "read"])
async def test_client_certificate_that_is_refused(
    hierarchy: Hierarchy, version: ssl.TLSVersion, shows: bool, question: str
) -> None:
    other = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    tls = server_tls(hierarchy, clients=other.root.certificate if shows else hierarchy.root.certificate, version=version)
    with create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(refuse_handshakes, listening, tls))
        asking = secure(hierarchy, listening.getsockname()[1], shows=shows)
        await asking.open()
        try:
            # TLS 1.2 has no alert of its own for a certificate that is missing
            means = AuthFailed if shows or version is ssl.TLSVersion.TLSv1_3 else NotSent
            with pytest.raises(means, match="certificate"):
                await (asking.change("POST", "/sign", body=b"x") if question == "change" else asking.read("/chain"))
        finally:
            await asking.close()
            listening.shutdown(SHUT_RDWR)
            await serving


@pytest.mark.parametrize("case", ["other anchors", "other name", "old TLS"])
async def test_servers_that_are_not_the_ca(hierarchy: Hierarchy, case: str) -> None:
    tls = server_tls(hierarchy)
    if case == "old TLS":
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            tls = server_tls(hierarchy, version=ssl.TLSVersion.TLSv1_1)
        tls.set_ciphers("ALL:@SECLEVEL=0")
    other = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC)).root.certificate
    host = "127.0.0.2" if case == "other name" else HOST
    async with peer(OK, tls, host) as there:
        asking = secure(hierarchy, there.port, other if case == "other anchors" else None, host=host)
        await asking.open()
        try:
            with pytest.raises(NotSent, match="cannot be reached: "):
                await asking.change("POST", "/sign", body=b"x")
        finally:
            await asking.close()
    assert there.heads == []


def test_an_issuing_ca_alone_may_be_the_anchor(hierarchy: Hierarchy) -> None:
    assert secure(hierarchy, 1, hierarchy.issuing.certificate).settings.tls is not None


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param({"anchors.pem": b"junk"}, "upstream_cas.corp.connection.anchors: anchors.pem does not hold", id="anchors"),
        pytest.param({"client.pem": b"junk"}, "connection.client_certificate.certificate: client.pem does not", id="certificate"),
        pytest.param({"client.key": b"junk"}, "connection.client_certificate.key: file client.key: not a PEM", id="key"),
        pytest.param({"client.key": None}, "connection.client_certificate.key: file client.key: ", id="another's key"),
    ],
)
def test_files_of_no_use(hierarchy: Hierarchy, files: dict[str, bytes | None], sentence: str) -> None:
    source = SecretSource(file=FilePath("client.key"))
    held = {"anchors.pem": hierarchy.root.certificate, "client.pem": hierarchy.tls.certificate, "client.key": hierarchy.tls.key}
    held |= {name: hierarchy.ra.key if data is None else data for name, data in files.items()}
    sources = Sources(Path("/gw/p.yaml"), "p.yaml", b"", held, {str(source): held["client.key"]})
    with pytest.raises(ConfigurationError) as raised:
        Setup(UpstreamCAName("corp"), (), sources).connect(
            "https://127.0.0.1", Connection(anchors=FilePath("anchors.pem"), client_certificate=PAIR)
        )
    assert sentence in str(raised.value)
    assert "PRIVATE" not in str(raised.value)


@pytest.mark.parametrize(
    ("believed", "failed", "error"),
    [
        pytest.param(True, UnknownResult, UpstreamRejected, id="by TLS"),
        pytest.param(False, UnknownResult, UnknownResult, id="anybody's word"),
        pytest.param(True, NotSent, NotSent, id="of a question"),
    ],
)
def test_a_refusal_by_status(believed: bool, failed: type[NotSent] | type[UnknownResult], error: type[UpstreamError]) -> None:
    with pytest.raises(error) as raised:
        check_status(Response(400, {}, b"", failed), "CMP", believed=believed)
    assert type(raised.value) is error
