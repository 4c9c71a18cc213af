"""JSON Web Keys: public keys, their names, and the signatures that they check (RFC 7517, RFC 7518, RFC 7638, RFC 9964)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import Reason, Rejection
from gateway.pki import base64url
from gateway.pki.public_keys import MAX_RSA_BITS, load_public_key

MIN_ACCOUNT_RSA_BITS = 2048
"""RFC 7518 §3.3."""
MAX_MEMBER = 4096
"""Most characters of a member that is looked at; the largest key of use, ML-DSA-87, has 3456."""

CLASSICAL_ALGORITHMS: tuple[str, ...] = (
    "ES256",
    "ES384",
    "ES512",
    "RS256",
    "PS256",
    "PS384",
    "PS512",
    "EdDSA",
    "Ed25519",
    "Ed448",
)
ML_DSA_ALGORITHMS: tuple[str, ...] = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")

_MAX_EXPONENT_BITS = 32
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "priv", "k"})
_SMALL_PRIMES = math.prod(p for p in range(3, 752, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2)))
_CURVES: Mapping[str, tuple[type[ec.EllipticCurve], int, str, type[hashes.HashAlgorithm]]] = MappingProxyType(
    {
        "P-256": (ec.SECP256R1, 32, "ES256", hashes.SHA256),
        "P-384": (ec.SECP384R1, 48, "ES384", hashes.SHA384),
        "P-521": (ec.SECP521R1, 66, "ES512", hashes.SHA512),
    }
)
_CURVE_NAMES = MappingProxyType({"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"})
RSA_SCHEMES: Mapping[str, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "RS256": (padding.PKCS1v15(), hashes.SHA256()),
        "PS256": (padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size), hashes.SHA256()),
        "PS384": (padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size), hashes.SHA384()),
        "PS512": (padding.PSS(padding.MGF1(hashes.SHA512()), hashes.SHA512.digest_size), hashes.SHA512()),
    }
)
_MlDsaKey = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
CURVE_DIGESTS: Mapping[str, hashes.HashAlgorithm] = MappingProxyType(
    {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
)
_ML_DSA: Mapping[str, type[_MlDsaKey]] = MappingProxyType(
    {
        "ML-DSA-44": mldsa.MLDSA44PublicKey,
        "ML-DSA-65": mldsa.MLDSA65PublicKey,
        "ML-DSA-87": mldsa.MLDSA87PublicKey,
    }
)
_Check = Callable[[str, bytes, bytes], None]
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | _MlDsaKey


@dataclass(frozen=True, slots=True)
class JsonWebKey:
    """A public key, loaded once and usable again and again.

    `text` is its canonical JSON, `thumbprint` the base64url of that one's SHA-256 (RFC 7638 §3); `algorithms` are the values of
    `alg` that it serves, `spki` the same key as SubjectPublicKeyInfo, DER.
    """

    text: str
    thumbprint: str
    algorithms: tuple[str, ...]
    spki: bytes = field(repr=False)
    spki_sha256: bytes = field(repr=False)
    check: _Check = field(repr=False, compare=False)
    """Takes algorithm, signature and signed bytes; raises InvalidSignature."""

    def verifies(self, algorithm: str, signature: bytes, signed: bytes) -> bool:
        """Say whether this key made the signature; never for an algorithm of another kind of key."""
        if algorithm not in self.algorithms:
            return False
        try:
            self.check(algorithm, signature, signed)
        except (InvalidSignature, ValueError, InternalError):
            return False
        return True


def load_jwk(members: Mapping[str, object]) -> JsonWebKey:
    """Return the public key that a JWK is; members beyond the required ones are passed over.

    Raises Rejection ACCOUNT_KEY for a kind, curve or size that is not taken, for numbers that are no key, and for a private key.
    """
    if _PRIVATE & members.keys():
        raise _bad("the key is not a public key", "it has private members")
    return _load(_canonical(members))


def load_jwk_text(text: str) -> JsonWebKey:
    """Return the key of canonical JSON, as `JsonWebKey.text` has it."""
    return _load(text)


@lru_cache(maxsize=4096)
def _load(text: str) -> JsonWebKey:
    members: dict[str, str] = json.loads(text)
    try:
        algorithms, key, check = _LOADERS[members["kty"]](members)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, OverflowError, UnsupportedAlgorithm, InternalError) as error:
        raise _bad("the key is broken", f"{type(error).__name__}: {error}") from None
    thumbprint = base64url.encode(hashlib.sha256(text.encode("ascii")).digest())
    return JsonWebKey(text, thumbprint, algorithms, spki, hashlib.sha256(spki).digest(), check)


_REQUIRED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "RSA": ("e", "kty", "n"),
        "EC": ("crv", "kty", "x", "y"),
        "OKP": ("crv", "kty", "x"),
        "AKP": ("alg", "kty", "pub"),
    }
)
"""In the order of the canonical form (RFC 7638 §3.2, RFC 8037 §2, RFC 9964 §6)."""


def _canonical(members: Mapping[str, object]) -> str:
    kind = members.get("kty")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise _bad("keys of this kind are not accepted", f"kty is {str(kind)[:40]!r}")
    found = {name: members.get(name) for name in _REQUIRED[kind]}
    for name, value in found.items():
        if not isinstance(value, str) or not value.isascii() or not 0 < len(value) <= MAX_MEMBER:
            raise _bad("the key is broken", f"member {name} is absent, too long or no text")
    return json.dumps(found, separators=(",", ":"))


def _rsa(members: Mapping[str, str]) -> tuple[tuple[str, ...], _PublicKey, _Check]:
    modulus, exponent = _integer(members["n"]), _integer(members["e"])
    bits = modulus.bit_length()
    if not MIN_ACCOUNT_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise _bad(f"an RSA key of {bits} bits is not accepted; {MIN_ACCOUNT_RSA_BITS} to {MAX_RSA_BITS} bits are")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise _bad("the RSA key is weak", "its exponent is even, 1 or longer than 32 bits")
    if modulus % 2 == 0 or math.gcd(modulus, _SMALL_PRIMES) != 1:
        raise _bad("the RSA key is weak", "its modulus has a small divisor")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        scheme, digest = RSA_SCHEMES[algorithm]
        key.verify(signature, signed, scheme, digest)

    return tuple(RSA_SCHEMES), key, check


def _ec(members: Mapping[str, str]) -> tuple[tuple[str, ...], _PublicKey, _Check]:
    if members["crv"] not in _CURVES:
        raise _bad("keys on this curve are not accepted", f"crv is {members['crv'][:40]!r}")
    curve, size, name, digest = _CURVES[members["crv"]]
    x, y = _octets(members["x"], size), _octets(members["y"], size)
    key = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve()).public_key()
    scheme = ec.ECDSA(digest())

    def check(_: str, signature: bytes, signed: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        key.verify(encode_dss_signature(r, s), signed, scheme)

    return (name,), key, check


def _okp(members: Mapping[str, str]) -> tuple[tuple[str, ...], _PublicKey, _Check]:
    data = base64url.decode(members["x"])
    key: ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
    if members["crv"] == "Ed25519":
        key = ed25519.Ed25519PublicKey.from_public_bytes(data)
    elif members["crv"] == "Ed448":
        key = ed448.Ed448PublicKey.from_public_bytes(data)
    else:
        raise _bad("keys on this curve are not accepted", f"crv is {members['crv'][:40]!r}")
    return ("EdDSA", members["crv"]), key, lambda _, signature, signed: key.verify(signature, signed)


def _akp(members: Mapping[str, str]) -> tuple[tuple[str, ...], _PublicKey, _Check]:
    kind = _ML_DSA.get(members["alg"])
    if kind is None:
        raise _bad("keys of this algorithm are not accepted", f"alg is {members['alg'][:40]!r}")
    key = kind.from_public_bytes(base64url.decode(members["pub"]))
    return (members["alg"],), key, lambda _, signature, signed: key.verify(signature, signed)


_LOADERS = MappingProxyType({"RSA": _rsa, "EC": _ec, "OKP": _okp, "AKP": _akp})


def _integer(text: str) -> int:
    """Return a Base64urlUInt; leading zeros would make a second name of the same key (RFC 7518 §2)."""
    data = base64url.decode(text)
    if data[0] == 0:
        raise ValueError("a number has leading zeros")
    return int.from_bytes(data)


def _octets(text: str, size: int) -> bytes:
    data = base64url.decode(text)
    if len(data) != size:
        raise ValueError(f"a coordinate of {len(data)} octets, not {size}")
    return data


def jwk_of(spki: bytes) -> str | None:
    """Return the canonical JSON of the key of a SubjectPublicKeyInfo, DER; None for a kind of key that accounts cannot have."""
    try:
        key = load_public_key(spki)
    except Rejection:
        return None
    members = _members(key)
    return None if members is None else json.dumps(dict(sorted(members.items())), separators=(",", ":"))


def thumbprint_of(spki: bytes) -> str | None:
    """Return the name that an account of this key would have (RFC 7638); None for a kind of key that accounts cannot have."""
    text = jwk_of(spki)
    return None if text is None else base64url.encode(hashlib.sha256(text.encode("ascii")).digest())


def _members(key: object) -> dict[str, str] | None:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _encode_integer(numbers.n), "e": _encode_integer(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _ec_members(key)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        curve = "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "Ed448"
        return {"kty": "OKP", "crv": curve, "x": base64url.encode(key.public_bytes_raw())}
    for name, kind in _ML_DSA.items():
        if isinstance(key, kind):
            return {"kty": "AKP", "alg": name, "pub": base64url.encode(key.public_bytes_raw())}
    return None


def _ec_members(key: ec.EllipticCurvePublicKey) -> dict[str, str] | None:
    name = _CURVE_NAMES.get(key.curve.name)
    if name is None:
        return None
    size, numbers = _CURVES[name][1], key.public_numbers()
    x, y = base64url.encode(numbers.x.to_bytes(size)), base64url.encode(numbers.y.to_bytes(size))
    return {"kty": "EC", "crv": name, "x": x, "y": y}


def _encode_integer(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8))


def _bad(detail: str, cause: str = "") -> Rejection:
    return Rejection(Reason.ACCOUNT_KEY, detail, cause)
