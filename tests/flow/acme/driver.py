"""Our own sans-I/O client against a gateway in this process: any key, any challenge."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.model import Identifier, IdentifierType
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.wire.acme.client import AcmeAnswer, AcmeClient, AcmeRefusal, AcmeRequest, Flow, OrderFailed, Respond, drive_async
from tests.flow.acme.site import Site

SHORTEST = 0.02
"""Seconds between two looks; the server says whole seconds, which tests need not wait."""


@dataclass(frozen=True)
class Driver:
    """One account of one profile."""

    site: Site
    session: aiohttp.ClientSession
    client: AcmeClient

    async def run(self, flow: Flow) -> Any:
        """Return what a flow comes to."""
        return await drive_async(flow, self._send, lambda seconds: asyncio.sleep(min(seconds, SHORTEST)))

    async def refused(self, flow: Flow) -> AcmeRefusal:
        """Return the refusal that a flow comes to."""
        with pytest.raises(AcmeRefusal) as caught:
            await self.run(flow)
        return caught.value

    async def failed(self, flow: Flow) -> dict[str, Any]:
        """Return the document of an order or an authorization that comes to nothing."""
        with pytest.raises(OrderFailed) as caught:
            await self.run(flow)
        return dict(caught.value.document)

    async def issue(self, identifiers: Sequence[Identifier], csr: bytes, respond: Respond, **more: Any) -> Certificate:
        chain = await self.run(self.client.issue(identifiers, csr, respond, **more))
        return parse_certificate(chain[0])

    async def _send(self, request: AcmeRequest) -> AcmeAnswer:
        parts = urlsplit(request.url)
        url = parts._replace(netloc=f"127.0.0.1:{self.site.service.tls_port}").geturl()
        headers = {**request.headers, "Host": parts.netloc}
        sent = self.session.request(request.method, url, data=request.body or None, headers=headers, server_hostname="localhost")
        async with sent as reply:
            return AcmeAnswer.of(reply.status, list(reply.headers.items()), await reply.read())


@asynccontextmanager
async def account(site: Site, profile: str, key: PrivateKey | None = None, algorithm: str | None = None) -> AsyncIterator[Driver]:
    """Open a client with an account that has just been made."""
    tls = ssl.create_default_context(cafile=site.service.folder / "ca" / "root.pem")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        signer = Signer.of(key or generate_private_key("ec-p256"), algorithm)
        driver = Driver(site, session, AcmeClient(f"{site.base(profile)}/directory", signer))
        await driver.run(driver.client.register())
        yield driver


def dns(*names: str) -> tuple[Identifier, ...]:
    return tuple(Identifier(IdentifierType.DNS, name) for name in names)


def device(value: str, kind: IdentifierType = IdentifierType.PERMANENT_IDENTIFIER) -> tuple[Identifier, ...]:
    return (Identifier(kind, value),)
