"""Another configuration for a service that runs, and an upstream CA that waits until the test lets it go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from gateway.assemble import Prepared
from gateway.ca.interfaces import IssueRequest, UpstreamIssued
from gateway.ca.local import LocalCA
from gateway.config.load import read
from gateway.model import UpstreamCAName
from gateway.pki.certificate import der_to_pem, pem_to_ders
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, serialize_private_key
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.service import Service

Edit = Callable[[dict[str, Any]], object]


def change(folder: Path, edit: Edit) -> None:
    """Rewrite profiles.yaml."""
    path = folder / "profiles.yaml"
    config = yaml.safe_load(path.read_text())
    edit(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


async def prepare(service: Service) -> Prepared:
    _, sources = read(service.folder / "profiles.yaml")
    return await service.gateway.prepare(sources, service.gateway.generation.number + 1)


async def reload(service: Service, edit: Edit = lambda config: None) -> None:
    """Put what profiles.yaml says in force, after it was edited."""
    change(service.folder, edit)
    service.gateway.commit(await prepare(service))


def write_ca(folder: Path, name: str) -> tuple[OtherCA, dict[str, Any]]:
    """Write a CA of its own and return it as the configuration names it."""
    ca = OtherCA.create(name)
    (folder / "ca" / f"{name}.pem").write_bytes(ca.pem)
    write_secret(folder / "secrets" / f"{name}.key", serialize_private_key(ca.key))
    return ca, {"type": "local", "certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}


def write_pair(
    folder: Path,
    name: str,
    key: PrivateKey | None = None,
    san: str = "",
    dates: tuple[timedelta, timedelta] = (timedelta(days=-1), timedelta(days=300)),
) -> dict[str, Any]:
    """Have the folder's CA issue a certificate for an RA or a TLS server, and return it as the configuration names it.

    It is valid between two times, counted from now.
    """
    [issuing] = pem_to_ders((folder / "ca" / "issuing.pem").read_bytes())
    ca = OtherCA(issuing, load_private_key((folder / "secrets" / "issuing.key").read_bytes()))
    key = key or generate_private_key("rsa-2048")
    ekus = ("certificateRequestAgent", "serverAuth")
    certificate = ca.issue(key, f"CN={name}", ekus=ekus, san=san, begins=dates[0], ends=dates[1])
    (folder / "ca" / f"{name}.pem").write_bytes(der_to_pem(certificate) + der_to_pem(issuing))
    write_secret(folder / "secrets" / f"{name}.key", serialize_private_key(key))
    return {"certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}


@dataclass
class Held:
    """An upstream CA whose requests wait."""

    ca: LocalCA
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


def hold(service: Service, name: str = "local") -> Held:
    """Hold what is issued by a CA that is in force, and watch its end."""
    ca = service.gateway.generation.snapshot.upstream_cas[UpstreamCAName(name)]
    assert isinstance(ca, LocalCA)
    held, issue, close = Held(ca), ca.issue, ca.close

    async def waiting(request: IssueRequest) -> UpstreamIssued:
        held.reached.set()
        await held.go.wait()
        assert not held.closed.is_set()
        return await issue(request)

    async def closing() -> None:
        held.closed.set()
        await close()

    ca.issue = waiting  # type: ignore[method-assign]
    ca.close = closing  # type: ignore[method-assign]
    return held


@dataclass(frozen=True)
class Belongings:
    """What a process has beside memory; threads of asyncio's own pool, which it keeps, do not count."""

    tasks: frozenset[str]
    threads: frozenset[str]
    descriptors: int
    children: frozenset[int]

    @classmethod
    def now(cls) -> Belongings:
        return cls(
            frozenset(task.get_name() for task in asyncio.all_tasks()),
            frozenset(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")),
            len(tuple(Path("/proc/self/fd").iterdir())),
            frozenset(children()),
        )


async def nothing_new(before: Belongings) -> None:
    """Wait until there is what there was: a thread whose caller was cancelled ends a little later."""
    async with asyncio.timeout(5):
        while Belongings.now() != before:
            await asyncio.sleep(0.01)


def children() -> set[int]:
    """Return the processes that this one has started and not yet laid to rest."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found
