"""certHash: by which a client says which certificate it accepts (RFC 9810 §5.3.18, RFC 9481 §2.1, §3.3)."""

from __future__ import annotations

import hashlib

from gateway.errors import MalformedMessage
from gateway.pki import der
from gateway.pki.algorithms import NO_DIGEST, digest_name, digest_oid, signature_digest, unsupported
from gateway.pki.certificate import split_signed

_ED25519, _ED448 = "1.3.101.112", "1.3.101.113"
_SHAKE256 = "2.16.840.1.101.3.4.2.12"
_STRONG = frozenset({"sha224", "sha256", "sha384", "sha512"})
_SHAKE256_BYTES = 64


def certificate_hash(certificate: bytes, algorithm: bytes | None = None) -> bytes:
    """Return the hash of a DER certificate by `algorithm`, an AlgorithmIdentifier (hashAlg), or by its own signature's digest.

    Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM where there is none: hashAlg must then say one, as with ML-DSA.
    """
    if algorithm is not None:
        return _hash_named(certificate, algorithm)
    _, signature_algorithm, _ = split_signed(certificate)
    digest = signature_digest(signature_algorithm)
    if digest is None:
        raise unsupported("a certificate whose signature algorithm names no digest")
    if digest != NO_DIGEST:
        return hashlib.new(digest, certificate).digest()
    oid = _oid(signature_algorithm)
    if oid == _ED25519:
        return hashlib.sha512(certificate).digest()
    if oid == _ED448:
        return hashlib.shake_256(certificate).digest(_SHAKE256_BYTES)
    raise unsupported(f"no digest belongs to {oid}")


def needs_hash_algorithm(certificate: bytes) -> bool:
    """Whether hashAlg must stand beside the hash, which takes pvno 3 (RFC 9810 §5.3.18); raises as `certificate_hash` does."""
    _, algorithm, _ = split_signed(certificate)
    return signature_digest(algorithm) == NO_DIGEST and _oid(algorithm) not in {_ED25519, _ED448}


def hash_algorithm_identifier(digest: str) -> bytes:
    """Return the AlgorithmIdentifier of `digest`, without parameters (RFC 9481 §2.1)."""
    return der.sequence(der.oid(digest_oid(digest)))


def _hash_named(certificate: bytes, algorithm: bytes) -> bytes:
    body = der.content(der.SEQUENCE, algorithm)
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body)
    if body[end:] not in {b"", der.null()}:
        raise MalformedMessage("hashAlg has parameters that it may not have")
    oid = der.decode_oid(body[start:end])
    if oid == _SHAKE256:
        return hashlib.shake_256(certificate).digest(_SHAKE256_BYTES)
    name = digest_name(oid)
    if name not in _STRONG:
        raise unsupported(f"hashAlg {name}")
    return hashlib.new(name, certificate).digest()


def _oid(algorithm: bytes) -> str:
    body = der.content(der.SEQUENCE, algorithm)
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body)
    return der.decode_oid(body[start:end])
