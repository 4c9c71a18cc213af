"""PKIMessages: headers and bodies that clients may send, and what becomes of those that they may not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc9810

from gateway.asn1 import cmp as asn1
from gateway.cmp import (
    BodyType,
    CertStatus,
    ClientError,
    Confirmation,
    Enrollment,
    GeneralInfo,
    Message,
    Nested,
    Poll,
    Revocations,
)
from gateway.errors import MalformedMessage, Reason
from gateway.model import RevocationReason
from gateway.pki import der, extensions
from gateway.pki.crmf_writer import encode_cert_template
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.cmp.messages import MAX_MESSAGE_BYTES, decode_message, decode_parts

NAME = der.context(4, parse_name_text("CN=device").der)
CA = der.context(4, parse_name_text("CN=ca").der)
NO_NAME = der.context(4, der.sequence())
ALGORITHM = der.sequence(der.oid("1.2.840.10045.4.3.2"))
TIME = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
CONFIRM = der.context(19, der.null())
GENM = der.context(21, der.sequence())
KEY = generate_private_key("ec-p256")


def header(*fields: bytes, pvno: int = 2, sender: bytes = NAME, recipient: bytes = CA) -> bytes:
    return der.sequence(der.integer(pvno), sender, recipient, *fields)


def octets(number: int, value: bytes) -> bytes:
    return der.context(number, der.octet_string(value))


def info(oid: str, value: bytes = b"") -> bytes:
    return der.sequence(der.oid(oid), value)


def general(*infos: bytes) -> bytes:
    return der.context(8, der.sequence(*infos))


def read(header: bytes, body: bytes = GENM, *rest: bytes) -> Message:
    """Read a message that an independent library can read, too."""
    data = der.sequence(header, body, *rest)
    value, left = decoder.decode(data, asn1Spec=rfc9810.PKIMessage())
    assert left == b""
    assert encoder.encode(value) == data
    return decode_message(data)


def body_of(type: BodyType, *content: bytes) -> Message:
    return read(header(), der.context(type, der.sequence(*content)))


# Headers


def test_every_field_of_a_header() -> None:
    message = read(
        header(
            der.context(0, der.generalized_time(TIME)),
            der.context(1, ALGORITHM),
            *(octets(n, bytes([n]) * 16) for n in (2, 3, 4, 5, 6)),
            der.context(7, der.sequence(der.utf8_string("hello"))),
            general(
                info(asn1.OID_IMPLICIT_CONFIRM, der.null()),
                info(asn1.OID_CONFIRM_WAIT_TIME, der.generalized_time(TIME)),
                info(asn1.OID_CERT_PROFILE, der.sequence(der.utf8_string("tls"), der.utf8_string("vpn"))),
                info("1.2.3"),
            ),
            pvno=3,
        ),
        GENM,
        der.context(0, der.bit_string(b"signature")),
    )
    assert message.body_problem is None
    said = message.header
    assert (said.pvno, said.sender, said.recipient, said.message_time) == (3, NAME, CA, TIME)
    assert [said.sender_kid, said.transaction_id, said.sender_nonce, said.recipient_nonce] == [
        bytes([n]) * 16 for n in (2, 4, 5, 6)
    ]
    assert (said.implicit_confirm, said.confirm_wait_time, said.cert_profiles) == (True, TIME, ("tls", "vpn"))
    assert said.general_info[-1] == GeneralInfo("1.2.3", None)
    assert message.protection is not None
    assert (message.protection.algorithm, message.protection.value) == (ALGORITHM, b"signature")


def test_a_header_with_nothing_that_may_be_absent() -> None:
    said = read(header(sender=NO_NAME)).header
    assert said.sender_name is not None
    assert said.sender_name.rdns == ()
    assert (said.message_time, said.transaction_id, said.sender_nonce, said.implicit_confirm) == (None, None, None, None)
    assert (said.cert_profiles, said.general_info) == ((), ())


def test_a_sender_that_is_no_directory_name() -> None:
    said = read(header(sender=der.tlv(0x82, b"device.example"))).header
    assert (said.sender, said.sender_name) == (der.tlv(0x82, b"device.example"), None)


def test_what_is_protected_is_header_and_body_as_they_came() -> None:
    written = header(octets(4, b"t" * 16))
    parts = decode_parts(der.sequence(written, CONFIRM))
    assert parts.covered == der.sequence(written, CONFIRM)
    message = read(written)
    assert message.digest == hashlib.sha256(der.sequence(written, GENM)).digest()


def test_indefinite_lengths_are_read() -> None:
    definite = decode_message(der.sequence(header(), GENM))
    assert decode_message(b"\x30\x80" + header() + GENM + b"\x00\x00") == definite


FAULTS = [
    pytest.param(header(der.context(0, der.time(TIME))), Reason.BAD_TIME, id="messageTime that is a UTCTime"),
    pytest.param(header(der.context(0, der.tlv(der.GENERALIZED_TIME, b"soon"))), Reason.BAD_TIME, id="messageTime that is none"),
    pytest.param(
        header(general(info(asn1.OID_CONFIRM_WAIT_TIME, der.time(TIME)))),
        Reason.MALFORMED,
        id="confirmWaitTime that is a UTCTime",
    ),
    pytest.param(header(general(info(asn1.OID_CONFIRM_WAIT_TIME))), Reason.MALFORMED, id="confirmWaitTime without a time"),
    pytest.param(
        header(general(info(asn1.OID_CERT_PROFILE, der.sequence()))), Reason.MALFORMED, id="certProfile that names none"
    ),
    pytest.param(
        header(general(info(asn1.OID_CERT_PROFILE, der.sequence(der.octet_string(b"x"))))),
        Reason.MALFORMED,
        id="certProfile that is no text",
    ),
    pytest.param(
        header(general(*[info(asn1.OID_IMPLICIT_CONFIRM, der.null())] * 2)), Reason.MALFORMED, id="implicitConfirm twice"
    ),
    pytest.param(
        header(general(der.sequence(der.oid("1.2.3"), der.null(), der.null()))), Reason.MALFORMED, id="two values of one type"
    ),
    pytest.param(header(general(*[info("1.2.3")] * 65)), Reason.MALFORMED, id="generalInfo without end"),
    pytest.param(header(der.context(1, ALGORITHM)), Reason.BAD_MESSAGE_CHECK, id="an algorithm and no protection"),
]


@pytest.mark.parametrize(("written", "reason"), FAULTS)
def test_faults_that_can_be_answered(written: bytes, reason: Reason) -> None:
    """The header is whole enough to say so in CMP's words."""
    message = decode_message(der.sequence(written, GENM))
    assert (message.body_problem, message.body) == (reason, None)
    assert message.body_text
    assert message.header.sender == NAME


def test_protection_without_an_algorithm_protects_nothing() -> None:
    message = decode_message(der.sequence(header(), GENM, der.context(0, der.bit_string(b"x"))))
    assert (message.protection, message.body_problem) == (None, Reason.BAD_MESSAGE_CHECK)


def test_implicit_confirmation_with_another_value_than_null() -> None:
    assert read(header(general(info(asn1.OID_IMPLICIT_CONFIRM, der.boolean(True))))).header.implicit_confirm is False
    assert read(header(general(info(asn1.OID_IMPLICIT_CONFIRM)))).header.implicit_confirm is False


UNREADABLE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"hello, this is no DER", id="text"),
    pytest.param(der.sequence(), id="an empty message"),
    pytest.param(der.sequence(header()), id="no body"),
    pytest.param(der.sequence(GENM, header()), id="a body before the header"),
    pytest.param(der.sequence(header(), der.context(27, der.null())), id="a body of a type that does not exist"),
    pytest.param(der.sequence(header(), GENM, der.context(2, der.null())), id="a third member"),
    pytest.param(
        der.sequence(header(), GENM, der.context(1, der.sequence()), der.context(0, der.bit_string(b""))), id="out of order"
    ),
    pytest.param(der.sequence(header(), GENM) + b"\x00", id="bytes behind it"),
    pytest.param(der.sequence(header(), GENM)[:-1], id="its end cut off"),
    pytest.param(der.sequence(header(), GENM, der.context(0, der.octet_string(b""))), id="protection that is no BIT STRING"),
    pytest.param(der.sequence(header(), GENM, der.context(0, der.bit_string(b"\x80", 7))), id="protection of one bit"),
    pytest.param(der.sequence(header(), GENM, der.context(1, der.sequence(der.null()))), id="extraCerts that are none"),
    pytest.param(der.sequence(header(), GENM, der.context(1, der.sequence(*[der.sequence()] * 33))), id="extraCerts without end"),
    pytest.param(der.sequence(der.sequence(der.integer(2), NAME), GENM), id="no recipient"),
    pytest.param(der.sequence(header(pvno=1 << 40), GENM), id="a version without end"),
    pytest.param(der.sequence(header(sender=der.null()), GENM), id="a sender that is no GeneralName"),
    pytest.param(der.sequence(header(sender=der.context(4, der.null())), GENM), id="a sender that is no name"),
    pytest.param(der.sequence(header(octets(4, b"x" * 257)), GENM), id="a transactionID without end"),
    pytest.param(der.sequence(header(octets(5, b""), octets(4, b"")), GENM), id="fields of the header out of order"),
    pytest.param(der.sequence(header(octets(4, b""), octets(4, b"")), GENM), id="a field of the header twice"),
    pytest.param(der.sequence(header(der.context(9, der.null())), GENM), id="a field of the header that does not exist"),
    pytest.param(der.sequence(header(der.context(4, der.null())), GENM), id="a transactionID that is no OCTET STRING"),
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_what_cannot_be_answered(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(data)


def test_messages_that_are_too_large() -> None:
    with pytest.raises(MalformedMessage) as refused:
        decode_message(
            der.sequence(header(), GENM, der.context(1, der.sequence(der.sequence(der.octet_string(bytes(MAX_MESSAGE_BYTES))))))
        )
    assert refused.value.reason is Reason.TOO_LARGE


# Bodies

REQUEST = der.sequence(der.sequence(der.integer(0), encode_cert_template(public_key=public_key_der(KEY))))
SERVED = {
    BodyType.IR,
    BodyType.CR,
    BodyType.KUR,
    BodyType.P10CR,
    BodyType.CERTCONF,
    BodyType.RR,
    BodyType.POLLREQ,
    BodyType.GENM,
    BodyType.NESTED,
    BodyType.ERROR,
}


@pytest.mark.parametrize("type", sorted(set(BodyType) - SERVED), ids=lambda t: t.operation)
def test_bodies_that_no_client_sends(type: BodyType) -> None:
    message = decode_message(der.sequence(header(), der.context(type, der.sequence(b"\x05\x00"))))
    assert (message.type, message.body, message.body_problem) == (type, None, Reason.UNSUPPORTED_MESSAGE)
    assert type.operation in message.body_text


@pytest.mark.parametrize("type", sorted(SERVED), ids=lambda t: t.operation)
def test_broken_bodies_are_answered(type: BodyType) -> None:
    for content in (der.null(), der.sequence(der.null()), der.set_of(der.sequence(der.null())), b""):
        message = decode_message(der.sequence(header(), der.context(type, content)))
        assert (message.type, message.body) == (type, None), content
        assert message.body_problem in {Reason.MALFORMED, Reason.UNSUPPORTED_MESSAGE}


@pytest.mark.parametrize("type", [BodyType.IR, BodyType.CR, BodyType.KUR], ids=lambda t: t.operation)
def test_one_request_a_message(type: BodyType) -> None:
    message = body_of(type, REQUEST)
    assert isinstance(message.body, Enrollment)
    assert message.body.type is type
    for many in ((), (REQUEST, REQUEST)):
        refused = decode_message(der.sequence(header(), der.context(type, der.sequence(*many))))
        assert (refused.body, refused.body_problem) == (None, Reason.UNSUPPORTED_MESSAGE)


def test_a_pkcs10_that_another_key_signed() -> None:
    good = build_csr(KEY, parse_name_text("CN=device").der)
    broken = good[:-1] + bytes([good[-1] ^ 1])
    message = read(header(), der.context(BodyType.P10CR, broken))
    assert isinstance(message.body, Enrollment)
    assert message.body.requests[0].possession_problem
    fine = read(header(), der.context(BodyType.P10CR, good))
    assert isinstance(fine.body, Enrollment)
    assert fine.body.requests[0].possession_problem == ""


STATUS = {
    "accepted": (b"", True, ""),
    "accepted, it says": (der.sequence(der.integer(0)), True, ""),
    "granted with modifications": (der.sequence(der.integer(1)), True, ""),
    "rejected": (der.sequence(der.integer(2), der.sequence(der.utf8_string("no"), der.utf8_string("never"))), False, "no; never"),
    "rejected for a reason": (der.sequence(der.integer(2), der.bit_string(b"\x04", 2)), False, ""),
    "rejected in many words": (der.sequence(der.integer(2), der.sequence(der.utf8_string("x" * 5000))), False, "x" * 1024),
}


@pytest.mark.parametrize("name", STATUS)
def test_confirmations(name: str) -> None:
    written, accepted, text = STATUS[name]
    message = body_of(BodyType.CERTCONF, der.sequence(der.octet_string(b"h" * 32), der.integer(0), written))
    assert message.body == Confirmation((CertStatus(b"h" * 32, 0, accepted, text),))


def test_a_confirmation_that_names_its_digest() -> None:
    sha512 = der.sequence(der.oid("2.16.840.1.101.3.4.2.3"))
    message = body_of(BodyType.CERTCONF, der.sequence(der.octet_string(b"h" * 64), der.integer(0), der.context(0, sha512)))
    assert message.body == Confirmation((CertStatus(b"h" * 64, 0, digest_algorithm=sha512),))


def test_a_confirmation_of_nothing_rejects_what_was_issued() -> None:
    assert body_of(BodyType.CERTCONF).body == Confirmation(())


TARGET = encode_cert_template(serial=5, issuer=parse_name_text("CN=ca").der)
HOLD = extensions.encode_extension(extensions.CRL_REASON, False, bytes.fromhex("0a0106"))
REVOCATIONS = [
    pytest.param(b"", RevocationReason.UNSPECIFIED, False, id="no reason"),
    pytest.param(der.sequence(HOLD), RevocationReason.CERTIFICATE_HOLD, False, id="hold"),
    pytest.param(
        der.sequence(extensions.encode_extension(extensions.CRL_REASON, False, bytes.fromhex("0a0107"))),
        RevocationReason.UNSPECIFIED,
        True,
        id="a reason that does not exist",
    ),
    pytest.param(
        der.sequence(HOLD, extensions.encode_extension("1.2.3", True, b"")),
        RevocationReason.CERTIFICATE_HOLD,
        True,
        id="a critical extension that nobody understands",
    ),
    pytest.param(
        der.sequence(HOLD, extensions.encode_extension("1.2.3", False, b"")),
        RevocationReason.CERTIFICATE_HOLD,
        False,
        id="an extension that nobody understands",
    ),
]


@pytest.mark.parametrize(("entry", "reason", "problem"), REVOCATIONS)
def test_revocations(entry: bytes, reason: RevocationReason, problem: bool) -> None:
    message = body_of(BodyType.RR, der.sequence(TARGET, entry))
    assert isinstance(message.body, Revocations)
    [details] = message.body.details
    assert (details.serial, details.issuer, details.subject) == (5, parse_name_text("CN=ca").der, None)
    assert (details.reason, details.revive, bool(details.problem)) == (reason, False, problem)


def test_two_reasons_are_a_problem() -> None:
    message = body_of(BodyType.RR, der.sequence(TARGET, der.sequence(HOLD, HOLD)))
    assert isinstance(message.body, Revocations)
    assert message.body.details[0].problem == "an extension is repeated"


def test_the_version_of_a_revoked_certificate() -> None:
    message = body_of(BodyType.RR, der.sequence(der.sequence(b"\x80\x01\x00", b"\x81\x01\x05")))
    assert isinstance(message.body, Revocations)
    assert message.body.details[0].problem


def test_polls() -> None:
    assert body_of(BodyType.POLLREQ, der.sequence(der.integer(0)), der.sequence(der.integer(-1))).body == Poll((0, -1))


def test_nested_messages_as_they_came() -> None:
    inner = der.sequence(header(), GENM)
    assert body_of(BodyType.NESTED, inner, inner).body == Nested((inner, inner))


def test_errors_of_clients() -> None:
    status = der.sequence(der.integer(2), der.sequence(der.utf8_string("cannot")))
    message = body_of(BodyType.ERROR, status, der.integer(5), der.sequence(der.utf8_string("verify")))
    assert message.body == ClientError("cannot; verify")
