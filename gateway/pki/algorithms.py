"""Signature algorithms: one table from AlgorithmIdentifier to key kind, digest and padding (RFC 4055, 5758, 8410, 9881)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeAlias, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.public_keys import EC_PUBLIC_KEY, RSA_ENCRYPTION, describe_public_key, load_public_key

NO_DIGEST = "none"
"""The digest name of algorithms that hash by themselves: Ed25519, Ed448, ML-DSA."""
RSASSA_PSS = "1.2.840.113549.1.1.10"
MGF1 = "1.2.840.113549.1.1.8"

_DIGESTS: Mapping[str, tuple[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "md5": ("1.2.840.113549.2.5", hashes.MD5()),  # noqa: S303 - only where the caller of verify_signature accepts it
        "sha1": ("1.3.14.3.2.26", hashes.SHA1()),  # noqa: S303 - verified and reported; policy refuses it
        "sha224": ("2.16.840.1.101.3.4.2.4", hashes.SHA224()),
        "sha256": ("2.16.840.1.101.3.4.2.1", hashes.SHA256()),
        "sha384": ("2.16.840.1.101.3.4.2.2", hashes.SHA384()),
        "sha512": ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
    }
)
_DIGEST_NAMES = MappingProxyType({oid: name for name, (oid, _) in _DIGESTS.items()})


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """One row: `kind` is a `PublicKey.algorithm`; `digest` None when parameters or the message name it."""

    oid: str
    kind: str
    digest: str | None


_ROWS = (
    SignatureAlgorithm(RSA_ENCRYPTION, "rsa", None),
    SignatureAlgorithm("1.2.840.113549.1.1.4", "rsa", "md5"),
    SignatureAlgorithm("1.2.840.113549.1.1.5", "rsa", "sha1"),
    SignatureAlgorithm("1.3.14.3.2.29", "rsa", "sha1"),
    SignatureAlgorithm("1.2.840.113549.1.1.14", "rsa", "sha224"),
    SignatureAlgorithm("1.2.840.113549.1.1.11", "rsa", "sha256"),
    SignatureAlgorithm("1.2.840.113549.1.1.12", "rsa", "sha384"),
    SignatureAlgorithm("1.2.840.113549.1.1.13", "rsa", "sha512"),
    SignatureAlgorithm(RSASSA_PSS, "rsa", None),
    SignatureAlgorithm(EC_PUBLIC_KEY, "ec", None),
    SignatureAlgorithm("1.2.840.10045.4.1", "ec", "sha1"),
    SignatureAlgorithm("1.2.840.10045.4.3.1", "ec", "sha224"),
    SignatureAlgorithm("1.2.840.10045.4.3.2", "ec", "sha256"),
    SignatureAlgorithm("1.2.840.10045.4.3.3", "ec", "sha384"),
    SignatureAlgorithm("1.2.840.10045.4.3.4", "ec", "sha512"),
    SignatureAlgorithm("1.3.101.112", "ed25519", NO_DIGEST),
    SignatureAlgorithm("1.3.101.113", "ed448", NO_DIGEST),
    SignatureAlgorithm("2.16.840.1.101.3.4.3.17", "ml-dsa-44", NO_DIGEST),
    SignatureAlgorithm("2.16.840.1.101.3.4.3.18", "ml-dsa-65", NO_DIGEST),
    SignatureAlgorithm("2.16.840.1.101.3.4.3.19", "ml-dsa-87", NO_DIGEST),
)
SIGNATURE_ALGORITHMS: Mapping[str, SignatureAlgorithm] = MappingProxyType({row.oid: row for row in _ROWS})
"""By OID. rsaEncryption and id-ecPublicKey serve CMS, where the digest stands beside them (RFC 3370 §3.2)."""


def digest_name(oid: str) -> str:
    """Return `sha256` for 2.16.840.1.101.3.4.2.1; Rejection UNSUPPORTED_ALGORITHM when we do not know it."""
    name = _DIGEST_NAMES.get(oid)
    if name is None:
        raise unsupported(f"digest {oid}")
    return name


def digest_oid(name: str) -> str:
    """Return the dotted OID of digest `name`; Rejection UNSUPPORTED_ALGORITHM when there is none."""
    if name not in _DIGESTS:
        raise unsupported(f"digest {name}")
    return _DIGESTS[name][0]


def hash_algorithm(name: str) -> hashes.HashAlgorithm:
    """Return cryptography's object for digest `name`; Rejection UNSUPPORTED_ALGORITHM when there is none."""
    if name not in _DIGESTS:
        raise unsupported(f"digest {name}")
    return _DIGESTS[name][1]


@lru_cache(maxsize=8)
def ecdsa(name: str) -> ec.ECDSA:
    """Return cryptography's object for ECDSA with digest `name`, which it takes long to make, with the same refusal."""
    return ec.ECDSA(hash_algorithm(name))


def signature_oid(kind: str, digest: str) -> str:
    """Return the OID by which certificates name a signature of key `kind` over `digest` (`none` for EdDSA and ML-DSA)."""
    for row in _ROWS:
        if row.kind == kind and row.digest == digest and row.oid != "1.3.14.3.2.29":
            return row.oid
    raise unsupported(f"{kind} with {digest}")


_MAX_IDENTIFIER_BYTES = 256


@dataclass(frozen=True, slots=True)
class _Scheme:
    """A decoded AlgorithmIdentifier; `pss` is the salt length and the mask's digest."""

    row: SignatureAlgorithm
    digest: str | None
    pss: tuple[int, str] | None = None


def verify_signature(
    public_key_spki: bytes,
    algorithm_der: bytes,
    signature: bytes,
    data: bytes,
    digest: str | None = None,
    *,
    accept_md5: bool = False,
) -> str:
    """Verify `signature` over `data` and return the digest's name (`none` for algorithms that hash by themselves).

    `algorithm_der` is the AlgorithmIdentifier as received; `digest` names the digest where that names only a key
    (rsaEncryption in CMS). `accept_md5` takes RSA with MD5, which collisions make worthless wherever the signer is not the
    author of the data: never for certificates or CRLs. Raises MalformedMessage, Rejection UNSUPPORTED_ALGORITHM or BAD_SIGNATURE.
    """
    if len(algorithm_der) > _MAX_IDENTIFIER_BYTES:
        raise unsupported("signature algorithm of more than 256 bytes")
    scheme = _decode_scheme(algorithm_der)
    used = scheme.digest or digest
    kind = describe_public_key(public_key_spki).algorithm
    if used is None:
        raise unsupported(f"{scheme.row.oid} without a digest")
    if kind != scheme.row.kind:
        raise _bad_signature(f"{scheme.row.kind} signature, {kind} key")
    if used == "md5" and not (accept_md5 and kind == "rsa"):
        raise unsupported(f"MD5 with {kind}")
    key = load_public_key(public_key_spki)
    try:
        # What kind of object it is was told by its OID; asking the abstract classes in turn costs microseconds.
        if kind == "rsa":
            cast("rsa.RSAPublicKey", key).verify(signature, data, _padding(scheme), hash_algorithm(used))
        elif kind == "ec":
            cast("ec.EllipticCurvePublicKey", key).verify(signature, data, ecdsa(used))
        else:
            cast("_HashingKey", key).verify(signature, data)
    except InvalidSignature:
        raise _bad_signature("signature does not verify") from None
    except (UnsupportedAlgorithm, ValueError) as error:
        raise unsupported(f"{type(error).__name__}: {error}") from None
    return used


def signature_digest(algorithm_der: bytes) -> str | None:
    """Return the digest of an AlgorithmIdentifier (`none` where it hashes by itself), None where it stands beside it in CMS.

    Raises MalformedMessage or Rejection UNSUPPORTED_ALGORITHM.
    """
    if len(algorithm_der) > _MAX_IDENTIFIER_BYTES:
        raise unsupported("signature algorithm of more than 256 bytes")
    return _decode_scheme(algorithm_der).digest


_HashingKey: TypeAlias = (
    ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
)

_PKCS1 = padding.PKCS1v15()


def _padding(scheme: _Scheme) -> padding.AsymmetricPadding:
    if scheme.pss is None:
        return _PKCS1
    salt, mask = scheme.pss
    return padding.PSS(padding.MGF1(hash_algorithm(mask)), salt)


@lru_cache(maxsize=128)
def _decode_scheme(algorithm_der: bytes) -> _Scheme:
    body = der.content(der.SEQUENCE, algorithm_der)
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body)
    oid = der.decode_oid(body[start:end])
    row = SIGNATURE_ALGORITHMS.get(oid)
    if row is None:
        raise unsupported(f"signature algorithm {oid}")
    parameters = body[end:]
    if oid == RSASSA_PSS:
        return _decode_pss(row, parameters)
    if parameters not in {b"", der.null()}:
        raise MalformedMessage("signature algorithm has parameters that it may not have", oid)
    return _Scheme(row, row.digest)


def _decode_pss(row: SignatureAlgorithm, parameters: bytes) -> _Scheme:
    """Read RSASSA-PSS-params with their defaults (RFC 4055 §3.1)."""
    digest, mask, salt = "sha1", "sha1", 20
    previous = -1
    body = der.content(der.SEQUENCE, parameters)
    for tag, _, start, end in der.elements(body):
        number, value = tag - 0xA0, body[start:end]
        if number <= previous:
            raise MalformedMessage("RSASSA-PSS parameters are out of order")
        previous = number
        if number == 0:
            digest = _digest(value)
        elif number == 1:
            oid, inner = _identifier(value)
            if oid != MGF1:
                raise unsupported(f"mask generation function {oid}")
            mask = _digest(inner)
        elif number == 2:
            salt = der.decode_integer(der.content(der.INTEGER, value))
        elif number != 3 or der.decode_integer(der.content(der.INTEGER, value)) != 1:
            raise MalformedMessage("RSASSA-PSS parameters are broken")
    if not 0 <= salt <= 1024:
        raise MalformedMessage("RSASSA-PSS salt length is out of range")
    return _Scheme(row, digest, (salt, mask))


def _digest(algorithm: bytes) -> str:
    """Return the name of a digest's AlgorithmIdentifier, whose parameters are NULL or absent (RFC 4055 §2.1); never MD5."""
    oid, parameters = _identifier(algorithm)
    if parameters not in {b"", der.null()}:
        raise MalformedMessage("digest algorithm has parameters that it may not have", oid)
    name = digest_name(oid)
    if name == "md5":
        raise unsupported("RSASSA-PSS with MD5")
    return name


def _identifier(algorithm: bytes) -> tuple[str, bytes]:
    """Return OID and encoded parameters of an AlgorithmIdentifier."""
    body = der.content(der.SEQUENCE, algorithm)
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body)
    return der.decode_oid(body[start:end]), body[end:]


def unsupported(cause: str) -> Rejection:
    """Return the refusal of an algorithm; `cause` goes to the log."""
    return Rejection(Reason.UNSUPPORTED_ALGORITHM, "the algorithm is not supported", cause)


def _bad_signature(cause: str) -> Rejection:
    return Rejection(Reason.BAD_SIGNATURE, "the signature does not verify", cause)
