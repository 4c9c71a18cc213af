"""Enrollment through the real store, policy and credentials: one request, one certificate, one answer."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.config.policy import PolicyConfig, SubjectRule
from gateway.errors import Reason
from gateway.model import EnrollmentRequest, Issued, Pending, ProfileName, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.requests import RevokeRequest
from gateway.store.interfaces import CertificateFilter, LedgerState
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import (
    CA_NAME,
    FIND,
    ONE_AN_HOUR,
    PROFILE,
    QUICK,
    REVOKE,
    SECRET,
    FlakyStore,
    World,
    public_key_of,
)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


async def test_issues_what_was_granted_and_records_it(world: World) -> None:
    authority = await world.start()
    request = world.request()
    outcome = await authority.enroll(world.snapshot, request)
    assert isinstance(outcome, Issued)
    assert public_key_of(outcome.certificate) == request.csr.public_key.der
    assert outcome.chain == world.ca.chain()
    [row] = await world.rows()
    assert (row.state, row.worker, row.certificate) == (LedgerState.DELIVERED, "", outcome.certificate)
    [certificate] = await world.store.list_certificates(CertificateFilter())
    assert (certificate.request_id, certificate.requester) == (row.id, row.requester)
    assert await world.events() == ["enrollment.opened", "enrollment.issued"]


async def test_audit_rows_say_who_asked_for_what_and_hold_no_secret(world: World) -> None:
    authority = await world.start()
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    issued = (await world.audit())[-1]
    assert issued["subject"] == "CN=device"
    assert issued["source"] == "192.0.2.7"
    assert issued["request_id"] == outcome.request_id
    assert issued["actor"].startswith("static:corp")
    assert int(issued["serial"], 16) == parse_certificate(outcome.certificate).serial
    assert SECRET not in json.dumps([dict(event) for event in await world.audit()])


async def test_retransmission_gets_the_stored_answer(world: World) -> None:
    authority = await world.start()
    first = await authority.enroll(world.snapshot, world.request())
    second = await authority.enroll(world.snapshot, world.request())
    assert isinstance(first, Issued)
    assert first == second
    assert len(world.ca.issued()) == 1
    assert (await world.events())[-1] == "enrollment.answered"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"transaction": "another"}, id="another transaction"),
        pytest.param({"operation": "RenewalReq"}, id="another message type"),
        pytest.param({"key": "another"}, id="another key"),
    ],
)
async def test_what_differs_is_a_new_request(world: World, changes: dict[str, str]) -> None:
    authority = await world.start()
    first = await authority.enroll(world.snapshot, world.request())
    second = await authority.enroll(world.snapshot, world.request(**changes))
    assert isinstance(first, Issued)
    assert isinstance(second, Issued)
    assert first.certificate != second.certificate


async def test_retransmission_ends_with_its_window(world: World) -> None:
    authority = await world.start()
    first = await authority.enroll(world.snapshot, world.request())
    world.clock.advance(timedelta(hours=1, seconds=1))
    second = await authority.enroll(world.snapshot, world.request())
    assert isinstance(second, Issued)
    assert first != second


async def test_simultaneous_retransmissions_get_one_certificate(world: World) -> None:
    authority = await world.start()
    outcomes = await asyncio.gather(*(authority.enroll(world.snapshot, world.request()) for _ in range(12)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Issued)
    assert len(world.ca.issued()) == 1


async def test_simultaneous_retransmissions_at_two_workers_get_one_certificate(world: World) -> None:
    workers = [await world.start("w1"), await world.start("w2")]
    outcomes = await asyncio.gather(*(workers[n % 2].enroll(world.snapshot, world.request()) for n in range(12)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Issued)
    assert len(world.ca.issued()) == 1


async def test_one_challenge_is_good_for_one_certificate_however_many_ask_at_once(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    requests = [world.request(f"device-{n}", challenge=challenge) for n in range(8)]
    outcomes = await asyncio.gather(*(authority.enroll(world.snapshot, request) for request in requests))
    assert [type(o) for o in outcomes].count(Issued) == 1
    assert {o.reason for o in outcomes if isinstance(o, Rejected)} == {Reason.CREDENTIAL_USED}


async def test_used_challenge_still_proves_the_same_request(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    first = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(first, Issued)
    assert await authority.enroll(world.snapshot, world.request(challenge=challenge)) == first


REFUSALS: list[Any] = [
    pytest.param(lambda w: w.request(challenge=None), Reason.CREDENTIAL_MISSING, id="no challenge"),
    pytest.param(lambda w: w.request(challenge="wrong-wrong-wrong"), Reason.CREDENTIAL_INVALID, id="wrong challenge"),
    pytest.param(lambda w: w.request(profile=ProfileName("other")), Reason.UNKNOWN_PROFILE, id="unknown profile"),
    pytest.param(lambda w: replace(w.request(), protocol=Protocol.EST), Reason.ENDPOINT_CLOSED, id="closed endpoint"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSALS)
async def test_refused_before_anything_is_taken(world: World, make: Callable[[World], EnrollmentRequest], reason: Reason) -> None:
    authority = await world.start()
    outcome = await authority.enroll(world.snapshot, make(world))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason
    assert not await world.rows()
    assert not world.ca.calls
    [event] = await world.audit()
    assert (event["event"], event["decision"], event["reason"]) == ("enrollment.rejected", "refused", reason)


async def test_refused_csr_burns_nothing(world: World) -> None:
    authority = await world.start()
    challenge = (await world.administration().new_challenge(PROFILE, "uid:0 (root)")).challenge
    strict = PolicyConfig(subject=SubjectRule(require=("O",)))
    refused = await authority.enroll(world.make_snapshot(policy=strict), world.request(challenge=challenge))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.POLICY_SUBJECT
    assert not await world.rows()
    assert isinstance(await authority.enroll(world.snapshot, world.request(challenge=challenge)), Issued)


async def test_challenge_bound_to_a_name_is_no_good_for_another(world: World) -> None:
    authority = await world.start()
    made = await world.administration().new_challenge(PROFILE, "uid:0 (root)", subject="CN=device")
    refused = await authority.enroll(world.snapshot, world.request("intruder", challenge=made.challenge))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.NAME_NOT_BOUND
    assert isinstance(await authority.enroll(world.snapshot, world.request(challenge=made.challenge)), Issued)


async def test_quota_refuses_and_leaves_counting_to_the_endpoint(world: World) -> None:
    authority = await world.start()
    snapshot = world.make_snapshot(per_profile=ONE_AN_HOUR)
    assert isinstance(await authority.enroll(snapshot, world.request("one")), Issued)
    before = len(await world.events())
    refused = await authority.enroll(snapshot, world.request("two"))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.RATE_LIMITED
    assert len(await world.events()) == before


async def test_client_that_hangs_up_cancels_nothing(world: World) -> None:
    authority = await world.start()
    world.ca.faults = ["gate"]
    client = asyncio.create_task(authority.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    world.ca.gate.set()
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    assert len(world.ca.issued()) == 1


async def test_drain_finishes_what_runs_and_refuses_what_is_new(world: World) -> None:
    authority = await world.start()
    world.ca.faults = ["gate"]
    client = asyncio.create_task(authority.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    draining = asyncio.create_task(authority.drain(5))
    await asyncio.sleep(0.01)
    refused = await authority.enroll(world.snapshot, world.request("late"))
    assert isinstance(refused, Unavailable)
    assert refused.reason is Reason.OVERLOADED
    world.ca.gate.set()
    assert await draining == 0
    assert isinstance(await client, Issued)


async def test_drain_leaves_what_does_not_end_to_the_next_worker(new_world: NewWorld) -> None:
    world = new_world(FIND)
    authority = await world.start()
    world.ca.faults = ["stall"]
    client = asyncio.create_task(authority.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    assert await authority.drain(0.05) == 1
    assert isinstance(await client, Unavailable)
    [row] = await world.rows()
    assert (row.state, row.worker) == (LedgerState.OPEN, "w1")
    successor = await world.start("w2")
    await world.lapse()
    assert isinstance(await successor.enroll(world.snapshot, world.request()), Issued)


async def test_slow_ca_makes_a_client_come_back_and_the_work_goes_on(new_world: NewWorld) -> None:
    world = new_world(timing=replace(QUICK, answer_within=0.1))
    authority = await world.start()
    world.ca.faults = ["gate"]
    request = world.request()
    pending = await authority.enroll(world.snapshot, request)
    assert isinstance(pending, Pending)
    assert isinstance(await authority.poll(world.snapshot, world.poll(request)), Pending)
    world.ca.gate.set()
    issued = await authority.poll(world.snapshot, world.poll(request))
    assert isinstance(issued, Issued)
    assert issued.request_id == pending.request_id
    events = await world.events()
    assert events.count("enrollment.pending") == 1
    assert events[-1] == "poll.answered"


async def test_lease_is_renewed_while_the_ca_thinks(new_world: NewWorld) -> None:
    world = new_world(timing=replace(QUICK, lease=timedelta(seconds=0.4)))
    authority, other = await world.start("w1"), await world.start("w2")
    world.ca.faults = ["gate"]
    client = asyncio.create_task(authority.enroll(world.snapshot, world.request()))
    await world.ca.reached.wait()
    await asyncio.sleep(0.8)
    assert await other.recover(world.snapshot) == 0
    world.ca.gate.set()
    assert isinstance(await client, Issued)


async def test_poll_is_only_for_the_key_that_opened_the_transaction(world: World) -> None:
    authority = await world.start()
    request = world.request()
    assert isinstance(await authority.enroll(world.snapshot, request), Issued)
    stranger = world.poll(request, requester_key=b"\1" * 32)
    outcome = await authority.poll(world.snapshot, stranger)
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.UNKNOWN_TRANSACTION


async def test_revoked_certificate_is_not_handed_out_again(world: World) -> None:
    authority = await world.start()
    request = world.request()
    first = await authority.enroll(world.snapshot, request)
    assert isinstance(first, Issued)
    sha256 = parse_certificate(first.certificate).sha256.hex()
    await world.administration().revoke_certificate(sha256, RevocationReason.SUPERSEDED, "uid:0 (root)")
    assert isinstance(await authority.poll(world.snapshot, world.poll(request)), Rejected)
    again = await authority.enroll(world.snapshot, request)
    assert isinstance(again, Issued)
    assert parse_certificate(again.certificate).serial != parse_certificate(first.certificate).serial


async def test_holder_of_the_key_revokes_and_nobody_else(new_world: NewWorld) -> None:
    world = new_world(REVOKE)
    authority = await world.start()
    request = world.request()
    issued = await authority.enroll(world.snapshot, request)
    assert isinstance(issued, Issued)
    certificate = parse_certificate(issued.certificate)
    asked = RevokeRequest(
        profile=PROFILE,
        protocol=Protocol.SCEP,
        operation="rr",
        transaction_id="1",
        requester_key=b"\2" * 32,
        certificate_sha256=certificate.sha256,
        reason=RevocationReason.SUPERSEDED,
        source="192.0.2.7",
    )
    assert isinstance(await authority.revoke(world.snapshot, asked), Rejected)
    own = replace(asked, requester_key=request.requester_key)
    await authority.revoke(world.snapshot, own)
    row = await world.store.find_certificate(certificate.sha256)
    assert row is not None
    assert row.revocation_reason is RevocationReason.SUPERSEDED
    assert world.ca.revoked == [certificate.serial]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_store_that_fails_to_open_sends_nothing(world: World, when: str) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    store.faults["open"] = [when]
    outcome = await authority.enroll(world.snapshot, world.request())
    assert outcome == Unavailable(Reason.STORE_UNAVAILABLE, QUICK.busy_retry)
    assert not world.ca.calls
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_store_that_fails_to_record_is_asked_again(world: World, when: str) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    store.faults["transition"] = [when]
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    assert [outcome.certificate] == world.ca.issued()


async def test_certificate_that_cannot_be_recorded_is_not_given_and_not_lost(new_world: NewWorld) -> None:
    world = new_world(FIND)
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    store.faults["transition"] = ["before"] * 50
    with capture_logs() as logs:
        outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Unavailable)
    assert any("requests resolve" in line.get("command", "") and line["log_level"] == "error" for line in logs)
    store.faults.clear()
    await world.lapse()
    assert await authority.recover(world.snapshot) == 1
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    assert [issued.certificate] == world.ca.issued()


async def test_no_answer_without_its_audit_row(world: World) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)
    store.faults["append_audit"] = ["before"]
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Unavailable)
    store.faults["append_audit"] = ["before"]
    assert isinstance(await authority.enroll(world.snapshot, world.request(challenge=None)), Unavailable)


async def test_failure_that_nobody_foresaw_grants_nothing_and_names_nothing(world: World) -> None:
    authority = await world.start()

    class Broken:
        kind = "static"

        async def authenticate(self, request: object, now: object) -> None:
            raise ZeroDivisionError("secret internals")

    with capture_logs() as logs:
        outcome = await authority.enroll(world.make_snapshot(credentials=(Broken(),)), world.request())
    assert outcome == Unavailable(Reason.INTERNAL, QUICK.hold_retry)
    assert any(line.get("exc_info") for line in logs)
    assert (await world.events()) == ["enrollment.unavailable"]


async def test_serials_of_a_ca_belong_to_it(world: World) -> None:
    authority = await world.start()
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    row = await world.store.find_serial(CA_NAME, parse_certificate(outcome.certificate).serial)
    assert row is not None
    assert row.der == outcome.certificate
