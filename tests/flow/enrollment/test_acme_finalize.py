"""Orders of ACME from ready to their end: one certificate for one order, whatever happens meanwhile (RFC 8555 §7.4)."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.acme import OrderRequest, OrderStatus
from gateway.ca.interfaces import Capability
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import Protocol, RevocationReason
from gateway.pki.certificate import parse_certificate
from gateway.ra.acme.csr import read_csr
from gateway.ra.acme.terms import Busy, RateLimited
from gateway.ra.profile import Quota
from gateway.store.acme import OrderChange
from gateway.validation.interfaces import ValidationFailed
from tests.flow.enrollment.acme_world import (
    ACME_QUICK,
    SOURCE,
    AcmeWorld,
    account,
    answer,
    csr,
    dns,
    finalize,
    prove,
    ready,
)
from tests.flow.enrollment.conftest import NewAcmeWorld
from tests.flow.enrollment.world import FIND, POLL, PROFILE, FlakyStore

NAME = "www.example.com"


async def prepared(new_acme_world: NewAcmeWorld) -> tuple[AcmeWorld, Any, Any, Any]:
    """Return a world with one worker, an account and its ready order."""
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    return world, acme, who, await ready(world, acme, who, NAME)


async def until_over(world: AcmeWorld, acme: Any, who: Any, id: str) -> Any:
    """Let time pass and the background work until an order has ended."""
    for _ in range(60):
        world.clock.advance(timedelta(seconds=61))
        await acme.run_due(world.snapshot)
        for _ in range(50):
            order = await acme.find_order(world.snapshot, PROFILE, who, id, wait=False)
            if order.status is not OrderStatus.PROCESSING:
                return order
            await asyncio.sleep(0.01)
            if not acme._finalization._works:
                break
    raise AssertionError("the order never ended")


async def test_order_goes_from_pending_to_its_certificate(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME, "*.example.com")), SOURCE)
    assert (order.status, len(order.authorizations)) == (OrderStatus.PENDING, 2)
    order = await prove(world, acme, who, order)
    assert order.status is OrderStatus.READY
    done = await finalize(world, acme, who, order, csr(NAME, "*.example.com"))
    assert done.status is OrderStatus.VALID
    leaf, *_ = await acme.certificate(world.snapshot, PROFILE, who, order.id)
    assert {san.value for san in parse_certificate(leaf).sans} == {NAME, "*.example.com"}
    row = await world.store.find_certificate(done.certificate or b"")
    assert row is not None
    assert (row.requester, row.protocol) == (f"acme:{who.id}", Protocol.ACME)
    events = [event for event in await world.events() if event.startswith("acme.")]
    assert events[0] == "acme.account.created"
    assert events[-2:] == ["acme.order.processing", "acme.order.valid"]


async def test_same_csr_again_gets_the_same_certificate(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    first = await finalize(world, acme, who, order, csr(NAME))
    assert await finalize(world, acme, who, order, csr(NAME)) == first
    assert len(world.ca.issued()) == 1


async def test_another_csr_for_the_same_order_is_refused(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    await finalize(world, acme, who, order, csr(NAME))
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME, key="second"))
    assert refused.value.reason is Reason.ORDER_NOT_READY
    assert len(world.ca.issued()) == 1


async def test_many_workers_and_many_posts_at_once_issue_once(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    workers = [await world.worker(f"w{n}") for n in range(3)]
    who = await account(world, workers[0])
    order = await ready(world, workers[0], who, NAME)
    ends = await asyncio.gather(*(finalize(world, acme, who, order, csr(NAME)) for acme in workers * 3))
    assert {end.status for end in ends} == {OrderStatus.VALID}
    assert len({end.certificate for end in ends}) == 1
    assert len(world.ca.issued()) == 1


async def test_of_two_csrs_at_once_exactly_one_wins(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    one, two = await world.worker("w1"), await world.worker("w2")
    who = await account(world, one)
    order = await ready(world, one, who, NAME)
    ends = await asyncio.gather(
        finalize(world, one, who, order, csr(NAME)),
        finalize(world, two, who, order, csr(NAME, key="second")),
        return_exceptions=True,
    )
    refused = [end for end in ends if isinstance(end, Rejection)]
    assert [end.reason for end in refused] == [Reason.ORDER_NOT_READY]
    assert len(world.ca.issued()) == 1


@pytest.mark.parametrize(
    ("der", "said"),
    [
        pytest.param(b"\x30\x00", "not three parts", id="no CSR"),
        pytest.param(csr("other.example.com"), "lacks www", id="another name"),
        pytest.param(csr(NAME, "other.example.com"), "has other", id="one name more"),
        pytest.param(csr("*.example.com"), "lacks", id="the wildcard of it"),
        pytest.param(csr(subject=""), "lacks", id="no name"),
        pytest.param(csr(NAME, subject="CN=other.example.com"), "common name", id="another common name"),
        pytest.param(csr(NAME, identifiers=dns("a.b")), "has a.b", id="an unlisted one more"),
    ],
)
async def test_csr_that_does_not_fit_leaves_the_order_ready(new_acme_world: NewAcmeWorld, der: bytes, said: str) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    with pytest.raises(Rejection, match=said) as refused:
        await finalize(world, acme, who, order, der)
    assert refused.value.reason is Reason.BAD_CSR
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.VALID


async def test_name_in_the_common_name_alone_is_certified_as_alternative_name(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    assert (await finalize(world, acme, who, order, csr(subject=f"CN={NAME.upper()}"))).status is OrderStatus.VALID
    [leaf] = [parse_certificate(der) for der in world.ca.issued()]
    assert [san.value for san in leaf.sans] == [NAME]


async def test_policy_refuses_the_csr_and_the_order_stays_ready(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.policy = world.policy | {"key": {"ec": ["P-384"]}}
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.POLICY_KEY
    assert (await acme.find_order(world.snapshot, PROFILE, who, order.id)).status is OrderStatus.READY
    assert world.ca.calls == []
    world.policy = world.policy | {"key": {}}
    assert (await finalize(world, acme, who, order, csr(NAME, key="second"))).status is OrderStatus.VALID


async def test_quota_of_certificates_is_told_with_retry_after_and_the_order_stays_ready(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    world.profile_options["per_profile"] = Quota(1, timedelta(hours=1))
    acme = await world.worker()
    who = await account(world, acme)
    await finalize(world, acme, who, await ready(world, acme, who, NAME), csr(NAME))
    order = await ready(world, acme, who, NAME)
    with pytest.raises(RateLimited) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.retry_after == 3600
    assert (await acme.find_order(world.snapshot, PROFILE, who, order.id)).status is OrderStatus.READY


async def test_pending_order_is_not_finalized(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.ORDER_NOT_READY


async def test_order_that_expired_is_invalid_and_not_finalized(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.clock.advance(timedelta(days=8))
    assert (await acme.find_order(world.snapshot, PROFILE, who, order.id)).status is OrderStatus.INVALID
    with pytest.raises(Rejection):
        await finalize(world, acme, who, order, csr(NAME))


async def test_authorization_that_is_over_keeps_a_ready_order_from_its_certificate(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    await acme.deactivate_authorization(world.snapshot, PROFILE, who, order.authorizations[0], SOURCE)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.ORDER_NOT_READY
    assert world.ca.calls == []


@pytest.mark.parametrize("fault", ["not sent", "not sent twice"])
async def test_ca_outage_is_no_refusal_and_ends_with_the_certificate(new_acme_world: NewAcmeWorld, fault: str) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.ca.faults = ["not sent"] * (2 if "twice" in fault else 1)
    waiting = await finalize(world, acme, who, order, csr(NAME))
    assert waiting.status is OrderStatus.PROCESSING
    assert 1 <= (acme.retry_after(waiting) or 0) <= 60
    assert await finalize(world, acme, who, order, csr(NAME)) == waiting
    assert (await until_over(world, acme, who, order.id)).status is OrderStatus.VALID
    assert len(world.ca.issued()) == 1


async def test_ca_that_refuses_for_good_ends_the_order(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.ca.faults = ["rejected"]
    ended = await finalize(world, acme, who, order, csr(NAME))
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert ended.error.reason is Reason.UPSTREAM_REJECTED
    with pytest.raises(Rejection):
        await finalize(world, acme, who, order, csr(NAME))


async def test_outage_past_the_orders_time_ends_it_without_a_certificate(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.ca.faults = ["not sent"] * 2
    await finalize(world, acme, who, order, csr(NAME))
    world.clock.advance(timedelta(days=8))
    ended = await until_over(world, acme, who, order.id)
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert ended.error.reason is Reason.UPSTREAM_UNAVAILABLE
    assert world.ca.issued() == []


async def test_slow_ca_answers_processing_and_a_read_that_waits_sees_the_end(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(finalize_wait="1s")
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    world.ca.faults = ["gate"]
    waiting = await finalize(world, acme, who, order, csr(NAME))
    assert waiting.status is OrderStatus.PROCESSING
    assert acme.retry_after(waiting) == ACME_QUICK.retry
    read = asyncio.create_task(acme.find_order(world.snapshot, PROFILE, who, order.id))
    await asyncio.sleep(0.05)
    world.ca.gate.set()
    assert (await read).status is OrderStatus.VALID


async def test_ca_of_an_hour_is_followed_by_whoever_finds_the_order_due(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(POLL, finalize_wait="1s")
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    world.ca.faults = ["pending", *["pending"] * 3]
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.PROCESSING
    second = await world.worker("w2")
    authority = second._means.authority
    for _ in range(6):
        world.clock.advance(timedelta(minutes=15))
        await authority.recover(world.snapshot)
    ended = await until_over(world, second, who, order.id)
    assert ended.status is OrderStatus.VALID
    assert [call.split()[0] for call in world.ca.calls] == ["issue", "poll", "poll", "poll", "poll"]


async def test_approval_of_an_operator_ends_the_order(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    world.profile_options["manual_approval"] = True
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.PROCESSING
    [row] = await world.rows()
    await world.administration().approve(row.id, "uid:0 (root)")
    await acme._means.authority.recover(world.snapshot)
    assert (await until_over(world, acme, who, order.id)).status is OrderStatus.VALID


async def test_operator_who_refuses_ends_the_order_as_invalid(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    world.profile_options["manual_approval"] = True
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    await finalize(world, acme, who, order, csr(NAME))
    [row] = await world.rows()
    await world.administration().deny(row.id, "uid:0 (root)", "not you")
    assert (await until_over(world, acme, who, order.id)).status is OrderStatus.INVALID
    assert world.ca.issued() == []


class DyingStore(FlakyStore):
    """A store that stops answering one method, before or after it did its work: what a crash looks like to others."""

    def __init__(self, store: Any, method: str, nth: int, when: str) -> None:
        super().__init__(store)
        self._dies = (method, nth, when)
        self._count = 0
        self.dead = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        inner = super().__getattr__(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead.is_set():
                await asyncio.Event().wait()
            method, nth, when = self._dies
            if name != method:
                return await inner(*args, **kwargs)
            self._count += 1
            if self._count != nth:
                return await inner(*args, **kwargs)
            if when == "after":
                await inner(*args, **kwargs)
            self.dead.set()
            return await asyncio.Event().wait()

        return call


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "nth"),
    [
        pytest.param("change_order", 1, id="order becomes processing"),
        pytest.param("open", 1, id="ledger row is opened"),
        pytest.param("transition", 1, id="certificate is recorded"),
        pytest.param("change_order", 2, id="order becomes valid"),
    ],
)
@pytest.mark.parametrize("capabilities", [FIND], ids=["find"])
async def test_crash_between_any_two_steps_issues_once_and_the_account_gets_it(
    new_acme_world: NewAcmeWorld, capabilities: Capability, method: str, nth: int, when: str
) -> None:
    world = new_acme_world(capabilities, finalize_wait="1s")
    healthy = await world.worker("w2")
    who = await account(world, healthy)
    order = await ready(world, healthy, who, NAME)
    store = DyingStore(await world.open_store("w1"), method, nth, when)
    dying = await world.worker("w1", store)
    lost = asyncio.create_task(finalize(world, dying, who, order, csr(NAME)))
    await store.dead.wait()
    lost.cancel()
    for _ in range(4):
        world.clock.advance(timedelta(seconds=70))
        await healthy._means.authority.recover(world.snapshot)
    current = await healthy.find_order(world.snapshot, PROFILE, who, order.id, wait=False)
    if current.status is OrderStatus.READY:
        assert (method, nth, when) == ("change_order", 1, "before")
        current = await finalize(world, healthy, who, order, csr(NAME))
    else:
        current = await until_over(world, healthy, who, order.id)
    assert current.status is OrderStatus.VALID
    assert len({parse_certificate(der).serial for der in world.ca.issued()}) == 1
    assert await healthy.certificate(world.snapshot, PROFILE, who, order.id)
    await dying.drain(0)
    await dying._means.authority.drain(0)


async def test_certificate_of_long_ago_is_found_by_the_order_and_not_issued_again(new_acme_world: NewAcmeWorld) -> None:
    """The window in which the corridor knows a request again is over; the order still finds its row."""
    world = new_acme_world()
    healthy = await world.worker("w2")
    who = await account(world, healthy)
    order = await ready(world, healthy, who, NAME)
    store = DyingStore(await world.open_store("w1"), "change_order", 2, "before")
    dying = await world.worker("w1", store)
    lost = asyncio.create_task(finalize(world, dying, who, order, csr(NAME)))
    await store.dead.wait()
    lost.cancel()
    world.clock.advance(timedelta(days=2))
    await world.store.expire(world.clock())
    ended = await until_over(world, healthy, who, order.id)
    assert ended.status is OrderStatus.VALID
    assert len(world.ca.issued()) == 1
    await dying.drain(0)
    await dying._means.authority.drain(0)


async def test_order_is_reserved_for_one_row_even_where_nobody_remembers_the_request(new_acme_world: NewAcmeWorld) -> None:
    """The last wall: a worker that enrolls an order again long after its certificate was issued is refused by the ledger."""
    world, acme, who, order = await prepared(new_acme_world)
    done = await finalize(world, acme, who, order, csr(NAME))
    world.clock.advance(timedelta(days=2))
    await world.store.expire(world.clock())
    proved = await acme._finalization._proofs.prove(
        world.snapshot, who, replace(done, status=OrderStatus.READY), read_csr(csr(NAME)), begun=True
    )
    outcome = await acme._means.authority.enroll(world.snapshot, proved.enrollment)
    assert getattr(outcome, "reason", None) is Reason.CREDENTIAL_USED
    assert len(world.ca.issued()) == 1


async def test_store_that_fails_after_the_certificate_was_issued_is_waited_for(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    first = await world.open_store("w1")
    store = FlakyStore(first)
    acme = await world.worker("w1", store)
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    changed: list[OrderChange] = []

    class Choosy(FlakyStore):
        async def change_order(self, change: OrderChange) -> Any:
            if change.to is OrderStatus.VALID and len(changed) < 2:
                changed.append(change)
                raise StoreUnavailable("the disk is full")
            return await first.change_order(change)

    object.__setattr__(acme._means, "records", Choosy(first))
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.VALID
    assert len(changed) == 2
    assert len(world.ca.issued()) == 1


async def test_store_that_is_down_at_the_beginning_is_busy_and_not_a_refusal(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    store = FlakyStore(await world.open_store("w1"))
    acme = await world.worker("w1", store)
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    store.faults["change_order"] = ["before"]
    with pytest.raises(StoreUnavailable):
        await finalize(world, acme, who, order, csr(NAME))
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.VALID


async def test_client_that_hangs_up_does_not_stop_its_order(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.ca.faults = ["gate"]
    client = asyncio.create_task(finalize(world, acme, who, order, csr(NAME)))
    await world.ca.reached.wait()
    client.cancel()
    world.ca.gate.set()
    ended = await acme.find_order(world.snapshot, PROFILE, who, order.id)
    assert ended.status is OrderStatus.VALID


async def test_refusal_after_processing_was_answered_ends_the_order(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.ca.faults = ["not sent"]
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.PROCESSING
    world.policy = world.policy | {"key": {"ec": ["P-384"]}}
    ended = await until_over(world, acme, who, order.id)
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert ended.error.reason is Reason.POLICY_KEY


async def test_draining_worker_leaves_the_order_to_another(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(FIND, finalize_wait="1s")
    acme, other = await world.worker("w1"), await world.worker("w2")
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    world.ca.faults = ["stall"]
    client = asyncio.create_task(finalize(world, acme, who, order, csr(NAME)))
    await world.ca.reached.wait()
    await acme.drain(0)
    await acme._means.authority.drain(0)
    await asyncio.gather(client, return_exceptions=True)
    with pytest.raises(Busy):
        await finalize(world, acme, who, await ready(world, other, who, "b.example.com"), csr("b.example.com"))
    world.clock.advance(timedelta(seconds=70))
    await other._means.authority.recover(world.snapshot)
    await other._means.authority.recover(world.snapshot)
    assert (await until_over(world, other, who, order.id)).status is OrderStatus.VALID
    assert len(world.ca.issued()) == 1


async def test_records_that_cannot_be_looked_up_are_no_refusal(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    world.clock.advance(timedelta(hours=8))
    world.room.caa = ValidationFailed(Reason.VALIDATION_DNS, "SERVFAIL")
    with pytest.raises(Busy):
        await finalize(world, acme, who, order, csr(NAME))
    world.room.caa = ValidationFailed(Reason.VALIDATION_CAA, "CAA forbids it")
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.VALIDATION_CAA
    world.room.caa = None
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.VALID


async def test_revoked_certificate_is_not_handed_out(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    done = await finalize(world, acme, who, order, csr(NAME))
    await world.administration().revoke_certificate((done.certificate or b"").hex(), RevocationReason.SUPERSEDED, "uid:0")
    with pytest.raises(Rejection) as refused:
        await acme.certificate(world.snapshot, PROFILE, who, done.id)
    assert refused.value.reason is Reason.UNKNOWN_CERTIFICATE


async def test_failed_challenge_ends_the_order(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)
    world.room.good = False
    row = await acme.find_authorization(world.snapshot, PROFILE, who, order.authorizations[0])
    await answer(world, acme, who, row)
    assert (await acme.find_order(world.snapshot, PROFILE, who, order.id)).status is OrderStatus.INVALID
    assert await world.rows() == ()


async def test_order_that_a_worker_held_under_a_clock_that_ran_ahead_is_taken_up(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(FIND, finalize_wait="1s")
    ahead, acme = await world.worker("w1"), await world.worker("w2")
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    world.clock.advance(timedelta(days=3))
    world.ca.faults = ["not sent"] * 2
    waiting = await finalize(world, ahead, who, order, csr(NAME))
    assert waiting.status is OrderStatus.PROCESSING
    world.clock.advance(-timedelta(days=3))
    assert (await until_over(world, acme, who, order.id)).status is OrderStatus.VALID
    assert len(world.ca.issued()) == 1


async def test_what_nobody_proved_is_left_out_of_the_subject(new_acme_world: NewAcmeWorld) -> None:
    world, acme, who, order = await prepared(new_acme_world)
    subject = f"CN={NAME},O=Bank Inc,serialNumber=HRB1,UID=root"
    assert (await finalize(world, acme, who, order, csr(NAME, subject=subject))).status is OrderStatus.VALID
    [leaf] = map(parse_certificate, world.ca.issued())
    assert [(a.value,) for rdn in leaf.subject.rdns for a in rdn] == [(NAME,)]
