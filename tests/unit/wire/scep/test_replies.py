"""CertReps as openssl and our own client read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.asn1 import scep as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem
from gateway.pki.csr import build_csr
from gateway.pki.keys import serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import (
    ScepRequest,
    choose_ra_certificate,
    decode_ca_certificates,
    decode_cert_rep,
    encode_issuer_and_subject,
    encode_request,
    pki_operation_url,
    transaction_id,
)
from gateway.wire.scep.operations import ca_certificates, parse_query
from gateway.wire.scep.pkimessage import (
    Algorithms,
    FailInfo,
    MessageType,
    PkiMessage,
    PkiStatus,
    RaIdentity,
    decode_pki_message,
    decode_request,
    encode_failure,
    encode_pending,
    encode_success,
    verify_signature,
)
from tests.unit.wire.scep.identities import NOW

LEGACY = Algorithms(sha1=True, md5=True, triple_des=True, single_des=True)
TRANSACTION = "AbC+/= 1'"
OpenSSL = Callable[..., bytes]


@pytest.fixture(scope="session")
def csr(client: cms.Signer) -> bytes:
    return build_csr(client.key, parse_name_text("CN=device-1").der, challenge_password="secret")


@pytest.fixture(scope="session")
def lenient(ra: RaIdentity) -> RaIdentity:
    """The RA that takes legacy algorithms too."""
    return replace(ra, algorithms=LEGACY)


def received(request: ScepRequest, ra: RaIdentity) -> PkiMessage:
    message = decode_pki_message(request.message)
    verify_signature(message, ra, NOW)
    return message


@pytest.mark.parametrize("oaep", [False, True], ids=["PKCS #1 v1.5", "OAEP"])
@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"])
def test_requests_of_our_own_client(cipher: str, oaep: bool, client: cms.Signer, lenient: RaIdentity, csr: bytes) -> None:
    request = encode_request(csr, client, lenient.certificate.der, transaction=TRANSACTION, cipher=cipher, oaep=oaep)
    message = received(request, lenient)
    decoded = decode_request(message, lenient)
    assert isinstance(decoded, CertificateRequest)
    assert (decoded.der, decoded.challenge_password) == (csr, "secret")
    assert (message.cipher, message.transaction_id, message.sender_nonce) == (cipher, TRANSACTION, request.sender_nonce)


@pytest.mark.parametrize("digest", ["sha256", "sha1", "mgf1sha1"])
def test_oaep_as_openssl_writes_it(
    digest: str, client: cms.Signer, ra: RaIdentity, csr: bytes, openssl: OpenSSL, tmp_path: Path
) -> None:
    """Windows leaves OAEP at its SHA-1 defaults."""
    (tmp_path / "ra.pem").write_bytes(der_to_pem(ra.certificate.der))
    options = {
        "sha256": ["-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"],
        "sha1": [],
        "mgf1sha1": ["-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha1"],
    }
    padding = ["-keyopt", "rsa_padding_mode:oaep", *options[digest]]
    recipient = ["-recip", str(tmp_path / "ra.pem")]
    content = openssl("cms", "-encrypt", "-binary", "-aes-192-cbc", "-outform", "DER", *recipient, *padding, data=csr)
    message = decode_pki_message(cms.sign_data(content, client, "sha256", SCEP_ATTRIBUTES))
    decoded = decode_request(message, ra)
    assert isinstance(decoded, CertificateRequest)
    assert decoded.der == csr


SCEP_ATTRIBUTES = (
    cms.attribute(asn1.OID_MESSAGE_TYPE, b"\x13\x0219"),
    cms.attribute(asn1.OID_TRANSACTION_ID, b"\x13\x01T"),
)


def test_streamed_ber_as_openssl_writes_it(
    client: cms.Signer, ra: RaIdentity, csr: bytes, openssl: OpenSSL, tmp_path: Path
) -> None:
    (tmp_path / "ra.pem").write_bytes(der_to_pem(ra.certificate.der))
    arguments = ("cms", "-encrypt", "-binary", "-stream", "-aes128", "-outform", "DER", "-recip", str(tmp_path / "ra.pem"))
    content = openssl(*arguments, data=csr)
    assert content[1] == 0x80
    message = decode_pki_message(cms.sign_data(content, client, "sha256", SCEP_ATTRIBUTES))
    decoded = decode_request(message, ra)
    assert isinstance(decoded, CertificateRequest)
    assert decoded.der == csr


def test_missing_nonce_is_answered_without_one(client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(cms.sign_data(b"", client, "sha256", SCEP_ATTRIBUTES))
    reply = cms.parse_signed_data(encode_pending(message, ra)).signers[0].attributes
    assert message.sender_nonce == b""
    assert asn1.OID_RECIPIENT_NONCE not in reply
    assert asn1.OID_SENDER_NONCE in reply


# Success


def openssl_verify(openssl: OpenSSL, reply: bytes, testdata: Path) -> bytes:
    """Verify a reply against the CA that issued the RA certificate; return its content."""
    trust = ("-CAfile", str(testdata / "ca.pem"), "-purpose", "any", "-no_check_time")
    return openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=reply)


@pytest.mark.parametrize(
    ("cipher", "digest", "reply_cipher", "reply_digest"),
    [
        pytest.param("aes-128-cbc", "sha256", "aes-128-cbc", "sha256", id="AES-128, SHA-256"),
        pytest.param("aes-192-cbc", "sha384", "aes-192-cbc", "sha384", id="AES-192, SHA-384"),
        pytest.param("aes-256-cbc", "sha512", "aes-256-cbc", "sha512", id="AES-256, SHA-512"),
        pytest.param("des-ede3-cbc", "sha1", "des-ede3-cbc", "sha1", id="3DES, SHA-1"),
        pytest.param("des-cbc", "sha256", "des-ede3-cbc", "sha256", id="DES is answered by 3DES"),
        pytest.param("des-cbc", "md5", "des-ede3-cbc", "md5", id="DES, MD5"),
    ],
)
def test_success(
    cipher: str,
    digest: str,
    reply_cipher: str,
    reply_digest: str,
    client: cms.Signer,
    ra: RaIdentity,
    lenient: RaIdentity,
    csr: bytes,
    openssl: OpenSSL,
    testdata: Path,
    tmp_path: Path,
) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction=TRANSACTION, cipher=cipher, digest=digest)
    certificates = (client.certificate, *ra.chain)
    reply = encode_success(received(request, lenient), lenient, certificates)

    enveloped = openssl_verify(openssl, reply, testdata)
    (tmp_path / "key.pem").write_bytes(serialize_private_key(client.key))
    (tmp_path / "cert.pem").write_bytes(der_to_pem(client.certificate))
    decrypt = ("cms", "-decrypt", "-inform", "DER", "-recip", str(tmp_path / "cert.pem"), "-inkey", str(tmp_path / "key.pem"))
    assert cms.parse_signed_data(openssl(*decrypt, data=enveloped)).certificates == certificates

    answer = decode_cert_rep(reply, request, client, ra.certificate.der, accept_md5=digest == "md5")
    assert (answer.status, answer.certificates) == (PkiStatus.SUCCESS, certificates)
    assert decode_pki_message(reply).digest == reply_digest
    assert decode_pki_message(reply).cipher == reply_cipher


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_legacy_digests_are_not_mirrored_where_they_are_not_accepted(
    digest: str, client: cms.Signer, ra: RaIdentity, csr: bytes
) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T", digest=digest)
    reply = encode_failure(decode_pki_message(request.message), ra, Reason.UNSUPPORTED_ALGORITHM, "not accepted here")
    assert decode_pki_message(reply).digest == "sha256"


# Failure and pending


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param(Reason.CREDENTIAL_INVALID, FailInfo.BAD_REQUEST, id="wrong challenge"),
        pytest.param(Reason.UNSUPPORTED_ALGORITHM, FailInfo.BAD_ALG, id="algorithm"),
        pytest.param(Reason.DECRYPTION_FAILED, FailInfo.BAD_MESSAGE_CHECK, id="decryption"),
        pytest.param(Reason.UNKNOWN_TRANSACTION, FailInfo.BAD_CERT_ID, id="poll for nothing"),
        pytest.param(Reason.BAD_TIME, FailInfo.BAD_TIME, id="clock"),
        pytest.param(Reason.OVERLOADED, FailInfo.BAD_REQUEST, id="what HTTP should have said"),
    ],
)
def test_failure(
    reason: Reason, expected: FailInfo, client: cms.Signer, ra: RaIdentity, csr: bytes, openssl: OpenSSL, testdata: Path
) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction=TRANSACTION)
    reply = encode_failure(received(request, ra), ra, reason, "weil nicht: größer")
    assert openssl_verify(openssl, reply, testdata) == b""
    answer = decode_cert_rep(reply, request, client, ra.certificate.der)
    assert (answer.status, answer.fail_info, answer.fail_info_text) == (PkiStatus.FAILURE, expected, "weil nicht: größer")


def test_long_detail_is_cut(client: cms.Signer, ra: RaIdentity, csr: bytes) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T")
    reply = encode_failure(received(request, ra), ra, Reason.DENIED, "ä" * 1000)
    assert decode_cert_rep(reply, request, client, ra.certificate.der).fail_info_text == "ä" * 255


def test_pending(client: cms.Signer, ra: RaIdentity, csr: bytes, openssl: OpenSSL, testdata: Path) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction=TRANSACTION)
    reply = encode_pending(received(request, ra), ra)
    assert openssl_verify(openssl, reply, testdata) == b""
    assert decode_cert_rep(reply, request, client, ra.certificate.der).status is PkiStatus.PENDING


def test_form_that_clients_accept(client: cms.Signer, ra: RaIdentity, csr: bytes, openssl: OpenSSL) -> None:
    """Empty OCTET STRING for certmonger, rsaEncryption for strongSwan, both nonces for MikroTik, PrintableString codes."""
    request = encode_request(csr, client, ra.certificate.der, transaction=TRANSACTION)
    reply = encode_failure(received(request, ra), ra, Reason.DENIED, "no")
    listing = openssl("asn1parse", "-inform", "DER", data=reply).decode()
    assert re.search(r"pkcs7-data\n.*cont \[ 0 \].*\n.*l=   0 prim: OCTET STRING", listing)
    assert re.search(r"OBJECT +:rsaEncryption\n.*NULL.*\n[^\n]*OCTET STRING[^\n]*\n?$", listing)
    for oid, value in (("2", ":3"), ("3", ":2"), ("4", ":2"), ("7", f":{TRANSACTION}")):
        assert re.search(rf"113733\.1\.9\.{oid}\n.*SET.*\n.*PRINTABLESTRING +{re.escape(value)}\n", listing), oid
    nonces = re.findall(r"113733\.1\.9\.[56]\n.*SET.*\n.*OCTET STRING +\[HEX DUMP\]:([0-9A-F]{32})\n", listing)
    assert len(nonces) == 2
    assert request.sender_nonce.hex().upper() in nonces
    assert nonces[0] != nonces[1]


def test_signed_attributes_are_in_der_order(client: cms.Signer, ra: RaIdentity, csr: bytes) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T")
    info = cms.parse_signed_data(encode_pending(received(request, ra), ra)).signers[0]
    ordered = [der.tlv(0x30, der.oid(o), der.tlv(0x31, *v)) for o, v in info.attributes.items()]
    assert b"".join(ordered) == info.signed_attributes
    assert ordered == sorted(ordered)


def test_transaction_id_is_echoed_byte_for_byte(client: cms.Signer, ra: RaIdentity) -> None:
    utf8 = cms.attribute(asn1.OID_TRANSACTION_ID, b"\x0c\x04\xc3\xa4\xc3\xb6")
    message = decode_pki_message(cms.sign_data(b"", client, "sha256", (SCEP_ATTRIBUTES[0], utf8)))
    assert utf8 in cms.parse_signed_data(encode_pending(message, ra)).signers[0].signed_attributes


# What our client refuses


def test_client_refuses_what_is_not_its_answer(client: cms.Signer, ra: RaIdentity, csr: bytes) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T")
    reply = encode_success(received(request, ra), ra, (client.certificate,))
    for changed in (
        replace(request, transaction_id="U"),
        replace(request, sender_nonce=b"\0" * 16),
    ):
        with pytest.raises(MalformedMessage, match=r"transaction|nonce"):
            decode_cert_rep(reply, changed, client, ra.certificate.der)
    with pytest.raises(Rejection, match="another certificate"):
        decode_cert_rep(reply, request, client, ra.chain[0])
    with pytest.raises(Rejection) as refused:
        decode_cert_rep(reply[:-1] + bytes((reply[-1] ^ 1,)), request, client, ra.certificate.der)
    assert refused.value.reason is Reason.BAD_SIGNATURE
    forged = encode_request(csr, ra.signer, ra.certificate.der, transaction="T")
    with pytest.raises(MalformedMessage, match="CertRep"):
        decode_cert_rep(forged.message, request, client, ra.certificate.der)


def test_another_key_cannot_read_the_answer(client: cms.Signer, ra: RaIdentity, csr: bytes, other_key: RSAPrivateKey) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T")
    reply = encode_success(received(request, ra), ra, (client.certificate,))
    with pytest.raises(Rejection) as refused:
        decode_cert_rep(reply, request, replace(client, key=other_key), ra.certificate.der)
    assert refused.value.reason is Reason.DECRYPTION_FAILED


# The rest of the client


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="issuer and subject"),
        pytest.param(b"\x30\x00", id="empty"),
        pytest.param(b"\x31\x00", id="set"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_a_poll_encrypts_decides_nothing(data: bytes | None, client: cms.Signer, ra: RaIdentity) -> None:
    named = encode_issuer_and_subject(ra.certificate.issuer_der, parse_name_text("CN=device-1").der)
    request = encode_request(
        named if data is None else data, client, ra.certificate.der, transaction="T", message_type=MessageType.CERT_POLL
    )
    assert decode_request(received(request, ra), replace(ra, pairs=())) is None


def test_bundle_and_choice_of_the_ra(ra: RaIdentity) -> None:
    body, media_type = ca_certificates(ra)
    certificates = decode_ca_certificates(body, media_type)
    assert certificates == (ra.certificate.der, *ra.chain)
    assert choose_ra_certificate(tuple(reversed(certificates))) == ra.certificate.der
    assert decode_ca_certificates(ra.chain[0], "application/x-x509-ca-cert") == ra.chain
    with pytest.raises(MalformedMessage):
        choose_ra_certificate(())


def test_get_url_is_read_back(client: cms.Signer, ra: RaIdentity, csr: bytes) -> None:
    request = encode_request(csr, client, ra.certificate.der, transaction="T")
    url = pki_operation_url("http://127.0.0.1/scep/demo", request.message)
    assert parse_query(url.partition("?")[2]).message == request.message


def test_transaction_id_of_a_key_is_stable(client: cms.Signer, ra: RaIdentity) -> None:
    spki = ra.certificate.public_key.der
    assert transaction_id(spki) == transaction_id(spki)
    assert re.fullmatch(r"[0-9A-F]{64}", transaction_id(spki))
