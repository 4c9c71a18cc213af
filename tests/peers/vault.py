"""A fake of Vault's paths that runs beside a test, for a gateway in processes of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.ca.bootstrap import KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.contract.ca.fake_vault import ROLE as DEFAULT_ROLE
from tests.contract.ca.fake_vault import FakeVault, serve
from tests.contract.ca.vault_site import POLICY, ROLE


@dataclass
class VaultPeer:
    """A running fake; `fake` is looked at and told what to do from the test's own thread."""

    folder: Path
    fake: FakeVault
    logins: int = 0

    @property
    def url(self) -> str:
        return self.fake.url

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Issuing CA and root, DER."""
        own = self.fake.hierarchy
        return (*pem_to_ders(own.issuing.certificate), *pem_to_ders(own.root.certificate))

    def section(self, policy: str = POLICY, url: str | None = None, **more: object) -> dict[str, Any]:
        """Return the section of the configuration, with a login of its own; `url` is that of a proxy before it."""
        self.logins += 1
        names = []
        for name, text in zip(("role-id", "secret-id"), asyncio.run(self.fake.new_approle(policy)), strict=True):
            path = self.folder / f"{name}-{self.logins}"
            path.touch(0o600)
            path.write_text(text)
            names.append({"file": str(path)})
        return {
            "type": "vault",
            "url": url or self.url,
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "auth": {"type": "approle", "role_id": names[0], "secret_id": names[1]},
            "role": "devices",
            **more,
        }

    def issued(self, public_key: bytes | None = None) -> list[bytes]:
        """Return all certificates that it signed, DER, or those of one key (SubjectPublicKeyInfo)."""
        return [der for der in list(self.fake.signed) if public_key in (None, parse_certificate(der).public_key.der)]


@contextmanager
def running(folder: Path, **role: object) -> Iterator[VaultPeer]:
    """Run it with a hierarchy of its own; `role` changes what its role `devices` says."""
    folder.mkdir(parents=True)
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    fake = FakeVault(hierarchy, roles={"devices": {**DEFAULT_ROLE, **ROLE, **role}})
    ready, loop = threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def run() -> None:
        async with serve(fake):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(20)
        yield VaultPeer(folder, fake)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()
