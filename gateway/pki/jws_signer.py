"""Signs JWS with private keys, and makes MACs: what a client of ACME needs (RFC 7515 §5.1, RFC 7518 §3, RFC 8037, RFC 9964)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.pki import base64url
from gateway.pki.jwk import CURVE_DIGESTS, RSA_SCHEMES, JsonWebKey, jwk_of, load_jwk_text
from gateway.pki.jws import MAC_DIGESTS
from gateway.pki.keys import PrivateKey, public_key_der


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and the algorithm that it signs by."""

    key: PrivateKey = field(repr=False)
    algorithm: str
    public: JsonWebKey

    @classmethod
    def of(cls, key: PrivateKey, algorithm: str | None = None) -> Signer:
        """Take a key with the first algorithm that it serves, or another; ValueError for a key that no JWS is signed by."""
        text = jwk_of(public_key_der(key))
        if text is None:
            raise ValueError("no JWS is signed by a key of this kind")
        public = load_jwk_text(text)
        return cls(key, algorithm or public.algorithms[0], public)

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as the members of a JWK."""
        members: dict[str, str] = json.loads(self.public.text)
        return members

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` in the form of JWS."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, *RSA_SCHEMES[self.algorithm])
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            size = (self.key.curve.key_size + 7) // 8
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(CURVE_DIGESTS[self.key.curve.name])))
            return r.to_bytes(size) + s.to_bytes(size)
        return self.key.sign(data)

    def flatten(self, header: Mapping[str, object], payload: bytes) -> dict[str, str]:
        """Return a flattened JWS; `alg` is added to the protected header."""
        protected, signing_input, encoded = _signing_input({"alg": self.algorithm, **header}, payload)
        return {"protected": protected, "payload": encoded, "signature": base64url.encode(self.sign(signing_input))}


def flatten_mac(key: bytes, algorithm: str, header: Mapping[str, object], payload: bytes) -> dict[str, str]:
    """Return a flattened JWS with a MAC by HS256, HS384 or HS512."""
    protected, signing_input, encoded = _signing_input({"alg": algorithm, **header}, payload)
    mac = hmac.digest(key, signing_input, MAC_DIGESTS[algorithm])
    return {"protected": protected, "payload": encoded, "signature": base64url.encode(mac)}


def _signing_input(header: Mapping[str, object], payload: bytes) -> tuple[str, bytes, str]:
    protected = base64url.encode(json.dumps(header, separators=(",", ":")).encode())
    encoded = base64url.encode(payload)
    return protected, f"{protected}.{encoded}".encode("ascii"), encoded
