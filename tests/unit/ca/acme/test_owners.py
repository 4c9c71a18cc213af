"""Which request an order serves, where the store is away or forgets."""

from __future__ import annotations

import pytest

from gateway.ca.acme.owners import OrderOwners, claim_name
from gateway.ca.claims import OwnClaims
from gateway.ca.interfaces import NotSent
from gateway.errors import StoreUnavailable

URL = "https://ca.example/order/7"


class Flaky(OwnClaims):
    """Claims whose store may be away."""

    away = False
    taken = 0

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        if self.away:
            raise StoreUnavailable("the disk is full")
        self.taken += 1
        return await super().take(name, holder, seconds)

    async def give_back(self, name: str, holder: str) -> None:
        if self.away:
            raise StoreUnavailable("the disk is full")
        await super().give_back(name, holder)


async def test_the_store_is_asked_once_for_a_while() -> None:
    claims = Flaky()
    owners = OrderOwners(claims)
    for _ in range(3):
        assert await owners.claim(URL, "one")
    assert claims.taken == 1
    assert not await owners.claim(URL, "other")


async def test_nothing_is_taken_while_the_store_is_away() -> None:
    claims = Flaky()
    owners, others = OrderOwners(claims), OrderOwners(claims)
    claims.away = True
    with pytest.raises(NotSent, match="the store cannot tell"):
        await owners.claim(URL, "one")
    claims.away = False
    assert await others.claim(URL, "other")
    assert not await owners.claim(URL, "one")


async def test_what_was_given_back_is_anybodys_unless_the_store_was_away() -> None:
    claims = Flaky()
    owners = OrderOwners(claims)
    assert await owners.claim(URL, "one")
    claims.away = True
    await owners.give_back(URL, "one")
    claims.away = False
    assert not await owners.claim(URL, "other")
    await owners.give_back(URL, "one")
    assert await owners.claim(URL, "other")


def test_names_show_no_url() -> None:
    assert URL not in claim_name("order", URL)
    assert claim_name("order", URL) != claim_name("proof", URL)
