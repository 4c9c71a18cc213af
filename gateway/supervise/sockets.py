"""Binds the listening sockets once, so that every worker inherits the same ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.config.fields import Address

BACKLOG = 1024
MAX_UNIX_PATH = 107
"""Bytes in sockaddr_un.sun_path without the closing zero (unix(7))."""
ADMIN_MODE = 0o660


class BindError(Exception):
    """A listening socket cannot be had; the text is a sentence that says which and why."""


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """What every worker inherits; `https_mtls` is None where it is not configured."""

    http: socket.socket
    https: socket.socket
    admin: socket.socket
    https_mtls: socket.socket | None = None

    def __iter__(self) -> Iterator[socket.socket]:
        """Yield those that there are."""
        return (sock for sock in (self.http, self.https, self.admin, self.https_mtls) if sock is not None)

    def close(self) -> None:
        """Close all; connections that workers accepted stay open."""
        for sock in self:
            sock.close()


def bind_all(http: Address, https: Address, admin: Path, https_mtls: Address | None = None) -> ListeningSockets:
    """Bind all or none. Raises BindError."""
    with ExitStack() as opened:
        sockets = ListeningSockets(
            http=opened.enter_context(bind_tcp(http, "server.http")),
            https=opened.enter_context(bind_tcp(https, "server.https.listen")),
            https_mtls=opened.enter_context(bind_tcp(https_mtls, "server.https_mtls.listen")) if https_mtls else None,
            admin=opened.enter_context(bind_unix(admin)),
        )
        opened.pop_all()
    return sockets


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
