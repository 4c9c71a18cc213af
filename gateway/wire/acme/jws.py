"""Requests as JWS: flattened JSON, one signature, taken apart under bounds and verified (RFC 8555 §6.2-6.5, RFC 7515 §7.2.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.acme import ExternalBinding, KeyChange
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import base64url
from gateway.pki.jwk import JsonWebKey, load_jwk
from gateway.pki.jws import MAC_DIGESTS, parse_json_object

MEDIA_JOSE = "application/jose+json"
MAX_BODY = 65536
"""Most bytes of a request; a CSR and an account key of ML-DSA-87 with its signature need 25 KB."""
MAX_URL = 2048
MAX_KID = 512
MAX_NONCE = 512

_NONCE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class UnsupportedAlgorithm(Rejection):
    """A signature by an algorithm that is not taken; `algorithms` are those that are (RFC 8555 §6.2)."""

    def __init__(self, cause: str, algorithms: Sequence[str]) -> None:
        text = "the JWS is signed by an algorithm that is not accepted, or that is not the key's"
        super().__init__(Reason.UNSUPPORTED_ALGORITHM, text, cause)
        self.algorithms = tuple(algorithms)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request taken apart; nothing in it has been verified. It has exactly one of `kid` and `jwk`.

    `signing_input` is header and payload as they came over the wire (RFC 7515 §5.2).
    """

    algorithm: str
    nonce: str
    url: str
    kid: str | None
    jwk: Mapping[str, object] | None = field(repr=False)
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def is_read(self) -> bool:
        """Whether it is POST-as-GET: the payload is empty, which `{}` is not (RFC 8555 §6.3)."""
        return not self.payload


@dataclass(frozen=True, slots=True)
class _Flattened:
    """A flattened JWS: `header` is the protected one, the only one that may be."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes
    parts: tuple[str, str, str]


def parse_request(body: bytes, algorithms: Sequence[str]) -> SignedRequest:
    """Take the body of a POST apart.

    Raises MalformedMessage; UnsupportedAlgorithm for an `alg` that is not among `algorithms`; Rejection BAD_NONCE where there is
    none.
    """
    if len(body) > MAX_BODY:
        raise MalformedMessage("the request is too large", f"{len(body)} bytes", Reason.TOO_LARGE)
    jws = _flattened(parse_object(body, "the request"))
    algorithm = _algorithm(jws.header, algorithms)
    kid, jwk = jws.header.get("kid"), jws.header.get("jwk")
    if (kid is None) is (jwk is None):
        raise MalformedMessage("the JWS has to name its key by exactly one of jwk and kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        raise MalformedMessage("the kid of the JWS is no URL of an account")
    if jwk is not None and not isinstance(jwk, dict):
        raise MalformedMessage("the jwk of the JWS is no key")
    url = _url(jws.header)
    return SignedRequest(algorithm, _nonce(jws.header), url, kid, jwk, jws.payload, jws.signing_input, jws.signature)


def check_signature(request: SignedRequest, key: JsonWebKey, algorithms: Sequence[str]) -> None:
    """Verify a request; raises UnsupportedAlgorithm where its algorithm is not the key's, Rejection BAD_SIGNATURE otherwise."""
    _check(request.algorithm, request.signature, request.signing_input, key, algorithms)


def check_url(request: SignedRequest, url: str) -> None:
    """Raise Rejection NOT_AUTHORIZED unless the request was signed for exactly this URL (RFC 8555 §6.4)."""
    if request.url != url:
        text = "the url of the JWS is not the one that the request was sent to"
        raise Rejection(Reason.NOT_AUTHORIZED, text, f"signed for {request.url[:200]!r}, sent to {url[:200]!r}")


def _check(algorithm: str, signature: bytes, signed: bytes, key: JsonWebKey, algorithms: Sequence[str]) -> None:
    if algorithm not in key.algorithms:
        raise UnsupportedAlgorithm(f"{algorithm} with a key of {', '.join(key.algorithms)}", algorithms)
    if not key.verifies(algorithm, signature, signed):
        raise Rejection(Reason.BAD_SIGNATURE, "the signature of the JWS does not verify")


# Signatures inside: external account bindings and key changes


def parse_binding(members: Mapping[str, Any], url: str, key: JsonWebKey) -> ExternalBinding:
    """Take an external account binding apart: for the key that signs the request, and its URL (RFC 8555 §7.3.4).

    Clients may write the key in their own way, so keys are compared by name. Raises MalformedMessage or UnsupportedAlgorithm; the
    MAC is left to whoever knows the key.
    """
    jws = _flattened(members)
    header = jws.header
    algorithm = _algorithm(header, tuple(MAC_DIGESTS))
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID or "jwk" in header:
        raise MalformedMessage("the external account binding has to name its key by kid")
    if "nonce" in header:
        raise MalformedMessage("the external account binding must not have a nonce")
    if _url(header) != url:
        raise MalformedMessage("the external account binding is for another url")
    if load_jwk(parse_object(jws.payload, "the key of the external account binding")).thumbprint != key.thumbprint:
        raise MalformedMessage("the external account binding is for another key")
    protected, payload, signature = jws.parts
    text = json.dumps({"protected": protected, "payload": payload, "signature": signature}, separators=(",", ":"))
    return ExternalBinding(kid, algorithm, jws.signing_input, jws.signature, text)


def parse_key_change(payload: bytes, url: str, algorithms: Sequence[str]) -> KeyChange:
    """Take the payload of keyChange, a JWS by the new key, apart and verify it (RFC 8555 §7.3.5).

    Raises MalformedMessage, UnsupportedAlgorithm, Rejection ACCOUNT_KEY or BAD_SIGNATURE.
    """
    jws = _flattened(parse_object(payload, "the inner JWS"))
    header, algorithm = jws.header, _algorithm(jws.header, algorithms)
    if not isinstance(header.get("jwk"), dict) or "kid" in header:
        raise MalformedMessage("the inner JWS has to bring the new key as jwk")
    if "nonce" in header:
        raise MalformedMessage("the inner JWS must not have a nonce")
    if _url(header) != url:
        raise MalformedMessage("the inner JWS is for another url")
    key = load_jwk(header["jwk"])
    _check(algorithm, jws.signature, jws.signing_input, key, algorithms)
    asked = parse_object(jws.payload, "the payload of the inner JWS")
    account, old = asked.get("account"), asked.get("oldKey")
    if not isinstance(account, str) or not isinstance(old, dict):
        raise MalformedMessage("a change of keys has to name account and oldKey")
    return KeyChange(account, load_jwk(old).thumbprint, key.text, key.thumbprint)


# Parts


def parse_object(data: bytes, what: str = "the payload") -> dict[str, Any]:
    """Return the JSON object that `data` is, of Unicode text, no name twice, few levels; MalformedMessage names `what`."""
    try:
        found = parse_json_object(data)
        if b"\\" in data:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (Rejection, UnicodeEncodeError) as error:
        cause = error.cause if isinstance(error, Rejection) else "a lone surrogate"
        raise MalformedMessage(f"{what} is not a JSON object as it has to be", cause) from None
    return found


def _flattened(members: Mapping[str, Any]) -> _Flattened:
    if "header" in members or "signatures" in members:
        raise MalformedMessage("the JWS has to be flattened, with one signature and no unprotected header")
    parts = tuple(members.get(name) for name in ("protected", "payload", "signature"))
    match parts:
        case (str() as protected, str() as payload, str() as signature):
            header = parse_object(_decode(protected, "protected"), "the protected header of the JWS")
        case _:
            raise MalformedMessage("the JWS has to have protected, payload and signature")
    if "crit" in header or "b64" in header:
        raise MalformedMessage("the JWS has an extension that is not understood here", "crit or b64")
    # base64url is ASCII, so what was decoded can be encoded
    decoded = _decode(payload, "payload"), _decode(signature, "signature")
    signing_input = f"{protected}.{payload}".encode("ascii")
    return _Flattened(header, decoded[0], signing_input, decoded[1], (protected, payload, signature))


def _decode(text: str, name: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise MalformedMessage(f"{name} is not base64url without padding", str(error)) from None


def _algorithm(header: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise MalformedMessage("the JWS does not say by which algorithm it is signed")
    if algorithm not in algorithms:
        raise UnsupportedAlgorithm(f"alg is {algorithm[:40]!r}", algorithms)
    return algorithm


def _url(header: Mapping[str, Any]) -> str:
    url = header.get("url")
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL:
        raise MalformedMessage("the JWS does not say which url it is for")
    return url


def _nonce(header: Mapping[str, Any]) -> str:
    nonce = header.get("nonce")
    if nonce is None or nonce == "":
        raise Rejection(Reason.BAD_NONCE, "JWS has no anti-replay nonce")
    if not isinstance(nonce, str) or len(nonce) > MAX_NONCE or _NONCE.fullmatch(nonce) is None:
        raise MalformedMessage("the nonce of the JWS is not base64url")
    return nonce
