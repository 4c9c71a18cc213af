"""OpenSSL's CMP mock server, in a network namespace of its own since it binds all addresses; one port leads there.

It checks protection and proof of possession, and answers every request with one certificate that was made before.
"""

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
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.interfaces import IssueRequest
from gateway.ca.local import CaUrls
from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, pem_to_ders
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.peers.scepserver import RELAY, is_possible

__all__ = ["SECRET", "CmpPeer", "is_possible", "running"]

SECRET = "s3cret-of-the-two-of-us"
REFERENCE = "gateway"
PORT = 18090
START_SECONDS = 20.0


@dataclass(frozen=True)
class CmpPeer:
    """The running server, and what the gateway needs to ask it."""

    folder: Path
    port: int
    certificate: bytes
    """What every request gets, DER."""

    def section(self, url: str | None = None, *, by: str = "signature", **more: Any) -> dict[str, Any]:
        """Return the section of the configuration, with absolute paths; `url` is that of a proxy before it."""
        pair = {"certificate": str(self.folder / "gateway.pem"), "key": {"file": str(self.folder / "gateway.key")}}
        secret = {"type": "secret", "reference": REFERENCE, "secret": {"file": str(self.folder / "secret")}}
        return {
            "type": "cmp",
            "url": url or f"http://127.0.0.1:{self.port}",
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "auth": {"type": "signature", "signer": pair} if by == "signature" else secret,
            **more,
        }

    def log(self) -> str:
        """Return what the server said so far."""
        return (self.folder / "log").read_text()


@contextmanager
def running(folder: Path, request: IssueRequest, *options: str, by: str = "signature") -> Iterator[CmpPeer]:
    """Serve what answers one request with what was granted; `by` is how it protects its answers."""
    program = shutil.which("openssl")
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    certificate = _write(folder, request)
    protection = (
        ("-srv_cert", "server.pem", "-srv_key", "server.key", "-srv_trusted", "root.pem", "-srv_untrusted", "issuing.pem")
        if by == "signature"
        else ("-srv_ref", "server", "-srv_secret", f"file:{folder / 'secret'}")
    )
    answers = ("-rsp_cert", "leaf.pem", "-rsp_extracerts", "issuing.pem")
    command = (program, "cmp", "-config", "", "-port", str(PORT), *protection, *answers, *options)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, (folder / "log").open("ab") as log:
        os.set_inheritable(listener.fileno(), True)
        shell = f'ip link set lo up && {" ".join(map(_quoted, command))} & exec "$@"'
        relay = [sys.executable, "-c", RELAY, str(listener.fileno()), str(PORT)]
        process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", shell, "sh", *relay],
            cwd=folder,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        peer = CmpPeer(folder, listener.getsockname()[1], certificate)
        try:
            _wait(peer)
            yield peer
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _write(folder: Path, request: IssueRequest) -> bytes:
    """Write a hierarchy, both sides' certificates and the answer; return the answer, DER."""
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    for name in ("server", "gateway"):
        key = generate_private_key("ec-p256")
        (folder / f"{name}.pem").write_bytes(der_to_pem(_certify(hierarchy, public_key_der(key), authority(f"CN={name}"))))
        _secret(folder / f"{name}.key", serialize_private_key(key))
    _secret(folder / "secret", SECRET.encode())
    leaf = _certify(hierarchy, request.public_key, request.grant)
    (folder / "leaf.pem").write_bytes(der_to_pem(leaf))
    return leaf


def authority(subject: str) -> Grant:
    """What a registration authority's certificate says."""
    now = datetime.now(UTC).replace(microsecond=0)
    dates = (now - timedelta(hours=1), now + timedelta(days=30))
    return Grant(parse_name_text(subject).der, (), ("digitalSignature",), (eku_oid("cmcRA"),), *dates)


def _certify(hierarchy: Hierarchy, public_key: bytes, grant: Grant) -> bytes:
    issuer = Issuer.from_certificate(pem_to_ders(hierarchy.issuing.certificate)[0], load_private_key(hierarchy.issuing.key))
    return build_certificate(issuer, new_serial(), grant, public_key)


def _secret(path: Path, data: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(data)


def _wait(peer: CmpPeer) -> None:
    """Return when it listens: whatever it says to a request that is none."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", peer.port, timeout=5)) as connection:
            connection.request("GET", "/pkix/")
            connection.getresponse()
            return
        time.sleep(0.1)
    raise AssertionError(f"the mock server did not come up:\n{peer.log()}")
