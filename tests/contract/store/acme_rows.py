"""ACME's objects that a store test needs, each different from the last, every field overridable."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from gateway.acme import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    ExternalAccount,
    ExternalAccountPolicy,
    Order,
    OrderStatus,
)
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.store.acme import Attempt, NewOrder, OrderChange
from gateway.store.interfaces import QuotaTake, Store
from tests.contract.store.rows import LEASE, NOW, PROFILE, event

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
WEEK = timedelta(days=7)
CREATED = event("acme.account.created", "granted", actor="acme:a")
CHANGED = event("acme.account.changed", "granted", actor="acme:a")
ORDERED = event("acme.order.created", "granted", actor="acme:a")
FINALIZED = event("acme.order.finalized", "pending", actor="acme:a")
BEGUN = event("acme.validation.begun", "pending", actor="acme:a")
ENDED = event("acme.validation.ended", "granted", actor="acme:a")
BOUND = event("eab.created", "done", actor="uid:0 (root)")

_numbers = itertools.count(1)


def dns(value: str) -> Identifier:
    return Identifier(IdentifierType.DNS, value)


def account(**fields: Any) -> Account:
    number = next(_numbers)
    base: dict[str, Any] = {
        "id": f"account-{number}",
        "profile": PROFILE,
        "status": AccountStatus.VALID,
        "thumbprint": f"thumbprint-{number}",
        "jwk": f'{{"kty":"OKP","x":"{number}"}}',
        "contact": ("mailto:admin@example.com",),
        "terms": None,
        "external_account": None,
        "binding": None,
        "source": "192.0.2.1",
        "created_at": NOW,
    }
    return Account(**(base | fields))


def external_account(**fields: Any) -> ExternalAccount:
    number = next(_numbers)
    base: dict[str, Any] = {
        "kid": f"kid-{number}",
        "profile": PROFILE,
        "key": b"external account key %d" % number,
        "policy": ExternalAccountPolicy(),
        "owner": None,
        "created_at": NOW,
        "created_by": "uid:0 (root)",
        "expires_at": None,
    }
    return ExternalAccount(**(base | fields))


def challenges() -> tuple[Challenge, ...]:
    number = next(_numbers)
    return (
        Challenge(f"http-{number}", ChallengeType.HTTP_01, f"token-{number}"),
        Challenge(f"dns-{number}", ChallengeType.DNS_01, f"token-{number}b"),
    )


def authorization(of: Account, name: str = "device.example", **fields: Any) -> Authorization:
    number = next(_numbers)
    base: dict[str, Any] = {
        "id": f"authorization-{number}",
        "account": of.id,
        "profile": of.profile,
        "identifier": dns(name),
        "wildcard": False,
        "subdomains": False,
        "status": AuthorizationStatus.PENDING,
        "challenges": challenges(),
        "created_at": NOW,
        "expires_at": NOW + WEEK,
    }
    return Authorization(**(base | fields))


def order(of: Account, *authorizations: Authorization, **fields: Any) -> Order:
    number = next(_numbers)
    base: dict[str, Any] = {
        "id": f"order-{number}",
        "account": of.id,
        "directory": of.profile,
        "profile": of.profile,
        "asked_profile": None,
        "status": OrderStatus.PENDING,
        "identifiers": tuple(one.identifier for one in authorizations),
        "authorizations": tuple(one.id for one in authorizations),
        "not_before": None,
        "not_after": None,
        "replaces": None,
        "replaces_sha256": None,
        "created_at": NOW,
        "expires_at": NOW + WEEK,
        "source": "192.0.2.1",
    }
    return Order(**(base | fields))


def new_order(row: Order, *authorizations: Authorization, quotas: tuple[QuotaTake, ...] = ()) -> NewOrder:
    return NewOrder(row, authorizations, quotas, ORDERED)


def order_change(row: Order, to: OrderStatus, **fields: Any) -> OrderChange:
    base: dict[str, Any] = {"id": row.id, "expected": frozenset({row.status}), "to": to, "at": NOW + SECOND, "audit": FINALIZED}
    return OrderChange(**(base | fields))


def attempt(row: Authorization, status: ChallengeStatus, **fields: Any) -> Attempt:
    base: dict[str, Any] = {
        "authorization": row.id,
        "challenge": row.challenges[0].id,
        "worker": "w1",
        "status": status,
        "at": NOW + SECOND,
        "audit": ENDED,
    }
    return Attempt(**(base | fields))


async def registered(store: Store, **fields: Any) -> Account:
    """Add one account that nothing stands against."""
    row = account(**fields)
    assert await store.add_account(row, (), CREATED) == row
    return row


async def ordered(store: Store, of: Account, *names: str, **fields: Any) -> tuple[Order, tuple[Authorization, ...]]:
    """Add one order with an authorization for each name."""
    rows = tuple(authorization(of, name) for name in names or ("device.example",))
    row = order(of, *rows, **fields)
    assert await store.add_order(new_order(row, *rows)) == row
    return row, rows


async def begun(store: Store, row: Authorization, worker: str = "w1", **fields: Any) -> Authorization:
    """Begin to try the first challenge of an authorization."""
    asked: dict[str, Any] = {"payload": {}, "lease_until": LEASE, "at": NOW} | fields
    found = await store.begin_validation(
        row.id, row.challenges[0].id, asked["payload"], "192.0.2.9", worker, asked["lease_until"], asked["at"], BEGUN
    )
    assert found is not None
    return found


async def validated(
    store: Store, row: Authorization, status: ChallengeStatus = ChallengeStatus.VALID, **fields: Any
) -> Authorization:
    """Try the first challenge of an authorization, to this end."""
    await begun(store, row)
    found = await store.end_attempt(attempt(row, status, **fields))
    assert found is not None
    return found


async def made_ready(store: Store, of: Account, **fields: Any) -> Order:
    """Add one order whose only authorization is valid."""
    row, (needed,) = await ordered(store, of, **fields)
    await validated(store, needed)
    found = await store.find_order(row.id)
    assert found is not None
    assert found.status is OrderStatus.READY
    return found
