"""The reading side: one connection for short look-ups on the event loop, one on a thread for lists."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.errors import StoreUnavailable
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.transaction import Queries

T = TypeVar("T")


class Reader:
    """One read-only connection, opened when first used and again after a fault."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._statements: sqlite.Statements | None = None

    def run(self, query: Callable[[Queries], T]) -> T:
        """Run `query` on the newest commit; raises StoreUnavailable."""
        try:
            if self._statements is None:
                self._statements = sqlite.Statements(sqlite.open_reader(self._path, self._busy_seconds))
            return query(self._statements)
        except sqlite3.Error as error:
            self.close()
            raise StoreUnavailable(str(sqlite.explain(error, self._path))) from error

    def close(self) -> None:
        """Close the connection; the next query opens another."""
        if self._statements is not None:
            with contextlib.suppress(sqlite3.Error):
                self._statements.connection.close()
            self._statements = None


class Readers:
    """`run` reads on the loop: only what an index answers in microseconds. `run_aside` is for lists and scans."""

    def __init__(self, path: Path) -> None:
        self._near = Reader(path, busy_seconds=0.25)
        self._far = Reader(path, busy_seconds=5.0)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")
        self.run = self._near.run

    async def run_aside(self, query: Callable[[Queries], T]) -> T:
        """Run `query` on a thread of its own; raises StoreUnavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._far.run, query)
        except RuntimeError as error:
            raise StoreUnavailable("the store is closed") from error

    def stop(self) -> None:
        """Let running queries end and close both connections."""
        self._executor.shutdown(wait=True)
        self._near.close()
        self._far.close()
