"""An operator's operations on CMP as JSON: shared secrets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from gateway.assemble.arguments import Arguments, BadArgumentError
from gateway.cmp import SharedSecret
from gateway.pki.base64url import decode
from gateway.ra.cmp.administration import CmpAdministration, NewSecret

Operation = Callable[[Arguments, str, Mapping[str, str]], Awaitable[Any]]

MAX_LIMIT = 10000
MAX_COUNT = 10**9
MAX_SECONDS = 10**10


class CmpOperations:
    """Runs operations on CMP; `rows` is their part of the table."""

    def __init__(self, administration: CmpAdministration) -> None:
        self._administration = administration

    def rows(self) -> tuple[tuple[str, str, Operation], ...]:
        """Return method, path and operation."""
        return (
            ("POST", "/v1/cmp-secrets", self._create),
            ("GET", "/v1/cmp-secrets", self._list),
            ("POST", "/v1/cmp-secrets/{id}/revoke", self._revoke),
        )

    async def _create(self, arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        wanted = _wanted(arguments)
        made = await self._administration.create_secret(wanted, actor)
        return view(made) | ({"secret": made.secret.decode()} if wanted.secret is None else {})

    async def _list(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        limit = arguments.integer("limit", 100, 1, MAX_LIMIT)
        return [view(row) for row in await self._administration.list_secrets(arguments.optional_text("profile"), limit)]

    async def _revoke(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        await self._administration.revoke_secret(path["id"], actor)
        return {"id": path["id"], "revoked": True}


def view(row: SharedSecret) -> dict[str, Any]:
    """Return a shared secret as operators see it, without what is secret."""
    names = row.binding.sans
    return {
        "id": row.id,
        "profile": row.profile,
        "reference": row.reference.decode(),
        "uses": row.uses,
        "max_uses": row.max_uses,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "subject": row.binding.subject,
        "sans": None if names is None else sorted(f"{kind}:{value}" for kind, value in names),
        "owner": row.owner,
    }


def _wanted(arguments: Arguments) -> NewSecret:
    ttl = arguments.optional_integer("ttl", 1, MAX_SECONDS)
    return NewSecret(
        profile=arguments.text("profile"),
        reference=arguments.optional_text("reference"),
        secret=_secret(arguments),
        uses=arguments.integer("uses", 1, 1, MAX_COUNT),
        ttl=None if ttl is None else timedelta(seconds=ttl),
        subject=arguments.optional_text("subject"),
        sans=arguments.sans("sans"),
        owner=arguments.optional_text("owner"),
    )


def _secret(arguments: Arguments) -> bytes | None:
    """Return the secret that clients have already, which comes as base64url: it may be any bytes."""
    text = arguments.optional_text("secret")
    if text is None:
        return None
    try:
        return decode(text)
    except ValueError:
        raise BadArgumentError("secret must be base64url") from None
