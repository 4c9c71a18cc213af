"""CAs that cannot be reached for a while: their requests wait, are finished once when they are back, and do not wait for ever."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from gateway.acme import OrderStatus
from gateway.ca.circuit import FAILURES, GuardedCA
from gateway.ca.interfaces import AuthFailed, Capability, IssueRequest, NotSent, Unavailable, UpstreamIssued, UpstreamPending
from gateway.errors import Reason, Rejection
from gateway.model import Issued, Pending, Protocol, Rejected, RequestId
from gateway.model import Unavailable as NotAvailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.walk import EAGER_ATTEMPTS
from gateway.store.interfaces import LedgerRow, LedgerState, WaitingFor
from tests.flow.enrollment.acme_world import AcmeWorld, account, csr, finalize, ready
from tests.flow.enrollment.conftest import NewAcmeWorld, NewWorld
from tests.flow.enrollment.test_acme_finalize import until_over
from tests.flow.enrollment.world import FIND, POLL, PROFILE, QUICK, FaultyCA, World

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
OPERATOR = "uid:0 (root)"
REPEATABLE = Capability.REPEATABLE


def take_down(world: World, queue: timedelta = DAY) -> None:
    world.ca.queue = queue
    world.ca.down = True


async def challenge_of(world: World) -> str:
    return (await world.administration().new_challenge(PROFILE, OPERATOR, ttl=DAY * 7)).challenge


async def is_used(world: World) -> bool:
    [row] = await world.administration().list_challenges()
    return row.used_by is not None


async def pass_time(world: World, authority: RegistrationAuthority, time: timedelta, step: timedelta = MINUTE) -> None:
    """Let time pass, and recovery look at the ledger as it does every few seconds."""
    for _ in range(round(time / step)):
        world.clock.advance(step)
        await authority.recover(world.snapshot)


def tries(world: World) -> int:
    return sum(call.startswith("issue") for call in world.ca.calls)


async def queued(world: World, authority: RegistrationAuthority, name: str = "device", **changes: object) -> LedgerRow:
    outcome = await authority.enroll(world.snapshot, world.request(name, **changes))
    assert isinstance(outcome, Pending), outcome
    row = await world.store.get_row(outcome.request_id)
    assert row is not None
    assert (row.state, row.waiting_for, row.worker, row.sent) == (LedgerState.OPEN, WaitingFor.QUEUE, "", False)
    return row


async def test_ca_that_is_down_for_an_hour_finishes_every_request_when_it_is_back(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    challenge = await challenge_of(world)
    take_down(world)
    rows = [await queued(world, authority, f"device-{n}", transaction=str(n)) for n in range(20)]
    await queued(world, authority, "with challenge", transaction="c", challenge=challenge)
    assert await is_used(world)
    before = tries(world)
    await pass_time(world, authority, HOUR)
    assert 25 <= tries(world) - before <= 70  # one trial each two minutes, not one of each request
    assert not world.ca.issued()
    world.ca.down = False
    await pass_time(world, authority, 3 * MINUTE)
    for number in range(20):
        asked = world.request(f"device-{number}", transaction=str(number))
        issued = await authority.poll(world.snapshot, world.poll(asked))
        assert isinstance(issued, Issued)
        assert await authority.enroll(world.snapshot, asked) == issued
    assert len(world.ca.issued()) == 21
    assert {row.state for row in await world.rows()} == {LedgerState.DELIVERED}
    assert all(len(world.ca.issued_for(row.id)) == 1 for row in rows)


async def test_restart_in_the_middle_resumes(new_world: NewWorld) -> None:
    world = new_world()
    first = await world.start("w1")
    take_down(world)
    row = await queued(world, first)
    await pass_time(world, first, 10 * MINUTE)
    await first.drain(0)
    second = await world.start("w2")
    await pass_time(world, second, 10 * MINUTE)
    still = await world.store.get_row(row.id)
    assert still is not None
    assert (still.queued_at, still.waiting_for) == (row.queued_at, WaitingFor.QUEUE)
    await second.drain(0)
    world.ca.down = False
    third = await world.start("w3")
    await pass_time(world, third, 3 * MINUTE)
    assert isinstance(await third.enroll(world.snapshot, world.request()), Issued)
    assert len(world.ca.issued()) == 1


async def test_several_workers_send_each_request_once(new_world: NewWorld) -> None:
    world = new_world()
    workers = [await world.start(f"w{n}") for n in range(3)]
    take_down(world)
    for number in range(12):
        await queued(world, workers[number % 3], f"device-{number}", transaction=str(number))
    world.ca.down = False
    world.clock.advance(HOUR)
    await asyncio.gather(*(worker.recover(world.snapshot) for worker in workers))
    assert {row.state for row in await world.rows()} == {LedgerState.DELIVERED}
    assert len(world.ca.issued()) == 12


async def test_answer_to_somebody_else_ends_the_rest_for_all(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world)
    await queued(world, authority, "first", transaction="1")
    await pass_time(world, authority, 20 * MINUTE)
    world.ca.down = False
    assert isinstance(await authority.enroll(world.snapshot, world.request("second", transaction="2")), Issued)
    world.clock.advance(QUICK.longest_trial)
    assert await authority.recover(world.snapshot) == 1
    assert len(world.ca.issued()) == 2


async def test_client_that_asks_again_makes_no_trial_while_the_ca_rests(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world)
    await queued(world, authority)
    before, events = tries(world), len(await world.events())
    for _ in range(5):
        assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
        assert isinstance(await authority.poll(world.snapshot, world.poll(world.request())), Pending)
    assert tries(world) == before
    assert len([name for name in (await world.events())[events:] if name.startswith("enrollment.sent")]) == 0


async def test_queue_of_one_ca_does_not_stand_before_another_request(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ra.recovery.ROWS_A_PASS", 2)
    world = new_world(FIND)
    authority = await world.start()
    world.ca.faults = ["lost after"]
    world.ca.find_faults = ["down"] * 100
    assert isinstance(await authority.enroll(world.snapshot, world.request("doubt", transaction="d")), Pending)
    take_down(world)
    for number in range(5):
        await queued(world, authority, f"device-{number}", transaction=str(number))
    await pass_time(world, authority, 10 * MINUTE)
    asked = world.ca.calls.count(f"find {(await world.rows((LedgerState.UNKNOWN,)))[0].id}")
    await pass_time(world, authority, 20 * MINUTE)
    assert world.ca.calls.count(f"find {(await world.rows((LedgerState.UNKNOWN,)))[0].id}") > asked


@pytest.mark.parametrize(
    "error",
    [NotSent("connection refused"), AuthFailed("the CA does not know us"), Unavailable("sealed", 10**9)],
    ids=["not reached", "not let in", "unavailable for an absurd time"],
)
async def test_whatever_was_not_processed_waits(new_world: NewWorld, error: NotSent) -> None:
    world = new_world()
    authority = await world.start()
    world.ca.queue = DAY

    async def fail(_request: IssueRequest) -> UpstreamIssued:
        raise error

    good, world.ca.issue = world.ca.issue, fail
    row = await queued(world, authority)
    assert row.lease_until <= world.clock() + QUICK.longest_trial
    world.ca.issue = good
    await pass_time(world, authority, 5 * MINUTE)
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)


async def test_open_circuit_queues(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world)
    faulty, now = world.ca, [0.0]
    world.ca = GuardedCA(faulty, lambda: now[0])
    for number in range(FAILURES + 2):
        await queued_by(world, authority, number)
    assert sum(call.startswith("issue") for call in faulty.calls) == FAILURES
    faulty.down = False
    now[0] = 1000.0
    await pass_time(world, authority, 5 * MINUTE)
    assert len(faulty.issued()) == FAILURES + 2


async def queued_by(world: World, authority: RegistrationAuthority, number: int) -> None:
    await queued(world, authority, f"device-{number}", transaction=str(number))


async def test_request_ends_when_it_has_waited_long_enough_and_gives_everything_back(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    challenge = await challenge_of(world)
    take_down(world, HOUR)
    asked = world.request(challenge=challenge)
    row = await queued(world, authority, challenge=challenge)
    await pass_time(world, authority, HOUR - 5 * MINUTE)
    assert isinstance(await authority.poll(world.snapshot, world.poll(asked)), Pending)
    await pass_time(world, authority, 10 * MINUTE)
    ended = await authority.poll(world.snapshot, world.poll(asked))
    assert ended == Rejected(Reason.UPSTREAM_TIMEOUT, "the CA could not be reached for as long as the request could wait")
    assert not await is_used(world)
    kept = await world.store.get_row(row.id)
    assert kept is not None
    assert (kept.state, kept.reason) == (LedgerState.REJECTED, Reason.UPSTREAM_TIMEOUT)
    again = await queued(world, authority, challenge=challenge)
    assert again.id != row.id
    world.ca.down = False
    await pass_time(world, authority, 5 * MINUTE)
    assert isinstance(await authority.enroll(world.snapshot, asked), Issued)
    assert len(world.ca.issued()) == 1


async def test_longer_queue_of_a_new_configuration_is_the_requests_too(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world, HOUR)
    await queued(world, authority)
    world.ca.queue = DAY
    await pass_time(world, authority, 2 * HOUR)
    world.ca.down = False
    await pass_time(world, authority, 5 * MINUTE)
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)


async def test_request_does_not_outlive_what_was_granted(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world, timedelta(days=3000))
    row = await queued(world, authority)
    world.clock.advance(row.grant.not_after - world.clock() + MINUTE)
    await authority.recover(world.snapshot)
    ended = await world.store.get_row(row.id)
    assert ended is not None
    assert (ended.state, ended.reason) == (LedgerState.REJECTED, Reason.UPSTREAM_TIMEOUT)


async def test_time_counts_from_when_the_ca_was_not_reached_not_from_an_approvers_leisure(new_world: NewWorld) -> None:
    world = new_world()
    world.profile_options = {"manual_approval": True}
    authority = await world.start()
    take_down(world, HOUR)
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Pending)
    world.clock.advance(5 * HOUR)
    await world.administration().approve(outcome.request_id, OPERATOR)
    await pass_time(world, authority, HOUR / 2)
    row = await world.store.get_row(outcome.request_id)
    assert row is not None
    assert row.waiting_for is WaitingFor.QUEUE
    world.ca.down = False
    await pass_time(world, authority, 5 * MINUTE)
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)


async def test_drawn_key_never_waits(new_world: NewWorld) -> None:
    world = new_world()
    world.profile_options = {"endpoints": frozenset({Protocol.EST})}
    authority = await world.start()
    take_down(world)
    asked = replace(world.request(operation="serverkeygen", transaction=""), protocol=Protocol.EST)
    outcome = await authority.generate(world.snapshot, asked, "ec-p256")
    assert isinstance(outcome, NotAvailable)
    assert outcome.reason is Reason.UPSTREAM_UNAVAILABLE
    [row] = await world.rows()
    assert row.state is LedgerState.REJECTED
    world.ca.down = False
    await pass_time(world, authority, HOUR)
    assert not world.ca.issued()


async def test_certificate_of_another_name_is_told_of_later_where_the_ca_went_away(new_world: NewWorld) -> None:
    world = new_world(Capability.REVOKE)
    authority = await world.start()
    world.ca.queue = DAY
    world.ca.faults, world.ca.revoke_faults = ["wrong name"], ["lost after"]
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Rejected)
    [pending] = await world.store.list_revocations(10)
    [certificate] = world.ca.issued()
    assert pending.der == certificate
    assert await authority.tell_revocations(world.snapshot) == 1
    assert world.ca.revoked == [parse_certificate(certificate).serial] * 2


async def test_doubt_before_the_queue_gives_nothing_back(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    challenge = await challenge_of(world)
    world.ca.faults = ["lost before"]
    held = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(held, Pending)
    take_down(world, HOUR)
    await world.administration().reissue(held.request_id, OPERATOR)
    await pass_time(world, authority, HOUR / 2)
    row = await world.store.get_row(held.request_id)
    assert row is not None
    assert row.waiting_for is WaitingFor.QUEUE
    await pass_time(world, authority, HOUR)
    row = await world.store.get_row(held.request_id)
    assert row is not None
    assert row.state is LedgerState.REJECTED
    assert await is_used(world)


async def test_ca_that_loses_every_request_and_says_so_is_tried_later(new_world: NewWorld) -> None:
    world = new_world(FIND)
    authority = await world.start()
    world.ca.queue = DAY
    world.ca.faults = ["lost before"] * QUICK.attempts
    await queued(world, authority)
    await pass_time(world, authority, 2 * MINUTE)
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Issued)
    assert len(world.ca.issued()) == 1


async def test_operator_ends_what_waits(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world)
    row = await queued(world, authority)
    with pytest.raises(Rejection):
        await world.administration().reissue(row.id, OPERATOR)
    await world.administration().fail(row.id, OPERATOR, "this device was stolen")
    world.ca.down = False
    await pass_time(world, authority, HOUR / 2)
    assert await authority.enroll(world.snapshot, world.request()) == Rejected(Reason.DENIED, "this device was stolen")
    assert not world.ca.issued()


async def test_status_counts_what_waits(new_world: NewWorld) -> None:
    world = new_world()
    authority = await world.start()
    take_down(world)
    await queued(world, authority)
    status = await world.administration().status()
    assert (status.waiting_for_unreachable_ca, status.waiting_for_upstream, status.in_doubt) == (1, 0, 0)


async def test_ca_cannot_put_off_a_request_for_ever(new_world: NewWorld) -> None:
    world = new_world(POLL)
    authority = await world.start()

    async def put_off(request: IssueRequest) -> UpstreamPending:
        return UpstreamPending("ref", 10**12)

    world.ca.issue = put_off
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    [row] = await world.rows()
    assert row.poll_at is not None
    assert row.poll_at <= world.clock() + QUICK.longest_poll


class RepeatingCA(FaultyCA):
    """Answers the same request with the same certificate."""

    def _sign(self, request: IssueRequest) -> bytes:
        made = self.issued_for(request.request_id)
        return made[0] if made else super()._sign(request)


def repeating(world: World) -> World:
    world.ca = RepeatingCA(world.folder / "ca", REPEATABLE)
    return world


@pytest.mark.parametrize("fault", ["lost before", "lost after", "crash"])
async def test_doubt_is_ended_by_the_same_request(new_world: NewWorld, fault: str) -> None:
    world = repeating(new_world())
    authority = await world.start()
    world.ca.faults = [fault, fault]
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    assert world.ca.issued() == [issued.certificate]
    assert tries(world) == 3


async def test_ca_that_goes_away_in_a_doubt_is_asked_when_it_is_back(new_world: NewWorld) -> None:
    world = repeating(new_world())
    world.ca.queue = HOUR
    authority = await world.start()
    challenge = await challenge_of(world)
    answer = world.ca.issue

    async def lose(request: IssueRequest) -> UpstreamIssued:
        world.ca.issue = answer
        world.ca.faults = ["lost after"]
        try:
            return await answer(request)  # type: ignore[no-any-return]
        finally:
            world.ca.down = True

    world.ca.issue = lose
    outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(outcome, Pending)
    [row] = await world.rows()
    assert row.state is LedgerState.UNKNOWN
    await pass_time(world, authority, 3 * HOUR)
    [row] = await world.rows()
    assert row.state is LedgerState.UNKNOWN  # a doubt outlasts the queue: its certificate may exist
    assert await is_used(world)
    second = await world.start("w2")
    world.ca.down = False
    await pass_time(world, second, HOUR)
    issued = await second.enroll(world.snapshot, world.request(challenge=challenge))
    assert isinstance(issued, Issued)
    assert world.ca.issued() == [issued.certificate]


async def test_ca_is_told_since_when_there_is_a_doubt_not_since_when_a_request_waits(new_world: NewWorld) -> None:
    world = repeating(new_world())
    authority = await world.start()
    take_down(world)
    row = await queued(world, authority)
    await pass_time(world, authority, 3 * HOUR)
    sendings: list[IssueRequest] = []
    answer = world.ca.issue

    async def note(request: IssueRequest) -> UpstreamIssued:
        sendings.append(request)
        return await answer(request)  # type: ignore[no-any-return]

    world.ca.issue, world.ca.down, world.ca.faults = note, False, ["lost after"]
    await pass_time(world, authority, 5 * MINUTE)
    first, repeat = sendings
    assert first.in_doubt_since is None
    assert repeat.in_doubt_since is not None
    assert row.created_at + 3 * HOUR <= repeat.in_doubt_since <= world.clock()
    assert replace(repeat, in_doubt_since=None) == first
    assert len(world.ca.issued()) == 1


async def test_repeat_that_stays_in_vain_is_held(new_world: NewWorld) -> None:
    world = repeating(new_world())
    authority = await world.start()
    world.ca.faults = ["lost after"] * 1000
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Pending)
    await pass_time(world, authority, 5 * HOUR)
    asked = tries(world)
    with capture_logs() as logs:
        await pass_time(world, authority, 2 * HOUR)
    assert tries(world) == asked
    [row] = await world.rows()
    assert row.attempts >= EAGER_ATTEMPTS
    assert not logs
    world.clock.advance(QUICK.hold)
    with capture_logs() as logs:
        await authority.recover(world.snapshot)
    assert any("requests resolve" in line.get("command", "") for line in logs)
    assert len(world.ca.issued()) == 1


async def test_refusal_of_a_repeat_ends_the_request_and_gives_nothing_back(new_world: NewWorld) -> None:
    world = repeating(new_world())
    authority = await world.start()
    challenge = await challenge_of(world)
    world.ca.faults = ["lost after", "rejected"]
    outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
    assert outcome == Rejected(Reason.UPSTREAM_REJECTED, "the CA does not like you")
    assert await is_used(world)


async def test_nonsense_in_answer_to_a_repeat_is_held(new_world: NewWorld) -> None:
    world = repeating(new_world())
    authority = await world.start()
    world.ca.faults = ["garbage", "garbage"]
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    [row] = await world.rows()
    assert (row.state, tries(world)) == (LedgerState.UNKNOWN, 2)


NAME = "www.example.com"


async def begun(world: AcmeWorld) -> tuple[object, object, str]:
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    take_down(world, HOUR)
    begun = await finalize(world, acme, who, order, csr(NAME))
    assert begun.status is OrderStatus.PROCESSING
    return acme, who, order.id


async def test_acme_order_is_processing_until_the_ca_is_back(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme, who, id = await begun(world)
    authority = acme._means.authority  # type: ignore[attr-defined]
    await pass_time(world, authority, HOUR / 2)
    row = (await world.rows())[0]
    assert row.waiting_for is WaitingFor.QUEUE
    world.ca.down = False
    await pass_time(world, authority, 5 * MINUTE)
    assert (await until_over(world, acme, who, id)).status is OrderStatus.VALID
    assert len(world.ca.issued()) == 1


async def test_acme_order_ends_with_its_request(new_acme_world: NewAcmeWorld) -> None:
    world = new_acme_world()
    acme, who, id = await begun(world)
    await pass_time(world, acme._means.authority, 2 * HOUR)  # type: ignore[attr-defined]
    ended = await until_over(world, acme, who, id)
    assert ended.status is OrderStatus.INVALID
    assert ended.error.reason is Reason.UPSTREAM_TIMEOUT
    world.ca.down = False
    await pass_time(world, acme._means.authority, HOUR)  # type: ignore[attr-defined]
    assert not world.ca.issued()
    assert RequestId((await world.rows())[0].id)
