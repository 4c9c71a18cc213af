"""Signed tokens in JWS Compact Serialization, RS256 and ES256, read under bounds (RFC 7515 §3.1, RFC 7518 §3.3-3.4)."""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.public_keys import describe_public_key, load_public_key

MAX_JWS = 8192
"""Most characters of a token that is looked at."""
MAX_DEPTH = 8
"""Deepest nesting of objects and arrays; a claim set has two levels."""
MIN_RSA_BITS = 2048
"""RFC 7518 §3.3."""
MAC_DIGESTS: Mapping[str, str] = MappingProxyType({"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"})
"""RFC 7518 §3.2."""

_MAX_HEADER = 2048
_RAW_SIGNATURE = 64
"""r and s of P-256, 32 bytes each (RFC 7518 §3.4)."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)
_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the alphabet of base64url to that of base64 (RFC 4648 §5)."""
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""Possessive, and a string without an end runs to the last character: one pass, whatever the text."""
_ALGORITHMS = frozenset({"RS256", "ES256"})
"""`none`, HMAC and whatever else the header may name would let its writer choose how he is checked (RFC 8725 §3.1)."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A token taken apart; nothing in it has been verified.

    `signing_input` is header and payload as they came over the wire (RFC 7515 §5.2).
    """

    algorithm: str
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_compact_jws(text: str) -> Jws:
    """Take `HEADER.PAYLOAD.SIGNATURE` apart, base64url with or without padding.

    Keys that the header names or brings (`kid`, `jwk`, `x5c`, `jku`) are ignored: only the caller says who is trusted. Raises
    MalformedMessage, also for `crit`; Rejection UNSUPPORTED_ALGORITHM for an `alg` other than RS256 and ES256.
    """
    if len(text) > MAX_JWS:
        raise _malformed(f"more than {MAX_JWS} characters")
    segments = text.split(".")
    if len(segments) != 3:
        raise _malformed(f"{len(segments)} segments")
    header, payload, signature = segments
    decoded_payload, decoded_signature = _decode_segment(payload), _decode_segment(signature)
    return Jws(_read_header(header), decoded_payload, f"{header}.{payload}".encode("ascii"), decoded_signature)


@lru_cache(maxsize=64)
def _read_header(segment: str) -> str:
    """Return the `alg` of a header; an issuer writes the same one again and again."""
    header = _decode_segment(segment)
    if len(header) > _MAX_HEADER:
        raise _malformed(f"a header of more than {_MAX_HEADER} bytes")
    fields = parse_json_object(header)
    if "crit" in fields:
        raise _malformed("the header has crit, and no extension is understood here")
    algorithm = fields.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the token's algorithm is not supported", "alg is not RS256 or ES256")
    return algorithm


def _decode_segment(segment: str) -> bytes:
    if _SEGMENT.fullmatch(segment) is None:
        raise _malformed("a segment is not base64url")
    bare = segment.rstrip("=")
    padding = -len(bare) % 4
    if len(segment) - len(bare) not in (0, padding):
        raise _malformed("a segment has the wrong padding")
    try:
        return binascii.a2b_base64((bare + "=" * padding).encode("ascii").translate(_STANDARD))
    except binascii.Error:
        raise _malformed("a segment is not base64url") from None


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data` is, UTF-8, no name twice in any object (RFC 7515 §4, RFC 7519 §4).

    NaN, infinities, numbers of more than 4300 digits and more than `MAX_DEPTH` levels are refused. Strings may hold lone
    surrogates still. Raises MalformedMessage.
    """
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"broken JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise _malformed("the JSON is no object")
    return value


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser, which goes down by recursion, meets it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        sign = match[0]
        depth += (sign in "[{") - (sign in "]}")
        if depth > MAX_DEPTH:
            raise _malformed(f"JSON of more than {MAX_DEPTH} levels")


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _malformed("the JSON has one name twice")
        found[name] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise _malformed(f"the JSON has {text}")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that checks tokens, loaded once; `algorithm` is the one `alg` that it serves."""

    algorithm: str
    check: Callable[[bytes, bytes], None] = field(repr=False)
    """Takes signature and signed bytes; raises InvalidSignature."""

    @classmethod
    def load(cls, spki: bytes) -> VerificationKey:
        """Take a SubjectPublicKeyInfo, DER: RSA of 2048 bits and more, or EC P-256; ValueError, with a sentence, for others."""
        try:
            described, key = describe_public_key(spki), load_public_key(spki)
        except Rejection as error:
            raise ValueError(f"the key cannot be used: {error.cause}") from None
        if isinstance(key, rsa.RSAPublicKey):
            if described.bits < MIN_RSA_BITS:
                raise ValueError(f"an RSA key of {described.bits} bits is too short; {MIN_RSA_BITS} and more are accepted")
            return cls("RS256", _rsa_check(key))
        if isinstance(key, ec.EllipticCurvePublicKey) and described.curve == "P-256":
            return cls("ES256", _ecdsa_check(key))
        kind = f"{described.algorithm} {described.curve}" if described.curve else described.algorithm
        raise ValueError(f"a key of kind {kind} cannot check tokens; RSA and EC P-256 can")

    def verifies(self, jws: Jws) -> bool:
        """Say whether this key made the signature over the bytes as received; never for an `alg` of another kind of key."""
        if jws.algorithm != self.algorithm:
            return False
        try:
            self.check(jws.signature, jws.signing_input)
        except InvalidSignature:
            return False
        return True


def _rsa_check(key: rsa.RSAPublicKey) -> Callable[[bytes, bytes], None]:
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    return lambda signature, signed: key.verify(signature, signed, scheme, digest)


def _ecdsa_check(key: ec.EllipticCurvePublicKey) -> Callable[[bytes, bytes], None]:
    scheme = ec.ECDSA(hashes.SHA256())
    return lambda signature, signed: key.verify(_ecdsa_signature(signature), signed, scheme)


def _ecdsa_signature(signature: bytes) -> bytes:
    """Return an ECDSA signature in DER; 64 bytes are r and s, others DER as some issuers send it."""
    if len(signature) != _RAW_SIGNATURE:
        return signature
    half = _RAW_SIGNATURE // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))


def verify_mac(algorithm: str, key: bytes, signing_input: bytes, mac: bytes) -> bool:
    """Say whether `mac` is that of `signing_input` under HS256, HS384 or HS512 (RFC 7518 §3.2); compared in constant time."""
    digest = MAC_DIGESTS.get(algorithm)
    return digest is not None and hmac.compare_digest(hmac.digest(key, signing_input, digest), mac)


def _malformed(cause: str) -> MalformedMessage:
    return MalformedMessage("the token is malformed", cause)
