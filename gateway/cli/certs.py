"""`pki-gateway certs`: the inventory of every certificate that was issued."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli.client import AdminClient, quoted
from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    FormatOption,
    LimitOption,
    OffsetOption,
    OutputFormat,
    print_done,
    print_record,
    print_records,
    with_exit_codes,
)

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("serial", "subject", "sans", "profile", "requester", "not_after", "revoked_at")
UNTOLD = ("serial", "upstream_ca", "reason", "revoked_at", "attempts", "next_at", "cause")
PAGE = 500

NameArgument = Annotated[str, typer.Argument(help="SHA-256 of the certificate, or its serial; hex, colons allowed.")]
ProfileOption = Annotated[str | None, typer.Option(help="Only this profile's.")]
CaOption = Annotated[str | None, typer.Option("--upstream-ca", help="Only this CA's.")]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only subjects that contain this text.")]
ExpiresOption = Annotated[str | None, typer.Option("--expires-before", help="Only what ends before this time, ISO 8601.")]
RevokedOption = Annotated[bool | None, typer.Option("--revoked/--not-revoked", help="Only revoked ones, or only others.")]


class ExportFormat(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    PEM = "pem"


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    upstream_ca: CaOption = None,
    subject: SubjectOption = None,
    serial: Annotated[str | None, typer.Option(help="Only this serial, hex.")] = None,
    expires_before: ExpiresOption = None,
    revoked: RevokedOption = None,
    limit: LimitOption = 100,
    offset: OffsetOption = 0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List certificates, newest first."""
    rows = AdminClient(config, admin_socket).list_of(
        "/v1/certificates",
        **_filter(profile, upstream_ca, subject, expires_before, revoked),
        serial=serial,
        limit=limit,
        offset=offset,
    )
    print_records(rows, format, COLUMNS, empty="No certificates.")


@app.command()
@with_exit_codes
def show(
    name: NameArgument, config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE
) -> None:
    """Show one certificate, with its PEM."""
    row = AdminClient(config, admin_socket).get(f"/v1/certificates/{quoted(name)}")
    if format is OutputFormat.JSON:
        print_record(row, format)
        return
    pem = row.pop("pem")
    print_record(row, format)
    print(pem, end="")


@app.command()
@with_exit_codes
def revoke(
    name: NameArgument,
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    reason: Annotated[
        str, typer.Option(help="RFC 5280 §5.3.1: key_compromise, superseded, cessation_of_operation, privilege_withdrawn …")
    ] = "unspecified",
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Revoke one certificate; where the CRL is signed here, it is published before this returns."""
    row = AdminClient(config, admin_socket).post(f"/v1/certificates/{quoted(name)}/revoke", reason=reason)
    if format is OutputFormat.JSON:
        print_record(row, format)
        return
    number = row["crl_number"]
    told = f"CRL {number} says so" if number is not None else "no CRL was signed here"
    if not row["ca_told"]:
        told = "its CA could not be told and is told later: `certs untold` says why"
    print(f"Certificate {row['serial']} ({row['subject']}) is revoked since {row['revoked_at']}; {told}.")


@app.command()
@with_exit_codes
def revive(
    name: NameArgument, config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE
) -> None:
    """Take a certificate off hold that was revoked with --reason certificate_hold; no other revocation can be taken back."""
    row = AdminClient(config, admin_socket).post(f"/v1/certificates/{quoted(name)}/revive")
    number = row["crl_number"]
    told = f"CRL {number} has it no more" if number is not None else "no CRL was signed here"
    print_done(row, format, f"Certificate {row['serial']} ({row['subject']}) is in force again; {told}.")


@app.command()
@with_exit_codes
def untold(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    limit: LimitOption = 100,
    offset: OffsetOption = 0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List revocations that upstream CAs have not been told of yet, and why not."""
    rows = AdminClient(config, admin_socket).get("/v1/revocations", limit=limit, offset=offset)
    print_records(rows, format, UNTOLD, empty="Every upstream CA was told of every revocation.")


@app.command()
@with_exit_codes
def export(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    upstream_ca: CaOption = None,
    subject: SubjectOption = None,
    expires_before: ExpiresOption = None,
    revoked: RevokedOption = None,
    format: Annotated[
        ExportFormat, typer.Option("--format", help="jsonl, or json, has everything; csv no PEM.")
    ] = ExportFormat.JSONL,
) -> None:
    """Write the whole inventory, or what the filter leaves of it, to standard output."""
    rows = _pages(AdminClient(config, admin_socket), _filter(profile, upstream_ca, subject, expires_before, revoked))
    match format:
        case ExportFormat.JSONL | ExportFormat.JSON:
            for row in rows:
                print(json.dumps(row, separators=(",", ":")))
        case ExportFormat.PEM:
            for row in rows:
                print(row["pem"], end="")
        case ExportFormat.CSV:
            _write_csv(rows)


def _filter(
    profile: str | None, upstream_ca: str | None, subject: str | None, expires_before: str | None, revoked: bool | None
) -> dict[str, Any]:
    return {
        "profile": profile,
        "upstream_ca": upstream_ca,
        "subject": subject,
        "expires_before": expires_before,
        "revoked": None if revoked is None else str(revoked).lower(),
    }


def _pages(client: AdminClient, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every row; certificates that are issued meanwhile move the pages, so what was seen is not shown again."""
    seen: set[str] = set()
    offset = 0
    while rows := client.get("/v1/certificates", **wanted, whole="true", limit=PAGE, offset=offset):
        for row in rows:
            if row["sha256"] not in seen:
                seen.add(row["sha256"])
                yield row
        offset += len(rows)


def _write_csv(rows: Iterator[dict[str, Any]]) -> None:
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        del row["pem"]
        row["sans"] = " ".join(row["sans"])
        if writer is None:
            writer = csv.DictWriter(sys.stdout, tuple(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _harmless(value) for name, value in row.items()})


def _harmless(value: object) -> object:
    """Quote what a spreadsheet would run as a formula: subjects are chosen by devices."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
