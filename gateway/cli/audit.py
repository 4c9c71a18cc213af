"""`pki-gateway audit`: proof that no row was changed, and the rows for other systems."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from gateway.audit import parse_audit_key, verify_chain
from gateway.audit.export import FORMATS
from gateway.cli.options import ConfigOption, FormatOption, OutputFormat, fail, print_json, print_record, with_exit_codes
from gateway.cli.store import HeadsOption, configured_heads, read_heads
from gateway.config.load import read
from gateway.store.sqlite import audit_trail

app = typer.Typer(no_args_is_help=True)


class ExportFormat(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    JSON = "json"
    CEF = "cef"
    ECS = "ecs"


@app.command()
@with_exit_codes
def verify(config: ConfigOption, heads: HeadsOption = None, format: FormatOption = OutputFormat.TABLE) -> None:
    """Walk the whole chain; exit status 1 when a row was changed, is missing or out of order, or the tail was cut off.

    Only heads show a cut tail: keep them where whoever could change the store cannot write.
    """
    configuration, sources = read(config)
    key = parse_audit_key(sources.secret(configuration.audit.key))
    kept = read_heads(heads or configured_heads(configuration, sources))
    with audit_trail(sources.resolve(configuration.store.path)) as rows:
        report = verify_chain(rows, key, kept)
    if format is OutputFormat.JSON:
        print_json(asdict(report))
    else:
        print_record({"rows": report.rows, "last": report.last_seq, "heads": report.heads}, format)
    if report.problems:
        fail("\n".join(report.problems))


@app.command()
@with_exit_codes
def export(
    config: ConfigOption,
    format: Annotated[
        ExportFormat, typer.Option("--format", help="JSON lines (jsonl, or json), CEF or Elastic Common Schema.")
    ] = ExportFormat.JSONL,
    after: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Only rows after this number: where the last export ended.")
    ] = 0,
) -> None:
    """Write the rows to standard output, one a line, oldest first. It does not verify them: `audit verify` does."""
    configuration, sources = read(config)
    write = FORMATS["jsonl" if format is ExportFormat.JSON else format.value]
    with audit_trail(sources.resolve(configuration.store.path), after) as rows:
        for row in rows:
            sys.stdout.write(write(row) + "\n")
