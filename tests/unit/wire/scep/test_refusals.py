"""What must not pass: broken structure and signatures that do not bind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms, der
from gateway.pki.algorithms import digest_oid
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, sign, signature_algorithm
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import ScepRequest, decode_cert_rep, encode_request, self_signed_signer
from gateway.wire.scep.pkimessage import (
    Algorithms,
    FailInfo,
    MessageType,
    PkiStatus,
    RaIdentity,
    decode_pki_message,
    decode_request,
    encode_failure,
    verify_signature,
)
from tests.unit.wire.scep.identities import NOW

SUBJECT = parse_name_text("CN=device-1").der
PKCS_REQ = der.printable_string("19")


@dataclass(frozen=True)
class Craft:
    """A SignedData with a place to break each of its rules; the defaults break none."""

    signer: cms.Signer
    content: bytes = b"content"
    signed_content_type: str = asn1_cms.OID_DATA
    content_type: str = asn1_cms.OID_DATA
    digest: str = "sha256"
    signature_digest: str = ""
    extra: tuple[bytes, ...] = (
        cms.attribute(asn1.OID_MESSAGE_TYPE, PKCS_REQ),
        cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T-1")),
        cms.attribute(asn1.OID_SENDER_NONCE, der.octet_string(b"n" * 16)),
    )
    without: str = ""
    signers: int = 1
    shuffled: bool = False
    sign_sorted: bool = True
    certificates: tuple[bytes, ...] | None = None
    digest_of: bytes | None = None
    edit: Callable[[bytes], bytes] = field(default=lambda message: message)

    def attributes(self) -> list[bytes]:
        digest = hashlib.new(self.digest, self.content if self.digest_of is None else self.digest_of).digest()
        found = [
            cms.attribute(asn1_cms.OID_CONTENT_TYPE, der.oid(self.signed_content_type)),
            cms.attribute(asn1_cms.OID_MESSAGE_DIGEST, der.octet_string(digest)),
            *self.extra,
        ]
        return [a for a in found if not (self.without and der.oid(self.without) in a)]

    def signer_info(self) -> bytes:
        attributes = sorted(self.attributes(), reverse=self.shuffled)
        to_be_signed = der.tlv(der.SET, *(sorted(attributes) if self.sign_sorted else attributes))
        if not attributes:
            to_be_signed = self.content
        return der.sequence(
            der.integer(1),
            self.signer.issuer_and_serial,
            der.sequence(der.oid(digest_oid(self.digest))),
            der.context(0, *attributes) if attributes else b"",
            signature_algorithm(self.signer.key, self.signature_digest or self.digest),
            der.octet_string(sign(self.signer.key, to_be_signed, self.signature_digest or self.digest)),
        )

    def build(self) -> bytes:
        certificates = (self.signer.certificate,) if self.certificates is None else self.certificates
        message = der.sequence(
            der.oid(asn1_cms.OID_SIGNED_DATA),
            der.context(
                0,
                der.sequence(
                    der.integer(1),
                    der.set_of(der.sequence(der.oid(digest_oid(self.digest)))),
                    der.sequence(der.oid(self.content_type), der.context(0, der.octet_string(self.content))),
                    der.context(0, *certificates),
                    der.set_of(*[self.signer_info()] * self.signers),
                ),
            ),
        )
        return self.edit(message)


def test_the_craft_itself_passes(client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(Craft(client).build())
    verify_signature(message, ra, NOW)
    assert (message.message_type, message.transaction_id, message.operation) == (MessageType.PKCS_REQ, "T-1", "PKCSReq")


ABSENT_CONTENT = der.context(0, der.octet_string(b"content"))
STRUCTURE = [
    pytest.param({"extra": (), "without": "1.2.840.113549.1.9"}, id="no signed attributes at all"),
    pytest.param({"extra": ()}, id="no SCEP attributes"),
    pytest.param({"without": asn1.OID_TRANSACTION_ID}, id="no transactionID"),
    pytest.param({"signers": 0}, id="no signer"),
    pytest.param({"signers": 2}, id="two signers"),
    pytest.param({"certificates": ()}, id="no certificate"),
    pytest.param({"certificates": (b"\x30\x03\x02\x01\x01",)}, id="a certificate that is none"),
    pytest.param({"edit": lambda m: m + b"\0"}, id="trailing byte"),
    pytest.param({"edit": lambda m: m + m}, id="two messages"),
    pytest.param({"edit": lambda m: m[:-1]}, id="cut short"),
    pytest.param({"edit": lambda m: b""}, id="empty"),
    pytest.param({"edit": lambda m: m.replace(ABSENT_CONTENT, b"\xa0\x00", 1)}, id="lengths that do not add up"),
]


@pytest.mark.parametrize("broken", STRUCTURE)
def test_no_answer_can_be_made(broken: dict[str, Any], client: cms.Signer) -> None:
    with pytest.raises(MalformedMessage):
        decode_pki_message(replace(Craft(client), **broken).build())


def with_attribute(oid: str, *values: bytes) -> dict[str, Any]:
    return {"extra": (*Craft.extra, der.sequence(der.oid(oid), der.tlv(der.SET, *values)))}


def replaced(oid: str, *values: bytes) -> dict[str, Any]:
    kept = tuple(a for a in Craft.extra if der.oid(oid) not in a)
    return {"extra": (*kept, der.sequence(der.oid(oid), der.tlv(der.SET, *values)))}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(with_attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T-2")), id="transactionID twice"),
        pytest.param(with_attribute(asn1.OID_MESSAGE_TYPE, PKCS_REQ), id="messageType twice"),
        pytest.param(with_attribute(asn1_cms.OID_CONTENT_TYPE, der.oid(asn1_cms.OID_DATA)), id="contentType twice"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, *[der.printable_string("T")] * 2), id="two transactionIDs"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID), id="transactionID without value"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, der.printable_string("")), id="empty transactionID"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, der.printable_string("T" * 257)), id="long transactionID"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, der.utf8_string("a\nb")), id="transactionID breaks log lines"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, der.tlv(0x0C, b"\xff")), id="transactionID is not UTF-8"),
        pytest.param(replaced(asn1.OID_TRANSACTION_ID, der.octet_string(b"T")), id="transactionID is no text"),
        pytest.param(
            {"extra": (*Craft.extra, *(cms.attribute(f"1.2.3.{i}", der.null()) for i in range(40)))}, id="many attributes"
        ),
    ],
)
def test_attributes_that_could_mean_two_things(broken: dict[str, Any], client: cms.Signer) -> None:
    with pytest.raises(MalformedMessage):
        decode_pki_message(replace(Craft(client), **broken).build())


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"content_type": asn1_cms.OID_SIGNED_DATA}, id="eContentType is signedData"),
        pytest.param({"content_type": asn1_cms.OID_ENVELOPED_DATA}, id="eContentType is envelopedData"),
        pytest.param(replaced(asn1.OID_SENDER_NONCE, der.octet_string(b"n" * 65)), id="long nonce"),
        pytest.param(replaced(asn1.OID_SENDER_NONCE, der.printable_string("n")), id="nonce is text"),
    ],
)
def test_what_can_only_be_answered(broken: dict[str, Any], client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(replace(Craft(client), **broken).build())
    with pytest.raises(MalformedMessage) as refused:
        verify_signature(message, ra, NOW)
    with pytest.raises(MalformedMessage):
        decode_request(message, replace(ra, pairs=()))
    reply = encode_failure(message, ra, refused.value.reason, refused.value.detail)
    request = ScepRequest(b"", message.transaction_id, message.sender_nonce)
    answer = decode_cert_rep(reply, request, client, ra.certificate.der)
    assert (answer.status, answer.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert answer.fail_info_text


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.integer(17)), MessageType.RENEWAL_REQ, id="INTEGER"),
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.utf8_string("20")), MessageType.CERT_POLL, id="UTF8String"),
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.printable_string("18")), None, id="UpdateReq"),
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.printable_string("0")), None, id="reserved"),
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.printable_string("nineteen")), None, id="words"),
        pytest.param(replaced(asn1.OID_MESSAGE_TYPE, der.tlv(0x13, "\uff11\uff19".encode())), None, id="full-width digits"),
        pytest.param({"without": asn1.OID_MESSAGE_TYPE}, None, id="absent"),
    ],
)
def test_message_types(accepted: dict[str, Any], expected: MessageType | None, client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(replace(Craft(client), **accepted).build())
    verify_signature(message, ra, NOW)
    assert message.message_type is expected


@pytest.mark.parametrize("kind", [18, 0, 3, 99, 255])
def test_types_that_we_do_not_serve_are_refused_before_any_decryption(kind: int, client: cms.Signer, ra: RaIdentity) -> None:
    csr = build_csr(generate_private_key("ec-p256"), SUBJECT)
    request = encode_request(csr, client, ra.certificate.der, transaction="T", message_type=kind)  # type: ignore[arg-type]
    with pytest.raises(Rejection) as refused:
        decode_request(decode_pki_message(request.message), replace(ra, pairs=()))
    assert refused.value.reason is Reason.UNSUPPORTED_MESSAGE


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"digest_of": b"other"}, id="messageDigest of other content"),
        pytest.param({"without": asn1_cms.OID_MESSAGE_DIGEST}, id="no messageDigest"),
        pytest.param({"without": asn1_cms.OID_CONTENT_TYPE}, id="no contentType"),
        pytest.param({"signed_content_type": asn1_cms.OID_SIGNED_DATA}, id="contentType says signedData"),
        pytest.param({"edit": lambda m: m[:-1] + bytes((m[-1] ^ 1,))}, id="signature changed"),
        pytest.param({"edit": lambda m: m.replace(b"\x13\x03T-1", b"\x13\x03T-2")}, id="transactionID changed"),
        pytest.param({"edit": lambda m: m.replace(b"content", b"CONTENT")}, id="content changed"),
    ],
)
def test_signatures_that_do_not_bind(broken: dict[str, Any], client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(replace(Craft(client), **broken).build())
    with pytest.raises(Rejection) as refused:
        verify_signature(message, ra, NOW)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("sign_sorted", [True, False], ids=["signed in DER order", "signed as sent"])
def test_unordered_attributes_verify(sign_sorted: bool, client: cms.Signer, ra: RaIdentity) -> None:
    verify_signature(decode_pki_message(Craft(client, shuffled=True, sign_sorted=sign_sorted).build()), ra, NOW)


def test_signature_by_another_key(client: cms.Signer, other_key: RSAPrivateKey, ra: RaIdentity) -> None:
    thief = replace(client, key=other_key)
    with pytest.raises(Rejection) as refused:
        verify_signature(decode_pki_message(Craft(thief).build()), ra, NOW)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_signer_is_found_by_identifier_not_by_position(client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(Craft(client, certificates=(ra.certificate.der, *ra.chain, client.certificate)).build())
    verify_signature(message, ra, NOW)
    assert message.signer.der == client.certificate


def timed(*values: bytes) -> dict[str, Any]:
    return with_attribute(asn1.OID_SIGNING_TIME, *values)


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        pytest.param(timed(der.time(NOW)), None, id="now"),
        pytest.param(timed(der.time(NOW - timedelta(minutes=5))), None, id="five minutes late"),
        pytest.param(timed(der.time(NOW + timedelta(minutes=5))), None, id="five minutes early"),
        pytest.param(timed(der.generalized_time(NOW)), None, id="GeneralizedTime"),
        pytest.param({}, None, id="absent"),
        pytest.param(timed(der.time(NOW - timedelta(minutes=5, seconds=1))), Reason.BAD_TIME, id="too late"),
        pytest.param(timed(der.time(NOW + timedelta(minutes=5, seconds=1))), Reason.BAD_TIME, id="too early"),
        pytest.param(timed(der.time(datetime(1970, 1, 1, tzinfo=UTC))), Reason.BAD_TIME, id="1970"),
        pytest.param(timed(der.printable_string("now")), Reason.MALFORMED, id="no time"),
        pytest.param(timed(der.tlv(der.UTC_TIME, b"261332000000Z")), Reason.MALFORMED, id="month 13"),
        pytest.param(timed(der.time(NOW), der.time(NOW)), Reason.MALFORMED, id="two times"),
        pytest.param(timed(), Reason.MALFORMED, id="no value"),
    ],
)
def test_signing_time_is_judged_where_it_is_asked_for(
    attribute: dict[str, Any], reason: Reason | None, client: cms.Signer, ra: RaIdentity
) -> None:
    message = decode_pki_message(replace(Craft(client), **attribute).build())
    verify_signature(message, ra, NOW)
    strict = replace(ra, signing_time_skew=timedelta(minutes=5))
    if reason is None:
        verify_signature(message, strict, NOW)
        return
    with pytest.raises(Rejection) as refused:
        verify_signature(message, strict, NOW)
    assert refused.value.reason is reason


def test_the_time_is_believed_only_when_it_is_signed(client: cms.Signer, ra: RaIdentity) -> None:
    strict = replace(ra, signing_time_skew=timedelta(minutes=5))
    late = replace(Craft(client), **timed(der.time(NOW - timedelta(days=1))))
    message = decode_pki_message(replace(late, edit=lambda m: m[:-1] + bytes((m[-1] ^ 1,))).build())
    with pytest.raises(Rejection) as refused:
        verify_signature(message, strict, NOW)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_sha1_is_refused_with_the_reason(client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(Craft(client, digest="sha1").build())
    with pytest.raises(Rejection) as refused:
        verify_signature(message, ra, NOW)
    assert (refused.value.reason, "SHA-1" in refused.value.detail) == (Reason.UNSUPPORTED_ALGORITHM, True)


def test_md5_is_refused_with_the_reason(client: cms.Signer, ra: RaIdentity) -> None:
    message = decode_pki_message(Craft(client, digest="md5").build())
    assert message.digest == "md5"
    with pytest.raises(Rejection) as refused:
        verify_signature(message, ra, NOW)
    assert (refused.value.reason, "MD5" in refused.value.detail) == (Reason.UNSUPPORTED_ALGORITHM, True)


@pytest.mark.parametrize(
    ("digest", "signature_digest", "legacy"),
    [
        pytest.param("sha256", "md5", ("md5",), id="attributes under MD5"),
        pytest.param("md5", "sha256", ("md5",), id="content under MD5"),
        pytest.param("sha256", "sha1", ("sha1",), id="attributes under SHA-1"),
        pytest.param("sha1", "sha256", ("sha1",), id="content under SHA-1"),
        pytest.param("sha1", "md5", ("md5", "sha1"), id="both"),
        pytest.param("sha256", "sha512", (), id="neither"),
    ],
)
def test_each_of_both_digests_needs_its_flag(
    digest: str, signature_digest: str, legacy: tuple[str, ...], client: cms.Signer, ra: RaIdentity
) -> None:
    message = decode_pki_message(Craft(client, digest=digest, signature_digest=signature_digest).build())
    assert message.legacy == legacy
    everything = {"md5": True, "sha1": True, "triple_des": True, "single_des": True}
    verify_signature(message, replace(ra, algorithms=Algorithms(**everything)), NOW)
    for name in legacy:
        with pytest.raises(Rejection) as refused:
            verify_signature(message, replace(ra, algorithms=Algorithms(**everything | {name: False})), NOW)
        assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_unknown_digest_can_be_answered_and_is_refused(client: cms.Signer, ra: RaIdentity) -> None:
    known, unknown = der.oid(digest_oid("sha256")), der.oid("2.16.840.1.101.3.4.2.99")
    message = decode_pki_message(Craft(client, edit=lambda m: m.replace(der.sequence(known), der.sequence(unknown))).build())
    assert message.digest == "2.16.840.1.101.3.4.2.99"
    with pytest.raises(Rejection) as refused:
        verify_signature(message, ra, NOW)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_ec_signer_is_refused_before_anything_is_issued(client: cms.Signer, ra: RaIdentity) -> None:
    signer = self_signed_signer(
        generate_private_key("ec-p256"), SUBJECT, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    )
    with pytest.raises(Rejection, match="ec") as refused:
        verify_signature(decode_pki_message(Craft(signer).build()), ra, NOW)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
