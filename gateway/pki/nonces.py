"""Nonces that are handed out without being remembered: a time and random octets under a MAC (RFC 8555 §6.5)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.pki import base64url

NONCE_LIFETIME = timedelta(hours=1)
RANDOM_BYTES = 12
_TIME_BYTES = 4
_MAC_BYTES = 16
_SIZE = _TIME_BYTES + RANDOM_BYTES + _MAC_BYTES
_TEXT_SIZE = (_SIZE * 4 + 2) // 3
_SKEW = timedelta(minutes=5)
"""How far ahead the clock of another worker may be."""


@dataclass(frozen=True, slots=True)
class Nonce:
    """A nonce that was handed out here: `id` tells it from all others."""

    id: bytes
    issued_at: datetime


def make_nonce(key: bytes, now: datetime, random: bytes) -> str:
    """Return a nonce of `RANDOM_BYTES` octets of `random`, base64url."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random octets, not {RANDOM_BYTES}")
    signed = int(now.timestamp()).to_bytes(_TIME_BYTES) + random
    return base64url.encode(signed + _mac(key, signed))


def read_nonce(keys: Sequence[bytes], text: str, now: datetime) -> Nonce | None:
    """Return the nonce if it was made with one of `keys` and is not older than an hour; that it was not used yet, others know."""
    if len(text) != _TEXT_SIZE:
        return None
    try:
        data = base64url.decode(text)
    except ValueError:
        return None
    signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not any(hmac.compare_digest(mac, _mac(key, signed)) for key in keys):
        return None
    issued_at = datetime.fromtimestamp(int.from_bytes(signed[:_TIME_BYTES]), UTC)
    if not now - NONCE_LIFETIME <= issued_at <= now + _SKEW:
        return None
    return Nonce(signed[_TIME_BYTES:], issued_at)


def _mac(key: bytes, signed: bytes) -> bytes:
    # hmac.digest would let go of the interpreter for these few octets, and wait to have it back
    return hmac.new(key, b"acme-nonce" + signed, hashlib.sha256).digest()[:_MAC_BYTES]
