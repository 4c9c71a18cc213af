"""Runs the migrations of the installed package on an open SQLite connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from gateway.store import migrations
from gateway.store.tables import SCHEMA


def upgrade(connection: sqlite3.Connection, finish: Callable[[], None], revision: str = SCHEMA) -> None:
    """Bring the schema to `revision` and call `finish`, all in one transaction; the caller holds the flock."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    # Python's own transaction handling commits before DDL; the connection is in autocommit mode and we say BEGIN.
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    configuration = Config()
    folder = Path(migrations.__file__).parent
    configuration.set_main_option("script_location", str(folder).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    with engine.connect() as bound, bound.begin():
        configuration.attributes["connection"] = bound
        command.upgrade(configuration, revision)
        finish()
