"""Whom a private key is encrypted to, and the answer of two parts (RFC 7030 §4.4)."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from gateway.asn1 import key_package as asn1
from gateway.errors import Reason, Rejection
from gateway.pki.csr import EstAttributes
from gateway.pki.key_package import CertificateRecipient, SymmetricRecipient
from gateway.wire.est.multipart import decode_multipart
from gateway.wire.est.server_keygen import KeyRecipients, encode_answer, find_protection
from tests.unit.pki.test_key_package import AES_256_CBC, KEK_ID, TRIPLE_DES, certificate, drawn, signer

EC = certificate("ec-p256", "key_agreement")
RSA = certificate("rsa-2048", "key_encipherment")
KEYS = MappingProxyType({KEK_ID: bytes(32)})
RECIPIENTS = KeyRecipients(KEYS, (CertificateRecipient.create(RSA),), signer(), required=False)
NOBODY = KeyRecipients(MappingProxyType({}), (), None, required=False)


def key_id(der: bytes) -> bytes:
    return CertificateRecipient.create(der).key_id


def test_without_a_wish_tls_is_enough() -> None:
    assert find_protection(EstAttributes(), RECIPIENTS, None) is None
    assert find_protection(EstAttributes(), NOBODY, EC) is None


def test_a_symmetric_key_by_its_identifier() -> None:
    found = find_protection(EstAttributes(decrypt_key_id=KEK_ID), RECIPIENTS, None)
    assert found is not None
    assert found.recipient == SymmetricRecipient(KEK_ID, bytes(32))


@pytest.mark.parametrize(
    ("wanted", "client"), [pytest.param(RSA, None, id="configured"), pytest.param(EC, EC, id="the-tls-client's")]
)
def test_a_certificate_by_its_identifier(wanted: bytes, client: bytes | None) -> None:
    found = find_protection(EstAttributes(asymmetric_decrypt_key_id=key_id(wanted)), RECIPIENTS, client)
    assert found is not None
    assert found.recipient == CertificateRecipient.create(wanted)


@pytest.mark.parametrize(
    ("attributes", "recipients", "client", "reason"),
    [
        pytest.param(EstAttributes(decrypt_key_id=b"other"), RECIPIENTS, None, Reason.DENIED, id="unknown-key"),
        pytest.param(EstAttributes(decrypt_key_id=key_id(RSA)), RECIPIENTS, None, Reason.DENIED, id="no-symmetric-key"),
        pytest.param(EstAttributes(asymmetric_decrypt_key_id=KEK_ID), RECIPIENTS, None, Reason.DENIED, id="no-certificate"),
        pytest.param(EstAttributes(asymmetric_decrypt_key_id=key_id(EC)), RECIPIENTS, RSA, Reason.DENIED, id="another-client"),
        pytest.param(EstAttributes(asymmetric_decrypt_key_id=b"x"), RECIPIENTS, b"\x30\x00", Reason.DENIED, id="broken-client"),
        pytest.param(
            EstAttributes(asymmetric_decrypt_key_id=b"x"),
            RECIPIENTS,
            certificate("ec-p256", "digital_signature"),
            Reason.DENIED,
            id="client-that-signs-only",
        ),
        pytest.param(EstAttributes(decrypt_key_id=KEK_ID), NOBODY, None, Reason.DENIED, id="nothing-to-sign-with"),
        pytest.param(
            EstAttributes(decrypt_key_id=KEK_ID, asymmetric_decrypt_key_id=key_id(RSA)), RECIPIENTS, None, Reason.DENIED, id="two"
        ),
        pytest.param(
            EstAttributes(), KeyRecipients(KEYS, (), signer(), required=True), None, Reason.DENIED, id="none-where-one-must-be"
        ),
        pytest.param(
            EstAttributes(decrypt_key_id=KEK_ID, smime_capabilities=(TRIPLE_DES,)),
            RECIPIENTS,
            None,
            Reason.UNSUPPORTED_ALGORITHM,
            id="cipher",
        ),
        pytest.param(
            EstAttributes(decrypt_key_id=KEK_ID, smime_capabilities=(AES_256_CBC, asn1.OID_AES_128_WRAP)),
            RECIPIENTS,
            None,
            Reason.UNSUPPORTED_ALGORITHM,
            id="wrap",
        ),
    ],
)
def test_refused_and_never_answered_with_less(
    attributes: EstAttributes, recipients: KeyRecipients, client: bytes | None, reason: Reason
) -> None:
    with pytest.raises(Rejection) as refused:
        find_protection(attributes, recipients, client)
    assert refused.value.reason is reason


@pytest.mark.parametrize("wrap", [True, False])
def test_the_answer_has_a_key_and_a_certificate(wrap: bool) -> None:
    body, media_type = encode_answer(drawn(), EC, None, wrap)
    key, issued = decode_multipart(body, media_type)
    assert (key.media_type, key.data) == ("application/pkcs8", drawn())
    assert issued.media_type == "application/pkcs7-mime; smime-type=certs-only"
    assert EC in issued.data


def test_an_encrypted_key_says_what_it_is() -> None:
    protection = find_protection(EstAttributes(decrypt_key_id=KEK_ID), RECIPIENTS, None)
    body, media_type = encode_answer(drawn(), EC, protection, True)
    key, _ = decode_multipart(body, media_type)
    assert key.media_type == "application/pkcs7-mime; smime-type=server-generated-key"
    assert drawn() not in body
    assert drawn() not in key.data


def test_no_secret_is_shown() -> None:
    protection = find_protection(EstAttributes(decrypt_key_id=KEK_ID), RECIPIENTS, None)
    assert repr(bytes(32))[2:20] not in repr(protection) + repr(RECIPIENTS)
