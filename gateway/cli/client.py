"""Runs an operator's command: through a running server's admin socket, else in this process on the same store."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gateway.cli.options import ADMIN_SOCKET_VARIABLE, CommandError, ExitCode, fail
from gateway.config.defaults import ADMIN_SOCKET
from gateway.config.document import MAX_BYTES, read_document

WRONG_ARGUMENT = frozenset({"unknown_profile", "policy_subject", "policy_san"})
"""Reasons that are the command line's own fault: a profile that is not there, a name that cannot be read."""
_WRITTEN = re.compile(
    r"""^[^#\n]*?\badmin_socket["']?[ \t]*:[ \t]+(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"',{}\[\]#](?:[^\n,}\]#]|(?<=\S)\#)*))""",
    re.MULTILINE,
)
_NAME = re.compile(r"[A-Za-z0-9:._-]{1,256}")
BROKE_OFF = "broke_off"
"""The reason where a connection ended without an answer: the command may have been carried out, or not."""
TIMEOUT_SECONDS = 90.0
"""Longer than the longest operation: signing a CRL while another worker holds its lease."""


class AdminClient:
    """Speaks to whoever may change the state that a configuration file names."""

    def __init__(self, config: Path, admin_socket: Path | None = None, *, patience: float = TIMEOUT_SECONDS) -> None:
        """`admin_socket` goes before what the file says; `patience` is how many seconds a server may take to answer."""
        self._config = config
        self._admin_socket = admin_socket
        self._patience = patience

    def is_served(self) -> bool:
        """Whether a server runs; raises CommandError when its socket may not be used."""
        connection = connect(read_admin_socket(self._config, self._admin_socket))
        if connection is not None:
            connection.close()
        return connection is not None

    def get(self, path: str, **arguments: Any) -> Any:
        """Return the JSON answer of a question."""
        return self.call("GET", path, arguments)

    def post(self, path: str, **arguments: Any) -> Any:
        """Return the JSON answer of a command that changes something."""
        return self.call("POST", path, arguments)

    def create(self, path: str, **wanted: Any) -> dict[str, Any]:
        """Have something made and return it; what the profile refuses (a lifetime, say) is a usage error."""
        try:
            made: dict[str, Any] = self.post(path, **wanted)
        except CommandError as error:
            if error.reason != "denied":
                raise
            fail(str(error), ExitCode.USAGE)
        return made

    def list_of(self, path: str, *, profile: str | None, **filters: Any) -> list[dict[str, Any]]:
        """Return rows of one profile, or of all; that there is no such profile is a usage error."""
        rows: list[dict[str, Any]] = self.get(path, profile=profile, **filters)
        if not rows:
            require_profile(self, profile)
        return rows

    def call(self, method: str, path: str, arguments: Mapping[str, Any]) -> Any:
        """Run one operation; arguments that are None are left out. Raises CommandError with the refusal's sentence."""
        given = {name: value for name, value in arguments.items() if value is not None}
        connection = connect(read_admin_socket(self._config, self._admin_socket))
        if connection is None:
            return _run_here(self._config, method, path, given)
        connection.settimeout(self._patience)
        status, body = _ask(connection, method, path, given)
        return _unwrap(status, body)


def require_server(config: Path, admin_socket: Path | None = None) -> None:
    """End the command unless a server runs for this configuration file; one that cannot even be read is said to be so."""
    place = read_admin_socket(config, admin_socket)
    connection = connect(place)
    if connection is not None:
        connection.close()
        return
    elsewhere = f"No server answers at {place}; --admin-socket names another place."
    try:
        document = read_document(config.read_bytes())
    except OSError as error:
        fail(f"{config}: {error.strerror}\n{elsewhere}", ExitCode.CONFIGURATION)
    if document.data is None and document.problems:
        problems = "\n".join(f"{config}: {problem.sentence}" for problem in document.problems)
        fail(f"{problems}\n{elsewhere}", ExitCode.CONFIGURATION)
    fail(f"No server answers at {place}.")


def read_admin_socket(config: Path, given: Path | None = None) -> Path:
    """Return where the server of a configuration file listens for operators; `given` is what the command line says.

    Only this one field is read: an operator who may use the socket need not be able to read the secrets that the file names.
    A file that is broken, or gone, keeps nobody from a server that runs on with what it accepted before: it must hear of the
    failed reload, and revoke what has to be revoked now.
    """
    named = given or os.environ.get(ADMIN_SOCKET_VARIABLE)
    if named:
        return Path(named).absolute()
    try:
        text = config.read_bytes()
    except OSError:
        text = b""
    data = read_document(text).data
    server = data.get("server") if isinstance(data, dict) else None
    written = server.get("admin_socket") if isinstance(server, dict) else _scan(text)
    return config.absolute().parent / (written if isinstance(written, str) else ADMIN_SOCKET)


def _scan(text: bytes) -> str | None:
    """Return what a broken file says of the admin socket, as far as that can be told from one line."""
    found = _WRITTEN.search(text[:MAX_BYTES].decode("utf-8", "replace"))
    return next((value.strip() for value in found.groups() if value), None) if found else None


def quoted(name: str) -> str:
    """Return an ID, serial or fingerprint as one part of a path; any other text is a usage error."""
    if not _NAME.fullmatch(name):
        fail(f"{name!r} is no ID, serial or fingerprint.", ExitCode.USAGE)
    return quote(name, safe="")


def require_profile(client: AdminClient, name: str | None) -> None:
    """End the command as a usage error when no such profile is in force."""
    known = client.get("/v1/status")["profiles"] if name is not None else ()
    if name is not None and name not in known:
        fail(f"There is no profile {name}; there are: {', '.join(known)}.", ExitCode.USAGE)


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
        super().__init__("localhost", timeout=sock.gettimeout())
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
        said = f"The server broke off: {error or type(error).__name__}. Its log says why."
        raise CommandError(said, reason=BROKE_OFF) from error
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
    said = body if isinstance(body, dict) else {}
    message, reason = said.get("error", ""), said.get("reason", "")
    code = ExitCode.USAGE if status == 400 or reason in WRONG_ARGUMENT else ExitCode.FAILED
    raise CommandError(message or f"the server answered with status {status}", code, reason)
