"""Private keys: make, load, store and sign with RSA, EC, Ed25519, Ed448 and ML-DSA (RFC 5958, RFC 9881)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import lcm
from types import MappingProxyType
from typing import cast

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.pki import der
from gateway.pki.algorithms import NO_DIGEST, ecdsa, hash_algorithm, signature_oid
from gateway.pki.public_keys import MAX_RSA_BITS, MIN_RSA_BITS, describe_public_key, load_public_key

__all__ = [
    "KEY_SPECS",
    "PrivateKey",
    "default_digest",
    "describe_public_key",
    "generate_private_key",
    "is_rsa",
    "key_matches",
    "load_private_key",
    "load_public_key",
    "public_key_der",
    "serialize_private_key",
    "sign",
    "signature_algorithm",
]

_HashingKey = (
    ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | _HashingKey
_PKCS1 = padding.PKCS1v15()

_GENERATORS: Mapping[str, Callable[[], PrivateKey]] = MappingProxyType(
    {
        "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ec-p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
        "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
        "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
        "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
        "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
    }
)
KEY_SPECS: tuple[str, ...] = tuple(_GENERATORS)
"""What `generate_private_key` makes, as written on the command line."""

_UNREADABLE = "not a PEM private key that can be read, or the password is wrong"
_EC_DIGESTS = MappingProxyType({"secp384r1": "sha384", "secp521r1": "sha512"})


def generate_private_key(spec: str) -> PrivateKey:
    """Make a key of one of `KEY_SPECS`; ValueError for another word. RSA-4096 may take seconds."""
    if spec not in _GENERATORS:
        raise ValueError(f"unknown kind of key {spec!r}; one of {', '.join(KEY_SPECS)}")
    return _GENERATORS[spec]()


def load_private_key(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """Read a PEM private key (PKCS#8, PKCS#1 or SEC 1).

    ValueError, with a sentence and nothing of the key, when it cannot be read, is of a kind that we cannot sign with, or an
    RSA key outside 1024-8192 bits.
    """
    try:
        # OpenSSL's check of an RSA key looks for divisors of its primes for 40 ms to a quarter of a second, in which no other
        # thread runs; _check_rsa finds the same faults of a key that nobody made up to deceive.
        key = load_pem_private_key(pem, password, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("the key is encrypted and no password was given, or the other way round") from None
    except (ValueError, UnsupportedAlgorithm, InternalError):
        raise ValueError(_UNREADABLE) from None
    if not isinstance(key, PrivateKey):
        raise ValueError(f"a key of type {type(key).__name__} cannot sign certificates")  # noqa: TRY004 - the file is wrong, not the caller
    if isinstance(key, rsa.RSAPrivateKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits is not accepted; {MIN_RSA_BITS} to {MAX_RSA_BITS} are")
    if isinstance(key, rsa.RSAPrivateKey):
        _check_rsa(key)
    return key


def _check_rsa(key: rsa.RSAPrivateKey) -> None:
    """Raise ValueError unless the numbers of a key belong together (RFC 8017 §3.2) and what it signs verifies."""
    numbers = key.private_numbers()
    n, e, d, p, q = numbers.public_numbers.n, numbers.public_numbers.e, numbers.d, numbers.p, numbers.q
    fits = (
        min(p, q) > 2
        and p * q == n
        and e & n & 1
        and e > 2
        and d < n
        and (d * e) % lcm(p - 1, q - 1) == 1
        and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
        and (numbers.iqmp * q) % p == 1
    )
    if not fits:
        raise ValueError(_UNREADABLE)
    try:
        # With an odd divisor of p or q this fails: d was computed for primes.
        key.public_key().verify(key.sign(b"", padding.PKCS1v15(), SHA256()), b"", padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError, InternalError):
        raise ValueError(_UNREADABLE) from None


def serialize_private_key(key: PrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS#8 PEM; guard it by the mode of the file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_key_der(key: PrivateKey) -> bytes:
    """Return the SubjectPublicKeyInfo of `key`, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_matches(key: PrivateKey, spki: bytes) -> bool:
    """Whether `spki`, DER SubjectPublicKeyInfo, is the public half of `key`, in whatever encoding it came."""
    if public_key_der(key) == spki:
        return True
    return load_public_key(spki) == key.public_key()


def default_digest(key: PrivateKey) -> str:
    """Return the digest of the key's strength: sha256, sha384 for P-384, sha512 for P-521, `none` where there is no choice."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "sha256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _EC_DIGESTS.get(key.curve.name, "sha256")
    return NO_DIGEST


def sign(key: PrivateKey, data: bytes, digest: str = "sha256") -> bytes:
    """Sign `data`: PKCS#1 v1.5 with RSA, DER ECDSA with EC; `digest` is ignored by keys that hash by themselves."""
    kind = _kind(type(key))
    if kind == "rsa":
        return cast("rsa.RSAPrivateKey", key).sign(data, _PKCS1, hash_algorithm(digest))
    if kind == "ec":
        return cast("ec.EllipticCurvePrivateKey", key).sign(data, ecdsa(digest))
    return cast("_HashingKey", key).sign(data)


@lru_cache(maxsize=32)
def _kind(key_class: type) -> str:
    """Return `rsa`, `ec`, or `hashing` for keys that hash by themselves; an abstract class takes long to say what is of it."""
    if issubclass(key_class, rsa.RSAPrivateKey):
        return "rsa"
    return "ec" if issubclass(key_class, ec.EllipticCurvePrivateKey) else "hashing"


def is_rsa(key: PrivateKey) -> bool:
    """Whether `key` is an RSA key."""
    return _kind(type(key)) == "rsa"


def signature_algorithm(key: PrivateKey, digest: str = "sha256") -> bytes:
    """Return the AlgorithmIdentifier, DER, of what `sign` makes, as certificates, CRLs and CSRs name it.

    Parameters are NULL for RSA and absent otherwise (RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3, RFC 9881 §2).
    """
    if isinstance(key, rsa.RSAPrivateKey):
        return der.sequence(der.oid(signature_oid("rsa", digest)), der.null())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return der.sequence(der.oid(signature_oid("ec", digest)))
    return der.sequence(der.oid(signature_oid(describe_public_key(public_key_der(key)).algorithm, NO_DIGEST)))
