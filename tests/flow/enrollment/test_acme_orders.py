"""Orders and authorizations of ACME before anything is issued, renewal information and revocation (RFC 8555, RFC 9773)."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import pytest

from gateway.acme import (
    AuthorizationRequest,
    AuthorizationStatus,
    CertificateId,
    ChallengeStatus,
    IdentifiersRejected,
    Incident,
    OrderRequest,
    OrderStatus,
    RevocationRequest,
)
from gateway.audit import AuditEvent
from gateway.config.policy import Unlisted
from gateway.errors import Reason, Rejection
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName, RevocationReason
from gateway.pki.certificate import parse_certificate
from gateway.pki.jwk import thumbprint_of
from gateway.pki.keys import public_key_der
from gateway.ra.acme.terms import RateLimited, find_policy
from gateway.store.acme import Affected
from gateway.validation.interfaces import Validated
from tests.flow.enrollment.acme_world import (
    OTHER,
    SOURCE,
    AcmeWorld,
    account,
    answer,
    csr,
    dns,
    finalize,
    key_named,
    prove,
    ready,
)
from tests.flow.enrollment.conftest import NewAcmeWorld
from tests.flow.enrollment.world import PROFILE, device_key

NAME = "www.example.com"
ALL = ("http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01", "device-attest-01")
IP = Identifier(IdentifierType.IP, "192.0.2.10")
DEVICE = Identifier(IdentifierType.PERMANENT_IDENTIFIER, "C02XYZ")


def ordered(*names: str, **members: Any) -> OrderRequest:
    return OrderRequest(dns(*names), **members)


def certificate_id(der: bytes) -> CertificateId:
    certificate = parse_certificate(der)
    return CertificateId("the-text", certificate.authority_key_id or b"", certificate.serial)


@pytest.mark.parametrize(
    ("identifier", "types"),
    [
        pytest.param(dns(NAME)[0], set(ALL) - {"device-attest-01"}, id="name"),
        pytest.param(dns("*.example.com")[0], {"dns-01", "dns-account-01", "dns-persist-01"}, id="wildcard"),
        pytest.param(IP, {"http-01", "tls-alpn-01"}, id="address"),
        pytest.param(DEVICE, {"device-attest-01"}, id="device"),
    ],
)
async def test_challenges_that_are_offered(new_acme_world: NewAcmeWorld, identifier: Identifier, types: set[str]) -> None:
    world = new_acme_world(validation={"challenges": ALL})
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest((identifier,)), SOURCE)
    row = await acme.find_authorization(world.snapshot, PROFILE, who, order.authorizations[0])
    assert {challenge.type for challenge in row.challenges} == types
    assert (row.identifier.value, row.wildcard) == (identifier.value.removeprefix("*."), identifier.wildcard)
    tokens = [challenge.token for challenge in row.challenges if challenge.type != ChallengeType.DNS_PERSIST_01]
    assert all(len(token) == 22 for token in tokens)
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(
    ("identifiers", "policy", "bad"),
    [
        pytest.param(dns("www.elsewhere.test", NAME, "b.elsewhere.test"), {}, 2, id="policy, each name by itself"),
        pytest.param((Identifier(IdentifierType.IP, "198.51.100.1"),), {}, 1, id="address outside"),
        pytest.param(dns("*.com"), {}, 1, id="wildcard of a top-level domain"),
        pytest.param(dns(NAME), {"dns": (r".*\.internal\.example\.com",)}, 1, id="external account, another name"),
        pytest.param((IP,), {"dns": (".*",)}, 1, id="external account of names, an address"),
        pytest.param(dns("*.example.com"), {"wildcards": False}, 1, id="external account without wildcards"),
        pytest.param(dns(NAME), {"challenges": frozenset({ChallengeType.DEVICE_ATTEST_01})}, 1, id="no challenge is left"),
        pytest.param((DEVICE,), {}, 1, id="device where no attestation is taken"),
    ],
)
async def test_names_that_may_not_be_ordered(
    new_acme_world: NewAcmeWorld, identifiers: tuple[Identifier, ...], policy: Mapping[str, Any], bad: int
) -> None:
    world = new_acme_world(external_account="optional")
    acme = await world.worker()
    binding = await world.external(**policy) if policy else None
    who = await account(world, acme, binding=binding)
    with pytest.raises(IdentifiersRejected) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(identifiers), SOURCE)
    assert len(refused.value.problems) == bad


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        pytest.param({"max_identifiers": 2}, {}, id="profile"),
        pytest.param({}, {"max_identifiers": 2}, id="external account"),
    ],
)
async def test_too_many_names(new_acme_world: NewAcmeWorld, config: dict[str, Any], policy: dict[str, Any]) -> None:
    world = new_acme_world(external_account="optional", **config)
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external(**policy))
    await acme.new_order(world.snapshot, PROFILE, who, ordered("a.example.com", "b.example.com"), SOURCE)
    with pytest.raises(Rejection, match="at most 2"):
        await acme.new_order(world.snapshot, PROFILE, who, ordered("a.example.com", "b.example.com", NAME), SOURCE)


async def test_name_that_policy_would_drop_is_refused(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    world.policy["san"] = {"dns": {"patterns": [r".*\.example\.com"]}, "unlisted": Unlisted.DROP}
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(IdentifiersRejected):
        await acme.new_order(world.snapshot, PROFILE, who, OrderRequest((*dns(NAME), IP)), SOURCE)


async def test_times_that_are_asked_for_are_given_or_refused(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    now = world.clock().replace(microsecond=0)
    for times in ({"not_after": now + timedelta(days=400)}, {"not_before": now - timedelta(days=2)}, {"not_after": now}):
        with pytest.raises(Rejection) as refused:
            await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, **times), SOURCE)
        assert refused.value.reason is Reason.POLICY_VALIDITY
    order = await ready(world, acme, who, NAME, not_before=now, not_after=now + timedelta(days=30))
    world.clock.advance(timedelta(hours=5))
    assert (await finalize(world, acme, who, order, csr(NAME))).status is OrderStatus.VALID
    [leaf] = map(parse_certificate, world.ca.issued())
    assert (leaf.not_before, leaf.not_after) == (now, now + timedelta(days=30))


async def test_external_account_bounds_validity_keys_and_number_of_certificates(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required")
    acme = await world.worker()
    binding = await world.external(max_validity=timedelta(days=7), key_types=frozenset({"P-256"}), max_certificates=1)
    who = await account(world, acme, binding=binding)
    now = world.clock()
    with pytest.raises(Rejection) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, not_after=now + timedelta(days=8)), SOURCE)
    assert refused.value.reason is Reason.POLICY_VALIDITY
    order = await ready(world, acme, who, NAME)
    await finalize(world, acme, who, order, csr(NAME))
    [leaf] = map(parse_certificate, world.ca.issued())
    assert leaf.not_after - leaf.not_before < timedelta(days=7)
    second = await ready(world, acme, who, NAME)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, second, csr(NAME, key="second"))
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    assert (await acme.find_order(world.snapshot, PROFILE, who, second.id)).status is OrderStatus.READY


async def test_key_of_a_kind_that_the_external_account_may_not_have(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required")
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external(key_types=frozenset({"rsa"})))
    order = await ready(world, acme, who, NAME)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.BAD_CSR


@pytest.mark.parametrize("directory", [PROFILE, OTHER])
async def test_key_of_any_account_is_not_certified(new_acme_world: NewAcmeWorld, directory: ProfileName) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    thumbprint = thumbprint_of(public_key_der(device_key("web")))
    assert thumbprint
    await acme.new_account(world.snapshot, directory, key_named("bob", thumbprint=thumbprint), SOURCE)
    order = await ready(world, acme, who, NAME)
    with pytest.raises(Rejection, match="key of an account"):
        await finalize(world, acme, who, order, csr(NAME))


async def test_attested_key_alone_is_certified_and_the_name_may_be_left_out(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(validation={"challenges": ("device-attest-01",)})
    world.policy["subject"] = {"template": "CN={attested.serial}"}
    key = key_sha256("device")
    world.room.validated = Validated(key, MappingProxyType({"serial": "C02XYZ"}))
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest((DEVICE,)), SOURCE)
    order = await prove(world, acme, who, order)
    with pytest.raises(Rejection, match="attested") as refused:
        await finalize(world, acme, who, order, csr(key="another", identifiers=(DEVICE,)))
    assert refused.value.reason is Reason.BAD_CSR
    done = await finalize(world, acme, who, order, csr(key="device"))
    assert done.status is OrderStatus.VALID
    [leaf] = map(parse_certificate, world.ca.issued())
    assert leaf.sans == ()
    assert leaf.subject.rdns[0][0].value == "C02XYZ"


async def test_what_a_device_calls_itself_is_no_name_even_where_a_template_would_take_it(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(validation={"challenges": ("device-attest-01",)})
    world.policy["subject"] = {"template": "CN={CN}"}
    world.room.validated = Validated(key_sha256("device"), MappingProxyType({"serial": "C02XYZ"}))
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest((DEVICE,)), SOURCE)
    order = await prove(world, acme, who, order)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(key="device", subject="CN=admin", identifiers=(DEVICE,)))
    assert refused.value.reason is Reason.POLICY_SUBJECT
    done = await finalize(world, acme, who, order, csr(key="device", subject="CN=C02XYZ", identifiers=(DEVICE,)))
    assert done.status is OrderStatus.VALID


async def test_name_of_another_device_is_not_certified(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(validation={"challenges": ("device-attest-01",)})
    world.policy["subject"] = {"template": "CN={attested.serial}"}
    world.room.validated = Validated(key_sha256("device"), MappingProxyType({"serial": "C02XYZ"}))
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest((DEVICE,)), SOURCE)
    order = await prove(world, acme, who, order)
    other = Identifier(IdentifierType.PERMANENT_IDENTIFIER, "another")
    for named in ((other,), (DEVICE, other), dns(NAME)):
        with pytest.raises(Rejection) as refused:
            await finalize(world, acme, who, order, csr(key="device", identifiers=named))
        assert refused.value.reason is Reason.BAD_CSR


def key_sha256(name: str) -> bytes:
    return sha256(public_key_der(device_key(name))).digest()


async def test_vouched_names_are_born_valid_and_the_order_ready(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(validation={"mode": "prevalidated"})
    world.modes = ("prevalidated",)
    world.room.vouched = True
    acme = await world.worker()
    who = await account(world, acme)
    order = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, "*.example.com"), SOURCE)
    assert order.status is OrderStatus.READY
    assert world.room.asked == [NAME, "*.example.com"]
    row = await acme.find_authorization(world.snapshot, PROFILE, who, order.authorizations[0])
    assert row.status is AuthorizationStatus.VALID
    assert [(one.status, one.validated_at is not None) for one in row.challenges] == [(ChallengeStatus.VALID, True)]
    assert (await finalize(world, acme, who, order, csr(NAME, "*.example.com"))).status is OrderStatus.VALID


async def test_name_that_a_trust_mode_refuses_is_rejected_by_name(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(validation={"mode": "client_ip_forward"})
    world.modes = ("client_ip_forward",)
    world.room.vouched = True
    world.room.refuses = {"b.example.com": Reason.VALIDATION_UNAUTHORIZED}
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(IdentifiersRejected) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, ordered("a.example.com", "b.example.com"), SOURCE)
    assert [problem[0].value for problem in refused.value.problems] == ["b.example.com"]


async def test_trust_mode_of_the_external_account_counts_and_one_that_is_not_built_fails_closed(
    new_acme_world: NewAcmeWorld,
) -> None:
    world = new_acme_world(external_account="required")
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external(mode="none"))
    with pytest.raises(Rejection) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)
    assert refused.value.reason is Reason.DENIED
    world.modes = ("standard", "none")
    await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)


async def test_trust_mode_of_the_external_account_counts_in_its_own_directory_alone(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(external_account="required", profiles={"short": "shorter"})
    world.modes = ("standard", "webhook")
    acme = await world.worker()
    who = await account(world, acme, binding=await world.external(mode="webhook"))
    world.room.vouched = True
    here = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)
    assert here.status is OrderStatus.READY
    world.room.vouched = False
    there = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, profile="short"), SOURCE)
    assert there.status is OrderStatus.PENDING
    policy = (await find_policy(world.store, who, OTHER, world.clock()))[1]
    assert policy.mode is None


async def test_profiles_by_name(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(profiles={"short": "shorter", "gone": "not there"})
    acme = await world.worker()
    who = await account(world, acme)
    for name in ("nobody", "gone", "corp"):
        with pytest.raises(Rejection) as refused:
            await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, profile=name), SOURCE)
        assert refused.value.reason is Reason.UNKNOWN_ACME_PROFILE
    order = await ready(world, acme, who, NAME, profile="short")
    assert (order.directory, order.profile, order.asked_profile) == (PROFILE, OTHER, "short")
    done = await finalize(world, acme, who, order, csr(NAME))
    row = await world.store.find_certificate(done.certificate or b"")
    assert row is not None
    assert row.profile == OTHER


async def test_what_belongs_to_another_account_is_not_there(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    order = await ready(world, acme, who, NAME)
    done = await finalize(world, acme, who, order, csr(NAME))
    row = await acme.find_authorization(world.snapshot, PROFILE, who, order.authorizations[0])
    s = world.snapshot
    for attempt in (
        acme.find_order(s, PROFILE, other, order.id),
        acme.find_authorization(s, PROFILE, other, row.id),
        acme.deactivate_authorization(s, PROFILE, other, row.id, SOURCE),
        acme.answer_challenge(s, PROFILE, other, row.id, row.challenges[0].id, {}, SOURCE),
        acme.finalize(s, PROFILE, other, order.id, csr(NAME), SOURCE),
        acme.certificate(s, PROFILE, other, done.id),
        acme.find_order(s, PROFILE, who, "nothing"),
        acme.answer_challenge(s, PROFILE, who, row.id, "nothing", {}, SOURCE),
    ):
        with pytest.raises(Rejection) as refused:
            await attempt
        assert refused.value.reason is Reason.UNKNOWN_TRANSACTION
    with pytest.raises(Rejection) as refused:
        await acme.find_order(s, OTHER, who, order.id)
    assert refused.value.reason is Reason.UNKNOWN_ACCOUNT
    assert (await acme.list_orders(s, PROFILE, other, None)).orders == ()


async def test_list_of_orders_has_pages_and_leaves_invalid_ones_out(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={})
    acme = await world.worker()
    who = await account(world, acme)
    made = [(await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)) for _ in range(60)]
    await acme.deactivate_authorization(world.snapshot, PROFILE, who, made[0].authorizations[0], SOURCE)
    first = await acme.list_orders(world.snapshot, PROFILE, who, None)
    second = await acme.list_orders(world.snapshot, PROFILE, who, first.after)
    assert (len(first.orders), len(second.orders), second.after) == (50, 9, None)
    assert set(first.orders + second.orders) == {order.id for order in made[1:]}


@pytest.mark.parametrize("limit", ["orders_per_account", "orders_per_external_account", "orders"])
async def test_orders_are_limited_with_retry_after(new_acme_world: NewAcmeWorld, limit: str) -> None:
    world = new_acme_world(external_account="required", limits={limit: {"count": 1, "window": "1h"}})
    acme = await world.worker()
    binding = await world.external(max_accounts=2)
    who, other = await account(world, acme, binding=binding), await account(world, acme, "bob", binding=binding)
    await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)
    with pytest.raises(RateLimited) as refused:
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)
    assert refused.value.retry_after >= 3600
    if limit == "orders_per_account":
        await acme.new_order(world.snapshot, PROFILE, other, ordered(NAME), SOURCE)
    else:
        with pytest.raises(RateLimited):
            await acme.new_order(world.snapshot, PROFILE, other, ordered(NAME), SOURCE)


async def test_authorizations_serve_again_only_where_the_profile_says_so_and_while_they_are_fresh(
    new_acme_world: NewAcmeWorld,
) -> None:
    world = new_acme_world(authorization_reuse="1d")
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    first = await ready(world, acme, who, NAME)
    again = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)
    assert (again.status, again.authorizations) == (OrderStatus.READY, first.authorizations)
    for account_, names in ((other, (NAME,)), (who, ("*.www.example.com",)), (who, ("a.www.example.com",))):
        fresh = await acme.new_order(world.snapshot, PROFILE, account_, ordered(*names), SOURCE)
        assert fresh.status is OrderStatus.PENDING
    world.clock.advance(timedelta(hours=25))
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.PENDING
    del world.config["authorization_reuse"]
    once = await ready(world, acme, who, "b.example.com")
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered("b.example.com"), SOURCE)).id != once.id
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered("b.example.com"), SOURCE)).status is OrderStatus.PENDING


async def test_preauthorization_of_a_domain_serves_names_below_it(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(authorization_reuse="1d", subdomains=True)
    acme = await world.worker()
    who = await account(world, acme)
    asked = AuthorizationRequest(dns("example.com")[0], subdomains=True)
    row = await acme.new_authorization(world.snapshot, PROFILE, who, asked, SOURCE)
    assert {one.type for one in row.challenges} == {ChallengeType.DNS_01}
    assert (await answer(world, acme, who, row)).status is AuthorizationStatus.VALID
    for name in (NAME, "a.b.example.com", "*.example.com", "example.com"):
        order = await acme.new_order(world.snapshot, PROFILE, who, ordered(name), SOURCE)
        assert (order.status, order.authorizations) == (OrderStatus.READY, (row.id,))
        assert (await finalize(world, acme, who, order, csr(name))).status is OrderStatus.VALID
    world.policy["san"] = {"dns": {"patterns": [".*"]}}
    for name in ("notexample.com", "com", "example.com.test.org"):
        order = await acme.new_order(world.snapshot, PROFILE, who, ordered(name), SOURCE)
        assert order.status is OrderStatus.PENDING


async def test_ancestor_that_the_client_would_rather_prove(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(subdomains=True)
    acme = await world.worker()
    who = await account(world, acme)
    names = dns(NAME, "b.example.com")
    asked = OrderRequest(names, ancestors=MappingProxyType(dict.fromkeys(names, "example.com")))
    order = await acme.new_order(world.snapshot, PROFILE, who, asked, SOURCE)
    assert len(order.authorizations) == 1
    order = await prove(world, acme, who, order)
    assert world.room.tasks[0].subdomains
    assert (await finalize(world, acme, who, order, csr(NAME, "b.example.com"))).status is OrderStatus.VALID
    for ancestor in ("elsewhere.test", "com", "ww.example.com"):
        wrong = OrderRequest(names[:1], ancestors=MappingProxyType({names[0]: ancestor}))
        with pytest.raises(Rejection) as refused:
            await acme.new_order(world.snapshot, PROFILE, who, wrong, SOURCE)
        assert refused.value.reason is Reason.MALFORMED


async def test_who_vouches_for_a_name_does_not_vouch_for_its_domain(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(subdomains=True, validation={"mode": "prevalidated"})
    world.modes = ("prevalidated", "webhook")
    world.room.vouched = True
    acme = await world.worker()
    who = await account(world, acme)
    asked = OrderRequest(dns(NAME), ancestors=MappingProxyType({dns(NAME)[0]: "example.com"}))
    assert (await acme.new_order(world.snapshot, PROFILE, who, asked, SOURCE)).status is OrderStatus.PENDING
    world.config["validation"] = {"mode": "webhook"}
    order = await acme.new_order(world.snapshot, PROFILE, who, asked, SOURCE)
    row = await acme.find_authorization(world.snapshot, PROFILE, who, order.authorizations[0])
    assert (row.identifier.value, row.subdomains) == (NAME, False)


async def test_preauthorization_is_refused_where_authorizations_serve_one_order(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(Rejection) as refused:
        await acme.new_authorization(world.snapshot, PROFILE, who, AuthorizationRequest(dns(NAME)[0]), SOURCE)
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    world.config["authorization_reuse"] = "1d"
    for identifier, subdomains, reason in (
        ("*.example.com", False, Reason.MALFORMED),
        ("example.com", True, Reason.NOT_AUTHORIZED),
        ("www.elsewhere.test", False, Reason.POLICY_SAN),
    ):
        asked = AuthorizationRequest(dns(identifier)[0], subdomains)
        with pytest.raises(Rejection) as refused:
            await acme.new_authorization(world.snapshot, PROFILE, who, asked, SOURCE)
        assert refused.value.reason is reason


async def issued(world: AcmeWorld, acme: Any, who: Any, *names: str, key: str = "web") -> bytes:
    order = await ready(world, acme, who, *names)
    await finalize(world, acme, who, order, csr(*names, key=key))
    return (await acme.certificate(world.snapshot, PROFILE, who, order.id))[0]  # type: ignore[no-any-return]


async def test_renewal_window_of_any_certificate(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    der = await issued(world, acme, who, NAME)
    leaf = parse_certificate(der)
    info = await acme.renewal_info(world.snapshot, OTHER, certificate_id(der))
    assert leaf.not_before < info.start < info.end < leaf.not_after
    assert (info.explanation_url, info.retry_after) == (None, 6 * 3600)
    for wrong in (replace(certificate_id(der), serial=7), replace(certificate_id(der), authority_key_id=b"x")):
        with pytest.raises(Rejection) as refused:
            await acme.renewal_info(world.snapshot, PROFILE, wrong)
        assert refused.value.reason is Reason.UNKNOWN_CERTIFICATE


async def test_incident_and_revocation_move_the_window_into_the_past(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    der = await issued(world, acme, who, NAME)
    incident = Incident("i1", "https://example.com/incident", world.clock(), "uid:0")
    event = AuditEvent("incident.declared", world.clock(), "uid:0", "done")
    await world.store.declare_incident(incident, Affected(profile=PROFILE), world.clock(), event)
    info = await acme.renewal_info(world.snapshot, PROFILE, certificate_id(der))
    assert info.start < info.end <= world.clock()
    assert info.explanation_url == "https://example.com/incident"
    other = await issued(world, acme, who, "b.example.com", key="b")
    await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(other), SOURCE)
    info = await acme.renewal_info(world.snapshot, PROFILE, certificate_id(other))
    assert info.start < info.end <= world.clock()


async def test_order_that_replaces_a_certificate(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"orders_per_account": {"count": 2, "window": "1000d"}})
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    der = await issued(world, acme, who, NAME)
    named = certificate_id(der)
    s = world.snapshot
    with pytest.raises(Rejection) as refused:
        await acme.new_order(s, PROFILE, who, ordered("b.example.com", replaces=named), SOURCE)
    assert (refused.value.reason, "'replaces'" in refused.value.detail) == (Reason.MALFORMED, True)
    with pytest.raises(Rejection) as refused:
        await acme.new_order(s, PROFILE, other, ordered(NAME, replaces=named), SOURCE)
    assert (refused.value.reason, "'replaces'" in refused.value.detail) == (Reason.NOT_AUTHORIZED, True)
    await acme.new_order(s, PROFILE, who, ordered("c.example.com"), SOURCE)
    with pytest.raises(RateLimited):
        await acme.new_order(s, PROFILE, who, ordered(NAME, replaces=named), SOURCE)
    world.clock.advance(timedelta(days=75))
    # It is time by now, so that no limit stands against it.
    order = await acme.new_order(s, PROFILE, who, ordered(NAME, "b.example.com", replaces=named), SOURCE)
    assert order.replaces == "the-text"
    with pytest.raises(Rejection) as refused:
        await acme.new_order(s, PROFILE, who, ordered(NAME, replaces=named), SOURCE)
    assert refused.value.reason is Reason.ALREADY_REPLACED
    await acme.deactivate_authorization(s, PROFILE, who, order.authorizations[0], SOURCE)
    await acme.new_order(s, PROFILE, who, ordered(NAME, replaces=named), SOURCE)


async def test_of_two_orders_that_replace_one_certificate_at_once_one_is_taken(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    workers = [await world.worker("w1"), await world.worker("w2")]
    who = await account(world, workers[0])
    named = certificate_id(await issued(world, workers[0], who, NAME))
    ends = await asyncio.gather(
        *(acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=named), SOURCE) for acme in workers * 2),
        return_exceptions=True,
    )
    assert [getattr(end, "reason", None) for end in ends].count(Reason.ALREADY_REPLACED) == 3


async def test_certificate_of_another_ca_is_ignored_or_refused_as_the_profile_says(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    foreign = CertificateId("foreign", b"key", 99)
    order = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=foreign), SOURCE)
    assert (order.replaces, order.replaces_sha256) == ("foreign", None)
    world.config["renewal"] = {"foreign_replaces": "reject"}
    with pytest.raises(Rejection, match="'replaces'"):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=foreign), SOURCE)


async def test_revocation_by_the_account_that_ordered(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(revocation_reasons=("superseded",))
    acme = await world.worker()
    who = await account(world, acme)
    der = await issued(world, acme, who, NAME)
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(der, RevocationReason.KEY_COMPROMISE), SOURCE)
    assert refused.value.reason is Reason.BAD_REVOCATION_REASON
    await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(der, RevocationReason.SUPERSEDED), SOURCE)
    row = await world.store.find_certificate(parse_certificate(der).sha256)
    assert row is not None
    assert row.revocation_reason is RevocationReason.SUPERSEDED
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(der, RevocationReason.SUPERSEDED), SOURCE)
    assert refused.value.reason is Reason.ALREADY_REVOKED
    told = next(event for event in await world.audit() if event["event"] == "certificate.revoked")
    assert told["actor"] == f"acme:{who.id}"


async def test_revocation_by_key_blocks_the_key(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    der = await issued(world, acme, who, NAME)
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, PROFILE, key_sha256("other"), RevocationRequest(der), SOURCE)
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    await acme.revoke(world.snapshot, PROFILE, key_sha256("web"), RevocationRequest(der), SOURCE)
    order = await ready(world, acme, who, NAME)
    with pytest.raises(Rejection) as refused:
        await finalize(world, acme, who, order, csr(NAME))
    assert refused.value.reason is Reason.POLICY_KEY
    assert (await finalize(world, acme, who, order, csr(NAME, key="second"))).status is OrderStatus.VALID


async def test_revocation_by_an_account_that_is_authorized_for_all_names(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    der = await issued(world, acme, who, NAME, "*.example.com")
    for names in ((), (NAME,), ("*.example.com",)):
        if names:
            await ready(world, acme, other, *names)
        if names != ("*.example.com",):
            with pytest.raises(Rejection) as refused:
                await acme.revoke(world.snapshot, PROFILE, other, RevocationRequest(der), SOURCE)
            assert refused.value.reason is Reason.NOT_AUTHORIZED
    await acme.revoke(world.snapshot, PROFILE, other, RevocationRequest(der), SOURCE)
    told = next(event for event in await world.audit() if event["event"] == "certificate.revoked")
    assert told["actor"] == f"acme:{other.id}"


@pytest.mark.parametrize("mode", ["none", "prevalidated"])
async def test_authorization_that_proves_nothing_revokes_nobody_elses_certificate(
    new_acme_world: NewAcmeWorld, mode: str
) -> None:
    world = new_acme_world(validation={"mode": mode})
    world.modes = (mode,)
    world.room.vouched = mode == "prevalidated"
    acme = await world.worker()
    who, other = await account(world, acme), await account(world, acme, "bob")
    der = await issued(world, acme, who, NAME)
    await ready(world, acme, other, NAME)
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, PROFILE, other, RevocationRequest(der), SOURCE)
    assert refused.value.reason is Reason.NOT_AUTHORIZED


async def test_certificate_that_is_not_ours_is_not_known(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme = await world.worker()
    who = await account(world, acme)
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(world.ca.chain()[0]), SOURCE)
    assert refused.value.reason is Reason.UNKNOWN_CERTIFICATE
    der = await issued(world, acme, who, NAME)
    there, _ = await acme.new_account(world.snapshot, OTHER, key_named("alice"), SOURCE)
    with pytest.raises(Rejection) as refused:
        await acme.revoke(world.snapshot, OTHER, there, RevocationRequest(der), SOURCE)
    assert refused.value.reason is Reason.UNKNOWN_CERTIFICATE


async def test_replacements_that_are_due_have_a_limit_of_their_own(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"orders_per_account": {"count": 1, "window": "1000d"}})
    acme = await world.worker()
    who = await account(world, acme)
    named = certificate_id(await issued(world, acme, who, NAME))
    world.clock.advance(timedelta(days=75))
    for _ in range(10):
        order = await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=named), SOURCE)
        await acme.deactivate_authorization(world.snapshot, PROFILE, who, order.authorizations[0], SOURCE)
    with pytest.raises(RateLimited):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=named), SOURCE)


async def test_certificate_that_its_own_account_revoked_is_replaced_within_the_limits(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"orders_per_account": {"count": 1, "window": "1000d"}})
    acme = await world.worker()
    who = await account(world, acme)
    der = await issued(world, acme, who, NAME)
    await acme.revoke(world.snapshot, PROFILE, who, RevocationRequest(der), SOURCE)
    with pytest.raises(RateLimited):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=certificate_id(der)), SOURCE)


async def test_limits_of_the_profile_that_an_order_is_for_count_too(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(profiles={"short": "shorter"})
    world.others["limits"] = {"orders": {"count": 1, "window": "1h"}}
    acme = await world.worker()
    who = await account(world, acme)
    await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, profile="short"), SOURCE)
    with pytest.raises(RateLimited):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, profile="short"), SOURCE)
    await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)


async def test_proof_by_a_challenge_that_is_not_offered_any_more_serves_no_further_order(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(authorization_reuse="1d")
    acme = await world.worker()
    who = await account(world, acme)
    await ready(world, acme, who, NAME)
    world.config["validation"] = {"challenges": ("dns-01",)}
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.PENDING


async def test_what_nothing_was_shown_for_serves_no_further_order(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(authorization_reuse="1d", validation={"mode": "none", "acknowledge_no_validation": True})
    world.modes = ("none", "standard")
    world.room.validated = Validated(by_challenge=False)
    acme = await world.worker()
    who = await account(world, acme)
    await ready(world, acme, who, NAME)
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.PENDING
    world.config["validation"] = {"mode": "standard"}
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.PENDING


@pytest.mark.parametrize("mode", ["client_ip_forward", "webhook", "prevalidated"])
async def test_who_vouched_for_a_name_is_asked_again(new_acme_world: NewAcmeWorld, mode: str) -> None:
    world = new_acme_world(authorization_reuse="1d", validation={"mode": mode})
    world.modes = (mode, "standard")
    world.room.vouched = True
    acme = await world.worker()
    who = await account(world, acme)
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.READY
    world.room.refuses = {NAME: Reason.VALIDATION_UNAUTHORIZED}
    with pytest.raises(IdentifiersRejected):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), "198.51.100.9")
    world.config["validation"] = {"mode": "standard"}
    world.room.refuses, world.room.vouched = {}, False
    assert (await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME), SOURCE)).status is OrderStatus.PENDING


async def test_certificate_that_ends_at_once_is_replaced_within_the_limits(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world(limits={"orders_per_account": {"count": 1, "window": "1000d"}})
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME, not_after=world.clock() + timedelta(minutes=3))
    await finalize(world, acme, who, order, csr(NAME))
    named = certificate_id((await acme.certificate(world.snapshot, PROFILE, who, order.id))[0])
    world.clock.advance(timedelta(minutes=2))
    with pytest.raises(RateLimited):
        await acme.new_order(world.snapshot, PROFILE, who, ordered(NAME, replaces=named), SOURCE)
