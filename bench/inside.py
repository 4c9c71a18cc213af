"""Enrollments inside this process: the gateway of a worker without HTTP, and how long each of its stages takes there."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns, process_time, thread_time_ns
from typing import Any
from unittest.mock import patch

from bench.devices import Device, make_devices
from gateway.assemble import Gateway, open_gateway
from gateway.ca.local import LocalCA
from gateway.config.load import read
from gateway.logging import LogFormat, configure_logging
from gateway.model import Issued
from gateway.ra import authority, walk
from gateway.store.sqlite import connection, ledger
from gateway.store.sqlite.store import SqliteStore
from gateway.store.sqlite.transaction import Transaction
from gateway.supervise.worker import loop_factory
from gateway.web import pki_operation
from gateway.web.floods import FloodCounter
from gateway.web.pki_operation import Peer, PkiOperation
from gateway.wire.scep import message_data, pkimessage
from gateway.wire.scep.operations import ca_certificates

CONNECTIONS = 32
WARM_UP = 100

STAGES: tuple[tuple[str, Any, str], ...] = (
    ("decode message", pkimessage, "decode_pki_message"),
    ("verify signature", pkimessage, "verify_signature"),
    ("decrypt", message_data, "_decipher"),
    ("CSR, proof of possession", message_data, "_read_csr"),
    ("authenticate", authority, "authenticate"),
    ("look for the same request", SqliteStore, "find_request"),
    ("policy and ledger row", authority.RegistrationAuthority, "_decide"),
    ("ledger open: statements", ledger, "open_row"),
    ("issue", LocalCA, "issue"),
    ("parse what was issued", walk, "parse_certificate"),
    ("verify what was issued", walk.Walk, "_verify"),
    ("record: statements", ledger, "change_row"),
    ("audit", Transaction, "audit"),
    ("audit: insert of a group", Transaction, "finish"),
    ("commit of a group", connection, "commit"),
    ("encode answer", pkimessage, "encode_success"),
    ("log line", pki_operation, "_log_answer"),
    ("metrics", pki_operation, "_measure"),
)
"""What a stage is called, and the function that does it; a stage within another counts for itself alone."""
_OF_THE_WRITER = (ledger, Transaction, connection)


@dataclass
class Watch:
    """Nanoseconds of each call by stage; stages within a stage are taken off. One for each thread."""

    clock: Callable[[], int]
    times: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    inner: list[int] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure one call."""
        self.inner.append(0)
        begun = self.clock()
        try:
            yield
        finally:
            took = self.clock() - begun
            self.times[stage].append(took - self.inner.pop())
            if self.inner:
                self.inner[-1] += took


@dataclass(frozen=True, slots=True)
class Inside:
    """What enrollments inside this process showed, in microseconds each: median of each stage, CPU of all threads."""

    stages: dict[str, float]
    cpu: float


def measure_inside(folder: Path, count: int, *, stages: bool = True) -> Inside:
    """Enroll `count` devices at a gateway of this process."""
    state = folder / "inside"
    subprocess.run([sys.executable, "-m", "gateway", "init", str(state), "--no-next"], check=True, capture_output=True)
    with (folder / "inside.log").open("w") as log, redirect_stderr(log):
        configure_logging(LogFormat.JSON)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_measure(state, count, stages))


async def _measure(state: Path, count: int, stages: bool) -> Inside:
    config, sources = read(state / "profiles.yaml")
    gateway = await open_gateway(config, sources, worker=f"bench:1:{os.getpid()}", generation=1)
    try:
        [service] = gateway.generation.scep.values()
        challenge = (state / "secrets" / "demo-scep-challenge").read_text(encoding="ascii").strip()
        devices = make_devices(ca_certificates(service.identity)[0], challenge, count + WARM_UP)
        await _enroll(gateway, devices[:WARM_UP])
        loop, others = Watch(perf_counter_ns), Watch(thread_time_ns)  # the writer waits for the disk
        with _watched(gateway, loop, others) if stages else nullcontext():
            begun = process_time()
            await _enroll(gateway, devices[WARM_UP:])
            cpu = (process_time() - begun) / count * 1e6
    finally:
        await gateway.close()
    times = {**loop.times, **others.times}
    return Inside({stage: _each(times[stage], count) for stage, _, _ in STAGES if stage in times}, cpu)


def _each(times: Sequence[int], count: int) -> float:
    """Return the time of one enrollment: calls are of one, two, or of a group."""
    return statistics.median(times) * len(times) / count / 1000


async def _enroll(gateway: Gateway, devices: Sequence[Device]) -> None:
    floods = FloodCounter(gateway.store.append_audit, gateway.clock)
    with ThreadPoolExecutor(1) as executor:
        operation = PkiOperation(gateway.authority, floods, executor, gateway.clock)
        [service] = gateway.generation.scep.values()
        waiting = iter(devices)

        async def enroll_some() -> None:
            for device in waiting:
                message = pkimessage.decode_pki_message(device.request.message)
                reply = await operation.reply(gateway.generation, service, message, Peer("127.0.0.1"))
                if not isinstance(reply.answer, Issued):
                    raise TypeError(f"not granted: {reply.answer}")

        await asyncio.gather(*(enroll_some() for _ in range(CONNECTIONS)))


@contextmanager
def _watched(gateway: Gateway, loop: Watch, others: Watch) -> Iterator[None]:
    """Measure every stage; those of the store's writer run on its thread."""
    with ExitStack() as patches:
        for stage, owner, name in STAGES:
            watch = others if owner in _OF_THE_WRITER else loop
            # What judges certificates was given to one object.
            where = gateway.authority._walk if owner is walk.Walk else owner
            patches.enter_context(patch.object(where, name, _timed(watch, stage, getattr(where, name))))
        yield


def _timed(watch: Watch, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(work):

        async def timed_coroutine(*arguments: Any, **named: Any) -> Any:
            with watch.measure(stage):  # none of these waits for anything
                found: Awaitable[Any] = work(*arguments, **named)
                return await found

        return timed_coroutine

    def timed(*arguments: Any, **named: Any) -> Any:
        with watch.measure(stage):
            return work(*arguments, **named)

    return timed


def print_stages(count: int = 1000) -> None:
    """Print what each stage takes inside this process; HTTP is not among them."""
    with tempfile.TemporaryDirectory() as folder:
        inside = measure_inside(Path(folder), count)
    print(f"stages of {count} enrollments in one process, without HTTP; measuring itself takes some microseconds each")
    for stage, microseconds in inside.stages.items():
        print(f"  {stage:<28}{microseconds:8.0f} µs")
    rest = inside.cpu - sum(inside.stages.values())
    print(f"  {'all else, tasks and waits':<28}{rest:8.0f} µs")
    print(f"  {'CPU of all threads':<28}{inside.cpu:8.0f} µs")
