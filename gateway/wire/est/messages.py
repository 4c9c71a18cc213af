"""EST bodies: base64 in both directions, media types, certs-only answers (RFC 7030 §4, RFC 8951 §3)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from typing import Literal

from gateway.errors import MalformedMessage, Reason
from gateway.model import CertificateRequest, Linking
from gateway.pki import cms
from gateway.pki.csr import EstAttributes

CACERTS = "cacerts"
SIMPLEENROLL = "simpleenroll"
SIMPLEREENROLL = "simplereenroll"
FULLCMC = "fullcmc"
SERVERKEYGEN = "serverkeygen"
CSRATTRS = "csrattrs"
RENEWAL_INFO = "renewal-info"
OPERATIONS = frozenset({CACERTS, SIMPLEENROLL, SIMPLEREENROLL, FULLCMC, SERVERKEYGEN, CSRATTRS, RENEWAL_INFO})
"""What no label may be called (RFC 7030 §3.2.2)."""

MEDIA_PKCS10 = "application/pkcs10"
MEDIA_CACERTS = "application/pkcs7-mime"
"""Stands alone: Bouncy Castle before 1.69 takes no parameter here."""
MEDIA_CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
"""To the letter: libest compares it up to here."""
MEDIA_CSRATTRS = "application/csrattrs"
MEDIA_CMC_REQUEST = "application/pkcs7-mime; smime-type=CMC-request"
MEDIA_CMC_RESPONSE = "application/pkcs7-mime; smime-type=CMC-response"
MEDIA_PKCS8 = "application/pkcs8"
MEDIA_SERVER_KEY = "application/pkcs7-mime; smime-type=server-generated-key"

TRANSFER_ENCODING_HEADER = "Content-Transfer-Encoding"
TRANSFER_ENCODING = "base64"
"""Read by nobody who follows RFC 8951 §3; libest drops parts of a multipart body that lack it."""

MAX_BODY = 65536
"""Bytes of one request as sent, before it is decoded."""
LINE = 64

WrapMode = Literal["auto", "always", "never"]

_BLANKS = b"\r\n \t"
_ARMOUR = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n \t]*)-----END \1-----")


def decode_request(body: bytes, limit: int = MAX_BODY) -> bytes:
    """Return the DER of a request's body: base64 with line breaks and blanks anywhere (RFC 8951 §3.1).

    PEM armour, of one object and with nothing around it, and bare DER are taken too: clients send both.
    Raises MalformedMessage, with reason TOO_LARGE over `limit` bytes. What was encoded is not looked at.
    """
    if len(body) > limit:
        raise MalformedMessage("the body is too long", f"{len(body)} bytes", Reason.TOO_LARGE)
    if body[:1] == b"\x30":  # a SEQUENCE; base64 of one begins with M
        return body
    text = body.strip(_BLANKS)
    if text.startswith(b"-----"):
        text = _open_armour(text)
    return decode_base64(text)


def _open_armour(text: bytes) -> bytes:
    """Return the base64 of PEM (RFC 7468 §2)."""
    found = _ARMOUR.fullmatch(text)
    if found is None:
        raise MalformedMessage("the body is not one object in PEM")
    return found[2]


def decode_base64(text: bytes) -> bytes:
    """Return what base64 with blanks and line breaks anywhere stands for; MalformedMessage where it is none, or nothing."""
    try:
        decoded = base64.b64decode(text.translate(None, _BLANKS), validate=True)
    except binascii.Error:
        raise MalformedMessage("the body is not base64") from None
    if not decoded:
        raise MalformedMessage("the body is empty")
    return decoded


def encode_base64(data: bytes, wrap: bool) -> bytes:
    """Return base64 in lines of 64 characters, or in one line, with a line break at the end."""
    text = base64.b64encode(data)
    if not wrap:
        return text + b"\n"
    return b"".join(text[i : i + LINE] + b"\n" for i in range(0, len(text), LINE))


def encode_certs_only(certificates: Iterable[bytes], wrap: bool) -> bytes:
    """Return the body of an answer that carries certificates, DER (RFC 7030 §4.1.3, §4.2.3).

    An enrollment's answer holds the issued certificate alone: globalsign's client takes no second one.
    """
    return encode_base64(cms.certs_only(certificates), wrap)


def wrap_for(mode: WrapMode, user_agent: str | None) -> bool:
    """Say whether to break lines: libest reads nothing else, strongSwan before 5.9.11 reads no breaks and sends no User-Agent."""
    if mode == "auto":
        return bool(user_agent)
    return mode == "always"


def is_media_type(header: str | None, expected: str) -> bool:
    """Whether a Content-Type header says `expected`, in any case; only the parameters that `expected` has count.

    A parameter that the header leaves out altogether does not count against it: curl users write the bare type.
    """
    found, wanted = _media_type(header or ""), _media_type(expected)
    return found[0] == wanted[0] and all(found[1].get(name, value) == value for name, value in wanted[1].items())


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    name, *rest = (piece.strip().lower() for piece in header[:256].split(";"))
    pairs = (piece.partition("=") for piece in rest)
    return name, {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def read_secrets(
    csr: CertificateRequest, attributes: EstAttributes, expected: str | None, unavailable: str = ""
) -> tuple[str | None, Linking]:
    """Return the one-time secret that a request brings, and what ties it to its connection (RFC 7030 §3.5, RFC 7894 §3).

    challengePassword can be either. With estIdentityLinking it is not the link, with otpChallenge it is not the secret, and
    where it equals `expected`, base64 of this connection's tls-unique, it is the link and nothing else. `unavailable` says
    why there is no `expected`.
    """
    password = csr.challenge_password
    presented = attributes.identity_linking or password
    secret = attributes.otp_challenge
    if secret is None and password is not None and not _equal(password, expected):
        secret = password
    return secret, Linking(presented, expected, unavailable)


def _equal(one: str, other: str | None) -> bool:
    """Compare without the line break that some base64 encoders write behind the last character."""
    return other is not None and hmac.compare_digest(one.strip("\r\n").encode(), other.encode())
