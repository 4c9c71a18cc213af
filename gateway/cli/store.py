"""`pki-gateway store`: the schema, copies, checks and keys of the store."""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.audit import AuditEvent, AuditHead, parse_audit_key, parse_heads
from gateway.cli.client import AdminClient
from gateway.cli.first_config import STORE_PATH
from gateway.cli.options import (
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    fail,
    print_json,
    print_record,
    with_exit_codes,
)
from gateway.config.document import read_document
from gateway.config.load import read
from gateway.config.schema import GatewayConfig
from gateway.config.sources import Sources
from gateway.store import sqlite
from gateway.store.keys import KeyRing

app = typer.Typer(no_args_is_help=True)

HeadsOption = Annotated[
    Path | None, typer.Option("--heads", help="A file of signed heads that was kept elsewhere; by default the configured one.")
]


@app.command()
@with_exit_codes
def migrate(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Create the store, or bring it to this program's schema. Stop the server first, and make a backup."""
    configuration, sources = read(config)
    path = sources.resolve(configuration.store.path)
    before, after = sqlite.migrate(path, _keys(configuration, sources), _audit_key(configuration, sources))
    print_record({"store": str(path), "schema_before": before, "schema": after}, format)


@app.command()
@with_exit_codes
def backup(
    target: Annotated[Path, typer.Argument(help="The copy to write; it must not exist.")],
    config: ConfigOption,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Write a consistent copy of the store, also while the server runs.

    To restore, stop the server and put the copy in the store's place, without the files whose names end in -wal and -shm.
    """
    size = sqlite.backup(read_store_path(config), target.absolute())
    print_record({"backup": str(target), "bytes": size}, format)


@app.command()
@with_exit_codes
def check(config: ConfigOption, heads: HeadsOption = None, format: FormatOption = OutputFormat.TABLE) -> None:
    """Check file, schema, keys and the whole audit chain, and hold ledger and inventory against it; exit status 1 when wrong.

    The server may go on meanwhile: what is checked is the store as it was at one moment.
    """
    configuration, sources = read(config)
    path = sources.resolve(configuration.store.path)
    audit_key = _audit_key(configuration, sources)
    kept = read_heads(heads or configured_heads(configuration, sources))
    report = sqlite.check(path, _keys(configuration, sources), audit_key, kept)
    if format is OutputFormat.JSON:
        print_json(asdict(report))
    else:
        counts = {"schema": report.schema, "ledger_rows": report.ledger_rows, "certificates": report.certificates}
        print_record({"store": str(path), **counts, "audit_rows": report.audit.rows, "heads": report.audit.heads}, format)
    if report.problems:
        fail("\n".join(report.problems))


@app.command()
@with_exit_codes
def rekey(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Seal what the store must recover under the first key of store.key.

    Put the new key as first line of store.key, restart the server, then run this: it is refused while a server runs that
    does not write under the new key yet. The older keys stay in the file as long as the answer says: challenges made under
    them need them.
    """
    configuration, sources = read(config)
    path = sources.resolve(configuration.store.path)
    keys = _keys(configuration, sources)
    _require_key_in_use(config, keys)
    event = AuditEvent("store.rekeyed", datetime.now(UTC), actor(), "done", protocol="admin", detail=f"key {keys.newest_id}")
    report = sqlite.rekey(path, keys, _audit_key(configuration, sources), event)
    answer = {"key": keys.newest_id, "resealed": report.resealed, "challenges_under_older_keys": report.older_challenges}
    print_record(answer | {"older_keys_needed_until": report.older_until}, format)


def read_store_path(config: Path) -> Path:
    """Return where the store of a configuration file is.

    Only this one field is read: whoever makes backups need not be able to read the secrets that the file names.
    """
    try:
        data = read_document(config.read_bytes()).data
    except OSError as error:
        fail(f"{config}: {error.strerror}", ExitCode.CONFIGURATION)
    store = data.get("store") if isinstance(data, dict) else None
    written = store.get("path") if isinstance(store, dict) else None
    return config.absolute().parent / (written if isinstance(written, str) else STORE_PATH)


def actor() -> str:
    """Return who runs the command, as the audit trail names operators."""
    uid = os.getuid()
    try:
        return f"uid:{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid:{uid}"


def configured_heads(config: GatewayConfig, sources: Sources) -> Path | None:
    """Return the configured file of heads if there is one already."""
    if config.audit.heads is None:
        return None
    path = sources.resolve(config.audit.heads)
    return path if path.exists() else None


def read_heads(path: Path | None) -> tuple[AuditHead, ...]:
    """Return the heads in a file; no file is no heads."""
    if path is None:
        return ()
    try:
        return parse_heads(path.read_text(encoding="ascii", errors="replace"))
    except ValueError as error:
        fail(f"{path}: {error}")


def _require_key_in_use(config: Path, keys: KeyRing) -> None:
    """Stop unless the running server, if any, writes under the newest key: without it, it could open nothing afterwards."""
    client = AdminClient(config)
    if client.is_served() and client.get("/v1/status").get("store_key") != keys.newest_id:
        fail(
            "The running server does not write under the first key of store.key yet. "
            "First put the new key there, then restart the server, then run `pki-gateway store rekey` again."
        )


def _audit_key(config: GatewayConfig, sources: Sources) -> bytes:
    return parse_audit_key(sources.secret(config.audit.key))


def _keys(config: GatewayConfig, sources: Sources) -> KeyRing:
    return KeyRing.parse(sources.secret(config.store.key))
