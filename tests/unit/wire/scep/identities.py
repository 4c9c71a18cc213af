"""RA certificates of other kinds than the recorded one, below a CA of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, new_serial, self_signed_ca
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.scep.identity import RaIdentity

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)

_CA_KEY = generate_private_key("ec-p256")
CA = self_signed_ca(_CA_KEY, "CN=Test CA", BEGIN, END)


def make_pair(*key_usage: str, spec: str = "rsa-2048", subject: str = "CN=RA") -> tuple[bytes, PrivateKey]:
    """Return a certificate below `CA` with these key usages, DER, and its key."""
    key = generate_private_key(spec)
    grant = Grant(parse_name_text(subject).der, (), key_usage, (), BEGIN, END)
    return build_certificate(make_issuer(), new_serial(), grant, public_key_der(key)), key


def with_key(ra: RaIdentity, key: Any) -> RaIdentity:
    """The RA whose pair in force decrypts with another key."""
    return replace(ra, pairs=(replace(ra.pairs[0], key=key), *ra.pairs[1:]))


def make_issuer() -> Issuer:
    """Return `CA` as an issuer of certificates and CRLs."""
    return Issuer.from_certificate(CA, _CA_KEY)
