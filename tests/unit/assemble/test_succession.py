"""An upstream CA is open from the first generation that names it to the end of the last."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import pytest

from gateway.assemble import succession as module
from gateway.assemble.continuity import Lasting
from gateway.assemble.generation import Built
from gateway.assemble.succession import Succession
from gateway.model import UpstreamCAName
from gateway.ra.profile import Snapshot
from gateway.web.generation import Generation


class Ca:
    """Tells what was done to it."""

    def __init__(self, name: str, *, fails: str = "") -> None:
        self.name = UpstreamCAName(name)
        self.done: list[str] = []
        self._fails = fails

    async def start(self) -> None:
        await asyncio.sleep(0)
        self._do("start")

    async def close(self) -> None:
        await asyncio.sleep(0)
        self._do("close")

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what == self._fails:
            raise OSError(what)


def built(number: int, *cas: Ca) -> Built:
    named: Any = MappingProxyType({ca.name: ca for ca in cas})
    nothing: Any = MappingProxyType({})
    generation = Generation(number, Snapshot(number, nothing, named), nothing, nothing, nothing, nothing)
    config: Any = None
    return Built(generation, config, Lasting(named))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_ca_is_closed_when_its_work_has_ended() -> None:
    old, new = Ca("issuing"), Ca("issuing")
    first, second = built(1, old), built(2, new)
    line = Succession(first)
    await line.open(first)
    with first.generation.snapshot.occupancy:
        await line.open(second)
        line.put_in_force(second)
        assert line.current is second
        await turns()
        assert old.done == ["start"]
    await turns()
    assert (old.done, new.done) == (["start", "close"], ["start"])
    await line.close()
    assert new.done == ["start", "close"]


async def test_a_ca_that_goes_on_is_neither_started_again_nor_closed() -> None:
    same, gone = Ca("same"), Ca("gone")
    first, second, third = built(1, same, gone), built(2, same), built(3, same)
    line = Succession(first)
    for one in (first, second, third):
        await line.open(one)
        if one is not first:
            line.put_in_force(one)
    await turns()
    assert (same.done, gone.done) == (["start"], ["start", "close"])
    await line.close()
    assert same.done == ["start", "close"]


async def test_work_that_outlives_two_generations() -> None:
    kept = Ca("kept")
    first, second, third = built(1, kept), built(2, kept), built(3)
    line = Succession(first)
    await line.open(first)
    with first.generation.snapshot.occupancy:
        for one in (second, third):
            await line.open(one)
            line.put_in_force(one)
            await turns()
        assert kept.done == ["start"]
    await turns()
    assert kept.done == ["start", "close"]
    await line.close()
    assert kept.done == ["start", "close"]


async def test_what_was_prepared_in_vain_is_closed_alone() -> None:
    same, new = Ca("same"), Ca("new")
    first, second = built(1, same), built(2, same, new)
    line = Succession(first)
    await line.open(first)
    await line.open(second)
    await line.close_one(second)
    await line.close_one(second)
    assert (same.done, new.done) == (["start"], ["start", "close"])
    await line.close()


async def test_one_that_cannot_start_takes_the_others_with_it() -> None:
    same, good, bad, after = Ca("same"), Ca("good"), Ca("bad", fails="start"), Ca("after")
    first = built(1, same)
    line = Succession(first)
    await line.open(first)
    with pytest.raises(OSError, match="start"):
        await line.open(built(2, same, good, bad, after))
    assert (same.done, good.done, bad.done) == (["start"], ["start", "close"], ["start", "close"])
    assert "start" not in after.done
    assert line.current is first
    await line.close()


async def test_one_that_cannot_be_closed_keeps_no_other_open() -> None:
    bad, good = Ca("bad", fails="close"), Ca("good")
    first = built(1, bad, good)
    line = Succession(first)
    await line.open(first)
    await line.close()
    assert good.done == ["start", "close"]


async def test_work_that_does_not_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    old = Ca("issuing")
    first, second = built(1, old), built(2)
    line = Succession(first)
    await line.open(first)
    with first.generation.snapshot.occupancy:
        line.put_in_force(second)
        await asyncio.sleep(0.05)
        assert old.done == ["start", "close"]
    await line.close()


async def test_the_end_waits_for_nothing() -> None:
    old, new = Ca("old"), Ca("new")
    first, second = built(1, old), built(2, new)
    line = Succession(first)
    await line.open(first)
    await line.open(second)
    with first.generation.snapshot.occupancy:
        line.put_in_force(second)
        await turns()
        await line.close()
    assert (old.done, new.done) == (["start", "close"], ["start", "close"])
    assert len(asyncio.all_tasks()) == 1
