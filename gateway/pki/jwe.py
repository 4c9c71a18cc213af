"""Opens what a password encrypts in JWE: PBES2 with AES Key Wrap, content in AES-GCM (RFC 7516 §5.2, RFC 7518 §4.8 and §5.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from gateway.errors import Rejection
from gateway.pki import base64url
from gateway.pki.jws import parse_json_object

MAX_JWE = 65_536
"""Most characters that are looked at."""
MAX_ITERATIONS = 5_000_000
"""A second or two; whoever writes more has made a mistake."""
MIN_SALT = 8
"""RFC 7518 §4.8.1.1."""

_KEY_WRAPS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {"PBES2-HS256+A128KW": ("sha256", 16), "PBES2-HS384+A192KW": ("sha384", 24), "PBES2-HS512+A256KW": ("sha512", 32)}
)
"""`alg` to the digest of PBKDF2 and the bytes that it makes."""
_CONTENT_KEYS: Mapping[str, int] = MappingProxyType({"A128GCM": 16, "A192GCM": 24, "A256GCM": 32})
"""`enc` to the bytes of its key."""
_IV, _TAG = 12, 16


@dataclass(frozen=True, slots=True)
class _Parts:
    """The five parts of a JWE with one recipient, as written, base64url."""

    protected: str
    encrypted_key: str = field(repr=False)
    iv: str
    ciphertext: str = field(repr=False)
    tag: str


def is_jwe(text: str) -> bool:
    """Say whether `text` has the form of a JWE, compact or JSON."""
    if not text.startswith("{"):
        return text.count(".") == 4
    try:
        return "ciphertext" in parse_json_object(text.encode())
    except Rejection:
        return False


def decrypt_jwe(text: str, password: bytes) -> bytes:
    """Return the plaintext of a JWE, compact or flattened JSON; ValueError, with a sentence that tells nothing of either."""
    if len(text) > MAX_JWE:
        raise ValueError(f"has more than {MAX_JWE} characters")
    try:
        parts = _split(text)
        header = parse_json_object(base64url.decode(parts.protected))
        iv, tag = base64url.decode(parts.iv), base64url.decode(parts.tag)
        wrapped, ciphertext = base64url.decode(parts.encrypted_key), base64url.decode(parts.ciphertext)
    except (Rejection, ValueError, KeyError, TypeError):
        raise ValueError("is not a JWE that can be read") from None
    if "crit" in header or "zip" in header:
        raise ValueError("is a JWE with extensions that are not understood")
    size = _CONTENT_KEYS.get(str(header.get("enc")))
    if size is None:
        raise ValueError(f"is encrypted by {str(header.get('enc'))[:40]!r}; one of {', '.join(_CONTENT_KEYS)} is read")
    key_encryption_key = _derive(header, password)
    if len(iv) != _IV or len(tag) != _TAG:
        raise ValueError("is not a JWE that can be read")
    try:
        key = aes_key_unwrap(key_encryption_key, wrapped)
        if len(key) != size:
            raise ValueError("is not a JWE that can be read")
        return AESGCM(key).decrypt(iv, ciphertext + tag, parts.protected.encode("ascii"))
    except (InvalidUnwrap, InvalidTag):
        raise ValueError("cannot be decrypted: the password is another one") from None


def _split(text: str) -> _Parts:
    if not text.startswith("{"):
        protected, wrapped, iv, ciphertext, tag = text.split(".")
        return _Parts(protected, wrapped, iv, ciphertext, tag)
    members = parse_json_object(text.encode())
    [recipient] = members.get("recipients", [members])
    if "header" in members or "header" in recipient or "unprotected" in members or "aad" in members:
        raise ValueError("a header that nothing protects")
    found = (members["protected"], recipient["encrypted_key"], members["iv"], members["ciphertext"], members["tag"])
    if not all(isinstance(part, str) for part in found):
        raise ValueError("a part is no text")
    return _Parts(*found)


def _derive(header: Mapping[str, object], password: bytes) -> bytes:
    """Return the key that wraps the content key (RFC 7518 §4.8.1.1)."""
    algorithm, salt, count = header.get("alg"), header.get("p2s"), header.get("p2c")
    if not isinstance(algorithm, str) or algorithm not in _KEY_WRAPS:
        raise ValueError(f"has its key wrapped by {str(algorithm)[:40]!r}; one of {', '.join(_KEY_WRAPS)} is read")
    if not isinstance(count, int) or not 1 <= count <= MAX_ITERATIONS:
        raise ValueError(f"derives its key in a number of rounds outside 1 to {MAX_ITERATIONS}")
    try:
        octets = base64url.decode(salt) if isinstance(salt, str) else b""
    except ValueError:
        octets = b""
    if len(octets) < MIN_SALT:
        raise ValueError("derives its key with a salt that is missing or short")
    digest, size = _KEY_WRAPS[algorithm]
    return hashlib.pbkdf2_hmac(digest, password, algorithm.encode("ascii") + b"\0" + octets, count, size)
