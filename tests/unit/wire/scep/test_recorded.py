"""Every recorded request decodes, verifies and decrypts, and every recorded answer is read by our own client."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, envelope
from gateway.wire.scep.pkimessage import (
    Algorithms,
    MessageType,
    PkiMessage,
    RaIdentity,
    decode_pki_message,
    decode_request,
    encode_success,
    verify_signature,
)
from tests.unit.wire.scep.identities import NOW, with_key

LEGACY = Algorithms(sha1=True, md5=True, triple_des=True, single_des=True)
TESTDATA = Path(__file__).parents[4] / "testdata" / "scep"


@dataclass(frozen=True)
class Recorded:
    name: str
    message_type: MessageType
    transaction_id: str
    digest: str
    cipher: str
    signer: str
    recipients: int = 1
    self_signed: bool = True
    needs: tuple[str, ...] = ()
    """The flags of `Algorithms` without which it is refused."""
    legacy: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        return (TESTDATA / f"{self.name}-request.der").read_bytes()


SCEPCLIENT, SHA1_DES = ("sha1", "single_des"), ("sha1", "des-cbc")
PKCS, RENEWAL = MessageType.PKCS_REQ, MessageType.RENEWAL_REQ
SHARED_TRANSACTION = "bP8yPFWgqlnsEA7dRNwcYGO/mKU="
ROWS = (
    Recorded(
        "scepclient-2.1.0-enroll", PKCS, SHARED_TRANSACTION, "sha1", "des-cbc", "SCEP SIGNER", 2, True, SCEPCLIENT, SHA1_DES
    ),
    Recorded("scepclient-2.1.0-renew", RENEWAL, SHARED_TRANSACTION, "sha1", "des-cbc", "dev1", 2, False, SCEPCLIENT, SHA1_DES),
    Recorded("strongswan-5.9.8-enroll", PKCS, "926D4977B9FE4A43B7FF592CEA394BFC5ABDD895", "sha256", "aes-128-cbc", "moon"),
    Recorded(
        "strongswan-5.9.8-renew", RENEWAL, "2E87E56142FE41BFABDB73D4AC2F855C7131BBDF", "sha256", "aes-128-cbc", "moon", 1, False
    ),
    Recorded("sscep-0.10-enroll", PKCS, "946E068F41A9E9497A53EEC1C22051CE", "sha256", "aes-128-cbc", "ss1"),
    Recorded("sscep-0.10-renew", PKCS, "2F8B97DA5DF2818AE6F63A7AB573191F", "sha512", "aes-256-cbc", "ss1", 1, False),
    Recorded("jscep-f2bae83-enroll", PKCS, "622d82f4a46989a329f285cb12add552c532c7f4", "sha512", "aes-128-cbc", "jscep1"),
    Recorded(
        "strongswan-5.9.8-enroll-pss-3des",
        PKCS,
        "74D5742958D1F57CE70E3BC0CC208C441BA9E1C1",
        "sha256",
        "des-ede3-cbc",
        "moon",
        needs=("triple_des",),
        legacy=("des-ede3-cbc",),
    ),
)
recorded = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_no_recording_is_left_out() -> None:
    assert {p.name for p in TESTDATA.glob("*-request.der")} == {f"{r.name}-request.der" for r in ROWS}


@recorded
def test_structure(row: Recorded) -> None:
    message = decode_pki_message(row.data)
    assert (message.message_type, message.transaction_id) == (row.message_type, row.transaction_id)
    assert (message.digest, message.cipher, len(message.recipients)) == (row.digest, row.cipher, row.recipients)
    assert message.signer.subject.values("2.5.4.3") == (row.signer,)
    assert message.signer.self_signed is row.self_signed
    assert len(message.sender_nonce) == 16


@recorded
def test_request_inside(row: Recorded, ra: RaIdentity) -> None:
    message = decode_pki_message(row.data)
    lenient = replace(ra, algorithms=LEGACY)
    verify_signature(message, lenient, NOW)
    request = decode_request(message, lenient)
    assert isinstance(request, CertificateRequest)
    assert request.public_key.algorithm == "rsa"
    if row.self_signed:
        assert request.public_key.sha256 == message.signer.public_key.sha256
        assert request.challenge_password


def read(message: PkiMessage, ra: RaIdentity, *flags: str) -> None:
    accepting = replace(ra, algorithms=Algorithms(**dict.fromkeys(flags, True)))
    verify_signature(message, accepting, NOW)
    decode_request(message, accepting)


@recorded
def test_legacy_algorithms_are_refused_unless_switched_on(row: Recorded, ra: RaIdentity) -> None:
    message = decode_pki_message(row.data)
    assert message.legacy == row.legacy
    read(message, ra, *row.needs)
    others = {"sha1", "md5", "triple_des", "single_des"}
    for missing in row.needs:
        with pytest.raises(Rejection) as refused:
            read(message, ra, *(others - {missing}))
        assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
        assert "is not accepted here, use" in refused.value.detail


@recorded
def test_the_answer_mirrors_digest_and_cipher(row: Recorded, ra: RaIdentity) -> None:
    message = decode_pki_message(row.data)
    accepting = replace(ra, algorithms=LEGACY)
    reply = cms.parse_signed_data(encode_success(message, accepting, (ra.certificate.der,)))
    used = cms.verify_signer(reply, reply.signers[0], ra.certificate.public_key.der)
    enveloped = envelope.parse_enveloped_data(reply.content or b"")
    assert used == row.digest
    assert enveloped.cipher == ("des-ede3-cbc" if row.cipher.startswith("des") else row.cipher)


@recorded
def test_answers_are_signed_by_the_ra(row: Recorded, ra: RaIdentity) -> None:
    signed = cms.parse_signed_data((TESTDATA / f"{row.name}-reply.der").read_bytes())
    assert cms.verify_signer(signed, signed.signers[0], ra.certificate.public_key.der) in {"sha1", "sha256", "sha512"}
    assert signed.certificates == (ra.certificate.der,)


@recorded
def test_other_key_opens_nothing(row: Recorded, ra: RaIdentity, other_key: RSAPrivateKey) -> None:
    message = decode_pki_message(row.data)
    stranger = replace(with_key(ra, other_key), algorithms=LEGACY)
    with pytest.raises(Rejection) as refused:
        decode_request(message, stranger)
    assert refused.value.reason is Reason.DECRYPTION_FAILED
