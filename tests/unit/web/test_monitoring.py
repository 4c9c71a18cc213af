import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from gateway.web.monitoring import MonitoringEndpoint, NotReadyError

Http = TestClient[web.Request, web.Application]


@dataclass
class World:
    """What the endpoint asks."""

    alive: bool = True
    fault: Callable[[], Awaitable[None]] | None = None
    told: list[bool] = field(default_factory=list)

    async def check(self) -> None:
        if self.fault is not None:
            await self.fault()

    async def exposition(self, ready: bool) -> bytes:
        self.told.append(ready)
        return b"gateway_ready 1.0\n"


async def refuse() -> None:
    raise NotReadyError("store")


async def break_down() -> None:
    raise RuntimeError("/var/lib/pki-gateway")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def endpoint(world: World) -> MonitoringEndpoint:
    return MonitoringEndpoint(lambda: world.alive, world.check, world.exposition)


@pytest.fixture
async def http(endpoint: MonitoringEndpoint) -> AsyncIterator[Http]:
    app = web.Application()
    app.add_routes(endpoint.routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def get(http: Http, path: str) -> tuple[int, str]:
    async with http.get(path) as reply:
        return reply.status, await reply.text()


async def test_all_is_well(http: Http, world: World) -> None:
    assert await get(http, "/livez") == (200, "ok\n")
    assert await get(http, "/readyz") == (200, "ok\n")
    async with http.get("/metrics") as reply:
        assert (reply.status, await reply.read()) == (200, b"gateway_ready 1.0\n")
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert world.told == [True]


async def test_no_worker_turns(http: Http, world: World) -> None:
    world.alive = False
    assert (await get(http, "/livez"))[0] == 503


async def test_what_is_not_ready_is_named(http: Http, world: World) -> None:
    world.fault = refuse
    async with http.get("/readyz") as reply:
        assert (reply.status, await reply.text(), reply.headers["Retry-After"]) == (503, "not ready: store\n", "5")
    assert (await get(http, "/livez"))[0] == 200
    await get(http, "/metrics")
    assert world.told == [False]


async def test_each_change_is_logged_once(http: Http, world: World) -> None:
    with capture_logs() as logs:
        for fault in (None, refuse, refuse, None, None):
            world.fault = fault
            await get(http, "/readyz")
    shown = [(line["log_level"], line["ready"], line["cause"]) for line in logs]
    assert shown == [("warning", False, "store"), ("warning", True, None)]


async def test_a_check_that_breaks_down_tells_strangers_nothing(http: Http, world: World) -> None:
    world.fault = break_down
    assert await get(http, "/readyz") == (503, "not ready: unknown\n")


async def test_a_check_that_hangs_is_not_waited_for(http: Http, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.monitoring.PROBE_TIMEOUT", 0.05)
    world.fault = asyncio.Event().wait  # type: ignore[assignment]
    assert (await get(http, "/readyz"))[0] == 503


async def test_a_service_that_ends_lives_and_is_not_ready(http: Http, endpoint: MonitoringEndpoint) -> None:
    endpoint.draining = True
    assert (await get(http, "/readyz"))[0] == 503
    assert (await get(http, "/livez"))[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/v1/status", "/scep/demo"])
async def test_nothing_else_is_there(http: Http, path: str) -> None:
    assert (await get(http, path))[0] == 404
