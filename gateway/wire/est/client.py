"""The client's side of EST, sans I/O: requests to send, answers taken apart (RFC 7030 §4)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from gateway.errors import MalformedMessage
from gateway.pki import cms, der
from gateway.wire.est import messages
from gateway.wire.est.multipart import decode_multipart

ROOT = "/.well-known/est"
MAX_TEXT = 1024

_SEGMENT = "!$&'()*+,;=:@"
"""What a path segment may hold beside letters, digits and -._~ (RFC 3986 §3.3)."""
_WITHOUT_ANSWER = frozenset({204, 404})


@dataclass(frozen=True, slots=True)
class EstRequest:
    """A request as HTTP takes it."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EstAnswer:
    """An answer: what a 200 carries, else `retry_after` seconds of a 202, 429 or 503, and what the server says in words."""

    status: int
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    key: bytes | None = field(default=None, repr=False)
    """serverkeygen: the private key, PKCS#8 DER; where `key_encrypted`, the CMS EnvelopedData that holds it."""
    key_encrypted: bool = False
    csrattrs: bytes | None = field(default=None, repr=False)
    """CsrAttrs, DER; None also where the server has none."""
    cmc_response: bytes | None = field(default=None, repr=False)
    """fullcmc: the CMC response, DER, of any status."""
    retry_after: int | None = None
    text: str = ""


def get_request(operation: str, label: str | None = None) -> EstRequest:
    """Return a request for what is public: cacerts, csrattrs."""
    return EstRequest("GET", _path(operation, label), {"Accept": "*/*"})


def post_request(operation: str, der_body: bytes, label: str | None = None, authorization: str | None = None) -> EstRequest:
    """Return a request that carries a PKCS#10, or for fullcmc a CMC message, DER."""
    media_type = messages.MEDIA_CMC_REQUEST if operation == messages.FULLCMC else messages.MEDIA_PKCS10
    headers = {
        "Content-Type": media_type,
        messages.TRANSFER_ENCODING_HEADER: messages.TRANSFER_ENCODING,
    }
    if authorization is not None:
        headers["Authorization"] = authorization
    return EstRequest("POST", _path(operation, label), headers, messages.encode_base64(der_body, wrap=True))


def _path(operation: str, label: str | None) -> str:
    return "/".join((ROOT, *([quote(label, safe=_SEGMENT)] if label is not None else []), operation))


def basic_authorization(name: str, password: str) -> str:
    """Return the Authorization header of HTTP Basic (RFC 7617 §2); ValueError for a name with a colon."""
    if ":" in name:
        raise ValueError("a user's name must not hold a colon")
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode("ascii")


def decode_answer(operation: str, status: int, headers: Mapping[str, str], body: bytes) -> EstAnswer:
    """Take the answer to `operation` apart; raises MalformedMessage for a 200 that is not what it should be."""
    named = {name.lower(): value for name, value in headers.items()}
    media_type = named.get("content-type", "")
    if operation == messages.FULLCMC and messages.is_media_type(media_type, messages.MEDIA_CMC_RESPONSE):
        return _decode_cmc(status, media_type, body)
    if operation == messages.CSRATTRS and status in _WITHOUT_ANSWER:
        return EstAnswer(status)
    if status != 200:
        return EstAnswer(status, retry_after=_retry_after(named), text=_text(body))
    return _decode_success(operation, media_type, body)


def _decode_success(operation: str, media_type: str, body: bytes) -> EstAnswer:
    match operation:
        case messages.CSRATTRS:
            _check_media_type(media_type, messages.MEDIA_CSRATTRS)
            return EstAnswer(200, csrattrs=_whole(messages.decode_base64(body)))
        case messages.SERVERKEYGEN:
            return _decode_server_key(media_type, body)
        case messages.CACERTS | messages.FULLCMC:
            _check_media_type(media_type, messages.MEDIA_CACERTS)
            return EstAnswer(200, _decode_certificates(messages.decode_base64(body)))
        case _:
            _check_media_type(media_type, messages.MEDIA_CERTS_ONLY)
            return EstAnswer(200, _decode_issued(messages.decode_base64(body)))


def _decode_cmc(status: int, media_type: str, body: bytes) -> EstAnswer:
    """Take a Simple or a Full PKI Response; a bare media type may mean either (RFC 7030 §4.3.2)."""
    decoded = _whole(messages.decode_base64(body))
    signed = cms.parse_signed_data(decoded)
    if signed.signers or signed.content is not None:
        return EstAnswer(status, signed.certificates, cmc_response=decoded)
    _check_media_type(media_type, messages.MEDIA_CERTS_ONLY)
    return EstAnswer(status, _decode_certificates(decoded))


def _decode_server_key(media_type: str, body: bytes) -> EstAnswer:
    """Take the key and the certificate, in this order or the other (RFC 7030 §4.4.2)."""
    parts = decode_multipart(body, media_type)
    keys = [p for p in parts if _is_key(p.media_type)]
    certificates = [p for p in parts if p not in keys and messages.is_media_type(p.media_type, messages.MEDIA_CERTS_ONLY)]
    if len(parts) != 2 or len(keys) != 1 or len(certificates) != 1:
        raise MalformedMessage("the answer is not a key and a certificate", ", ".join(p.media_type for p in parts))
    encrypted = not messages.is_media_type(keys[0].media_type, messages.MEDIA_PKCS8)
    return EstAnswer(200, _decode_issued(certificates[0].data), key=_whole(keys[0].data), key_encrypted=encrypted)


def _is_key(media_type: str) -> bool:
    """Whether a part holds a private key; an encrypted one must say so, or it would look like a certificate."""
    if messages.is_media_type(media_type, messages.MEDIA_PKCS8):
        return True
    return "smime-type" in media_type.lower() and messages.is_media_type(media_type, messages.MEDIA_SERVER_KEY)


def _check_media_type(found: str, expected: str) -> None:
    if not messages.is_media_type(found, expected):
        raise MalformedMessage("the answer has another media type", f"{found[:80]!r} where {expected!r} belongs")


def _decode_certificates(data: bytes) -> tuple[bytes, ...]:
    signed = cms.parse_signed_data(data)
    if signed.signers or not signed.certificates:
        raise MalformedMessage("the answer is not certificates alone")
    return signed.certificates


def _decode_issued(data: bytes) -> tuple[bytes, ...]:
    """Return the one certificate that was asked for (RFC 7030 §4.2.3)."""
    found = _decode_certificates(data)
    if len(found) != 1:
        raise MalformedMessage("the answer holds more than the certificate that was asked for", f"{len(found)} certificates")
    return found


def _whole(data: bytes) -> bytes:
    """Return one SEQUENCE with nothing behind it."""
    der.content(der.SEQUENCE, data)
    return data


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds of Retry-After; a date is not read (RFC 7030 §4.2.3 leaves both, we send seconds)."""
    value = headers.get("retry-after", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None


def _text(body: bytes) -> str:
    text = body[:MAX_TEXT].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()
