"""Tells the service manager when the service is ready, reloads, ends and still works (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from time import monotonic_ns
from typing import Self

import structlog

from gateway.supervise.observers import Observer
from gateway.supervise.outcome import Outcome

log = structlog.get_logger(__name__)

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
SEND_SECONDS = 1.0
"""A service manager that does not read its socket for so long is not waited for."""
MAX_STATUS = 1024


class ServiceManager(Observer):
    """systemd, or whoever set NOTIFY_SOCKET; without an address everything that is said is dropped.

    `address` is a path, or an abstract name that begins with a zero byte (unix(7)). `watchdog_seconds` is how long it waits
    for a sign of life before it ends the service, None for ever; a turn of the supervisor takes one second.
    """

    def __init__(self, address: bytes | None = None, watchdog_seconds: float | None = None) -> None:
        self.address = address
        self.watchdog_seconds = watchdog_seconds
        self._serves = False
        self._starving = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ, pid: int | None = None) -> Self:
        """Read who waits for news, and take it out of the environment: workers and upstream CA programs have none to tell."""
        named, usec, watched = (environ.pop(name, "") for name in (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID))
        address = _read_address(named)
        if named and address is None:
            log.warning("the service manager cannot be told anything: no such kind of address", address=named)
        own = not watched or watched == str(os.getpid() if pid is None else pid)
        fed = address is not None and own and usec.isascii() and usec.isdigit() and int(usec) > 0
        return cls(address, int(usec) / 1_000_000 if fed else None)

    def serving(self) -> None:
        """Say that the service serves."""
        self._serves = True
        self._send("READY=1", _status("serves"))

    def turned(self, alive: bool) -> None:
        """Feed the watchdog, as long as a worker gives signs of life."""
        if self.watchdog_seconds is None:
            return
        if alive:
            self._send("WATCHDOG=1")
        elif self._serves and not self._starving:
            log.error("no sign of life from any worker: the watchdog is not fed", ends_after=self.watchdog_seconds)
        self._starving = not alive

    def reloading(self) -> None:
        """Say that a reload begins; its end is said whether it was accepted or refused."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def reloaded(self, outcome: Outcome) -> None:
        """Say what is in force now, and that the service goes on; before it first served, this must not say that it does."""
        force = f"serves generation {outcome.generation}"
        status = _status(force if outcome.ok else f"{force}; the last reload was refused: {outcome.text}")
        self._send(*(("READY=1", status) if self._serves else (status,)))

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1", _status("finishes what is in flight"))

    def _send(self, *assignments: str) -> None:
        """Send one datagram. Never raises: a service manager that is gone is no reason to stop serving."""
        if self.address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(SEND_SECONDS)
                sock.sendto("\n".join(assignments).encode(), self.address)
        except OSError as error:
            cause = error.strerror or str(error)
            log.warning("the service manager could not be told", what=assignments[0], cause=cause)


def _read_address(named: str) -> bytes | None:
    """Read a path or `@abstract-name`; anything else (vsock) is None."""
    if named.startswith("@") and len(named) > 1:
        return b"\0" + os.fsencode(named[1:])
    return os.fsencode(named) if named.startswith("/") else None


def _status(text: str) -> str:
    """Return the assignment of one line without control characters, which would be further assignments."""
    return "STATUS=" + "".join(c if c.isprintable() else " " for c in text)[:MAX_STATUS]
