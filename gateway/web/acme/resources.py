"""Which resource a path is of, below which directory (RFC 8555 §7.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from gateway.metrics.registry import Operation
from gateway.model import ProfileName
from gateway.web.acme.requests import Addressed, Signer
from gateway.web.generation import AcmeService
from gateway.wire.acme import urls
from gateway.wire.acme.urls import Urls

ROOT = "/acme/"
READ = ("GET", "HEAD")
PATHS = (
    f"{ROOT}{{profile}}/{{resource:.*}}",
    "/{folder:(?:[^/]+/)*}{resource:(?:directory|new-nonce|new-account|new-order|new-authz|revoke-cert|key-change)}",
    "/{folder:(?:[^/]+/)*}{resource:(?:acct|order|authz|chall|cert|renewal-info)/.+}",
)
"""Of directories by their profiles, and of those that go on under the URLs of another server."""

_ID = re.compile(r"[A-Za-z0-9_.=-]{1,128}", re.ASCII)
_CURSOR = re.compile(r"cursor=([A-Za-z0-9_-]{1,128})", re.ASCII)
_MOST_PARTS = 3


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of resource: its name in log and metrics, how it is asked for, and by whom."""

    name: str
    signer: Signer = Signer.ACCOUNT
    methods: tuple[str, ...] = ("POST",)


DIRECTORY = Resource("directory", methods=(*READ, "POST"))
NEW_NONCE = Resource("newNonce", methods=(*READ, "POST"))
NEW_ACCOUNT = Resource(Operation.NEW_ACCOUNT, Signer.KEY)
ACCOUNT = Resource(Operation.ACCOUNT)
ORDERS = Resource(Operation.ORDERS)
KEY_CHANGE = Resource(Operation.KEY_CHANGE)
NEW_ORDER = Resource(Operation.NEW_ORDER)
ORDER = Resource(Operation.ORDER)
FINALIZE = Resource(Operation.FINALIZE)
NEW_AUTHORIZATION = Resource(Operation.NEW_AUTHORIZATION)
AUTHORIZATION = Resource(Operation.AUTHORIZATION)
CHALLENGE = Resource(Operation.CHALLENGE)
CERTIFICATE = Resource(Operation.CERTIFICATE)
REVOKE_CERT = Resource(Operation.REVOKE_CERT, Signer.EITHER)
RENEWAL_INFO = Resource(Operation.ACME_RENEWAL_INFO, methods=READ)

_VARIABLE = ""
_RESOURCES: Mapping[tuple[str, ...], Resource] = {
    (urls.DIRECTORY,): DIRECTORY,
    (urls.NEW_NONCE,): NEW_NONCE,
    (urls.NEW_ACCOUNT,): NEW_ACCOUNT,
    (urls.NEW_ORDER,): NEW_ORDER,
    (urls.NEW_AUTHZ,): NEW_AUTHORIZATION,
    (urls.REVOKE_CERT,): REVOKE_CERT,
    (urls.KEY_CHANGE,): KEY_CHANGE,
    (urls.ACCOUNT, _VARIABLE): ACCOUNT,
    (urls.ACCOUNT, _VARIABLE, urls.ORDERS): ORDERS,
    (urls.ORDER, _VARIABLE): ORDER,
    (urls.ORDER, _VARIABLE, urls.FINALIZE): FINALIZE,
    (urls.AUTHORIZATION, _VARIABLE): AUTHORIZATION,
    (urls.CHALLENGE, _VARIABLE, _VARIABLE): CHALLENGE,
    (urls.CERTIFICATE, _VARIABLE): CERTIFICATE,
    (urls.CERTIFICATE, _VARIABLE, _VARIABLE): CERTIFICATE,
    (urls.RENEWAL_INFO, _VARIABLE): RENEWAL_INFO,
}


class Target(NamedTuple):
    """What a request is for; `resource` is None where the directory has no such thing."""

    at: Addressed
    resource: Resource | None


class Folders:
    """The folders of all directories of one generation: by profile, and those of other URLs that they have."""

    def __init__(self, services: Mapping[ProfileName, AcmeService]) -> None:
        self.services = services
        self._others: dict[str, list[tuple[str, str, AcmeService]]] = {}
        for service in services.values():
            for base in (service.base, *service.aliases):
                parts = urlsplit(base)
                self._others.setdefault(f"{parts.path}/", []).append((_authority(parts.netloc), base, service))

    def find(self, request: web.BaseRequest) -> Target | None:
        """Return what a request is for; None where no directory is."""
        path, _, query = _raw_target(request).partition("?")
        host = _authority(request.headers.get("Host", ""))
        if path.startswith(ROOT):
            profile, _, rest = path[len(ROOT) :].partition("/")
            service = self.services.get(ProfileName(profile))
            if service is not None:
                return _target(service, self._known_as(f"{ROOT}{profile}/", host, service), rest, query)
        return self._find_other(path, query, host)

    def _known_as(self, folder: str, host: str, service: AcmeService) -> str:
        """Return the URL by which a client that says `host` knows a folder: a configured one, whatever it says."""
        for authority, base, served in self._others.get(folder, ()):
            if served is service and authority == host:
                return base
        return service.base

    def _find_other(self, path: str, query: str, host: str) -> Target | None:
        parts = path.split("/")
        for count in range(1, min(_MOST_PARTS, len(parts) - 1) + 1):
            folder = "/".join(parts[:-count]) + "/"
            for authority, base, service in self._others.get(folder, ()):
                target = _target(service, base, "/".join(parts[-count:]), query)
                if target.resource is not None and authority == host:
                    return target
        return None


def _target(service: AcmeService, base: str, path: str, query: str) -> Target:
    parts = path.split("/")
    resource, ids = _find_resource(parts)
    cursor = _CURSOR.fullmatch(query)
    if query and not (cursor and resource is ORDERS):
        resource = None
    whole = f"{path}?{query}" if query else path
    return Target(Addressed(service, Urls(base), whole, ids, cursor[1] if cursor else None), resource)


def _find_resource(parts: list[str]) -> tuple[Resource | None, tuple[str, ...]]:
    """Return the resource and the variable parts of its path."""
    if len(parts) > _MOST_PARTS:
        return None, ()
    first, *rest = parts
    last = rest[1:]
    for pattern in ((first,), (first, _VARIABLE), (first, _VARIABLE, *last), (first, _VARIABLE, _VARIABLE)):
        resource = _RESOURCES.get(pattern)
        if resource is None or len(pattern) != len(parts):
            continue
        ids = tuple(part for part, kind in zip(parts, pattern, strict=True) if kind == _VARIABLE)
        if all(_ID.fullmatch(id) for id in ids):
            return resource, ids
    return None, ()


def _raw_target(request: web.BaseRequest) -> str:
    """Return path and query as they came, with which the signed URL is compared to the letter (RFC 8555 §6.4)."""
    raw = request.raw_path
    if raw.startswith("/"):
        return raw
    parts = urlsplit(raw)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _authority(netloc: str) -> str:
    """Return host and port as they compare; 443 is what https means anyway."""
    return netloc.lower().removesuffix(":443")
