"""TLS certificates, client anchors and CRL keys that are replaced while connections are open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.ca import crl as crl_module
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.keys import PrivateKey, generate_private_key, serialize_private_key
from gateway.pki.trust import verify_crl
from tests.flow.scep.conftest import StartService
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.reloading import reload, write_ca, write_pair
from tests.flow.scep.service import Client, Device, Service, configure, make_folder

KEY = generate_private_key("ec-p256")
LISTENER = {"listen": "127.0.0.1:3", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}


class Connection:
    """A TLS client that keeps one connection and never opens a second."""

    def __init__(self, service: Service, port: int, shown: tuple[bytes, PrivateKey] | None = None) -> None:
        context = ssl.create_default_context(cafile=str(service.folder / "ca" / "root.pem"))
        if shown is not None:
            path = service.folder / "client.pem"
            path.write_bytes(serialize_private_key(shown[1]) + der_to_pem(shown[0]))
            context.load_cert_chain(path)
        self._connector = Once(ssl=context, limit=1)
        self.session = aiohttp.ClientSession(connector=self._connector)
        self.url = f"https://localhost:{port}"

    async def server_certificate(self) -> bytes:
        """Ask for something, and return the certificate that the server showed on this connection."""
        async with self.session.get(f"{self.url}/scep/demo?operation=GetCACaps") as reply:
            assert reply.status == 200
        return self._connector.shown


class Once(aiohttp.TCPConnector):
    """Connects once: whoever asks on it again has kept the connection, or fails."""

    shown = b""
    """What the server showed, DER."""

    async def _create_connection(self, *arguments: Any, **options: Any) -> Any:
        if self.shown:
            raise aiohttp.ClientConnectionError("the connection was dropped")
        protocol = await super()._create_connection(*arguments, **options)
        assert protocol.transport is not None
        self.shown = protocol.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return protocol


@pytest.fixture
async def opened() -> AsyncIterator[list[Connection]]:
    connections: list[Connection] = []
    yield connections
    for connection in connections:
        await connection.session.close()


async def test_a_tls_certificate_is_replaced_for_new_connections(service: Service, opened: list[Connection]) -> None:
    before = Connection(service, service.tls_port)
    opened.append(before)
    old = await before.server_certificate()
    pair = write_pair(service.folder, "new-tls", KEY, san="localhost")
    await reload(service, lambda config: config["server"]["https"].update(pair))
    after = Connection(service, service.tls_port)
    opened.append(after)
    new = await after.server_certificate()
    assert parse_certificate(new).public_key.sha256 != parse_certificate(old).public_key.sha256
    assert await before.server_certificate() == old


async def test_a_handshake_that_has_begun_is_not_disturbed(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.tls_port)
    await asyncio.sleep(0.05)
    pair = write_pair(service.folder, "new-tls", KEY, san="localhost")
    await reload(service, lambda config: config["server"]["https"].update(pair))
    context = ssl.create_default_context(cafile=str(service.folder / "ca" / "root.pem"))
    await writer.start_tls(context, server_hostname="localhost")
    writer.write(b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


class Gate:
    """A service whose profile `demo` asks for client certificates of `ours`, and later of `theirs`."""

    def __init__(self, service: Service, ours: OtherCA, theirs: OtherCA) -> None:
        self.service = service
        self.ours = ours
        self.theirs = theirs

    def client(self, ca: OtherCA, opened: list[Connection]) -> Client:
        connection = Connection(self.service, self.service.mtls_port, (ca.issue(KEY, "CN=tls-client"), KEY))
        opened.append(connection)
        return Client(connection.session, f"{connection.url}/scep-mtls/demo")

    async def enroll(self, client: Client, number: int) -> tuple[PkiStatus, FailInfo | None]:
        if not client.ra:
            await client.fetch_ra()
        asked = Device(subject=f"CN=device-{number}")
        reply = await client.enroll(asked, self.service.static_challenge, transaction=f"transaction-{number}")
        return reply.status, reply.fail_info


@pytest.fixture
async def gate(start: StartService, tmp_path: Path) -> Gate:
    folder = make_folder(tmp_path / "s")
    ours, theirs = OtherCA.create("Ours"), OtherCA.create("Theirs")
    for name, ca in (("ours", ours), ("theirs", theirs)):
        (folder / "ca" / f"{name}.pem").write_bytes(ca.pem)
    scep = {"client_certificate": "require", "client_anchors": "ca/ours.pem"}
    configure(folder, server={"https_mtls": LISTENER}, demo={"endpoints": {"scep": scep}})
    return Gate(await start(), ours, theirs)


async def trust(gate: Gate, *names: str) -> None:
    bundle = b"".join((gate.service.folder / "ca" / f"{name}.pem").read_bytes() for name in names)
    (gate.service.folder / "ca" / "bundle.pem").write_bytes(bundle)
    await reload(
        gate.service,
        lambda config: config["profiles"]["demo"]["endpoints"]["scep"].update(client_anchors="ca/bundle.pem"),
    )


async def test_client_anchors_are_replaced_and_not_added(gate: Gate, opened: list[Connection]) -> None:
    held = gate.client(gate.ours, opened)
    assert await gate.enroll(held, 1) == (PkiStatus.SUCCESS, None)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await gate.client(gate.theirs, opened).fetch_ra()
    await trust(gate, "theirs")
    # The connection lives, and what it showed counts no more: TLS only collects.
    assert await gate.enroll(held, 2) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert await gate.enroll(gate.client(gate.theirs, opened), 3) == (PkiStatus.SUCCESS, None)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await gate.client(gate.ours, opened).fetch_ra()
    assert await gate.enroll(held, 4) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)


async def test_anchors_change_over_without_anybody_shut_out(gate: Gate, opened: list[Connection]) -> None:
    held = gate.client(gate.ours, opened)
    assert await gate.enroll(held, 1) == (PkiStatus.SUCCESS, None)
    await trust(gate, "ours", "theirs")
    assert await gate.enroll(held, 2) == (PkiStatus.SUCCESS, None)
    for number, ca in enumerate((gate.ours, gate.theirs), start=3):
        assert await gate.enroll(gate.client(ca, opened), number) == (PkiStatus.SUCCESS, None)


async def newest_crl(session: aiohttp.ClientSession, service: Service) -> bytes:
    async with session.get(f"{service.url}/crl/local.crl") as reply:
        return await reply.read() if reply.status == 200 else b""


async def until_signed_by(ca: OtherCA | None, session: aiohttp.ClientSession, service: Service, than: bytes = b"") -> bytes:
    """Wait for a CRL that is another one, and that `ca` has signed."""
    async with asyncio.timeout(10):
        while (der := await newest_crl(session, service)) in {b"", than}:
            await asyncio.sleep(0.02)
    if ca is not None:
        verify_crl(parse_crl(der), parse_certificate(ca.certificate))
    return der


def publishing() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("crl ")]


async def test_the_crl_follows_the_key_of_its_ca(
    service: Service, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl_module, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(crl_module, "CACHE_SECONDS", 0.0)
    task = asyncio.create_task(service.gateway.publish_crls())
    first = await until_signed_by(None, session, service)
    assert publishing() == ["crl local"]
    renewed, section = write_ca(service.folder, "renewed")
    await reload(service, lambda config: config["upstream_cas"].update(local=section))
    second = await until_signed_by(renewed, session, service, first)
    assert publishing() == ["crl local"]
    await asyncio.sleep(0.1)
    assert await newest_crl(session, service) == second
    (published,) = await service.run("POST", "/v1/crl/publish")
    assert published["number"] == parse_crl(second).number + 1  # type: ignore[operator]
    await reload(service, lambda config: config["upstream_cas"]["local"].update(crl=None))
    await asyncio.sleep(0.05)
    assert (publishing(), await newest_crl(session, service)) == ([], b"")
    await reload(service, lambda config: config["upstream_cas"]["local"].update(crl={"lifetime": "3d"}))
    await asyncio.sleep(0.05)
    assert publishing() == ["crl local"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert publishing() == []
