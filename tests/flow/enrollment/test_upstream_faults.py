"""What becomes of every way in which an upstream CA can fail: nothing issued is lost, nothing is issued twice."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from gateway.ca.interfaces import Capability
from gateway.errors import Reason
from gateway.model import Issued, Pending, Rejected, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.store.interfaces import CertificateFilter, LedgerState, WaitingFor
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import FIND, POLL, PROFILE, QUICK, REVOKE, World

LOST = ["lost before", "lost after", "crash", "stall", "garbage", "wrong key"]


async def challenge_of(world: World) -> str:
    return (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge


async def is_used(world: World) -> bool:
    [row] = await world.administration().list_challenges()
    return row.used_by is not None


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param("rejected", Rejected(Reason.UPSTREAM_REJECTED, "the CA does not like you"), id="definite refusal"),
        pytest.param("not sent", Unavailable(Reason.UPSTREAM_UNAVAILABLE, 7), id="nothing was sent"),
    ],
)
async def test_definite_failure_gives_everything_back(new_world: NewWorld, fault: str, outcome: Rejected | Unavailable) -> None:
    world = new_world()
    authority = await world.start()
    challenge = await challenge_of(world)
    world.ca.faults = [fault]
    assert await authority.enroll(world.snapshot, world.request(challenge=challenge)) == outcome
    assert not await is_used(world)
    [row] = await world.rows()
    assert row.state is LedgerState.REJECTED
    assert isinstance(await authority.enroll(world.snapshot, world.request(challenge=challenge)), Issued)
    assert len(world.ca.issued()) == 1


@pytest.mark.parametrize("fault", LOST)
async def test_with_find_the_client_gets_its_certificate_though_the_reply_was_lost(new_world: NewWorld, fault: str) -> None:
    world = new_world(FIND, replace(QUICK, issue_within=0.1))
    authority = await world.start()
    world.ca.faults = [fault]
    outcome = await authority.enroll(world.snapshot, world.request(challenge=await challenge_of(world)))
    if fault == "wrong key":
        assert isinstance(outcome, Pending)
        return
    assert isinstance(outcome, Issued)
    assert world.ca.issued() == [outcome.certificate]
    assert "enrollment.unknown" in await world.events()
    assert await is_used(world)


@pytest.mark.parametrize("fault", LOST)
async def test_without_find_the_request_is_held_and_an_alert_names_the_command(new_world: NewWorld, fault: str) -> None:
    world = new_world(timing=replace(QUICK, issue_within=0.1))
    authority = await world.start()
    world.ca.faults = [fault]
    request = world.request(challenge=await challenge_of(world))
    with capture_logs() as logs:
        outcome = await authority.enroll(world.snapshot, request)
    assert isinstance(outcome, Pending)
    command = f"pki-gateway requests resolve {outcome.request_id} --attach CERT | --reissue | --fail"
    assert [line["command"] for line in logs if line["log_level"] == "error" and "command" in line] == [command]
    [row] = await world.rows()
    assert (row.state, row.worker) == (LedgerState.UNKNOWN, "")
    assert await is_used(world)
    for _ in range(3):
        again = await authority.enroll(world.snapshot, request)
        assert isinstance(again, Pending)
        assert again.request_id == outcome.request_id
    assert [call for call in world.ca.calls if call.startswith("issue")] == [f"issue {row.id}"]


async def test_held_request_outlives_retransmission_window_and_restart(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    world.ca.faults = ["lost after"]
    held = await authority.enroll(world.snapshot, world.request())
    assert isinstance(held, Pending)
    world.clock.advance(timedelta(hours=5))
    later = await world.start("w2")
    again = await later.enroll(world.snapshot, world.request())
    assert isinstance(again, Pending)
    assert again.request_id == held.request_id
    assert len(world.ca.issued()) == 1


async def test_alert_of_a_held_request_is_repeated_and_no_certificate_is_made(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    world.ca.faults = ["lost after"]
    await authority.enroll(world.snapshot, world.request())
    assert await authority.recover(world.snapshot) == 0
    world.clock.advance(world.timing.hold + timedelta(seconds=1))
    with capture_logs() as logs:
        assert await authority.recover(world.snapshot) == 1
    assert any("requests resolve" in line.get("command", "") for line in logs)
    [row] = await world.rows()
    assert row.state is LedgerState.UNKNOWN
    assert len(world.ca.issued()) == 1


async def test_ca_that_cannot_be_asked_now_is_asked_again_later(new_world: NewWorld) -> None:
    world = new_world(FIND)
    authority = await world.start()
    world.ca.faults = ["lost after"]
    world.ca.find_faults = ["down"] * 20
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Pending)
    assert world.ca.calls.count(f"find {outcome.request_id}") > 1
    world.ca.find_faults = ["down"]
    world.clock.advance(world.timing.rest + timedelta(seconds=5))
    assert await authority.recover(world.snapshot) == 1
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    world.clock.advance(timedelta(minutes=5))
    assert await authority.recover(world.snapshot) == 1
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    assert world.ca.issued() == [issued.certificate]


async def test_ca_that_never_saw_it_is_sent_it_again_but_not_for_ever(new_world: NewWorld) -> None:
    world = new_world(FIND)
    authority = await world.start()
    world.ca.faults = ["lost before"] * 10
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Unavailable)
    assert sum(call.startswith("issue") for call in world.ca.calls) == QUICK.attempts
    world.ca.faults = []
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)
    assert len(world.ca.issued()) == 1


@pytest.mark.parametrize("capabilities", [Capability.NONE, FIND, FIND | REVOKE], ids=["bare", "find", "find and revoke"])
async def test_certificate_of_another_name_is_never_delivered_but_kept_revoked(
    new_world: NewWorld, capabilities: Capability
) -> None:
    world = new_world(capabilities)
    authority = await world.start()
    challenge = await challenge_of(world)
    world.ca.faults = ["wrong name"]
    with capture_logs() as logs:
        outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.UPSTREAM_MISMATCH
    assert "subject" not in outcome.detail
    [certificate] = await world.store.list_certificates(CertificateFilter())
    assert certificate.revoked_at is not None
    assert world.ca.revoked == ([certificate.serial] if REVOKE in capabilities else [])
    assert any("subject is not the granted one" in line.get("cause", "") for line in logs)
    assert await is_used(world)
    again = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert again == outcome
    assert len(world.ca.issued()) == 1


async def test_certificate_of_another_request_is_neither_delivered_nor_revoked(new_world: NewWorld) -> None:
    world = new_world(REVOKE)
    authority = await world.start()
    good = await authority.enroll(world.snapshot, world.request("first"))
    assert isinstance(good, Issued)
    world.ca.faults = ["other's certificate"]
    outcome = await authority.enroll(world.snapshot, world.request("second"))
    assert isinstance(outcome, Pending)
    assert not world.ca.revoked
    row = await world.store.find_certificate(parse_certificate(good.certificate).sha256)
    assert row is not None
    assert row.revoked_at is None
    assert isinstance(await authority.enroll(world.snapshot, world.request("first")), Issued)


async def test_earlier_certificate_of_the_same_key_is_not_taken_for_a_new_one(new_world: NewWorld) -> None:
    world = new_world(REVOKE)
    authority = await world.start()
    first = await authority.enroll(world.snapshot, world.request())
    assert isinstance(first, Issued)
    world.ca.faults = ["other's certificate"]
    second = await authority.enroll(world.snapshot, world.request(transaction="2"))
    assert isinstance(second, Pending)
    assert not world.ca.revoked
    assert [row.state for row in await world.rows()] == [LedgerState.UNKNOWN, LedgerState.DELIVERED]


async def test_pending_ca_is_polled_until_it_issues(new_world: NewWorld) -> None:
    world = new_world(POLL)
    authority = await world.start()
    world.ca.faults = ["pending", "pending", "unreachable"]
    request = world.request()
    pending = await authority.enroll(world.snapshot, request)
    assert isinstance(pending, Pending)
    assert pending.retry_after <= 31
    assert await authority.recover(world.snapshot) == 0
    for _ in range(2):
        world.clock.advance(timedelta(seconds=31))
        assert await authority.recover(world.snapshot) == 1
        assert isinstance(await authority.poll(world.snapshot, world.poll(request)), Pending)
    world.clock.advance(timedelta(seconds=31))
    issued = await authority.poll(world.snapshot, world.poll(request))
    assert isinstance(issued, Issued)
    assert world.ca.calls[-1] == f"poll ref-{pending.request_id}"
    assert world.ca.issued() == [issued.certificate]


async def test_pending_ca_that_refuses_later_ends_the_request(new_world: NewWorld) -> None:
    world = new_world(POLL)
    authority = await world.start()
    world.ca.faults = ["pending", "rejected"]
    request = world.request(challenge=await challenge_of(world))
    assert isinstance(await authority.enroll(world.snapshot, request), Pending)
    world.clock.advance(timedelta(seconds=31))
    assert await authority.recover(world.snapshot) == 1
    assert await authority.poll(world.snapshot, world.poll(request)) == Rejected(
        Reason.UPSTREAM_REJECTED, "the CA thought about it and says no"
    )
    assert not await is_used(world)


async def test_several_workers_poll_a_pending_request_once(new_world: NewWorld) -> None:
    world = new_world(POLL)
    workers = [await world.start(f"w{n}") for n in range(3)]
    world.ca.faults = ["pending"]
    assert isinstance(await workers[0].enroll(world.snapshot, world.request()), Pending)
    world.clock.advance(timedelta(seconds=31))
    await asyncio.gather(*(worker.recover(world.snapshot) for worker in workers))
    assert sum(call.startswith("poll") for call in world.ca.calls) == 1
    assert isinstance(await workers[1].enroll(world.snapshot, world.request()), Issued)


async def test_pending_answer_that_cannot_be_polled_is_held(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    world.ca.faults = ["pending"]
    with capture_logs() as logs:
        assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    [row] = await world.rows()
    assert (row.state, row.waiting_for) == (LedgerState.UNKNOWN, WaitingFor.NOTHING)
    assert any("requests resolve" in line.get("command", "") for line in logs)
