"""One worker process: opens store, keys and CAs from the bytes that it was given, serves, drains."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import structlog

from gateway.assemble import Gateway, open_gateway
from gateway.config.load import Sources, parse
from gateway.errors import ConfigurationError, StoreRefused, StoreUnavailable
from gateway.logging import LogFormat, configure_logging
from gateway.supervise.control import Answer, Order
from gateway.supervise.endpoints import Endpoints

log = structlog.get_logger(__name__)

RECOVERY_SECONDS = 5.0
"""How often rows whose worker died, and requests that wait for an upstream CA, are looked for."""
UPKEEP_SECONDS = 3600.0
SPARE_DESCRIPTORS = 512
"""File descriptors for the store, upstream CAs, logs and sockets beside client connections."""


class Background:
    """Tasks that run beside the requests; one that fails is logged and begun again."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def run(self, name: str, task: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that loops for ever and handles its own failures."""
        self._tasks.append(asyncio.create_task(task, name=name))

    def repeat(self, name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Await `step()` every so many seconds."""
        self.run(name, _repeat(name, seconds, step))


async def _repeat(name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except StoreUnavailable as error:
            log.warning("background work waits for the store", task=name, cause=str(error))
        except Exception:
            log.exception("background work failed and is tried again", task=name, retry_after=seconds)
        await asyncio.sleep(seconds)


async def serve(order: Order, sources: Sources, control: socket.socket) -> int:
    """Serve until SIGTERM, or until the supervisor is gone; returns the exit status."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    try:
        gateway = await open_gateway(parse(sources), sources, worker=order.worker, generation=order.generation)
    except (ConfigurationError, StoreRefused, StoreUnavailable) as error:
        return _refuse(control, error)
    try:
        _allow_connections(gateway.config.server.limits.connections)
        endpoints = Endpoints(gateway, order.drain_seconds)
        await endpoints.open(
            http=socket.socket(fileno=order.http),
            https=socket.socket(fileno=order.https),
            admin=socket.socket(fileno=order.admin),
            https_mtls=None if order.https_mtls is None else socket.socket(fileno=order.https_mtls),
        )
        control.sendall(Answer(ready=True).encode())
        _end_with_supervisor(control, stopping)
        async with Background() as background:
            _start_background(background, gateway, endpoints)
            await stopping.wait()
            log.info("draining")
            until = loop.time() + order.drain_seconds
            await endpoints.close()
            await gateway.authority.drain(max(1.0, until - loop.time()))
    except ConfigurationError as error:
        return _refuse(control, error)
    finally:
        await gateway.close()
    return 0


def _refuse(control: socket.socket, error: Exception) -> int:
    """Tell the supervisor why this worker cannot begin; returns the exit status."""
    answer = Answer(ready=False, code=3 if isinstance(error, ConfigurationError) else 1, message=str(error))
    control.sendall(answer.encode())
    return answer.code


def _allow_connections(count: int) -> None:
    """Raise the soft limit of file descriptors, often 1024, so that the configured caps hold and not the kernel's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            log.warning("fewer connections than configured: raise the limit of open files", connections=count, limit=hard)


def _end_with_supervisor(control: socket.socket, stopping: asyncio.Event) -> None:
    """End in order when the supervisor's end of the socket pair closes, however it died."""
    control.setblocking(False)
    loop = asyncio.get_running_loop()

    def on_closed() -> None:
        loop.remove_reader(control)
        stopping.set()

    loop.add_reader(control, on_closed)


def _start_background(background: Background, gateway: Gateway, endpoints: Endpoints) -> None:
    background.run("recovery", _recover(gateway))
    background.repeat("upkeep", UPKEEP_SECONDS, gateway.expire)
    background.run("floods", endpoints.floods.run())
    background.run("crl", gateway.publish_crls())


async def _recover(gateway: Gateway) -> None:
    """Look after the ledger every few seconds, and at once when an operator has changed a row."""
    while True:
        try:
            await gateway.recover()
        except StoreUnavailable as error:
            log.warning("recovery waits for the store", cause=str(error))
        except Exception:
            log.exception("recovery failed and is tried again", retry_after=RECOVERY_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_SECONDS):
                await gateway.wanted.wait()


def main() -> int:
    """Run one worker; the argument is the descriptor of the control socket."""
    # A terminal's Ctrl-C goes to the supervisor, which ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        with control.makefile("rb", buffering=0) as stream:
            order, sources = Order.read(stream)
    except (EOFError, OSError):
        return 1
    configure_logging(LogFormat(order.log_format) if order.log_format else None, order.log_level)
    structlog.contextvars.bind_contextvars(worker=order.worker)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(order, Sources.from_bytes(sources), control))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
