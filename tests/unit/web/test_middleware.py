"""What goes wrong inside is told to clients in words that name nothing inside."""

from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.errors import KeyUnavailable
from gateway.web.middleware import BodyLimits, InFlight, guard


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (KeyUnavailable("token gateway is away", 17), 503, "17"),
        (RuntimeError("token gateway is away"), 500, None),
        (web.HTTPNotFound(), 404, None),
    ],
    ids=["a key out of reach", "a mistake of ours", "nothing there"],
)
async def test_failures_inside(failure: Exception, status: int, retry_after: str | None) -> None:
    async def fail(_: web.Request) -> web.Response:
        raise failure

    places = InFlight(1)
    app = web.Application(middlewares=[guard(BodyLimits(1000, timedelta(seconds=5)), places, frozenset())])
    app.router.add_get("/", fail)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/")
        assert (answer.status, answer.headers.get("Retry-After")) == (status, retry_after)
        assert "token" not in await answer.text()
    assert places.count == 0
