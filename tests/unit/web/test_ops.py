"""Readiness: every probe passes, and is not asked more often than it may be."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.web import ops
from gateway.web.ops import Probe, Readiness
from gateway.web.reminder import Reminder


class Thing:
    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def check(self) -> None:
        self.asked += 1
        if self.broken:
            raise OSError("broken")


async def test_probes_are_asked_seldom() -> None:
    thing = Thing()
    readiness = Readiness((Probe("thing", thing.check),))
    answers = await asyncio.gather(*(readiness.failures() for _ in range(100)))
    assert set(answers) == {()}
    assert thing.asked == 1


async def test_what_is_broken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "KEPT_SECONDS", 0.0)
    good, bad = Thing(), Thing()
    readiness = Readiness((Probe("good", good.check), Probe("bad", bad.check)))
    assert await readiness.failures() == ()
    bad.broken = True
    assert await readiness.failures() == ("bad",)
    bad.broken = False
    assert await readiness.failures() == ()


async def test_a_probe_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "PROBE_TIMEOUT", 0.01)
    readiness = Readiness((Probe("stuck", asyncio.Event().wait),))  # type: ignore[arg-type]
    assert await readiness.failures() == ("stuck",)


async def test_a_draining_worker_is_not_ready() -> None:
    thing = Thing()
    readiness = Readiness((Probe("thing", thing.check),))
    readiness.draining = True
    assert await readiness.failures() == ("draining",)
    assert thing.asked == 0


async def test_a_fault_that_lasts_is_logged_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "KEPT_SECONDS", 0.0)
    thing = Thing()
    readiness = Readiness((Probe("thing", thing.check),))
    with capture_logs() as logs:
        for broken in (True, True, False, True):
            thing.broken = broken
            await readiness.failures()
    assert [(line["probe"], line["cause"]) for line in logs] == [("thing", "broken")] * 2


def test_reminders() -> None:
    now = 1000.0
    reminder = Reminder(lambda: now)
    assert [reminder.is_due("a", "x"), reminder.is_due("a", "x"), reminder.is_due("b", "x")] == [True, False, True]
    assert [reminder.is_due("a", "y"), reminder.is_due("a", "y")] == [True, False]
    now += 3600
    assert [reminder.is_due("a", "y"), reminder.is_due("a", "y")] == [True, False]
    assert [reminder.forget("a"), reminder.forget("a"), reminder.is_due("a", "y")] == [True, False, True]
