"""Accounts of ACME: found by key, bound to external ones, changed, ended (RFC 8555 §7.3)."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.acme import (
    AccountChange,
    AccountStatus,
    AuthorizationRequest,
    KeyChange,
    OrderRequest,
    OrderStatus,
    RevocationRequest,
)
from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection
from gateway.ra.acme import pace
from gateway.ra.acme.terms import KeyInUse, RateLimited
from tests.flow.enrollment.acme_world import (
    OTHER,
    SOURCE,
    account,
    bind,
    csr,
    dns,
    finalize,
    key_named,
    ready,
)
from tests.flow.enrollment.conftest import NewAcmeWorld
from tests.flow.enrollment.world import PROFILE

NAME = "www.example.com"


async def test_same_key_gets_the_same_account_and_nothing_else_of_the_request_counts(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    first, created = await acme.new_account(world.snapshot, PROFILE, key_named("a", contact=("mailto:a@example.com",)), SOURCE)
    assert created
    again = key_named("a", contact=("nonsense",), terms_agreed=False)
    assert await acme.new_account(world.snapshot, PROFILE, again, SOURCE) == (first, False)


async def test_one_key_at_once_on_two_workers_makes_one_account(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    workers = [await world.worker(f"w{n}") for n in range(3)]
    made = await asyncio.gather(*(acme.new_account(world.snapshot, PROFILE, key_named("a"), SOURCE) for acme in workers * 2))
    assert len({one.id for one, _ in made}) == 1
    assert [created for _, created in made].count(True) == 1


async def test_same_key_has_an_account_of_its_own_in_every_directory(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    one, _ = await acme.new_account(world.snapshot, PROFILE, key_named("a"), SOURCE)
    two, created = await acme.new_account(world.snapshot, OTHER, key_named("a"), SOURCE)
    assert created
    assert one.id != two.id
    with pytest.raises(Rejection) as refused:
        await acme.find_account(world.snapshot, OTHER, one.id)
    assert refused.value.reason is Reason.UNKNOWN_ACCOUNT


async def test_only_return_existing_ignores_contact_and_creates_nothing(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    asked = key_named("a", only_existing=True, contact=("mailto:a@example.com",))
    with pytest.raises(Rejection) as refused:
        await acme.new_account(world.snapshot, PROFILE, asked, SOURCE)
    assert refused.value.reason is Reason.UNKNOWN_ACCOUNT
    made = await account(world, acme, "a")
    assert await acme.new_account(world.snapshot, PROFILE, asked, SOURCE) == (made, False)


@pytest.mark.parametrize(
    ("contact", "reason"),
    [
        pytest.param(("mailto:a@example.com",), None, id="mail"),
        pytest.param(("MAILTO:a@example.com",), None, id="scheme in capitals"),
        pytest.param((), None, id="none"),
        pytest.param(("tel:+123",), Reason.CONTACT_UNSUPPORTED, id="telephone"),
        pytest.param(("mailto:a@example.com,b@example.com",), Reason.CONTACT_INVALID, id="two in one"),
        pytest.param(("mailto:a@example.com?subject=x",), Reason.CONTACT_INVALID, id="header fields"),
        pytest.param(("mailto:",), Reason.CONTACT_INVALID, id="empty"),
        pytest.param(("a@example.com",), Reason.CONTACT_INVALID, id="no URL"),
        pytest.param(("mailto:a@example.com",) * 11, Reason.CONTACT_INVALID, id="too many"),
        pytest.param(("http://[::1",), Reason.CONTACT_INVALID, id="damaged URL"),
    ],
)
async def test_contacts(new_acme_world: NewAcmeWorld, contact: tuple[str, ...], reason: Reason | None) -> None:
    world = new_acme_world()
    acme = await world.worker()
    if reason is None:
        assert (await account(world, acme, contact=contact)).contact == contact
        return
    with pytest.raises(Rejection) as refused:
        await account(world, acme, contact=contact)
    assert refused.value.reason is reason


async def test_terms_must_be_agreed_to_and_again_when_they_change(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(terms_of_service="https://example.com/tos-1")
    acme = await world.worker()
    with pytest.raises(Rejection) as refused:
        await account(world, acme, terms_agreed=False)
    assert refused.value.reason is Reason.TERMS_NOT_AGREED
    who = await account(world, acme)
    world.config["terms_of_service"] = "https://example.com/tos-2"
    with pytest.raises(Rejection) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)
    assert refused.value.reason is Reason.TERMS_NOT_AGREED
    who = await acme.change_account(world.snapshot, PROFILE, who, AccountChange(terms_agreed=True), SOURCE)
    await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)


async def test_contact_is_changed_kept_and_taken_away(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme, contact=("mailto:a@example.com",))
    assert await acme.change_account(world.snapshot, PROFILE, who, AccountChange(), SOURCE) == who
    who = await acme.change_account(world.snapshot, PROFILE, who, AccountChange(contact=("mailto:b@example.com",)), SOURCE)
    assert who.contact == ("mailto:b@example.com",)
    who = await acme.change_account(world.snapshot, PROFILE, who, AccountChange(contact=()), SOURCE)
    assert who.contact == ()


async def test_deactivated_account_gets_nothing_more(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(authorization_reuse="1d")
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    ended = await acme.change_account(world.snapshot, PROFILE, who, AccountChange(deactivate=True), SOURCE)
    assert ended.status is AccountStatus.DEACTIVATED
    found = await acme.find_account(world.snapshot, PROFILE, who.id)
    assert found.status is AccountStatus.DEACTIVATED
    s = world.snapshot
    asked = AuthorizationRequest(dns(NAME)[0])
    refusals = [
        acme.new_order(s, PROFILE, found, OrderRequest(dns(NAME)), SOURCE),
        acme.find_order(s, PROFILE, found, order.id),
        acme.list_orders(s, PROFILE, found, None),
        acme.new_authorization(s, PROFILE, found, asked, SOURCE),
        acme.find_authorization(s, PROFILE, found, order.authorizations[0]),
        acme.finalize(s, PROFILE, found, order.id, csr(NAME), SOURCE),
        acme.certificate(s, PROFILE, found, order.id),
        acme.change_account(s, PROFILE, found, AccountChange(contact=()), SOURCE),
        acme.new_account(s, PROFILE, key_named("alice"), SOURCE),
    ]
    for refusal in refusals:
        with pytest.raises(Rejection) as refused:
            await refusal
        assert refused.value.reason is Reason.ACCOUNT_DEACTIVATED
    # Whoever still has the account as it was is refused by what it owns.
    with pytest.raises(Rejection):
        await finalize(world, acme, who, order, csr(NAME))
    with pytest.raises(Rejection):
        await acme.new_order(s, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)
    assert (await acme.find_order(s, PROFILE, who, order.id)).status is OrderStatus.INVALID


async def test_key_change_keeps_orders_and_refuses_keys_in_use(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    order = await ready(world, acme, who, NAME)

    def change(to: str, old: str = who.thumbprint) -> KeyChange:
        return KeyChange("https://pki.test/acme/corp/acct/x", old, "{}", to)

    with pytest.raises(KeyInUse) as used:
        await acme.change_key(world.snapshot, PROFILE, who, change(other.thumbprint), SOURCE)
    assert used.value.account == other.id
    with pytest.raises(KeyInUse):
        await acme.change_key(world.snapshot, PROFILE, who, change(who.thumbprint), SOURCE)
    with pytest.raises(Rejection) as refused:
        await acme.change_key(world.snapshot, PROFILE, who, change("new", old="another"), SOURCE)
    assert refused.value.reason is Reason.MALFORMED
    changed = await acme.change_key(world.snapshot, PROFILE, who, change("new"), SOURCE)
    assert (changed.id, changed.thumbprint) == (who.id, "new")
    with pytest.raises(Rejection):
        await acme.change_key(world.snapshot, PROFILE, who, change("newer"), SOURCE)
    assert (await finalize(world, acme, changed, order, csr(NAME))).status is OrderStatus.VALID


async def test_external_account_is_required_proved_and_bound_once(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required")
    acme = await world.worker()
    good = await world.external()
    with pytest.raises(Rejection) as refused:
        await account(world, acme)
    assert refused.value.reason is Reason.EXTERNAL_ACCOUNT_REQUIRED
    for wrong in (bind("kid-1", b"x" * 32), bind("nobody"), replace(good, algorithm="HS384")):
        with pytest.raises(Rejection) as refused:
            await account(world, acme, binding=wrong)
        assert refused.value.reason is Reason.CREDENTIAL_INVALID
        assert refused.value.detail == "the external account binding is not valid"
    made = await account(world, acme, binding=good)
    assert (made.external_account, made.binding) == ("kid-1", good.text)
    with pytest.raises(Rejection) as refused:
        await account(world, acme, "bob", binding=good)
    assert refused.value.reason is Reason.CREDENTIAL_USED


async def test_external_account_for_many_is_bound_as_often_as_it_may(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required")
    workers = [await world.worker("w1"), await world.worker("w2")]
    binding = await world.external(max_accounts=2)
    ends = await asyncio.gather(
        *(account(world, workers[n % 2], f"user-{n}", binding=binding) for n in range(5)), return_exceptions=True
    )
    assert [getattr(end, "reason", None) for end in ends].count(Reason.CREDENTIAL_USED) == 3


async def test_binding_is_ignored_and_not_echoed_where_none_are_taken(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    made = await account(world, acme, binding=bind("nobody"))
    assert (made.external_account, made.binding) == (None, None)


async def test_accounts_of_a_revoked_external_account_get_nothing_more(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required")
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external())
    order = await ready(world, acme, who, NAME)
    await world.store.revoke_external_account("kid-1", world.clock(), AuditEvent("eab.revoked", world.clock(), "test", "done"))
    for refusal in (
        finalize(world, acme, who, order, csr(NAME)),
        acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE),
    ):
        with pytest.raises(Rejection) as refused:
            await refusal
        assert refused.value.reason is Reason.CREDENTIAL_REVOKED
    assert world.ca.calls == []


async def test_owner_of_the_external_account_owns_the_certificate(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="optional")
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external())
    done = await finalize(world, acme, who, await ready(world, acme, who, NAME), csr(NAME))
    row = await world.store.find_certificate(done.certificate or b"")
    assert row is not None
    assert row.owner == "mary"


async def test_new_accounts_of_one_address_are_limited(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"accounts_per_address": {"count": 2, "window": "1h"}})
    acme = await world.worker()
    for name in ("a", "b"):
        await account(world, acme, name)
    with pytest.raises(RateLimited) as refused:
        await account(world, acme, "c")
    assert refused.value.retry_after == 3600
    await acme.new_account(world.snapshot, PROFILE, key_named("c"), "192.0.2.8")
    world.clock.advance(timedelta(hours=2))
    await account(world, acme, "d")


async def test_addresses_of_one_ipv6_network_are_one(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"accounts_per_address": {"count": 1, "window": "1h"}})
    acme = await world.worker()
    await acme.new_account(world.snapshot, PROFILE, key_named("a"), "2001:db8::1")
    with pytest.raises(RateLimited):
        await acme.new_account(world.snapshot, PROFILE, key_named("b"), "2001:db8::2")
    await acme.new_account(world.snapshot, PROFILE, key_named("b"), "2001:db8:0:1::1")


async def test_nonces_serve_once_on_any_worker_and_outlive_it(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    one, two = await world.worker("w1"), await world.worker("w2")
    nonce = one.new_nonce()
    assert sorted(await asyncio.gather(one.redeem_nonce(nonce), two.redeem_nonce(nonce))) == [False, True]
    waiting, late = two.new_nonce(), one.new_nonce()
    world.clock.advance(timedelta(minutes=59))
    assert await (await world.worker("w3")).redeem_nonce(waiting)
    world.clock.advance(timedelta(minutes=2))
    assert not await one.redeem_nonce(late)
    for forged in ("", "x", waiting[:-1] + ("A" if waiting[-1] != "A" else "B"), "ü" * 43):
        assert not await one.redeem_nonce(forged)


async def test_refusal_of_an_account_is_on_record(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(Rejection):
        await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns("www.elsewhere.test")), SOURCE)
    told = (await world.audit())[-1]
    assert (told["event"], told["actor"], told["decision"]) == ("acme.order.rejected", f"acme:{who.id}", "refused")
    assert "www.elsewhere.test" in told["detail"]


async def test_account_that_was_never_bound_gets_nothing_where_that_is_demanded_by_now(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(authorization_reuse="1d")
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    done = await ready(world, acme, who, NAME)
    await finalize(world, acme, who, done, csr(NAME))
    world.config["external_account"] = "required"
    s = world.snapshot
    for refusal in (
        acme.new_order(s, PROFILE, who, OrderRequest(dns(NAME)), SOURCE),
        acme.new_authorization(s, PROFILE, who, AuthorizationRequest(dns(NAME)[0]), SOURCE),
        acme.finalize(s, PROFILE, who, order.id, csr(NAME, key="second"), SOURCE),
    ):
        with pytest.raises(Rejection) as refused:
            await refusal
        assert refused.value.reason is Reason.EXTERNAL_ACCOUNT_REQUIRED
    leaf, *_ = await acme.certificate(s, PROFILE, who, done.id)
    await acme.revoke(s, PROFILE, who, RevocationRequest(leaf), SOURCE)


async def test_profile_that_demands_an_external_account_does_so_whatever_directory_offers_it(
    new_acme_world: NewAcmeWorld,
) -> None:
    world = new_acme_world(profiles={"short": "shorter"})
    world.others["external_account"] = "required"
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(Rejection) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME), profile="short"), SOURCE)
    assert refused.value.reason is Reason.EXTERNAL_ACCOUNT_REQUIRED
    await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)


async def test_account_that_is_refused_all_the_time_has_to_wait_and_fills_no_audit_trail(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    for _ in range(pace.MOST):
        with pytest.raises(Rejection):
            await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns("www.elsewhere.test")), SOURCE)
    rows = len(await world.events())
    for _ in range(5):
        with pytest.raises(RateLimited) as refused:
            await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)
        assert 0 < refused.value.retry_after <= 601
    assert len(await world.events()) == rows
    await acme.new_order(world.snapshot, PROFILE, other, OrderRequest(dns(NAME)), SOURCE)
    world.clock.advance(pace.WINDOW)
    await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(NAME)), SOURCE)


async def test_account_that_changes_all_the_time_has_to_wait_and_may_still_end(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    for n in range(pace.MOST):
        change = AccountChange(contact=(f"mailto:a{n}@example.com",))
        who = await acme.change_account(world.snapshot, PROFILE, who, change, SOURCE)
    with pytest.raises(RateLimited):
        await acme.change_account(world.snapshot, PROFILE, who, AccountChange(contact=()), SOURCE)
    ended = await acme.change_account(world.snapshot, PROFILE, who, AccountChange(deactivate=True), SOURCE)
    assert ended.status is AccountStatus.DEACTIVATED
