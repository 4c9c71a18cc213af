"""`pki-gateway challenge`: one-time challenges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.client import AdminClient, quoted, require_profile
from gateway.cli.options import (
    AdminSocketOption,
    CommandError,
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    argument,
    fail,
    print_done,
    print_records,
    with_exit_codes,
)
from gateway.config.durations import parse_duration

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("id", "profile", "expires_at", "created_by", "subject", "sans", "used_by", "revoked_at")


@app.command()
@with_exit_codes
def new(
    profile: Annotated[str, typer.Argument(help="The profile that the challenge enrolls under.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Bind it to this subject, such as 'CN=host,O=Example', and to no alternative names but those of --san."
        ),
    ] = None,
    san: Annotated[
        list[str] | None,
        typer.Option(
            help="Bind it to exactly these names: dns:host.example, ip:…, email:…, uri:…, upn:…; with --subject alone: to none."
        ),
    ] = None,
    no_sans: Annotated[bool, typer.Option("--no-sans", help="Bind it to requests without alternative names.")] = False,
    ttl: Annotated[str | None, typer.Option(help="How long it can be used, such as 30m; default: the profile's.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whom the certificate belongs to, for the inventory.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make a challenge for one certificate and print it, alone, on standard output."""
    if san and no_sans:
        fail("--san and --no-sans exclude each other.", ExitCode.USAGE)
    with argument("--ttl"):
        seconds = None if ttl is None else int(parse_duration(ttl).total_seconds())
    sans = san or ([] if no_sans else None)
    made = draw(config, admin_socket, profile=profile, subject=subject, sans=sans, ttl=seconds, owner=owner)
    print_done(made, format, made["challenge"])


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: Annotated[str | None, typer.Option(help="Only this profile's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List challenges that have not expired, newest first; the secrets themselves are not known any more."""
    client = AdminClient(config, admin_socket)
    rows = client.get("/v1/challenges", profile=profile, limit=limit)
    if not rows:
        require_profile(client, profile)
    print_records(rows, format, COLUMNS, empty="No challenges.")


@app.command()
@with_exit_codes
def revoke(
    id: Annotated[str, typer.Argument(help="The challenge's ID, as `challenge list` shows it.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Revoke a challenge that was not used yet."""
    done = AdminClient(config, admin_socket).post(f"/v1/challenges/{quoted(id)}/revoke")
    print_done(done, format, f"Challenge {id} is revoked.")


def draw(config: Path, admin_socket: Path | None = None, /, **wanted: Any) -> dict[str, Any]:
    """Make a challenge; what the profile refuses (a lifetime, a profile without challenges) is a usage error."""
    try:
        made: dict[str, Any] = AdminClient(config, admin_socket).post("/v1/challenges", **wanted)
    except CommandError as error:
        if error.reason != "denied":
            raise
        fail(str(error), ExitCode.USAGE)
    return made
