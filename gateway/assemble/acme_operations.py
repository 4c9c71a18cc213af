"""An operator's operations on ACME as JSON: external accounts, accounts, orders, incidents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from gateway.acme import ExternalAccountPolicy, OrderStatus
from gateway.assemble import acme_views as views
from gateway.assemble.arguments import Arguments, BadArgumentError
from gateway.model import ChallengeType
from gateway.pki.base64url import decode
from gateway.ra.acme.administration import AcmeAdministration, NewExternalAccount
from gateway.store.acme import Affected

T = TypeVar("T")
Operation = Callable[[Arguments, str, Mapping[str, str]], Awaitable[Any]]

MAX_LIMIT = 10000
MAX_COUNT = 10**9
MAX_SERIALS = 150_000
SHA256_BYTES = 32


class AcmeOperations:
    """Runs operations on ACME; `rows` is their part of the table."""

    def __init__(self, administration: AcmeAdministration) -> None:
        self._administration = administration

    def rows(self) -> tuple[tuple[str, str, Operation], ...]:
        """Return method, path and operation."""
        return (
            ("POST", "/v1/eab", self._create),
            ("GET", "/v1/eab", self._list),
            ("POST", "/v1/eab/{id}/revoke", self._revoke),
            ("GET", "/v1/acme/accounts", self._accounts),
            ("POST", "/v1/acme/accounts/{id}/deactivate", self._deactivate),
            ("GET", "/v1/acme/orders", self._orders),
            ("POST", "/v1/incidents/preview", self._preview),
            ("POST", "/v1/incidents", self._declare),
            ("GET", "/v1/incidents", self._incidents),
            ("POST", "/v1/incidents/{id}/withdraw", self._withdraw),
        )

    async def _create(self, arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        made = await self._administration.create_external_account(_wanted(arguments), actor)
        return views.new_external_account(made)

    async def _list(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        rows = await self._administration.list_external_accounts(arguments.optional_text("profile"), _limit(arguments))
        return [views.external_account(row) for row in rows]

    async def _revoke(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        return views.external_account(await self._administration.revoke_external_account(path["id"], actor))

    async def _accounts(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        profile, offset = arguments.optional_text("profile"), arguments.integer("offset", 0, 0, MAX_COUNT)
        return [views.account(row) for row in await self._administration.list_accounts(profile, _limit(arguments), offset)]

    async def _deactivate(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        return views.account(await self._administration.revoke_account(path["id"], actor))

    async def _orders(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        statuses = arguments.members("status", OrderStatus)
        if len(statuses) > 1:
            raise BadArgumentError("status must be one")
        rows = await self._administration.list_orders(
            arguments.optional_text("profile"), statuses[0] if statuses else None, _limit(arguments)
        )
        return [views.order(row) for row in rows]

    async def _preview(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        found = await self._administration.preview_incident(_affected(arguments))
        return {"certificates": found.certificates, "subjects": found.subjects}

    async def _declare(self, arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        url = arguments.optional_text("explanation_url")
        return views.incident(await self._administration.declare_incident(_affected(arguments), url, actor))

    async def _incidents(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        return [views.incident(row) for row in await self._administration.list_incidents(_limit(arguments))]

    async def _withdraw(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        await self._administration.withdraw_incident(path["id"], actor)
        return {"id": path["id"], "withdrawn": True}


def _wanted(arguments: Arguments) -> NewExternalAccount:
    validity = arguments.optional_integer("max_validity", 1, 10**10)
    ttl = arguments.optional_integer("ttl", 1, 10**10)
    accounts = arguments.optional_integer("max_accounts", 0, MAX_COUNT)
    policy = ExternalAccountPolicy(
        dns=arguments.texts("dns") or (),
        ip=arguments.texts("ip") or (),
        wildcards=arguments.flag("wildcards") is not False,
        key_types=_some(arguments.texts("key_types")),
        challenges=_challenges(arguments),
        mode=arguments.optional_text("mode"),
        max_validity=None if validity is None else timedelta(seconds=validity),
        max_identifiers=arguments.optional_integer("max_identifiers", 1, MAX_COUNT),
        max_accounts=1 if accounts is None else accounts or None,
        max_certificates=arguments.optional_integer("max_certificates", 1, MAX_COUNT),
    )
    return NewExternalAccount(
        profile=arguments.text("profile"),
        policy=policy,
        owner=arguments.optional_text("owner"),
        ttl=None if ttl is None else timedelta(seconds=ttl),
        kid=arguments.optional_text("kid"),
        key=_key(arguments),
    )


def _affected(arguments: Arguments) -> Affected:
    return Affected(
        profile=arguments.optional_text("profile"),
        upstream_ca=arguments.optional_text("upstream_ca"),
        serials=_serials(arguments),
        public_key_sha256=_digest(arguments, "public_key_sha256"),
    )


def _challenges(arguments: Arguments) -> frozenset[ChallengeType] | None:
    names = arguments.texts("challenges")
    try:
        return _some(None if names is None else tuple(ChallengeType(name) for name in names))
    except ValueError:
        raise BadArgumentError(f"challenges must be of: {', '.join(ChallengeType)}") from None


def _key(arguments: Arguments) -> bytes | None:
    text = arguments.optional_text("key")
    try:
        return None if text is None else decode(text)
    except ValueError:
        raise BadArgumentError("key must be base64url without padding") from None


def _serials(arguments: Arguments) -> frozenset[int] | None:
    texts = arguments.texts("serials", MAX_SERIALS)
    try:
        return None if texts is None else frozenset(int(text.replace(":", ""), 16) for text in texts)
    except ValueError:
        raise BadArgumentError("serials must be serials in hex") from None


def _digest(arguments: Arguments, name: str) -> bytes | None:
    text = arguments.optional_text(name)
    try:
        found = None if text is None else bytes.fromhex(text.replace(":", ""))
    except ValueError:
        found = b""
    if found is not None and len(found) != SHA256_BYTES:
        raise BadArgumentError(f"{name} must be a SHA-256 in hex")
    return found


def _some(values: tuple[T, ...] | None) -> frozenset[T] | None:
    return frozenset(values) if values else None


def _limit(arguments: Arguments) -> int:
    return arguments.integer("limit", 100, 1, MAX_LIMIT)
