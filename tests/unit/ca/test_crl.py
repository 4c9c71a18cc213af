"""CRLs: one signer at a time, consecutive numbers, published when something was revoked."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from gateway.audit import AuditEvent
from gateway.ca import crl
from gateway.ca.crl import CrlPublisher, CrlSchedule, CrlUnavailable
from gateway.errors import StoreUnavailable
from gateway.model import RevocationReason, UpstreamCAName
from gateway.store.interfaces import CRLRow, Inventory, RevokedEntry

CA = UpstreamCAName("local")
START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SCHEDULE = CrlSchedule(lifetime=timedelta(days=7), refresh=timedelta(hours=24))


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **kwargs: float) -> None:
        self.now += timedelta(**kwargs)


@dataclass
class FakeSigner:
    name: UpstreamCAName = CA
    not_after: datetime = START + timedelta(days=3650)
    signed: list[tuple[int, datetime, datetime, tuple[int, ...]]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    fails: bool = False
    key: str = "k1"

    async def sign_crl(
        self, number: int, this_update: datetime, next_update: datetime, entries: Iterable[tuple[int, datetime, RevocationReason]]
    ) -> bytes:
        if self.fails:
            raise RuntimeError("key is gone")
        self.signed.append((number, this_update, next_update, tuple(serial for serial, _, _ in entries)))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        return f"CRL {number} by {self.key}".encode()

    async def has_signed(self, crl: bytes) -> bool:
        return crl.endswith(self.key.encode())


@dataclass
class FakeInventory:
    """The CRL part of `Inventory`, shared by several publishers as a store is by several processes."""

    rows: list[CRLRow] = field(default_factory=list)
    revoked: list[tuple[RevokedEntry, datetime]] = field(default_factory=list)
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    events: list[AuditEvent] = field(default_factory=list)
    stale: bool = False
    reads: int = 0
    away: bool = False

    async def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        owner, end = self.leases.get(name, (holder, now))
        if owner != holder and end > now:
            return False
        self.leases[name] = (holder, until)
        return True

    async def newest_crl(self, upstream_ca: UpstreamCAName) -> CRLRow | None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        return self.rows[-1] if self.rows else None

    async def crl_is_stale(self, upstream_ca: UpstreamCAName) -> bool:
        return self.stale or not self.rows

    async def list_revoked(self, upstream_ca: UpstreamCAName, not_expired_at: datetime) -> tuple[RevokedEntry, ...]:
        await asyncio.sleep(0)
        return tuple(entry for entry, expiry in self.revoked if expiry >= not_expired_at)

    async def put_crl(self, row: CRLRow, audit: AuditEvent) -> bool:
        await asyncio.sleep(0)
        if row.number != (self.rows[-1].number if self.rows else 0) + 1:
            return False
        self.rows.append(row)
        self.events.append(audit)
        self.stale = False
        return True

    def revoke(self, serial: int, at: datetime, expiry: datetime) -> None:
        self.revoked.append((RevokedEntry(serial, at, RevocationReason.SUPERSEDED), expiry))
        self.stale = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FakeInventory:
    return FakeInventory()


def publisher(store: FakeInventory, clock: Clock, holder: str = "w1", signer: FakeSigner | None = None) -> CrlPublisher:
    inventory: Inventory = store  # type: ignore[assignment] # only the CRL part is here
    return CrlPublisher(inventory, signer or FakeSigner(), clock, holder, SCHEDULE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crl, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(crl, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(crl, "LEASE_POLL", 0.001)


async def test_first_crl_has_number_one_and_whole_seconds(store: FakeInventory, clock: Clock) -> None:
    row = await publisher(store, clock).publish()
    assert row.number == 1
    assert row.this_update == START.replace(microsecond=0)
    assert row.next_update == row.this_update + timedelta(days=7)
    assert [(e.event, e.actor, e.upstream_ca, e.decision) for e in store.events] == [("crl.published", "w1", "local", "done")]


async def test_nothing_is_signed_before_it_is_due(store: FakeInventory, clock: Clock) -> None:
    it = publisher(store, clock)
    first = await it.publish()
    clock.advance(hours=23)
    assert await it.publish() == first
    clock.advance(hours=1)
    assert (await it.publish()).number == 2


async def test_crl_of_a_clock_that_ran_ahead_is_replaced_when_the_clock_is_put_right(store: FakeInventory, clock: Clock) -> None:
    it = publisher(store, clock)
    clock.advance(days=30)
    await it.publish()
    clock.advance(seconds=-30)
    assert (await it.publish()).number == 1
    clock.advance(days=-30)
    row = await it.publish()
    assert (row.number, row.this_update) == (2, clock().replace(microsecond=0))
    assert await it.publish() == row


async def test_force_signs_at_once_and_names_the_actor(store: FakeInventory, clock: Clock) -> None:
    it = publisher(store, clock)
    await it.publish()
    assert (await it.publish(force=True, actor="uid:0 (root)")).number == 2
    assert store.events[-1].actor == "uid:0 (root)"


async def test_revocation_makes_a_new_one_due(store: FakeInventory, clock: Clock) -> None:
    signer = FakeSigner()
    it = publisher(store, clock, signer=signer)
    await it.publish()
    store.revoke(77, clock(), clock() + timedelta(days=1))
    assert (await it.publish()).number == 2
    assert signer.signed[-1][3] == (77,)


async def test_expired_certificate_is_listed_once_more_and_then_leaves(store: FakeInventory, clock: Clock) -> None:
    signer = FakeSigner()
    it = publisher(store, clock, signer=signer)
    store.revoke(77, clock(), clock() + timedelta(hours=1))
    await it.publish()
    clock.advance(hours=24)
    await it.publish()
    clock.advance(hours=24)
    await it.publish()
    assert [serials for _, _, _, serials in signer.signed] == [(77,), (77,), ()]


async def test_a_ca_with_a_new_key_signs_anew(store: FakeInventory, clock: Clock) -> None:
    await publisher(store, clock).publish()
    it = publisher(store, clock, signer=FakeSigner(key="k2"))
    assert (await it.publish()).number == 2
    assert (await it.publish()).number == 2


async def test_two_tasks_of_one_process_do_not_sign_at_once(store: FakeInventory, clock: Clock) -> None:
    """They share the lease, and the store counts what the last list held."""
    signer = FakeSigner(gate=asyncio.Event())
    it = publisher(store, clock, signer=signer)
    tasks = [asyncio.create_task(it.publish()) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert len(signer.signed) == 1
    assert signer.gate is not None
    signer.gate.set()
    assert [row.number for row in await asyncio.gather(*tasks)] == [1, 1]
    assert len(signer.signed) == 1


async def test_next_update_does_not_pass_the_end_of_the_ca(store: FakeInventory, clock: Clock) -> None:
    end = (START + timedelta(days=2)).replace(microsecond=0)
    row = await publisher(store, clock, signer=FakeSigner(not_after=end)).publish()
    assert row.next_update == end


async def test_expired_ca_says_so(store: FakeInventory, clock: Clock) -> None:
    with pytest.raises(CrlUnavailable, match="the certificate of upstream CA local expired"):
        await publisher(store, clock, signer=FakeSigner(not_after=START - timedelta(days=1))).publish()
    assert not store.rows


async def test_many_processes_never_sign_two_crls_with_one_number(store: FakeInventory, clock: Clock) -> None:
    signer = FakeSigner()
    publishers = [publisher(store, clock, f"w{i}", signer) for i in range(8)]
    for serial in range(1, 11):
        store.revoke(serial, clock(), clock() + timedelta(days=1))
        await asyncio.gather(*(it.publish() for it in publishers))
        clock.advance(seconds=1)
    numbers = [row.number for row in store.rows]
    assert numbers == list(range(1, 11))
    assert [number for number, _, _, _ in signer.signed] == numbers


async def test_without_the_lease_the_other_ones_crl_is_awaited(store: FakeInventory, clock: Clock) -> None:
    slow = FakeSigner(gate=asyncio.Event())
    fast = FakeSigner()
    first = asyncio.create_task(publisher(store, clock, "w1", slow).publish())
    while not slow.signed:
        await asyncio.sleep(0)
    second = asyncio.create_task(publisher(store, clock, "w2", fast).publish(force=True))
    await asyncio.sleep(0.01)
    assert not second.done()
    assert slow.gate is not None
    slow.gate.set()
    assert (await first) == (await second)
    assert not fast.signed


async def test_a_dead_holder_loses_the_lease(store: FakeInventory, clock: Clock) -> None:
    store.leases["crl:local"] = ("dead", clock() + timedelta(seconds=60))
    task = asyncio.create_task(publisher(store, clock).publish())
    await asyncio.sleep(0.01)
    assert not task.done()
    clock.advance(seconds=61)
    assert (await task).number == 1


async def test_a_holder_that_was_overtaken_stores_nothing(store: FakeInventory, clock: Clock) -> None:
    """A process that stood still longer than its lease comes back with a number that is taken."""
    slow = FakeSigner(gate=asyncio.Event())
    task = asyncio.create_task(publisher(store, clock, "w1", slow).publish())
    while not slow.signed:
        await asyncio.sleep(0)
    clock.advance(seconds=61)
    winner = await publisher(store, clock, "w2").publish()
    assert slow.gate is not None
    slow.gate.set()
    assert await task == winner
    assert [row.number for row in store.rows] == [1]


async def test_failure_gives_the_lease_back(store: FakeInventory, clock: Clock) -> None:
    with pytest.raises(RuntimeError):
        await publisher(store, clock, "w1", FakeSigner(fails=True)).publish()
    assert (await publisher(store, clock, "w2").publish()).number == 1


async def test_current_is_cached_and_follows_publish(store: FakeInventory, clock: Clock) -> None:
    it = publisher(store, clock)
    assert await it.current() is None
    row = await it.publish()
    reads = store.reads
    assert [await it.current() for _ in range(5)] == [row] * 5
    assert store.reads == reads


async def test_current_serves_what_is_in_force_while_the_store_is_away(
    store: FakeInventory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = publisher(store, clock)
    row = await it.publish()
    monkeypatch.setattr(crl, "CACHE_SECONDS", 0)
    store.away = True
    assert await it.current() == row
    clock.advance(days=7)
    with pytest.raises(StoreUnavailable):
        await it.current()


async def test_run_publishes_on_start_on_revocation_and_after_failures(store: FakeInventory, clock: Clock) -> None:
    signer = FakeSigner(fails=True)
    it = publisher(store, clock, signer=signer)
    task = asyncio.create_task(it.run())
    try:
        await asyncio.sleep(0.03)
        assert not store.rows
        signer.fails = False
        await until(lambda: len(store.rows) == 1)
        store.revoke(5, clock(), clock() + timedelta(days=1))
        await until(lambda: len(store.rows) == 2)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator] # a plain callable
            await asyncio.sleep(0.005)


async def test_a_new_key_signs_a_new_crl_and_the_publisher_stays_one(store: FakeInventory, clock: Clock) -> None:
    one = publisher(store, clock)
    task = asyncio.create_task(one.run())
    await until(lambda: len(store.rows) == 1)
    one.follow(FakeSigner(key="k2"), SCHEDULE)
    await until(lambda: len(store.rows) == 2)
    await asyncio.sleep(0.05)
    task.cancel()
    assert [row.der for row in store.rows] == [b"CRL 1 by k1", b"CRL 2 by k2"]


async def test_what_the_old_key_signs_while_the_new_one_comes_is_replaced(store: FakeInventory, clock: Clock) -> None:
    gate = asyncio.Event()
    one = publisher(store, clock, signer=FakeSigner(gate=gate))
    task = asyncio.create_task(one.run())
    await asyncio.sleep(0.01)
    one.follow(FakeSigner(key="k2"), SCHEDULE)
    gate.set()
    await until(lambda: len(store.rows) == 2)
    task.cancel()
    assert [row.der for row in store.rows] == [b"CRL 1 by k1", b"CRL 2 by k2"]


async def test_a_process_that_still_has_the_old_key_does_not_have_the_last_word(store: FakeInventory, clock: Clock) -> None:
    late, early = publisher(store, clock, "w1"), publisher(store, clock, "w2", FakeSigner(key="k2"))
    await late.publish()
    await early.publish()
    await early.publish()
    store.stale = True
    await late.publish()
    assert [row.der[-2:] for row in store.rows] == [b"k1", b"k2", b"k1"]
    late.follow(FakeSigner(key="k2"), SCHEDULE)
    assert (await early.publish()).der == b"CRL 4 by k2"
    assert (await late.publish()).der == b"CRL 4 by k2"


async def test_another_schedule(store: FakeInventory, clock: Clock) -> None:
    one, signer = publisher(store, clock), FakeSigner()
    await one.publish()
    one.follow(signer, CrlSchedule(lifetime=timedelta(hours=2), refresh=timedelta(hours=1)))
    clock.advance(hours=1)
    row = await one.publish()
    assert (row.number, row.next_update - row.this_update) == (2, timedelta(hours=2))
