"""EST's credentials before a real store: what is used up, by whom, for how many workers, and what a captured one is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import pytest

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Grant, Issued, Linking, Protocol, Rejected, RevocationReason, SanKind
from gateway.pki.certificate import (
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    self_signed_ca,
    to_signer,
)
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.trust import TrustAnchors
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.client_path import ClientCertificates
from gateway.ra.credentials.all_of import AllOfCredential
from gateway.ra.credentials.basic import BasicCredential
from gateway.ra.credentials.digest import DigestCredential
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.credentials.one_time import OneTimeCredential
from gateway.ra.credentials.one_time import new_challenge as draw_challenge
from gateway.ra.credentials.passwords import ScryptPool, hash_password
from gateway.ra.credentials.ra_certificate import RaCertificateCredential
from gateway.ra.credentials.tls_certificate import TlsCertificateCredential
from gateway.ra.profile import Quota, RenewalRule, Snapshot
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import ChallengeRow
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import KEYS, PROFILE, REVOKE, World, device_key, macs
from tests.unit.ra.credentials.test_digest import USERS as DIGEST_USERS
from tests.unit.ra.credentials.test_digest import header as digest_header
from tests.unit.ra.credentials.test_digest import nonce_of
from tests.unit.ra.est import basic

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
LINE = f"device:{hash_password(b'correct horse')}\n".encode()
RULE = RenewalRule(frozenset({PROFILE}), frozenset({"simplereenroll"}), None, DAY)
RA_EKUS = (eku_oid("clientAuth"), eku_oid("cmcRA"))


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world(REVOKE)


@cache
def makers_ca() -> bytes:
    return self_signed_ca(device_key("maker"), "CN=Maker", START, START + 20000 * DAY)


def made(world: World, subject: str = "CN=device", key: str = "birth", **changes: Any) -> bytes:
    """A certificate of the maker's CA."""
    now = world.clock().replace(microsecond=0)
    values: dict[str, Any] = {
        "subject_der": parse_name_text(subject).der,
        "sans": (),
        "key_usage": ("digitalSignature",),
        "ekus": (eku_oid("clientAuth"),),
        "not_before": now - timedelta(hours=1),
        "not_after": now + DAY,
    }
    issuer = Issuer.from_certificate(makers_ca(), device_key("maker"))
    return build_certificate(issuer, new_serial(), Grant(**(values | changes)), public_key_der(device_key(key)))


def anchors(*certificates: bytes) -> TrustAnchors:
    return TrustAnchors.parse(b"".join(map(der_to_pem, certificates or (makers_ca(),))))


def known(world: World, *certificates: bytes) -> ClientCertificates:
    return ClientCertificates(anchors(*certificates), world.store, frozenset())


def opened(world: World, *credentials: CredentialProvider, **options: Any) -> Snapshot:
    endpoints = frozenset({Protocol.SCEP, Protocol.EST})
    return world.make_snapshot(endpoints=endpoints, credentials=credentials, **options)


def ask(world: World, name: str = "device", key: str = "", operation: str = "simpleenroll", **changes: Any) -> Any:
    """A request over EST; `signer` follows the client certificate in a renewal."""
    subject = changes.pop("subject", f"CN={name}")
    csr = parse_csr(build_csr(device_key(key or name), parse_name_text(subject).der, sans=changes.pop("sans", ())))
    request = replace(
        world.request(name, challenge=None, transaction="", operation=operation),
        protocol=Protocol.EST,
        csr=csr,
        is_renewal=operation == "simplereenroll",
        **changes,
    )
    if request.is_renewal and request.client_certificate is not None:
        request = replace(request, signer=to_signer(parse_certificate(request.client_certificate)))
    return request


async def issued(authority: RegistrationAuthority, snapshot: Snapshot, request: Any) -> bytes:
    outcome = await authority.enroll(snapshot, request)
    assert isinstance(outcome, Issued), outcome
    return outcome.certificate


async def refused(authority: RegistrationAuthority, snapshot: Snapshot, request: Any) -> Reason:
    outcome = await authority.enroll(snapshot, request)
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason


# A maker's certificate


async def test_a_device_with_its_makers_certificate_enrolls_and_renews(world: World) -> None:
    authority = await world.start()
    renewals = RenewalCredential(RULE, world.store)
    snapshot = opened(world, TlsCertificateCredential(known(world), "same"), renewals, renewal=RULE)
    birth = made(world)
    first = await issued(authority, snapshot, ask(world, client_certificate=birth))
    assert await issued(authority, snapshot, ask(world, client_certificate=birth)) == first, "the same again is the same"
    renewed = await issued(authority, snapshot, ask(world, key="second", operation="simplereenroll", client_certificate=first))
    assert renewed != first
    for certificate, operation in ((birth, "simplereenroll"), (first, "simpleenroll"), (renewed, "serverkeygen")):
        assert await refused(
            authority, snapshot, ask(world, key="third", operation=operation, client_certificate=certificate)
        ) in {Reason.UNKNOWN_CERTIFICATE, Reason.NOT_AUTHORIZED}
    again = ask(world, key="third", operation="simplereenroll", client_certificate=first)
    assert await refused(authority, snapshot, again) is Reason.RENEWAL_REFUSED, "it has an heir"


async def test_what_was_issued_here_enrolls_nothing_though_its_ca_is_an_anchor(world: World) -> None:
    """An operator put his own CA among the makers'."""
    authority = await world.start()
    credential = TlsCertificateCredential(known(world, makers_ca(), world.ca.chain()[0]), "any")
    snapshot = opened(world, credential)
    own = await issued(authority, snapshot, ask(world, client_certificate=made(world)))
    for operation in ("simpleenroll", "serverkeygen", "simplereenroll"):
        request = ask(world, "admin", operation=operation, client_certificate=own)
        assert await refused(authority, snapshot, request) is Reason.NOT_AUTHORIZED
    assert len(world.ca.issued()) == 1


@pytest.mark.parametrize(
    ("subject", "sans"),
    [
        pytest.param("CN=admin", (), id="another-subject"),
        pytest.param("CN=device", (make_san(SanKind.DNS, "admin.example"),), id="another-name"),
    ],
)
async def test_for_other_names_it_serves_nothing(world: World, subject: str, sans: Any) -> None:
    authority = await world.start()
    snapshot = opened(world, TlsCertificateCredential(known(world), "same"))
    request = ask(world, subject=subject, sans=sans, client_certificate=made(world))
    assert await refused(authority, snapshot, request) is Reason.NAME_NOT_BOUND
    assert world.ca.issued() == []


# Renewal


async def test_a_certificate_of_scep_renews_over_est_under_the_same_rule(world: World) -> None:
    authority = await world.start()
    scep = await issued(authority, world.snapshot, world.request())
    snapshot = opened(world, RenewalCredential(RULE, world.store), renewal=RULE)
    renewal = partial(ask, world, key="second", operation="simplereenroll", client_certificate=scep)
    assert await refused(authority, opened(world), renewal()) is Reason.NOT_AUTHORIZED, "without the rule"
    assert await refused(authority, snapshot, renewal(subject="CN=admin")) is Reason.RENEWAL_REFUSED
    assert await refused(authority, snapshot, renewal(sans=(make_san(SanKind.DNS, "a.example"),))) is Reason.RENEWAL_REFUSED
    lifetime = parse_certificate(scep).not_after - world.clock()
    world.clock.advance(lifetime + timedelta(hours=23))
    await issued(authority, snapshot, renewal())
    world.clock.advance(timedelta(hours=2))
    assert await refused(authority, snapshot, renewal(key="third")) is Reason.CREDENTIAL_EXPIRED, "grace is over"


async def test_a_revoked_certificate_renews_nothing(world: World) -> None:
    authority = await world.start()
    certificate = await issued(authority, world.snapshot, world.request())
    snapshot = opened(world, RenewalCredential(RULE, world.store), renewal=RULE)
    renewal = ask(world, key="second", operation="simplereenroll", client_certificate=certificate)
    await revoke(world, certificate)
    assert await refused(authority, snapshot, renewal) is Reason.CREDENTIAL_REVOKED


async def revoke(world: World, certificate: bytes) -> None:
    now = world.clock()
    event = AuditEvent(event="certificate.revoked", decision="done", at=now, actor="operator")
    await world.store.mark_revoked(parse_certificate(certificate).sha256, now, RevocationReason.SUPERSEDED, event)


# Registration authorities


async def test_a_registration_authority_asks_for_others(world: World) -> None:
    authority = await world.start()
    credential = RaCertificateCredential(known(world), ("CN=ra1,O=Example",))
    snapshot = opened(world, credential, linking="require")
    ra = made(world, "CN=ra1,O=Example", "ra", ekus=RA_EKUS)
    for name in ("one", "two"):
        await issued(authority, snapshot, ask(world, name, client_certificate=ra))
    await issued(authority, snapshot, ask(world, "one", "new", operation="simplereenroll", client_certificate=ra))
    other = made(world, "CN=ra2,O=Example", "ra", ekus=RA_EKUS)
    for operation in ("simpleenroll", "simplereenroll"):
        assert await refused(authority, snapshot, ask(world, "three", operation=operation, client_certificate=other)) in {
            Reason.CREDENTIAL_MISSING,
            Reason.NOT_AUTHORIZED,
        }
    requesters = {row.requester for row in await world.rows()}
    assert len(requesters) == 1
    assert requesters.pop().startswith("ra_certificate:")


# Passwords


async def test_a_password_serves_its_user_and_no_other(world: World) -> None:
    authority = await world.start()
    pool = ScryptPool(1)
    try:
        snapshot = opened(world, BasicCredential(LINE, "x", "user", pool))
        good = basic("device", "correct horse")
        await issued(authority, snapshot, ask(world, authorization=good))
        assert await refused(authority, snapshot, ask(world, "admin", authorization=good)) is Reason.NAME_NOT_BOUND
        wrong = basic("device", "wrong")
        assert await refused(authority, snapshot, ask(world, authorization=wrong)) is Reason.CREDENTIAL_INVALID
        assert await refused(authority, snapshot, ask(world)) is Reason.CREDENTIAL_MISSING
        scep = replace(world.request(challenge=None), authorization=good)
        assert await refused(authority, snapshot, scep) is Reason.CREDENTIAL_MISSING, "SCEP has no such header"
        assert await refused(authority, snapshot, ask(world, challenge="correct horse")) is Reason.CREDENTIAL_MISSING
    finally:
        pool.close()
    assert not any("correct horse" in str(event) for event in await world.audit())


async def test_how_many_certificates_a_user_gets_is_not_for_him_to_vary(world: World) -> None:
    authority = await world.start()
    pool = ScryptPool(1)
    try:
        snapshot = opened(world, BasicCredential(LINE, "x", "user", pool), per_requester=Quota(1, timedelta(hours=1)))
        good = basic("device", "correct horse")
        await issued(authority, snapshot, ask(world, authorization=good))
        varied = ask(world, subject="CN=device,O=Other", authorization=good)
        assert await refused(authority, snapshot, varied) is Reason.RATE_LIMITED
    finally:
        pool.close()


# HTTP Digest


def digest(world: World) -> DigestCredential:
    return DigestCredential(PROFILE, DIGEST_USERS, "pki-gateway", "any", partial(KEYS.macs, "digest-nonce"))


async def test_a_captured_response_serves_nothing_twice(world: World) -> None:
    """Whoever reads a header, at a proxy say, has something that was used; another worker knows as well."""
    first, second = await world.start("w1"), await world.start("w2")
    credential = digest(world)
    snapshot = opened(world, credential)
    captured = digest_header(nonce_of(credential, world.clock()))
    mine = ask(world, authorization=captured)
    certificate = await issued(first, snapshot, mine)
    for authority in (first, second):
        stolen = ask(world, "mallory", authorization=captured)
        assert await refused(authority, opened(world, digest(world)), stolen) is Reason.CREDENTIAL_USED
        assert await issued(authority, snapshot, mine) == certificate, "the same request again is no second use"
    again = ask(world, authorization=digest_header(nonce_of(credential, world.clock())))
    assert await issued(second, snapshot, again) == certificate, "nor is it with another nonce"


async def test_two_workers_take_one_response_once(world: World) -> None:
    workers = [await world.start(f"w{n}") for n in range(2)]
    credential = digest(world)
    snapshot = opened(world, credential)
    captured = digest_header(nonce_of(credential, world.clock()))
    outcomes = await asyncio.gather(
        *(workers[n % 2].enroll(snapshot, ask(world, f"device-{n}", authorization=captured)) for n in range(6))
    )
    assert sum(isinstance(outcome, Issued) for outcome in outcomes) == 1
    assert {o.reason for o in outcomes if isinstance(o, Rejected)} == {Reason.CREDENTIAL_USED}


async def test_a_refused_request_uses_no_response_up(world: World) -> None:
    authority = await world.start()
    credential = digest(world)
    snapshot = opened(world, credential)
    sent = digest_header(nonce_of(credential, world.clock()))
    assert await refused(authority, snapshot, ask(world, subject="title=boss", authorization=sent)) is Reason.POLICY_SUBJECT
    await issued(authority, snapshot, ask(world, authorization=sent))


# All of several


async def test_both_of_two(world: World) -> None:
    authority = await world.start()
    one_time = OneTimeCredential(PROFILE, world.store, macs)
    snapshot = opened(world, AllOfCredential((TlsCertificateCredential(known(world), "same"), one_time)))
    drawn = [await new_challenge(world) for _ in range(2)]
    birth = made(world)
    assert await refused(authority, snapshot, ask(world, client_certificate=birth)) is Reason.CREDENTIAL_MISSING
    assert await refused(authority, snapshot, ask(world, challenge=drawn[0])) is Reason.CREDENTIAL_MISSING
    wrong = ask(world, client_certificate=birth, challenge="x" * 28)
    assert await refused(authority, snapshot, wrong) is Reason.CREDENTIAL_INVALID
    await issued(authority, snapshot, ask(world, client_certificate=birth, challenge=drawn[0]))
    spent = ask(world, key="other", client_certificate=birth, challenge=drawn[0])
    assert await refused(authority, snapshot, spent) is Reason.CREDENTIAL_USED
    await issued(authority, snapshot, ask(world, key="other", client_certificate=birth, challenge=drawn[1]))
    scep = replace(world.request(challenge=drawn[1]), client_certificate=birth)
    assert isinstance(await authority.enroll(snapshot, scep), Rejected), "together they are EST's"


async def new_challenge(world: World) -> str:
    challenge, now = draw_challenge(), world.clock()
    row = ChallengeRow(challenge[:8], PROFILE, macs(challenge)[0], now, now + DAY, "operator")
    await world.store.add_challenge(row, AuditEvent(event="challenge.created", decision="done", at=now, actor="operator"))
    return challenge


# The link to the connection


@pytest.mark.parametrize(
    ("linking", "good"),
    [
        pytest.param(Linking("dGxz", "dGxz"), True, id="this-connections"),
        pytest.param(Linking("b3RoZXI=", "dGxz"), False, id="another-connections"),
        pytest.param(Linking(None, "dGxz"), False, id="none"),
        pytest.param(Linking("dGxz", None, "TLS 1.3"), False, id="not-to-be-checked"),
        pytest.param(None, False, id="unknown"),
    ],
)
async def test_a_request_that_belongs_to_its_connection(world: World, linking: Linking | None, good: bool) -> None:
    authority = await world.start()
    snapshot = opened(world, TlsCertificateCredential(known(world), "same"), linking="require")
    request = ask(world, client_certificate=made(world), linking=linking)
    if good:
        await issued(authority, snapshot, request)
        return
    assert await refused(authority, snapshot, request) is Reason.BAD_PROOF_OF_POSSESSION
    assert await world.rows() == ()
    event: Mapping[str, Any] = (await world.audit())[-1]
    assert "tls_certificate:" in event["detail"], "the audit trail says whose it was"
