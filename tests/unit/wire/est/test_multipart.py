from __future__ import annotations

import email

import pytest

from gateway.errors import MalformedMessage
from gateway.wire.est.messages import MEDIA_CERTS_ONLY, MEDIA_PKCS8
from gateway.wire.est.multipart import MAX_MULTIPART, Part, decode_multipart, encode_multipart

PARTS = (Part(MEDIA_PKCS8, b"\x30" + bytes(range(137))), Part(MEDIA_CERTS_ONLY, b"\x30" + bytes(range(256)) * 3))


@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "one line"])
def test_parts_as_python_reads_mail(wrap: bool) -> None:
    body, content_type = encode_multipart(PARTS, wrap)
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    assert message.get_content_type() == "multipart/mixed"
    found = [part for part in message.walk() if part is not message]
    assert [(part["Content-Type"], part["Content-Transfer-Encoding"]) for part in found] == [
        (MEDIA_PKCS8, "base64"),
        (MEDIA_CERTS_ONLY, "base64"),
    ]
    assert [part.get_payload(decode=True) for part in found] == [part.data for part in PARTS]
    assert not message.defects
    assert not any(part.defects for part in found)


@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "one line"])
def test_parts_as_we_read_them(wrap: bool) -> None:
    body, content_type = encode_multipart(PARTS, wrap)
    assert decode_multipart(body, content_type) == PARTS
    assert body.startswith(b"--"), "libest begins to read at the first delimiter"
    assert body.count(b"\n") == body.count(b"\r\n")
    assert "8" not in repr(PARTS[0]).replace(MEDIA_PKCS8, "")


def foreign(boundary: str, *parts: bytes, end: bytes = b"--") -> bytes:
    delimiter = b"--" + boundary.encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + end + b"\r\n"


KEY = b"Content-Type: application/pkcs8\r\n\r\nMA\nA=\n"
CERTIFICATES = b"content-type:application/pkcs7-mime; smime-type=certs-only\r\nX: y\r\n\r\nMAA=\n"
READ = (Part("application/pkcs8", b"\x30\x00"), Part(MEDIA_CERTS_ONLY, b"\x30\x00"))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", KEY, CERTIFICATES), id="plain"),
        pytest.param('Multipart/Mixed;boundary="a b:c"', foreign("a b:c", KEY, CERTIFICATES), id="quoted"),
        pytest.param("multipart/mixed ; x=y; boundary=abc; z=1", foreign("abc", KEY, CERTIFICATES), id="other parameters"),
        pytest.param("multipart/mixed; boundary=abc", b"a\r\n" + foreign("abc", KEY, CERTIFICATES) + b"z", id="around it"),
    ],
)
def test_what_other_servers_send(content_type: str, body: bytes) -> None:
    assert decode_multipart(body, content_type) == READ


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param("application/pkcs8", foreign("abc", KEY, CERTIFICATES), id="not multipart"),
        pytest.param("multipart/mixed", foreign("abc", KEY, CERTIFICATES), id="no boundary"),
        pytest.param('multipart/mixed; boundary=""', foreign("", KEY, CERTIFICATES), id="empty boundary"),
        pytest.param("multipart/mixed; boundary=" + "a" * 71, foreign("a" * 71, KEY, CERTIFICATES), id="long boundary"),
        pytest.param("multipart/mixed; boundary=abd", foreign("abc", KEY, CERTIFICATES), id="another boundary"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", KEY, CERTIFICATES, end=b""), id="no end"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc"), id="no part"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", *[KEY] * 5), id="five parts"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", b"\r\nMAA="), id="a part without a type"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", b"Content-Type: a\r\n" + KEY), id="a part with two types"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", KEY[:31]), id="a part without a body"),
        pytest.param("multipart/mixed; boundary=abc", foreign("abc", KEY + b"!"), id="no base64"),
        pytest.param("multipart/mixed; boundary=abc", b"a" * (MAX_MULTIPART + 1), id="long"),
        pytest.param("", b"", id="nothing"),
    ],
)
def test_what_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_multipart(body, content_type)
