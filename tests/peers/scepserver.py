"""Debian's scepserver (micromdm 2.1.0), in a network namespace of its own since it binds all addresses; one port leads there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import self_signed_signer

CHALLENGE = "s3cret-of-the-plant"
PORT = 18080
START_SECONDS = 20.0
# accepts here, in the namespace that the socket was made in, and connects there
RELAY = """
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    here, _ = listener.accept()
    try:
        there = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    except OSError:
        here.close()
        continue
    for pair in ((here, there), (there, here)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
_START = (
    f'ip link set lo up && scepserver -depot depot -port {PORT} -challenge {CHALLENGE} -allowrenew 0 -crtvalid 30 & exec "$@"'
)
"""It asks for no more than a challenge, issues at once, knows no CertPoll and gives every PKCSReq a certificate."""


def is_possible() -> bool:
    """Say whether this user may make network namespaces."""
    return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class ScepPeer:
    """The running server."""

    folder: Path
    port: int

    def section(self, url: str | None = None, **more: Any) -> dict[str, Any]:
        """Return the section of the configuration, with absolute paths; `url` is that of a proxy before it."""
        pair = {"certificate": str(self.folder / "signer.pem"), "key": {"file": str(self.folder / "signer.key")}}
        return {
            "type": "scep",
            "url": f"{url or f'http://127.0.0.1:{self.port}'}/scep",
            "chain": [str(self.folder / "depot" / "ca.pem")],
            "signer": pair,
            "challenge": {"file": str(self.folder / "challenge")},
            **more,
        }

    def issued(self, public_key: bytes | None = None) -> list[bytes]:
        """Return all certificates that it signed, DER, or those of one key (SubjectPublicKeyInfo)."""
        paths = [path for path in sorted((self.folder / "depot").glob("*.pem")) if path.name != "ca.pem"]
        found = [pem_to_ders(path.read_bytes())[0] for path in paths]
        return [one for one in found if public_key in (None, parse_certificate(one).public_key.der)]


@contextmanager
def running(folder: Path) -> Iterator[ScepPeer]:
    """Serve a new CA from `folder`."""
    program = shutil.which("scepserver")
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "ca", "-init"], cwd=folder, capture_output=True, check=True, timeout=60)
    key = generate_private_key("rsa-2048")
    now = datetime.now(UTC)
    signer = self_signed_signer(key, parse_name_text("CN=gateway").der, now - timedelta(hours=1), now + timedelta(days=30))
    (folder / "signer.pem").write_bytes(der_to_pem(signer.certificate))
    for name, data in (("signer.key", serialize_private_key(key)), ("challenge", CHALLENGE.encode())):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(data)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, (folder / "log").open("ab") as log:
        os.set_inheritable(listener.fileno(), True)
        command = ["unshare", "-n", "sh", "-c", _START, "sh", sys.executable, "-c", RELAY, str(listener.fileno()), str(PORT)]
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, pass_fds=[listener.fileno()], start_new_session=True
        )
        peer = ScepPeer(folder, listener.getsockname()[1])
        try:
            _wait(peer)
            yield peer
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait(peer: ScepPeer) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with suppress(OSError, ConnectionError), closing(HTTPConnection("127.0.0.1", peer.port, timeout=5)) as connection:
            connection.request("GET", "/scep?operation=GetCACaps")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"scepserver did not come up:\n{(peer.folder / 'log').read_text()}")
