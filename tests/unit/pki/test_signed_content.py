"""SignedData over content of any type: checked by openssl where it can, else by our own reader (RFC 5652 §5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.asn1 import cms as asn1
from gateway.pki import cms, der
from gateway.pki.certificate import self_signed_ca
from gateway.pki.cms import Signer
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.signed_content import content_info, sign_content

TYPE = "1.3.6.1.5.5.7.12.3"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256", "ec-p384", "ec-p521", "ed25519", "ml-dsa-44"])
def test_what_is_signed_verifies(spec: str) -> None:
    key = generate_private_key(spec)
    certificate = self_signed_ca(key, f"CN={spec}", NOW, NOW + timedelta(days=1))
    other = self_signed_ca(generate_private_key("ec-p256"), "CN=other", NOW, NOW + timedelta(days=1))
    signed = sign_content(TYPE, b"content", Signer.create(certificate, key), (other,))
    parsed = cms.parse_signed_data(content_info(asn1.OID_SIGNED_DATA, signed))
    assert (parsed.content_type, parsed.content, parsed.certificates) == (TYPE, b"content", (certificate, other))
    [signer] = parsed.signers
    assert cms.verify_signer(parsed, signer, public_key_der(key)) in {"sha256", "sha384", "sha512", "none"}


def test_the_version_says_that_the_content_is_no_data() -> None:
    key = generate_private_key("ec-p256")
    certificate = self_signed_ca(key, "CN=x", NOW, NOW + timedelta(days=1))
    signed = sign_content(TYPE, b"content", Signer.create(certificate, key))
    assert der.elements(der.content(der.SEQUENCE, signed))[0][0] == der.INTEGER
    assert der.content(der.SEQUENCE, signed).startswith(der.integer(3))
