"""Devices whose keys cannot encrypt: messages under the password of their profile, both ways (RFC 8894 §3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType
from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der, envelope
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import (
    decode_cert_rep,
    encode_issuer_and_serial,
    encode_issuer_and_subject,
    encode_request,
    self_signed_signer,
)
from gateway.wire.scep.identity import Algorithms, RaIdentity
from gateway.wire.scep.pkimessage import (
    CertificateQuery,
    PkiMessage,
    PkiStatus,
    decode_pki_message,
    decode_request,
    encode_failure,
    encode_success,
    verify_signature,
)
from tests.unit.wire.scep.identities import BEGIN, END, NOW

PASSWORD = b"the challenge of this profile"
SUBJECT = parse_name_text("CN=device-1").der
ATTRIBUTES = (
    cms.attribute(asn1.OID_MESSAGE_TYPE, der.printable_string("19")),
    cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T")),
)
OpenSSL = Callable[..., bytes]


@pytest.fixture(scope="module")
def lenient(ra: RaIdentity) -> RaIdentity:
    return replace(ra, password=PASSWORD)


def signer_of(spec: str) -> cms.Signer:
    return self_signed_signer(generate_private_key(spec), SUBJECT, BEGIN, END)


@pytest.fixture(scope="module")
def elliptic() -> cms.Signer:
    return signer_of("ec-p256")


def request_of(signer: cms.Signer) -> bytes:
    return build_csr(signer.key, SUBJECT, challenge_password=PASSWORD.decode())


def received(data: bytes, ra: RaIdentity) -> PkiMessage:
    message = decode_pki_message(data)
    verify_signature(message, ra, NOW)
    return message


@pytest.mark.parametrize("under_password", [True, False], ids=["under the password", "to the RA's key"])
@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "ec-p521", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_every_kind_of_key_is_served(spec: str, under_password: bool, lenient: RaIdentity) -> None:
    signer = signer_of(spec)
    options: dict[str, Any] = {"password": PASSWORD} if under_password else {}
    sent = encode_request(request_of(signer), signer, lenient.certificate.der, transaction="T", **options)
    message = received(sent.message, lenient)
    assert message.uses_password
    assert message.recipients == (() if under_password else (cms.parse_certificate_id(lenient.signer.issuer_and_serial),))
    decoded = decode_request(message, lenient)
    assert isinstance(decoded, CertificateRequest)
    assert decoded.challenge_password == PASSWORD.decode()
    reply = encode_success(message, lenient, (signer.certificate,))
    answer = decode_cert_rep(reply, sent, signer, lenient.certificate.der, password=PASSWORD)
    assert (answer.status, answer.certificates) == (PkiStatus.SUCCESS, (signer.certificate,))
    with pytest.raises(Rejection):
        decode_cert_rep(reply, sent, signer, lenient.certificate.der, password=b"another password")


def test_queries_and_polls(lenient: RaIdentity, elliptic: cms.Signer) -> None:
    issuer = lenient.certificate.issuer_der
    for kind, data, expected in (
        (MessageType.GET_CERT, encode_issuer_and_serial(issuer, 7), CertificateQuery(issuer, 7)),
        (MessageType.GET_CRL, encode_issuer_and_serial(issuer, 7), CertificateQuery(issuer, 7)),
        (MessageType.CERT_POLL, encode_issuer_and_subject(issuer, SUBJECT), None),
    ):
        sent = encode_request(data, elliptic, b"", transaction="T", message_type=kind, password=PASSWORD)
        message = received(sent.message, lenient)
        assert decode_request(message, lenient) == expected
        reply = encode_success(message, lenient, (elliptic.certificate,))
        answer = decode_cert_rep(reply, sent, elliptic, lenient.certificate.der, password=PASSWORD)
        assert answer.certificates == (elliptic.certificate,)


def test_an_rsa_device_may_send_under_the_password_and_is_answered_to_its_key(client: cms.Signer, lenient: RaIdentity) -> None:
    sent = encode_request(request_of(client), client, b"", transaction="T", password=PASSWORD)
    message = received(sent.message, lenient)
    assert message.uses_password
    assert isinstance(decode_request(message, lenient), CertificateRequest)
    reply = encode_success(message, lenient, (client.certificate,))
    assert decode_cert_rep(reply, sent, client, lenient.certificate.der).certificates == (client.certificate,)
    plain = encode_request(request_of(client), client, lenient.certificate.der, transaction="T")
    assert not received(plain.message, lenient).uses_password


# Refusals


def test_without_a_password_nobody_is_served(ra: RaIdentity, client: cms.Signer, elliptic: cms.Signer) -> None:
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=PASSWORD)
    with pytest.raises(Rejection, match="ec") as refused:
        received(sent.message, ra)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
    with pytest.raises(Rejection) as refused:
        encode_success(decode_pki_message(sent.message), ra, (elliptic.certificate,))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
    by_rsa = encode_request(request_of(client), client, b"", transaction="T", password=PASSWORD)
    with pytest.raises(Rejection, match="no recipient") as refused:
        decode_request(received(by_rsa.message, ra), ra)
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)


def test_a_refusal_needs_no_password(ra: RaIdentity, elliptic: cms.Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=PASSWORD)
    monkeypatch.delattr(hashlib, "pbkdf2_hmac")
    reply = encode_failure(decode_pki_message(sent.message), ra, Reason.UNSUPPORTED_ALGORITHM, "no")
    assert decode_cert_rep(reply, sent, elliptic, ra.certificate.der).fail_info_text == "no"


def test_another_password_is_refused_like_any_fault(lenient: RaIdentity, elliptic: cms.Signer) -> None:
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=b"the challenge of another")
    with pytest.raises(Rejection) as refused:
        decode_request(received(sent.message, lenient), lenient)
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)


@pytest.mark.parametrize(
    ("algorithms", "refused"),
    [
        pytest.param(Algorithms(), True, id="off"),
        pytest.param(Algorithms(single_des=True), True, id="only single DES on"),
        pytest.param(Algorithms(triple_des=True), False, id="on"),
    ],
)
def test_3des_around_the_content_key_has_its_flag(
    algorithms: Algorithms, refused: bool, lenient: RaIdentity, elliptic: cms.Signer
) -> None:
    """The content may be under AES and its key under 3DES."""
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=PASSWORD, cipher="des-ede3-cbc")
    message = received(sent.message, lenient)
    assert message.legacy == ("des-ede3-cbc",)
    assert message.envelope is not None
    message = replace(message, envelope=replace(message.envelope, cipher="aes-128-cbc", iv=b"i" * 16))
    with pytest.raises(Rejection) as found:
        decode_request(message, replace(lenient, algorithms=algorithms))
    assert found.value.reason is (Reason.UNSUPPORTED_ALGORITHM if refused else Reason.DECRYPTION_FAILED)


def test_expensive_derivations_are_refused_before_they_begin(
    lenient: RaIdentity, elliptic: cms.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=PASSWORD)
    message = received(sent.message, lenient)
    monkeypatch.delattr(hashlib, "pbkdf2_hmac")
    assert message.envelope is not None
    [recipient] = message.envelope.passwords
    assert recipient.derivation is not None
    for changes in ({"iterations": 100_001}, {"iterations": 999}, {"salt": b"s" * 7}, {"salt": b"s" * 65}, {"key_length": 999}):
        hostile = replace(recipient, derivation=replace(recipient.derivation, **changes))
        with pytest.raises(Rejection) as refused:
            decode_request(replace(message, envelope=replace(message.envelope, passwords=(hostile,))), lenient)
        assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_one_derivation_or_one_decryption(lenient: RaIdentity, client: cms.Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of both kinds of recipient is read with the RA's key, and of many passwords the first is tried."""
    derive, derived = hashlib.pbkdf2_hmac, []

    def counted(*arguments: Any) -> bytes:
        derived.append(arguments)
        return derive(*arguments)

    csr = request_of(client)
    to_ra = received(encode_request(csr, client, lenient.certificate.der, transaction="T").message, lenient)
    under = received(encode_request(csr, client, b"", transaction="T", password=PASSWORD).message, lenient)
    assert to_ra.envelope is not None
    assert under.envelope is not None
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counted)
    both = replace(to_ra, envelope=replace(to_ra.envelope, passwords=under.envelope.passwords * 3))
    assert isinstance(decode_request(both, lenient), CertificateRequest)
    assert derived == []
    many = replace(under, envelope=replace(under.envelope, passwords=under.envelope.passwords * 3))
    assert isinstance(decode_request(many, lenient), CertificateRequest)
    assert len(derived) == 1


# openssl


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc"])
def test_requests_as_openssl_writes_them(cipher: str, lenient: RaIdentity, elliptic: cms.Signer, openssl: OpenSSL) -> None:
    csr = request_of(elliptic)
    arguments = ("cms", "-encrypt", "-binary", f"-{cipher}", "-outform", "DER", "-pwri_password", PASSWORD.decode())
    content = openssl(*arguments, data=csr)
    message = received(cms.sign_data(content, elliptic, "sha256", ATTRIBUTES), lenient)
    decoded = decode_request(message, lenient)
    assert isinstance(decoded, CertificateRequest)
    assert (decoded.der, message.cipher) == (csr, cipher)


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"])
def test_answers_as_openssl_reads_them(
    cipher: str, lenient: RaIdentity, elliptic: cms.Signer, openssl: OpenSSL, testdata: Path
) -> None:
    legacy = replace(lenient, algorithms=Algorithms(triple_des=True, single_des=True))
    sent = encode_request(request_of(elliptic), elliptic, b"", transaction="T", password=PASSWORD, cipher=cipher)
    message = received(sent.message, legacy)
    decode_request(message, legacy)
    reply = encode_success(message, legacy, (elliptic.certificate,))
    trust = ("-CAfile", str(testdata / "ca.pem"), "-purpose", "any", "-no_check_time")
    enveloped = openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=reply)
    structure = openssl("cms", "-cmsout", "-print", "-noout", "-inform", "DER", data=enveloped).decode()
    written = {"des-cbc": "des-ede3-cbc"}.get(cipher, cipher)
    for text in ("version: 3", "d.pwri", "PBKDF2", "id-alg-PWRI-KEK", written):
        assert text in structure
    data = openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-pwri_password", PASSWORD.decode(), data=enveloped)
    assert data == cms.certs_only((elliptic.certificate,))
    assert b"device-1" in openssl("pkcs7", "-inform", "DER", "-print_certs", data=data)
