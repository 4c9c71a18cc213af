"""http-01 for the gateway's own account."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.web.http01 import Http01Endpoint

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


async def ask(path: str, thumbprint: str | None) -> tuple[int, str, bytes]:
    app = web.Application()
    app.add_routes(Http01Endpoint(lambda: SimpleNamespace(http01_thumbprint=thumbprint)).routes())  # type: ignore[arg-type, return-value]
    async with TestClient(TestServer(app)) as client, client.get(path) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_the_key_authorization() -> None:
    status, media_type, body = await ask(f"/.well-known/acme-challenge/{TOKEN}", "thumb")
    assert (status, media_type, body) == (200, "application/octet-stream", f"{TOKEN}.thumb".encode())


@pytest.mark.parametrize(
    ("token", "thumbprint"),
    [(TOKEN, None), ("short", "thumb"), ("<script>alert(1)</script>", "thumb"), (TOKEN + "%0a", "thumb"), ("a" * 257, "thumb")],
    ids=["nobody", "short", "html", "line", "long"],
)
async def test_what_is_not_answered(token: str, thumbprint: str | None) -> None:
    status, _, body = await ask(f"/.well-known/acme-challenge/{token}", thumbprint)
    assert status == 404
    assert token.encode() not in body
