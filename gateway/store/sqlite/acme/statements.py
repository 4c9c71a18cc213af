"""Statements over several rows at once: each statement costs more in Python than in SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table

from gateway.store.rows import Columns
from gateway.store.sqlite.transaction import Transaction

_ROWS = 32
"""Rows of one INSERT."""


def insert_many(tx: Transaction, table: Table, rows: Sequence[Columns]) -> None:
    """Insert whole rows."""
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        parameters = {f"{name}_{number}": value for number, row in enumerate(some) for name, value in row.items()}
        tx.execute(_insert_statement(table, len(some)), parameters)


def numbered(name: str, values: Sequence[Any]) -> Columns:
    """Return values as numbered parameters, the last repeated up to a power of two: so there are few different statements."""
    wanted = 1 << (len(values) - 1).bit_length() if values else 0
    return {f"{name}{number}": values[min(number, len(values) - 1)] for number in range(wanted)}


@lru_cache(maxsize=64)
def listing(name: str, count: int) -> str:
    """Return numbered parameters as SQL lists them."""
    return ", ".join(f":{name}{number}" for number in range(count))


@lru_cache(maxsize=4 * _ROWS)
def _insert_statement(table: Table, count: int) -> str:
    names = [column.name for column in table.columns]
    rows = (f"({', '.join(f':{name}_{number}' for name in names)})" for number in range(count))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join(rows)}"  # noqa: S608 - names of the schema
