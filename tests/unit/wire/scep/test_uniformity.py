"""Whatever is wrong behind the signature, the answer is the same to the byte: there is no oracle."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType, PkiStatus
from gateway.errors import Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms
from gateway.pki.keys import generate_private_key
from gateway.wire.scep.client import self_signed_signer
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.pkimessage import CertificateQuery, decode_pki_message, decode_request, encode_failure
from tests.unit.wire.scep.faults import PASSWORD, SUBJECT, Fault, Transport, faults, plain_of, seal, signed_message

GOOD = Fault("nothing wrong")
VARIES = frozenset({asn1.OID_SENDER_NONCE})


@pytest.fixture(scope="module")
def password_ra(ra: RaIdentity) -> RaIdentity:
    """The same RA, which serves devices whose keys cannot encrypt too."""
    return replace(ra, password=PASSWORD)


@pytest.fixture(scope="module")
def elliptic() -> cms.Signer:
    """A device whose key cannot encrypt."""
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
    return self_signed_signer(generate_private_key("ec-p256"), SUBJECT, begin, end)


@pytest.fixture
def signers(client: cms.Signer, elliptic: cms.Signer) -> dict[Transport, cms.Signer]:
    return {Transport.RSA: client, Transport.PASSWORD: elliptic}


def rows(*kinds: MessageType) -> list[Any]:
    return [
        pytest.param(transport, kind, fault, id=f"{transport.value}-{kind.name.lower()}-{fault.name}")
        for transport in Transport
        for kind in kinds
        for fault in faults(transport, kind)
    ]


def refuse(content: bytes, kind: MessageType, signer: cms.Signer, ra: RaIdentity) -> tuple[dict[str, tuple[bytes, ...]], int]:
    """Decode a message that must be refused; returns the signed attributes of its answer, and how long that is."""
    message = decode_pki_message(signed_message(content, kind, signer))
    with pytest.raises(Rejection) as refused:
        decode_request(message, ra)
    reply = encode_failure(message, ra, refused.value.reason, refused.value.detail)
    signed = cms.parse_signed_data(reply)
    [info] = signed.signers
    assert signed.content == b""
    assert info.attributes[asn1.OID_PKI_STATUS] == (b"\x13\x01" + str(PkiStatus.FAILURE.value).encode(),)
    return {oid: values for oid, values in info.attributes.items() if oid not in VARIES}, len(reply)


@pytest.mark.parametrize(("transport", "kind", "fault"), rows(MessageType.PKCS_REQ, MessageType.RENEWAL_REQ))
def test_every_fault_of_a_request_has_one_answer(
    transport: Transport, kind: MessageType, fault: Fault, signers: dict[Transport, cms.Signer], password_ra: RaIdentity
) -> None:
    signer = signers[transport]
    plain = plain_of(MessageType.PKCS_REQ, password_ra)
    answer = refuse(seal(fault, transport, password_ra, plain), kind, signer, password_ra)
    model = Fault("another key", content_key=lambda key: bytes(len(key)))
    assert answer == refuse(seal(model, transport, password_ra, plain), kind, signer, password_ra)
    assert answer[0][asn1.OID_FAIL_INFO] == (b"\x13\x011",), "badMessageCheck"


@pytest.mark.parametrize(("transport", "kind", "fault"), rows(MessageType.GET_CERT, MessageType.GET_CRL))
def test_every_fault_of_a_query_asks_for_nothing(
    transport: Transport, kind: MessageType, fault: Fault, signers: dict[Transport, cms.Signer], password_ra: RaIdentity
) -> None:
    content = seal(fault, transport, password_ra, plain_of(kind, password_ra))
    message = decode_pki_message(signed_message(content, kind, signers[transport]))
    assert decode_request(message, password_ra) == CertificateQuery(b"", 0)


@pytest.mark.parametrize("kind", [MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.GET_CERT, MessageType.GET_CRL])
@pytest.mark.parametrize("transport", list(Transport))
def test_the_table_breaks_messages_that_are_good(
    transport: Transport, kind: MessageType, signers: dict[Transport, cms.Signer], password_ra: RaIdentity
) -> None:
    plain = plain_of(MessageType.PKCS_REQ if kind is MessageType.RENEWAL_REQ else kind, password_ra)
    message = decode_pki_message(signed_message(seal(GOOD, transport, password_ra, plain), kind, signers[transport]))
    found = decode_request(message, password_ra)
    if isinstance(found, CertificateRequest):
        assert found.der == plain
    else:
        assert found == CertificateQuery(password_ra.certificate.issuer_der, password_ra.certificate.serial)


@pytest.mark.parametrize(("transport", "kind", "fault"), rows(MessageType.PKCS_REQ, MessageType.GET_CERT))
def test_one_derivation_for_each_message(
    transport: Transport,
    kind: MessageType,
    fault: Fault,
    signers: dict[Transport, cms.Signer],
    password_ra: RaIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derive, derived = hashlib.pbkdf2_hmac, []

    def counted(*arguments: Any) -> bytes:
        derived.append(arguments)
        return derive(*arguments)

    content = seal(fault, transport, password_ra, plain_of(kind, password_ra))
    message = decode_pki_message(signed_message(content, kind, signers[transport]))
    monkeypatch.setattr("hashlib.pbkdf2_hmac", counted)
    with suppress(Rejection):
        decode_request(message, password_ra)
    assert len(derived) == (transport is Transport.PASSWORD)


def test_without_a_password_an_envelope_under_one_is_refused_alike(
    ra: RaIdentity, client: cms.Signer, password_ra: RaIdentity
) -> None:
    """A profile that serves no such devices says the same of every password."""
    plain = plain_of(MessageType.PKCS_REQ, ra)
    other = Fault("another password", password=b"another password of theirs")
    answers = [refuse(seal(fault, Transport.PASSWORD, ra, plain), MessageType.PKCS_REQ, client, ra) for fault in (GOOD, other)]
    assert answers[0] == answers[1]
