"""Binds the listening sockets once, or takes over the service manager's, so that every worker inherits the same ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.config.fields import Address
from gateway.supervise.activation import Inherited

BACKLOG = 1024
MAX_UNIX_PATH = 107
"""Bytes in sockaddr_un.sun_path without the closing zero (unix(7))."""
ADMIN_MODE = 0o660


class BindError(Exception):
    """A listening socket cannot be had; the text is a sentence that says which and why."""


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """What is listened on; `https_mtls` and `monitoring` are None where they are not configured.

    `made` is the file of the admin socket where it was bound here, None where the service manager made it and keeps it.
    """

    http: socket.socket
    https: socket.socket
    admin: socket.socket
    https_mtls: socket.socket | None = None
    monitoring: socket.socket | None = None
    made: Path | None = None

    def __iter__(self) -> Iterator[socket.socket]:
        """Yield those that there are."""
        yield from self.for_workers()
        if self.monitoring is not None:
            yield self.monitoring

    def for_workers(self) -> tuple[socket.socket, ...]:
        """Return what workers inherit: all but `monitoring`, which the supervisor serves itself."""
        return tuple(sock for sock in (self.http, self.https, self.admin, self.https_mtls) if sock is not None)

    def close(self) -> None:
        """Close all; connections that workers accepted stay open, and what the service manager handed over stays bound."""
        for sock in self:
            sock.close()
        if self.made is not None:
            self.made.unlink(missing_ok=True)


def bind_all(
    http: Address,
    https: Address,
    admin: Path,
    https_mtls: Address | None = None,
    monitoring: Address | None = None,
    inherited: Inherited | None = None,
) -> ListeningSockets:
    """Take over what was handed over and bind the rest: all or none. Raises BindError and ActivationError."""
    given = inherited or Inherited()
    with ExitStack() as opened:
        opened.callback(given.close)

        def listen(name: str, address: Address, field: str) -> socket.socket:
            return _again(given.tcp(name, address, field)) or opened.enter_context(bind_tcp(address, field))

        operators = _again(given.unix(admin))
        sockets = ListeningSockets(
            http=listen("http", http, "server.http"),
            https=listen("https", https, "server.https.listen"),
            https_mtls=listen("https_mtls", https_mtls, "server.https_mtls.listen") if https_mtls else None,
            monitoring=listen("monitoring", monitoring, "server.monitoring") if monitoring else None,
            admin=operators or opened.enter_context(bind_unix(admin)),
            made=None if operators else admin,
        )
        if sockets.made is not None:
            opened.callback(sockets.made.unlink, missing_ok=True)
        given.require_all_used(sockets)
        opened.pop_all()
    return sockets


def _again(sock: socket.socket | None) -> socket.socket | None:
    """Give a socket that was handed over the backlog of our own: systemd's default is 128."""
    if sock is not None:
        sock.listen(BACKLOG)
    return sock


def bind_tcp(address: Address, field: str) -> socket.socket:
    """Listen on a TCP address; `field` is the configuration field to name in an error. Raises BindError."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BindError(f"{field}: the host of {address} cannot be resolved: {error.strerror}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(f"{field}: cannot listen on {address}: {_reason(error)}") from error
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Listen on a unix socket, mode 0660; one that a dead server left is replaced. Raises BindError."""
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise BindError(f"server.admin_socket: {path} is longer than the {MAX_UNIX_PATH} bytes that a socket's path may have")
    if _answers(path):
        raise BindError(f"server.admin_socket: another server answers on {path}")
    if path.exists() and not path.is_socket():
        raise BindError(f"server.admin_socket: {path} is no socket; remove it or name another place")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()
        _bind_with_mode(sock, path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(f"server.admin_socket: cannot listen on {path}: {_reason(error)}") from error
    return sock


def _bind_with_mode(sock: socket.socket, path: Path) -> None:
    """Bind under a mask, so that the socket is never open to others, not even for a moment."""
    before = os.umask(0o777 & ~ADMIN_MODE)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _answers(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
