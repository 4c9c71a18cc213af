"""Worlds for the tests of enrollment; each is closed and its audit chain verified at the end."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import verify_chain
from gateway.ca.interfaces import Capability
from gateway.ra.timing import Timing
from tests.contract.store.rows import audit_rows
from tests.flow.enrollment.acme_world import AcmeWorld
from tests.flow.enrollment.world import AUDIT_KEY, QUICK, FaultyCA, World

NewWorld = Callable[..., World]
NewAcmeWorld = Callable[..., AcmeWorld]


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[NewWorld]:
    worlds: list[World] = []

    def make(capabilities: Capability = Capability.NONE, timing: Timing = QUICK) -> World:
        world = World(tmp_path, FaultyCA(tmp_path / "ca", capabilities), timing=timing)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        if world.stores:
            report = verify_chain(audit_rows(world.store), AUDIT_KEY, ())
            assert not report.problems
        await world.close()


@pytest.fixture
async def new_acme_world(tmp_path: Path) -> AsyncIterator[NewAcmeWorld]:
    worlds: list[AcmeWorld] = []

    def make(capabilities: Capability = Capability.NONE, timing: Timing = QUICK, **config: Any) -> AcmeWorld:
        world = AcmeWorld(tmp_path, FaultyCA(tmp_path / "ca", capabilities), timing)
        world.config |= config
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        if world.stores:
            assert not verify_chain(audit_rows(world.store), AUDIT_KEY, ()).problems
        await world.close()
