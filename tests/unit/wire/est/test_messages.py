from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedMessage, Reason
from gateway.model import CertificateRequest, Linking
from gateway.pki.csr import EstAttributes, build_csr, parse_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.est.messages import (
    MAX_BODY,
    MEDIA_CACERTS,
    MEDIA_CERTS_ONLY,
    MEDIA_CMC_REQUEST,
    MEDIA_PKCS10,
    WrapMode,
    decode_base64,
    decode_request,
    encode_base64,
    encode_certs_only,
    is_media_type,
    read_secrets,
    wrap_for,
)

CSR = build_csr(generate_private_key("ec-p256"), parse_name_text("CN=a").der)
LINE = base64.b64encode(CSR)


def lines(width: int, end: bytes) -> bytes:
    return end.join(LINE[i : i + width] for i in range(0, len(LINE), width)) + end


def pem(label: bytes, text: bytes = b"") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, text or lines(64, b"\n"), label)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LINE, id="one line (strongSwan)"),
        pytest.param(LINE + b"\n", id="one line with its end"),
        pytest.param(lines(64, b"\n"), id="64 columns (libest)"),
        pytest.param(lines(76, b"\r\n"), id="76 columns, CRLF (globalsign)"),
        pytest.param(b"\r\n\t " + lines(60, b" \t\r\n "), id="blanks anywhere"),
        pytest.param(pem(b"CERTIFICATE REQUEST"), id="PEM (openssl req)"),
        pytest.param(pem(b"NEW CERTIFICATE REQUEST"), id="PEM of Windows"),
        pytest.param(b"\n" + pem(b"CERTIFICATE REQUEST").replace(b"\n", b"\r\n"), id="PEM with CRLF"),
        pytest.param(pem(b"CERTIFICATE REQUEST").rstrip(), id="PEM without an end of line"),
        pytest.param(pem(b"CERTIFICATE REQUEST", LINE + b"\n"), id="PEM in one line"),
        pytest.param(CSR, id="DER"),
    ],
)
def test_bodies_that_clients_send(body: bytes) -> None:
    assert decode_request(body) == CSR


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" \r\n\t", id="blanks alone"),
        pytest.param(b"====", id="padding alone"),
        pytest.param(b"hello, world", id="no base64"),
        pytest.param(LINE[:-1], id="cut"),
        pytest.param(LINE + b"!", id="something behind it"),
        pytest.param(LINE + b"AAAA", id="base64 behind the padding")
        if LINE.endswith(b"=")
        else pytest.param(b"AA==AAAA", id="2"),
        pytest.param(LINE.replace(LINE[8:9], b"-", 1), id="URL-safe alphabet"),
        pytest.param(b"\x00" + LINE, id="zero byte"),
        pytest.param(LINE.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf" + LINE, id="byte order mark"),
        pytest.param(b"data:application/pkcs10;base64," + LINE, id="data URL"),
        pytest.param(pem(b"CERTIFICATE REQUEST") * 2, id="two objects"),
        pytest.param(b"Certificate Request:\n" + pem(b"CERTIFICATE REQUEST"), id="text before it (openssl req -text)"),
        pytest.param(pem(b"CERTIFICATE REQUEST") + b"x", id="text behind it"),
        pytest.param(pem(b"CERTIFICATE REQUEST").replace(b"END CERT", b"END CART"), id="other end"),
        pytest.param(pem(b"CERTIFICATE REQUEST")[:-40], id="no end"),
        pytest.param(b"-----", id="dashes"),
        pytest.param(b"-----BEGIN X-----\n-----END X-----", id="empty armour"),
        pytest.param(pem(b"X", b"Proc-Type: 4,ENCRYPTED\n\n" + LINE + b"\n"), id="encrypted PEM"),
    ],
)
def test_bodies_that_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessage) as refused:
        decode_request(body)
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "body", [b"A" * (MAX_BODY + 1), b"0" * (MAX_BODY + 1), b" " * (MAX_BODY + 1)], ids=["text", "DER", "blanks"]
)
def test_long_bodies_are_refused_before_anything_is_read(body: bytes) -> None:
    with pytest.raises(MalformedMessage) as refused:
        decode_request(body)
    assert refused.value.reason is Reason.TOO_LARGE
    assert decode_request(b"AAAA" * (MAX_BODY // 4)) == bytes(MAX_BODY // 4 * 3)


@given(st.binary(max_size=200))
def test_any_bytes_give_bytes_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert isinstance(decode_request(body), bytes)


@given(st.binary(min_size=1, max_size=500), st.booleans())
def test_what_is_encoded_is_decoded(data: bytes, wrap: bool) -> None:
    assert decode_base64(encode_base64(data, wrap)) == data


def test_lines() -> None:
    assert encode_base64(bytes(96), wrap=True) == b"A" * 64 + b"\n" + b"A" * 64 + b"\n"
    assert encode_base64(bytes(97), wrap=True) == (b"A" * 64 + b"\n") * 2 + b"AA==\n"
    assert encode_base64(bytes(96), wrap=False) == b"A" * 128 + b"\n"


@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "one line"])
def test_certs_only_as_openssl_sees_it(wrap: bool, certificates: tuple[bytes, ...], openssl: Callable[..., bytes]) -> None:
    body = encode_certs_only(certificates, wrap)
    assert (body.count(b"\n") == 1) is not wrap
    assert body.endswith(b"\n")
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", data=base64.b64decode(body))
    found = [base64.b64decode(p.split(b"-----END")[0]) for p in printed.split(b"-----BEGIN CERTIFICATE-----")[1:]]
    assert tuple(found) == certificates


@pytest.mark.parametrize(
    ("mode", "agent", "wrap"),
    [
        pytest.param("auto", None, False, id="strongSwan before 5.9.11 sends no User-Agent"),
        pytest.param("auto", "", False, id="an empty one"),
        pytest.param("auto", "libest 3.2.0p", True, id="libest needs lines"),
        pytest.param("auto", "curl/7.88.1", True, id="others take both"),
        pytest.param("always", None, True, id="always"),
        pytest.param("never", "libest 3.2.0p", False, id="never"),
    ],
)
def test_lines_that_suit_the_client(mode: WrapMode, agent: str | None, wrap: bool) -> None:
    assert wrap_for(mode, agent) is wrap


@pytest.mark.parametrize(
    ("header", "expected", "same"),
    [
        pytest.param("application/pkcs10", MEDIA_PKCS10, True, id="to the letter"),
        pytest.param("Application/PKCS10", MEDIA_PKCS10, True, id="any case"),
        pytest.param("application/pkcs10; charset=utf-8", MEDIA_PKCS10, True, id="parameters that say nothing"),
        pytest.param(" application/pkcs10 ;", MEDIA_PKCS10, True, id="blanks"),
        pytest.param("application/x-www-form-urlencoded", MEDIA_PKCS10, False, id="curl's own"),
        pytest.param("application/pkcs10-x", MEDIA_PKCS10, False, id="longer"),
        pytest.param("application/json, application/pkcs10", MEDIA_PKCS10, False, id="a list"),
        pytest.param("", MEDIA_PKCS10, False, id="empty"),
        pytest.param(None, MEDIA_PKCS10, False, id="absent"),
        pytest.param("application/pkcs7-mime; smime-type=CMC-request", MEDIA_CMC_REQUEST, True, id="CMC"),
        pytest.param('application/pkcs7-mime;SMIME-Type="cmc-Request"; name=x', MEDIA_CMC_REQUEST, True, id="CMC, quoted"),
        pytest.param("application/pkcs7-mime", MEDIA_CMC_REQUEST, True, id="CMC, bare"),
        pytest.param("application/pkcs7-mime; smime-type=certs-only", MEDIA_CMC_REQUEST, False, id="another smime-type"),
        pytest.param("application/pkcs7-mime; smime-type=certs-only", MEDIA_CACERTS, True, id="more than was asked for"),
        pytest.param(";" * 5000, MEDIA_PKCS10, False, id="long"),
    ],
)
def test_media_types(header: str | None, expected: str, same: bool) -> None:
    assert is_media_type(header, expected) is same


def test_media_types_that_clients_compare_to_the_letter() -> None:
    assert MEDIA_CACERTS == "application/pkcs7-mime"
    assert MEDIA_CERTS_ONLY == "application/pkcs7-mime; smime-type=certs-only"


LINK = "bGluayBvZiB0aGlz"


def request(password: str | None) -> CertificateRequest:
    return replace(parse_csr(CSR), challenge_password=password)


@pytest.mark.parametrize(
    ("password", "attributes", "expected", "secret", "presented"),
    [
        pytest.param(None, EstAttributes(), LINK, None, None, id="nothing"),
        pytest.param(LINK, EstAttributes(), LINK, None, LINK, id="challengePassword is the link"),
        pytest.param(LINK + "\n", EstAttributes(), LINK, None, LINK + "\n", id="challengePassword is the link and a line break"),
        pytest.param("s3cret", EstAttributes(), LINK, "s3cret", "s3cret", id="challengePassword is something else"),
        pytest.param("s3cret", EstAttributes(), None, "s3cret", "s3cret", id="no link to compare with (TLS 1.3)"),
        pytest.param(None, EstAttributes(otp_challenge="123456"), LINK, "123456", None, id="otpChallenge"),
        pytest.param(LINK, EstAttributes(otp_challenge="123456"), LINK, "123456", LINK, id="otpChallenge beside the old link"),
        pytest.param("old", EstAttributes(otp_challenge="123456"), LINK, "123456", "old", id="otpChallenge beside a wrong link"),
        pytest.param(None, EstAttributes(identity_linking=LINK), LINK, None, LINK, id="estIdentityLinking"),
        pytest.param("s3cret", EstAttributes(identity_linking=LINK), LINK, "s3cret", LINK, id="beside a secret"),
        pytest.param(
            LINK,
            EstAttributes("123456", "wrong"),
            LINK,
            "123456",
            "wrong",
            id="before challengePassword",
        ),
        pytest.param("é", EstAttributes(), LINK, "é", "é", id="no ASCII"),
    ],
)
def test_secret_and_link(
    password: str | None, attributes: EstAttributes, expected: str | None, secret: str | None, presented: str | None
) -> None:
    found, linking = read_secrets(request(password), attributes, expected, "why not")
    assert (found, linking) == (secret, Linking(presented, expected, "why not"))
    assert "s3cret" not in repr(linking)
    assert "123456" not in repr(attributes)
