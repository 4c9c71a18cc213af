"""ir, cr, kur and p10cr to their end, as clients walk them."""

from datetime import timedelta

import pytest

from gateway.asn1.cmp import FailInfo
from gateway.cmp import BodyType, CertAnswer, PkiStatus
from gateway.config.policy import PolicyConfig
from gateway.model import CredentialKind
from gateway.pki.certificate import parse_certificate
from gateway.store.interfaces import LedgerState
from gateway.wire.cmp import requests
from tests.flow.cmp.cmp_world import CmpWorld, authority, cr, ir, kur, maker_device, p10cr, signs


async def test_ir_under_a_shared_secret_is_issued_and_confirmed(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity, path="initialization")
    assert told.type is BodyType.IP
    assert isinstance(told.received.body, CertAnswer)
    assert told.received.body.status.status is PkiStatus.ACCEPTED
    assert told.received.body.ca_pubs == world.ca.chain()
    assert (await world.confirm(told, identity)).type is BodyType.PKICONF
    [row] = await world.rows()
    assert row.state is LedgerState.CONFIRMED
    assert row.requester == "cmp_secret:id-ref-corp"


async def test_implicit_confirmation_is_granted(world: CmpWorld) -> None:
    told = await world.send(ir(), await world.secret(), implicit_confirm=True)
    assert told.received.header.implicit_confirm
    [row] = await world.rows()
    assert row.confirm_by is None


async def test_implicit_confirmation_is_refused_where_the_profile_does(world: CmpWorld) -> None:
    world.corp.config = {"confirmation": {"implicit": "refuse"}}
    told = await world.send(ir(), await world.secret(), implicit_confirm=True)
    assert told.received.header.implicit_confirm is None
    [row] = await world.rows()
    assert row.confirm_by is not None


async def test_the_same_message_again_gets_the_same_certificate_until_it_is_confirmed(world: CmpWorld) -> None:
    identity = await world.secret()
    first = await world.send(ir(), identity)
    again = await world.deliver(first.sent, identity)
    assert again.certificate == first.certificate
    await world.confirm(again, identity)
    late = await world.deliver(first.sent, identity)
    assert late.failed == {FailInfo.TRANSACTION_ID_IN_USE}
    assert len(world.ca.issued()) == 1


async def test_a_transaction_serves_one_request(world: CmpWorld) -> None:
    identity = await world.secret(max_uses=5)
    first = await world.send(ir(), identity)
    second = await world.send(ir(key="another"), identity, transaction_id=first.sent.transaction_id)
    assert second.failed == {FailInfo.TRANSACTION_ID_IN_USE}
    third = await world.send(ir(key="another"), identity)
    assert third.issued


async def test_two_senders_may_have_the_same_transaction_id(world: CmpWorld) -> None:
    first = await world.send(ir(), await world.secret("one"))
    second = await world.send(ir("b"), await world.secret("two"), transaction_id=first.sent.transaction_id)
    assert second.issued


@pytest.mark.parametrize("uses", [pytest.param(1, id="single use"), pytest.param(3, id="bounded")])
async def test_a_secret_is_good_for_so_many_certificates(world: CmpWorld, uses: int) -> None:
    identity = await world.secret(max_uses=uses)
    for number in range(uses):
        assert (await world.send(ir(f"d{number}"), identity)).issued
    more = await world.send(ir("more"), identity)
    assert more.failed == {FailInfo.NOT_AUTHORIZED}
    assert isinstance(more.received.body, CertAnswer)
    assert more.received.body.status.text == "the shared secret was used up"
    assert len(world.ca.issued()) == uses


async def test_cr_under_a_shared_secret(world: CmpWorld) -> None:
    told = await world.send(cr(), await world.secret(), path="certification")
    assert told.type is BodyType.CP


async def test_p10cr_has_the_request_id_minus_one(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(p10cr(), identity, path="pkcs10")
    assert isinstance(told.received.body, CertAnswer)
    assert told.received.body.cert_req_id == -1
    wrong = await world.follow(told, requests.cert_conf(told.certificate, 0), identity)
    assert wrong.failed == {FailInfo.BAD_REQUEST}
    done = await world.follow(told, requests.cert_conf(told.certificate, -1), identity)
    assert done.type is BodyType.PKICONF


async def test_kur_is_signed_by_the_certificate_that_it_updates(world: CmpWorld) -> None:
    device = await world.device()
    [old] = await world.inventory()
    told = await world.send(kur(old=old.der), device, path="keyupdate")
    assert told.type is BodyType.KUP
    assert (await world.confirm(told, device)).type is BodyType.PKICONF
    again = await world.send(kur(key="third", old=old.der), device)
    assert again.failed == {FailInfo.CERT_REVOKED}
    assert (await world.send(kur(key="third"), signs(told.certificate, "new key"))).issued


async def test_a_registration_authority_updates_a_certificate_of_others(world: CmpWorld) -> None:
    await world.device()
    [old] = await world.inventory()
    told = await world.send(kur(old=old.der), authority())
    assert told.issued
    assert not (await world.send(kur(key="third", old=old.der), authority())).issued


async def test_a_registration_authority_updates_what_is_named_by_its_maker(world: CmpWorld) -> None:
    policy = PolicyConfig.model_validate({"subject": {"template": "CN={vendor.id}"}})
    world.corp.options = {"policy": policy}
    device = maker_device()
    await world.confirm(await world.send(ir("anything"), device), device)
    [old] = await world.inventory()
    assert old.subject == "CN=SN1"
    told = await world.send(kur("SN1", old=old.der), authority())
    assert parse_certificate(told.certificate).subject.values("2.5.4.3") == ("SN1",)


async def test_a_maker_certificate_enrolls_its_device(world: CmpWorld) -> None:
    device = maker_device()
    told = await world.send(ir(), device)
    assert told.issued
    assert (await world.confirm(told, device)).type is BodyType.PKICONF
    [row] = await world.rows()
    assert row.requester == f"{CredentialKind.VENDOR_CERTIFICATE}:SN1"
    assert isinstance(told.received.body, CertAnswer)
    assert told.received.body.ca_pubs == ()


async def test_a_certificate_that_is_refused_is_revoked(world: CmpWorld) -> None:
    identity = await world.secret()
    told = await world.send(ir(), identity)
    refused = await world.follow(told, requests.cert_conf(told.certificate, accepted=False, text="no"), identity)
    assert refused.type is BodyType.PKICONF
    [row] = await world.rows()
    assert row.state is LedgerState.REVOKED


async def test_a_request_that_waits_is_polled_for(world: CmpWorld) -> None:
    world.ca.faults = ["pending"]
    identity = await world.secret()
    waiting = await world.send(ir(), identity)
    assert isinstance(waiting.received.body, CertAnswer)
    assert waiting.received.body.status.status is PkiStatus.WAITING
    patience = await world.follow(waiting, requests.poll_req(0), identity)
    assert patience.type is BodyType.POLLREP
    world.clock.advance(timedelta(minutes=2))
    told = await world.follow(patience, requests.poll_req(0), identity)
    assert told.type is BodyType.IP
    assert (await world.confirm(told, identity)).type is BodyType.PKICONF


async def test_an_unreachable_ca_is_said_in_an_error(world: CmpWorld) -> None:
    world.ca.down = True
    told = await world.send(ir(), await world.secret())
    assert told.type is BodyType.ERROR
    assert told.failed == {FailInfo.SYSTEM_UNAVAIL}
