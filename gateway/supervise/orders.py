"""What a worker does on the supervisor's orders: generations in two phases, readiness, audit rows; and how it asks in return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from gateway.assemble import Gateway, Prepared
from gateway.assemble.operations import ServiceAnswer
from gateway.audit import AuditEvent
from gateway.config.sources import Sources
from gateway.errors import ConfigurationError, StoreRefused, StoreUnavailable
from gateway.supervise.channel import Channel, ChannelClosedError
from gateway.supervise.control import (
    TEMPORARY,
    Abort,
    Beat,
    Check,
    Commit,
    Ended,
    Message,
    Prepare,
    Ready,
    Record,
    Refused,
    ReloadWanted,
    RestartWanted,
    cut,
    show_problems,
)

log = structlog.get_logger(__name__)

BEAT_SECONDS = 1.0

Failures = Callable[[], Awaitable[tuple[str, ...]]]


class Orders:
    """Follows the supervisor; what takes long runs beside the requests, and what is aborted leaves nothing behind."""

    def __init__(self, channel: Channel, gateway: Gateway, failures: Failures) -> None:
        """`failures` names what keeps this worker from taking requests."""
        self._channel = channel
        self._gateway = gateway
        self._failures = failures
        self._building: asyncio.Task[None] | None = None
        self._prepared: Prepared | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.committed: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        """The first commit, which is answered by who opens the doors."""

    def handle(self, message: Message) -> None:
        """Begin to do what a message says."""
        match message:
            case Prepare():
                self._drop()
                self._building = asyncio.create_task(self._prepare(message))
                self._keep(self._building)
            case Commit():
                self._commit(message)
            case Abort():
                self._drop()
            case Check(id=id):
                self._run(self._check(id))
            case Record():
                self._run(self._record(message))
            case _:
                log.error("the supervisor said what it does not say", kind=type(message).__name__)

    async def beat(self) -> None:
        """Show the supervisor that the event loop turns, for ever."""
        while True:
            self._channel.send_if_free(Beat())
            await asyncio.sleep(BEAT_SECONDS)

    async def close(self) -> None:
        """Begin nothing any more, and forget what is prepared."""
        if self._building is not None:
            self._building.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._prepared is not None:
            await self._prepared.discard()

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        self._keep(asyncio.create_task(step))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, order: Prepare) -> None:
        try:
            self._prepared = await self._gateway.prepare(Sources.from_bytes(order.sources), order.generation)
        except (ConfigurationError, StoreRefused, StoreUnavailable) as error:
            self._channel.send(refusal(order.id, error))
        except Exception as error:
            log.exception("a configuration could not be built", generation=order.generation)
            self._channel.send(Refused(order.id, 1, f"a worker could not build the configuration: {type(error).__name__}"))
        else:
            self._channel.send(Ready(order.id))

    def _commit(self, order: Commit) -> None:
        """Put in force what is prepared; nothing has to be when the worker was started with this generation."""
        if self._prepared is not None and self._prepared.generation.number == order.generation:
            self._gateway.commit(self._prepared)
            self._prepared = None
        if self._gateway.generation.number != order.generation:
            self._channel.send(Refused(order.id, 1, f"generation {order.generation} is not prepared"))
        elif self.committed.done():
            log.info("generation in force", generation=order.generation)
            self._channel.send(Ready(order.id))
        else:
            self.committed.set_result(order)

    def _drop(self) -> None:
        """Forget what is prepared, or being built."""
        if self._building is not None:
            self._building.cancel()
            self._building = None
        if self._prepared is not None:
            self._run(self._prepared.discard())
            self._prepared = None

    async def _check(self, id: int) -> None:
        failed = await self._failures()
        self._channel.send(Refused(id, TEMPORARY, ", ".join(failed)) if failed else Ready(id))

    async def _record(self, order: Record) -> None:
        event = AuditEvent(
            event=order.event,
            at=self._gateway.clock(),
            actor=order.actor,
            decision=order.decision,
            detail=order.detail,
            generation=order.generation,
        )
        try:
            await self._gateway.store.append_audit([event])
        except (StoreRefused, StoreUnavailable) as error:
            self._channel.send(refusal(order.id, error))
        else:
            self._channel.send(Ready(order.id))


class Wishes:
    """What an operator wants of the supervisor, through this worker's admin socket."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def reload(self, actor: str) -> ServiceAnswer:
        """Have the configuration read again, in every worker."""
        return await self._ask(ReloadWanted(actor))

    async def restart(self, actor: str) -> ServiceAnswer:
        """Have every worker replaced, one after another."""
        return await self._ask(RestartWanted(actor))

    async def _ask(self, wish: ReloadWanted | RestartWanted) -> ServiceAnswer:
        with suppress(ChannelClosedError):
            ended = await self._channel.ask(wish)
            if isinstance(ended, Ended):
                return ServiceAnswer(ended.ok, ended.reason, ended.text, {**ended.found, "text": ended.text})
        return ServiceAnswer(ok=False, reason="failed", text="the service ends", found={})


def refusal(id: int, error: Exception) -> Refused:
    """Return the answer for an error that says what is wrong; only a store that is out of reach is worth another try."""
    code = 3 if isinstance(error, ConfigurationError) else TEMPORARY if isinstance(error, StoreUnavailable) else 1
    return Refused(id, code, show_problems(error.problems) if isinstance(error, ConfigurationError) else cut(str(error)))
