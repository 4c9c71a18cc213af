"""Requests of ACME clients with every member of their JWS in the test's hands (RFC 8555 §6.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.pki.jwk import jwk_of
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


@dataclass
class Key:
    """A client's key."""

    private: PrivateKey = field(default_factory=lambda: generate_private_key("ec-p256"))

    @property
    def jwk(self) -> dict[str, Any]:
        text = jwk_of(public_key_der(self.private))
        assert text is not None
        return dict(json.loads(text))

    @property
    def thumbprint(self) -> str:
        return b64(hashlib.sha256(json.dumps(self.jwk, separators=(",", ":"), sort_keys=True).encode()).digest())

    @property
    def algorithm(self) -> str:
        match self.private:
            case rsa.RSAPrivateKey():
                return "RS256"
            case ec.EllipticCurvePrivateKey():
                return {256: "ES256", 384: "ES384", 521: "ES512"}[self.private.key_size]
            case _:
                return "EdDSA"

    def sign(self, data: bytes) -> bytes:
        match self.private:
            case rsa.RSAPrivateKey():
                return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey():
                size = (self.private.key_size + 7) // 8
                digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[self.private.key_size]
                r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(digest)))
                return r.to_bytes(size) + s.to_bytes(size)
            case ed25519.Ed25519PrivateKey():
                return self.private.sign(data)
            case _:
                raise TypeError("no key of an account")


def sign(key: Key, protected: Mapping[str, Any], payload: object) -> dict[str, str]:
    """Return a flattened JWS; members of `protected` that are None are left out, `payload` is bytes or JSON."""
    header = {"alg": key.algorithm, **protected}
    encoded = b64(json.dumps({name: value for name, value in header.items() if value is not None}).encode())
    body = b64(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    return {"protected": encoded, "payload": body, "signature": b64(key.sign(f"{encoded}.{body}".encode()))}


def bind(key: Key, kid: str, secret: bytes, url: str, **changes: Any) -> dict[str, str]:
    """Return an external account binding (RFC 8555 §7.3.4)."""
    header = {"alg": "HS256", "kid": kid, "url": url, **changes}
    encoded, body = b64(json.dumps(header).encode()), b64(json.dumps(key.jwk).encode())
    mac = hmac.digest(secret, f"{encoded}.{body}".encode(), "sha256")
    return {"protected": encoded, "payload": body, "signature": b64(mac)}
