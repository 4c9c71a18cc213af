"""Structures of the TPM 2.0 Library, Part 2, as they go over the wire: attested areas, public areas and signatures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import MalformedMessage
from gateway.pki import der

RSASSA, ECDSA = 0x0014, 0x0018
"""TPM_ALG_ID of signatures (§6.3)."""
HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}

FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, RESTRICTED = 1 << 1, 1 << 4, 1 << 5, 1 << 16
"""Bits of TPMA_OBJECT (§8.3): it never leaves its TPM, nor by way of its parent, was made there, signs for the TPM alone."""

_GENERATED = 0xFF544347
_ATTEST_CERTIFY = 0x8017
_RSA, _ECC, _NULL, _RSAPSS = 0x0001, 0x0023, 0x0010, 0x0016
_CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1(), 0x0005: ec.SECP521R1()}
_RSA_SCHEMES = {_NULL: 0, RSASSA: 2, _RSAPSS: 2, 0x0015: 0, 0x0017: 2}
"""Bytes of each scheme's details: RSAES and none have nothing, the others a hash (§11.2.4)."""
_ECC_SCHEMES = {_NULL: 0, ECDSA: 2, 0x001A: 4, 0x001B: 2, 0x001C: 2, 0x0019: 2}
"""As above; ECDAA has a counter as well."""
_MIN_RSA_BITS, _MAX_RSA_BITS = 1024, 4096
_MAX_FIELD = 1024
_MAX_NAME = 66
"""A digest and which one it is; also the room for what the caller has signed along."""


class _Reader:
    """Reads big-endian numbers and TPM2B buffers; MalformedMessage where they end too soon."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._position, self._what = data, 0, what

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        found = self._data[self._position : self._position + size]
        if len(found) != size:
            raise MalformedMessage(f"the attestation's {self._what} is cut short")
        self._position += size
        return found

    def number(self, size: int) -> int:
        """Return an unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size))

    def buffer(self, limit: int = _MAX_FIELD) -> bytes:
        """Return the content of a TPM2B (§10.4) of at most `limit` bytes."""
        size = self.number(2)
        if size > limit:
            raise MalformedMessage(f"the attestation's {self._what} holds a field that is too long")
        return self.take(size)

    def finish(self) -> None:
        """Refuse bytes that are left."""
        if self._position != len(self._data):
            raise MalformedMessage(f"bytes follow the attestation's {self._what}")


@dataclass(frozen=True, slots=True)
class CertifyInfo:
    """A TPMS_ATTEST of TPM2_Certify (§10.12.12): what the caller gave to be signed along, and the Name of the key."""

    extra_data: bytes = field(repr=False)
    name: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PublicArea:
    """A TPMT_PUBLIC (§12.2.4): the key as SubjectPublicKeyInfo, what may become of it, and its Name (Part 1, §16)."""

    spki: bytes = field(repr=False)
    attributes: int
    name: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TpmSignature:
    """A TPMT_SIGNATURE (§11.3.4): scheme, name of the digest, and the signature as X.509 has it."""

    scheme: int
    digest: str
    value: bytes = field(repr=False)


def parse_certify_info(data: bytes) -> CertifyInfo:
    """Read a TPMS_ATTEST that TPM2_Certify made; MalformedMessage, also for those of other commands and what no TPM made."""
    reader = _Reader(data, "certInfo")
    if reader.number(4) != _GENERATED:
        raise MalformedMessage("the attestation's certInfo was not made by a TPM")
    if reader.number(2) != _ATTEST_CERTIFY:
        raise MalformedMessage("the attestation's certInfo does not certify a key")
    reader.buffer(_MAX_NAME)  # qualifiedSigner: the roots' CA vouches for the attestation key, whatever stands above it
    extra_data = reader.buffer(_MAX_NAME)
    reader.take(17)  # clockInfo: clock, resetCount, restartCount, safe
    reader.take(8)  # firmwareVersion
    name = reader.buffer(_MAX_NAME)
    reader.buffer(_MAX_NAME)  # qualifiedName
    reader.finish()
    return CertifyInfo(extra_data, name)


def parse_public_area(data: bytes) -> PublicArea:
    """Read a TPMT_PUBLIC of an RSA key or one on P-256, P-384 or P-521; MalformedMessage for what is none."""
    reader = _Reader(data, "pubArea")
    kind, name_hash, attributes = reader.number(2), reader.number(2), reader.number(4)
    reader.buffer()  # authPolicy
    if kind == _RSA:
        spki = _rsa_key(reader)
    elif kind == _ECC:
        spki = _ecc_key(reader)
    else:
        raise MalformedMessage("the attested key is neither RSA nor EC", f"type {kind:#06x}")
    reader.finish()
    digest = HASHES.get(name_hash)
    if digest is None or digest == "sha1":
        raise MalformedMessage("the attested key's name has a digest that is not taken", f"{name_hash:#06x}")
    return PublicArea(spki, attributes, name_hash.to_bytes(2) + hashlib.new(digest, data).digest())


def _rsa_key(reader: _Reader) -> bytes:
    _skip_symmetric(reader)
    _skip_scheme(reader, _RSA_SCHEMES)
    bits, exponent = reader.number(2), reader.number(4) or 65537
    modulus = int.from_bytes(reader.buffer())
    if modulus.bit_length() != bits or not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
        raise MalformedMessage("the attested RSA key has another size than it says")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        raise MalformedMessage("the attested RSA key is broken") from None


def _ecc_key(reader: _Reader) -> bytes:
    _skip_symmetric(reader)
    _skip_scheme(reader, _ECC_SCHEMES)
    curve = _CURVES.get(reader.number(2))
    if reader.number(2) != _NULL:
        reader.take(2)  # the key derivation's hash
    x, y = int.from_bytes(reader.buffer()), int.from_bytes(reader.buffer())
    if curve is None:
        raise MalformedMessage("the attested key is on a curve that is not taken")
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise MalformedMessage("the attested EC key is not on its curve") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _skip_symmetric(reader: _Reader) -> None:
    """Pass TPMT_SYM_DEF_OBJECT (§11.1.7): storage keys have a cipher, its size and mode."""
    if reader.number(2) != _NULL:
        reader.take(4)


def _skip_scheme(reader: _Reader, schemes: dict[int, int]) -> None:
    size = schemes.get(reader.number(2))
    if size is None:
        raise MalformedMessage("the attested key has a scheme that is not known")
    reader.take(size)


def parse_signature(data: bytes) -> TpmSignature:
    """Read a TPMT_SIGNATURE of RSA or ECDSA; MalformedMessage for what is none."""
    reader = _Reader(data, "sig")
    scheme, digest = reader.number(2), HASHES.get(reader.number(2))
    if digest is None:
        raise MalformedMessage("the attestation is signed with a digest that is not taken")
    if scheme == RSASSA:
        value = reader.buffer()
    elif scheme == ECDSA:
        value = der.sequence(der.integer(int.from_bytes(reader.buffer())), der.integer(int.from_bytes(reader.buffer())))
    else:
        raise MalformedMessage("the attestation is signed by a scheme that is not taken", f"{scheme:#06x}")
    reader.finish()
    return TpmSignature(scheme, digest, value)
