"""A group whose members change while requests are in doubt: no member's work is forgotten, and none is done twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.ca.group import GroupCA
from gateway.model import Issued, Pending, UpstreamCAName
from gateway.store.interfaces import LedgerState
from tests.flow.enrollment.world import FIND, POLL, FaultyCA, World

PAIR = UpstreamCAName("pair")
LATER = timedelta(minutes=20)


def member(folder: Path, name: str) -> FaultyCA:
    return FaultyCA(folder / name, FIND | POLL, UpstreamCAName(name))


@pytest.fixture
def cas(tmp_path: Path) -> tuple[Any, Any, Any]:
    return member(tmp_path, "north"), member(tmp_path, "south"), member(tmp_path, "east")


@pytest.mark.parametrize("fault", ["lost after", "pending"])
async def test_a_member_that_is_gone_leaves_its_requests_in_doubt(tmp_path: Path, cas: tuple[Any, Any, Any], fault: str) -> None:
    north, south, east = cas
    world = World(tmp_path, GroupCA(PAIR, (north, south)))
    authority = await world.start()
    north.faults, north.find_faults = [fault], ["lost"] * 20
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    north.find_faults = []
    world.ca = GroupCA(PAIR, (south, east))
    for _ in range(4):
        world.clock.advance(LATER)
        await authority.recover(world.snapshot)
        assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    assert (south.issued(), east.issued()) == ([], [])
    world.ca = GroupCA(PAIR, (east, north))
    world.clock.advance(LATER)
    await authority.recover(world.snapshot)
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    assert [*north.issued(), *south.issued(), *east.issued()] == [outcome.certificate]
    await world.close()


async def test_what_waits_in_the_queue_goes_to_the_members_of_the_day(tmp_path: Path, cas: tuple[Any, Any, Any]) -> None:
    north, south, east = cas
    for ca in cas:
        ca.queue = timedelta(hours=1)
    north.down = south.down = True
    world = World(tmp_path, GroupCA(PAIR, (north, south)))
    authority = await world.start()
    assert isinstance(await authority.enroll(world.snapshot, world.request()), Pending)
    world.ca = GroupCA(PAIR, (south, east))
    east.faults = ["lost before"]
    south.find_faults = []
    world.clock.advance(LATER)
    await authority.recover(world.snapshot)
    [row] = await world.rows()
    assert (row.state, row.upstream_reference) == (LedgerState.UNKNOWN, "south,east/")
    south.down = False
    for _ in range(3):
        world.clock.advance(LATER)
        await authority.recover(world.snapshot)
    outcome = await authority.enroll(world.snapshot, world.request())
    assert isinstance(outcome, Issued)
    assert [*north.issued(), *south.issued(), *east.issued()] == [outcome.certificate]
    await world.close()
