"""Decryption that must not say too much: every fault looks and costs the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der, envelope
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.names import parse_name_text
from gateway.wire.scep import pkimessage
from gateway.wire.scep.pkimessage import (
    PkiMessage,
    RaIdentity,
    decode_pki_message,
    decode_request,
    open_envelope,
)

SUBJECT = parse_name_text("CN=device-1").der
ATTRIBUTES = (
    cms.attribute(asn1.OID_MESSAGE_TYPE, der.printable_string("19")),
    cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T-1")),
)


@dataclass
class Envelope:
    """An EnvelopedData for the RA with a place to break each of its parts."""

    ra: RaIdentity
    key: bytes = b"k" * 16
    transported: bytes | None = None
    iv: bytes = b"i" * 16
    padded: bytes = b""
    cipher_oid: str = "2.16.840.1.101.3.4.1.2"
    cut: int = 0
    rid: bytes = b""

    def build(self) -> bytes:
        public_key = self.ra.key.public_key()
        assert isinstance(public_key, RSAPublicKey)
        encryptor = Cipher(algorithms.AES(self.key), modes.CBC(self.iv)).encryptor()
        ciphertext = encryptor.update(self.padded) + encryptor.finalize()
        transported = public_key.encrypt(self.key, rsa_padding.PKCS1v15()) if self.transported is None else self.transported
        recipient = der.sequence(
            der.integer(0),
            self.rid or self.ra.signer.issuer_and_serial,
            der.sequence(der.oid(envelope.OID_RSA_ENCRYPTION), der.null()),
            der.octet_string(transported),
        )
        content = der.sequence(
            der.oid(asn1_cms.OID_DATA),
            der.sequence(der.oid(self.cipher_oid), der.octet_string(self.iv)),
            der.context(0, ciphertext[: len(ciphertext) - self.cut], constructed=False),
        )
        return der.sequence(
            der.oid(asn1_cms.OID_ENVELOPED_DATA),
            der.context(0, der.sequence(der.integer(0), der.set_of(recipient), content)),
        )


PLAIN = der.sequence(der.integer(1), der.octet_string(b"x" * 40))


def pad(data: bytes) -> bytes:
    count = 16 - len(data) % 16
    return data + bytes((count,)) * count


def message_of(client: cms.Signer, content: bytes) -> PkiMessage:
    return decode_pki_message(cms.sign_data(content, client, "sha256", ATTRIBUTES))


def encrypted_cek(ra: RaIdentity, cek: bytes) -> bytes:
    key = ra.key.public_key()
    assert isinstance(key, RSAPublicKey)
    return key.encrypt(cek, rsa_padding.PKCS1v15())


FAULTS: list[object] = [
    pytest.param(lambda ra: {"padded": PLAIN[:32] + b"\x00" * 16}, id="padding of zeros"),
    pytest.param(lambda ra: {"padded": pad(PLAIN)[:-1] + b"\x11"}, id="padding longer than a block"),
    pytest.param(lambda ra: {"padded": pad(b"\x31" + PLAIN[1:])}, id="content is no SEQUENCE"),
    pytest.param(lambda ra: {"padded": pad(PLAIN + b"\0")}, id="content with a byte behind"),
    pytest.param(lambda ra: {"padded": pad(PLAIN[:-1])}, id="content cut short"),
    pytest.param(lambda ra: {"padded": pad(b"")}, id="no content"),
    pytest.param(lambda ra: {"padded": b""}, id="no ciphertext"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "cut": 1}, id="ciphertext is no whole blocks"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "cut": 16}, id="a block is missing"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": encrypted_cek(ra, b"other key 16 byt")}, id="another key"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": encrypted_cek(ra, b"k" * 15)}, id="key too short"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": encrypted_cek(ra, b"k" * 32)}, id="key too long"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": encrypted_cek(ra, b"")}, id="empty key"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": b"\x01" * 256}, id="garbage instead of a key"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": b"\xff" * 256}, id="key transport above the modulus"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": b"\x01" * 255}, id="key transport too short"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": b"\x01" * 257}, id="key transport too long"),
    pytest.param(lambda ra: {"padded": pad(PLAIN), "transported": b""}, id="no key transport"),
]


class CountingKey:
    """Counts private-key operations on the way to the real key."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self.key = key
        self.key_size = key.key_size
        self.operations = 0

    def decrypt(self, ciphertext: bytes, padding: rsa_padding.PKCS1v15) -> bytes:
        self.operations += 1
        return self.key.decrypt(ciphertext, padding)


@pytest.mark.parametrize("fault", FAULTS)
def test_decryption_faults_look_alike(
    fault: Callable[[RaIdentity], dict[str, Any]], ra: RaIdentity, client: cms.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = message_of(client, Envelope(ra, **fault(ra)).build())
    key: Any = CountingKey(ra.key)
    passes: list[int] = []
    decoys: list[bytes] = []

    def counted(*arguments: Any) -> Any:
        passes.append(1)
        return Cipher(*arguments)

    def read(data: bytes) -> CertificateRequest:
        decoys.append(data)
        return parse_csr(data)

    monkeypatch.setattr(envelope, "Cipher", counted)
    monkeypatch.setattr(pkimessage, "parse_csr", read)
    with pytest.raises(Rejection) as refused:
        open_envelope(message, replace(ra, key=key))
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)
    assert refused.value.cause == "the content or its key did not decrypt"
    assert (key.operations, len(passes)) == (1, 1), "every fault costs one RSA operation and one CBC pass"
    assert decoys == [ra.decoy], "and one CSR, as success does"


def test_the_envelope_itself_opens(ra: RaIdentity, client: cms.Signer) -> None:
    assert open_envelope(message_of(client, Envelope(ra, padded=pad(PLAIN)).build()), ra) == PLAIN


def test_what_is_inside_is_refused_like_a_failed_decryption(ra: RaIdentity, client: cms.Signer) -> None:
    csr = build_csr(client.key, SUBJECT)
    broken = csr[:-1] + bytes((csr[-1] ^ 1,))
    message = message_of(client, b"")
    for data, reason in ((PLAIN, Reason.DECRYPTION_FAILED), (broken, Reason.BAD_PROOF_OF_POSSESSION)):
        with pytest.raises(Rejection) as refused:
            decode_request(message, data)
        assert (refused.value.reason, refused.value.detail) == (reason, envelope.UNREADABLE)
        assert refused.value.cause != refused.value.detail


def test_no_recipient_for_us(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, Envelope(ra, padded=pad(PLAIN), rid=client.issuer_and_serial).build())
    with pytest.raises(Rejection, match="old one") as refused:
        open_envelope(message, ra)
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)


def test_recipient_by_subject_key_identifier(ra: RaIdentity, client: cms.Signer) -> None:
    key_id = ra.certificate.subject_key_id
    assert key_id
    rid = der.context(0, key_id, constructed=False)
    assert open_envelope(message_of(client, Envelope(ra, padded=pad(PLAIN), rid=rid).build()), ra) == PLAIN


def test_recipient_whose_issuer_was_encoded_anew(ra: RaIdentity, client: cms.Signer) -> None:
    issuer = ra.certificate.issuer_der.replace(b"\x13\x02CH", b"\x0c\x02CH")
    assert issuer != ra.certificate.issuer_der
    rid = der.sequence(issuer, der.integer(ra.certificate.serial))
    assert open_envelope(message_of(client, Envelope(ra, padded=pad(PLAIN), rid=rid).build()), ra) == PLAIN


def test_content_that_is_no_envelope(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, b"anything")
    assert (message.cipher, message.recipients) == ("", ())
    with pytest.raises(MalformedMessage):
        open_envelope(message, ra)


def test_unknown_cipher_is_named_before_any_decryption(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, Envelope(ra, padded=pad(PLAIN), cipher_oid="1.2.3.4").build())
    with pytest.raises(Rejection, match=r"1\.2\.3\.4") as refused:
        open_envelope(message, ra)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_wrong_iv_is_no_envelope(ra: RaIdentity, client: cms.Signer) -> None:
    data = Envelope(ra, padded=pad(PLAIN)).build()
    iv = der.octet_string(b"i" * 16)
    assert iv in data
    message = message_of(client, data.replace(iv, der.octet_string(b"i" * 8) + b"\x04\x06" + b"i" * 6))
    assert message.envelope is None
