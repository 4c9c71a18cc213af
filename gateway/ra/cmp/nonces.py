"""Server nonces that are handed out without being remembered: a recipNonce proves that it is ours (RFC 9810 §5.1.1)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from enum import Enum, auto

from gateway.cmp import MacSender, Sender
from gateway.model import ProfileName

NONCE_BYTES = 32
_RANDOM_BYTES = 16
_MAC_BYTES = 16


class Origin(Enum):
    """Whose a recipNonce is."""

    OURS = auto()
    OTHER_PROTECTION = auto()
    """Of this transaction, which was protected in another way (by a MAC, not by a signature, or the other way round)."""
    STRANGE = auto()


class Nonces:
    """Random octets under a MAC that ties them to profile, transaction and kind of protection.

    That a transaction is its sender's own, the ledger says: it names the key that opened it.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys, newest first, the same in all workers; the newest makes nonces, all of them recognise."""
        if not keys:
            raise ValueError("there is no key for nonces")
        self._keys = tuple(keys)

    def make(self, profile: ProfileName, transaction: bytes, sender: Sender | None) -> bytes:
        """Return a fresh nonce."""
        random = secrets.token_bytes(_RANDOM_BYTES)
        return random + _mac(self._keys[0], profile, transaction, _kind(sender), random)

    def origin(self, nonce: bytes, profile: ProfileName, transaction: bytes, sender: Sender) -> Origin:
        """Say whether this profile made a nonce for this transaction and for this kind of protection."""
        if len(nonce) != NONCE_BYTES:
            return Origin.STRANGE
        mine, other = _kind(sender), b"mac" if _kind(sender) == b"signature" else b"signature"
        if self._is_made_for(nonce, profile, transaction, mine):
            return Origin.OURS
        return Origin.OTHER_PROTECTION if self._is_made_for(nonce, profile, transaction, other) else Origin.STRANGE

    def is_of(self, nonce: bytes | None, profile: ProfileName, transaction: bytes) -> bool:
        """Say whether this profile made a nonce for this transaction, whoever that was."""
        if nonce is None or len(nonce) != NONCE_BYTES:
            return False
        return any(self._is_made_for(nonce, profile, transaction, kind) for kind in (b"mac", b"signature"))

    def _is_made_for(self, nonce: bytes, profile: ProfileName, transaction: bytes, kind: bytes) -> bool:
        random, mac = nonce[:_RANDOM_BYTES], nonce[_RANDOM_BYTES:]
        return any(hmac.compare_digest(mac, _mac(key, profile, transaction, kind, random)) for key in self._keys)


def _kind(sender: Sender | None) -> bytes:
    if sender is None:
        return b"nobody"
    return b"mac" if isinstance(sender, MacSender) else b"signature"


def _mac(key: bytes, profile: ProfileName, *parts: bytes) -> bytes:
    data = b"".join([len(part).to_bytes(4, "big") + part for part in (b"cmp-nonce", profile.encode(), *parts)])
    return hmac.new(key, data, hashlib.sha256).digest()[:_MAC_BYTES]
