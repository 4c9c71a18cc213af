"""Devices that another CA enrolled, and certificates of theirs that somebody has tampered with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.model import UNLIMITED_NOT_AFTER, Grant, RevocationReason, SanKind
from gateway.pki import der
from gateway.pki.certificate import (
    CA_KEY_USAGE,
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    self_signed_ca,
)
from gateway.pki.crl import build_crl
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.trust import TrustAnchors

NOW = datetime(2027, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SUBJECT = "CN=gate-1,O=Corp"
SANS = (make_san(SanKind.DNS, "gate-1.corp.example"),)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@cache
def key_of(name: str) -> PrivateKey:
    """One key a name."""
    assert name
    return generate_private_key("ec-p256")


@cache
def ca_of(name: str = "Old CA") -> bytes:
    """The certificate of the CA that enrolled a fleet; it outlives these tests."""
    return self_signed_ca(key_of(name), f"CN={name}", NOW - 1000 * DAY, UNLIMITED_NOT_AFTER)


def enroll(ca: str = "Old CA", key: str = "device", **changes: Any) -> bytes:
    """A device certificate of that CA; `is_ca` makes it a CA certificate."""
    is_ca = changes.pop("is_ca", False)
    values: dict[str, Any] = {
        "subject_der": parse_name_text(changes.pop("subject", SUBJECT)).der,
        "sans": SANS,
        "key_usage": CA_KEY_USAGE if is_ca else ("digitalSignature",),
        "ekus": (eku_oid("clientAuth"),),
        "not_before": NOW - 300 * DAY,
        "not_after": NOW + 20 * DAY,
    }
    issuer = Issuer.from_certificate(ca_of(ca), key_of(ca))
    return build_certificate(issuer, new_serial(), Grant(**(values | changes)), public_key_der(key_of(key)), is_ca=is_ca)


def anchors_of(
    ca: str = "Old CA",
    *revoked: bytes,
    crl: bool = True,
    this_update: datetime = NOW - DAY,
    next_update: datetime = NOW + 7 * DAY,
) -> TrustAnchors:
    """Trust that CA, by its CRL unless said."""
    issuer = Issuer.from_certificate(ca_of(ca), key_of(ca))
    entries = tuple((parse_certificate(c).serial, NOW - DAY, RevocationReason.SUPERSEDED) for c in revoked)
    data = build_crl(issuer, 1, this_update, next_update, entries)
    return TrustAnchors.parse(der_to_pem(ca_of(ca)), der_to_pem(data, "X509 CRL") if crl else None)


def with_the_other_signature(certificate: bytes) -> bytes:
    """The same certificate with the second signature that every ECDSA signature has: other bytes, and it verifies."""
    parsed = parse_certificate(certificate)
    r, s = decode_dss_signature(parsed.signature)
    assert isinstance(key_of("device"), ec.EllipticCurvePrivateKey)
    return der.sequence(parsed.tbs, parsed.algorithm, der.bit_string(encode_dss_signature(r, P256_ORDER - s)))
