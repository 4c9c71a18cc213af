"""When to renew a certificate: how it is named, and the answer (RFC 9773 §4)."""

from __future__ import annotations

import re

from gateway.acme import CertificateId
from gateway.errors import MalformedMessage
from gateway.pki import base64url

MAX_KEY_ID_BYTES = 64
MAX_SERIAL_BYTES = 20
"""RFC 5280 §4.1.2.2; its DER may have a zero octet before."""

_ID = re.compile(r"([A-Za-z0-9_-]{1,88})\.([A-Za-z0-9_-]{1,28})", re.ASCII)


def parse_certificate_id(text: str) -> CertificateId:
    """Take `base64url(keyIdentifier).base64url(serial)` apart; the serial is the content of its DER INTEGER (RFC 9773 §4.1).

    Padding is refused, and so are serials that DER would write otherwise: each certificate has one name. Raises MalformedMessage.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise _malformed("it is not two parts of base64url")
    try:
        key_id, content = base64url.decode(found[1]), base64url.decode(found[2])
    except ValueError as error:
        raise _malformed(str(error)) from None
    serial = int.from_bytes(content, "big", signed=True)
    if len(key_id) > MAX_KEY_ID_BYTES or len(content) > MAX_SERIAL_BYTES + 1 or content != _serial(serial):
        raise _malformed("a part is too long, or the serial number is not as in DER")
    return CertificateId(text, key_id, serial)


def format_certificate_id(authority_key_id: bytes, serial: int) -> str:
    """Return what `parse_certificate_id` reads."""
    return f"{base64url.encode(authority_key_id)}.{base64url.encode(_serial(serial))}"


def _serial(serial: int) -> bytes:
    """Return the content of the DER INTEGER."""
    magnitude = serial if serial >= 0 else ~serial
    return serial.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def _malformed(cause: str) -> MalformedMessage:
    return MalformedMessage("the certificate is not named by its authority key identifier and serial number", cause)
