"""Private keys as JSON Web Keys: EC, RSA and Ed25519 (RFC 7517, RFC 7518 §6, RFC 8037)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.errors import Rejection
from gateway.pki import base64url
from gateway.pki.jwk import load_jwk
from gateway.pki.jws import parse_json_object
from gateway.pki.keys import PrivateKey, load_private_key, public_key_der, serialize_private_key

MAX_JWK = 16_384
_CURVES: Mapping[str, Callable[[], ec.EllipticCurve]] = MappingProxyType(
    {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
)
_UNREADABLE = "is not a private JWK that can be read"
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def load_private_jwk(data: bytes) -> tuple[PrivateKey, str]:
    """Return the key that a JWK is, JSON, and its `kid`, which is its thumbprint where it names none (RFC 7638).

    ValueError, with a sentence and nothing of the key, for a public key, a kind that signs no tokens, and numbers that do not
    belong together.
    """
    if len(data) > MAX_JWK:
        raise ValueError(f"has more than {MAX_JWK} bytes")
    try:
        members = parse_json_object(data)
    except Rejection:
        raise ValueError(_UNREADABLE) from None
    if not isinstance(members.get("d"), str):
        raise ValueError("holds no private key" if "kty" in members else _UNREADABLE)  # noqa: TRY004 - the file is wrong, not the caller
    try:
        public = load_jwk({name: value for name, value in members.items() if name not in _SECRET})
        key = _LOADERS[str(members["kty"])](members)
        if isinstance(key, rsa.RSAPrivateKey):
            key = load_private_key(serialize_private_key(key))  # which proves that the numbers fit
    except (Rejection, ValueError, KeyError, TypeError, UnsupportedAlgorithm, InternalError):
        raise ValueError(_UNREADABLE) from None
    if public_key_der(key) != public.spki:
        raise ValueError("has a private key that is not that of its public one")
    kid = members.get("kid", public.thumbprint)
    if not isinstance(kid, str) or not 0 < len(kid) <= 512:
        raise ValueError("has a kid that is no text")
    return key, kid


def _number(members: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(base64url.decode(members[name]))


def _ec(members: Mapping[str, Any]) -> PrivateKey:
    return ec.derive_private_key(_number(members, "d"), _CURVES[members["crv"]]())


def _okp(members: Mapping[str, Any]) -> PrivateKey:
    if members["crv"] != "Ed25519":
        raise ValueError("another curve")
    return ed25519.Ed25519PrivateKey.from_private_bytes(base64url.decode(members["d"]))


def _rsa(members: Mapping[str, Any]) -> PrivateKey:
    public = rsa.RSAPublicNumbers(_number(members, "e"), _number(members, "n"))
    d, p, q, dp, dq, qi = (_number(members, name) for name in ("d", "p", "q", "dp", "dq", "qi"))
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key(unsafe_skip_rsa_key_validation=True)


_LOADERS: Mapping[str, Callable[[Mapping[str, Any]], PrivateKey]] = MappingProxyType({"EC": _ec, "OKP": _okp, "RSA": _rsa})
