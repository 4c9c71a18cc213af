"""Signed challenges for tests: what an issuer writes, and the golden ones of testdata/intune (RFC 7515 §3.1)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.pki.keys import PrivateKey, load_private_key, sign

FOLDER = Path(__file__).parents[1] / "testdata" / "intune"
AUDIENCE = "https://pki.example/scep/devices"
NOW = datetime(2027, 3, 1, 12, 1, tzinfo=UTC)
"""A minute after the golden challenges were issued."""
ISSUED = 1803902400
"""2027-03-01T12:00:00Z."""
CLAIMS: Mapping[str, Any] = {
    "iss": "connector-7f3a",
    "sub": "device-0001",
    "aud": AUDIENCE,
    "iat": ISSUED,
    "exp": ISSUED + 3600,
    "nonce": "golden-nonce-0001",
    "device_name": "gate-1.corp.example",
    "san_dns": ["gate-1.corp.example"],
    "san_rfc822": ["gate-1@corp.example"],
}


@dataclass(frozen=True, slots=True)
class Golden:
    """One file of testdata/intune: whose key signs, which claims differ (None: left out), how the signature is written."""

    key: str
    changes: Mapping[str, Any]
    der: bool = False
    padded: bool = False
    tampered: bool = False


GOLDEN: Mapping[str, Golden] = {
    "rs256-success": Golden("rsa", {}),
    "es256-success": Golden("ec", {}),
    "es256-success-der-signature": Golden("ec", {}, der=True),
    "es256-success-padded": Golden("ec", {}, padded=True),
    "es256-success-version-1": Golden("ec", {"version": "v1"}),
    "es256-success-audience-list": Golden("ec", {"aud": ["https://other.example/", AUDIENCE]}),
    "es256-success-all-names": Golden(
        "ec",
        {
            "san_upn": ["gate-1@corp.example"],
            "san_uri": ["urn:uuid:6f2a7c1e-0b7d-4c55-8a53-0d5b4b8a1c11", "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1001"],
            "san_ip": ["192.0.2.7", "2001:db8::7"],
        },
    ),
    "es256-expired": Golden("ec", {"iat": ISSUED - 7200, "exp": ISSUED - 3600}),
    "es256-too-old": Golden("ec", {"iat": ISSUED - 7200}),
    "es256-not-yet-valid": Golden("ec", {"iat": ISSUED + 600, "exp": ISSUED + 4200}),
    "es256-other-audience": Golden("ec", {"aud": "https://other.example/scep"}),
    "es256-unknown-version": Golden("ec", {"version": "v999"}),
    "es256-without-nonce": Golden("ec", {"nonce": None}),
    "es256-fractional-iat": Golden("ec", {"iat": ISSUED + 0.5}),
    "es256-tampered-signature": Golden("ec", {}, tampered=True),
    "rs256-tampered-signature": Golden("rsa", {}, tampered=True),
    "es256-other-issuer": Golden("other", {}),
}
KEYS = {"rsa": "issuer-rsa-2048", "ec": "issuer-ec-p256", "other": "other-ec-p256"}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def sign_challenge(
    key: PrivateKey, payload: Mapping[str, Any] | bytes, header: Mapping[str, Any] | bytes | None = None, *, der: bool = False
) -> str:
    """Return a compact JWS; bytes go in as they are. An EC key signs r and s in 64 bytes, or in DER."""
    rsa = isinstance(key, RSAPrivateKey)
    head = _encode(header if header is not None else {"alg": "RS256" if rsa else "ES256", "typ": "JWT"})
    signed = f"{base64url(head)}.{base64url(_encode(payload))}"
    return f"{signed}.{base64url(_signature(key, signed.encode('ascii'), der=der or rsa))}"


def _encode(part: Mapping[str, Any] | bytes) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(dict(part), separators=(",", ":")).encode()


def _signature(key: PrivateKey, data: bytes, *, der: bool) -> bytes:
    made = sign(key, data)
    if der:
        return made
    r, s = decode_dss_signature(made)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def claims(**changes: Any) -> dict[str, Any]:
    """Return the golden claims with changes; None leaves one out."""
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


def issuer_key(name: str) -> PrivateKey:
    """Return the key `rsa`, `ec` or `other` of testdata/intune; they protect nothing."""
    return load_private_key((FOLDER / f"{KEYS[name]}.key").read_bytes())


def anchor(name: str) -> bytes:
    """Return the certificate, PEM, of one of these keys."""
    return (FOLDER / f"{KEYS[name]}.pem").read_bytes()


def read_golden(name: str) -> str:
    return (FOLDER / f"{name}.jws").read_text("ascii").strip()


def make_golden(name: str) -> str:
    """Make one anew; each has a nonce of its own."""
    golden = GOLDEN[name]
    made = sign_challenge(issuer_key(golden.key), claims(**{"nonce": f"golden-{name}", **golden.changes}), der=golden.der)
    if golden.padded:
        header, payload, _ = (part + "=" * (-len(part) % 4) for part in made.split("."))
        signed = f"{header}.{payload}"
        signature = base64.urlsafe_b64encode(_signature(issuer_key(golden.key), signed.encode("ascii"), der=False))
        made = f"{signed}.{signature.decode('ascii')}"
    if golden.tampered:
        head, _, signature_text = made.rpartition(".")
        signature_bytes = bytearray(base64.urlsafe_b64decode(signature_text + "=" * (-len(signature_text) % 4)))
        signature_bytes[-1] ^= 0xFF
        made = f"{head}.{base64url(bytes(signature_bytes))}"
    return made


if __name__ == "__main__":
    for name in GOLDEN:
        (FOLDER / f"{name}.jws").write_text(make_golden(name) + "\n", "ascii")
