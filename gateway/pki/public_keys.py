"""SubjectPublicKeyInfo: what kind of key it is, and the key object that verifies (RFC 5280 §4.1.2.7, 3279, 5480, 8410, 9881)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import PublicKey
from gateway.pki import der

RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
EC_PUBLIC_KEY = "1.2.840.10045.2.1"

MIN_RSA_BITS, MAX_RSA_BITS = 1024, 8192
_MAX_EXPONENT_BITS = 32
_MAX_CACHED_BYTES = 3072
"""One request shows the same key several times; the largest key of use, ML-DSA-87, has 2.6 KB."""

_CURVES = {
    "1.2.840.10045.3.1.7": ("P-256", 256),
    "1.3.132.0.34": ("P-384", 384),
    "1.3.132.0.35": ("P-521", 521),
    "1.3.132.0.33": ("P-224", 224),
    "1.2.840.10045.3.1.1": ("P-192", 192),
    "1.3.132.0.10": ("secp256k1", 256),
    "1.3.36.3.3.2.8.1.1.7": ("brainpoolP256r1", 256),
    "1.3.36.3.3.2.8.1.1.11": ("brainpoolP384r1", 384),
    "1.3.36.3.3.2.8.1.1.13": ("brainpoolP512r1", 512),
}
_FIXED = {
    "1.3.101.112": ("ed25519", 32),
    "1.3.101.113": ("ed448", 57),
    "2.16.840.1.101.3.4.3.17": ("ml-dsa-44", 1312),
    "2.16.840.1.101.3.4.3.18": ("ml-dsa-65", 1952),
    "2.16.840.1.101.3.4.3.19": ("ml-dsa-87", 2592),
}
CURVE_OIDS: Mapping[str, str] = MappingProxyType({name: oid for oid, (name, _) in _CURVES.items()})
FIXED_KEY_OIDS: Mapping[str, str] = MappingProxyType({name: oid for oid, (name, _) in _FIXED.items()})
"""Kinds of key that have no parameters."""
_FIXED_BITS = {"ed25519": 256, "ed448": 456}


def describe_public_key(spki: bytes) -> PublicKey:
    """Return kind, size and hash of a DER SubjectPublicKeyInfo; kinds that we do not know are `unknown` with 0 bits.

    Raises MalformedMessage when the structure is broken. The key itself is not checked here.
    """
    return (_read_cached(spki) if len(spki) <= _MAX_CACHED_BYTES else _read(spki)).description


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading a SubjectPublicKeyInfo shows; `exponent` is 0 where the key is none of RSA."""

    description: PublicKey
    exponent: int


def _read(spki: bytes) -> _Read:
    whole = der.content(der.SEQUENCE, spki)
    start, end = der.read_as(der.SEQUENCE, whole)
    key_start, key_end = der.read_as(der.BIT_STRING, whole, end)
    oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, whole, start)
    if key_end != len(whole) or oid_end > end:
        raise MalformedMessage("public key is broken")
    oid, key = der.decode_oid(whole[oid_start:oid_end]), der.decode_bits(whole[key_start:key_end])
    if oid == RSA_ENCRYPTION:
        modulus, exponent = _rsa_numbers(key)
        return _Read(PublicKey(spki, hashlib.sha256(spki).digest(), "rsa", modulus.bit_length()), exponent)
    algorithm, bits, curve = _kind(oid, whole[oid_end:end], key)
    return _Read(PublicKey(spki, hashlib.sha256(spki).digest(), algorithm, bits, curve), 0)


_read_cached = lru_cache(maxsize=128)(_read)


def describe_algorithm(algorithm: bytes) -> PublicKey:
    """Return the kind of key that an AlgorithmIdentifier, DER, names; of RSA no size (0 bits). Raises MalformedMessage."""
    start, end = der.read_as(der.SEQUENCE, algorithm)
    oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, algorithm, start)
    if oid_end > end or end != len(algorithm):
        raise MalformedMessage("key algorithm is broken")
    oid = der.decode_oid(algorithm[oid_start:oid_end])
    if oid == RSA_ENCRYPTION:
        return PublicKey(b"", b"", "rsa", 0)
    size = _FIXED[oid][1] if oid in _FIXED else 0
    return PublicKey(b"", b"", *_kind(oid, algorithm[oid_end:end], bytes(size)))


def _kind(oid: str, parameters: bytes, key: bytes) -> tuple[str, int, str | None]:
    """Return what a `PublicKey` says of a key that is none of RSA."""
    if oid == EC_PUBLIC_KEY:
        tag, start, end = der.read(parameters)
        name = der.decode_oid(parameters[start:end]) if tag == der.OBJECT_IDENTIFIER else "explicit"
        curve, bits = _CURVES.get(name, (name, 0))
        return "ec", bits, curve
    if oid in _FIXED:
        algorithm, size = _FIXED[oid]
        if len(key) != size or parameters:
            raise MalformedMessage("public key is broken", f"{algorithm} key of {len(key)} bytes")
        return algorithm, _FIXED_BITS.get(algorithm, size * 8), None
    return "unknown", 0, None


def _rsa_numbers(key: bytes) -> tuple[int, int]:
    """Return modulus and exponent of an RSAPublicKey (RFC 8017 §A.1.1)."""
    numbers = der.content(der.SEQUENCE, key)
    start, end = der.read_as(der.INTEGER, numbers)
    exponent_start, exponent_end = der.read_as(der.INTEGER, numbers, end)
    modulus = der.decode_integer(numbers[start:end])
    exponent = der.decode_integer(numbers[exponent_start:exponent_end])
    if exponent_end != len(numbers) or modulus <= 0 or exponent <= 0:
        raise MalformedMessage("public key is broken", "RSA numbers are not positive")
    return modulus, exponent


def load_public_key(spki: bytes) -> PublicKeyTypes:
    """Return the key of a DER SubjectPublicKeyInfo, ready to verify or encrypt.

    An RSA modulus outside 1024-8192 bits or an exponent that is even, 1 or above 32 bits is refused before any computing
    with it. Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM.
    """
    return _load_cached(spki) if len(spki) <= _MAX_CACHED_BYTES else _load(spki)


def _load(spki: bytes) -> PublicKeyTypes:
    read = _read_cached(spki) if len(spki) <= _MAX_CACHED_BYTES else _read(spki)
    if read.description.algorithm == "rsa":
        _check_rsa(read.description.bits, read.exponent)
    try:
        return load_der_public_key(spki)
    except UnsupportedAlgorithm as error:
        raise _unsupported(f"public key: {error}") from None
    except (ValueError, TypeError, OverflowError, InternalError) as error:
        raise MalformedMessage("public key is broken", f"{type(error).__name__}: {error}") from None


_load_cached = lru_cache(maxsize=128)(_load)


def _check_rsa(bits: int, exponent: int) -> None:
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise _unsupported(f"RSA modulus of {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise _unsupported("RSA public exponent is even, 1 or longer than 32 bits")


def _unsupported(cause: str) -> Rejection:
    return Rejection(Reason.UNSUPPORTED_ALGORITHM, "the public key's algorithm or size is not supported", cause)
