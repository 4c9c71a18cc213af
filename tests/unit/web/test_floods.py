"""Refusals of strangers are counted, not written one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from gateway.audit import AuditEvent
from gateway.errors import Reason, StoreUnavailable
from gateway.model import Protocol
from gateway.web.floods import FloodCounter

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


async def test_legacy_algorithms_have_rows_of_their_own(trail: Trail, floods: FloodCounter) -> None:
    for _ in range(3):
        floods.count_algorithm(Protocol.SCEP, "corp", "sha1")
    floods.count_algorithm(Protocol.SCEP, "corp", "des-cbc")
    floods.count_algorithm(Protocol.SCEP, "lab", "sha1")
    await floods.flush()
    assert [(e.event, e.decision, e.profile, e.detail, e.count, e.reason) for e in trail.events] == [
        ("algorithm.legacy", "done", "corp", "sha1", 3, None),
        ("algorithm.legacy", "done", "corp", "des-cbc", 1, None),
        ("algorithm.legacy", "done", "lab", "sha1", 1, None),
    ]


def test_the_first_few_of_a_kind_are_worth_a_line(floods: FloodCounter) -> None:
    assert [floods.count(Protocol.SCEP, "corp", Reason.MALFORMED) for _ in range(7)] == [True] * 5 + [False] * 2
    assert floods.count(Protocol.SCEP, "lab", Reason.MALFORMED)
