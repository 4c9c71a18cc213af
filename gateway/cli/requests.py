"""`pki-gateway requests`: enrollments that wait for a person, or whose end nobody but a person can know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.client import AdminClient, quoted
from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    ExitCode,
    FormatOption,
    LimitOption,
    OffsetOption,
    OutputFormat,
    ProfileOption,
    argument,
    fail,
    print_done,
    print_record,
    print_records,
    with_exit_codes,
)

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("id", "state", "waiting_for", "profile", "subject", "sans", "requester", "created_at", "detail")
STATES = "open, pending, issued, held, delivered, confirmed, revoked, rejected, unknown"

IdArgument = Annotated[str, typer.Argument(help="The request's ID, as `requests list` shows it.")]


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    state: Annotated[str | None, typer.Option(help=f"One or more of {STATES}; default: pending and unknown.")] = None,
    profile: ProfileOption = None,
    limit: LimitOption = 100,
    offset: OffsetOption = 0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List requests, newest first; without --state those that wait for somebody."""
    rows = AdminClient(config, admin_socket).list_of("/v1/requests", state=state, profile=profile, limit=limit, offset=offset)
    print_records(rows, format, COLUMNS, empty="No requests.")


@app.command()
@with_exit_codes
def show(
    id: IdArgument, config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE
) -> None:
    """Show one request, and what was granted."""
    row = AdminClient(config, admin_socket).get(f"/v1/requests/{quoted(id)}")
    if format is OutputFormat.TABLE:
        granted = row.pop("granted")
        row.update({f"granted_{name}": value for name, value in granted.items()})
        del row["request_pem"]
        certificate = row.pop("certificate_pem")
        print_record(row, format)
        print(certificate or "", end="")
    else:
        print_record(row, format)


@app.command()
@with_exit_codes
def approve(
    id: IdArgument, config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE
) -> None:
    """Let a request go to its CA that waits for approval."""
    _told(AdminClient(config, admin_socket).post(f"/v1/requests/{quoted(id)}/approve"), format, "is approved and goes to its CA")


@app.command()
@with_exit_codes
def deny(
    id: IdArgument,
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    detail: Annotated[str | None, typer.Option(help="What the client is told.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Refuse a request that waits for approval."""
    _told(AdminClient(config, admin_socket).post(f"/v1/requests/{quoted(id)}/deny", detail=detail), format, "is denied")


@app.command()
@with_exit_codes
def resolve(
    id: IdArgument,
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    attach: Annotated[
        Path | None, typer.Option(metavar="CERT", help="The certificate that the CA did issue, PEM, with its chain if you like.")
    ] = None,
    reissue: Annotated[bool, typer.Option("--reissue", help="The CA issued nothing: send the request again.")] = False,
    failed: Annotated[bool, typer.Option("--fail", help="End the request without a certificate.")] = False,
    detail: Annotated[str | None, typer.Option(help="With --fail: what the client is told.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """End a request in doubt, whose CA does not say whether it issued a certificate."""
    if (attach is not None) + reissue + failed != 1:
        fail("Choose one of --attach CERT, --reissue and --fail.", ExitCode.USAGE)
    client, path = AdminClient(config, admin_socket), f"/v1/requests/{quoted(id)}"
    if attach is not None:
        with argument("--attach"):
            certificate = attach.read_text("ascii")
        _told(client.post(f"{path}/attach", certificate=certificate), format, "has its certificate")
    elif reissue:
        _told(client.post(f"{path}/reissue"), format, "goes to its CA again")
    else:
        _told(client.post(f"{path}/fail", detail=detail), format, "is ended without a certificate")


def _told(row: dict[str, Any], format: OutputFormat, what: str) -> None:
    print_done(row, format, f"Request {row['id']} {what}.")
