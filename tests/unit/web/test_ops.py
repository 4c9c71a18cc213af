"""Readiness: every probe passes, and is not asked more often than it may be."""

import asyncio

import pytest

from gateway.web import ops
from gateway.web.ops import Probe, Readiness


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
