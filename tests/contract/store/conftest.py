"""Every store that the contract suite runs over, opened and empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.audit import AuditHead
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, migrate

KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32

Open = Callable[[str], Awaitable[Store]]


@pytest.fixture
def heads() -> list[AuditHead]:
    return []


@pytest.fixture(params=["sqlite"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path, heads: list[AuditHead]) -> AsyncIterator[Open]:
    """Opens the same store again under another worker's name."""
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    opened: list[Store] = []

    async def open_one(worker: str) -> Store:
        store = SqliteStore(path, KEYS, AUDIT_KEY, worker, heads.append)
        await store.start()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> Store:
    return await open_store("w1")
