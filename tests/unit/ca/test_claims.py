"""Claims of a process that shares nothing."""

from __future__ import annotations

import pytest

from gateway.ca import claims
from gateway.ca.claims import OwnClaims


async def test_a_claim_is_its_holders_until_it_lapses_or_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(claims, "monotonic", lambda: now)
    own = OwnClaims()
    assert await own.take("a", "one", 10)
    assert not await own.take("a", "other", 10)
    assert await own.take("b", "other", 10)
    now = 105.0
    assert await own.take("a", "one", 10)
    now = 114.0
    assert not await own.take("a", "other", 10)
    await own.give_back("a", "other")
    assert not await own.take("a", "other", 10)
    await own.give_back("a", "one")
    assert await own.take("a", "other", 10)
    now = 125.0
    assert await own.take("a", "one", 10)
