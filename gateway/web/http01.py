"""Answers http-01 for the gateway's own account at an upstream ACME CA (RFC 8555 §8.3).

What is to be answered follows from the token that is asked for and the account's key, so every worker answers alike and nothing
is kept. It proves control to the CA for orders of that account alone, and these the gateway places only for what it has granted.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

from gateway.web.generation import Generation
from gateway.web.middleware import plain
from gateway.wire.acme.challenges import HTTP_PATH, key_authorization

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)


class Http01Endpoint:
    """`/.well-known/acme-challenge/{token}`."""

    def __init__(self, current: Callable[[], Generation]) -> None:
        self._current = current

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get(f"{HTTP_PATH}{{token}}", self.get)]

    async def get(self, request: web.Request) -> web.Response:
        """Return the key authorization; 404 where no upstream CA proves names here, or for what is no token."""
        thumbprint, token = self._current().http01_thumbprint, request.match_info["token"]
        if thumbprint is None or _TOKEN.fullmatch(token) is None:
            return plain(404, "there is nothing here")
        body = key_authorization(token, thumbprint).encode("ascii")
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=body, content_type="application/octet-stream", headers=headers)
