"""One service for each test, and a client of its demo profile."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.flow.scep.service import Client, Service, start_service

StartService = Callable[..., Awaitable[Service]]
Connect = Callable[..., Awaitable[Client]]
"""Makes a client of a profile, `demo` unless it is named, that has fetched the RA's certificates."""


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartService]:
    services: list[Service] = []

    async def begin(folder: str = "s", **options: object) -> Service:
        service = await start_service(tmp_path / folder, **options)  # type: ignore[arg-type]
        services.append(service)
        return service

    yield begin
    for service in services:
        await service.close()


@pytest.fixture
async def service(start: StartService) -> Service:
    return await start()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def connect(session: aiohttp.ClientSession) -> Connect:
    async def connect(service: Service, profile: str = "demo") -> Client:
        client = Client(session, f"{service.url}/scep/{profile}")
        await client.fetch_ra()
        return client

    return connect


@pytest.fixture
async def client(service: Service, connect: Connect) -> Client:
    return await connect(service)
