"""`pki-gateway config`: check, show and compare the configuration, and its JSON Schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    fail,
    print_json,
    print_records,
    with_exit_codes,
)
from gateway.config.load import ConfigProblem, examine, read
from gateway.config.reference import json_schema
from gateway.config.schema import GatewayConfig
from gateway.config.view import differences, redact

app = typer.Typer(no_args_is_help=True)


@app.command()
@with_exit_codes
def check(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Say everything that is wrong with the configuration, its keys and its certificates; exit status 3 when anything is.

    Warnings, which begin with that word, are of what serves but will not serve every client, not for long, or more than is meant.
    """
    problems, warnings, summary = examine_all(config)
    if format is OutputFormat.JSON:
        print_json({"ok": not problems, "problems": list(map(asdict, problems)), "warnings": list(map(asdict, warnings))})
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    if problems:
        raise typer.Exit(ExitCode.CONFIGURATION)
    if format is OutputFormat.TABLE:
        print(summary)


def examine_all(path: Path) -> tuple[tuple[ConfigProblem, ...], tuple[ConfigProblem, ...], str]:
    """Return what keeps a service from starting, what is worth knowing besides, and one line about the configuration."""
    from gateway.assemble.judgement import judge

    found = examine(path)
    if found.config is None or found.sources is None:
        return found.problems, (), ""
    judged = judge(found.config, found.sources, datetime.now(UTC))
    warnings = (*judged.expiring, *judged.warnings)
    return judged.problems, warnings, describe(path, found.config, len(warnings))


def describe(path: Path, config: GatewayConfig, warnings: int) -> str:
    """Return one line about a configuration without problems."""
    warned = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    return f"{path}: no problems{warned}; profiles: {', '.join(config.profiles)}; upstream CAs: {', '.join(config.upstream_cas)}"


@app.command()
@with_exit_codes
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    print(json.dumps(json_schema(), indent=2))


@app.command()
@with_exit_codes
def show(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Print the configuration with its defaults; of secrets only where they come from."""
    parsed, _ = read(config)
    shown = redact(parsed)
    if format is OutputFormat.JSON:
        print_json(shown)
    else:
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), end="")


@app.command()
@with_exit_codes
def diff(
    config: ConfigOption,
    other: Annotated[
        Path | None, typer.Argument(help="Another configuration file; without it, what the running server has in force.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print what would change: from the running server, or from OTHER, to this configuration."""
    after = redact(read(config)[0])
    before = _running(config, admin_socket) if other is None else redact(read(other)[0])
    found = differences(before, after)
    rows = [{"field": d.field, "before": d.before, "after": d.after} for d in found]
    shown = rows if format is OutputFormat.JSON else [{name: _cell(value) for name, value in row.items()} for row in rows]
    print_records(shown, format, empty="No difference.")


def _running(config: Path, admin_socket: Path | None) -> dict[str, Any]:
    """Ask the server that this configuration's admin socket belongs to. Raises CommandError when none runs."""
    from gateway.cli.client import AdminClient, connect, read_admin_socket

    place = read_admin_socket(config, admin_socket)
    connection = connect(place)
    if connection is None:
        fail(f"No server answers at {place}; start it, or name another file to compare two files.")
    connection.close()
    answer: dict[str, Any] = AdminClient(config, admin_socket).get("/v1/config")
    return answer


def _cell(value: Any) -> str:
    """Write one value on one line; nothing for a value that is not there."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
