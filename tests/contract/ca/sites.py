"""Every kind of CA beyond this process, with something before it that spoils answers, and a look at what was really issued."""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import CaUrls
from gateway.ca.setup import load_identity
from gateway.model import Grant, SanKind
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, pem_to_ders
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.contract.ca import fault_proxy as faults
from tests.contract.ca.conftest import make_exec
from tests.contract.ca.fake_vault import ROOT_TOKEN, FakeVault, serve
from tests.contract.ca.fault_proxy import FaultProxy, between
from tests.contract.ca.vault_site import ROLE, create, secret
from tests.peers.cfssl import CfsslPeer
from tests.peers.gateway import GatewayPeer
from tests.peers.opening import opened
from tests.peers.pebble import PebblePeer
from tests.peers.step_ca import StepPeer

QUEUE = "30m"
WIRE = (*faults.BUSY, *faults.LOST_BEFORE, *faults.LOST_AFTER, *faults.HARMLESS, faults.FOREIGN)
PROGRAM = {
    "reset before": "crash before",
    "page before": "garbage before",
    "reset after": "crash after",
    "stall": "stall after",
    "cut": "reply cut",
    "page": "garbage",
    "bad gateway": "status",
    "endless": "huge",
    "empty": "reply lost",
    faults.FOREIGN: "wrong key",
}
"""What a program does that comes nearest to a fault on the way."""
Clock = Callable[[], datetime]


class Site(Protocol):
    """A CA for one test."""

    @property
    def ca(self) -> GuardedCA:
        """The backend as the gateway has it, started."""

    def spoil(self, *which: str) -> None:
        """Have the next requests that issue go wrong, one fault each."""

    def is_spoilt(self) -> bool:
        """Whether all that was to go wrong has."""

    def issued(self, public_key: bytes) -> list[bytes]:
        """Every certificate that the CA ever signed for a key (SubjectPublicKeyInfo), DER."""

    async def leave(self) -> None:
        """Let nothing reach it."""

    async def come_back(self) -> None:
        """Let it be reached again."""


@dataclass
class HttpSite:
    """A CA behind the proxy."""

    ca: GuardedCA
    proxy: FaultProxy
    issued: Callable[[bytes], list[bytes]]

    def spoil(self, *which: str) -> None:
        self.proxy.faults.extend(which)

    def is_spoilt(self) -> bool:
        return not self.proxy.faults

    async def leave(self) -> None:
        await self.proxy.leave()

    async def come_back(self) -> None:
        await self.proxy.listen()


@dataclass
class ProgramSite:
    """A program."""

    ca: GuardedCA
    folder: Path

    def spoil(self, *which: str) -> None:
        (self.folder / "faults").write_text("".join(f"{PROGRAM[one]}\n" for one in which))

    def is_spoilt(self) -> bool:
        return not (self.folder / "faults").read_text()

    def issued(self, public_key: bytes) -> list[bytes]:
        return _of_key(public_key, (pem_to_ders(path.read_bytes())[0] for path in (self.folder / "issued").glob("*.pem")))

    async def leave(self) -> None:
        (self.folder / "sign").rename(self.folder / "gone")

    async def come_back(self) -> None:
        (self.folder / "gone").rename(self.folder / "sign")


Open = Callable[[Path, Clock], AbstractAsyncContextManager[Site]]


def program_site(hierarchy: Hierarchy) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        chain = (*pem_to_ders(hierarchy.issuing.certificate), *pem_to_ders(hierarchy.root.certificate))
        ca = _guard(make_exec(folder, hierarchy, chain).ca, clock)
        await ca.start()
        try:
            yield ProgramSite(ca, folder)
        finally:
            await ca.close()

    return open_


def vault_site(hierarchy: Hierarchy) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        async with serve(FakeVault(hierarchy)) as vault, between(vault.url, _posts("/sign/")) as proxy:
            await vault.set_role("devices", **{**ROLE, "organization": [], "key_usage": ["DigitalSignature"]})
            chain = (*pem_to_ders(hierarchy.issuing.certificate), *pem_to_ders(hierarchy.root.certificate))
            auth = {"type": "token", "token": secret("TOKEN")}
            ca = _guard(create(proxy.url, chain, auth, {"TOKEN": ROOT_TOKEN}, queue=QUEUE), clock)
            await ca.start()
            try:
                yield HttpSite(_guard(ca.ca, clock), proxy, lambda key: _of_key(key, vault.signed))
            finally:
                await ca.close()

    return open_


def cfssl_site(peer: CfsslPeer) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        async with (
            between(peer.url, _posts("/sign", "/authsign")) as proxy,
            opened(peer.section(url=proxy.url, queue=QUEUE)) as ca,
        ):
            yield HttpSite(_guard(ca.ca, clock), proxy, peer.issued)

    return open_


def step_site(peer: StepPeer, **options: Any) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        tls, anchors = make_server(folder)
        async with between(peer.url, _posts("/1.0/sign"), tls=tls, anchors=peer.folder / "root.pem") as proxy:
            section = peer.section(url=proxy.url, queue=QUEUE, **options)
            section["connection"] = {**section["connection"], "anchors": str(anchors)}
            async with opened(section) as ca:
                # before its first request it has a token judged, by the same path: that is not what is to be spoilt
                assert [trial for trial in await ca.check() if not trial.good] == []
                yield HttpSite(_guard(ca.ca, clock), proxy, peer.issued)

    return open_


def est_site(peer: GatewayPeer) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        tls, anchors = make_server(folder)
        pair = (Path(peer.pair["certificate"]), Path(peer.pair["key"]["file"]))
        target = f"https://localhost:{peer.mtls_port}"
        acts = _posts("/simpleenroll")
        async with between(target, acts, tls=tls, anchors=peer.server.root, pair=pair) as proxy:
            section = peer.est(url=proxy.url, queue=QUEUE)
            section["connection"] = {**section["connection"], "anchors": str(anchors)}
            async with opened(section) as ca:
                yield HttpSite(_guard(ca.ca, clock), proxy, lambda key: issued_by(peer, key))

    return open_


def scep_site(peer: GatewayPeer) -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        async with (
            between(peer.server.url, _posts("/scep/demo")) as proxy,
            opened(peer.scep(url=proxy.url, queue=QUEUE), clock=clock) as ca,
        ):
            yield HttpSite(_guard(ca.ca, clock), proxy, lambda key: issued_by(peer, key))

    return open_


def cmp_site(peer: GatewayPeer, profile: str = "demo") -> Open:
    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        # the time in its messages is this machine's, as it is with the server
        async with (
            between(peer.server.url, _posts("/.well-known/cmp/")) as proxy,
            opened(peer.cmp(profile, url=proxy.url, queue=QUEUE)) as ca,
        ):
            yield HttpSite(_guard(ca.ca, clock), proxy, lambda key: issued_by(peer, key))

    return open_


def acme_site(peer: PebblePeer) -> Open:
    """Finalizations are what issues; pebble makes its URLs from the host that it is asked by."""

    @asynccontextmanager
    async def open_(folder: Path, clock: Clock) -> AsyncIterator[Site]:
        tls, anchors = make_server(folder)
        target, acts = f"https://localhost:{peer.port}", _posts("/finalize-order/")
        async with between(target, acts, tls=tls, anchors=peer.folder / "tls.pem") as proxy:
            connection = {"anchors": str(anchors), "timeout": "1s", "connect_timeout": "1s"}
            section = peer.section(f"{proxy.url}/dir", queue=QUEUE, connection=connection)
            async with opened(section, clock=clock) as ca:
                yield HttpSite(_guard(ca.ca, clock), proxy, peer.issued)

    return open_


def issued_by(peer: GatewayPeer, public_key: bytes) -> list[bytes]:
    """Look into the other gateway's inventory itself: its command starts anew for every certificate."""
    [path] = peer.state.rglob("gateway.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return _of_key(public_key, (der for (der,) in database.execute("SELECT der FROM inventory")))


def make_server(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return TLS for the proxy, and the file of its anchor."""
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    anchors = folder / "proxy.pem"
    anchors.write_bytes(hierarchy.root.certificate)
    key, now = generate_private_key("ec-p256"), datetime.now(UTC).replace(microsecond=0)
    issuer = Issuer.from_certificate(pem_to_ders(hierarchy.issuing.certificate)[0], load_private_key(hierarchy.issuing.key))
    subject, sans = parse_name_text("CN=localhost").der, (make_san(SanKind.DNS, "localhost"),)
    dates = (now - timedelta(hours=1), now + timedelta(days=30))
    grant = Grant(subject, sans, ("digitalSignature",), (eku_oid("serverAuth"),), *dates)
    certificate = build_certificate(issuer, new_serial(), grant, public_key_der(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, der_to_pem(certificate) + hierarchy.issuing.certificate, serialize_private_key(key))
    return context, anchors


def _guard(ca: UpstreamCA, clock: Clock) -> GuardedCA:
    """Have the circuit see the same time pass as the registration authority."""
    return GuardedCA(ca, lambda: clock().timestamp())


def _posts(*parts: str) -> Callable[[web.Request], bool]:
    return lambda request: request.method == "POST" and any(part in request.path for part in parts)


def _of_key(public_key: bytes, certificates: Iterable[bytes]) -> list[bytes]:
    return [der for der in certificates if parse_certificate(der).public_key.der == public_key]
