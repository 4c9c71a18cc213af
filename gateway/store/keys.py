"""The keys of `store.key`: HMACs of what must only be recognised, AES-256-GCM for what must be recovered (NIST SP 800-38D)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import ConfigurationError, StoreRefused

KEY_BYTES = 32
MAX_KEYS = 16
_VERSION = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The 256-bit keys of one store, newest first: the newest writes, all of them recognise and open."""

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> KeyRing:
        """Read `store.key`: one key a line as 64 hexadecimal digits, newest first; blank and # lines are skipped.

        Raises ConfigurationError; the text never repeats what the file holds.
        """
        keys = []
        for number, line in enumerate(data.splitlines(), start=1):
            text = line.strip()
            if text and not text.startswith(b"#"):
                keys.append(_parse_key(text, number))
        if not keys:
            raise ConfigurationError(("store key: the file holds no key; `pki-gateway init` writes one, one key a line in hex",))
        if len(keys) > MAX_KEYS or len(set(keys)) != len(keys):
            raise ConfigurationError((f"store key: at most {MAX_KEYS} different keys, each on one line, newest first",))
        return cls(tuple(keys))

    @property
    def newest_id(self) -> str:
        """Public identifier of the key that writes, 16 hexadecimal digits."""
        return _key_id(self.keys[0]).hex()

    def is_newest(self, sealed: bytes) -> bool:
        """Whether `encrypt` sealed this under the newest key."""
        return sealed.startswith(_VERSION + _key_id(self.keys[0]))

    @property
    def ids(self) -> tuple[str, ...]:
        """Public identifiers of all keys, newest first."""
        return tuple(_key_id(key).hex() for key in self.keys)

    def mac(self, purpose: str, data: bytes) -> bytes:
        """Return the HMAC-SHA-256 of `data` under the newest key, separate for each purpose."""
        return _mac(self.keys[0], purpose, data)

    def macs(self, purpose: str, data: bytes) -> tuple[bytes, ...]:
        """Return the HMAC under every key, newest first: what an older key stored is still recognised."""
        return tuple(_mac(key, purpose, data) for key in self.keys)

    def encrypt(self, purpose: str, data: bytes) -> bytes:
        """Seal `data` under the newest key; `purpose` must be given again to open it."""
        key, nonce = self.keys[0], secrets.token_bytes(_NONCE_BYTES)
        header = _VERSION + _key_id(key)
        sealed = _cipher(key, purpose).encrypt(nonce, data, header + purpose.encode())
        return header + nonce + sealed

    def decrypt(self, purpose: str, sealed: bytes) -> bytes:
        """Open what `encrypt` sealed under any key of the ring; raises StoreRefused where none fits or a byte was changed."""
        header, nonce = sealed[: 1 + _ID_BYTES], sealed[1 + _ID_BYTES : 1 + _ID_BYTES + _NONCE_BYTES]
        for key in self.keys:
            if header == _VERSION + _key_id(key):
                try:
                    body = sealed[1 + _ID_BYTES + _NONCE_BYTES :]
                    return _cipher(key, purpose).decrypt(nonce, body, header + purpose.encode())
                except (InvalidTag, ValueError):
                    raise StoreRefused(
                        f"a stored {purpose} value was changed and cannot be opened; restore it from a backup"
                    ) from None
        raise StoreRefused(
            f"a stored {purpose} value was sealed under a key that store.key does not hold; add that key as a last line"
        )


def generate_store_key() -> str:
    """Return one new key as a line for `store.key`, without line end."""
    return secrets.token_hex(KEY_BYTES)


def _parse_key(text: bytes, number: int) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError((f"store key: line {number} is not a 256-bit key: 64 hexadecimal digits are expected",))
    return key


@lru_cache(maxsize=4 * MAX_KEYS)
def _subkey(key: bytes, use: str, purpose: str) -> bytes:
    """Derive a key for one use and purpose, so that no HMAC ever equals a derived key."""
    return hmac.digest(key, f"pki-gateway store {use}\0{purpose}".encode(), hashlib.sha256)


@lru_cache(maxsize=4 * MAX_KEYS)
def _cipher(key: bytes, purpose: str) -> AESGCM:
    """Return the cipher for one purpose; it keeps no state between messages, but expands its key when it is made."""
    return AESGCM(_subkey(key, "encrypt", purpose))


def _key_id(key: bytes) -> bytes:
    return _subkey(key, "id", "")[:_ID_BYTES]


def _mac(key: bytes, purpose: str, data: bytes) -> bytes:
    return hmac.digest(_subkey(key, "mac", purpose), data, hashlib.sha256)
