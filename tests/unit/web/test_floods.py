"""Refusals of strangers are counted, not written one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from gateway.audit import AuditEvent
from gateway.errors import Reason, StoreUnavailable
from gateway.model import Protocol
from gateway.web.floods import FAILURES_A_MINUTE, MAX_SOURCES, FailureBrake, FloodCounter

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Trail:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.down = False
        self.now = NOW

    async def append(self, events: Sequence[AuditEvent]) -> None:
        if self.down:
            raise StoreUnavailable("the disk is full")
        self.events += events

    def clock(self) -> datetime:
        return self.now


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def floods(trail: Trail) -> FloodCounter:
    return FloodCounter(trail.append, trail.clock)


async def test_one_row_a_reason_and_profile(trail: Trail, floods: FloodCounter) -> None:
    for _ in range(1000):
        floods.count(Protocol.SCEP, "corp", Reason.MALFORMED)
    floods.count(Protocol.SCEP, "corp", Reason.BAD_SIGNATURE)
    floods.count(Protocol.SCEP, "", Reason.UNKNOWN_PROFILE)
    trail.now = NOW + timedelta(minutes=1)
    await floods.flush()
    assert [(e.profile, e.reason, e.count, e.at) for e in trail.events] == [
        ("corp", Reason.MALFORMED, 1000, NOW),
        ("corp", Reason.BAD_SIGNATURE, 1, NOW),
        ("", Reason.UNKNOWN_PROFILE, 1, NOW),
    ]
    await floods.flush()
    assert len(trail.events) == 3


async def test_nothing_is_lost_while_the_store_is_down(trail: Trail, floods: FloodCounter) -> None:
    floods.count(Protocol.SCEP, "corp", Reason.MALFORMED)
    trail.down = True
    trail.now = NOW + timedelta(minutes=1)
    await floods.flush()
    floods.count(Protocol.SCEP, "corp", Reason.MALFORMED)
    trail.down = False
    await floods.flush()
    assert [(e.count, e.at) for e in trail.events] == [(2, NOW)]


class Seconds:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def brake(seconds: Seconds) -> FailureBrake:
    return FailureBrake(seconds)


def fail(brake: FailureBrake, source: str, times: int = FAILURES_A_MINUTE, profile: str = "corp") -> None:
    for _ in range(times):
        brake.count(profile, source)


def test_guessing_stops_for_the_rest_of_the_minute(brake: FailureBrake, seconds: Seconds) -> None:
    fail(brake, "192.0.2.1", FAILURES_A_MINUTE - 1)
    assert brake.retry_after("corp", "192.0.2.1") is None
    seconds.now += 20.5
    fail(brake, "192.0.2.1", 1)
    assert brake.retry_after("corp", "192.0.2.1") == 40
    assert brake.retry_after("corp", "192.0.2.2") is None
    assert brake.retry_after("lab", "192.0.2.1") is None
    seconds.now += 39.5
    assert brake.retry_after("corp", "192.0.2.1") is None
    fail(brake, "192.0.2.1", 1)
    assert brake.retry_after("corp", "192.0.2.1") is None


def test_a_host_has_one_ipv6_network(brake: FailureBrake) -> None:
    fail(brake, "2001:db8::1")
    assert brake.retry_after("corp", "2001:db8::ffff:2") is not None
    assert brake.retry_after("corp", "2001:db8:0:1::1") is None


def test_more_addresses_than_are_kept_share_one_count(brake: FailureBrake) -> None:
    for n in range(MAX_SOURCES + FAILURES_A_MINUTE):
        brake.count("corp", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert brake.retry_after("corp", "198.51.100.1") is not None
    assert brake.retry_after("corp", "10.0.0.0") is None
