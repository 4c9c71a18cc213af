"""Accepts connections under caps, before TLS or HTTP sees a byte, and leaves them to workers that hold fewer.

All workers wait on the same inherited socket. Whoever wakes first would take a connection that may last for hours, and one
worker would end up with most of them. So a worker that has just taken a connection goes away from the socket for a millisecond,
and so does one that holds more than its share when a connection waits. It stays when nobody else takes what waits: a worker
that stands still delays nobody for long.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.web.share import Other, Share

log = structlog.get_logger(__name__)

ACCEPTS_A_TURN = 32
"""Connections taken from the kernel in one turn of the loop, so that open ones are served meanwhile."""
PAUSE_WITHOUT_DESCRIPTORS = 1.0
"""Seconds until accepting is tried again when the process is out of file descriptors or memory."""
LEAVE_SECONDS = 0.001
"""How long a worker that holds more than its share, or has just taken a connection, is away from the socket."""
LEAVES = 24
"""How many times in a row a connection is left to a worker that takes none."""
INSIST_SECONDS = 1.0
"""How long nothing is left to others after one of them took nothing."""
LEAVES_SAVED = 512
"""How many times a worker may be away in a short time: enough for clients that keep what they open, and open much at once."""
LEAVES_A_SECOND = 16.0
"""How often it may be away all the time: where each request has a connection of its own, being away only costs time."""
TLS_HANDSHAKE_SECONDS = 10.0
TLS_SHUTDOWN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ConnectionCaps:
    """Open connections of one worker, over all its listeners."""

    total: int
    per_address: int


class Admission:
    """Counts open connections, in all and by address, and tells the other workers."""

    def __init__(self, caps: ConnectionCaps, share: Share | None = None) -> None:
        self._caps = caps
        self.share = share or Share.alone()
        self._by_address: dict[str, int] = {}
        self._waiting: list[Callable[[], None]] = []
        self.total = 0
        self.refused = 0

    @property
    def is_full(self) -> bool:
        """Whether no further connection is taken from the kernel; another worker may take it."""
        return self.total >= self._caps.total

    def enter(self, address: str) -> bool:
        """Count one connection; False when its address has as many as it may have."""
        count = self._by_address.get(address, 0)
        if count >= self._caps.per_address:
            self.refused += 1
            return False
        self._by_address[address] = count + 1
        self.total += 1
        self.share.enter()
        return True

    def leave(self, address: str) -> None:
        """Count one connection less, and wake the listeners that waited for it."""
        self.total -= 1
        self.share.leave()
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def when_free(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the next connection ends."""
        self._waiting.append(wake)


class CountedConnection(asyncio.Protocol):
    """Hands everything to the HTTP protocol and gives the connection's place back when it is lost."""

    __slots__ = ("_inner", "_release")

    def __init__(self, inner: asyncio.Protocol, release: Callable[[], None]) -> None:
        self._inner = inner
        self._release = release

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on."""
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on and give the place back."""
        self._release()
        self._inner.connection_lost(error)


class Courtesy:
    """Decides when the connections that wait are left to other workers; times are the event loop's."""

    __slots__ = ("_counted_at", "_insists_until", "_left", "_other", "_run", "_share", "_times")

    def __init__(self, share: Share) -> None:
        self._share = share
        self._other: Other | None = None
        self._times = 0
        self._run = 1
        self._insists_until = 0.0
        self._left = float(LEAVES_SAVED)
        self._counted_at = 0.0

    def leaves_first(self, now: float) -> bool:
        """Whether to go away from the socket, on which a connection waits, because others hold fewer."""
        if now < self._insists_until:
            return False
        other = self._share.less_loaded()
        if other != self._other:
            # Nobody or somebody else now, or one that took what was left to it.
            self._other, self._times = other, 0
        if other is None:
            return False
        if self._times == LEAVES:
            self._times, self._insists_until = 0, now + INSIST_SECONDS
            return False
        self._times += 1
        return self._affords(now)

    def leaves_after(self, taken: int, now: float) -> bool:
        """Whether to go away after so many connections were taken at once: others hold fewer now, or may soon.

        When many connections end and begin in one moment, others have not yet counted down what ended. They get the time to.
        """
        if now < self._insists_until:
            return False
        if taken < max(self._run, self._share.tolerance) and self._share.less_loaded() is None:
            return False
        return self._share.has_others() and self._affords(now)

    def returns(self, *, somebody_waits: bool) -> None:
        """Take more at once than the last time when others do not keep up, and begin anew when they do."""
        if somebody_waits:
            self._run = min(2 * self._run, ACCEPTS_A_TURN)
        else:
            self._run, self._times = 1, 0

    def _affords(self, now: float) -> bool:
        self._left = min(LEAVES_SAVED, self._left + (now - self._counted_at) * LEAVES_A_SECOND)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Listener:
    """One listening socket, inherited or bound by the caller; it stays the caller's."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        admission: Admission,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`tls` returns the context in force; it is asked once a connection, when it is accepted."""
        self._sock = sock
        self._protocol = protocol
        self._admission = admission
        self._tls = tls
        self._courtesy = Courtesy(admission.share)
        self._waiting = select.poll()
        self._waiting.register(sock, select.POLLIN)
        self._stopped = False
        self._handshakes: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to accept; needs a running loop."""
        self._sock.setblocking(False)
        self._resume()

    def stop(self) -> None:
        """Accept no more; open connections are not touched."""
        self._stopped = True
        self._admission.share.withdraw()
        self._pause()

    @property
    def is_connecting(self) -> bool:
        """Whether connections were accepted that HTTP does not know yet."""
        return bool(self._handshakes)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        if self._courtesy.leaves_first(loop.time()):
            self._leave()
            return
        for number in range(1, ACCEPTS_A_TURN + 1):
            if self._admission.is_full:
                self._pause()
                self._admission.when_free(self._resume)
                return
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.warning("connections cannot be accepted for a second", cause=error.strerror)
                self._pause()
                self._admission.share.withdraw()
                loop.call_later(PAUSE_WITHOUT_DESCRIPTORS, self._resume)
                return
            self._admit(connection, address[0] if isinstance(address, tuple) else "")
            if self._courtesy.leaves_after(number, loop.time()):
                self._leave()
                return

    def _admit(self, connection: socket.socket, address: str) -> None:
        if not self._admission.enter(address):
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._connect(connection, address))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _connect(self, connection: socket.socket, address: str) -> None:
        """Give the connection to HTTP, after the TLS handshake if there is one."""
        place = _Place(self._admission, address)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: CountedConnection(self._protocol(), place.release),
                connection,
                ssl=self._tls() if self._tls else None,
                ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS if self._tls else None,
            )
        except (OSError, ssl.SSLError) as error:
            connection.close()
            place.release()
            log.debug("a connection was lost in its handshake", source=address, cause=str(error))
        except BaseException:
            connection.close()
            place.release()
            raise

    def _pause(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)

    def _leave(self) -> None:
        self._pause()
        asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._return)

    def _return(self) -> None:
        self._courtesy.returns(somebody_waits=bool(self._waiting.poll(0)))
        self._resume()

    def _resume(self) -> None:
        if not self._stopped:
            self._admission.share.offer()
            asyncio.get_running_loop().add_reader(self._sock, self._accept)


class _Place:
    """One counted connection, given back once."""

    __slots__ = ("_address", "_admission", "_held")

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self._address = address
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._admission.leave(self._address)
