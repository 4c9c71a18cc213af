"""Runs one walk in a process of its own and kills that process at the k-th step of its tasks; nothing of this is in the gateway.

A step is one turn of a task: from where it was resumed to its next await. The process is killed just before and just
after each turn, so that every await has a death on both of its sides. One server process imports everything once and
forks a child for each order that it reads as a line of JSON; its answer is a line with the child's wait status.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.ca.local import CaUrls, LocalCA
from gateway.logging import configure_logging
from gateway.ra.acme.authority import AcmeAuthority
from tests.flow.enrollment.acme_world import AcmeWorld, csr
from tests.flow.enrollment.world import CA_NAME, FIND, PROFILE, Clock, FaultyCA, World, _open_ca, make_request

BACKENDS = ("local", "exec with find", "exec without find")


class Steps:
    """Counts half-turns and dies at the k-th; 0 never dies."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.count = 0

    def step(self) -> None:
        self.count += 1
        if self.count == self.k:
            os.kill(os.getpid(), signal.SIGKILL)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose every turn is counted."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._work = work
        self._steps = steps

    def send(self, value: Any) -> Any:
        return self._turn(lambda: self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._turn(lambda: self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    def _turn(self, turn: Any) -> Any:
        self._steps.step()
        try:
            return turn()
        finally:
            self._steps.step()


def count_tasks(loop: asyncio.AbstractEventLoop, steps: Steps) -> None:
    """Count the turns of every task that begins from here on."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        return asyncio.Task(Counted(work, steps), loop=loop, **options)

    loop.set_task_factory(factory)


def make_ca(backend: str, folder: Path) -> Any:
    """Open the backend over what earlier processes left of it."""
    if backend != "local":
        return FaultyCA(folder, FIND if backend == "exec with find" else FaultyCA.NO_CAPABILITIES)
    folder.mkdir(exist_ok=True)
    key, root = _open_ca(folder)
    return LocalCA(CA_NAME, key, (root,), CaUrls(None, None), publishes_crl=False)


def make_world(folder: Path, backend: str, ahead: float) -> World:
    clock = Clock()
    clock.advance(timedelta(seconds=ahead))
    return World(folder, make_ca(backend, folder / "ca"), clock=clock)


def make_acme_world(folder: Path, backend: str, ahead: float) -> AcmeWorld:
    clock = Clock()
    clock.advance(timedelta(seconds=ahead))
    return AcmeWorld(folder, make_ca(backend, folder / "ca"), clock=clock)


async def run_acme(order: dict[str, Any]) -> None:
    """Finalize an order, or take up what others left in two rounds as the background does, and die on the way."""
    world = make_acme_world(Path(order["folder"]), order["backend"], order["ahead"])
    acme = await world.worker(f"worker-{os.getpid()}")
    who = await acme.find_account(world.snapshot, PROFILE, order["account"])
    steps = Steps(order["k"])
    count_tasks(asyncio.get_running_loop(), steps)
    if order["act"] == "finalize":
        finalizing = acme.finalize(world.snapshot, PROFILE, who, order["order"], csr(order["name"]), "192.0.2.7")
        await asyncio.get_running_loop().create_task(finalizing)
    else:
        for _ in range(2):
            await asyncio.get_running_loop().create_task(take_up(world, acme))
    os._exit(0)


async def take_up(world: AcmeWorld, acme: AcmeAuthority) -> None:
    """One round of the background."""
    await acme._means.authority.recover(world.snapshot)
    await acme.run_due(world.snapshot)
    await asyncio.gather(*[work.task for work in acme._finalization._works.values() if work.task], return_exceptions=True)


async def run(order: dict[str, Any]) -> None:
    """Enroll, or look after the ledger in two rounds as the background does, and die on the way."""
    if "account" in order:
        await run_acme(order)
    world = make_world(Path(order["folder"]), order["backend"], order["ahead"])
    authority = await world.start(f"worker-{os.getpid()}")
    steps = Steps(order["k"])
    count_tasks(asyncio.get_running_loop(), steps)
    request = make_request(world.clock(), challenge=order["challenge"])
    if order["act"] == "enroll":
        await asyncio.get_running_loop().create_task(authority.enroll(world.snapshot, request))
    else:
        for _ in range(2):
            await asyncio.get_running_loop().create_task(authority.recover(world.snapshot))
    os._exit(0)


def main() -> None:
    """Fork a child an order until the input ends."""
    configure_logging(level="critical")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(Exception):
                asyncio.run(run(json.loads(line)))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
