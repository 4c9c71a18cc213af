"""Requests of real clients: what we read in them, and that an independent library reads the same."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc9810

from gateway.cmp import BodyType, Confirmation, Enrollment, General, Message, Poll, Possession, Revocations
from gateway.model import RequestForm, RevocationReason, SanKind
from gateway.pki import der
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import parse_certificate
from gateway.pki.names import format_name, parse_name
from gateway.wire.cmp.messages import decode_message

TESTDATA = Path(__file__).parents[4] / "testdata" / "cmp"
RECORDED = sorted(TESTDATA.glob("*.der"))


def read(name: str) -> Message:
    return decode_message((TESTDATA / f"openssl-3.0-{name}.der").read_bytes())


def enrollment(name: str) -> Any:
    message = read(f"{name}-request")
    assert isinstance(message.body, Enrollment)
    return message.body.requests[0]


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_an_independent_library_reads_the_same_header(path: Path) -> None:
    data = path.read_bytes()
    ours, (theirs, rest) = decode_message(data), decoder.decode(data, asn1Spec=rfc9810.PKIMessage())
    header = theirs["header"]
    assert rest == b""
    assert ours.body_problem is None
    assert ours.header.pvno == int(header["pvno"])
    assert ours.header.sender == encoder.encode(header["sender"])
    assert ours.header.recipient == encoder.encode(header["recipient"])
    for mine, name in (
        (ours.header.sender_kid, "senderKID"),
        (ours.header.transaction_id, "transactionID"),
        (ours.header.sender_nonce, "senderNonce"),
        (ours.header.recipient_nonce, "recipNonce"),
    ):
        assert mine == (bytes(header[name]) if header[name].isValue else None), name
    assert ours.header.message_time == datetime.strptime(str(header["messageTime"]), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    infos = header["generalInfo"]
    assert [i.oid for i in ours.header.general_info] == ([str(i["infoType"]) for i in infos] if infos.isValue else [])


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_an_independent_library_says_what_is_protected(path: Path) -> None:
    data = path.read_bytes()
    ours, (theirs, _) = decode_message(data), decoder.decode(data, asn1Spec=rfc9810.PKIMessage())
    if not theirs["protection"].isValue:
        assert ours.protection is None
        return
    part = rfc9810.ProtectedPart()
    part["header"], part["body"] = theirs["header"], theirs["body"]
    assert ours.protection is not None
    assert ours.protection.covered == encoder.encode(part)
    tagged = encoder.encode(theirs["header"]["protectionAlg"])
    assert ours.protection.algorithm == der.content(0xA1, tagged)
    assert ours.protection.value == theirs["protection"].asOctets()
    certificates = theirs["extraCerts"]
    assert ours.extra_certs == (tuple(encoder.encode(c) for c in certificates) if certificates.isValue else ())


@pytest.mark.parametrize(
    "path", [p for p in RECORDED if "signature" in p.stem or p.stem.endswith("rr-request")], ids=lambda p: p.stem
)
def test_signed_messages_verify_by_their_first_certificate(path: Path) -> None:
    message = decode_message(path.read_bytes())
    assert message.protection is not None
    protection, signer = message.protection, parse_certificate(message.extra_certs[0])
    assert verify_signature(signer.public_key.der, protection.algorithm, protection.value, protection.covered) == "sha256"
    assert message.header.sender_kid == signer.subject_key_id
    assert message.header.sender_name == signer.subject


def test_an_initialization_request() -> None:
    message, asked = read("ir-pbm-implicit-request"), enrollment("ir-pbm-implicit")
    assert message.type is BodyType.IR
    assert message.header.sender_kid == b"1234"
    assert message.header.implicit_confirm is True
    assert message.header.sender_name is not None
    assert format_name(message.header.sender_name) == "O=Example,CN=device-1"
    assert (asked.cert_req_id, asked.possession, asked.possession_problem) == (0, Possession.SIGNATURE, "")
    assert asked.request.form is RequestForm.CRMF
    assert format_name(asked.request.subject) == "O=Example,CN=device-1"
    assert (asked.request.public_key.curve, asked.request.signature_digest) == ("P-256", "sha256")
    assert format_name(parse_name(asked.issuer)) == "CN=Golden Root"
    assert (asked.validity.not_after - asked.validity.not_before).days == 30
    assert asked.problem is None


def test_requested_extensions() -> None:
    request = enrollment("ir-extensions").request
    assert [(s.kind, s.value) for s in request.sans] == [
        (SanKind.DNS, "all.example"),
        (SanKind.IP, "192.0.2.7"),
        (SanKind.EMAIL, "a@example.com"),
        (SanKind.URI, "urn:x:y"),
    ]
    assert request.key_usage == {"digitalSignature", "keyAgreement"}
    assert request.ekus == ("1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1")
    assert [(e.oid, e.critical) for e in request.extensions] == [("1.2.3.4.5", False)]


PROOFS = [
    pytest.param("ir-signature", Possession.SIGNATURE, False, "sha256", id="a signature"),
    pytest.param("cr-rsa", Possession.SIGNATURE, False, "sha384", id="a signature of RSA"),
    pytest.param("ir-raverified", Possession.RA_VERIFIED, False, "none", id="raVerified"),
    pytest.param("ir-keyenc", Possession.KEY_ENCIPHERMENT, True, "none", id="an encrypted certificate"),
    pytest.param("ir-without-popo", Possession.NONE, False, "none", id="none"),
]


@pytest.mark.parametrize(("name", "possession", "encrypted", "digest"), PROOFS)
def test_proofs_of_possession(name: str, possession: Possession, encrypted: bool, digest: str) -> None:
    asked = enrollment(name)
    assert (asked.possession, asked.possession_problem) == (possession, "")
    assert asked.encrypted_certificate is encrypted
    assert asked.request.signature_digest == digest
    assert not asked.wants_key


def test_a_key_update_names_the_certificate_that_it_updates() -> None:
    asked = enrollment("kur")
    assert asked.old_cert_id.serial == 0x1234
    assert format_name(parse_name(asked.old_cert_id.issuer)) == "CN=Golden Root"


def test_a_pkcs10() -> None:
    asked = enrollment("p10cr")
    assert (asked.cert_req_id, asked.possession, asked.possession_problem) == (-1, Possession.SIGNATURE, "")
    assert asked.request.form is RequestForm.PKCS10


def test_the_same_request_has_the_same_digest() -> None:
    """Protection, time and nonces differ with each message, and the signature of the proof does."""
    first, second = enrollment("ir-pbm").request, enrollment("ir-polling").request
    assert first.digest == second.digest
    assert first.der != second.der


def test_confirmations() -> None:
    accepted, rejected, of_pkcs10 = (read(f"{n}-certconf").body for n in ("ir-pbm", "ir-rejected", "p10cr"))
    assert isinstance(accepted, Confirmation)
    assert isinstance(rejected, Confirmation)
    assert isinstance(of_pkcs10, Confirmation)
    assert (accepted.statuses[0].accepted, accepted.statuses[0].cert_req_id, len(accepted.statuses[0].cert_hash)) == (True, 0, 32)
    assert not rejected.statuses[0].accepted
    assert rejected.statuses[0].text == "public key in new certificate does not match our enrollment key"
    assert of_pkcs10.statuses[0].cert_req_id == -1


def test_revocations() -> None:
    plain, removal = read("rr-request").body, read("rr-remove-request").body
    assert isinstance(plain, Revocations)
    assert isinstance(removal, Revocations)
    [details], [taken_off] = plain.details, removal.details
    assert (details.serial, details.reason, details.revive, details.problem) == (0x1234, RevocationReason.SUPERSEDED, False, "")
    assert details.issuer is not None
    assert format_name(parse_name(details.issuer)) == "CN=Golden Root"
    assert (taken_off.reason, taken_off.revive, taken_off.problem) == (None, True, "")


def test_polls_and_questions() -> None:
    assert read("ir-polling-pollreq").body == Poll((0,))
    asked, nothing = read("genm-request"), read("genm-empty-request")
    assert isinstance(asked.body, General)
    assert [i.oid for i in asked.body.infos] == ["1.3.6.1.5.5.7.4.2"]
    assert [(i.oid, i.value) for i in asked.header.general_info] == [("1.2.3.4", bytes.fromhex("020300ddd5"))]
    assert nothing.body == General(())
