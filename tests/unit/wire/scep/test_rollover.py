"""Messages to an RA of several pairs: one decryption whatever is named, and an answer that its client can check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.asn1 import scep as asn1
from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der, envelope
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.keys import load_public_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import decode_cert_rep, encode_request
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.pkimessage import (
    PkiMessage,
    PkiStatus,
    decode_pki_message,
    decode_request,
    encode_failure,
    encode_pending,
    encode_success,
    verify_signature,
)
from tests.unit.wire.scep.identities import CA, NOW, make_pair

BOTH = ("digitalSignature", "keyEncipherment")
MAIN, OLD, OLDEST = (make_pair(*BOTH, subject=f"CN=RA {number}") for number in range(3))
SIGNING, ENCRYPTION = make_pair("digitalSignature"), make_pair("keyEncipherment")
STRANGER = make_pair(*BOTH, subject="CN=RA of others")
OpenSSL = Callable[..., bytes]


class CountingKey:
    """Counts the decryptions of all keys together."""

    def __init__(self, key: Any, operations: list[bytes]) -> None:
        self.key, self.operations = key, operations
        self.key_size, self.public_key = key.key_size, key.public_key

    def decrypt(self, ciphertext: bytes, padding: Any) -> bytes:
        self.operations.append(ciphertext)
        plain: bytes = self.key.decrypt(ciphertext, padding)
        return plain


def counted(ra: RaIdentity) -> tuple[RaIdentity, list[bytes]]:
    operations: list[bytes] = []
    keys: list[Any] = [CountingKey(pair.key, operations) for pair in ra.pairs]
    return replace(ra, pairs=tuple(replace(p, key=k) for p, k in zip(ra.pairs, keys, strict=True))), operations


@pytest.fixture(scope="module")
def rolled() -> RaIdentity:
    return RaIdentity.create(*MAIN, (CA,), previous=(OLD, OLDEST, ENCRYPTION))


@pytest.fixture(scope="module")
def split() -> RaIdentity:
    return RaIdentity.create(*SIGNING, (CA,), encryption=ENCRYPTION, previous=(OLD,))


@pytest.fixture(scope="module")
def csr(client: cms.Signer) -> bytes:
    return build_csr(client.key, parse_name_text("CN=device-1").der, challenge_password="secret")


WHOM = [
    pytest.param("rolled", MAIN, MAIN, id="the pair in force"),
    pytest.param("rolled", OLD, OLD, id="the previous pair"),
    pytest.param("rolled", OLDEST, OLDEST, id="the one before"),
    pytest.param("rolled", ENCRYPTION, MAIN, id="a previous pair that cannot sign"),
    pytest.param("split", ENCRYPTION, SIGNING, id="the encryption certificate"),
    pytest.param("split", OLD, OLD, id="the pair before the split"),
]


@pytest.mark.parametrize(("name", "recipient", "answers"), WHOM)
def test_clients_of_each_pair_are_served(
    name: str, recipient: Any, answers: Any, request: pytest.FixtureRequest, client: cms.Signer, csr: bytes
) -> None:
    ra, operations = counted(request.getfixturevalue(name))
    sent = encode_request(csr, client, recipient[0], transaction="T")
    message = decode_pki_message(sent.message)
    verify_signature(message, ra, NOW)
    decoded = decode_request(message, ra)
    assert isinstance(decoded, CertificateRequest)
    assert (decoded.der, len(operations)) == (csr, 1)
    replies = {
        PkiStatus.SUCCESS: encode_success(message, ra, (client.certificate,)),
        PkiStatus.PENDING: encode_pending(message, ra),
        PkiStatus.FAILURE: encode_failure(message, ra, Reason.DENIED, "no"),
    }
    for status, reply in replies.items():
        assert decode_cert_rep(reply, sent, client, answers[0]).status is status
        assert cms.parse_signed_data(reply).certificates == (answers[0],)


def test_openssl_verifies_what_a_previous_ra_signed(
    rolled: RaIdentity, client: cms.Signer, csr: bytes, openssl: OpenSSL, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(der_to_pem(CA))
    (tmp_path / "signer.pem").write_bytes(b"")
    message = decode_pki_message(encode_request(csr, client, OLD[0], transaction="T").message)
    reply = encode_failure(message, rolled, Reason.DENIED, "no")
    trust = ("-CAfile", str(tmp_path / "ca.pem"), "-purpose", "any", "-no_check_time", "-signer", str(tmp_path / "signer.pem"))
    assert openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=reply) == b""
    assert (tmp_path / "signer.pem").read_bytes() == der_to_pem(OLD[0])


def to_many(data: bytes, client: cms.Signer, *recipients: bytes) -> PkiMessage:
    """A message that one content key encrypts to every one of these certificates, as scepclient does."""
    envelopes = [envelope.encrypt(data, "aes-128-cbc", public_key(r), cms.issuer_and_serial(r)) for r in recipients]
    parsed = [envelope.parse_enveloped_data(e) for e in envelopes]
    attributes = (
        cms.attribute(asn1.OID_MESSAGE_TYPE, der.printable_string("19")),
        cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T")),
    )
    message = decode_pki_message(cms.sign_data(envelopes[-1], client, "sha256", attributes))
    assert message.envelope is not None
    return replace(message, envelope=replace(message.envelope, recipients=tuple(r for p in parsed for r in p.recipients)))


def public_key(certificate: bytes) -> RSAPublicKey:
    key = load_public_key(parse_certificate(certificate).public_key.der)
    assert isinstance(key, RSAPublicKey)
    return key


def test_of_several_recipients_one_is_decrypted(rolled: RaIdentity, client: cms.Signer, csr: bytes) -> None:
    ra, operations = counted(rolled)
    message = to_many(csr, client, STRANGER[0], OLDEST[0], OLD[0], MAIN[0])
    decoded = decode_request(message, ra)
    assert isinstance(decoded, CertificateRequest)
    assert len(operations) == 1, "the pair in force, though previous ones stand before it"
    assert cms.parse_signed_data(encode_pending(message, ra)).certificates == (MAIN[0],)


def test_a_pair_that_cannot_read_is_not_followed_by_another(rolled: RaIdentity, client: cms.Signer, csr: bytes) -> None:
    """Trying the next pair would tell how the first one failed."""
    ra, operations = counted(rolled)
    message = to_many(csr, client, MAIN[0], OLD[0])
    assert message.envelope is not None
    broken = replace(message.envelope.recipients[0], encrypted_key=b"\1" * 256)
    message = replace(message, envelope=replace(message.envelope, recipients=(broken, message.envelope.recipients[1])))
    with pytest.raises(Rejection) as refused:
        decode_request(message, ra)
    assert (refused.value.reason, len(operations)) == (Reason.DECRYPTION_FAILED, 1)


def test_strangers_recipients_cost_no_decryption_and_are_answered_by_the_ra_in_force(
    rolled: RaIdentity, client: cms.Signer, csr: bytes
) -> None:
    ra, operations = counted(rolled)
    sent = encode_request(csr, client, STRANGER[0], transaction="T")
    message = decode_pki_message(sent.message)
    with pytest.raises(Rejection, match="no recipient") as refused:
        decode_request(message, ra)
    assert (refused.value.reason, refused.value.detail, operations) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE, [])
    reply = encode_failure(message, ra, refused.value.reason, refused.value.detail)
    assert decode_cert_rep(reply, sent, client, MAIN[0]).fail_info_text == envelope.UNREADABLE


def test_hostile_recipients_can_still_be_answered(rolled: RaIdentity, client: cms.Signer, csr: bytes) -> None:
    sent = encode_request(csr, client, MAIN[0], transaction="T")
    message = decode_pki_message(sent.message)
    assert message.envelope is not None
    rid = replace(message.envelope.recipients[0].rid, issuer_der=b"\x30\x03\x02\x01\x01")
    hostile = replace(message, envelope=replace(message.envelope, recipients=(replace(message.envelope.recipients[0], rid=rid),)))
    with pytest.raises(Rejection) as refused:
        decode_request(hostile, rolled)
    assert refused.value.reason is Reason.DECRYPTION_FAILED
    assert decode_cert_rep(encode_pending(hostile, rolled), sent, client, MAIN[0]).status is PkiStatus.PENDING
