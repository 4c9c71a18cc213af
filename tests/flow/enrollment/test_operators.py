"""What operators do to requests, challenges and certificates, and what clients are answered meanwhile."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.ca.interfaces import IssueRequest, NotSent
from gateway.errors import Reason, Rejection
from gateway.model import Issued, Pending, Rejected, RequestId, RevocationReason, SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.ra.transactions import to_issue_request
from gateway.store.interfaces import CertificateFilter, LedgerState, WaitingFor
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import FIND, PROFILE, REVOKE, World

ROOT = "uid:0 (root)"


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture
async def manual(world: World) -> World:
    world.profile_options["manual_approval"] = True
    return world


async def held(world: World, fault: str = "lost after") -> RequestId:
    authority = await world.start()
    world.ca.faults = [fault]
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Pending)
    return outcome.request_id


async def test_request_waits_for_approval_and_nothing_is_sent(manual: World) -> None:
    authority = await manual.start()
    request = manual.request()
    first = await authority.enroll(manual.snapshot, request)
    assert isinstance(first, Pending)
    assert await authority.enroll(manual.snapshot, request) == first
    assert await authority.poll(manual.snapshot, manual.poll(request)) == first
    manual.clock.advance(timedelta(hours=3))
    assert await authority.recover(manual.snapshot) == 0
    assert not manual.ca.calls
    [row] = await manual.administration().list_requests()
    assert (row.id, row.waiting_for, row.sent) == (first.request_id, WaitingFor.APPROVAL, False)


@pytest.mark.parametrize("how", ["recovery", "poll", "retransmission"])
async def test_approved_request_is_issued(manual: World, how: str) -> None:
    authority = await manual.start()
    request = manual.request()
    pending = await authority.enroll(manual.snapshot, request)
    assert isinstance(pending, Pending)
    await manual.administration().approve(pending.request_id, ROOT)
    if how == "recovery":
        assert await authority.recover(manual.snapshot) == 1
    asked = (
        authority.enroll(manual.snapshot, request)
        if how == "retransmission"
        else authority.poll(manual.snapshot, manual.poll(request))
    )
    issued = await asked
    assert isinstance(issued, Issued)
    assert issued.request_id == pending.request_id
    assert len(manual.ca.issued()) == 1
    approved = next(event for event in await manual.audit() if event["event"] == "request.approved")
    assert approved["actor"] == ROOT


async def test_denied_request_stays_denied_and_its_challenge_used(manual: World) -> None:
    authority = await manual.start()
    challenge = (await manual.administration().new_challenge(PROFILE, ROOT)).challenge
    request = manual.request(challenge=challenge)
    pending = await authority.enroll(manual.snapshot, request)
    assert isinstance(pending, Pending)
    await manual.administration().deny(pending.request_id, ROOT, "not one of ours")
    denied = Rejected(Reason.DENIED, "not one of ours")
    assert await authority.poll(manual.snapshot, manual.poll(request)) == denied
    assert await authority.enroll(manual.snapshot, request) == denied
    other = await authority.enroll(manual.snapshot, manual.request("other", challenge=challenge))
    assert isinstance(other, Rejected)
    assert other.reason is Reason.CREDENTIAL_USED
    with pytest.raises(Rejection, match="rejected"):
        await manual.administration().approve(pending.request_id, ROOT)


async def test_approval_that_comes_when_the_ca_is_down_is_not_lost(manual: World) -> None:
    authority = await manual.start()
    request = manual.request()
    pending = await authority.enroll(manual.snapshot, request)
    assert isinstance(pending, Pending)
    await manual.administration().approve(pending.request_id, ROOT)
    manual.ca.faults = ["not sent"]
    assert await authority.recover(manual.snapshot) == 1
    assert isinstance(await authority.poll(manual.snapshot, manual.poll(request)), Pending)
    manual.clock.advance(timedelta(minutes=2))
    assert isinstance(await authority.poll(manual.snapshot, manual.poll(request)), Issued)


async def test_approval_comes_too_late_when_the_granted_validity_is_over(manual: World) -> None:
    authority = await manual.start()
    pending = await authority.enroll(manual.snapshot, manual.request())
    assert isinstance(pending, Pending)
    manual.clock.advance(timedelta(days=400))
    with pytest.raises(Rejection, match="expired"):
        await manual.administration().approve(pending.request_id, ROOT)


async def test_attach_delivers_the_certificate_that_the_ca_issued(world: World) -> None:
    request_id = await held(world)
    authority = await world.start("w2")
    [certificate] = world.ca.issued()
    row = await world.administration().attach(request_id, certificate, ROOT)
    assert row.state is LedgerState.DELIVERED
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    assert issued.certificate == certificate
    with pytest.raises(Rejection, match="delivered"):
        await world.administration().reissue(request_id, ROOT)
    with pytest.raises(Rejection, match="delivered"):
        await world.administration().fail(request_id, ROOT)


async def test_attach_takes_only_what_was_granted(world: World) -> None:
    request_id = await held(world)
    administration = world.administration()
    row = await administration.show_request(request_id)
    good = to_issue_request(row, 0)
    named = world.ca.sign(replace(row.grant, subject_der=parse_name_text("CN=another").der), good.public_key)
    keyed = world.ca.sign(row.grant, public_key_der(generate_private_key("ec-p256")))
    longer = world.ca.sign(replace(row.grant, not_after=row.grant.not_after + timedelta(days=1)), good.public_key)
    for wrong, why in ((named, "subject"), (keyed, "another key"), (longer, "notAfter"), (b"garbage", "certificate")):
        with pytest.raises(Rejection, match=why):
            await administration.attach(request_id, wrong, ROOT)
    assert (await administration.show_request(request_id)).state is LedgerState.UNKNOWN


async def test_attach_takes_only_what_the_second_opinion_lets_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    async def inspect(certificate: bytes) -> None:
        judged.append(certificate)
        raise Rejection(Reason.UPSTREAM_MISMATCH, "not what was granted", "pkilint: no policy")

    request_id = await held(world)
    monkeypatch.setattr(world.ca, "inspect", inspect)
    with pytest.raises(Rejection, match="pkilint: no policy"):
        await world.administration().attach(request_id, world.ca.issued()[0], ROOT)
    assert judged == world.ca.issued()
    assert (await world.administration().show_request(request_id)).state is LedgerState.UNKNOWN


async def test_reissue_sends_it_once_more(world: World) -> None:
    request_id = await held(world, "lost before")
    authority = await world.start("w2")
    await world.administration().reissue(request_id, ROOT)
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    assert issued.request_id == request_id
    assert len(world.ca.issued()) == 1


async def test_reissue_that_is_refused_gives_nothing_back(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, ROOT)).challenge
    world.ca.faults = ["lost after", "rejected"]
    outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(outcome, Pending)
    await world.administration().reissue(outcome.request_id, ROOT)
    assert await authority.recover(world.snapshot) == 1
    [row] = await world.administration().list_challenges()
    assert row.used_by == outcome.request_id


async def test_fail_ends_it_and_releases_nothing(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, ROOT)).challenge
    world.ca.faults = ["lost after"]
    request = world.request(challenge=challenge)
    outcome = await authority.enroll(world.snapshot, request)
    assert isinstance(outcome, Pending)
    await world.administration().fail(outcome.request_id, ROOT, "the CA is gone")
    assert await authority.enroll(world.snapshot, request) == Rejected(Reason.DENIED, "the CA is gone")
    assert await authority.poll(world.snapshot, world.poll(request)) == Rejected(Reason.DENIED, "the CA is gone")
    [row] = await world.administration().list_challenges()
    assert row.used_by == outcome.request_id


async def test_operator_does_not_overtake_a_worker_that_asks_the_ca(new_world: NewWorld) -> None:
    world = new_world(FIND)
    authority = await world.start()
    world.ca.faults = ["lost before"]
    seen: list[str] = []
    ask = world.ca.find

    async def find(request: IssueRequest) -> object:
        with pytest.raises(Rejection, match="just now") as refusal:
            await world.administration().reissue(request.request_id, ROOT)
        seen.append(refusal.value.detail)
        return await ask(request)

    world.ca.find = find
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)
    assert len(seen) == 1
    assert len(world.ca.issued()) == 1


async def test_names_of_unknown_things_are_refused(world: World) -> None:
    await world.start()
    administration = world.administration()
    with pytest.raises(Rejection, match="no request"):
        await administration.show_request("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(Rejection, match="no such certificate"):
        await administration.show_certificate("ab" * 32)
    with pytest.raises(Rejection, match="neither"):
        await administration.show_certificate("CN=device")
    with pytest.raises(Rejection, match="no unused challenge"):
        await administration.revoke_challenge("01ARZ3NDEKTSV4RRFFQ69G5FAV", ROOT)
    with pytest.raises(Rejection, match="no such profile"):
        await administration.new_challenge("nowhere", ROOT)


async def test_challenge_is_stored_as_hmac_and_ends(world: World) -> None:
    authority = await world.start()
    administration = world.administration()
    made = await administration.new_challenge(
        PROFILE, ROOT, subject="CN=device", owner="it@example.org", ttl=timedelta(minutes=5)
    )
    assert made.challenge not in repr(made)
    assert made.challenge.encode() not in b"".join(path.read_bytes() for path in world.folder.glob("gateway.db*"))
    [row] = await administration.list_challenges(PROFILE)
    assert (row.id, row.owner, row.created_by) == (made.id, "it@example.org", ROOT)
    world.clock.advance(timedelta(minutes=6))
    expired = await authority.enroll(world.snapshot, world.request(challenge=made.challenge))
    assert isinstance(expired, Rejected)
    assert expired.reason is Reason.CREDENTIAL_EXPIRED


async def test_revoked_challenge_is_no_good(world: World) -> None:
    authority = await world.start()
    administration = world.administration()
    made = await administration.new_challenge(PROFILE, ROOT)
    await administration.revoke_challenge(made.id, ROOT)
    refused = await authority.enroll(world.snapshot, world.request(challenge=made.challenge))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.CREDENTIAL_REVOKED


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({"ttl": timedelta(days=8)}, "at most", id="too long a life"),
        pytest.param({"ttl": timedelta(0)}, "at most", id="no life"),
        pytest.param({"subject": "not a name"}, "subject", id="subject that is no name"),
        pytest.param({"subject": "CN=a", "sans": [(SanKind.IP, "300.1.2.3")]}, "name", id="address that is none"),
        pytest.param({"sans": [(SanKind.DNS, "a.example")]}, "subject too", id="names for any subject"),
    ],
)
async def test_challenge_that_cannot_be_made(world: World, options: dict[str, object], why: str) -> None:
    await world.start()
    with pytest.raises(Rejection, match=why):
        await world.administration().new_challenge(PROFILE, ROOT, **options)  # type: ignore[arg-type]
    assert not await world.events()


async def test_profile_without_one_time_challenges_makes_none(world: World) -> None:
    await world.start()
    world.profile_options["credentials"] = ()
    with pytest.raises(Rejection, match="one_time"):
        await world.administration().new_challenge(PROFILE, ROOT)


async def test_certificate_is_revoked_at_its_ca_and_in_the_inventory(new_world: NewWorld) -> None:
    world = new_world(REVOKE)
    authority = await world.start()
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    serial = parse_certificate(issued.certificate).serial
    colons = ":".join(f"{byte:02X}" for byte in serial.to_bytes(20, "big"))
    row = await world.administration().revoke_certificate(colons, RevocationReason.KEY_COMPROMISE, ROOT)
    assert row.revocation_reason is RevocationReason.KEY_COMPROMISE
    assert world.ca.revoked == [serial]
    assert (await world.audit())[-1]["actor"] == ROOT
    await world.administration().revoke_certificate(colons, RevocationReason.SUPERSEDED, ROOT)
    assert world.ca.revoked == [serial]
    [row] = await world.store.list_certificates(CertificateFilter())
    assert row.revocation_reason is RevocationReason.KEY_COMPROMISE


async def test_certificate_is_not_called_revoked_when_its_ca_did_not(new_world: NewWorld) -> None:
    world = new_world(REVOKE)
    authority = await world.start()
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)

    async def revoke(*_: object) -> None:
        raise NotSent("connection refused")

    world.ca.revoke = revoke
    certificate = parse_certificate(issued.certificate)
    with pytest.raises(NotSent):
        await world.administration().revoke_certificate(certificate.sha256.hex(), RevocationReason.KEY_COMPROMISE, ROOT)
    assert (await world.administration().show_certificate(certificate.sha256.hex())).revoked_at is None


async def test_status_says_what_waits(manual: World) -> None:
    authority = await manual.start()
    manual.ca.faults = ["lost after"]
    await authority.enroll(manual.make_snapshot(manual_approval=False), manual.request("one"))
    await authority.enroll(manual.snapshot, manual.request("two"))
    status = await manual.administration().status()
    assert (status.in_doubt, status.waiting_for_approval, status.waiting_for_upstream) == (1, 1, 0)
    assert status.profiles == (PROFILE,)
    assert status.crls == {"issuing": None}


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        pytest.param({}, None, id="neither"),
        pytest.param({"subject": "CN=device"}, frozenset(), id="subject alone"),
        pytest.param({"sans": []}, frozenset(), id="no names"),
        pytest.param(
            {"subject": "CN=device", "sans": [(SanKind.DNS, "a.example")]}, frozenset({(SanKind.DNS, "a.example")}), id="both"
        ),
    ],
)
async def test_a_challenge_for_a_subject_leaves_no_other_name_open(
    world: World, options: dict[str, Any], bound: frozenset[tuple[SanKind, str]] | None
) -> None:
    await world.start()
    await world.administration().new_challenge(PROFILE, ROOT, **options)
    [row] = await world.administration().list_challenges(PROFILE)
    assert row.sans == bound
