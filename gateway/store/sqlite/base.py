"""The file of the store while it is open: short reads on the loop, one group-committing writer, and the store's own life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from gateway.audit import AuditHead
from gateway.errors import StoreUnavailable
from gateway.store.keys import KeyRing
from gateway.store.rows import to_micros
from gateway.store.sqlite import expiry
from gateway.store.sqlite.acme.nonces import UsedNonces
from gateway.store.sqlite.files import check_usable
from gateway.store.sqlite.heads import HeadSigner
from gateway.store.sqlite.reader import Readers
from gateway.store.sqlite.transaction import Queries, Transaction
from gateway.store.sqlite.writer import GroupWriter
from gateway.tracing import span

T = TypeVar("T")


class OpenFile:
    """One SQLite file, shared by the workers of one machine.

    `worker` names this process. `on_head` gets signed audit heads on a thread of the store: every `head_interval`
    seconds in which rows were written, and at the end. `timeout` bounds, in seconds, how long a write may take.
    """

    def __init__(
        self,
        path: Path,
        keys: KeyRing,
        audit_key: bytes,
        worker: str,
        on_head: Callable[[AuditHead], None],
        *,
        head_interval: float = 60.0,
        timeout: float = 10.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        """The database file."""
        self._keys = keys
        self._audit_key = audit_key
        self._worker = worker
        self._clock = clock
        self._timeout = timeout
        self._heads = HeadSigner(audit_key, on_head, head_interval, clock)
        self._nonces = UsedNonces(path, clock)
        self._readers: Readers | None = None
        self._writer: GroupWriter | None = None

    async def start(self) -> None:
        """Open; raises StoreRefused when there is no store, or schema or keys are not ours, and StoreUnavailable."""
        await asyncio.to_thread(check_usable, self.path, self._keys, self._audit_key, self._timeout)
        await asyncio.to_thread(self._nonces.prepare)
        self._readers = Readers(self.path)
        self._writer = GroupWriter(self.path, self._audit_key, self._timeout, self._heads.note)
        self._writer.start()
        try:
            await self.ping()
        except StoreUnavailable:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is queued, empty the WAL, hand out the last audit head and close; a second call does nothing."""
        readers, writer = self._readers, self._writer
        self._readers = self._writer = None
        if readers is not None and writer is not None:
            await writer.close(readers.stop)
            await asyncio.to_thread(self._heads.hand_out)
        self._nonces.close()

    async def ping(self) -> None:
        """Prove that a durable write works; raises StoreUnavailable."""
        pulse = {"worker": self._worker, "at": to_micros(self._clock())}
        sql = "INSERT INTO pulse (worker, at) VALUES (:worker, :at) ON CONFLICT (worker) DO UPDATE SET at = excluded.at"
        await self._write(lambda tx: tx.execute(sql, pulse))

    async def expire(self, now: datetime) -> int:
        """Delete what only had to be kept until now; returns how many rows went."""
        total = 0
        while gone := await self._write(lambda tx: expiry.expire_portion(tx, now), is_long=True):
            total += gone
        return total

    def _read(self, query: Callable[[Queries], T]) -> T:
        if self._readers is None:
            raise StoreUnavailable("the store is closed")
        return self._readers.run(query)

    async def _read_aside(self, query: Callable[[Queries], T]) -> T:
        if self._readers is None:
            raise StoreUnavailable("the store is closed")
        return await self._readers.run_aside(query)

    async def _write(self, work: Callable[[Transaction], T], *, is_long: bool = False, synced: bool = True) -> T:
        if self._writer is None:
            raise StoreUnavailable("the store is closed")
        with span("store"):
            return await self._writer.submit(work, is_long=is_long, synced=synced)
