"""Keys that are drawn for devices: one request, one key, one certificate, and nothing of the key left behind (RFC 7030 §4.4)."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from structlog.testing import capture_logs

from gateway.ca.interfaces import NotSent
from gateway.config.policy import KeyRule, PolicyConfig, SubjectRule
from gateway.errors import Reason
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    Issued,
    IssuedWithKey,
    KeyOutcome,
    Protocol,
    Rejected,
    Requester,
    RevocationReason,
    Unavailable,
)
from gateway.pki.csr import parse_csr
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.ra import server_keys
from gateway.ra.profile import Quota
from gateway.ra.server_keys import place_of
from gateway.store.interfaces import CertificateFilter, LedgerState
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import (
    FIND,
    ONE_AN_HOUR,
    POLL,
    PROFILE,
    REVOKE,
    SECRET,
    FlakyStore,
    World,
    public_key_of,
)

KIND = "ec-p256"
EST = frozenset({Protocol.EST})


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    world = new_world(REVOKE)
    world.profile_options = {"endpoints": EST}
    return world


def wanted(world: World, name: str = "device", **changes: Any) -> EnrollmentRequest:
    asked = world.request(name, operation="serverkeygen", transaction="", **changes)
    return replace(asked, protocol=Protocol.EST)


def public_half(key: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a PKCS#8 key."""
    loaded = load_der_private_key(key, None)
    assert isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def given(outcome: KeyOutcome) -> IssuedWithKey:
    assert isinstance(outcome, IssuedWithKey), outcome
    assert public_key_of(outcome.issued.certificate) == public_half(outcome.key)
    return outcome


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072"])
async def test_key_and_certificate_belong_together(world: World, kind: str) -> None:
    authority = await world.start()
    policy = PolicyConfig(key=KeyRule(ec=("P-256", "P-384", "P-521")))
    request = wanted(world)
    outcome = given(await authority.generate(world.make_snapshot(policy=policy), request, kind))
    assert outcome.issued.chain == world.ca.chain()
    assert public_key_of(outcome.issued.certificate) != request.csr.public_key.der
    described = parse_csr((await world.rows())[0].request).public_key
    assert f"{described.algorithm}-{described.bits}" in kind.replace("-p", "-")


async def test_the_ledger_has_a_request_of_the_new_key(world: World) -> None:
    authority = await world.start()
    outcome = given(await authority.generate(world.snapshot, wanted(world), KIND))
    [row] = await world.rows()
    assert (row.state, row.operation, row.subject) == (LedgerState.DELIVERED, "serverkeygen", "CN=device")
    rebuilt = parse_csr(row.request)
    assert rebuilt.public_key.der == public_half(outcome.key)
    assert rebuilt.challenge_password is None
    [certificate] = await world.store.list_certificates(CertificateFilter())
    assert certificate.public_key_sha256 == rebuilt.public_key.sha256
    assert await world.events() == ["enrollment.opened", "enrollment.issued"]


async def test_nothing_of_the_key_is_left_behind(world: World) -> None:
    authority = await world.start()
    with capture_logs() as lines:
        outcome = given(await authority.generate(world.snapshot, wanted(world), KIND))
    loaded = load_der_private_key(outcome.key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    secret = loaded.private_numbers().private_value.to_bytes(32)
    kept = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    kept += [json.dumps([dict(event) for event in await world.audit()]).encode(), repr(lines).encode(), repr(outcome).encode()]
    assert not [data for data in kept if secret in data or secret.hex().encode() in data or outcome.key in data]


async def test_the_same_request_again_gets_another_key(world: World) -> None:
    authority = await world.start()
    first = given(await authority.generate(world.snapshot, wanted(world), KIND))
    second = given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert first.key != second.key
    rows = {row.id: row for row in await world.rows()}
    assert rows[first.issued.request_id].state is LedgerState.REVOKED
    assert rows[second.issued.request_id].state is LedgerState.DELIVERED
    reasons = {row.request_id: row.revocation_reason for row in await world.store.list_certificates(CertificateFilter())}
    assert reasons == {first.issued.request_id: RevocationReason.SUPERSEDED, second.issued.request_id: None}
    assert len(world.ca.revoked) == 1
    assert await world.events() == [
        "enrollment.opened",
        "enrollment.issued",
        "enrollment.opened",
        "certificate.revoked",
        "enrollment.sent",
        "enrollment.issued",
    ]
    revoked = (await world.audit())[3]
    assert (revoked["request_id"], revoked["detail"]) == (first.issued.request_id, "superseded")
    assert revoked["actor"].startswith("static:corp")


async def test_a_one_time_challenge_serves_its_request_again_and_no_other(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    given(await authority.generate(world.snapshot, wanted(world, challenge=challenge), KIND))
    given(await authority.generate(world.snapshot, wanted(world, challenge=challenge), KIND))
    given(await authority.generate(world.snapshot, wanted(world, challenge=challenge), KIND))
    other = await authority.generate(world.snapshot, wanted(world, "other", challenge=challenge), KIND)
    assert isinstance(other, Rejected)
    assert other.reason is Reason.CREDENTIAL_USED
    simple = replace(wanted(world, challenge=challenge), operation="simpleenroll")
    assert isinstance(await authority.enroll(world.snapshot, simple), Rejected)


async def test_what_an_operator_revoked_brings_no_challenge_back(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=challenge)
    given(await authority.generate(world.snapshot, request, KIND))
    [row] = await world.store.list_certificates(CertificateFilter())
    await world.administration().revoke_certificate(row.sha256.hex(), RevocationReason.CESSATION_OF_OPERATION, "uid:0 (root)")
    again = await authority.generate(world.snapshot, request, KIND)
    assert isinstance(again, Rejected)
    assert again.reason is Reason.CREDENTIAL_USED


async def good(world: World) -> list[str]:
    """The requests whose certificates are good, in the inventory and at the CA."""
    rows = await world.store.list_certificates(CertificateFilter())
    return [row.request_id or "" for row in rows if row.revoked_at is None and row.serial not in world.ca.revoked]


async def test_every_key_counts_in_a_quota(world: World) -> None:
    authority = await world.start()
    snapshot = world.make_snapshot(per_requester=ONE_AN_HOUR)
    first = given(await authority.generate(snapshot, wanted(world), KIND))
    again = await authority.generate(snapshot, wanted(world), KIND)
    assert isinstance(again, Rejected)
    assert again.reason is Reason.RATE_LIMITED
    assert await good(world) == [first.issued.request_id]


async def test_a_full_quota_is_seen_before_a_key_is_drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = await world.start()
    snapshot = world.make_snapshot(per_requester=ONE_AN_HOUR)
    given(await authority.generate(snapshot, wanted(world), KIND))
    monkeypatch.setattr(server_keys, "generate_private_key", lambda _: pytest.fail("a key was drawn"))
    for name in ("device", "DEVICE"):
        refused = await authority.generate(snapshot, wanted(world, name), KIND)
        assert isinstance(refused, Rejected)
        assert refused.reason is Reason.RATE_LIMITED
        assert "at the latest" in refused.detail


@pytest.mark.parametrize("credential", ["static", "one-time"])
async def test_a_quota_that_fills_up_meanwhile_leaves_the_first_certificate(
    world: World, monkeypatch: pytest.MonkeyPatch, credential: str
) -> None:
    authority = await world.start()
    one_time = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=one_time) if credential == "one-time" else wanted(world)
    snapshot = world.make_snapshot(per_profile=Quota(2, timedelta(hours=1)), retransmission_window=timedelta(hours=2))
    first = given(await authority.generate(snapshot, request, KIND))
    other = await world.start("w2")
    loop, drawing = asyncio.get_running_loop(), generate_private_key

    def draw(kind: str) -> PrivateKey:
        monkeypatch.setattr(server_keys, "generate_private_key", drawing)
        asyncio.run_coroutine_threadsafe(other.generate(snapshot, wanted(world, "other"), KIND), loop).result(5)
        return drawing(kind)

    monkeypatch.setattr(server_keys, "generate_private_key", draw)
    refused = await authority.generate(snapshot, request, KIND)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.RATE_LIMITED
    assert world.ca.revoked == []
    assert first.issued.request_id in await good(world)
    world.clock.advance(timedelta(minutes=59))
    assert isinstance(await authority.generate(snapshot, request, KIND), Rejected)
    world.clock.advance(timedelta(minutes=2))
    second = given(await authority.generate(snapshot, request, KIND))
    assert second.issued.request_id in await good(world)
    assert first.issued.request_id not in await good(world)


async def test_a_used_challenge_draws_no_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    given(await authority.generate(world.snapshot, wanted(world, challenge=challenge), KIND))
    monkeypatch.setattr(server_keys, "generate_private_key", lambda _: pytest.fail("a key was drawn"))
    other = await authority.generate(world.snapshot, wanted(world, "other", challenge=challenge), KIND)
    assert isinstance(other, Rejected)
    assert other.reason is Reason.CREDENTIAL_USED


Made = tuple[EnrollmentRequest, dict[str, Any]]

REFUSED = [
    pytest.param(lambda w: (wanted(w, challenge=None), {}), Reason.CREDENTIAL_MISSING, id="no credential"),
    pytest.param(lambda w: (wanted(w, challenge="wrong-wrong-wrong"), {}), Reason.CREDENTIAL_INVALID, id="wrong credential"),
    pytest.param(lambda w: (replace(wanted(w), protocol=Protocol.SCEP), {}), Reason.ENDPOINT_CLOSED, id="closed endpoint"),
    pytest.param(
        lambda w: (wanted(w), {"policy": PolicyConfig(key=KeyRule(ec=("P-384",)))}), Reason.POLICY_KEY, id="kind of key"
    ),
    pytest.param(
        lambda w: (wanted(w), {"policy": PolicyConfig(subject=SubjectRule(require=("O",)))}),
        Reason.POLICY_SUBJECT,
        id="name",
    ),
    pytest.param(lambda w: (wanted(w), {"manual_approval": True}), Reason.UNSUPPORTED_MESSAGE, id="manual approval"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
async def test_a_refusal_draws_no_key(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[World], tuple[EnrollmentRequest, dict[str, Any]]],
    reason: Reason,
) -> None:
    authority = await world.start()
    monkeypatch.setattr(server_keys, "generate_private_key", lambda _: pytest.fail("a key was drawn"))
    request, options = make(world)
    outcome = await authority.generate(world.make_snapshot(**options), request, KIND)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason
    assert world.ca.issued() == []
    assert (await world.events())[-1:] in ([], ["enrollment.rejected"])


async def test_a_refusal_by_policy_revokes_nothing(world: World) -> None:
    authority = await world.start()
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    strict = world.make_snapshot(policy=PolicyConfig(key=KeyRule(ec=("P-384",))))
    assert isinstance(await authority.generate(strict, wanted(world), KIND), Rejected)
    assert world.ca.revoked == []


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        pytest.param("rejected", Rejected, Reason.UPSTREAM_REJECTED, id="refused by the CA"),
        pytest.param("not sent", Unavailable, Reason.UPSTREAM_UNAVAILABLE, id="CA down"),
        pytest.param("pending", Unavailable, Reason.UPSTREAM_UNAVAILABLE, id="the CA makes it wait"),
        pytest.param("lost before", Unavailable, Reason.UPSTREAM_UNAVAILABLE, id="in doubt"),
        pytest.param("wrong name", Rejected, Reason.UPSTREAM_MISMATCH, id="not what was granted"),
    ],
)
async def test_no_key_leaves_without_its_certificate(world: World, fault: str, outcome: type, reason: Reason) -> None:
    world.ca.capabilities = REVOKE | POLL
    world.ca.faults = [fault]
    authority = await world.start()
    got = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(got, outcome)
    assert isinstance(got, Rejected | Unavailable)
    assert got.reason is reason


async def test_a_lost_answer_is_found_while_the_client_waits(world: World) -> None:
    world.ca.capabilities = REVOKE | FIND
    world.ca.faults = ["lost after"]
    authority = await world.start()
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert len(world.ca.issued()) == 1


async def test_a_certificate_that_came_late_is_superseded(world: World) -> None:
    world.ca.capabilities = REVOKE | POLL
    world.ca.faults = ["pending"]
    authority = await world.start()
    waiting = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(waiting, Unavailable)
    assert isinstance(await authority.generate(world.snapshot, wanted(world), KIND), Unavailable), "the CA still thinks"
    world.clock.advance(world.timing.lease)
    await authority.recover(world.snapshot)
    async with asyncio.timeout(5):
        while not (await world.rows([LedgerState.DELIVERED])):
            await asyncio.sleep(0.01)
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert len(world.ca.revoked) == 1


async def test_while_one_is_worked_on_the_same_request_is_told_to_wait(world: World) -> None:
    world.ca.faults = ["gate"]
    authority = await world.start()
    first = asyncio.create_task(authority.generate(world.snapshot, wanted(world), KIND))
    await world.ca.reached.wait()
    second = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(second, Unavailable)
    assert second.reason is Reason.OVERLOADED
    world.ca.gate.set()
    given(await first)
    assert len(world.ca.issued()) == 1


async def test_what_another_worker_is_about_to_give_is_not_taken_away(world: World) -> None:
    world.ca.faults = ["gate"]
    one, other = await world.start("w1"), await world.start("w2")
    first = asyncio.create_task(one.generate(world.snapshot, wanted(world), KIND))
    await world.ca.reached.wait()
    second = asyncio.create_task(other.generate(world.snapshot, wanted(world), KIND))
    await asyncio.sleep(0.1)
    world.ca.gate.set()
    given(await first)
    refused = await second
    assert isinstance(refused, Unavailable)
    assert refused.reason is Reason.OVERLOADED
    assert world.ca.revoked == []


async def test_however_many_workers_give_keys_one_certificate_is_good(world: World) -> None:
    workers = [await world.start(f"w{n}") for n in range(4)]
    outcomes = await asyncio.gather(*(worker.generate(world.snapshot, wanted(world), KIND) for worker in workers))
    given_out = [given(outcome).issued.certificate for outcome in outcomes if isinstance(outcome, IssuedWithKey)]
    [good] = [row.der for row in await world.store.list_certificates(CertificateFilter()) if row.revoked_at is None]
    assert good in given_out


async def test_a_worker_that_drains_takes_nothing_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = await world.start()
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    drained, drawing = threading.Event(), threading.Event()

    def draw(kind: str) -> PrivateKey:
        drawing.set()
        assert drained.wait(5)
        return generate_private_key(kind)

    monkeypatch.setattr(server_keys, "generate_private_key", draw)
    again = asyncio.create_task(authority.generate(world.snapshot, wanted(world), KIND))
    await asyncio.to_thread(drawing.wait, 5)
    await authority.drain(0.1)
    drained.set()
    assert isinstance(await again, Unavailable)
    assert world.ca.revoked == []


async def test_a_client_that_hangs_up_leaves_a_certificate_that_is_superseded(world: World) -> None:
    world.ca.faults = ["gate"]
    authority = await world.start()
    first = asyncio.create_task(authority.generate(world.snapshot, wanted(world), KIND))
    await world.ca.reached.wait()
    first.cancel()
    world.ca.gate.set()
    async with asyncio.timeout(5):
        while not (await world.rows([LedgerState.DELIVERED])):
            await asyncio.sleep(0.01)
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert len(world.ca.revoked) == 1


async def test_no_second_key_while_the_first_cannot_be_revoked(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=challenge)
    snapshot = world.make_snapshot(per_requester=Quota(2, timedelta(hours=1)))
    first = given(await authority.generate(snapshot, request, KIND))

    async def fail(*_: object) -> None:
        raise NotSent("the CA is down")

    revoke, world.ca.revoke = world.ca.revoke, fail
    for _ in range(2):
        outcome = await authority.generate(snapshot, request, KIND)
        assert isinstance(outcome, Unavailable)
        assert outcome.reason is Reason.UPSTREAM_UNAVAILABLE
        assert await good(world) == [first.issued.request_id]
    assert len(world.ca.issued()) == 1
    world.ca.revoke = revoke
    second = given(await authority.generate(snapshot, request, KIND))
    assert await good(world) == [second.issued.request_id]


async def test_a_fault_of_the_backend_costs_a_lease(world: World) -> None:
    authority = await world.start()
    first = given(await authority.generate(world.snapshot, wanted(world), KIND))

    async def fail(*_: object) -> None:
        raise RuntimeError("a bug in the backend")

    revoke, world.ca.revoke = world.ca.revoke, fail
    outcome = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason is Reason.INTERNAL
    assert await good(world) == [first.issued.request_id]
    world.ca.revoke = revoke
    await world.lapse()
    second = given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert await good(world) == [second.issued.request_id]


async def test_what_an_operator_revokes_meanwhile_is_not_replaced(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=challenge)
    given(await authority.generate(world.snapshot, request, KIND))
    [row] = await world.store.list_certificates(CertificateFilter())
    store = await world.open_store("w2")

    class Slow(FlakyStore):
        async def find_certificate(self, sha256: bytes) -> Any:
            await world.administration().revoke_certificate(row.sha256.hex(), RevocationReason.KEY_COMPROMISE, "uid:0 (root)")
            return await store.find_certificate(sha256)

    other = await world.start("w2", store=Slow(store))
    outcome = await other.generate(world.snapshot, request, KIND)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.DENIED
    again = await authority.generate(world.snapshot, request, KIND)
    assert isinstance(again, Rejected)
    assert again.reason is Reason.CREDENTIAL_USED
    assert await good(world) == []


class Mortal:
    """Lets a worker die just before or just after its k-th call of a ledger or a CA, for good."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.count = 0

    def wrap(self, target: Any, *names: str) -> Any:
        mortal = self

        class Dying:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                if name not in names:
                    return found

                async def call(*args: Any, **kwargs: Any) -> Any:
                    await mortal.step()
                    result = await found(*args, **kwargs)
                    await mortal.step()
                    return result

                return call

        return Dying()

    async def step(self) -> None:
        self.count += 1
        if 0 < self.k <= self.count:
            await asyncio.sleep(3600)


LEDGER = ("open", "transition", "find_certificate", "mark_revoked", "append_audit")
STEPS = 14
"""Calls of a retransmission, with the moments before and after each."""


@pytest.mark.parametrize("k", [*range(1, STEPS + 1), 0])
async def test_whenever_a_worker_dies_the_next_retransmission_gets_a_key(world: World, k: int) -> None:
    world.ca.capabilities = REVOKE | FIND
    authority = await world.start("w1")
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=challenge)
    snapshot = world.make_snapshot(per_requester=Quota(3, timedelta(days=1)))
    first = given(await authority.generate(snapshot, request, KIND))
    mortal = Mortal(k)
    dying = await world.start("w2", store=mortal.wrap(await world.open_store("w2"), *LEDGER))
    ca = mortal.wrap(world.ca, "issue", "revoke")
    profile = replace(snapshot.profile(PROFILE, Protocol.EST), upstream_ca=ca)
    theirs = replace(snapshot, profiles={PROFILE: profile}, upstream_cas={world.ca.name: ca})
    cut_off = asyncio.create_task(dying.generate(theirs, request, KIND))
    await asyncio.wait({cut_off}, timeout=0.5)
    assert cut_off.done() == (k == 0)
    if k == 0:
        assert mortal.count == STEPS
        await cut_off
    cut_off.cancel()
    await dying.drain(0)
    await world.lapse()
    async with asyncio.timeout(10):
        while isinstance(outcome := await authority.generate(snapshot, request, KIND), Unavailable):
            assert len(await good(world)) <= 1
            await world.lapse()
    second = given(outcome)
    assert second.issued.request_id != first.issued.request_id
    assert await good(world) == [second.issued.request_id]
    rows = await world.store.list_certificates(CertificateFilter())
    assert {row.serial for row in rows if row.revoked_at} == set(world.ca.revoked)


async def test_what_was_opened_but_not_sent_ends_without_a_certificate(world: World) -> None:
    """Nobody has its key: the certificate that it was to replace answers for the request again, and quotas are as before."""
    authority = await world.start("w1")
    snapshot = world.make_snapshot(per_requester=Quota(2, timedelta(hours=1)))
    first = given(await authority.generate(snapshot, wanted(world), KIND))
    mortal = Mortal(2)
    dying = await world.start("w2", store=mortal.wrap(await world.open_store("w2"), "open"))
    cut_off = asyncio.create_task(dying.generate(snapshot, wanted(world), KIND))
    await asyncio.wait({cut_off}, timeout=0.5)
    cut_off.cancel()
    await dying.drain(0)
    assert await good(world) == [first.issued.request_id]
    await world.lapse()
    assert await authority.recover(snapshot) == 1
    assert len(world.ca.issued()) == 1
    assert {(row.state, row.sent) for row in await world.rows()} == {
        (LedgerState.DELIVERED, True),
        (LedgerState.REJECTED, False),
    }
    assert await good(world) == [first.issued.request_id]
    second = given(await authority.generate(snapshot, wanted(world), KIND))
    assert await good(world) == [second.issued.request_id]


async def test_the_first_retransmission_after_a_death_gets_a_key(world: World) -> None:
    authority = await world.start("w1")
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    mortal = Mortal(2)
    dying = await world.start("w2", store=mortal.wrap(await world.open_store("w2"), "open"))
    cut_off = asyncio.create_task(dying.generate(world.snapshot, wanted(world), KIND))
    await asyncio.wait({cut_off}, timeout=0.5)
    cut_off.cancel()
    await dying.drain(0)
    await world.lapse()
    second = given(await authority.generate(world.snapshot, wanted(world), KIND))
    assert await good(world) == [second.issued.request_id]


async def test_what_another_worker_is_about_to_replace_is_not_taken_away(world: World) -> None:
    one, other = await world.start("w1"), await world.start("w2")
    given(await one.generate(world.snapshot, wanted(world), KIND))
    revoke, reached, go_on = world.ca.revoke, asyncio.Event(), asyncio.Event()

    async def wait(*arguments: Any) -> None:
        reached.set()
        await go_on.wait()
        await revoke(*arguments)

    world.ca.revoke = wait
    second = asyncio.create_task(one.generate(world.snapshot, wanted(world), KIND))
    await reached.wait()
    third = asyncio.create_task(other.generate(world.snapshot, wanted(world), KIND))
    await asyncio.sleep(0.1)
    go_on.set()
    replaced = given(await second)
    refused = await third
    assert isinstance(refused, Unavailable)
    assert refused.reason is Reason.OVERLOADED
    assert await good(world) == [replaced.issued.request_id]


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("call", ["open", "mark_revoked", "transition"])
async def test_a_store_that_fails_in_between_loses_nothing(world: World, call: str, fault: str) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start(store=store)
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    request = wanted(world, challenge=challenge)
    snapshot = world.make_snapshot(per_requester=Quota(2, timedelta(hours=1)))
    given(await authority.generate(snapshot, request, KIND))
    store.faults[call] = [fault]
    outcome = await authority.generate(snapshot, request, KIND)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason is Reason.STORE_UNAVAILABLE
    second = given(await authority.generate(snapshot, request, KIND))
    assert await good(world) == [second.issued.request_id]


async def test_without_a_store_no_key_is_drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FlakyStore(await world.open_store("w1"))
    store.faults["find_request"] = ["before"]
    authority = await world.start(store=store)
    monkeypatch.setattr(server_keys, "generate_private_key", lambda _: pytest.fail("a key was drawn"))
    outcome = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason is Reason.STORE_UNAVAILABLE


async def test_too_many_keys_at_once_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_keys, "MAX_WAITING", 2)
    authority = await world.start()
    requests = [authority.generate(world.snapshot, wanted(world, f"device-{n}"), "rsa-2048") for n in range(8)]
    outcomes = await asyncio.gather(*requests)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert refused
    assert {outcome.reason for outcome in refused} == {Reason.OVERLOADED}
    assert len(world.ca.issued()) == len(outcomes) - len(refused) >= 3


async def test_one_key_at_a_time_is_drawn_for_a_requester(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = await world.start()
    drawing, go_on = threading.Event(), threading.Event()

    def draw(kind: str) -> PrivateKey:
        drawing.set()
        assert go_on.wait(5)
        return generate_private_key(kind)

    monkeypatch.setattr(server_keys, "generate_private_key", draw)
    first = asyncio.create_task(authority.generate(world.snapshot, wanted(world), KIND))
    await asyncio.to_thread(drawing.wait, 5)
    first.cancel()
    await asyncio.wait({first})
    again = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(again, Unavailable), "the key of one that hung up is drawn to its end"
    assert again.reason is Reason.OVERLOADED
    other = asyncio.create_task(authority.generate(world.snapshot, wanted(world, "other"), KIND))
    await asyncio.sleep(0.05)
    other.cancel()
    await asyncio.wait({other})
    patient = asyncio.create_task(authority.generate(world.snapshot, wanted(world, "other"), KIND))
    await asyncio.sleep(0.05)
    go_on.set()
    given(await patient)
    given(await authority.generate(world.snapshot, wanted(world), KIND))


async def test_a_registration_authority_has_keys_drawn_for_several_devices(world: World) -> None:
    one, other = (wanted(world, name) for name in ("one", "other"))
    ra = Requester("ra_certificate:1", CredentialKind.RA_CERTIFICATE)
    assert place_of(one, ra) != place_of(other, ra)
    assert place_of(one, ra) != place_of(one, replace(ra, identity="ra_certificate:2"))
    user = Requester("basic:alice", CredentialKind.BASIC)
    assert place_of(one, user) == place_of(other, user) == "basic:alice"


async def test_a_worker_that_drains_draws_for_nobody(world: World) -> None:
    authority = await world.start()
    await authority.drain(0.1)
    outcome = await authority.generate(world.snapshot, wanted(world), KIND)
    assert isinstance(outcome, Unavailable)
    assert world.ca.issued() == []


async def test_an_enrollment_of_the_same_request_is_another_request(world: World) -> None:
    authority = await world.start()
    given(await authority.generate(world.snapshot, wanted(world), KIND))
    simple = replace(wanted(world), operation="simpleenroll")
    outcome = await authority.enroll(world.snapshot, simple)
    assert isinstance(outcome, Issued)
    assert public_key_of(outcome.certificate) == simple.csr.public_key.der
    assert world.ca.revoked == []
    assert SECRET not in repr(outcome)
