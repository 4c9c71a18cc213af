"""What a configuration may not let go, since requests would be left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.assemble import departures
from gateway.assemble.departures import find_departures, find_left_behind
from gateway.config.remote_cas import CfsslCA, GroupCA
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.model import UpstreamCAName
from gateway.store.interfaces import LedgerState, Store, WaitingFor
from gateway.store.sqlite import SqliteStore, migrate
from tests.contract.store.rows import ledger_row, opening, transition
from tests.flow.enrollment.world import AUDIT_KEY, KEYS

NORTH = CfsslCA.model_validate(
    {"type": "cfssl", "url": "https://north.example", "chain": ["ca.pem"], "profile": "devices"}, strict=False
)


def group(*members: str) -> GroupCA:
    return GroupCA(type="group", members=members)


PAIR: dict[str, UpstreamCAConfig] = {"north": NORTH, "south": NORTH, "east": NORTH, "pair": group("north", "south")}
IN_DOUBT = {"to": LedgerState.UNKNOWN}
PENDING = {"to": LedgerState.PENDING, "waiting_for": WaitingFor.UPSTREAM}


async def leave(store: Store, ca: str, *, reference: str | None = None, **change: Any) -> str:
    """Leave one request behind, and return its ID."""
    row = replace(ledger_row(), upstream_ca=UpstreamCAName(ca))
    await store.open(opening(row))
    await store.transition(transition(row, change.pop("to"), upstream_reference=reference, **change))
    return row.id


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    migrate(tmp_path / "gateway.db", KEYS, AUDIT_KEY)
    store = SqliteStore(tmp_path / "gateway.db", KEYS, AUDIT_KEY, "w1", lambda _: None)
    await store.start()
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"pair": group("south", "north", "east")}, [], id="another order, and one more"),
        pytest.param({"pair": group("south", "east")}, [("pair", {"north"})], id="a member"),
        pytest.param({"pair": None, "other": group("north", "south")}, [("pair", None)], id="another name"),
        pytest.param({"pair": NORTH}, [("pair", None)], id="no group any more"),
        pytest.param({"east": group("north", "south")}, [("east", None)], id="a group now"),
        pytest.param({"east": None}, [("east", None)], id="a CA"),
    ],
)
def test_what_goes(change: dict[str, UpstreamCAConfig | None], found: list[tuple[str, set[str] | None]]) -> None:
    new = {name: ca for name, ca in (PAIR | change).items() if ca is not None}
    assert [(each.name, each.members and set(each.members)) for each in find_departures(PAIR, new)] == found


@pytest.mark.parametrize(
    ("reference", "left", "stays"),
    [
        pytest.param("north,south/", IN_DOUBT, True, id="in doubt, at any"),
        pytest.param(None, IN_DOUBT, True, id="in doubt, nobody knows where"),
        pytest.param("south,east/", IN_DOUBT, False, id="in doubt, elsewhere"),
        pytest.param("north/job", PENDING, True, id="pending there"),
        pytest.param("south/job", PENDING, False, id="pending elsewhere"),
        pytest.param("north,south/", PENDING | {"waiting_for": WaitingFor.APPROVAL}, False, id="waits for approval"),
        pytest.param("north,south/", {"to": LedgerState.OPEN}, False, id="under way"),
        pytest.param("north,south/", {"to": LedgerState.REJECTED}, False, id="ended"),
    ],
)
async def test_a_member_stays_that_may_have_requests(
    store: Store, reference: str | None, left: dict[str, Any], stays: bool
) -> None:
    id = await leave(store, "pair", reference=reference, **left)
    await leave(store, "other", reference=reference, **left)
    new = PAIR | {"pair": group("south", "east")}
    found = await find_left_behind(find_departures(PAIR, new), store)
    if not stays:
        assert found == ()
        return
    [sentence] = found
    assert sentence.startswith(
        f"upstream_cas.pair.members: north cannot go while requests are in doubt or pending there ({id}): "
    )


async def test_the_name_of_a_ca_stays_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "PAGE", 2)
    ids = [await leave(store, "east", reference="job", **PENDING) for _ in range(5)]
    await leave(store, "north", **IN_DOUBT)
    [sentence] = await find_left_behind(find_departures(PAIR, {name: ca for name, ca in PAIR.items() if name != "east"}), store)
    assert sentence.startswith(f"upstream_cas.east: it cannot go while requests are in doubt or pending there ({ids[-1]}, ")
    assert "..." in sentence
