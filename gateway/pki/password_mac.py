"""MACs under shared secrets: PasswordBasedMac (RFC 9810 §5.1.3.1) and PBMAC1 (RFC 8018 §7.1), as RFC 9481 §6.1 has them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from gateway.asn1.cmp import OID_DH_BASED_MAC, OID_KEM_BASED_MAC, OID_PASSWORD_BASED_MAC, OID_PBMAC1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.algorithms import digest_oid
from gateway.pki.password import OID_PBKDF2, parse_derivation

MIN_SALT, MAX_SALT = 8, 128
"""Shorter ones let a dictionary be computed once for all (RFC 4211 §4.4); PBMParameter has at most 128."""
MIN_KEY, MAX_KEY = 16, 128
"""Bytes of a key that PBMAC1 derives."""

_SALT = 16
_PBM_ITERATIONS = 1_000
_PBMAC1_ITERATIONS = 10_000
_MAX_IDENTIFIER_BYTES = 512
_HMACS: Mapping[str, str] = MappingProxyType(
    {
        "1.3.6.1.5.5.8.1.2": "sha1",
        "1.2.840.113549.2.7": "sha1",
        "1.2.840.113549.2.8": "sha224",
        "1.2.840.113549.2.9": "sha256",
        "1.2.840.113549.2.10": "sha384",
        "1.2.840.113549.2.11": "sha512",
    }
)
_OWFS: Mapping[str, str] = MappingProxyType({digest_oid(name): name for name in ("sha224", "sha256", "sha384", "sha512")})
_HMAC_SHA256 = "1.2.840.113549.2.9"


@dataclass(frozen=True, slots=True)
class MacWindows:
    """What a stranger's parameters may ask for: fewest and most iterations, and whether PasswordBasedMac may use HMAC-SHA1."""

    pbm: tuple[int, int] = (100, 10_000)
    pbmac1: tuple[int, int] = (1_000, 100_000)
    hmac_sha1: bool = False


@dataclass(frozen=True, slots=True)
class MacParameters:
    """A decoded AlgorithmIdentifier: `digest` is the one-way function, or that of PBKDF2's HMAC, `mac` the digest of the HMAC."""

    pbmac1: bool
    salt: bytes = field(repr=False)
    iterations: int
    digest: str
    mac: str
    mac_algorithm: bytes = field(repr=False)
    """The AlgorithmIdentifier of the HMAC as it came."""
    key_length: int | None = None
    """Bytes of the key that PBKDF2 makes; None: as many as `mac` has."""


def is_mac(algorithm: bytes) -> bool:
    """Whether an AlgorithmIdentifier, DER, names a MAC, supported or not, and no signature; raises MalformedMessage."""
    return _identifier(algorithm)[0] in _MACS


def is_slow_mac(algorithm: bytes) -> bool:
    """Whether an answer under such a MAC takes milliseconds to derive: PBMAC1, whose PBKDF2 has thousands of iterations."""
    return _identifier(algorithm)[0] == OID_PBMAC1


_MACS = frozenset({OID_PASSWORD_BASED_MAC, OID_PBMAC1, OID_DH_BASED_MAC, OID_KEM_BASED_MAC})


def parse_mac(algorithm: bytes, windows: MacWindows) -> MacParameters:
    """Decode an AlgorithmIdentifier, DER, that stays within `windows`; nothing is derived before.

    Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM.
    """
    parameters = read_mac(algorithm)
    _check(parameters, windows)
    return parameters


def read_mac(algorithm: bytes) -> MacParameters:
    """Decode an AlgorithmIdentifier, DER, whatever it asks for.

    Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM for all but PBM and PBMAC1 with HMACs of SHA-1 and SHA-2.
    """
    if len(algorithm) > _MAX_IDENTIFIER_BYTES:
        raise _unsupported(f"parameters of {len(algorithm)} bytes")
    oid, parameters = _identifier(algorithm)
    if oid == OID_PASSWORD_BASED_MAC:
        return _parse_pbm(der.content(der.SEQUENCE, parameters))
    if oid == OID_PBMAC1:
        return _parse_pbmac1(der.content(der.SEQUENCE, parameters))
    raise _unsupported(f"MAC {oid}")


def _parse_pbm(body: bytes) -> MacParameters:
    """Read PBMParameter: salt, owf, iterationCount, mac (RFC 9810 §5.1.3.1)."""
    members = der.elements(body, limit=4)
    if tuple(member[0] for member in members) != (der.OCTET_STRING, der.SEQUENCE, der.INTEGER, der.SEQUENCE):
        raise MalformedMessage("PBMParameter is broken")
    (_, _, salt, salt_end), (_, owf, _, owf_end), (_, _, count, count_end), (_, mac, _, mac_end) = members
    return MacParameters(
        pbmac1=False,
        salt=body[salt:salt_end],
        iterations=_iterations(body[count:count_end]),
        digest=_one_way_function(body[owf:owf_end]),
        mac=_hmac(body[mac:mac_end]),
        mac_algorithm=body[mac:mac_end],
    )


def _parse_pbmac1(body: bytes) -> MacParameters:
    """Read PBMAC1-params: keyDerivationFunc, which is PBKDF2, and messageAuthScheme (RFC 8018 §A.5)."""
    members = der.elements(body, limit=2)
    if tuple(member[0] for member in members) != (der.SEQUENCE, der.SEQUENCE):
        raise MalformedMessage("PBMAC1 parameters are broken")
    (_, _, start, end), (_, mac, _, mac_end) = members
    derivation = parse_derivation(body[start:end])
    if derivation is None:
        raise _unsupported("PBMAC1 without PBKDF2")
    return MacParameters(
        pbmac1=True,
        salt=derivation.salt,
        iterations=derivation.iterations,
        digest=derivation.prf,
        mac=_hmac(body[mac:mac_end]),
        mac_algorithm=body[mac:mac_end],
        key_length=derivation.key_length,
    )


def _iterations(content: bytes) -> int:
    if len(content) > 8:
        raise MalformedMessage("PBMParameter is broken", "an iteration count of more than 64 bits")
    return der.decode_integer(content)


def _identifier(algorithm: bytes) -> tuple[str, bytes]:
    """Return OID and encoded parameters of an AlgorithmIdentifier."""
    body = der.content(der.SEQUENCE, algorithm)
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body)
    return der.decode_oid(body[start:end]), body[end:]


@lru_cache(maxsize=16)
def _one_way_function(algorithm: bytes) -> str:
    return _digest_of(algorithm, _OWFS)


@lru_cache(maxsize=16)
def _hmac(algorithm: bytes) -> str:
    return _digest_of(algorithm, _HMACS)


def _digest_of(algorithm: bytes, known: Mapping[str, str]) -> str:
    """Return the digest that an AlgorithmIdentifier with NULL or without parameters names."""
    oid, parameters = _identifier(algorithm)
    if parameters not in {b"", der.null()}:
        raise MalformedMessage("a digest or MAC has parameters that it may not have", oid)
    name = known.get(oid)
    if name is None:
        raise _unsupported(f"digest or MAC {oid}")
    return name


def _check(mac: MacParameters, windows: MacWindows) -> None:
    least, most = windows.pbmac1 if mac.pbmac1 else windows.pbm
    if not least <= mac.iterations <= most:
        raise _unsupported(f"{mac.iterations} iterations", f"iterations must be {least} to {most}")
    if not MIN_SALT <= len(mac.salt) <= MAX_SALT:
        raise _unsupported(f"a salt of {len(mac.salt)} bytes", f"the salt must have {MIN_SALT} to {MAX_SALT} bytes")
    if mac.digest not in _OWFS.values():
        raise _unsupported(f"derivation with {mac.digest}")
    if mac.mac == "sha1" and (mac.pbmac1 or not windows.hmac_sha1):
        raise _unsupported("HMAC-SHA1")
    if mac.key_length is not None and not MIN_KEY <= mac.key_length <= MAX_KEY:
        raise _unsupported(f"a key of {mac.key_length} bytes")


def compute_mac(mac: MacParameters, secret: bytes, data: bytes) -> bytes:
    """Return the MAC of `data`; `mac` was within windows."""
    return hmac.digest(_derive(mac, secret), data, mac.mac)


def verify_mac(mac: MacParameters, secret: bytes, data: bytes, value: bytes) -> bool:
    """Whether `value` is the MAC of `data`, told in a time that does not depend on where they differ."""
    return hmac.compare_digest(compute_mac(mac, secret, data), value)


def _derive(mac: MacParameters, secret: bytes) -> bytes:
    if mac.pbmac1:
        length = mac.key_length or hashlib.new(mac.mac).digest_size
        return hashlib.pbkdf2_hmac(mac.digest, secret, mac.salt, mac.iterations, length)
    digest = _hash_function(mac.digest)
    key = secret + mac.salt
    for _ in range(mac.iterations):
        key = digest(key).digest()
    return key


_hash_function = MappingProxyType(
    {"sha224": hashlib.sha224, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
).__getitem__


def fresh_mac(like: MacParameters | None = None, iterations: int | None = None) -> tuple[bytes, MacParameters]:
    """Return an AlgorithmIdentifier, DER, with a salt of its own, and what it says.

    PasswordBasedMac with SHA-256, HMAC-SHA-256 and 1,000 iterations, or PBMAC1 with PBKDF2 and 10,000 iterations where `like`
    is one. The HMAC is that of `like`: OpenSSL 3.0 and others know those alone that they send.
    """
    mac_algorithm, mac = (_OWN_HMAC, "sha256") if like is None else (like.mac_algorithm, like.mac)
    salt = secrets.token_bytes(_SALT)
    if like is not None and like.pbmac1:
        made = MacParameters(True, salt, iterations or _PBMAC1_ITERATIONS, "sha256", mac, mac_algorithm, 32)
        return _encode_pbmac1(made), made
    made = MacParameters(False, salt, iterations or _PBM_ITERATIONS, "sha256", mac, mac_algorithm)
    return _encode_pbm(made), made


def _encode_pbm(mac: MacParameters) -> bytes:
    parameters = der.sequence(der.octet_string(mac.salt), _OWN_OWF, der.integer(mac.iterations), mac.mac_algorithm)
    return der.sequence(der.oid(OID_PASSWORD_BASED_MAC), parameters)


def _encode_pbmac1(mac: MacParameters) -> bytes:
    pbkdf2 = der.sequence(
        der.octet_string(mac.salt), der.integer(mac.iterations), der.integer(mac.key_length or _OWN_KEY), _OWN_HMAC
    )
    return der.sequence(der.oid(OID_PBMAC1), der.sequence(der.sequence(der.oid(OID_PBKDF2), pbkdf2), mac.mac_algorithm))


_OWN_KEY = 32
_OWN_OWF = der.sequence(der.oid(digest_oid("sha256")), der.null())
_OWN_HMAC = der.sequence(der.oid(_HMAC_SHA256), der.null())


def _unsupported(cause: str, detail: str = "the password-based MAC is not supported") -> Rejection:
    return Rejection(Reason.UNSUPPORTED_ALGORITHM, detail, cause)
