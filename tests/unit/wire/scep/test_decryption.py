"""Decryption that must not say too much: every fault looks and costs the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import ciphers, cms, csr, der, envelope
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep import identity
from gateway.wire.scep.pkimessage import (
    PkiMessage,
    RaIdentity,
    decode_pki_message,
    decode_request,
)
from tests.unit.wire.scep.identities import with_key

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


DEVICE_KEY = generate_private_key("rsa-2048")
PLAIN = build_csr(DEVICE_KEY, SUBJECT, challenge_password="secret")
NO_CSR = der.sequence(der.integer(1), der.octet_string(b"x" * 40))
BROKEN_PROOF = PLAIN[:-1] + bytes((PLAIN[-1] ^ 1,))
UNKNOWN = "1.2.840.113549.1.1.99"
UNKNOWN_ALGORITHM = PLAIN.replace(der.oid("1.2.840.113549.1.1.11"), der.oid(UNKNOWN))


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
    pytest.param(lambda ra: {"padded": NO_CSR + b"\x00" * (16 - len(NO_CSR) % 16)}, id="no CSR, padding of zeros"),
    pytest.param(lambda ra: {"padded": pad(NO_CSR)}, id="no CSR, good padding"),
    pytest.param(lambda ra: {"padded": pad(b"\x30\x00")}, id="empty SEQUENCE, good padding"),
    pytest.param(lambda ra: {"padded": pad(b"\x30\x80\0\0")}, id="empty indefinite SEQUENCE"),
    pytest.param(lambda ra: {"padded": pad(b"\x30\x80\1\1")}, id="endless SEQUENCE"),
    pytest.param(lambda ra: {"padded": pad(BROKEN_PROOF)}, id="CSR with a wrong signature, good padding"),
    pytest.param(lambda ra: {"padded": pad(BROKEN_PROOF)[:-1] + b"\0"}, id="CSR with a wrong signature, bad padding"),
    pytest.param(lambda ra: {"padded": pad(UNKNOWN_ALGORITHM)}, id="CSR of an unknown algorithm"),
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

    def public_key(self) -> RSAPublicKey:
        return self.key.public_key()

    def decrypt(self, ciphertext: bytes, padding: rsa_padding.PKCS1v15) -> bytes:
        self.operations += 1
        return self.key.decrypt(ciphertext, padding)


@dataclass
class Work:
    """What a request costs: private-key operations and content decryptions."""

    key: CountingKey
    passes: int = 0

    @property
    def done(self) -> tuple[int, int]:
        return self.key.operations, self.passes


@pytest.fixture
def work(ra: RaIdentity, monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work(CountingKey(ra.key))

    def counted_cipher(*arguments: Any) -> Any:
        work.passes += 1
        return Cipher(*arguments)

    monkeypatch.setattr(ciphers, "Cipher", counted_cipher)
    return work


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_behind_the_decryption_look_and_cost_alike(
    fault: Callable[[RaIdentity], dict[str, Any]], ra: RaIdentity, client: cms.Signer, work: Work
) -> None:
    message = message_of(client, Envelope(ra, **fault(ra)).build())
    key: Any = work.key
    with pytest.raises(Rejection) as refused:
        decode_request(message, with_key(ra, key))
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)
    assert refused.value.cause != refused.value.detail
    assert work.done == (1, 1), "one RSA operation, one CBC pass"


def test_a_good_request_costs_the_same(ra: RaIdentity, client: cms.Signer, work: Work) -> None:
    key: Any = work.key
    message = message_of(client, Envelope(ra, padded=pad(PLAIN)).build())
    request = decode_request(message, with_key(ra, key))
    assert isinstance(request, CertificateRequest)
    assert (request.der, work.done) == (PLAIN, (1, 1))


@pytest.mark.parametrize("data", [NO_CSR, BROKEN_PROOF], ids=["no CSR", "CSR with a wrong signature"])
def test_padding_is_not_looked_at_before_the_proof_of_possession(data: bytes, ra: RaIdentity, client: cms.Signer) -> None:
    """Vaudenay's question, put to a captured envelope with spliced blocks, is answered alike either way."""
    causes = set()
    for padded in (pad(data), pad(data)[:-1] + b"\0", pad(data)[:-1] + b"\x11"):
        with pytest.raises(Rejection) as refused:
            decode_request(message_of(client, Envelope(ra, padded=padded).build()), ra)
        causes.add(refused.value.cause)
    assert len(causes) == 1


def test_refusals_wait_until_the_slowest_is_done(ra: RaIdentity, client: cms.Signer) -> None:
    ticks = iter(range(1000))
    paced = replace(ra, stopwatch=lambda: float(next(ticks)), refusal_seconds=100)
    for data in (NO_CSR, BROKEN_PROOF, PLAIN + b"\0"):
        begun = next(ticks)
        with pytest.raises(Rejection):
            decode_request(message_of(client, Envelope(ra, padded=pad(data)).build()), paced)
        assert next(ticks) - begun > 100
    begun = next(ticks)
    assert decode_request(message_of(client, Envelope(ra, padded=pad(PLAIN)).build()), paced)
    assert next(ticks) - begun < 5, "who has proved possession is not kept waiting"


@pytest.mark.parametrize(
    ("any_curve", "slowest"), [pytest.param(False, 7, id="what a policy can name"), pytest.param(True, 9, id="any curve")]
)
def test_refusals_wait_for_the_slowest_of_keys(
    any_curve: bool, slowest: int, ra: RaIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key takes its time on this clock, and P-384 longer than P-521, as with today's OpenSSL."""
    now = 0.0
    seconds = {384: 7, 521: 5, 512: 9}

    def parse(data: bytes) -> None:
        nonlocal now
        now += seconds[csr.parse_csr(data).public_key.bits]

    monkeypatch.setattr(identity, "parse_csr", parse)
    timed = RaIdentity.create(ra.certificate.der, ra.key, ra.chain, stopwatch=lambda: now, any_curve=any_curve)
    assert timed.refusal_seconds == slowest * identity.REFUSAL_FACTOR


def test_the_wait_is_measured_where_there_is_a_clock(ra: RaIdentity) -> None:
    assert RaIdentity.create(ra.certificate.der, ra.key, ra.chain).refusal_seconds == 0
    assert 0 < RaIdentity.create(ra.certificate.der, ra.key, ra.chain, stopwatch=perf_counter).refusal_seconds < 1


def test_no_recipient_for_us(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, Envelope(ra, padded=pad(PLAIN), rid=client.issuer_and_serial).build())
    with pytest.raises(Rejection, match="old one") as refused:
        decode_request(message, ra)
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)


def test_recipient_by_subject_key_identifier(ra: RaIdentity, client: cms.Signer) -> None:
    key_id = ra.certificate.subject_key_id
    assert key_id
    rid = der.context(0, key_id, constructed=False)
    request = decode_request(message_of(client, Envelope(ra, padded=pad(PLAIN), rid=rid).build()), ra)
    assert isinstance(request, CertificateRequest)
    assert request.der == PLAIN


def test_recipient_whose_issuer_was_encoded_anew(ra: RaIdentity, client: cms.Signer) -> None:
    issuer = ra.certificate.issuer_der.replace(b"\x13\x02CH", b"\x0c\x02CH")
    assert issuer != ra.certificate.issuer_der
    rid = der.sequence(issuer, der.integer(ra.certificate.serial))
    request = decode_request(message_of(client, Envelope(ra, padded=pad(PLAIN), rid=rid).build()), ra)
    assert isinstance(request, CertificateRequest)
    assert request.der == PLAIN


def test_content_that_is_no_envelope(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, b"anything")
    assert (message.cipher, message.recipients) == ("", ())
    with pytest.raises(MalformedMessage):
        decode_request(message, ra)


def test_unknown_cipher_is_named_before_any_decryption(ra: RaIdentity, client: cms.Signer) -> None:
    message = message_of(client, Envelope(ra, padded=pad(PLAIN), cipher_oid="1.2.3.4").build())
    with pytest.raises(Rejection, match=r"1\.2\.3\.4") as refused:
        decode_request(message, ra)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_wrong_iv_is_no_envelope(ra: RaIdentity, client: cms.Signer) -> None:
    data = Envelope(ra, padded=pad(PLAIN)).build()
    iv = der.octet_string(b"i" * 16)
    assert iv in data
    message = message_of(client, data.replace(iv, der.octet_string(b"i" * 8) + b"\x04\x06" + b"i" * 6))
    assert message.envelope is None
