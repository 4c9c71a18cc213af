"""Used nonces in a file that workers share: each serves once, whatever restarts and clocks do."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.sqlite.acme import nonces
from gateway.store.sqlite.acme.nonces import PLACES, UsedNonces

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def used(database: Path, clock: Clock) -> UsedNonces:
    made = UsedNonces(database, clock)
    made.prepare()
    return made


def test_a_nonce_serves_once(used: UsedNonces) -> None:
    assert used.redeem(b"one", NOW)
    assert not used.redeem(b"one", NOW)
    assert used.redeem(b"two", NOW)


def test_it_serves_one_worker_and_no_restarted_one(used: UsedNonces, database: Path, clock: Clock) -> None:
    assert used.redeem(b"one", NOW)
    other = UsedNonces(database, clock)
    other.prepare()
    assert not other.redeem(b"one", NOW)
    assert other.redeem(b"two", NOW)
    assert not used.redeem(b"two", NOW)
    other.close()


def _redeem_all(database: Path) -> int:
    used = UsedNonces(database, Clock())
    return sum(used.redeem(b"%d" % number, NOW) for number in range(500))


def test_processes_that_use_the_same_nonces_at_once(used: UsedNonces, database: Path) -> None:
    with get_context("spawn").Pool(3) as pool:
        counts = pool.map(_redeem_all, [database] * 3)
    assert sum(counts) == 500


def test_few_nonces_are_taken_for_used_ones(used: UsedNonces) -> None:
    refused = sum(not used.redeem(number.to_bytes(12), NOW) for number in range(20000))
    assert refused <= 2


def test_nonces_of_an_hour_serve_once_each(used: UsedNonces, clock: Clock) -> None:
    times = [NOW + timedelta(minutes=minutes) for minutes in range(0, 66, 5)]
    for number, at in enumerate(times):
        clock.now = at
        assert used.redeem(b"%d" % number, at)
    assert [used.redeem(b"%d" % number, at) for number, at in enumerate(times)] == [False] * len(times)


def test_the_file_does_not_grow_with_time(used: UsedNonces, database: Path, clock: Clock) -> None:
    for hours in range(12):
        clock.now = NOW + hours * HOUR
        for minutes in (0, 10, 20, 30, 40, 50):
            assert used.redeem(b"n", clock.now + timedelta(minutes=minutes))
    size = database.with_name("gateway.db.nonces").stat().st_size
    assert size <= 4096 + PLACES * nonces.FILTER_BYTES


def test_a_clock_that_ran_ahead_makes_no_used_nonce_new(used: UsedNonces, clock: Clock) -> None:
    assert used.redeem(b"before", NOW)
    for minutes in range(0, 60, 10):
        clock.now = NOW + DAY + timedelta(minutes=minutes)
        assert used.redeem(b"meanwhile", clock.now)
    ahead = clock.now
    for minutes in range(0, 60, 10):
        clock.now = NOW + timedelta(minutes=minutes)
        assert used.redeem(b"after", clock.now)
    assert not used.redeem(b"before", NOW)
    clock.now = ahead
    assert not used.redeem(b"meanwhile", ahead)


def test_a_file_that_was_begun_under_a_clock_that_ran_ahead(database: Path, clock: Clock) -> None:
    clock.now = NOW + DAY
    used = UsedNonces(database, clock)
    used.prepare()
    clock.now = NOW
    assert not used.redeem(b"handed out before it was noticed", NOW - HOUR)
    assert used.redeem(b"one", NOW)
    assert not used.redeem(b"one", NOW)


def test_clocks_that_ran_ahead_more_often_than_there_is_room(used: UsedNonces, clock: Clock) -> None:
    for days in range(1, 2 * PLACES):
        clock.now = NOW + days * DAY
        assert used.redeem(b"n", clock.now)
    clock.now = NOW
    assert used.redeem(b"n", NOW)
    assert not used.redeem(b"n", NOW)


def test_after_a_restart_of_the_machine_no_older_nonce_serves(
    used: UsedNonces, database: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert used.redeem(b"one", NOW)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(nonces, "_BOOT", boot)
    clock.now = NOW + timedelta(seconds=1)
    again = UsedNonces(database, clock)
    again.prepare()
    assert not again.redeem(b"one", NOW)
    assert not again.redeem(b"unused", NOW)
    assert again.redeem(b"handed out since", clock.now)


def test_a_removed_file_is_begun_anew(used: UsedNonces, database: Path, clock: Clock) -> None:
    assert used.redeem(b"one", NOW)
    database.with_name("gateway.db.nonces").unlink()
    clock.now = NOW + timedelta(seconds=1)
    assert not used.redeem(b"one", NOW)
    assert used.redeem(b"two", clock.now)
    assert not used.redeem(b"two", clock.now)


@pytest.mark.parametrize("damage", [pytest.param(b"", id="empty"), pytest.param(b"something else" * 100, id="other")])
def test_a_file_of_something_else_is_begun_anew(used: UsedNonces, database: Path, clock: Clock, damage: bytes) -> None:
    assert used.redeem(b"one", NOW)
    clock.now = NOW + timedelta(seconds=1)
    database.with_name("gateway.db.nonces").write_bytes(damage)
    assert not used.redeem(b"one", NOW)
    assert used.redeem(b"two", clock.now)


def test_only_its_owner_reads_it(used: UsedNonces, database: Path) -> None:
    assert stat.S_IMODE(database.with_name("gateway.db.nonces").stat().st_mode) == 0o600


def test_a_full_disk_refuses(used: UsedNonces, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            used.redeem(b"one", NOW)
    assert used.redeem(b"one", NOW)
