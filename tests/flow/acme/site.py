"""A whole gateway in this process that issues by ACME, and a web server for the names that its clients prove."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.acme import ExternalAccount, ExternalAccountPolicy
from gateway.audit import AuditEvent
from gateway.model import ProfileName, SanKind
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.pki.names import parse_name_text
from tests.flow.acme.client import Answer, Client
from tests.flow.acme.signing import b64, bind
from tests.flow.scep.service import Service, configure, make_folder, start_service

POLL_SECONDS = 30.0
PREVALIDATED = {
    "external_account": "required",
    "validation": {
        "mode": "prevalidated",
        "prevalidated": {"dns": [r"(\*\.)?([a-z0-9-]+\.)*corp\.test"]},
        "challenges": ["http-01", "dns-01"],
    },
}
"""Names below corp.test are good at once."""


class Responder:
    """Answers http-01 on loopback."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            self.asked.append(path)
            body = self.tokens.get(path.rpartition("/")[2])
            status = "404 Not Found" if body is None else "200 OK"
            content = (body or "").encode()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class Site:
    """What a test talks to."""

    service: Service
    responder: Responder
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def client(self, profile: str = "demo") -> Client:
        tls = ssl.create_default_context(cafile=self.service.folder / "ca" / "root.pem")
        return Client(self.service.tls_port, tls, self.base(profile))

    def base(self, profile: str = "demo") -> str:
        return self.service.gateway.generation.acme[ProfileName(profile)].base

    async def registered(self, profile: str = "demo", **members: Any) -> Client:
        client = self.client(profile)
        answer = await self.register(client, profile, **members)
        assert answer.status == 201, answer.body
        return client

    async def register(self, client: Client, profile: str, **members: Any) -> Answer:
        """Register with an external account of its own, where one is required."""
        config = self.service.gateway.config.profiles[profile].endpoints.acme
        if config is not None and config.external_account == "required":
            kid = f"kid-{secrets.token_hex(8)}"
            secret = await self.bind(profile, kid)
            members["externalAccountBinding"] = bind(client.key, kid, secret, f"{self.base(profile)}/new-account")
        return await client.register(**members)

    def start_background(self) -> None:
        """Do what the worker's background does every second, more often."""

        async def run() -> None:
            while True:
                await self.service.gateway.acme.run_due(self.service.gateway.generation.snapshot)
                await asyncio.sleep(0.1)

        self.running.append(asyncio.create_task(run()))

    async def bind(self, profile: str, kid: str = "kid-1", **policy: Any) -> bytes:
        """Make an external account; returns its key."""
        key = kid.encode().ljust(32, b"k")
        expires = policy.pop("expires_at", None)
        row = ExternalAccount(
            kid=kid,
            profile=ProfileName(profile),
            key=key,
            policy=ExternalAccountPolicy(**policy),
            owner="team@example.com",
            created_at=datetime.now(UTC),
            created_by="test",
            expires_at=expires,
        )
        event = AuditEvent(event="acme.external_account.created", at=row.created_at, actor="test", decision="done")
        await self.service.gateway.store.add_external_account(row, event)
        return key

    async def prove(self, client: Client, order: Answer) -> None:
        """Prove control of every name of an order by http-01, and wait until it is known."""
        for url in order.json["authorizations"]:
            authorization = await client.post(url)
            if authorization.json["status"] == "valid":
                continue
            [challenge] = [each for each in authorization.json["challenges"] if each["type"] == "http-01"]
            self.responder.tokens[challenge["token"]] = f"{challenge['token']}.{client.key.thumbprint}"
            answer = await client.post(challenge["url"], {})
            assert answer.status == 200, answer.body
            done = await self.poll(client, url, {"pending"})
            assert done.json["status"] == "valid", done.body

    async def poll(self, client: Client, url: str, while_in: set[str]) -> Answer:
        """Read a resource until its status is another one."""
        async with asyncio.timeout(POLL_SECONDS):
            while True:
                answer = await client.post(url)
                assert answer.status == 200, answer.body
                if answer.json["status"] not in while_in:
                    return answer
                await asyncio.sleep(0.1)

    async def ready(self, client: Client, *names: str | dict[str, str], **members: Any) -> Answer:
        """Order, and prove every name."""
        order = await client.order(*names, **members)
        assert order.status == 201, order.body
        if order.json["status"] != "ready":
            await self.prove(client, order)
        found = await client.post(order.location)
        assert found.json["status"] == "ready", found.body
        return found

    async def issue(self, client: Client, *names: str | dict[str, str], **members: Any) -> Issued:
        """Get a certificate."""
        order = await self.ready(client, *names, **members)
        key = generate_private_key("ec-p256")
        answer = await client.post(order.json["finalize"], {"csr": csr_for(order, key)})
        assert answer.status == 200, answer.body
        done = answer if answer.json["status"] != "processing" else await self.poll(client, order.location, {"processing"})
        assert done.json["status"] == "valid", done.body
        chain = await client.post(done.json["certificate"])
        assert chain.status == 200, chain.body
        return Issued(order.location, pem_to_ders(chain.body), key, done)

    async def audited(self) -> list[str]:
        return await self.service.audit()

    async def close(self) -> None:
        for task in self.running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.service.gateway.acme.drain(2)
        await self.service.close()
        await self.responder.close()


@dataclass(frozen=True)
class Issued:
    """A certificate and what it came from."""

    order: str
    chain: Sequence[bytes]
    key: PrivateKey
    answer: Answer

    @property
    def leaf(self) -> Certificate:
        return parse_certificate(self.chain[0])

    @property
    def names(self) -> set[str]:
        return {san.value for san in self.leaf.sans}

    @property
    def certificate(self) -> str:
        """The leaf in base64url."""
        return b64(self.chain[0])


def csr_for(order: Answer, key: PrivateKey, subject: str = "") -> str:
    """Return a CSR, base64url, for all names of an order."""
    kinds = {"dns": SanKind.DNS, "ip": SanKind.IP}
    sans = tuple(make_san(kinds[each["type"]], each["value"]) for each in order.json["identifiers"])
    return b64(build_csr(key, parse_name_text(subject).der, sans))


async def start_site(folder: Path, *, worker: str = "test:1", background: bool = True, **profiles: Mapping[str, Any]) -> Site:
    """Start a gateway; `profiles` are settings of ACME endpoints by profile, beside `demo`, whose policy they share."""
    responder = Responder()
    await responder.start()
    try:
        return await _start(folder, responder, worker, profiles, background=background)
    except BaseException:
        await responder.close()
        raise


async def _start(
    folder: Path, responder: Responder, worker: str, profiles: Mapping[str, Mapping[str, Any]], *, background: bool
) -> Site:
    if not (folder / "profiles.yaml").exists():
        make_folder(folder)
    configure(folder, demo={"endpoints": {"acme": {"validation": {"http01_port": responder.port}}}})
    for name, settings in profiles.items():
        configure(folder, **{name: _profile(settings, responder.port)})
    service = await start_service(folder, worker=worker)
    site = Site(service, responder)
    if background:
        site.start_background()
    return site


def _profile(settings: Mapping[str, Any], port: int) -> dict[str, Any]:
    settings = dict(settings)
    policy = settings.pop("policy", {})
    validation = {"http01_port": port, **settings.pop("validation", {})}
    return {"endpoints": {"acme": {**settings, "validation": validation}}, "policy": policy}
