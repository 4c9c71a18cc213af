"""A real cfssl, Debian's or another, on loopback, with a database of its own."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.conftest import free_port

PROGRAM, PACKAGE = "cfssl", "golang-cfssl"
AUTH_KEY = "00112233445566778899aabbccddeeff"
START_SECONDS = 30.0
TABLES = """\
CREATE TABLE certificates (
  serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, ca_label blob, status blob NOT NULL, reason int,
  expiry timestamp, revoked_at timestamp, pem blob NOT NULL,
  issued_at timestamp, not_before timestamp, metadata blob, sans blob, common_name blob,
  PRIMARY KEY(serial_number, authority_key_identifier)
);
CREATE TABLE ocsp_responses (
  serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, body blob NOT NULL, expiry timestamp,
  PRIMARY KEY(serial_number, authority_key_identifier)
);
"""
USAGES = ["digital signature", "server auth", "client auth"]
SIGNING = {
    "default": {"usages": ["digital signature", "client auth"], "expiry": "8h"},
    "profiles": {
        "devices": {"usages": USAGES, "expiry": "720h", "backdate": "1m"},
        "guarded": {"usages": USAGES, "expiry": "720h", "backdate": "1m", "auth_key": "gateway"},
    },
}


@dataclass
class CfsslPeer:
    """A running cfssl; its profiles are `devices` and `guarded`, which wants an auth key."""

    program: str
    folder: Path
    hierarchy: Hierarchy
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Issuing CA and root, DER."""
        return (*pem_to_ders(self.hierarchy.issuing.certificate), *pem_to_ders(self.hierarchy.root.certificate))

    def section(self, profile: str = "devices", url: str | None = None, **more: object) -> dict[str, Any]:
        """Return the section of the configuration, with absolute paths; `url` is that of a proxy before it."""
        return {
            "type": "cfssl",
            "url": url or self.url,
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "profile": profile,
            **({"auth_key": {"file": str(self.folder / "auth-key")}} if profile == "guarded" else {}),
            **more,
        }

    def rows(self) -> list[tuple[str, bytes]]:
        """Return status and certificate, DER, of all that it signed."""
        with closing(sqlite3.connect(self.folder / "certs.db")) as database:
            found = database.execute("SELECT status, pem FROM certificates").fetchall()
        return [(_text(status), pem_to_ders(_text(pem).encode())[0]) for status, pem in found]

    def issued(self, public_key: bytes | None = None) -> list[bytes]:
        """Return all certificates that it signed, DER, or those of one key (SubjectPublicKeyInfo)."""
        return [der for _, der in self.rows() if public_key in (None, parse_certificate(der).public_key.der)]

    def start(self) -> None:
        """Start it, or start it again."""
        files = {"ca": "issuing.pem", "ca-key": "issuing.key", "config": "config.json", "db-config": "db.json"}
        arguments = [part for name, file in files.items() for part in (f"-{name}", str(self.folder / file))]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", "-address", "127.0.0.1", "-port", str(self.port), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError(f"cfssl does not run:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; its database stays."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def _answers(self) -> bool:
        done = subprocess.run(["curl", "-sf", "-d", "{}", f"{self.url}/api/v1/cfssl/info"], capture_output=True, check=False)
        return done.returncode == 0


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@contextmanager
def running(program: str, folder: Path) -> Iterator[CfsslPeer]:
    """Run cfssl with a hierarchy of its own in `folder`."""
    folder.mkdir(parents=True)
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    peer = CfsslPeer(program, folder, hierarchy, free_port())
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    for name, secret in {"issuing.key": hierarchy.issuing.key, "auth-key": AUTH_KEY.encode()}.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(secret)
    auth_keys = {"gateway": {"type": "standard", "key": AUTH_KEY}}
    (folder / "config.json").write_text(json.dumps({"signing": SIGNING, "auth_keys": auth_keys}))
    (folder / "db.json").write_text(json.dumps({"driver": "sqlite3", "data_source": str(folder / "certs.db")}))
    with closing(sqlite3.connect(folder / "certs.db")) as database:
        database.executescript(TABLES)
    peer.start()
    try:
        yield peer
    finally:
        peer.stop()
