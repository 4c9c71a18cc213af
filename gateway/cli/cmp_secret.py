"""`pki-gateway cmp-secret`: shared secrets that protect CMP messages, by their reference numbers."""

from __future__ import annotations

from pathlib import Path
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
    argument,
    bound_names,
    print_done,
    print_record,
    print_records,
    seconds,
    with_exit_codes,
)
from gateway.pki.base64url import encode

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("id", "profile", "reference", "uses", "max_uses", "expires_at", "created_by", "subject", "sans", "owner")
_MAX_FILE = 4096


@app.command()
@with_exit_codes
def create(
    profile: Annotated[str, typer.Argument(help="The profile that the secret enrolls under.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    reference: Annotated[
        str | None, typer.Option(help="The reference number that clients name it by (senderKID); default: one that is drawn.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="A file with the secret that clients have already; default: one that is drawn.")
    ] = None,
    uses: Annotated[int, typer.Option(min=1, help="How many certificates it is good for.")] = 1,
    ttl: Annotated[str | None, typer.Option(help="How long it can be used, such as 12h; default: the profile's.")] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Bind it to this subject, such as 'CN=host,O=Example', and to no alternative names but those of --san."
        ),
    ] = None,
    san: Annotated[
        list[str] | None,
        typer.Option(
            help="Bind it to exactly these names: dns:host.example, ip:…, email:…, uri:…; with --subject alone: to none."
        ),
    ] = None,
    no_sans: NoSansOption = False,
    owner: Annotated[str | None, typer.Option(help="Whom its certificates belong to, for the inventory.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make a shared secret and print its reference number and, where it was drawn, the secret, this once."""
    sans = bound_names(san, no_sans=no_sans)
    with argument("--secret-file"):
        secret = None if secret_file is None else encode(_read_secret(secret_file))
    made = AdminClient(config, admin_socket).create(
        "/v1/cmp-secrets",
        profile=profile,
        reference=reference,
        secret=secret,
        uses=uses,
        ttl=seconds("--ttl", ttl),
        subject=subject,
        sans=sans,
        owner=owner,
    )
    if format is OutputFormat.JSON:
        print_record(made, format)
    else:
        print_record({name: made[name] for name in ("id", "reference", "secret") if name in made}, format)


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    limit: LimitOption = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List secrets that are neither revoked nor expired, newest first, with their uses; the secrets themselves are not shown."""
    rows = AdminClient(config, admin_socket).list_of("/v1/cmp-secrets", profile=profile, limit=limit)
    print_records(rows, format, COLUMNS, empty="No shared secrets.")


@app.command()
@with_exit_codes
def revoke(
    id: Annotated[str, typer.Argument(help="The secret's ID, as `cmp-secret list` shows it.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Revoke a secret, used or not: nothing more is proved by it. Certificates that it got stay."""
    done = AdminClient(config, admin_socket).post(f"/v1/cmp-secrets/{quoted(id)}/revoke")
    print_done(done, format, f"Shared secret {id} is revoked; the certificates that it got are not.")


def _read_secret(path: Path) -> bytes:
    """Return what a file holds, without the line end that editors put behind it."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise ValueError(f"{path} holds more than a secret")
    return data.removesuffix(b"\n").removesuffix(b"\r")
