"""A real OpenBao or Vault on loopback, in memory, with a PKI engine whose issuing CA has a root above it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.conftest import free_port

PROGRAMS = ("bao", "vault")
ROOT_TOKEN = "root-of-a-test"
START_SECONDS = 60.0
MOUNT = "pki"


def find_program() -> str | None:
    """Return OpenBao or Vault where one is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass
class OpenBaoPeer:
    """A running server; the engine is at `pki`, AppRole and TLS certificates may log in."""

    folder: Path
    hierarchy: Hierarchy
    port: int
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    logins: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Issuing CA and root, DER."""
        return (*pem_to_ders(self.hierarchy.issuing.certificate), *pem_to_ders(self.hierarchy.root.certificate))

    def section(self, policy: str, *, role: str | None = "devices", url: str | None = None, **more: object) -> dict[str, Any]:
        """Return the section of the configuration, with a login of its own; `url` is that of a proxy before it."""
        self.logins += 1
        names = []
        for name, text in zip(("role-id", "secret-id"), self.make_approle(policy), strict=True):
            path = self.folder / f"{name}-{self.logins}"
            path.touch(0o600)
            path.write_text(text)
            names.append({"file": str(path)})
        return {
            "type": "vault",
            "url": url or self.url,
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "auth": {"type": "approle", "role_id": names[0], "secret_id": names[1]},
            **({"role": role} if role else {}),
            **more,
        }

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
        """Ask as root; GET, or POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": ROOT_TOKEN, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20, context=self.tls) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def write_role(self, name: str, **fields: object) -> None:
        """Write a role of the engine."""
        self.ask(f"{MOUNT}/roles/{name}", fields)

    def make_approle(self, policy: str, **fields: object) -> tuple[str, str]:
        """Return role ID and secret ID of a new AppRole with a policy, HCL."""
        name = f"gateway-{len(policy)}-{time.monotonic_ns()}"
        self.ask(f"sys/policies/acl/{name}", {"policy": policy})
        self.ask(f"auth/approle/role/{name}", {"token_policies": [name], "token_ttl": "20m", "token_max_ttl": "1h", **fields})
        role_id = self.ask(f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        return role_id, self.ask(f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]

    def stored(self) -> list[bytes]:
        """Return all certificates that it keeps but its own, DER."""
        keys = self.ask(f"{MOUNT}/certs?list=true")["data"]["keys"]
        ders = [pem_to_ders(self.ask(f"{MOUNT}/cert/{key}")["data"]["certificate"].encode())[0] for key in keys]
        return [der for der in ders if der not in self.chain]

    def issued_to(self, public_key: bytes) -> list[bytes]:
        """Return what it issued to one key (SubjectPublicKeyInfo), DER."""
        return [der for der in self.stored() if parse_certificate(der).public_key.der == public_key]

    # as the tests of the backend know any Vault

    async def set_role(self, name: str, **fields: Any) -> None:
        await asyncio.to_thread(self.write_role, name, **fields)

    async def new_approle(self, policy: str) -> tuple[str, str]:
        return await asyncio.to_thread(self.make_approle, policy)

    async def issued(self) -> list[bytes]:
        return await asyncio.to_thread(self.stored)

    @property
    def anchors(self) -> Path:
        """What its TLS certificate chains to, PEM."""
        return next(self.folder.glob("tls/*ca.pem"))

    def start(self, program: str, *, tls: bool = False) -> None:
        """Start it in memory, unsealed, and put the CA in."""
        arguments = ["server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}", "-dev-no-store-token"]
        if tls:
            (self.folder / "tls").mkdir()
            arguments += ["-dev-tls", f"-dev-tls-cert-dir={self.folder / 'tls'}"]
        environment = {"HOME": str(self.folder), "PATH": os.environ["PATH"]}
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, *arguments, f"-dev-listen-address=127.0.0.1:{self.port}"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait(tls=tls)
        self.ask(f"sys/mounts/{MOUNT}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
        own = self.hierarchy.issuing
        bundle = own.certificate + own.key + self.hierarchy.root.certificate
        self.ask(f"{MOUNT}/issuers/import/bundle", {"pem_bundle": bundle.decode()})
        found = self.ask(f"{MOUNT}/issuers?list=true")["data"]["keys"]
        [issuer] = [key for key in found if self._certificate(key) == self.chain[0]]
        self.ask(f"{MOUNT}/config/issuers", {"default": issuer})
        self.ask(f"{MOUNT}/issuer/{issuer}", {"issuer_name": "spare", "leaf_not_after_behavior": "err"})
        self.ask("sys/auth/approle", {"type": "approle"})
        self.ask("sys/auth/cert", {"type": "cert"})

    def stop(self) -> None:
        """Stop it; what it issued is gone with it."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def _certificate(self, issuer: str) -> bytes:
        return pem_to_ders(self.ask(f"{MOUNT}/issuer/{issuer}/json")["data"]["certificate"].encode())[0]

    def _wait(self, *, tls: bool) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.tls = ssl.create_default_context(cafile=str(self.anchors)) if tls else None
                self.ask("sys/health")
            except (urllib.error.URLError, ConnectionError, TimeoutError, StopIteration, ssl.SSLError):
                if self.process is None or self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise AssertionError(f"the server does not run:\n{(self.folder / 'log').read_text()}") from None
                time.sleep(0.1)
            else:
                return


@contextmanager
def running(program: str, folder: Path, *, tls: bool = False) -> Iterator[OpenBaoPeer]:
    """Run it with a hierarchy of its own in `folder`."""
    folder.mkdir(parents=True)
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    peer = OpenBaoPeer(folder, hierarchy, free_port())
    try:
        peer.start(program, tls=tls)
        yield peer
    finally:
        peer.stop()
