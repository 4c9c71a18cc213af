"""Runs an operator's command: through a running server's admin socket, else in this process on the same store."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gateway.cli.options import CommandError, ExitCode, fail
from gateway.config.defaults import ADMIN_SOCKET
from gateway.config.document import read_document

TIMEOUT_SECONDS = 90.0
"""Longer than the longest operation: signing a CRL while another worker holds its lease."""


class AdminClient:
    """Speaks to whoever may change the state that a configuration file names."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def is_served(self) -> bool:
        """Whether a server runs; raises CommandError when its socket may not be used."""
        connection = connect(read_admin_socket(self._config))
        if connection is not None:
            connection.close()
        return connection is not None

    def get(self, path: str, **arguments: Any) -> Any:
        """Return the JSON answer of a question."""
        return self.call("GET", path, arguments)

    def post(self, path: str, **arguments: Any) -> Any:
        """Return the JSON answer of a command that changes something."""
        return self.call("POST", path, arguments)

    def call(self, method: str, path: str, arguments: Mapping[str, Any]) -> Any:
        """Run one operation; arguments that are None are left out. Raises CommandError with the refusal's sentence."""
        given = {name: value for name, value in arguments.items() if value is not None}
        connection = connect(read_admin_socket(self._config))
        if connection is None:
            return _run_here(self._config, method, path, given)
        status, body = _ask(connection, method, path, given)
        return _unwrap(status, body)


def read_admin_socket(config: Path) -> Path:
    """Return where the server of a configuration file listens for operators.

    Only this one field is read: an operator who may use the socket need not be able to read the secrets that the file names.
    """
    data = read_document(config.read_bytes()).data
    server = data.get("server") if isinstance(data, dict) else None
    written = server.get("admin_socket") if isinstance(server, dict) else None
    return config.absolute().parent / (written if isinstance(written, str) else ADMIN_SOCKET)


def quoted(part: str) -> str:
    """Return one part of a path."""
    return quote(part, safe="")


def connect(path: Path) -> socket.socket | None:
    """Return a connection to a running server, None when there is none. Raises CommandError when it may not be used."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_SECONDS)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        fail(f"The admin socket {path} cannot be used: {(error.strerror or str(error)).lower()}; root and its group may.")
    return sock


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket that is already connected."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self.sock = sock


def _ask(sock: socket.socket, method: str, path: str, arguments: Mapping[str, Any]) -> tuple[int, Any]:
    connection = _SocketConnection(sock)
    try:
        if method == "GET":
            target = f"{path}?{urlencode(arguments, doseq=True)}" if arguments else path
            connection.request(method, target)
        else:
            connection.request(method, path, json.dumps(arguments), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandError(f"The server broke off: {error or type(error).__name__}. Its log says why.") from error
    finally:
        connection.close()


def _run_here(config: Path, method: str, path: str, arguments: Mapping[str, Any]) -> Any:
    """Run the operation in this process; every write takes the store's lock, so that a server may start meanwhile."""
    from gateway.assemble import open_gateway
    from gateway.config.load import read
    from gateway.web.admin import AdminRequest
    from gateway.web.peer import describe_user

    parsed, sources = read(config)

    async def run() -> tuple[int, Any]:
        gateway = await open_gateway(parsed, sources, worker=f"cli:{secrets.token_hex(8)}", generation=0)
        try:
            answer = await gateway.operations.run(AdminRequest(method, path, arguments, describe_user(os.getuid())))
        finally:
            await gateway.close()
        return answer.status, answer.body

    return _unwrap(*asyncio.run(run()))


def _unwrap(status: int, body: Any) -> Any:
    if status == 200:
        return body
    message = body.get("error", "") if isinstance(body, dict) else ""
    raise CommandError(message or f"the server answered with status {status}", ExitCode.FAILED)
