"""Which service and operation a path means; configured aliases come and go with a reload (RFC 9811 §3.3, RFC 9483 §6.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from gateway.cmp import PATH_OPERATIONS
from gateway.config.cmp import CMP_ROOT
from gateway.web.generation import CmpService

PATH = f"/{CMP_ROOT}{{rest:(?:/.*)?}}"
ALIASES = "/{alias:.*}"
_MOST_SEGMENTS = 24
"""More than any path that is served; a request line may hold tens of thousands of slashes."""

Services = Mapping[str, CmpService]


class Target(NamedTuple):
    """What a request is for; `operation` is None where its path names none."""

    service: CmpService
    operation: str | None


def find_target(services: Services, path: str) -> Target | None:
    """Return what a path means; None where nothing is.

    A slash at the end changes nothing (RFC 9811 §3.3), nor do two in place of one: OpenSSL's users write both.
    """
    if path.count("/") > _MOST_SEGMENTS:
        return None
    segments = [segment for segment in path.split("/") if segment]
    service = services.get("/".join(segments))
    if service is not None:
        return Target(service, None)
    if not segments or segments[-1] not in PATH_OPERATIONS:
        return None
    service = services.get("/".join(segments[:-1]))
    return None if service is None else Target(service, segments[-1])


class AliasRoute(web.RouteDef):
    """The paths of the generation in force that are not below `/.well-known/cmp`; all others go on to what is served there.

    Its argument `current` returns the services of the moment.
    """

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        """Register a resource that is there for configured paths alone."""
        resource = _AliasResource(self.path, self.kwargs["current"])
        router.register_resource(resource)
        return [resource.add_route(self.method, self.handler)]


class _AliasResource(web.DynamicResource):
    """Matches what the services of the moment are reached by, and nothing else."""

    def __init__(self, path: str, current: Callable[[], Services]) -> None:
        super().__init__(path)
        self._current = current

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        """Match a request whose path means a service."""
        services = self._current()
        if not services or find_target(services, request.rel_url.path_safe) is None:
            return None, set()
        return await super().resolve(request)
