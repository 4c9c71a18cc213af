"""Makes processes of a served installation fail where a file in FAULTS says so; each file strikes the first that comes, once."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import gateway.assemble
from gateway.assemble import gateway as assembled
from gateway.supervise import reload, workers

FAULTS = Path(os.environ["GATEWAY_TEST_FAULTS"])
prepare, commit, open_gateway = assembled.Gateway.prepare, assembled.Gateway.commit, assembled.open_gateway


def struck(name: str) -> bool:
    try:
        (FAULTS / name).rename(FAULTS / f"struck-{name}-{os.getpid()}-{time.monotonic_ns()}")
    except FileNotFoundError:
        return False
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def faulty_prepare(self: assembled.Gateway, *args: Any) -> assembled.Prepared:
    if struck("hangs-in-prepare"):
        await asyncio.sleep(3600)
    if struck("stands-still-in-prepare"):
        time.sleep(3600)
    if struck("dies-in-prepare"):
        die()
    if struck("fails-in-prepare"):
        raise RuntimeError("a fault")
    prepared = await prepare(self, *args)
    if struck("slow-in-prepare"):
        await asyncio.sleep(1.5)
    if struck("late-in-prepare"):
        await asyncio.sleep(reload.PREPARE_SECONDS + 1)
    if struck("dies-after-ready"):
        asyncio.get_running_loop().call_later(0.001, die)
    return prepared


def faulty_commit(self: assembled.Gateway, prepared: assembled.Prepared) -> None:
    if struck("dies-in-commit"):
        die()
    if struck("stands-still-in-commit"):
        time.sleep(3600)
    commit(self, prepared)


async def faulty_open(*args: Any, **kwargs: Any) -> assembled.Gateway:
    if struck("dies-in-start") or struck("dies-in-start-again"):
        die()
    if struck("slow-in-start"):
        await asyncio.sleep(6)
    return await open_gateway(*args, **kwargs)


assembled.Gateway.prepare = faulty_prepare  # type: ignore[assignment,method-assign]
assembled.Gateway.commit = faulty_commit  # type: ignore[method-assign]
gateway.assemble.open_gateway = faulty_open
reload.PREPARE_SECONDS = 3.0
reload.COMMIT_SECONDS = 3.0  # type: ignore[attr-defined]
workers.SILENT_SECONDS = 8
