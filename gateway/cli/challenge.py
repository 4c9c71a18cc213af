"""`pki-gateway challenge`: one-time challenges."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.client import AdminClient, quoted
from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    FormatOption,
    LimitOption,
    NoSansOption,
    OutputFormat,
    ProfileOption,
    bound_names,
    print_done,
    print_records,
    seconds,
    with_exit_codes,
)

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
    no_sans: NoSansOption = False,
    ttl: Annotated[str | None, typer.Option(help="How long it can be used, such as 30m; default: the profile's.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whom the certificate belongs to, for the inventory.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make a challenge for one certificate and print it, alone, on standard output."""
    sans = bound_names(san, no_sans=no_sans)
    wanted = {"profile": profile, "subject": subject, "sans": sans, "ttl": seconds("--ttl", ttl), "owner": owner}
    made = AdminClient(config, admin_socket).create("/v1/challenges", **wanted)
    print_done(made, format, made["challenge"])


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    limit: LimitOption = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List challenges that have not expired, newest first; the secrets themselves are not known any more."""
    rows = AdminClient(config, admin_socket).list_of("/v1/challenges", profile=profile, limit=limit)
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
