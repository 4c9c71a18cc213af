"""What fails beyond the client, what comes twice at once, and what a flood of strangers leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.asn1.cmp import FailInfo
from gateway.cmp import BodyType, ErrorAnswer
from gateway.config.policy import PolicyConfig
from gateway.errors import StoreUnavailable
from gateway.model import Rejected, Unavailable
from gateway.pki import der
from gateway.pki.crmf_writer import encode_cert_req_msg, encode_cert_request, encode_cert_template
from gateway.pki.keys import public_key_der
from gateway.pki.password_mac import MacParameters, compute_mac, fresh_mac
from gateway.ra.cmp import senders
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import MacIdentity
from gateway.wire.cmp.requests import enrollment
from tests.flow.cmp.cmp_world import FOREIGN, CmpWorld, certify, ir, key_of, kur, maker_device, p10cr, rr, signs
from tests.unit.pki.test_crmf import with_input as prove_with_input


@pytest.mark.parametrize("method", ["find_secret", "find_request", "open", "append_audit"])
async def test_without_its_store_nothing_is_granted(world: CmpWorld, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    identity = await world.secret()

    async def fail(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(world.store, method, fail)
    body = ir(signed_by="another") if method == "append_audit" else ir()
    told = await world.send(body, identity)
    assert isinstance(told.received.body, ErrorAnswer)
    assert told.failed == {FailInfo.SYSTEM_UNAVAIL}
    assert isinstance(told.answer.outcome, Unavailable)
    assert not world.ca.issued()


async def test_what_nobody_foresaw_is_a_failure_of_ours(world: CmpWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = await world.secret()

    def fail(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(senders, "compute_mac", fail)
    told = await world.send(ir(), identity)
    assert told.failed == {FailInfo.SYSTEM_FAILURE}
    assert "bug" not in str(told.received.body)


async def test_the_same_message_twice_at_once(world: CmpWorld) -> None:
    identity = await world.secret()
    made = await world.send(ir(), identity, now=world.clock())
    again = await asyncio.gather(*[world.deliver(made.sent, identity) for _ in range(4)])
    assert {told.certificate for told in again} == {made.certificate}
    assert len(world.ca.issued()) == 1


async def test_a_single_use_by_two_at_once(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await asyncio.gather(*[world.send(ir(name), identity) for name in "abcd"])
    assert sorted(each.issued for each in told) == [False, False, False, True]
    assert len(world.ca.issued()) == 1


async def test_one_transaction_by_two_at_once(world: CmpWorld) -> None:
    identity = await world.secret(max_uses=9)
    told = await asyncio.gather(*[world.send(ir(name), identity, transaction_id=b"t" * 16) for name in "abcd"])
    assert sorted(each.issued for each in told) == [False, False, False, True]
    assert {*told[0].failed, *told[1].failed, *told[2].failed, *told[3].failed} == {FailInfo.TRANSACTION_ID_IN_USE}


async def test_one_certificate_updated_by_two_keys_at_once(world: CmpWorld) -> None:
    device = await world.device()
    told = await asyncio.gather(*[world.send(kur(key=f"key {number}"), device) for number in range(4)])
    assert sorted(each.issued for each in told) == [False, False, False, True]
    assert {bit for each in told for bit in each.failed} == {FailInfo.CERT_REVOKED}


async def test_confirmed_and_rejected_at_once(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    bodies = [requests.cert_conf(told.certificate), requests.cert_conf(told.certificate, accepted=False)]
    both = await asyncio.gather(*[world.follow(told, body, identity) for body in bodies])
    assert [each.type for each in both].count(BodyType.PKICONF) == 1


async def test_who_floods_leaves_a_bounded_trail(world: CmpWorld) -> None:
    stranger = signs(certify(FOREIGN, "mallory", "CN=victim"), "mallory")
    guess = MacIdentity(b"ref", b"a guess")
    before = len(await world.audit())
    counted = 0
    for number in range(80):
        for identity in (stranger, guess):
            told = await world.send(ir(signed_by="another" if number % 2 else ""), identity)
            assert isinstance(told.answer.outcome, Rejected)
            counted += told.answer.outcome.remarks.counted
    assert len(await world.audit()) - before + counted == 160
    assert counted >= 40


async def test_refusals_are_on_record_with_their_cause(world: CmpWorld) -> None:
    device = await world.device()
    await world.device("neighbour")
    theirs = next(row.der for row in await world.inventory() if row.subject == "CN=neighbour")
    await world.send(rr(theirs), device)
    last = (await world.audit())[-1]
    assert (last["event"], last["operation"], last["reason"]) == ("cmp.rejected", "rr", "unknown_certificate")
    assert last["actor"].startswith("certificate:")
    assert "signer's" in last["detail"]


async def test_no_secret_is_on_record(world: CmpWorld) -> None:
    identity = await world.secret()
    await world.send(ir(), MacIdentity(b"ref", b"a wrong secret"))
    await world.send(ir(), identity)
    assert identity.secret.decode() not in str(await world.audit())


async def test_an_error_of_the_client_is_noted(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    body = requests.error("the certificate is not mine")
    noted = await world.follow(told, body, identity)
    assert noted.type is BodyType.PKICONF
    assert "the certificate is not mine" in (await world.audit())[-1]["detail"]
    before = len(await world.audit())
    for _ in range(70):
        assert (await world.deliver(noted.sent, identity)).type is BodyType.PKICONF
    assert len(await world.audit()) - before < 60
    assert (await world.send(body, identity)).failed == {FailInfo.BAD_RECIPIENT_NONCE}


@pytest.mark.parametrize("iterations", [500, 5000], ids=["inline", "elsewhere"])
async def test_an_unknown_reference_costs_what_a_wrong_secret_does(
    world: CmpWorld, monkeypatch: pytest.MonkeyPatch, iterations: int
) -> None:
    await world.secret()
    work: list[int] = []

    def count(parameters: MacParameters, secret: bytes, covered: bytes) -> bytes:
        work.append(parameters.iterations)
        return compute_mac(parameters, secret, covered)

    monkeypatch.setattr(senders, "compute_mac", count)
    told = [
        await world.send(ir(), MacIdentity(reference, b"a guess", iterations=iterations)) for reference in (b"ref", b"nobody's")
    ]
    assert work == [iterations, iterations]
    assert told[0].received.body == told[1].received.body


# Proof of possession beside the plain signature


async def test_p10cr_whose_signature_does_not_verify(world: CmpWorld) -> None:
    body = bytearray(p10cr())
    body[-1] ^= 1
    told = await world.send(bytes(body), await world.secret())
    assert told.failed == {FailInfo.BAD_POP}
    assert not world.ca.issued()


def with_input(author: bytes) -> bytes:
    """A request without a subject, whose proof of possession is over POPOSigningKeyInput (RFC 4211 §4.1)."""
    spki = public_key_der(key_of("device"))
    request = encode_cert_request(0, encode_cert_template(public_key=spki))
    return enrollment(BodyType.IR, [encode_cert_req_msg(request, prove_with_input(key_of("device"), author, spki))])


NAMED = {"policy": PolicyConfig.model_validate({"subject": {"override": {"CN": "device"}, "allow_empty": True}})}
"""The gateway gives the name that the requests leave out."""


async def test_a_proof_names_the_sender_of_its_message(world: CmpWorld) -> None:
    world.corp.options = NAMED
    device, other = maker_device(), maker_device("SN2", "vendor 2")
    told = await world.send(with_input(der.context(0, other.sender)), device)
    assert told.failed == {FailInfo.BAD_POP}
    assert (await world.send(with_input(der.context(0, device.sender)), device)).issued


async def test_a_public_key_mac_is_made_with_the_senders_secret(world: CmpWorld) -> None:
    world.corp.options = NAMED
    identity, other = await world.secret(max_uses=9), await world.secret("other")
    algorithm, parameters = fresh_mac(iterations=500)

    def author(secret: bytes) -> bytes:
        value = compute_mac(parameters, secret, public_key_der(key_of("device")))
        return der.sequence(algorithm, der.bit_string(value))

    assert (await world.send(with_input(author(other.secret)), identity)).failed == {FailInfo.BAD_POP}
    assert (await world.send(with_input(author(identity.secret)), maker_device())).failed == {FailInfo.BAD_POP}
    assert (await world.send(with_input(author(identity.secret)), identity)).issued
