"""Connects to hosts that clients name: resolved once, judged, then by address, IPv6 before one try by IPv4 (RFC 8555 §10.4)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import structlog

from gateway.errors import Reason
from gateway.validation.addresses import Address, AddressPolicy, canonical
from gateway.validation.interfaces import ValidationFailed
from gateway.validation.resolve import Resolver, is_host_name

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
"""How long one address is tried."""
HANDSHAKE_SECONDS = 8.0
MAX_LINE = 16384
"""Longest line that is read."""

_KEPT_FOR = 60.0
_LOOK_UP_SECONDS = 3.0


class ValidationRoom:
    """What no profile connects to unasked: hosts of this gateway and of its CAs, by name or address, looked up once a minute."""

    def __init__(self, refused_hosts: Iterable[str] = ()) -> None:
        hosts = [host.strip("[]").lower() for host in refused_hosts]
        self._literal = frozenset(canonical(a) for a in map(as_address, hosts) if a is not None)
        self._names = tuple(sorted({host for host in hosts if host and as_address(host) is None}))
        self._found: dict[str, frozenset[Address]] = {}
        self._until = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def refused(self) -> frozenset[Address]:
        """Return their addresses as this machine resolves them; what was found last counts where that fails."""
        if self._names and time.monotonic() >= self._until:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_all_up(), name="refused-hosts")
            # Whoever comes meanwhile waits as well: without an answer nothing would be refused.
            await asyncio.shield(self._looking)
        return self._literal.union(*self._found.values())

    async def _look_all_up(self) -> None:
        try:
            await asyncio.gather(*map(self._look_up, self._names))
            self._until = time.monotonic() + _KEPT_FOR
        finally:
            self._looking = None

    async def _look_up(self, name: str) -> None:
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            return
        self._found[name] = frozenset(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection, and the address that it goes to."""

    address: Address
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter = field(repr=False)


class Reach:
    """Connects as one profile may."""

    def __init__(self, resolver: Resolver, policy: AddressPolicy, room: ValidationRoom) -> None:
        self._resolver = resolver
        self._policy = policy
        self._room = room

    async def candidates(self, host: str) -> tuple[Address, ...]:
        """Return the addresses of a host that may be tried: one IPv6 and one IPv4 at most, in this order.

        Raises ValidationFailed VALIDATION_DNS, and VALIDATION_CONNECTION where none may be connected to.
        """
        literal = as_address(host)
        if literal is None and not is_host_name(host):
            raise ValidationFailed(Reason.VALIDATION_CONNECTION, "this is neither a host name nor an IP address")
        addresses = (literal,) if literal is not None else await self._resolver.addresses(host)
        refused = await self._room.refused()
        permitted: list[Address] = []
        objections: list[str] = []
        for address in addresses:
            why = self._policy.objection(address, refused)
            if why is None:
                permitted.append(canonical(address))
            else:
                objections.append(f"{address}: {why}")
        six = [address for address in permitted if address.version == 6]
        four = [address for address in permitted if address.version == 4]
        if not permitted:
            cause = f"{host}: {'; '.join(objections[:5])}"
            raise ValidationFailed(
                Reason.VALIDATION_CONNECTION, f"no address of {host} may be connected to by this profile", cause
            )
        return (*six[:1], *four[:1])

    @asynccontextmanager
    async def connect(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> AsyncIterator[Connection]:
        """Connect to a host; the IPv4 address is tried only where the IPv6 one could not be connected to.

        Raises ValidationFailed: VALIDATION_DNS, VALIDATION_CONNECTION, VALIDATION_TLS.
        """
        address, sock = await self._dial(await self.candidates(host), host, port)
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock,
                limit=MAX_LINE,
                ssl=tls,
                server_hostname=(server_name or host) if tls else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            )
        except ssl.SSLError as error:
            sock.close()
            text = f"TLS with {address} port {port} failed"
            raise ValidationFailed(Reason.VALIDATION_TLS, text, f"{text}: {error.reason}") from None
        except (OSError, EOFError) as error:
            sock.close()
            reason = Reason.VALIDATION_TLS if tls else Reason.VALIDATION_CONNECTION
            text = f"the connection to {address} port {port} ended before it could be used"
            raise ValidationFailed(reason, text, f"{text}: {type(error).__name__}") from None
        except BaseException:
            sock.close()
            raise
        try:
            yield Connection(address, reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _dial(self, addresses: tuple[Address, ...], host: str, port: int) -> tuple[Address, socket.socket]:
        text, cause = "", ""
        for address in addresses:
            try:
                return address, await _open(address, port)
            except TimeoutError:
                text = f"{address} port {port} could not be connected to: no answer"
                cause = f"{host}: {text}"
            except OSError as error:
                text = f"{address} port {port} could not be connected to"
                cause = f"{host}: {text}: {error.strerror}"
        raise ValidationFailed(Reason.VALIDATION_CONNECTION, text, cause)


async def _open(address: Address, port: int) -> socket.socket:
    """Return a connected socket; raises OSError, TimeoutError among them."""
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


def as_address(host: str) -> Address | None:
    """Return a host as the IP address that it is written as; None for names, and for addresses with a zone."""
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def unverified(alpn: str | None = None) -> ssl.SSLContext:
    """Return a context of TLS 1.2 or newer that believes any certificate: it is not the certificate that proves anything yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context
