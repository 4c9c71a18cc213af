"""One task for each CA whose CRL is signed, whatever the generations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.assemble.continuity import CrlDuty
from gateway.assemble.crl_tasks import CrlTasks
from gateway.model import UpstreamCAName

Duties = dict[UpstreamCAName, CrlDuty]


@dataclass(eq=False)
class Publisher:
    """Tells on its CA's board when it runs; ends slowly, as one does that gives its lease back."""

    name: str
    board: list[str] = field(default_factory=list)

    async def run(self) -> None:
        self.board.append(f"+{self.name}")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.board.append(f"-{self.name}")


def duties(**publishers: Publisher) -> Duties:
    unused: Any = None
    return {UpstreamCAName(ca): CrlDuty(one, unused, unused) for ca, one in publishers.items()}  # type: ignore[arg-type]


async def follow(tasks: CrlTasks, in_force: Duties, wanted: Duties) -> None:
    in_force.clear()
    in_force.update(wanted)
    tasks.wake()
    await asyncio.sleep(0.05)


@pytest.fixture
def board() -> list[str]:
    return []


async def test_tasks_follow_what_is_in_force(board: list[str]) -> None:
    a, b, a_again = Publisher("a", board), Publisher("b", board), Publisher("a2", board)
    in_force = duties(a=a)
    tasks = CrlTasks(lambda: in_force)
    running = asyncio.create_task(tasks.run())
    await follow(tasks, in_force, duties(a=a, b=b))
    assert sorted(board) == ["+a", "+b"]
    await follow(tasks, in_force, duties(b=b))
    assert board[2:] == ["-a"]
    await follow(tasks, in_force, duties(b=b, a=a_again))
    assert board[3:] == ["+a2"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sorted(board[4:]) == ["-a2", "-b"]
    assert len(asyncio.all_tasks()) == 1


async def test_another_publisher_of_a_ca_begins_when_the_first_has_ended(board: list[str]) -> None:
    first, second = Publisher("first", board), Publisher("second", board)
    in_force = duties(a=first)
    tasks = CrlTasks(lambda: in_force)
    running = asyncio.create_task(tasks.run())
    await asyncio.sleep(0.01)
    await follow(tasks, in_force, duties(a=second))
    assert board == ["+first", "-first", "+second"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_generation_that_comes_while_tasks_end(board: list[str]) -> None:
    first, second, third = (Publisher(name, board) for name in ("first", "second", "third"))
    in_force = duties(a=first)
    tasks = CrlTasks(lambda: in_force)
    running = asyncio.create_task(tasks.run())
    await asyncio.sleep(0.01)
    in_force[UpstreamCAName("a")] = duties(a=second)[UpstreamCAName("a")]
    tasks.wake()
    await asyncio.sleep(0.002)
    await follow(tasks, in_force, duties(a=third))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for before, after in zip(board[::2], board[1::2], strict=True):
        assert (before[0], after) == ("+", f"-{before[1:]}")
    assert board[-1] == "-third"
