"""The admin socket: an operator's commands as JSON over HTTP on a unix socket that file mode and kernel protect."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.web.middleware import BODY
from gateway.web.peer import local_user


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """One command; `arguments` are JSON values or text from a query, `actor` whom the kernel named."""

    method: str
    path: str
    arguments: Mapping[str, Any]
    actor: str


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    """An HTTP status and a JSON body; a refusal's body has its sentence under `error`."""

    status: int
    body: Any


Dispatch = Callable[[AdminRequest], Awaitable[AdminAnswer]]


class AdminEndpoint:
    """Hands every request under `/v1/` to the table of operations, with the user whom the kernel names."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.route("*", "/v1/{path:.*}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one command."""
        user = local_user(request)
        if user is None:
            return _answer(AdminAnswer(403, {"error": "only local users may use the admin socket"}))
        try:
            body: Any = json.loads(request[BODY] or b"{}")
        except (ValueError, RecursionError):
            return _answer(AdminAnswer(400, {"error": "the body is not JSON"}))
        if not isinstance(body, dict):
            return _answer(AdminAnswer(400, {"error": "the body is not a JSON object"}))
        asked = AdminRequest(request.method, f"/v1/{request.match_info['path']}", {**request.query, **body}, user.actor)
        return _answer(await self._dispatch(asked))


def _answer(answer: AdminAnswer) -> web.Response:
    return web.json_response(answer.body, status=answer.status)
