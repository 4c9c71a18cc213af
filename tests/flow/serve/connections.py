"""Keep-alive connections to a running server, and who holds the other end of each (proc(5), /proc/net/tcp)."""

import re
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.conftest import RunningServer

CAPS = b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ESTABLISHED = "01"


class LostError(Exception):
    """A request got no answer."""


class Connection:
    """One connection that is kept open; `is_last` once the server has said that it closes it."""

    def __init__(self, server: RunningServer) -> None:
        self._sock = socket.create_connection(("127.0.0.1", server.http_port), timeout=20)
        self.port = int(self._sock.getsockname()[1])
        self.is_last = False

    def ask(self, request: bytes = CAPS) -> bytes:
        """Send a request and return the body of its answer. Raises LostError when there is none."""
        try:
            self._sock.sendall(request)
            return self._read()
        except OSError as error:
            raise LostError(str(error)) from error

    def _read(self) -> bytes:
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = bytes(data).partition(b"\r\n\r\n")
        self.is_last = b"\r\nconnection: close" in head.lower()
        found = LENGTH.search(head)
        assert found is not None, head
        body = bytearray(rest)
        while len(body) < int(found[1]):
            body += self._receive()
        return bytes(body)

    def _receive(self) -> bytes:
        data = self._sock.recv(65536)
        if not data:
            raise LostError("closed without an answer")
        return data

    def end(self) -> None:
        """Close in order: returns when the server has closed too."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while self._sock.recv(65536):
                pass
        self._sock.close()


def held_by(server: RunningServer, workers: set[int], connections: list[Connection]) -> Counter[int]:
    """Return how many of the connections each worker holds, by process ID."""
    inodes = _inodes(server.http_port)
    wanted = {f"socket:[{inodes.get(connection.port)}]" for connection in connections}
    held = Counter(dict.fromkeys(workers, 0))
    for worker in workers:
        for descriptor in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(FileNotFoundError):
                held[worker] += str(descriptor.readlink()) in wanted
    return held


def _inodes(port: int) -> dict[int, str]:
    """Return the socket inode of the server's end, by the client's port."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, state = int(fields[1].partition(":")[2], 16), int(fields[2].partition(":")[2], 16), fields[3]
        if (local, state) == (port, ESTABLISHED):
            found[remote] = fields[9]
    return found
