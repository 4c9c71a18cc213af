"""Attempts at challenges: leased, repeated on a schedule, bounded, taken over, drained; each end recorded once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from gateway.acme import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    ExternalAccountPolicy,
    Order,
    OrderStatus,
)
from gateway.config.acme import AcmeEndpoint
from gateway.errors import Reason, StoreUnavailable
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName, Protocol
from gateway.ra.acme import validations as module
from gateway.ra.acme.terms import AcmeTiming, RateLimited
from gateway.ra.acme.validations import Bounds, Validations
from gateway.ra.profile import AcmeTerms, Profile, Snapshot
from gateway.store.acme import AcmeRecords, Attempt
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, migrate
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from tests.contract.store.acme_rows import BOUND, account, authorization, external_account, new_order, order, registered
from tests.contract.store.rows import NOW, PROFILE, audit_rows

KEYS = KeyRing((bytes(range(32)),))
SECOND = timedelta(seconds=1)
SOURCE = "192.0.2.77"
BASE = "https://pki.test/acme/demo"
NO = ValidationFailed(Reason.VALIDATION_INCORRECT, "it did not match", "internal cause")
NEVER = ValidationFailed(Reason.VALIDATION_CAA, "CAA forbids it", final=True)


@dataclass
class Judge:
    """A validation that ends as its script says, and notes what it was asked."""

    script: list[Validated | Exception] = field(default_factory=list)
    tasks: list[ValidationTask] = field(default_factory=list)
    caa: list[tuple[str, ChallengeType | None, str, bool]] = field(default_factory=list)
    caa_failure: ValidationFailed | None = None
    gate: asyncio.Event | None = None
    running: int = 0
    most: int = 0
    asks_nobody: bool = False

    async def validate(self, task: ValidationTask, now: datetime) -> Validated:
        self.tasks.append(task)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            result = self.script.pop(0) if self.script else Validated()
        finally:
            self.running -= 1
        if isinstance(result, Exception):
            raise result
        return result

    async def check_caa(
        self, identifier: Identifier, challenge: ChallengeType | None, account_url: str, *, wildcard: bool
    ) -> None:
        self.caa.append((identifier.value, challenge, account_url, wildcard))
        if self.caa_failure is not None:
            raise self.caa_failure

    async def vouch(self, identifier: Identifier, source: str, *, account: str = "", external_account: str | None = None) -> bool:
        raise AssertionError


@dataclass
class Room:
    """A store, a clock, and workers over them."""

    path: Path
    judge: Judge = field(default_factory=Judge)
    now: datetime = NOW
    stores: list[SqliteStore] = field(default_factory=list)
    snapshot: Snapshot = field(init=False)
    account: Account = field(default_factory=account)

    def clock(self) -> datetime:
        return self.now

    def configure(self, **fields: Any) -> None:
        config = AcmeEndpoint.model_validate_json(json.dumps(fields))
        mode = config.validation.mode
        terms = AcmeTerms(config, MappingProxyType({mode: self.judge}), BASE)
        profile = Profile(
            name=PROFILE,
            endpoints=frozenset({Protocol.ACME}),
            upstream_ca=cast("Any", None),
            credentials=(),
            policy=cast("Any", None),
            renewal=None,
            per_requester=None,
            per_profile=None,
            manual_approval=False,
            retransmission_window=timedelta(hours=1),
            acme=terms,
        )
        self.snapshot = Snapshot(1, {PROFILE: profile}, {})

    @property
    def store(self) -> SqliteStore:
        return self.stores[0]

    async def worker(self, name: str, bounds: Bounds | None = None, records: AcmeRecords | None = None) -> Validations:
        store = SqliteStore(self.path, KEYS, b"a" * 32, name, lambda _: None)
        await store.start()
        self.stores.append(store)
        return Validations(records or store, self.clock, name, AcmeTiming(), bounds)

    async def order(self, *names: str, **fields: Any) -> tuple[Order, tuple[Authorization, ...]]:
        rows = tuple(authorization(self.account, name, **fields) for name in names or ("host.test",))
        row = order(self.account, *rows)
        assert await self.store.add_order(new_order(row, *rows)) == row
        return row, rows

    async def answer(
        self,
        worker: Validations,
        row: Authorization,
        number: int = 0,
        payload: Mapping[str, object] | None = None,
        source: str = SOURCE,
    ) -> Authorization:
        return await worker.answer(self.snapshot, self.account, row, row.challenges[number], payload or {}, source)

    async def found(self, row: Authorization) -> Authorization:
        found = await self.store.find_authorization(row.id)
        assert found is not None
        return found

    def events(self) -> list[str]:
        return [json.loads(row.body)["event"] for row in audit_rows(cast("Store", self.store))]


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, b"a" * 32)
    room = Room(path)
    room.configure()
    yield room
    for store in room.stores:
        await store.close()


@pytest.fixture
async def worker(room: Room) -> Validations:
    worker = await room.worker("w1")
    room.account = await registered(cast("Store", room.store))
    return worker


async def settled(worker: Validations) -> None:
    """Wait for what the worker does now."""
    while worker._tasks:
        await asyncio.gather(*worker._tasks.values(), return_exceptions=True)
        await asyncio.sleep(0)


async def test_first_attempt_is_made_at_once_and_waited_for(room: Room, worker: Validations) -> None:
    made, (row,) = await room.order()
    done = await room.answer(worker, row)
    assert done.status is AuthorizationStatus.VALID
    assert done.challenges[0].status is ChallengeStatus.VALID
    assert done.challenges[0].validated_at == NOW
    assert done.caa_checked_at == NOW
    assert done == await room.found(row)
    ready = await room.store.find_order(made.id)
    assert ready is not None
    assert ready.status is OrderStatus.READY
    assert room.events()[-2:] == ["acme.challenge.begun", "acme.challenge.valid"]


async def test_what_asks_nobody_is_written_once(room: Room, worker: Validations) -> None:
    room.judge.asks_nobody = True
    made, (row,) = await room.order()
    done = await room.answer(worker, row)
    assert (done.status, done.trying, done.challenges[0].validated_at) == (AuthorizationStatus.VALID, None, NOW)
    assert done == await room.found(row)
    ready = await room.store.find_order(made.id)
    assert ready is not None
    assert ready.status is OrderStatus.READY
    assert "acme.challenge.begun" not in room.events()
    assert room.events()[-1] == "acme.challenge.valid"
    assert await room.answer(worker, done) == done


async def test_what_asks_nobody_and_fails_all_the_same_is_tried_again(room: Room, worker: Validations) -> None:
    room.judge.asks_nobody = True
    room.judge.script = [NO, NO, Validated()]
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert (failed.status, failed.trying, failed.attempts) == (AuthorizationStatus.PENDING, row.challenges[0].id, 1)
    room.now += timedelta(seconds=5)
    assert await worker.run_due(room.snapshot) == 1
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_what_an_attempt_is_told(room: Room, worker: Validations) -> None:
    _, (row,) = await room.order("deep.host.test", wildcard=True)
    await room.answer(worker, row, 1, {"attObj": "x"})
    assert room.judge.tasks == [
        ValidationTask(
            type=ChallengeType.DNS_01,
            identifier=Identifier(IdentifierType.DNS, "deep.host.test"),
            token=row.challenges[1].token,
            thumbprint=room.account.thumbprint,
            account_url=f"{BASE}/acct/{room.account.id}",
            source=SOURCE,
            wildcard=True,
            payload={"attObj": "x"},
        )
    ]


async def test_attested_key_and_claims_are_kept(room: Room, worker: Validations) -> None:
    room.judge.script = [Validated(b"k" * 32, {"serial": "7"})]
    _, (row,) = await room.order()
    done = await room.answer(worker, row)
    assert (done.attested_key, dict(done.claims)) == (b"k" * 32, {"serial": "7"})


async def test_failed_attempt_waits_for_its_next_time(room: Room, worker: Validations) -> None:
    room.judge.script = [NO, NO, Validated()]
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert failed.status is AuthorizationStatus.PENDING
    assert failed.challenges[0].status is ChallengeStatus.PROCESSING
    assert failed.challenges[0].error is not None
    assert failed.challenges[0].error.detail == "it did not match"
    assert (failed.attempts, failed.next_at, failed.worker) == (1, NOW + 5 * SECOND, "")
    room.now = NOW + 4 * SECOND
    assert await worker.run_due(room.snapshot) == 0
    room.now = NOW + 5 * SECOND
    assert await worker.run_due(room.snapshot) == 1
    await settled(worker)
    assert (await room.found(row)).next_at == NOW + 15 * SECOND
    room.now = NOW + 15 * SECOND
    assert await worker.run_due(room.snapshot) == 1
    await settled(worker)
    done = await room.found(row)
    assert done.status is AuthorizationStatus.VALID
    assert done.challenges[0].error is None


async def test_schedule_ends(room: Room, worker: Validations) -> None:
    """0, 5, 10, 15, 20 seconds after the last; the fifth failure ends challenge, authorization and order."""
    room.judge.script = [NO] * 5
    made, (row,) = await room.order()
    await room.answer(worker, row)
    at = []
    while (await room.found(row)).status is AuthorizationStatus.PENDING:
        room.now += SECOND
        if await worker.run_due(room.snapshot):
            at.append(room.now)
            await settled(worker)
    assert at == [NOW + seconds * SECOND for seconds in (5, 15, 30, 50)]
    over = await room.found(row)
    assert over.status is AuthorizationStatus.INVALID
    assert over.challenges[0].status is ChallengeStatus.INVALID
    assert over.challenges[0].error is not None
    ended = await room.store.find_order(made.id)
    assert ended is not None
    assert ended.status is OrderStatus.INVALID
    assert ended.error is not None
    assert room.events()[-2:] == ["acme.challenge.begun", "acme.challenge.invalid"]


async def test_number_of_attempts_and_pause_are_the_profiles(room: Room, worker: Validations) -> None:
    room.configure(validation={"attempts": 2, "attempt_every": "7s"})
    room.judge.script = [NO, NO]
    _, (row,) = await room.order()
    assert (await room.answer(worker, row)).next_at == NOW + 7 * SECOND
    room.now += 7 * SECOND
    await worker.run_due(room.snapshot)
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.INVALID


async def test_final_failure_is_not_tried_again(room: Room, worker: Validations) -> None:
    room.judge.script = [NEVER]
    _, (row,) = await room.order()
    assert (await room.answer(worker, row)).status is AuthorizationStatus.INVALID
    assert len(room.judge.tasks) == 1


async def test_asking_again_means_now(room: Room, worker: Validations) -> None:
    room.judge.script = [NO, Validated()]
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert failed.challenges[0].status is ChallengeStatus.PROCESSING
    room.now += SECOND
    assert (await room.answer(worker, failed)).status is AuthorizationStatus.VALID


async def test_asking_again_while_it_is_tried_joins(room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.1)
    room.judge.gate = asyncio.Event()
    _, (row,) = await room.order()
    first = await room.answer(worker, row)
    assert first.challenges[0].status is ChallengeStatus.PROCESSING
    again = asyncio.create_task(room.answer(worker, first))
    await asyncio.sleep(0.02)
    room.judge.gate.set()
    assert (await again).status is AuthorizationStatus.VALID
    assert len(room.judge.tasks) == 1


async def test_client_does_not_wait_longer_than_a_little(
    room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.2)
    room.judge.gate = asyncio.Event()
    _, (row,) = await room.order()
    begun = time.monotonic()
    waiting = await room.answer(worker, row)
    assert time.monotonic() - begun < 2
    assert waiting.challenges[0].status is ChallengeStatus.PROCESSING
    room.judge.gate.set()
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_client_that_goes_away_does_not_end_the_attempt(room: Room, worker: Validations) -> None:
    room.judge.gate = asyncio.Event()
    _, (row,) = await room.order()
    asking = asyncio.create_task(room.answer(worker, row))
    while not room.judge.tasks:
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    room.judge.gate.set()
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_second_challenge_is_not_tried_beside_the_first(room: Room, worker: Validations) -> None:
    room.judge.script = [NO]
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert await room.answer(worker, failed, 1) == failed
    assert len(room.judge.tasks) == 1


OVER = {
    "valid": {"status": AuthorizationStatus.VALID},
    "invalid": {"status": AuthorizationStatus.INVALID},
    "deactivated": {"status": AuthorizationStatus.DEACTIVATED},
    "expired": {"expires_at": NOW - SECOND},
}


@pytest.mark.parametrize("fields", OVER.values(), ids=OVER)
async def test_what_is_over_stays_as_it_is(room: Room, worker: Validations, fields: dict[str, Any]) -> None:
    row = authorization(room.account, **fields)
    assert await room.answer(worker, row) == row
    assert room.judge.tasks == []


@pytest.mark.parametrize("status", [ChallengeStatus.VALID, ChallengeStatus.INVALID])
async def test_challenge_that_is_over(room: Room, worker: Validations, status: ChallengeStatus) -> None:
    over = Challenge("c", ChallengeType.HTTP_01, "t", status)
    row = authorization(room.account, challenges=(over,))
    assert await room.answer(worker, row) == row
    assert room.judge.tasks == []


async def test_failures_are_limited_by_name(room: Room, worker: Validations) -> None:
    room.configure(limits={"failed_validations": {"count": 2, "window": "1h"}})
    room.judge.script = [NEVER, NEVER]
    for _ in range(2):
        _, (row,) = await room.order()
        await room.answer(worker, row)
    _, (row,) = await room.order()
    with pytest.raises(RateLimited) as caught:
        await room.answer(worker, row)
    assert caught.value.retry_after == 3600
    assert "host.test" in caught.value.detail
    assert (await room.found(row)).challenges[0].status is ChallengeStatus.PENDING
    _, (other,) = await room.order("other.test")
    assert (await room.answer(worker, other)).status is AuthorizationStatus.VALID
    room.now += timedelta(hours=1)
    assert (await room.answer(worker, row)).status is AuthorizationStatus.VALID


async def test_another_worker_makes_the_next_attempt(room: Room, worker: Validations) -> None:
    room.judge.script = [NO]
    _, (row,) = await room.order()
    await room.answer(worker, row)
    other = await room.worker("w2")
    room.now += 5 * SECOND
    assert await other.run_due(room.snapshot) == 1
    await settled(other)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_two_workers_make_one_attempt(room: Room, worker: Validations) -> None:
    room.judge.script = [NO]
    _, (row,) = await room.order()
    await room.answer(worker, row)
    other = await room.worker("w2")
    room.now += 5 * SECOND
    await asyncio.gather(worker.run_due(room.snapshot), other.run_due(room.snapshot))
    await settled(worker)
    await settled(other)
    assert len(room.judge.tasks) == 2


async def test_worker_that_died_is_followed(room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    room.judge.gate = asyncio.Event()
    _, (row,) = await room.order()
    await room.answer(worker, row)
    assert await worker.drain(0) == 1
    room.judge.gate = None
    other = await room.worker("w2")
    room.now += 59 * SECOND
    assert await other.run_due(room.snapshot) == 0
    room.now += 2 * SECOND
    assert await other.run_due(room.snapshot) == 1
    await settled(other)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_late_result_of_a_worker_that_lost_its_lease_does_not_count(
    room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    slow = room.judge.gate = asyncio.Event()
    room.judge.script = [NEVER, Validated()]
    _, (row,) = await room.order()
    await room.answer(worker, row)
    room.now += 61 * SECOND
    room.judge.script = [Validated(), NEVER]
    room.judge.gate = None
    other = await room.worker("w2")
    await other.run_due(room.snapshot)
    await settled(other)
    slow.set()
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.VALID
    assert room.events().count("acme.challenge.invalid") == 0


async def test_drained_worker_lets_attempts_end_and_begins_none(room: Room, worker: Validations) -> None:
    gate = room.judge.gate = asyncio.Event()
    _, (row, later) = await room.order("a.test", "b.test")
    asking = asyncio.create_task(room.answer(worker, row))
    while not room.judge.tasks:
        await asyncio.sleep(0.01)
    draining = asyncio.create_task(worker.drain(5))
    await asyncio.sleep(0)
    gate.set()
    assert await draining == 0
    assert (await asking).status is AuthorizationStatus.VALID
    waiting = await room.answer(worker, later)
    assert waiting.challenges[0].status is ChallengeStatus.PROCESSING
    assert await worker.run_due(room.snapshot) == 0
    other = await room.worker("w2")
    assert await other.run_due(room.snapshot) == 1
    await settled(other)
    assert (await room.found(later)).status is AuthorizationStatus.VALID


@pytest.mark.parametrize(
    ("bounds", "most"), [(Bounds(total=3), 3), (Bounds(per_account=2), 2), (Bounds(), 6)], ids=["total", "account", "free"]
)
async def test_attempts_at_once_are_bounded(room: Room, worker: Validations, bounds: Bounds, most: int) -> None:
    bounded = await room.worker("w2", bounds)
    gate = room.judge.gate = asyncio.Event()
    _, rows = await room.order(*(f"{number}.test" for number in range(6)))
    asking = [asyncio.create_task(room.answer(bounded, row)) for row in rows]
    while len(room.judge.tasks) < most:
        await asyncio.sleep(0.01)
    assert await bounded.run_due(room.snapshot) == 0
    gate.set()
    await asyncio.gather(*asking)
    while await bounded.run_due(room.snapshot):
        await settled(bounded)
    assert room.judge.most == most
    assert {(await room.found(row)).status for row in rows} == {AuthorizationStatus.VALID}


async def test_one_name_is_not_tried_by_all_at_once(room: Room, worker: Validations) -> None:
    bounded = await room.worker("w2", Bounds(per_target=1))
    gate = room.judge.gate = asyncio.Event()
    _, rows = await room.order("same.test", "same.test", "same.test")
    asking = [asyncio.create_task(room.answer(bounded, row)) for row in rows]
    while not room.judge.tasks:
        await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(*asking)
    while await bounded.run_due(room.snapshot):
        await settled(bounded)
    assert room.judge.most == 1


async def test_one_account_does_not_starve_others(room: Room, worker: Validations) -> None:
    bounded = await room.worker("w2", Bounds(total=8, per_account=2))
    room.judge.gate = asyncio.Event()
    _, rows = await room.order(*(f"{number}.test" for number in range(40)))
    drained = await room.worker("w3")
    await drained.drain(0)
    for row in rows:
        await room.answer(drained, row)
    crowd = room.account
    room.account = await registered(cast("Store", room.store))
    _, (other,) = await room.order("other.test")
    await room.answer(drained, other)
    await bounded.run_due(room.snapshot)
    await bounded.run_due(room.snapshot)
    while len(room.judge.tasks) < 3:
        await asyncio.sleep(0.01)
    assert "other.test" in {task.identifier.value for task in room.judge.tasks}
    assert crowd != room.account
    await bounded.drain(0)


async def test_many_accounts_at_one_address_do_not_starve_others(room: Room, worker: Validations) -> None:
    bounded = await room.worker("w2", Bounds(total=8, per_account=2))
    room.judge.gate = asyncio.Event()
    drained = await room.worker("w3")
    await drained.drain(0)
    for number_of_account in range(6):
        room.account = await registered(cast("Store", room.store))
        _, rows = await room.order(*(f"{number_of_account}-{number}.test" for number in range(8)))
        for row in rows:
            await room.answer(drained, row, source=f"2001:db8::{number_of_account}")
    _, (other,) = await room.order("other.test")
    await room.answer(drained, other, source="192.0.2.7")
    assert await bounded.run_due(room.snapshot) == 7
    while len(room.judge.tasks) < 7:
        await asyncio.sleep(0.01)
    assert "other.test" in {task.identifier.value for task in room.judge.tasks}
    await bounded.drain(0)


async def test_account_does_not_wait_behind_others_at_its_address(room: Room, worker: Validations) -> None:
    bounded = await room.worker("w2", Bounds(total=32, per_source=8))
    room.judge.gate = asyncio.Event()
    drained = await room.worker("w3")
    await drained.drain(0)
    _, rows = await room.order(*(f"{number}.test" for number in range(40)))
    for row in rows:
        await room.answer(drained, row)
    room.account = await registered(cast("Store", room.store))
    _, (other,) = await room.order("other.test")
    await room.answer(drained, other)
    assert await bounded.run_due(room.snapshot) == 7
    while len(room.judge.tasks) < 7:
        await asyncio.sleep(0.01)
    assert "other.test" in {task.identifier.value for task in room.judge.tasks}
    await bounded.drain(0)


async def test_fault_inside_is_a_failed_attempt(room: Room, worker: Validations) -> None:
    room.judge.script = [RuntimeError("secret"), Validated()]
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert failed.challenges[0].error is not None
    assert failed.challenges[0].error.reason is Reason.INTERNAL
    assert "secret" not in failed.challenges[0].error.detail
    assert failed.next_at == NOW + 5 * SECOND


async def test_attempt_that_hangs_ends(room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", 0.1)
    room.judge.gate = asyncio.Event()
    _, (row,) = await room.order()
    failed = await room.answer(worker, row)
    assert failed.challenges[0].error is not None
    assert failed.challenges[0].error.reason is Reason.VALIDATION_CONNECTION


class Flaky:
    """Records whose attempts cannot be written a few times."""

    def __init__(self, store: SqliteStore, failures: int) -> None:
        self._store = store
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def end_attempt(self, attempt: Attempt) -> Authorization | None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no disk")
        return await self._store.end_attempt(attempt)


async def test_store_that_is_down_for_a_moment(room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STORE_PAUSE", 0.01)
    flaky = Flaky(room.store, 3)
    other = await room.worker("w1", records=cast("AcmeRecords", flaky))
    _, (row,) = await room.order()
    assert (await room.answer(other, row)).status is AuthorizationStatus.VALID
    assert len(room.judge.tasks) == 1


async def test_store_that_stays_down_leaves_it_to_others(
    room: Room, worker: Validations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STORE_PAUSE", 0.001)
    flaky = Flaky(room.store, 100)
    other = await room.worker("w9", records=cast("AcmeRecords", flaky))
    _, (row,) = await room.order()
    with pytest.raises(StoreUnavailable):
        await room.answer(other, row)
    assert (await room.found(row)).challenges[0].status is ChallengeStatus.PROCESSING
    room.now += 61 * SECOND
    assert await worker.run_due(room.snapshot) == 1
    await settled(worker)
    assert (await room.found(row)).status is AuthorizationStatus.VALID


async def test_profile_that_is_gone(room: Room, worker: Validations) -> None:
    _, (row,) = await room.order()
    room.snapshot = replace(room.snapshot, profiles={})
    over = await room.answer(worker, row)
    assert over.status is AuthorizationStatus.INVALID


@pytest.mark.parametrize("end", ["revoked", "expired", "mode"])
async def test_external_account_that_is_over_or_names_what_is_not_built(room: Room, worker: Validations, end: str) -> None:
    policy = ExternalAccountPolicy(mode="webhook" if end == "mode" else None)
    external = external_account(policy=policy, expires_at=NOW + 2 * SECOND if end == "expired" else None)
    await room.store.add_external_account(external, BOUND)
    room.account = await registered(cast("Store", room.store), external_account=external.kid)
    _, (row,) = await room.order()
    if end == "revoked":
        await room.store.revoke_external_account(external.kid, NOW, BOUND)
    room.now += 3 * SECOND
    over = await room.answer(worker, row)
    assert over.status is AuthorizationStatus.INVALID
    assert room.judge.tasks == []


async def test_mode_of_the_external_account_counts(room: Room, worker: Validations) -> None:
    external = external_account(policy=ExternalAccountPolicy(mode="prevalidated"))
    await room.store.add_external_account(external, BOUND)
    room.account = await registered(cast("Store", room.store), external_account=external.kid)
    other = Judge()
    profile = room.snapshot.profiles[PROFILE]
    assert profile.acme is not None
    terms = replace(profile.acme, validations={"standard": room.judge, "prevalidated": other})
    room.snapshot = replace(room.snapshot, profiles={PROFILE: replace(profile, acme=terms)})
    _, (row,) = await room.order()
    await room.answer(worker, row)
    assert (len(room.judge.tasks), len(other.tasks)) == (0, 1)


async def test_valid_authorization_that_serves_further_orders(room: Room, worker: Validations) -> None:
    room.configure(authorization_reuse="30d")
    _, (row,) = await room.order()
    assert (await room.answer(worker, row)).expires_at == NOW + timedelta(days=30)
    room.configure(authorization_reuse="1h")
    _, (row,) = await room.order()
    assert (await room.answer(worker, row)).expires_at == row.expires_at


CAA_AGE = {
    "fresh": (timedelta(hours=6, minutes=59), False),
    "old": (timedelta(hours=7), True),
    "clock_that_went_back": (-SECOND, True),
}


@pytest.mark.parametrize(("age", "asked"), CAA_AGE.values(), ids=CAA_AGE)
async def test_caa_is_judged_again(room: Room, worker: Validations, age: timedelta, asked: bool) -> None:
    done = authorization(
        room.account,
        status=AuthorizationStatus.VALID,
        challenges=(Challenge("c", ChallengeType.DNS_01, "t", ChallengeStatus.VALID),),
        caa_checked_at=NOW - age,
    )
    await worker.check_caa(room.snapshot, order(room.account, done), [done], room.account)
    url = f"{BASE}/acct/{room.account.id}"
    assert room.judge.caa == ([("device.example", ChallengeType.DNS_01, url, False)] if asked else [])


async def test_caa_of_wildcards_of_vouched_names_and_of_addresses(room: Room, worker: Validations) -> None:
    proved = Challenge("c", ChallengeType.HTTP_01, "t", ChallengeStatus.VALID)
    wild = authorization(room.account, "a.test", wildcard=True, status=AuthorizationStatus.VALID, challenges=(proved,))
    above = authorization(room.account, "b.test", subdomains=True, status=AuthorizationStatus.VALID, challenges=(proved,))
    address = authorization(room.account, status=AuthorizationStatus.VALID, identifier=Identifier(IdentifierType.IP, "10.0.0.1"))
    names = tuple(Identifier(IdentifierType.DNS, name) for name in ("*.a.test", "*.x.b.test"))
    made = order(room.account, wild, above, address, identifiers=names)
    await worker.check_caa(room.snapshot, made, [wild, above, address], room.account)
    url = f"{BASE}/acct/{room.account.id}"
    assert sorted(room.judge.caa) == [("a.test", None, url, True), ("x.b.test", None, url, True)]


async def test_caa_of_each_name_below_a_domain_that_was_judged_itself(room: Room, worker: Validations) -> None:
    proved = Challenge("c", ChallengeType.DNS_01, "t", ChallengeStatus.VALID)
    above = authorization(
        room.account, "b.test", subdomains=True, status=AuthorizationStatus.VALID, challenges=(proved,), caa_checked_at=NOW
    )
    names = tuple(Identifier(IdentifierType.DNS, name) for name in ("b.test", "*.b.test", "x.b.test"))
    made = order(room.account, above, identifiers=names)
    await worker.check_caa(room.snapshot, made, [above], room.account)
    url = f"{BASE}/acct/{room.account.id}"
    assert room.judge.caa == [("b.test", ChallengeType.DNS_01, url, True), ("x.b.test", ChallengeType.DNS_01, url, False)]


async def test_caa_that_forbids_it_now(room: Room, worker: Validations) -> None:
    room.judge.caa_failure = ValidationFailed(Reason.VALIDATION_CAA, "no")
    done = authorization(room.account, status=AuthorizationStatus.VALID)
    with pytest.raises(ValidationFailed) as caught:
        await worker.check_caa(room.snapshot, order(room.account, done), [done], room.account)
    assert caught.value.reason is Reason.VALIDATION_CAA


async def test_account_of_another_directory_is_named_by_its_own_url(room: Room, worker: Validations) -> None:
    """An order may be for another profile than the directory's; the account's URL stays (dns-account-01, dns-persist-01)."""
    home = ProfileName("home")
    profile = room.snapshot.profiles[PROFILE]
    assert profile.acme is not None
    elsewhere = replace(profile, name=home, acme=replace(profile.acme, validations={}, base="https://pki.test/acme/home"))
    room.snapshot = replace(room.snapshot, profiles={PROFILE: profile, home: elsewhere})
    room.account = await registered(cast("Store", room.store), profile=home)
    row = authorization(room.account, profile=PROFILE)
    made = order(room.account, row, profile=PROFILE)
    await room.store.add_order(new_order(made, row))
    assert (await room.answer(worker, row)).status is AuthorizationStatus.VALID
    assert room.judge.tasks[0].account_url == f"https://pki.test/acme/home/acct/{room.account.id}"
