"""A world with CMP; closed and its audit chain verified at the end."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.audit import verify_chain
from gateway.ca.interfaces import Capability
from tests.contract.store.rows import audit_rows
from tests.flow.cmp.cmp_world import CmpCA, CmpWorld
from tests.flow.enrollment.world import AUDIT_KEY


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CmpWorld]:
    world = CmpWorld(tmp_path, CmpCA(tmp_path / "ca", Capability.REVOKE | Capability.FIND | Capability.POLL))
    await world.begin()
    yield world
    assert not verify_chain(audit_rows(world.store), AUDIT_KEY, ()).problems
    await world.close()
