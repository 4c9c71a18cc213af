"""base64url as JOSE has it: without padding, one spelling for each value (RFC 7515 §2, RFC 4648 §5)."""

from __future__ import annotations

import binascii
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_STANDARD = str.maketrans("-_", "+/")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def encode(data: bytes) -> str:
    """Return `data` in base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Return what `text` encodes; ValueError for padding, other characters, and bits that mean nothing but are set."""
    if _ALPHABET.fullmatch(text) is None:
        raise ValueError("not base64url")
    if len(text) % 4 == 1:
        raise ValueError("base64url of an impossible length")
    data = binascii.a2b_base64(text.translate(_STANDARD) + "=" * (-len(text) % 4))
    if len(text) % 4 and encode(data) != text:
        raise ValueError("base64url with bits that are left over")
    return data
