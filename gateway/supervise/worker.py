"""One worker process: opens store, keys and CAs from the bytes that it was given, serves, follows the supervisor, drains."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import structlog

from gateway.assemble import Gateway, open_gateway
from gateway.config.load import Sources, parse
from gateway.errors import ConfigurationError, StoreRefused, StoreUnavailable
from gateway.logging import LogFormat, configure_logging
from gateway.metrics import worker as metrics
from gateway.supervise.background import Background
from gateway.supervise.channel import Channel, ChannelClosedError
from gateway.supervise.control import TEMPORARY, ControlError, Ready, Refused, Start
from gateway.supervise.endpoints import Endpoints
from gateway.supervise.gauges import LOAD_SECONDS, STORE_SECONDS, Gauges
from gateway.supervise.orders import Orders, Wishes, refusal
from gateway.tracing import open_tracer
from gateway.web.share import Share

log = structlog.get_logger(__name__)

RECOVERY_SECONDS = 5.0
"""How often rows whose worker died, and requests that wait for an upstream CA, are looked for."""
ACME_SECONDS = 1.0
"""How often validations and orders that are due are looked for; what a client asks for begins at once."""
UPKEEP_SECONDS = 3600.0
SPARE_DESCRIPTORS = 512
"""File descriptors for the store, upstream CAs, logs and sockets beside client connections."""


async def run(control: socket.socket) -> int:
    """Wait for the supervisor's `Start` and serve until SIGTERM, or until the supervisor is gone; returns the exit status."""
    channel = await Channel.open(control)
    try:
        start = await channel.receive()
        if not isinstance(start, Start):
            raise ControlError("the first message is no order to start")  # noqa: TRY301  ends like any other nonsense
        configure_logging(LogFormat(start.log_format) if start.log_format else None, start.log_level)
        structlog.contextvars.bind_contextvars(worker=start.worker)
        return await _serve(start, channel)
    except (ChannelClosedError, ControlError) as error:
        log.debug("nothing to serve", cause=str(error))
        return 1
    finally:
        await channel.close()


async def _serve(start: Start, channel: Channel) -> int:
    """Open everything and serve; what keeps this worker from beginning is told to the supervisor."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    if metrics.uncounted is not None:
        channel.send(Refused(start.id, TEMPORARY, metrics.uncounted))
        return TEMPORARY
    sources = Sources.from_bytes(start.sources)
    try:
        gateway = await open_gateway(
            parse(sources), sources, worker=start.worker, generation=start.generation, service=Wishes(channel)
        )
        try:
            _allow_connections(gateway.config.server.limits.connections)
            await _follow(start, channel, gateway, stopping)
        finally:
            await gateway.close()
    except (ConfigurationError, StoreRefused, StoreUnavailable) as error:
        refused = refusal(start.id, error)
    except Exception as error:
        log.exception("this worker cannot go on")
        refused = Refused(start.id, TEMPORARY, f"a worker failed unexpectedly: {type(error).__name__}; the log above says where")
    else:
        return 0
    channel.send(refused)
    return refused.code


async def _follow(start: Start, channel: Channel, gateway: Gateway, stopping: asyncio.Event) -> None:
    """Do what the supervisor orders until it is gone or says to end; connections are accepted from its first commit on."""
    tracer = open_tracer(start.worker)
    endpoints = Endpoints(gateway, start.drain_seconds, _share(start), tracer)
    orders = Orders(channel, gateway, endpoints.failures)
    async with Background() as background:
        background.run("orders", _listen(channel, orders, stopping))
        background.run("beat", orders.beat())
        channel.send(Ready(start.id))
        try:
            await _until_committed(orders, stopping)
            if stopping.is_set():
                return
            _spare_collections()
            await _open(start, endpoints)
            channel.send(Ready(orders.committed.result().id))
            _start_background(background, gateway, endpoints)
            await stopping.wait()
            log.info("draining")
            until = asyncio.get_running_loop().time() + start.drain_seconds
            await endpoints.close()
            await gateway.acme.drain(max(1.0, until - asyncio.get_running_loop().time()))
            await gateway.authority.drain(max(1.0, until - asyncio.get_running_loop().time()))
        finally:
            await orders.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)


async def _listen(channel: Channel, orders: Orders, stopping: asyncio.Event) -> None:
    """Follow orders; end in order when the supervisor's end of the socket pair closes, however it died."""
    try:
        await channel.run(orders.handle)
    except ControlError as error:
        log.error("the supervisor is not understood", cause=str(error))  # noqa: TRY400
    finally:
        stopping.set()


async def _until_committed(orders: Orders, stopping: asyncio.Event) -> None:
    ended = asyncio.create_task(stopping.wait())
    waited: set[asyncio.Future[Any]] = {ended, orders.committed}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()


def _share(start: Start) -> Share:
    return Share.alone() if start.share is None else Share.attach(start.balance, start.share)


async def _open(start: Start, endpoints: Endpoints) -> None:
    await endpoints.open(
        http=socket.socket(fileno=start.http),
        https=socket.socket(fileno=start.https),
        admin=socket.socket(fileno=start.admin),
        https_mtls=None if start.https_mtls is None else socket.socket(fileno=start.https_mtls),
    )


def _spare_collections() -> None:
    """Leave what lasts as long as the worker out of full garbage collections: one stops every request for 60 ms and more."""
    gc.collect()
    gc.freeze()


def _allow_connections(count: int) -> None:
    """Raise the soft limit of file descriptors, often 1024, so that the configured caps hold and not the kernel's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            log.warning("fewer connections than configured: raise the limit of open files", connections=count, limit=hard)


def _start_background(background: Background, gateway: Gateway, endpoints: Endpoints) -> None:
    background.run("recovery", _recover(gateway))
    background.repeat("revocations", RECOVERY_SECONDS, gateway.tell_revocations)
    background.repeat("confirmations", RECOVERY_SECONDS, gateway.end_confirmations)
    background.repeat("acme", ACME_SECONDS, gateway.validate)
    background.repeat("upkeep", UPKEEP_SECONDS, gateway.expire)
    background.run("floods", endpoints.floods.run())
    background.run("crl", gateway.publish_crls())
    gauges = Gauges(gateway, endpoints)
    background.repeat("load", LOAD_SECONDS, gauges.note_load)
    background.repeat("gauges", STORE_SECONDS, gauges.note_store)


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
    # A terminal's Ctrl-C goes to the supervisor, which ends its workers in order; so do the signals that a service is sent.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(run(socket.socket(fileno=int(sys.argv[1]))))


def loop_factory() -> Any:
    """Return what makes event loops: uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
