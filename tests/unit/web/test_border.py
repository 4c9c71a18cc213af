"""Requests that an endpoint does not read: counted by reason, remembered by address, said a few times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import ProfileName, Protocol
from gateway.web.border import Border
from gateway.web.floods import LOGGED_A_MINUTE, FloodCounter
from gateway.web.generation import FailureLimit

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Service:
    profile: ProfileName
    failure_limit: FailureLimit | None


CORP = Service(ProfileName("corp"), FailureLimit(2, timedelta(minutes=1)))


@pytest.fixture
def written() -> list[AuditEvent]:
    return []


@pytest.fixture
def floods(written: list[AuditEvent]) -> FloodCounter:
    async def append(events: Sequence[AuditEvent]) -> None:
        written.extend(events)

    return FloodCounter(append, lambda: NOW)


@pytest.fixture
def border(floods: FloodCounter) -> Border:
    return Border(Protocol.CMP, floods)


async def counted(floods: FloodCounter, written: list[AuditEvent]) -> list[tuple[str, Reason | None, int]]:
    await floods.flush()
    return [(event.profile, event.reason, event.count) for event in written]


async def test_an_address_that_failed_too_often_waits(border: Border, floods: FloodCounter, written: list[AuditEvent]) -> None:
    service = CORP
    for _ in range(2):
        assert border.wait_of(service, "192.0.2.1") is None
        border.note_failure(service, "192.0.2.1")
    wait = border.wait_of(service, "192.0.2.1")
    assert wait is not None
    assert 0 < wait <= 60
    assert border.wait_of(service, "192.0.2.2") is None
    assert await counted(floods, written) == [("corp", Reason.RATE_LIMITED, 1)]


def test_without_a_limit_nobody_waits(border: Border) -> None:
    service = Service(ProfileName("corp"), None)
    for _ in range(100):
        border.note_failure(service, "192.0.2.1")
    assert border.wait_of(service, "192.0.2.1") is None


async def test_what_is_not_read_is_counted_and_said_a_few_times(
    border: Border, floods: FloodCounter, written: list[AuditEvent]
) -> None:
    with capture_logs() as lines:
        for _ in range(20):
            border.count_unread(CORP, "192.0.2.1", Reason.MALFORMED, "no message")
    assert len(lines) == LOGGED_A_MINUTE
    assert lines[0]["event"] == "refused unread"
    assert (lines[0]["reason"], lines[0]["cause"], lines[0]["source"]) == ("malformed", "no message", "192.0.2.1")
    assert await counted(floods, written) == [("corp", Reason.MALFORMED, 20)]


async def test_what_is_not_served_has_no_profile(border: Border, floods: FloodCounter, written: list[AuditEvent]) -> None:
    border.count_unknown()
    assert await counted(floods, written) == [("", Reason.UNKNOWN_PROFILE, 1)]


def test_a_signer_that_ended_is_said_once(border: Border) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            border.count_out_of_date(CORP, "it expired: put a new one in its place")
    assert [line["cause"] for line in lines] == ["it expired: put a new one in its place"]
