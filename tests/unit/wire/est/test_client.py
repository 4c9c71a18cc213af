from __future__ import annotations

import base64

import pytest

from gateway.errors import MalformedMessage
from gateway.pki import cms, der
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.est import messages
from gateway.wire.est.client import EstAnswer, basic_authorization, decode_answer, get_request, post_request
from gateway.wire.est.messages import encode_base64, encode_certs_only
from gateway.wire.est.multipart import Part, encode_multipart

KEY = generate_private_key("ec-p256")
CSR = build_csr(KEY, parse_name_text("CN=a").der)
PKCS8, ENVELOPED = der.sequence(der.integer(0)), der.sequence(der.integer(2))
CMC_RESPONSE = der.sequence(
    der.oid("1.2.840.113549.1.7.2"),
    der.context(
        0,
        der.sequence(
            der.integer(3),
            der.set_of(),
            der.sequence(der.oid("1.3.6.1.5.5.7.12.3"), der.context(0, der.octet_string(der.sequence()))),
            der.set_of(),
        ),
    ),
)
"""A Full PKI Response without a signature."""


def test_public_requests() -> None:
    request = get_request(messages.CACERTS)
    assert (request.method, request.path, request.body) == ("GET", "/.well-known/est/cacerts", b"")


@pytest.mark.parametrize(
    ("label", "path"),
    [
        pytest.param(None, "/.well-known/est/simpleenroll", id="no label"),
        pytest.param("sensors", "/.well-known/est/sensors/simpleenroll", id="a label"),
        pytest.param("ca:1", "/.well-known/est/ca:1/simpleenroll", id="Aruba's colon"),
        pytest.param("a b/c?d#é", "/.well-known/est/a%20b%2Fc%3Fd%23%C3%A9/simpleenroll", id="escaped"),
    ],
)
def test_enrollment_requests(label: str | None, path: str) -> None:
    request = post_request(messages.SIMPLEENROLL, CSR, label, authorization="Bearer t0ken")
    assert (request.method, request.path) == ("POST", path)
    assert request.headers["Content-Type"] == "application/pkcs10"
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert messages.decode_request(request.body) == CSR
    assert "t0ken" not in repr(request)


def test_cmc_requests_say_what_they_are() -> None:
    request = post_request(messages.FULLCMC, CSR)
    assert request.headers["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-request"
    assert "Authorization" not in request.headers


def test_basic_authorization() -> None:
    assert basic_authorization("dévice", "p:w") == "Basic " + base64.b64encode("dévice:p:w".encode()).decode()
    with pytest.raises(ValueError, match="colon"):
        basic_authorization("a:b", "c")


@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "one line"])
@pytest.mark.parametrize(
    ("operation", "media_type"),
    [
        pytest.param(messages.SIMPLEENROLL, messages.MEDIA_CERTS_ONLY, id="simpleenroll"),
        pytest.param(messages.SIMPLEREENROLL, "Application/PKCS7-MIME;smime-type=certs-only; charset=x", id="simplereenroll"),
        pytest.param(messages.FULLCMC, messages.MEDIA_CERTS_ONLY, id="fullcmc, simple response"),
        pytest.param(messages.FULLCMC, "application/pkcs7-mime", id="fullcmc, bare type"),
        pytest.param(messages.CACERTS, messages.MEDIA_CACERTS, id="cacerts"),
    ],
)
def test_certificates(operation: str, media_type: str, wrap: bool, certificates: tuple[bytes, bytes]) -> None:
    body = encode_certs_only(certificates[:1], wrap)
    assert decode_answer(operation, 200, {"content-type": media_type}, body) == EstAnswer(200, certificates[:1])


def test_cacerts_holds_several(certificates: tuple[bytes, bytes]) -> None:
    body = encode_certs_only(certificates, wrap=True)
    answer = decode_answer(messages.CACERTS, 200, {"Content-Type": messages.MEDIA_CACERTS}, body)
    assert answer.certificates == certificates


@pytest.mark.parametrize(
    ("media_type", "key", "encrypted"),
    [
        pytest.param(messages.MEDIA_PKCS8, PKCS8, False, id="plain"),
        pytest.param(messages.MEDIA_SERVER_KEY, ENVELOPED, True, id="encrypted"),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["key first", "certificate first"])
def test_server_keys(media_type: str, key: bytes, encrypted: bool, turned: bool, certificates: tuple[bytes, bytes]) -> None:
    parts = [Part(media_type, key), Part(messages.MEDIA_CERTS_ONLY, cms.certs_only(certificates[:1]))]
    body, content_type = encode_multipart(parts[::-1] if turned else parts, wrap=True)
    answer = decode_answer(messages.SERVERKEYGEN, 200, {"Content-Type": content_type}, body)
    assert answer == EstAnswer(200, certificates[:1], key=key, key_encrypted=encrypted)
    assert repr(key) not in repr(answer)


@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize("media_type", [messages.MEDIA_CMC_RESPONSE, "application/pkcs7-mime"])
def test_cmc_responses_of_any_status(status: int, media_type: str) -> None:
    answer = decode_answer(messages.FULLCMC, status, {"Content-Type": media_type}, encode_base64(CMC_RESPONSE, wrap=True))
    assert (answer.status, answer.cmc_response) == (status, CMC_RESPONSE)


def test_csrattrs() -> None:
    body = encode_base64(der.sequence(), wrap=True)
    answer = decode_answer(messages.CSRATTRS, 200, {"Content-Type": "application/csrattrs"}, body)
    assert answer.csrattrs == b"\x30\x00"
    for status in (204, 404):
        assert decode_answer(messages.CSRATTRS, status, {}, b"") == EstAnswer(status)


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        pytest.param(202, {"Retry-After": "600"}, 600, id="pending"),
        pytest.param(202, {"retry-after": " 5 "}, 5, id="any case"),
        pytest.param(202, {}, None, id="a server that does not say when"),
        pytest.param(503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, None, id="a date"),
        pytest.param(429, {"Retry-After": "-1"}, None, id="negative"),
        pytest.param(429, {"Retry-After": "9" * 5000}, None, id="endless"),
        pytest.param(429, {"Retry-After": "٣"}, None, id="other digits"),
    ],
)
def test_waiting(status: int, headers: dict[str, str], retry_after: int | None) -> None:
    answer = decode_answer(messages.SIMPLEENROLL, status, headers, b"wait\x1b[0m\r\n")
    assert (answer.status, answer.retry_after, answer.text) == (status, retry_after, "wait [0m")


ONE = {"Content-Type": messages.MEDIA_CERTS_ONLY}


@pytest.mark.parametrize(
    ("operation", "headers", "body"),
    [
        pytest.param("simpleenroll", {}, b"MAA=", id="no media type"),
        pytest.param("simpleenroll", {"Content-Type": "text/html"}, b"MAA=", id="another media type"),
        pytest.param("simpleenroll", ONE, b"", id="empty"),
        pytest.param("simpleenroll", ONE, b"MAA=", id="no CMS"),
        pytest.param("simpleenroll", ONE, b"<html>", id="no base64"),
        pytest.param("simpleenroll", ONE, encode_certs_only((), wrap=True), id="no certificate"),
        pytest.param("simpleenroll", ONE, encode_base64(CMC_RESPONSE, wrap=True), id="a CMC response without certificates"),
        pytest.param("csrattrs", {"Content-Type": messages.MEDIA_PKCS10}, b"MAA=", id="csrattrs of another type"),
        pytest.param("csrattrs", {"Content-Type": messages.MEDIA_CSRATTRS}, b"AAAA", id="csrattrs that are no SEQUENCE"),
        pytest.param("csrattrs", {"Content-Type": messages.MEDIA_CSRATTRS}, b"MAAA", id="bytes behind csrattrs"),
        pytest.param("fullcmc", {"Content-Type": messages.MEDIA_CMC_RESPONSE}, b"MAA=", id="fullcmc without CMS"),
        pytest.param(
            "fullcmc", {"Content-Type": messages.MEDIA_CMC_RESPONSE}, encode_certs_only((), wrap=True), id="fullcmc with nothing"
        ),
        pytest.param("serverkeygen", {"Content-Type": messages.MEDIA_PKCS8}, b"MAA=", id="a key alone"),
    ],
)
def test_answers_that_are_refused(operation: str, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_answer(operation, 200, headers, body)


def test_a_second_certificate_is_refused(certificates: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedMessage, match="2 certificates"):
        decode_answer(messages.SIMPLEENROLL, 200, ONE, encode_certs_only(certificates, wrap=True))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(messages.MEDIA_PKCS8, PKCS8)], id="no certificate"),
        pytest.param([(messages.MEDIA_PKCS8, PKCS8)] * 2, id="two keys"),
        pytest.param([(messages.MEDIA_CERTS_ONLY, PKCS8)] * 2, id="no key"),
        pytest.param([("application/pkcs7-mime", ENVELOPED)] * 2, id="parts that do not say which they are"),
        pytest.param([(messages.MEDIA_PKCS8, PKCS8), (messages.MEDIA_CERTS_ONLY, PKCS8)], id="certificates are no CMS"),
    ],
)
def test_server_keys_that_are_refused(parts: list[tuple[str, bytes]]) -> None:
    body, content_type = encode_multipart((Part(*part) for part in parts), wrap=True)
    with pytest.raises(MalformedMessage):
        decode_answer(messages.SERVERKEYGEN, 200, {"Content-Type": content_type}, body)
