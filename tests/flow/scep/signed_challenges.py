"""An issuer of signed challenges: compact JWTs that name a device, as an MDM's connector makes them (RFC 7515, RFC 7519)."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.pki.certificate import der_to_pem
from gateway.pki.keys import PrivateKey, generate_private_key, sign
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import self_signed_signer

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class ChallengeIssuer:
    """A connector's key and the certificate by which its challenges are verified."""

    key: PrivateKey = field(default_factory=lambda: generate_private_key("rsa-2048"))
    name: str = "connector"

    @property
    def anchor(self) -> bytes:
        """Its certificate, PEM."""
        now = datetime.now(UTC)
        return der_to_pem(
            self_signed_signer(self.key, parse_name_text(f"CN={self.name}").der, now - YEAR, now + YEAR).certificate
        )

    def challenge(self, device: str, now: datetime | None = None, **claims: Any) -> str:
        """Return a challenge for the device whose CN is `device`; claims that are None are left out."""
        issued = int((now or datetime.now(UTC)).timestamp())
        payload = {
            "iss": self.name,
            "sub": f"guid-of-{device}",
            "iat": issued,
            "exp": issued + 3000,
            "nonce": secrets.token_hex(16),
            "device_name": device,
            **claims,
        }
        kept = {name: value for name, value in payload.items() if value is not None}
        algorithm = "RS256" if type(self.key).__name__ == "RSAPrivateKey" else "ES256"
        signed = f"{_segment({'alg': algorithm, 'typ': 'JWT'})}.{_segment(kept)}"
        return f"{signed}.{_base64url(sign(self.key, signed.encode()))}"


def _segment(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
