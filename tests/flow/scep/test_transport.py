"""How messages arrive: by GET and POST as clients of twenty years send them, byte for byte (RFC 8894 §4.1, §4.3)."""

import base64
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest

from gateway.asn1.scep import PkiStatus
from gateway.pki import cms
from gateway.wire.scep import client as scep
from gateway.wire.scep.client import ScepRequest
from tests.flow.scep.raw import RawAnswer, exchange, get, post
from tests.flow.scep.service import Client, Device, Service

LINE = 64
Encode = Callable[[bytes], str]


def standard(message: bytes) -> str:
    return base64.b64encode(message).decode()


def url_safe(message: bytes) -> str:
    return base64.urlsafe_b64encode(message).decode()


def in_lines(text: str, end: str) -> str:
    return "".join(f"{text[at : at + LINE]}{end}" for at in range(0, len(text), LINE))


GET_MESSAGES = [
    pytest.param(lambda m: quote(standard(m), safe=""), id="percent-encoded"),
    pytest.param(lambda m: quote(standard(m), safe="").replace("%2B", "%2b").replace("%2F", "%2f"), id="lower-case-escapes"),
    pytest.param(standard, id="unescaped"),
    pytest.param(lambda m: standard(m).replace("=", "%3D"), id="apple-escapes-the-padding-only"),
    pytest.param(lambda m: standard(m).rstrip("="), id="unpadded"),
    pytest.param(url_safe, id="url-safe"),
    pytest.param(lambda m: url_safe(m).rstrip("="), id="url-safe-unpadded"),
    pytest.param(lambda m: standard(m).replace("+", "%20"), id="plus-became-a-space"),
    pytest.param(lambda m: quote(in_lines(standard(m), "\n"), safe=""), id="cisco-64-columns"),
    pytest.param(lambda m: quote(in_lines(standard(m), "\r\n"), safe=""), id="64-columns-crlf"),
    pytest.param(lambda m: in_lines(standard(m), "%0A"), id="64-columns-otherwise-unescaped"),
    pytest.param(lambda m: "".join(f"%{ord(c):02X}" for c in standard(m)), id="every-character-escaped"),
]


@pytest.fixture
async def asked(service: Service, client: Client) -> tuple[ScepRequest, cms.Signer]:
    return Device().request(client.ra, service.static_challenge)


def granted(answer: RawAnswer, asked: tuple[ScepRequest, cms.Signer], client: Client) -> bool:
    """Say whether an answer is a CertRep SUCCESS in the exact form that Apple and certmonger want."""
    assert (answer.status, answer.media_type) == (200, "application/x-pki-message"), answer
    return scep.decode_cert_rep(answer.body, *asked, client.ra).status is PkiStatus.SUCCESS


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("encode", GET_MESSAGES)
async def test_get(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], encode: Encode, version: str) -> None:
    target = f"/scep/demo?operation=PKIOperation&message={encode(asked[0].message)}"
    assert granted(await exchange(service.port, get(target, version=version)), asked, client)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("message={}&operation=PKIOperation", id="message-first"),
        pytest.param("operation=PKIOperation&ca=1&message={}&", id="more-parameters"),
        pytest.param("operation=PKI%4fperation&message={}", id="escaped-operation"),
    ],
)
async def test_get_queries(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], query: str) -> None:
    target = f"/scep/demo?{query.format(quote(standard(asked[0].message), safe=''))}"
    assert granted(await exchange(service.port, get(target)), asked, client)


@pytest.mark.parametrize(
    "length", [pytest.param(8_190, id="8-kb"), pytest.param(61_440, id="60-kb"), pytest.param(98_000, id="96-kb")]
)
async def test_long_request_lines(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], length: int) -> None:
    target = f"/scep/demo?operation=PKIOperation&message={quote(standard(asked[0].message), safe='')}"
    padded = target + "%0A" * ((length - len(target)) // 3 + 1)
    assert len(padded) >= length
    assert granted(await exchange(service.port, get(padded)), asked, client)


async def test_a_request_line_beyond_the_limit(service: Service) -> None:
    answer = await exchange(service.port, get(f"/scep/demo?operation=PKIOperation&message={'A' * 120_000}"))
    assert answer.status in {400, 414}


@pytest.mark.parametrize(
    "media_type",
    [
        pytest.param("", id="none"),
        pytest.param("application/x-pki-message", id="ours"),
        pytest.param("application/octet-stream", id="go-and-jscep"),
        pytest.param("application/x-www-form-urlencoded", id="curl"),
        pytest.param("text/plain; charset=nonsense", id="unknown-charset"),
        pytest.param("multipart/form-data", id="multipart-without-boundary"),
        pytest.param(";;;", id="no-media-type"),
        pytest.param("\xff\xfe", id="no-ascii"),
    ],
)
@pytest.mark.parametrize("target", ["/scep/demo?operation=PKIOperation", "/scep/demo"], ids=["operation", "no-operation"])
async def test_post_content_types(
    service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], media_type: str, target: str
) -> None:
    header = f"Content-Type: {media_type}\r\n" if media_type else ""
    answer = await exchange(service.port, post(target, asked[0].message, header))
    assert granted(answer, asked, client)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/scep/demo?", id="empty-query"),
        pytest.param("/scep/demo?operation=", id="blank-operation"),
        pytest.param("/scep/demo?operation=PKIOperation&message=", id="jscep-blank-message"),
        pytest.param("/scep/demo?message=default", id="identifier-alone"),
        pytest.param("/scep/demo/pkiclient.exe?operation=PKIOperation", id="windows"),
    ],
)
async def test_post_queries(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], target: str) -> None:
    assert granted(await exchange(service.port, post(target, asked[0].message)), asked, client)


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(standard, id="one-line"),
        pytest.param(lambda m: in_lines(standard(m), "\n"), id="64-columns"),
        pytest.param(lambda m: in_lines(standard(m), "\r\n"), id="64-columns-crlf"),
        pytest.param(lambda m: url_safe(m).rstrip("="), id="url-safe-unpadded"),
    ],
)
async def test_post_base64(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer], encode: Encode) -> None:
    answer = await exchange(service.port, post("/scep/demo?operation=PKIOperation", encode(asked[0].message).encode()))
    assert granted(answer, asked, client)


async def test_post_by_http_1_0(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer]) -> None:
    request = post("/scep/demo?operation=PKIOperation", asked[0].message, version="1.0")
    assert granted(await exchange(service.port, request), asked, client)


async def test_post_in_chunks(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer]) -> None:
    message = asked[0].message
    pieces = [message[at : at + 500] for at in range(0, len(message), 500)]
    head = b"POST /scep/demo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert granted(await exchange(service.port, head + body + b"0\r\n\r\n"), asked, client)


async def test_post_that_waits_for_leave(service: Service, client: Client, asked: tuple[ScepRequest, cms.Signer]) -> None:
    request = post("/scep/demo?operation=PKIOperation", asked[0].message, "Expect: 100-continue\r\n")
    assert granted(await exchange(service.port, request), asked, client)


@pytest.mark.parametrize(
    ("operation", "media_type"),
    [
        ("GetCACaps", "text/plain"),
        ("GetCACert", "application/x-x509-ca-ra-cert"),
        ("GetCACertChain", "application/x-x509-ca-ra-cert-chain"),
    ],
)
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="absent"),
        pytest.param("&message", id="bare"),
        pytest.param("&message=", id="blank"),
        pytest.param("&message=default", id="windows"),
        pytest.param("&message=0", id="certmonger"),
        pytest.param("&message=CAIdentifier", id="sscep"),
        pytest.param("&message=!!!%zz%", id="no-base64"),
        pytest.param("&message=%00%ff%0d%0a", id="control-characters"),
        pytest.param("&message=" + "A" * 60_000, id="60-kb"),
    ],
)
async def test_what_is_the_same_for_everybody(service: Service, operation: str, media_type: str, message: str) -> None:
    answer = await exchange(service.port, get(f"/scep/demo?operation={operation}{message}"))
    assert (answer.status, answer.media_type) == (200, media_type)
    assert answer.body == (await exchange(service.port, get(f"/scep/demo?operation={operation}"))).body


async def test_capabilities_are_text_in_lines(service: Service) -> None:
    body = (await exchange(service.port, get("/scep/demo?operation=GetCACaps"))).body
    assert re.fullmatch(rb"(?:[A-Za-z0-9-]+\n)+", body)


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        pytest.param(get("/scep/demo"), {501}, id="no-operation"),
        pytest.param(get("/scep/demo?"), {501}, id="empty-query"),
        pytest.param(get("/scep/demo?operation=GetNextCACert"), {501}, id="no-next-ca"),
        pytest.param(get("/scep/demo?operation=PKIOPERATION2"), {501}, id="unknown-operation"),
        pytest.param(post("/scep/demo?operation=Nothing", b"x"), {501}, id="unknown-operation-by-post"),
        pytest.param(get("/scep/demo?operation=%ff%00%0d%0aX"), {501}, id="operation-of-control-characters"),
        pytest.param(get("/scep/demo?operation=PKIOperation"), {400}, id="no-message"),
        pytest.param(get("/scep/demo?operation=PKIOperation&message=%zz"), {400}, id="broken-escape"),
        pytest.param(get("/scep/demo?operation=PKIOperation&message=\xff\xfe"), {400}, id="no-ascii"),
        pytest.param(get("/scep/demo?operation=PKIOperation&message=A B C"), {400}, id="literal-spaces"),
        pytest.param(get("/scep/demo?operation=PKIOperation&message=AAAA#AAAA"), {400}, id="fragment"),
        pytest.param(get("/scep/demo?operation=a&operation=b"), {400}, id="operation-twice"),
        pytest.param(get("/scep/demo?" + "&".join("abcdefghijklmnopqrstuvwxyz")), {400}, id="many-parameters"),
        pytest.param(post("/scep/demo", b""), {400}, id="empty-body"),
        pytest.param(post("/scep/demo", b"\x30"), {400}, id="one-byte"),
        pytest.param(post("/scep/demo", b"\xff" * 1000), {400}, id="no-base64-body"),
        pytest.param(post("/scep/demo", b"x", "Content-Encoding: gzip\r\n"), {415}, id="content-encoding"),
        pytest.param(post("/scep/demo", b"x", "Expect: something\r\n"), {417}, id="unknown-expectation"),
        pytest.param(post("/scep/demo", b"x" * 70_000), {413}, id="large-body"),
        pytest.param(b"HEAD /scep/demo HTTP/1.0\r\n\r\n", {405}, id="head"),
        pytest.param(b"PUT /scep/demo HTTP/1.0\r\n\r\n", {405}, id="put"),
        pytest.param(b"OPTIONS /scep/demo HTTP/1.0\r\n\r\n", {405}, id="options"),
        pytest.param(b"DELETE /scep/demo/pkiclient.exe HTTP/1.0\r\n\r\n", {405}, id="delete"),
        pytest.param(b"get /scep/demo HTTP/1.0\r\n\r\n", {400, 405}, id="method-in-lower-case"),
        pytest.param(b"CONNECT pki.example:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {400, 404, 405}, id="connect"),
        pytest.param(b"GET http:// HTTP/1.0\r\n\r\n", {400, 404}, id="empty-authority"),
        pytest.param(b"GET * HTTP/1.0\r\n\r\n", {400, 404}, id="asterisk"),
        pytest.param(b"GET /scep/\x00 HTTP/1.0\r\n\r\n", {400, 404}, id="nul"),
        pytest.param(b"GET /scep/demo HTTP/9.9\r\nConnection: close\r\n\r\n", {400, 501, 505}, id="unknown-version"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32, {400}, id="tls-where-there-is-none"),
        pytest.param(b"GET /scep/demo HTTP/1.0\r\nContent-Length: -1\r\n\r\n", {400}, id="negative-length"),
        pytest.param(b"GET /scep/demo HTTP/1.0\r\n" + b"A: b\r\n" * 200 + b"\r\n", {400}, id="many-headers"),
        pytest.param(b"GET /scep/demo HTTP/1.0\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", {400}, id="long-header"),
    ],
)
async def test_what_is_refused(service: Service, request_: bytes, statuses: set[int]) -> None:
    answer = await exchange(service.port, request_)
    assert answer.status in statuses, answer
    assert b"Traceback" not in answer.body
    assert (await exchange(service.port, get("/scep/demo?operation=GetCACaps"))).status == 200
