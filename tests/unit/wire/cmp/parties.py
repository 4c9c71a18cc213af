"""A CMP server and its clients, as the tests of its messages need them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyasn1.codec.der import decoder, encoder
from pyasn1.type.base import Asn1Item
from pyasn1_alt_modules import rfc9810

from gateway.cmp import Answer, AnswerBody, Header, MacSender, Sender, SharedSecret, SignatureSender
from gateway.model import Grant, ProfileName
from gateway.pki import cms
from gateway.pki.certificate import Issuer, build_certificate, new_serial, parse_certificate, self_signed_ca, to_signer
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.cmp.protection import Protector, Strictness, directory_name

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
TRANSACTION, NONCE, ANSWER_NONCE = bytes(range(16)), bytes(range(16, 32)), bytes(range(32))
CLIENT_NAME = parse_name_text("CN=client").der


@dataclass(frozen=True)
class Pair:
    """A certificate, DER, and its key."""

    certificate: bytes
    key: PrivateKey


CA_KEY = generate_private_key("ec-p256")
CA = self_signed_ca(CA_KEY, "CN=Root", NOW - timedelta(days=1), NOW + timedelta(days=30))
_ISSUER = Issuer.from_certificate(CA, CA_KEY)


def leaf(name: str, key: PrivateKey) -> Pair:
    grant = Grant(parse_name_text(name).der, (), ("digitalSignature",), (), NOW - timedelta(hours=1), NOW + timedelta(days=1))
    return Pair(build_certificate(_ISSUER, new_serial(), grant, public_key_der(key)), key)


SERVER = leaf("CN=CMP signer", generate_private_key("ec-p256"))
DEVICE = leaf("CN=device", generate_private_key("ec-p256"))
SECRET = SharedSecret("1", ProfileName("demo"), b"ref-1", b"a secret", NOW, NOW + timedelta(days=1), "test")
SIGNED = SignatureSender(to_signer(parse_certificate(DEVICE.certificate)))


def protector(strictness: Strictness = "rfc4210", pair: Pair = SERVER) -> Protector:
    return Protector.create(cms.Signer.create(pair.certificate, pair.key), (CA,), strictness=strictness)


def header(pvno: int = 2) -> Header:
    return Header(pvno, directory_name(CLIENT_NAME), None, directory_name(b"0\0"), transaction_id=TRANSACTION, sender_nonce=NONCE)


def answer(body: AnswerBody, sender: Sender | None = SIGNED) -> Answer:
    return Answer(body, sender, ANSWER_NONCE)


def mac_sender(algorithm: bytes) -> MacSender:
    return MacSender(SECRET, algorithm)


def oracle(message: bytes) -> Asn1Item:
    """Read a message by another library, which must write it alike."""
    decoded, rest = decoder.decode(message, asn1Spec=rfc9810.PKIMessage())
    assert (rest, encoder.encode(decoded)) == (b"", message)
    return decoded
