"""Which PKIFailureInfo answers what, by the RFC and by what conformance suites expect of it (RFC 9483 §3.5, §3.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.asn1 import cmp as asn1
from gateway.asn1.cmp import FailInfo
from gateway.cmp import BodyType, MacSender
from gateway.model import RevocationReason
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.crmf_writer import encode_cert_template
from gateway.pki.extensions import encode_extension
from gateway.pki.names import parse_name_text
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import encode_message
from gateway.wire.cmp.errors import FAIL_INFO
from gateway.wire.cmp.messages import decode_message
from gateway.wire.cmp.protection import SignatureProtector
from tests.contract.store.rows import event
from tests.flow.cmp.cmp_world import (
    OTHER,
    RA_VERIFIED,
    SOURCE,
    CmpWorld,
    authority,
    cert_req_msg,
    certify,
    genm,
    ir,
    kur,
    maker_device,
    p10cr,
    rr,
    signs,
)
from tests.flow.enrollment.world import PROFILE

LIGHTWEIGHT = {"strictness": "lightweight"}


@dataclass
class Changed:
    """A request whose header says something else than its client wrote; its protection holds, for it is made anew."""

    name: str
    expected: FailInfo | None
    """In `lightweight`."""
    otherwise: FailInfo | None
    """In `rfc4210`; None: it is accepted."""
    header: dict[str, Any] = field(default_factory=dict)


NOW = datetime.now(UTC).replace(microsecond=0)
HEADERS = (
    Changed("as it should be", None, None),
    Changed("pvno 1", FailInfo.UNSUPPORTED_VERSION, FailInfo.UNSUPPORTED_VERSION, {"pvno": 1}),
    Changed("pvno 4", FailInfo.UNSUPPORTED_VERSION, FailInfo.UNSUPPORTED_VERSION, {"pvno": 4}),
    Changed("pvno 3", None, None, {"pvno": 3}),
    Changed("no messageTime", FailInfo.BAD_TIME, None, {"message_time": None}),
    Changed("old messageTime", FailInfo.BAD_TIME, FailInfo.BAD_TIME, {"message_time": NOW - timedelta(hours=1)}),
    Changed("messageTime to come", FailInfo.BAD_TIME, FailInfo.BAD_TIME, {"message_time": NOW + timedelta(hours=1)}),
    Changed("no transactionID", FailInfo.BAD_DATA_FORMAT, None, {"transaction_id": None}),
    Changed("short transactionID", FailInfo.BAD_DATA_FORMAT, None, {"transaction_id": b"short"}),
    Changed("huge transactionID", FailInfo.BAD_DATA_FORMAT, FailInfo.BAD_DATA_FORMAT, {"transaction_id": bytes(65)}),
    Changed("no senderNonce", FailInfo.BAD_SENDER_NONCE, None, {"sender_nonce": None}),
    Changed("short senderNonce", FailInfo.BAD_SENDER_NONCE, FailInfo.BAD_SENDER_NONCE, {"sender_nonce": b"short"}),
    Changed("recipNonce in the first message", FailInfo.BAD_RECIPIENT_NONCE, None, {"recipient_nonce": bytes(16)}),
    Changed("implicitConfirm with a value", FailInfo.BAD_REQUEST, FailInfo.BAD_REQUEST, {"implicit_confirm": False}),
    Changed(
        "implicitConfirm and confirmWaitTime",
        FailInfo.BAD_REQUEST,
        FailInfo.BAD_REQUEST,
        {"implicit_confirm": True, "confirm_wait_time": NOW},
    ),
    Changed("unknown certProfile", FailInfo.BAD_REQUEST, FailInfo.BAD_REQUEST, {"cert_profiles": ("nobody's",)}),
    Changed("two certProfiles", FailInfo.BAD_REQUEST, FailInfo.BAD_REQUEST, {"cert_profiles": ("second", "second")}),
)


@pytest.mark.parametrize("strictness", ["rfc4210", "lightweight"])
@pytest.mark.parametrize("row", HEADERS, ids=lambda row: row.name)
async def test_headers(world: CmpWorld, row: Changed, strictness: str) -> None:
    """The header is changed behind its codec, and before it is judged: the protection covers what was sent."""
    world.corp.config = {"strictness": strictness, "cert_profiles": {"second": "other"}}
    identity = await world.secret()

    message = decode_message(encode_message(ir(), identity, now=world.clock()).message)
    changed = replace(message, header=replace(message.header, **row.header))
    answer = await world.cmp.answer(world.snapshot, PROFILE, changed, None, SOURCE)
    expected = row.otherwise if strictness == "rfc4210" else row.expected

    status = answer.body.status  # type: ignore[union-attr]
    assert (None if status.reason is None else FAIL_INFO[status.reason]) is expected
    assert bool(world.ca.issued()) is (expected is None)
    if expected not in {None, FailInfo.UNSUPPORTED_VERSION} and not row.header.get("cert_profiles"):
        assert isinstance(answer.protect_for, MacSender), "who is known gets his answer in kind"


@dataclass
class Asked:
    """A request by somebody who may ask, and what is wrong with it."""

    name: str
    body: bytes
    expected: FailInfo
    type: BodyType
    identity: SignatureProtector | None = None
    """None: under a shared secret."""
    config: dict[str, Any] = field(default_factory=dict)
    path: str | None = None


STRANGER = signs(certify("X", "x", "CN=x"), "x")
TWO = requests.enrollment(BodyType.IR, [cert_req_msg(), cert_req_msg()])
CA_CERTS = genm(asn1.OID_CA_CERTS)
REQUESTS = (
    Asked("proof by another key", ir(signed_by="another"), FailInfo.BAD_POP, BodyType.IP),
    Asked("no proof of possession", ir(proof=None), FailInfo.BAD_POP, BodyType.IP),
    Asked("raVerified by an end entity", ir(proof=RA_VERIFIED), FailInfo.NOT_AUTHORIZED, BodyType.IP),
    Asked("raVerified by a device", ir(proof=RA_VERIFIED), FailInfo.NOT_AUTHORIZED, BodyType.IP, maker_device()),
    Asked("certReqId 1", ir(cert_req_id=1), FailInfo.BAD_REQUEST, BodyType.IP),
    Asked("certReqId -1", ir(cert_req_id=-1), FailInfo.BAD_REQUEST, BodyType.IP),
    Asked("serial number in the template", ir(serial=7), FailInfo.BAD_CERT_TEMPLATE, BodyType.IP),
    Asked("no key, where none is drawn", ir(public_key=None, proof=None), FailInfo.BAD_CERT_TEMPLATE, BodyType.IP),
    Asked("kur under a MAC", kur(), FailInfo.WRONG_INTEGRITY, BodyType.ERROR),
    Asked("kur by a stranger's certificate", kur(), FailInfo.SIGNER_NOT_TRUSTED, BodyType.KUP, STRANGER),
    Asked("ir by a stranger's certificate", ir(), FailInfo.SIGNER_NOT_TRUSTED, BodyType.IP, STRANGER),
    Asked("two requests", TWO, FailInfo.BAD_REQUEST, BodyType.ERROR),
    Asked("another operation than the path's", ir(), FailInfo.BAD_REQUEST, BodyType.IP, path="certification"),
    Asked("genm with a value", genm(asn1.OID_CA_CERTS, der.null()), FailInfo.BAD_REQUEST, BodyType.ERROR),
    Asked("genm for something else than the path's", CA_CERTS, FailInfo.BAD_REQUEST, BodyType.ERROR, path="getcrls"),
    Asked("unknown genm", genm("1.2.3.4"), FailInfo.BAD_REQUEST, BodyType.ERROR, maker_device(), LIGHTWEIGHT),
    Asked("genm of CRLs that are not named", genm(asn1.OID_CRL_STATUS_LIST), FailInfo.BAD_REQUEST, BodyType.ERROR),
    Asked("nested under a MAC", requests.nested([b"\x30\x00"]), FailInfo.WRONG_INTEGRITY, BodyType.ERROR),
    Asked("nested by a device", requests.nested([b"\x30\x00"]), FailInfo.NOT_AUTHORIZED, BodyType.ERROR, maker_device()),
    Asked("nested nonsense", requests.nested([b"\x30\x00"]), FailInfo.BAD_DATA_FORMAT, BodyType.ERROR, authority()),
    Asked("pollReq without a recipNonce", requests.poll_req(0), FailInfo.BAD_RECIPIENT_NONCE, BodyType.ERROR),
    Asked("krr", der.context(9, der.sequence()), FailInfo.BAD_REQUEST, BodyType.ERROR),
    Asked("an answer", der.context(19, der.null()), FailInfo.BAD_REQUEST, BodyType.ERROR),
)


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
async def test_requests(world: CmpWorld, row: Asked) -> None:
    world.corp.config = row.config
    identity = row.identity or await world.secret()
    told = await world.send(row.body, identity, path=row.path)
    assert told.failed == {row.expected}
    assert told.type is row.type
    assert not world.ca.issued()


async def test_answers_to_who_is_known_are_protected_in_kind(world: CmpWorld) -> None:
    told = await world.send(ir(signed_by="another"), await world.secret())
    assert told.received.signer is None
    told = await world.send(ir(signed_by="another"), maker_device())
    assert told.received.signer is not None


# kur


async def test_kur_with_the_same_key(world: CmpWorld) -> None:
    device = await world.device()
    assert (await world.send(kur(key="device"), device)).failed == {FailInfo.BAD_CERT_TEMPLATE}
    world.corp.config = {"same_key": "allow"}
    assert (await world.send(kur(key="device"), device)).issued


async def test_kur_whose_old_cert_id_names_another_certificate(world: CmpWorld) -> None:
    device, _ = await world.device(), await world.device("neighbour")
    theirs = next(row.der for row in await world.inventory() if row.subject == "CN=neighbour")
    known = await world.send(kur("neighbour", old=theirs), device)
    unknown = await world.send(kur("neighbour", old=certify("X", "x", "CN=x")), device)
    assert known.failed == {FailInfo.BAD_CERT_ID}
    assert known.received.body == unknown.received.body, "nobody learns what was issued to others"


async def test_strangers_do_not_learn_by_old_cert_id_what_was_issued(world: CmpWorld) -> None:
    await world.device()
    [row] = await world.inventory()
    known, unknown = [await world.send(kur(old=old), STRANGER) for old in (row.der, certify("X", "x", "CN=x"))]
    assert known.failed == {FailInfo.SIGNER_NOT_TRUSTED}
    assert known.received.body == unknown.received.body


async def test_an_authority_updates_nothing_of_another_profile(world: CmpWorld) -> None:
    await world.device("theirs", OTHER)
    [row] = await world.inventory()
    known, unknown = [await world.send(kur("theirs", old=old), authority()) for old in (row.der, certify("X", "x", "CN=x"))]
    assert known.failed == {FailInfo.BAD_CERT_ID}
    assert known.received.body == unknown.received.body


async def test_kur_for_another_name(world: CmpWorld) -> None:
    device = await world.device()
    assert (await world.send(kur("admin"), device)).failed == {FailInfo.NOT_AUTHORIZED}


async def test_kur_by_a_revoked_certificate(world: CmpWorld) -> None:
    device = await world.device()
    [row] = await world.inventory()
    await world.send(rr(row.der), device)
    assert (await world.send(kur(), device)).failed == {FailInfo.CERT_REVOKED}


# rr


def revocation(*members: bytes) -> bytes:
    return der.context(BodyType.RR, der.sequence(*members))


def details(certificate: bytes, *entry: bytes, **changes: Any) -> bytes:
    parsed = parse_certificate(certificate)
    named: dict[str, Any] = {"serial": parsed.serial, "issuer": parsed.issuer_der}
    template = encode_cert_template(**(named | changes))
    return der.sequence(template, *((der.sequence(*entry),) if entry else ()))


REASON = "2.5.29.21"


def reason(code: int) -> bytes:
    return encode_extension(REASON, False, der.tlv(0x0A, bytes((code,))))


RR: dict[str, tuple[Callable[[bytes], bytes], FailInfo]] = {
    "unknown serial number": (lambda c: revocation(details(c, reason(1), serial=7)), FailInfo.BAD_CERT_ID),
    "unknown issuer": (
        lambda c: revocation(details(c, reason(1), issuer=parse_certificate(certify("X", "x", "CN=x")).issuer_der)),
        FailInfo.BAD_CERT_ID,
    ),
    "another subject": (
        lambda c: revocation(details(c, reason(1), subject=parse_certificate(certify("X", "x", "CN=x")).subject.der)),
        FailInfo.BAD_CERT_ID,
    ),
    "another key": (
        lambda c: revocation(details(c, reason(1), public_key=parse_certificate(certify("X", "x", "CN=x")).public_key.der)),
        FailInfo.BAD_CERT_ID,
    ),
    "no serial number": (lambda c: revocation(details(c, reason(1), serial=None)), FailInfo.ADD_INFO_NOT_AVAILABLE),
    "no issuer": (lambda c: revocation(details(c, reason(1), issuer=None)), FailInfo.ADD_INFO_NOT_AVAILABLE),
    "two reasons": (lambda c: revocation(details(c, reason(1), reason(4))), FailInfo.BAD_REQUEST),
    "reason that there is not": (lambda c: revocation(details(c, reason(7))), FailInfo.BAD_REQUEST),
    "two certificates": (lambda c: revocation(details(c, reason(1)), details(c, reason(1))), FailInfo.BAD_REQUEST),
    "revival by its holder": (lambda c: rr(c, None), FailInfo.NOT_AUTHORIZED),
}


@pytest.mark.parametrize("kind", RR)
async def test_revocation_requests(world: CmpWorld, kind: str) -> None:
    make, expected = RR[kind]
    device = await world.device()
    [row] = await world.inventory()
    told = await world.send(make(row.der), device)
    assert told.failed == {expected}
    assert told.type is BodyType.RP
    assert await world.certificates() == {row.sha256: False}


async def test_a_certificate_is_revoked_once(world: CmpWorld) -> None:
    device = await world.device()
    [row] = await world.inventory()
    told = await world.send(rr(row.der), device, path="revocation")
    assert told.type is BodyType.RP
    assert not told.failed
    assert await world.certificates() == {row.sha256: True}
    assert (await world.send(rr(row.der), device)).failed == {FailInfo.CERT_REVOKED}
    assert (await world.send(rr(row.der), authority())).failed == {FailInfo.CERT_REVOKED}


async def test_a_secret_revokes_what_it_got(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    assert not (await world.send(rr(told.certificate), identity)).failed
    assert list((await world.certificates()).values()) == [True]


async def test_what_says_no_time_is_remembered_without_end(world: CmpWorld) -> None:
    """Recorded, it could be sent whenever its transaction is forgotten."""
    identity = await world.secret(max_uses=3, ttl=timedelta(days=400))
    message = decode_message(encode_message(ir(), identity, now=world.clock()).message)
    untimed = replace(message, header=replace(message.header, message_time=None))
    for days, issued in ((0, 1), (1, 1), (60, 1), (300, 1)):
        world.clock.advance(timedelta(days=days))
        await world.store.expire(world.clock())
        await world.cmp.answer(world.snapshot, PROFILE, untimed, None, SOURCE)
        assert len(world.ca.issued()) == issued


async def test_a_secret_of_several_uses_revokes_nothing(world: CmpWorld) -> None:
    """Many devices have it."""
    identity = await world.secret(max_uses=2)
    told = await world.send(ir(), identity)
    assert (await world.send(rr(told.certificate), identity)).failed == {FailInfo.NOT_AUTHORIZED}
    assert list((await world.certificates()).values()) == [False]


async def test_a_revocation_request_is_not_repeated(world: CmpWorld) -> None:
    """What was recorded of a revocation revokes nothing once the certificate was taken off hold."""
    await world.device()
    [row] = await world.inventory()
    told = await world.send(rr(row.der, RevocationReason.CERTIFICATE_HOLD), authority())
    assert await world.certificates() == {row.sha256: True}
    assert await world.store.revive(row.sha256, world.clock(), event("certificate.revived"))
    again = await world.deliver(told.sent, authority())
    assert again.failed == {FailInfo.TRANSACTION_ID_IN_USE}
    assert await world.certificates() == {row.sha256: False}
    other = await world.send(ir("x"), authority(), transaction_id=told.sent.transaction_id)
    assert other.failed == {FailInfo.TRANSACTION_ID_IN_USE}


# certConf and pollReq


async def test_confirmation_with_another_hash(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    [row] = await world.inventory()
    wrong = await world.follow(told, requests.cert_conf(certify("X", "x", "CN=x")), identity)
    assert wrong.failed == {FailInfo.BAD_CERT_ID}
    rejecting = await world.follow(told, requests.cert_conf(certify("X", "x", "CN=x"), accepted=False), identity)
    assert rejecting.failed == {FailInfo.BAD_CERT_ID}
    assert await world.certificates() == {row.sha256: False}


async def test_confirmation_of_what_was_confirmed(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    await world.confirm(told, identity)
    assert (await world.confirm(told, identity)).failed == {FailInfo.CERT_CONFIRMED}
    late = await world.follow(told, requests.cert_conf(told.certificate, accepted=False), identity)
    assert late.failed == {FailInfo.CERT_CONFIRMED}
    assert list((await world.certificates()).values()) == [False]


async def test_an_empty_confirmation_rejects(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    assert not (await world.follow(told, der.context(BodyType.CERTCONF, der.sequence()), identity)).failed
    assert list((await world.certificates()).values()) == [True]


NONCES: dict[str, tuple[Callable[[bytes], bytes | None], FailInfo]] = {
    "none": (lambda _: None, FailInfo.BAD_RECIPIENT_NONCE),
    "one of its own": (lambda _: bytes(32), FailInfo.BAD_RECIPIENT_NONCE),
    "a short one": (lambda nonce: nonce[:16], FailInfo.BAD_RECIPIENT_NONCE),
    "one bit changed": (lambda nonce: bytes([nonce[0] ^ 1]) + nonce[1:], FailInfo.BAD_RECIPIENT_NONCE),
}


@pytest.mark.parametrize("kind", NONCES)
async def test_recipient_nonces_of_confirmations(world: CmpWorld, kind: str) -> None:
    make, expected = NONCES[kind]
    identity = await world.secret()
    told = await world.send(ir(), identity)
    assert told.received.header.sender_nonce is not None
    wrong = await world.confirm(told, identity, recipient_nonce=make(told.received.header.sender_nonce))
    assert wrong.failed == {expected}
    assert (await world.confirm(told, identity)).type is BodyType.PKICONF


async def test_confirmation_in_another_transaction(world: CmpWorld) -> None:
    identity = await world.secret(max_uses=2)
    first, second = await world.send(ir(), identity), await world.send(ir("b"), identity)
    told = await world.confirm(first, identity, transaction_id=second.sent.transaction_id)
    assert told.failed == {FailInfo.BAD_RECIPIENT_NONCE}


async def test_confirmation_protected_in_another_way(world: CmpWorld) -> None:
    """Not with the new certificate, and not by a MAC what began with a signature."""
    identity = await world.secret()
    told = await world.send(ir(), identity)
    switched = await world.confirm(told, signs(told.certificate, "device"))
    assert switched.failed == {FailInfo.WRONG_INTEGRITY}
    by_maker = await world.send(ir("b"), maker_device())
    assert (await world.confirm(by_maker, identity)).failed == {FailInfo.WRONG_INTEGRITY}


async def test_poll_for_another_request_id(world: CmpWorld) -> None:
    world.ca.faults = ["pending"]
    identity = await world.secret()
    told = await world.send(p10cr(), identity)
    assert (await world.follow(told, requests.poll_req(0), identity)).failed == {FailInfo.BAD_REQUEST}
    assert (await world.follow(told, requests.poll_req(-1), identity)).type is BodyType.POLLREP


# Protection


async def test_a_signer_that_header_or_extra_certs_do_not_name(world: CmpWorld) -> None:
    told = await world.send(ir(), replace(maker_device(), certificates=b""))
    assert told.failed == {FailInfo.BAD_MESSAGE_CHECK}
    other = maker_device("SN2", "vendor 2")
    told = await world.send(ir(), replace(maker_device(), certificates=other.certificates))
    assert told.failed == {FailInfo.BAD_MESSAGE_CHECK}
    told = await world.send(ir(), replace(maker_device(), sender=other.sender))
    assert told.failed == {FailInfo.BAD_MESSAGE_CHECK}


@pytest.mark.parametrize(
    ("identity", "strictness", "expected"),
    [
        pytest.param({"iterations": 99}, "rfc4210", FailInfo.BAD_ALG, id="too few iterations"),
        pytest.param({"iterations": 10001}, "rfc4210", FailInfo.BAD_ALG, id="too many iterations"),
        pytest.param({"iterations": 5000}, "rfc4210", None, id="away from the event loop"),
        pytest.param({"pbmac1": True}, "lightweight", None, id="PBMAC1"),
        pytest.param({"pbmac1": True, "iterations": 100001}, "lightweight", FailInfo.BAD_ALG, id="too many of PBMAC1"),
    ],
)
async def test_macs(world: CmpWorld, identity: dict[str, Any], strictness: str, expected: FailInfo | None) -> None:
    world.corp.config = {"strictness": strictness}
    told = await world.send(ir(), replace(await world.secret(), **identity))
    assert told.failed == (frozenset() if expected is None else {expected})


async def test_a_mac_sender_is_named_by_its_reference_where_rfc_9483_is_asked_for(world: CmpWorld) -> None:

    identity = replace(await world.secret(max_uses=2), sender=parse_name_text("CN=device").der)
    assert (await world.send(ir(), identity)).issued
    world.corp.config = LIGHTWEIGHT
    assert (await world.send(ir("b"), identity)).failed == {FailInfo.BAD_MESSAGE_CHECK}


# certProfile


async def test_cert_profile_chooses_another_profile_that_judges_alone(world: CmpWorld) -> None:
    world.corp.config = {"cert_profiles": {"second": "other"}}
    here, there = await world.secret(), await world.secret(profile=world.other.name)
    assert not (await world.send(ir(), here, cert_profile="second")).issued
    told = await world.send(ir(), there, cert_profile="second")
    assert told.issued
    assert (await world.confirm(told, there)).type is BodyType.PKICONF, "which leaves certProfile out"
    assert [row.profile for row in await world.inventory()] == ["other"]


async def test_cert_profile_names_nothing_that_does_not_open_cmp(world: CmpWorld) -> None:
    world.corp.config = {"cert_profiles": {"closed": "closed"}}
    assert (await world.send(ir(), authority(), cert_profile="closed")).failed == {FailInfo.BAD_REQUEST}
