"""When to renew a certificate: how it is named in the URL, and the answer (draft-ietf-lamps-est-renewal-info, RFC 9773 §4)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime

from gateway.errors import MalformedMessage

MEDIA_JSON = "application/json"
MAX_KEY_ID_BYTES = 64
MAX_SERIAL_BYTES = 20
"""RFC 5280 §4.1.2.2."""

_ID = re.compile(r"([A-Za-z0-9_-]{1,88})={0,2}\.([A-Za-z0-9_-]{1,28})={0,2}", re.ASCII)


def parse_certificate_id(text: str) -> tuple[bytes, int]:
    """Return authorityKeyIdentifier and serial number of `base64url(keyIdentifier).base64url(serial)` (RFC 9773 §4.1).

    The serial number is the content of its DER INTEGER; padding, which the RFC forbids, is passed over. Raises MalformedMessage.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise MalformedMessage("the certificate is not named by its authority key identifier and serial number")
    key_id, serial = _decode(found[1]), _decode(found[2])
    if len(key_id) > MAX_KEY_ID_BYTES or not 1 <= len(serial) <= MAX_SERIAL_BYTES + 1:
        raise MalformedMessage("the certificate's name is too long")
    return key_id, int.from_bytes(serial, "big", signed=True)


def format_certificate_id(authority_key_id: bytes, serial: int) -> str:
    """Return what `parse_certificate_id` reads."""
    content = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
    return f"{_encode(authority_key_id)}.{_encode(content)}"


def encode_window(start: datetime, end: datetime) -> bytes:
    """Return the body of an answer (RFC 9773 §4.2)."""
    return json.dumps({"suggestedWindow": {"start": _format_time(start), "end": _format_time(end)}}).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise MalformedMessage("the certificate's name is not base64url") from None


def _format_time(at: datetime) -> str:
    """Return a time as RFC 3339 has it, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
