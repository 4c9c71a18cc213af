"""What registration authorities forward: with protection added, and in batches (RFC 9483 §5.2.2)."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.asn1 import cmp as asn1
from gateway.asn1.cmp import FailInfo
from gateway.cmp import CertAnswer, Nested
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import Identity, Sent, decode_answer, encode_message, pinned
from tests.flow.cmp.cmp_world import OTHER, CmpWorld, authority, genm, ir, kur, maker_device, rr


def made(world: CmpWorld, body: bytes, identity: Identity | None) -> Sent:
    return encode_message(body, identity, now=world.clock())


async def test_added_protection_is_answered_as_the_message_itself(world: CmpWorld) -> None:
    identity = await world.secret()
    inner = made(world, ir(), identity)
    outer = encode_message(
        requests.nested([inner.message]),
        authority(),
        now=world.clock(),
        transaction_id=inner.transaction_id,
        sender_nonce=inner.sender_nonce,
    )
    told = await world.deliver(outer, identity, path="nested")
    assert isinstance(told.received.body, CertAnswer)
    assert told.issued
    assert told.received.signer is None, "protected for the device"
    [row] = await world.rows()
    assert row.requester == "cmp_secret:id-ref-corp"


async def test_each_of_a_batch_is_answered_by_itself(world: CmpWorld) -> None:
    device = await world.device()
    [old] = await world.inventory()
    secret = await world.secret()
    identities: list[Identity | None] = [secret, maker_device(), device, None]
    bodies = [ir("a"), ir("b"), kur(old=old.der), ir("d")]
    inner = [made(world, body, identity) for body, identity in zip(bodies, identities, strict=True)]
    ra = authority()
    told = await world.send(requests.nested([sent.message for sent in inner]), ra)
    assert isinstance(told.received.body, Nested)
    answers = [
        decode_answer(data, sent, secret=secret.secret, trusts=pinned(world.signer))
        for data, sent in zip(told.received.body.messages, inner, strict=True)
    ]
    assert [answer.fail_info for answer in answers] == [set(), set(), set(), {FailInfo.BAD_MESSAGE_CHECK}]
    assert len(world.ca.issued()) == 4
    [row] = [row for row in await world.audit() if row["event"] == "cmp.forwarded"]
    assert (row["actor"], row["operation"]) == (f"certificate:{sha256(ra.certificates).hexdigest()}", "nested")
    assert all(sent.transaction_id.hex() in row["detail"] for sent in inner)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("too many", FailInfo.BAD_REQUEST, id="too many"),
        pytest.param("none", FailInfo.BAD_REQUEST, id="none"),
        pytest.param("one transaction twice", FailInfo.BAD_REQUEST, id="one transaction twice"),
    ],
)
async def test_batches_that_are_refused_whole(world: CmpWorld, kind: str, expected: FailInfo) -> None:
    world.corp.config = {"batch": 2}
    identity = await world.secret(max_uses=9)
    inner = [made(world, ir(name), identity).message for name in "abc"]
    messages = {"too many": inner, "none": [], "one transaction twice": [inner[0], inner[0]]}[kind]
    told = await world.send(requests.nested(messages), authority())
    assert told.failed == {expected}
    assert not world.ca.issued()


async def test_a_nested_message_holds_no_other_one(world: CmpWorld) -> None:
    identity = await world.secret()
    inner = made(world, requests.nested([made(world, ir(), identity).message]), authority())
    told = await world.send(requests.nested([inner.message]), authority())
    assert isinstance(told.received.body, Nested)
    [data] = told.received.body.messages
    assert decode_answer(data, inner, trusts=pinned(world.signer)).fail_info == {FailInfo.BAD_REQUEST}
    assert not world.ca.issued()


async def test_forwarding_lends_no_rights(world: CmpWorld) -> None:
    """A registration authority that may do everything forwards what a device signed: it is the device's still."""
    device = await world.device()
    await world.device("neighbour")
    theirs = next(row.der for row in await world.inventory() if row.subject == "CN=neighbour")
    before = await world.certificates()
    for body in (rr(theirs), ir("neighbour"), kur("neighbour", old=theirs)):
        inner = made(world, body, device)
        told = await world.send(requests.nested([inner.message]), authority())
        assert isinstance(told.received.body, Nested)
        assert decode_answer(told.received.body.messages[0], inner, trusts=pinned(world.signer)).fail_info
    assert await world.certificates() == before


async def test_what_is_forwarded_to_another_profile_needs_the_right_there(world: CmpWorld) -> None:
    world.corp.config = {"cert_profiles": {"second": "other"}}
    identity = await world.secret(profile=OTHER)
    inner = encode_message(ir(), identity, now=world.clock(), cert_profile="second")
    told = await world.send(requests.nested([inner.message]), authority())
    assert isinstance(told.received.body, Nested)
    answer = decode_answer(told.received.body.messages[0], inner, secret=identity.secret, trusts=pinned(world.signer))
    assert answer.fail_info == {FailInfo.SIGNER_NOT_TRUSTED}
    world.other.ras = (*world.other.ras, ("CN=ra1", frozenset({"forward"})))
    told = await world.send(requests.nested([inner.message]), authority())
    assert isinstance(told.received.body, Nested)
    answer = decode_answer(told.received.body.messages[0], inner, secret=identity.secret, trusts=pinned(world.signer))
    assert not answer.fail_info


async def test_outer_and_inner_message_name_the_same_cert_profile(world: CmpWorld) -> None:
    world.corp.config = {"cert_profiles": {"second": "other"}}
    world.other.ras = (("CN=ra1", frozenset({"forward"})),)
    identity = await world.secret(profile=OTHER)
    inner = encode_message(ir(), identity, now=world.clock(), cert_profile="second")
    told = await world.send(requests.nested([inner.message]), authority(), cert_profile="second")
    assert isinstance(told.received.body, Nested)
    answer = decode_answer(told.received.body.messages[0], inner, secret=identity.secret, trusts=pinned(world.signer))
    assert not answer.fail_info


async def test_a_general_message_may_be_forwarded(world: CmpWorld) -> None:
    inner = made(world, genm(asn1.OID_CA_CERTS), maker_device())
    told = await world.send(requests.nested([inner.message]), authority())
    assert isinstance(told.received.body, Nested)
    assert not decode_answer(told.received.body.messages[0], inner, trusts=pinned(world.signer)).fail_info
