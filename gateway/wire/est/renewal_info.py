"""When to renew a certificate: how it is named in the URL, and the answer (draft-ietf-lamps-est-renewal-info, RFC 9773 §4)."""

from __future__ import annotations

import re
from datetime import datetime

from gateway.acme import RenewalInfo
from gateway.wire.acme.ari import format_certificate_id
from gateway.wire.acme.ari import parse_certificate_id as parse_strictly
from gateway.wire.acme.objects import encode_renewal_info

__all__ = ["MEDIA_JSON", "encode_window", "format_certificate_id", "parse_certificate_id"]

MEDIA_JSON = "application/json"

_PADDED = re.compile(r"([^=]*)={0,2}\.([^=]*)={0,2}")


def parse_certificate_id(text: str) -> tuple[bytes, int]:
    """Return authorityKeyIdentifier and serial number of `base64url(keyIdentifier).base64url(serial)` (RFC 9773 §4.1).

    Padding, which the RFC forbids, is passed over. Raises MalformedMessage.
    """
    padded = _PADDED.fullmatch(text)
    found = parse_strictly(text if padded is None else f"{padded[1]}.{padded[2]}")
    return found.authority_key_id, found.serial


def encode_window(start: datetime, end: datetime) -> bytes:
    """Return the body of an answer (RFC 9773 §4.2)."""
    return encode_renewal_info(RenewalInfo(start, end, None, 0))
