"""Mutations of every recorded SCEP message, outside and behind the decryption: only Rejections escape, and each is cheap."""

from __future__ import annotations

import base64
import gc
import random
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.errors import MalformedMessage, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der, envelope, password
from gateway.pki.certificate import pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER, encode_extension
from gateway.pki.keys import (
    PrivateKey,
    generate_private_key,
    load_private_key,
    load_public_key,
    public_key_der,
    sign,
    signature_algorithm,
)
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import decode_cert_rep, encode_request, self_signed_signer
from gateway.wire.scep.identity import MAX_NAME_GROWTH
from gateway.wire.scep.message_data import _read_csr as read_csr
from gateway.wire.scep.operations import decode_body, parse_query
from gateway.wire.scep.pkimessage import (
    Algorithms,
    CertificateQuery,
    MessageType,
    PkiMessage,
    RaIdentity,
    decode_pki_message,
    decode_request,
    encode_success,
    verify_signature,
)
from tests.fuzz.mutations import MUTATIONS, Mutator, refused_cheaply

TESTDATA = Path(__file__).parents[2] / "testdata" / "scep"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MESSAGES = sorted(TESTDATA.glob("*.der"))
REQUESTS = sorted(TESTDATA.glob("*-request.der"))
LEGACY = Algorithms(sha1=True, md5=True, triple_des=True, single_des=True)


@pytest.fixture(scope="module")
def ra() -> RaIdentity:
    key = load_private_key((TESTDATA / "ra.key").read_bytes())
    return RaIdentity.create(pem_to_ders((TESTDATA / "ra.pem").read_bytes())[0], key, (), LEGACY)


def decoded(data: bytes) -> PkiMessage:
    """Decode; what no CertRep can be made for must say so by its type."""
    try:
        return decode_pki_message(data)
    except Rejection as rejection:
        if not isinstance(rejection, MalformedMessage):
            raise AssertionError from rejection
        raise


def walk(data: bytes, ra: RaIdentity) -> None:
    """Go as far as the message lets us, signature or not, as if its sender had signed what he broke; then refuse it."""
    message = decoded(data)
    with suppress(Rejection):
        verify_signature(message, ra, NOW)
    decode_request(message, ra)


@pytest.mark.parametrize("path", MESSAGES, ids=lambda p: p.stem)
def test_mutated_messages(path: Path, ra: RaIdentity) -> None:
    for i, data in enumerate(Mutator(path.read_bytes(), path.name).mutations(MUTATIONS)):
        refused_cheaply(lambda d=data: walk(d, ra), f"{path.stem} {i}")  # type: ignore[misc]


def meaning(message: PkiMessage) -> tuple[object, ...]:
    """What a signature must bind: everything that the message says but the certificate around the signer's key."""
    signed = (message.signed_data.content, message.message_type, message.transaction_id_der, message.sender_nonce)
    return (*signed, load_public_key(message.signer.public_key.der))


@pytest.mark.parametrize("path", REQUESTS, ids=lambda p: p.stem)
def test_no_mutation_verifies_and_means_something_else(path: Path, ra: RaIdentity) -> None:
    original = decode_pki_message(path.read_bytes())
    verified = 0
    for data in Mutator(path.read_bytes(), "meaning" + path.name).mutations(MUTATIONS):
        with suppress(Rejection):
            message = decode_pki_message(data)
            verify_signature(message, ra, NOW)
            assert meaning(message) == meaning(original)
            verified += 1
    assert verified, "some mutations leave alone what is signed"


@pytest.mark.parametrize("path", REQUESTS, ids=lambda p: p.stem)
def test_mutated_requests_behind_the_decryption(path: Path, ra: RaIdentity) -> None:
    request = decode_request(decode_pki_message(path.read_bytes()), ra)
    assert isinstance(request, CertificateRequest)
    for i, data in enumerate(Mutator(request.der, path.name).mutations(MUTATIONS)):
        refused_cheaply(lambda d=data: read_csr(d), f"{path.stem} {i}")  # type: ignore[misc]


@pytest.mark.parametrize("path", REQUESTS, ids=lambda p: p.stem)
def test_mutated_envelopes(path: Path, ra: RaIdentity) -> None:
    content = decode_pki_message(path.read_bytes()).signed_data.content
    assert content is not None

    def work(data: bytes) -> None:
        enveloped = envelope.parse_enveloped_data(data)
        for recipient in enveloped.recipients[:2]:
            ra.find_pair((recipient.rid,))
            envelope.decrypt(enveloped, recipient, ra.key)

    for i, data in enumerate(Mutator(content, path.name).mutations(MUTATIONS)):
        refused_cheaply(lambda d=data: work(d), f"{path.stem} {i}")  # type: ignore[misc]


def test_mutated_password_recipients() -> None:
    """All that a stranger may make us derive a key from is bounded before we do."""
    content = envelope.encrypt_with_password(b"\x30\x00", "aes-128-cbc", b"secret")

    def work(data: bytes) -> None:
        for recipient in envelope.parse_enveloped_data(data).passwords:
            password.check_recipient(recipient)

    for i, data in enumerate(Mutator(content, "password").mutations(MUTATIONS)):
        refused_cheaply(lambda d=data: work(d), f"password {i}")  # type: ignore[misc]


@pytest.mark.parametrize("kind", [MessageType.GET_CERT, MessageType.GET_CRL], ids=lambda kind: kind.name)
def test_mutated_queries_behind_the_decryption(kind: MessageType, ra: RaIdentity) -> None:
    """Whatever is in the envelope, a query comes out, and never a refusal."""
    key = generate_private_key("rsa-2048")
    subject = parse_name_text("CN=device").der
    signer = self_signed_signer(key, subject, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))

    def work(data: bytes) -> None:
        request = encode_request(data, signer, ra.certificate.der, transaction="T", message_type=kind)
        assert isinstance(decode_request(decode_pki_message(request.message), ra), CertificateQuery)

    for i, data in enumerate(Mutator(ra.signer.issuer_and_serial, kind.name).mutations(MUTATIONS // 5)):
        assert not refused_cheaply(lambda d=data: work(d), f"{kind.name} {i}")  # type: ignore[misc]


def test_mutated_answers(ra: RaIdentity) -> None:
    """Our own client takes a broken answer for what it was, or refuses it."""
    key = generate_private_key("rsa-2048")
    subject = parse_name_text("CN=device").der
    signer = self_signed_signer(key, subject, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    request = encode_request(build_csr(key, subject), signer, ra.certificate.der, transaction="T")
    answer = encode_success(decode_pki_message(request.message), ra, (signer.certificate,))
    expected = decode_cert_rep(answer, request, signer, ra.certificate.der)

    def work(data: bytes) -> None:
        assert decode_cert_rep(data, request, signer, ra.certificate.der) == expected

    for i, data in enumerate(Mutator(answer, "answer").mutations(MUTATIONS)):
        refused_cheaply(lambda d=data: work(d), f"answer {i}")  # type: ignore[misc]


@pytest.mark.parametrize("path", REQUESTS[:2], ids=lambda p: p.stem)
def test_mutated_queries_and_bodies(path: Path) -> None:
    text = f"operation=PKIOperation&message={quote(base64.b64encode(path.read_bytes()))}".encode()
    source = random.Random(path.name)
    for _ in range(MUTATIONS):
        broken = bytearray(text)
        for _ in range(source.choice((1, 3, 20))):
            broken[source.randrange(len(broken))] = source.randrange(256)
        refused_cheaply(lambda b=bytes(broken): parse_query(b), "query")  # type: ignore[misc]
        refused_cheaply(lambda b=bytes(broken): decode_body(b), "body")  # type: ignore[misc]


def signed_data(certificates: bytes = b"", attributes: bytes = b"", content: bytes = b"") -> bytes:
    """Return a SignedData with any bytes at the places that are read in loops."""
    algorithm = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"))
    identifier = der.sequence(der.sequence(), der.integer(1))
    signer = der.sequence(der.integer(1), identifier, algorithm, der.tlv(0xA0, attributes), algorithm, der.octet_string(b"s"))
    return der.sequence(
        der.oid("1.2.840.113549.1.7.2"),
        der.context(
            0,
            der.sequence(
                der.integer(1),
                der.set_of(algorithm),
                der.sequence(der.oid("1.2.840.113549.1.7.1"), der.context(0, der.octet_string(content))),
                der.tlv(0xA0, certificates),
                der.set_of(signer),
            ),
        ),
    )


LONG_OID = b"\x06\x40" + b"\xff" * 63 + b"\x7f"
ATTRIBUTE = der.sequence(LONG_OID, der.set_of(der.null()))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x06\x83\x0f\x42\x40" + b"\x81" * 1_000_000, id="OID of 1 MB"),
        pytest.param(der.tlv(0x06, b"\x81" * 60_000), id="OID of 60 kB"),
        pytest.param(signed_data(attributes=der.tlv(0x06, b"\x81" * 60_000)), id="OID of 60 kB as attribute"),
        pytest.param(b"\x30\x80" * 16_000, id="16,000 deep, indefinite"),
        pytest.param(b"\x30\x80" * 16_000 + b"\0\0" * 16_000, id="16,000 deep, indefinite, closed"),
        pytest.param(b"\x24\x80" * 16_000, id="16,000 deep octet string"),
        pytest.param(b"\x30\x84\x00\x00\xff\xff" * 10_000, id="10,000 deep, long lengths"),
        pytest.param(signed_data(certificates=b"\x30\x00" * 30_000), id="30,000 empty certificates"),
        pytest.param(signed_data(attributes=b"\x30\x00" * 30_000), id="30,000 empty attributes"),
        pytest.param(signed_data(attributes=ATTRIBUTE * 900), id="900 attributes of long OIDs"),
        pytest.param(signed_data(content=b"\x30\x80" * 30_000), id="deep content"),
        pytest.param(signed_data(certificates=b"\x30\x80" * 15_000 + b"\0\0" * 15_000), id="deep certificate"),
        pytest.param(b"\x24\x80" + b"\x04\x00" * 30_000 + b"\0\0", id="30,000 segments"),
        pytest.param(b"\x1f" + b"\xff" * 60_000, id="endless tag"),
        pytest.param(b"\x30\xff" + b"\xff" * 60_000, id="endless length"),
        pytest.param(b"\x00" * 65_536, id="zeros"),
    ],
)
def test_built_to_hurt(data: bytes, ra: RaIdentity) -> None:
    assert refused_cheaply(lambda: walk(data, ra), "hostile message")


def test_certificates_built_to_hurt(ra: RaIdentity) -> None:
    """As many and as large certificates as a message may hold, none of them the signer's."""
    piece = ra.certificate.der
    data = signed_data(
        certificates=piece * cms.MAX_CERTIFICATES, attributes=cms.attribute("2.16.840.1.113733.1.9.7", b"\x13\x01T")
    )
    assert refused_cheaply(lambda: decode_pki_message(data), "many certificates")


def test_recipients_built_to_hurt(ra: RaIdentity) -> None:
    public_key = ra.key.public_key()
    assert isinstance(public_key, RSAPublicKey)
    data = envelope.encrypt(b"\x30\x00", "aes-128-cbc", public_key, ra.signer.issuer_and_serial)
    head, (version, recipients, content) = data_parts(data)
    many = der.sequence(version, der.tlv(der.SET, der.content(der.SET, recipients) * 60), content)
    assert refused_cheaply(lambda: envelope.parse_enveloped_data(der.sequence(head, der.context(0, many))), "many recipients")


MARKS = "\u0344" * 900 + "\u0334" * 900
"""Combining characters in no order: to order them takes the square of their number."""


def hostile_name(start: str) -> bytes:
    """A name of 7 KB in two attributes."""
    return der.sequence(*(der.set_of(der.sequence(der.oid("2.5.4.3"), der.utf8_string(start + MARKS))) for _ in range(2)))


def hostile_certificate(key: PrivateKey, key_id: bytes) -> bytes:
    """A certificate with two such names, and a subjectKeyIdentifier that begins as another does."""
    algorithm, spki = signature_algorithm(key), public_key_der(key)
    times = (der.time(datetime(year, 1, 1, tzinfo=UTC)) for year in (2026, 2027))
    key_ids = encode_extension(SUBJECT_KEY_IDENTIFIER, False, der.octet_string(key_id + b"?"))
    tbs = der.sequence(
        der.context(0, der.integer(2)),
        der.integer(1),
        algorithm,
        hostile_name("issuer"),
        der.sequence(*times),
        hostile_name("subject"),
        spki,
        der.context(3, der.sequence(key_ids)),
    )
    return der.sequence(tbs, algorithm, der.bit_string(sign(key, tbs)))


@pytest.mark.parametrize("by_key_id", [False, True], ids=["issuer and serial", "key identifier"])
def test_names_of_foreign_certificates(by_key_id: bool, ra: RaIdentity) -> None:
    """They stand before the signer's; a stranger needs no key for them."""
    key_id = ra.certificate.subject_key_id or b""
    foreign = hostile_certificate(generate_private_key("ec-p256"), key_id)
    sid = der.context(0, key_id, constructed=False) if by_key_id else ra.signer.issuer_and_serial
    signer = cms.Signer(foreign * 3 + ra.certificate.der, sid, ra.key)
    data = cms.sign_data(b"", signer, "sha256", (cms.attribute("2.16.840.1.113733.1.9.7", b"\x13\x01T"),))
    assert len(data) > 43_000
    assert not refused_cheaply(lambda: decode_pki_message(data), "foreign certificates")


def test_names_of_the_signer(ra: RaIdentity) -> None:
    key = generate_private_key("ec-p256")
    signer = cms.Signer.create(hostile_certificate(key, b""), key)
    data = cms.sign_data(b"", signer, "sha256", (cms.attribute("2.16.840.1.113733.1.9.7", b"\x13\x01T"),))
    assert refused_cheaply(lambda: walk(data, ra), "a hostile signer")


@pytest.mark.parametrize("broken", [False, True], ids=["signed", "broken signature"])
@pytest.mark.parametrize("repeats", [7, 16], ids=["long", "many"])
def test_names_of_recipients(repeats: int, broken: bool, ra: RaIdentity) -> None:
    """They have the serial number of the RA's certificate."""
    public_key = ra.key.public_key()
    assert isinstance(public_key, RSAPublicKey)
    issuer = hostile_name("issuer") if repeats == 7 else short_hostile_name(ra)
    rid = der.sequence(issuer, der.integer(ra.certificate.serial))
    data = envelope.encrypt(b"\x30\x00", "aes-128-cbc", public_key, rid)
    head, (version, recipients, content) = data_parts(data)
    many = der.sequence(version, der.tlv(der.SET, der.content(der.SET, recipients) * repeats), content)
    content_info = der.sequence(head, der.context(0, many))
    key = generate_private_key("rsa-2048")
    subject = parse_name_text("CN=device").der
    signer = self_signed_signer(key, subject, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    attributes = (
        cms.attribute("2.16.840.1.113733.1.9.2", b"\x13\x0219"),
        cms.attribute("2.16.840.1.113733.1.9.7", b"\x13\x01T"),
    )
    message = cms.sign_data(content_info, signer, "sha256", attributes)
    message = message[:-1] + bytes((message[-1] ^ broken,))

    def work() -> None:
        decoded_message = decode_pki_message(message)
        ra.signer_for(decoded_message.recipients)
        walk(message, ra)

    assert refused_cheaply(work, "hostile recipients")


def short_hostile_name(ra: RaIdentity) -> bytes:
    """The longest name that is compared with the issuer's at all."""
    room = MAX_NAME_GROWTH * len(ra.certificate.issuer_der) - 20
    return der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.utf8_string("\ufdfa" * (room // 3)))))


def data_parts(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return a ContentInfo's type, and the members of what it holds."""
    whole = der.content(der.SEQUENCE, data)
    (_, start, _, end), (_, _, inner, _) = der.elements(whole)
    body = der.content(der.SEQUENCE, whole[inner:])
    return whole[start:end], tuple(body[b:e] for _, b, _, e in der.elements(body))


def test_refused_messages_leave_no_memory_behind(ra: RaIdentity) -> None:
    """Growth stays under 1 MB for 10,000 messages; caches are full before the measurement."""
    mutators = [Mutator(path.read_bytes(), "memory" + path.name) for path in REQUESTS]

    def run(count: int) -> None:
        for mutator in mutators:
            for data in mutator.mutations(count):
                refused_cheaply(lambda d=data: decode_pki_message(d), "message")  # type: ignore[misc]

    run(200)
    tracemalloc.start()
    try:
        run(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        run(100)
        gc.collect()
        growth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    messages = 100 * len(mutators)
    assert growth < 1_000_000 * messages / 10_000, f"{growth} bytes for {messages} messages"
