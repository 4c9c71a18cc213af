"""Takes over listening sockets that the service manager opened (sd_listen_fds(3), systemd.socket(5))."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.fields import Address

LISTEN_PID = "LISTEN_PID"
LISTEN_FDS = "LISTEN_FDS"
LISTEN_FDNAMES = "LISTEN_FDNAMES"
FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""
LISTENERS = ("http", "https", "https_mtls", "monitoring", "admin")
"""Names for FileDescriptorName=; a socket with any other name is known by its address."""


class ActivationError(Exception):
    """Sockets that were handed over are not what is configured; the text is a sentence that says which and why."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """Listening sockets that were handed over: by listener, and those whose name says nothing."""

    named: Mapping[str, socket.socket] = field(default_factory=dict)
    others: tuple[socket.socket, ...] = ()

    def __iter__(self) -> Iterator[socket.socket]:
        """Yield all."""
        yield from self.named.values()
        yield from self.others

    def tcp(self, listener: str, address: Address, name: str) -> socket.socket | None:
        """Return the socket for a TCP listener, None when none was handed over; `name` is the field that says the address.

        Raises ActivationError when one of this listener's name listens elsewhere.
        """
        found = self.named.get(listener)
        if found is None:
            # Where the configuration leaves the port open, an address alone says nothing.
            return next((sock for sock in self.others if address.port and _is_at(sock, address)), None)
        if not _is_at(found, address):
            raise ActivationError(_disagreement(name, listener, found, address))
        return found

    def unix(self, path: Path) -> socket.socket | None:
        """Return the socket for operators, None when none was handed over.

        Raises ActivationError when it is another one than configured, or when everybody may use it.
        """
        found = self.named.get("admin") or next((sock for sock in self.others if _is_path(sock, path)), None)
        if found is None:
            return None
        if not _is_path(found, path):
            raise ActivationError(_disagreement("server.admin_socket", "admin", found, path))
        if _is_open_to_all(path):
            raise ActivationError(f"server.admin_socket: everybody may use {path}: say SocketMode=0660 in the socket unit")
        return found

    def require_all_used(self, used: Iterable[socket.socket]) -> None:
        """Raise ActivationError when a socket was handed over for which there is no listener: its clients would wait for ever."""
        taken = set(used)
        for sock in self:
            if sock not in taken:
                raise ActivationError(
                    f"the service manager hands over a socket on {_shown(sock)}, and the configuration has no such listener: "
                    "take it out of the socket unit, or configure it"
                )

    def close(self) -> None:
        """Close all; the service manager keeps its own."""
        for sock in self:
            sock.close()


def take_inherited(environ: MutableMapping[str, str] = os.environ, pid: int | None = None) -> Inherited:
    """Take over what was handed to this process, and take it out of the environment, so that no child takes it for its own.

    Raises ActivationError for anything but listening stream sockets and for two of one name.
    """
    for_pid, count, names = (environ.pop(name, "") for name in (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES))
    if for_pid != str(os.getpid() if pid is None else pid) or not (count.isascii() and count.isdigit()):
        return Inherited()
    return adopt(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)), names.split(":"))


def adopt(descriptors: Iterable[int], names: Iterable[str]) -> Inherited:
    """Take over listening sockets by their descriptors and names. Raises ActivationError; then none stays open."""
    named: dict[str, socket.socket] = {}
    others: list[socket.socket] = []
    given = iter(names)
    with ExitStack() as opened:
        for descriptor in descriptors:
            sock = opened.enter_context(_adopt_one(descriptor))
            name = next(given, "")
            if name not in LISTENERS:
                others.append(sock)
            elif named.setdefault(name, sock) is not sock:
                raise ActivationError(f"the service manager hands over two sockets named {name}; one listener has one socket")
        opened.pop_all()
    return Inherited(named, tuple(others))


def _adopt_one(descriptor: int) -> socket.socket:
    wrong = ActivationError(f"descriptor {descriptor} of the service manager is no listening stream socket: Accept= must be no")
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise wrong from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise wrong
    return sock


def _is_at(sock: socket.socket, address: Address) -> bool:
    """Say whether a socket listens where the configuration says; port 0 leaves the port open."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    host, port = sock.getsockname()[:2]
    if address.port not in {0, port}:
        return False
    try:
        found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return any(family == sock.family and where[0] == host for family, _, _, _, where in found)


def _is_path(sock: socket.socket, path: Path) -> bool:
    """Say whether a socket is the one at a path: folders may be named by symbolic links, as /var/run is."""
    if sock.family != socket.AF_UNIX:
        return False
    name = sock.getsockname()
    return isinstance(name, str) and name.startswith("/") and Path(name).resolve() == path.resolve()


def _is_open_to_all(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO)
    except OSError as error:
        raise ActivationError(f"server.admin_socket: {path} is handed over and not there: restart the socket unit") from error


def _disagreement(name: str, listener: str, sock: socket.socket, configured: Address | Path) -> str:
    return (
        f"{name}: the service manager hands over {_shown(sock)} as {listener}, the configuration says {configured}: "
        "make socket unit and configuration agree"
    )


def _shown(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return str(Address(name[0], name[1]))
    return os.fsdecode(name) or "no path"
