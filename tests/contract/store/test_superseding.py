"""A request that gets another certificate in place of a revoked one keeps what it had reserved, the same over every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import Reason
from gateway.model import RevocationReason
from gateway.store.interfaces import DIGEST, LedgerRow, LedgerState, Opened, OpeningRefused, QuotaTake, Store
from tests.contract.store.rows import (
    NOW,
    certificate_of,
    event,
    issued,
    ledger_row,
    opening,
    reservation,
    transition,
)


async def superseded(store: Store, *, revoked: bool = True) -> LedgerRow:
    """A row that took a one-time challenge and whose certificate was revoked."""
    row = ledger_row(operation="serverkeygen")
    assert await store.open(opening(row, (reservation(),))) == Opened(row)
    certificate = certificate_of(row)
    assert await store.transition(transition(row, certificate=certificate))
    if revoked:
        assert await store.mark_revoked(certificate.sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked"))
    return row


async def test_the_same_request_inherits_what_it_had_reserved(store: Store) -> None:
    first = await superseded(store)
    second = ledger_row(operation="serverkeygen", request_key=first.request_key)
    asked = replace(opening(second, (reservation(),)), supersedes=first.id)
    assert await store.open(asked) == Opened(second)
    assert await store.find_request(first.request_key, NOW) == second
    before = await store.get_row(first.id)
    assert before is not None
    assert before.state is LedgerState.REVOKED


async def test_it_is_given_back_by_whoever_holds_it_now(store: Store) -> None:
    first = await superseded(store)
    second = ledger_row(request_key=first.request_key)
    await store.open(replace(opening(second, (reservation(),)), supersedes=first.id))
    assert await store.transition(transition(second, LedgerState.REJECTED, release=True))
    third = ledger_row()
    assert await store.open(opening(third, (reservation(),))) == Opened(third)


async def test_what_is_refused_inherits_nothing(store: Store) -> None:
    first = await superseded(store)
    full = QuotaTake("device", 0, 60)
    second = ledger_row(request_key=first.request_key)
    asked = replace(opening(second, (reservation(),), (full,)), supersedes=first.id)
    assert await store.open(asked) == OpeningRefused(Reason.RATE_LIMITED)
    assert await store.open(replace(asked, quotas=())) == Opened(second)


@pytest.mark.parametrize("case", ["not named", "another request", "not revoked", "no such row", "a challenge of another row"])
async def test_nobody_else_inherits(store: Store, case: str) -> None:
    first = await superseded(store, revoked=case != "not revoked")
    other, _ = await issued(store)
    second = ledger_row() if case in {"another request", "not revoked"} else ledger_row(request_key=first.request_key)
    named = {
        "not named": None,
        "no such row": ledger_row().id,
        "a challenge of another row": other.id,
    }.get(case, first.id)
    asked = replace(opening(second, (reservation(),)), supersedes=named)
    assert await store.open(asked) == OpeningRefused(Reason.CREDENTIAL_USED)
    assert await store.get_row(second.id) is None


async def test_one_sending_is_no_second_one(store: Store) -> None:
    """A response of HTTP Digest that somebody read along with its request draws no key."""
    first = ledger_row(operation="serverkeygen")
    sending = replace(reservation(), kind=DIGEST)
    assert await store.open(opening(first, (sending,))) == Opened(first)
    certificate = certificate_of(first)
    assert await store.transition(transition(first, certificate=certificate))
    assert await store.mark_revoked(certificate.sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked"))
    second = ledger_row(request_key=first.request_key)
    asked = replace(opening(second, (sending,)), supersedes=first.id)
    assert await store.open(asked) == OpeningRefused(Reason.CREDENTIAL_USED)
    fresh = replace(sending, key="another")
    assert await store.open(replace(asked, reservations=(fresh,))) == Opened(second)
