"""Migrations lead to exactly the schema that the program works with."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from gateway.errors import StoreRefused
from gateway.store import migrations
from gateway.store.acme_rows import ORDER_SELECT as ACME_ORDER
from gateway.store.interfaces import LedgerState
from gateway.store.keys import KeyRing
from gateway.store.sqlite import check_usable, connection, migrate
from gateway.store.sqlite.access import seal_checks
from gateway.store.sqlite.acme import accounts, authorizations, incidents, orders
from gateway.store.sqlite.acme import expiry as acme_expiry
from gateway.store.sqlite.upgrade import upgrade
from gateway.store.tables import REVISIONS, SCHEMA, metadata

KEYS = KeyRing((bytes(32),))
AUDIT_KEY = b"a" * 32
STORE = Path(migrations.__file__).parent.parent


def test_lead_to_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    assert migrate(path, KEYS, AUDIT_KEY) == (None, SCHEMA)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as bound:
        assert compare_metadata(MigrationContext.configure(bound), metadata) == []
    engine.dispose()


def test_partial_indexes_are_partial(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as bound:
        wanted = bound.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
    engine.dispose()
    reader = connection.open_reader(path)
    found = reader.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
    reader.close()

    def conditions(rows: object) -> dict[str, str]:
        return {name: sql.partition("WHERE")[2].strip() for name, sql in rows if sql and "alembic" not in name}  # type: ignore[attr-defined]

    assert conditions(found) == conditions(wanted)


def test_first_schema_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    connection.create(path)
    writer = connection.open_writer(path)
    upgrade(writer, lambda: seal_checks(writer, KEYS, AUDIT_KEY), "0001")
    columns = "id, profile, mac, key_id, created_at, expires_at, created_by"
    writer.execute(f"INSERT INTO challenges ({columns}) VALUES ('c1', 'p', x'00', '', 1, 2, '')")
    writer.close()
    with pytest.raises(StoreRefused, match="has schema 0001"):
        check_usable(path, KEYS, AUDIT_KEY)
    assert migrate(path, KEYS, AUDIT_KEY) == ("0001", SCHEMA)
    check_usable(path, KEYS, AUDIT_KEY)
    reader = connection.open_reader(path)
    assert reader.execute("SELECT id, profile FROM challenges").fetchall() == [("c1", "p")]
    reader.close()


def test_schema_before_cmp_is_brought_up_with_its_ledger(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    connection.create(path)
    writer = connection.open_writer(path)
    upgrade(writer, lambda: seal_checks(writer, KEYS, AUDIT_KEY), "0003")
    names = [column.name for column in metadata.tables["ledger"].columns if column.name != "confirm_by"]
    row = dict.fromkeys(names) | {"id": "r1", "state": "delivered", "request": KEYS.encrypt("request", b"csr")}
    row |= dict.fromkeys(("request_key", "requester_key", "public_key", "public_key_sha256"), b"")
    row |= dict.fromkeys(("generation", "sent", "lease_until", "attempts", "created_at", "updated_at"), 0)
    texts = ("profile", "protocol", "operation", "transaction_id", "requester", "source", "form", "subject", "sans", "granted")
    row |= dict.fromkeys((*texts, "upstream_ca", "waiting_for", "worker", "quota_slots"), "")
    writer.execute(f"INSERT INTO ledger ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})", row)
    writer.close()
    with pytest.raises(StoreRefused, match="has schema 0003"):
        check_usable(path, KEYS, AUDIT_KEY)
    assert migrate(path, KEYS, AUDIT_KEY) == ("0003", SCHEMA)
    check_usable(path, KEYS, AUDIT_KEY)
    reader = connection.open_reader(path)
    assert reader.execute("SELECT id, confirm_by FROM ledger").fetchall() == [("r1", None)]
    assert reader.execute("SELECT COUNT(*) FROM cmp_secrets").fetchall() == [(0,)]
    reader.close()


def test_tables_without_row_numbers_are_those_of_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    reader = connection.open_reader(path)
    found = reader.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%WITHOUT ROWID%'").fetchall()
    reader.close()
    wanted = {table.name for table in metadata.sorted_tables if table.dialect_options["sqlite"]["with_rowid"] is False}
    assert {name for (name,) in found} == wanted


def test_revisions_are_the_scripts() -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(configuration)
    assert tuple(reversed([revision.revision for revision in script.walk_revisions()])) == REVISIONS
    assert script.get_current_head() == SCHEMA


ACME = {
    "account by key": accounts._BY_KEY,
    "key of an account": accounts._HAS_KEY % ":a, :b",
    "order": ACME_ORDER + "WHERE o.id = :id",
    "due orders": orders.DUE,
    "page of orders": orders.NEXT_PAGE,
    "replaced": orders._REPLACED,
    "roll-up": orders._ROLL_UP,
    "orders that fail": orders._FAIL,
    "due validations": authorizations.DUE % "",
    "valid authorizations": authorizations.VALID % ":a, :b",
    "several authorizations": authorizations._SEVERAL % ":a, :b",
    "incident": incidents._FIND,
    "orders to end": acme_expiry._END,
    "orders to forget": acme_expiry._ORDERS,
    "their authorizations": acme_expiry._LINKS,
    "authorizations to forget": acme_expiry._AUTHORIZATIONS,
}


@pytest.mark.parametrize("query", ACME)
def test_look_ups_of_acme_use_an_index(tmp_path: Path, query: str) -> None:
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    names = dict.fromkeys(re.findall(r":(\w+)", ACME[query]), 1)
    writer = connection.open_writer(path)
    plan = writer.execute(f"EXPLAIN QUERY PLAN {ACME[query]}", names).fetchall()
    writer.close()
    few = "ix_acme_orders_processing"  # the index of the few orders that are being finalized
    assert not [step for *_, step in plan if step.startswith("SCAN") and few not in step]


@pytest.mark.parametrize(
    "query",
    [
        "lapsed",
        "lapsed beside resting CAs",
        "revocations that are due",
        "pending rows",
        "by request key",
        "transaction",
        "by mac",
        "by issuer",
        "heir",
        "next heir",
        "unconfirmed certificates",
        "shared secret",
    ],
)
def test_hot_look_ups_use_an_index(tmp_path: Path, query: str) -> None:
    from gateway.store.rows import CHALLENGE_SELECT
    from gateway.store.sqlite import cmp, inventory, ledger, revocations

    listing = ledger.listing(frozenset({LedgerState.PENDING}), None)
    statements = {
        "pending rows": listing,
        "lapsed": ledger.lapsed(0),
        "lapsed beside resting CAs": ledger.lapsed(2),
        "revocations that are due": revocations.due(2),
        "by request key": ledger._REQUEST,
        "transaction": ledger._TRANSACTION,
        "by mac": CHALLENGE_SELECT + "WHERE h.mac = :mac",
        "by issuer": inventory.FIND_ISSUED,
        "heir": ledger._HEIR,
        "next heir": ledger._INHERIT,
        "unconfirmed certificates": cmp.UNCONFIRMED,
        "shared secret": cmp.FIND,
    }
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    names = dict.fromkeys(re.findall(r":(\w+)", statements[query]), 1)
    reader = connection.open_reader(path)
    plan = reader.execute(f"EXPLAIN QUERY PLAN {statements[query]}", names).fetchall()
    reader.close()
    assert not [step for *_, step in plan if step.startswith("SCAN") and step != "SCAN ca"]  # the few names of CAs


def test_only_the_connection_knows_sqlite() -> None:
    words = re.compile(r"PRAGMA|sqlite_master|VACUUM|SAVEPOINT|BEGIN IMMEDIATE|INSERT OR|rowid|strftime|json_")
    allowed = {STORE / "sqlite" / "connection.py", STORE / "sqlite" / "upgrade.py"}
    files = [path for path in STORE.rglob("*.py") if path not in allowed]
    strings = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"")
    found = [(path.name, text) for path in files for text in strings.findall(path.read_text()) if words.search(text)]
    assert found == []


def test_wheel_carries_the_migrations(tmp_path: Path) -> None:
    """The files that alembic reads by path are inside the package, and run from a copy of it without the source tree."""
    import shutil

    shutil.copytree(STORE.parent, tmp_path / "site" / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from pathlib import Path; import gateway; from gateway.store.keys import KeyRing; "
        "from gateway.store.sqlite import migrate; assert 'site' in gateway.__file__; "
        "print(migrate(Path('x.db'), KeyRing((bytes(32),)), bytes(32)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str((None, SCHEMA))
    assert sqlite3.connect(tmp_path / "x.db").execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA,)
