"""`pki-gateway eab`: keys of external account binding, which say whose ACME accounts are and what they may order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.client import AdminClient, quoted
from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    ExitCode,
    FormatOption,
    LimitOption,
    OutputFormat,
    ProfileOption,
    argument,
    fail,
    print_done,
    print_record,
    print_records,
    seconds,
    with_exit_codes,
)

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("kid", "profile", "owner", "accounts", "certificates", "mode", "dns", "ip", "expires_at", "revoked_at")


@app.command()
@with_exit_codes
def create(
    profile: Annotated[str, typer.Argument(help="The profile whose directory takes the key.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    dns: Annotated[
        list[str] | None,
        typer.Option(help=r"Only DNS names that this regular expression matches whole, such as '.*\.lab\.example'; repeatable."),
    ] = None,
    ip: Annotated[list[str] | None, typer.Option(help="Only addresses in this network; repeatable.")] = None,
    no_wildcards: Annotated[bool, typer.Option("--no-wildcards", help="No wildcard names.")] = False,
    key_type: Annotated[
        list[str] | None, typer.Option(help="Only keys of this kind: rsa, ec, P-256, ed25519 …; repeatable.")
    ] = None,
    challenge: Annotated[list[str] | None, typer.Option(help="Only this challenge, such as dns-01; repeatable.")] = None,
    mode: Annotated[str | None, typer.Option(help="A trust mode in place of the profile's, such as prevalidated.")] = None,
    max_validity: Annotated[str | None, typer.Option(help="No certificate lives longer, such as 30d.")] = None,
    max_names: Annotated[int | None, typer.Option(min=1, help="Most names in one order.")] = None,
    max_accounts: Annotated[int, typer.Option(min=0, help="How many accounts may be bound; 0: any number.")] = 1,
    max_certificates: Annotated[int | None, typer.Option(min=1, help="How many certificates in all.")] = None,
    one_shot: Annotated[bool, typer.Option("--one-shot", help="Good for one certificate.")] = False,
    ttl: Annotated[str | None, typer.Option(help="How long it is good, and its accounts with it, such as 90d.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whom its certificates belong to, for the inventory.")] = None,
    kid: Annotated[str | None, typer.Option(help="Its ID, of a key that clients have already; with --key-file.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with that key, base64url, as clients have it; with --kid.")
    ] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make a key for one account and print its ID and the HMAC key, this once."""
    if one_shot and max_certificates is not None:
        fail("--one-shot and --max-certificates exclude each other.", ExitCode.USAGE)
    if (kid is None) != (key_file is None):
        fail("--kid and --key-file belong together.", ExitCode.USAGE)
    with argument("--key-file"):
        key = None if key_file is None else _read_key(key_file)
    made = AdminClient(config, admin_socket).create(
        "/v1/eab",
        profile=profile,
        dns=dns or None,
        ip=ip or None,
        wildcards=not no_wildcards,
        key_types=key_type or None,
        challenges=challenge or None,
        mode=mode,
        max_validity=seconds("--max-validity", max_validity),
        max_identifiers=max_names,
        max_accounts=max_accounts,
        max_certificates=1 if one_shot else max_certificates,
        ttl=seconds("--ttl", ttl),
        owner=owner,
        kid=kid,
        key=key,
    )
    if format is OutputFormat.JSON:
        print_record(made, format)
    else:
        print_record({"kid": made["kid"], "hmac_key": made["hmac_key"]}, format)


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    limit: LimitOption = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List keys, newest first, with how many accounts and certificates they have; the HMAC keys are not shown."""
    rows = AdminClient(config, admin_socket).list_of("/v1/eab", profile=profile, limit=limit)
    print_records(rows, format, COLUMNS, empty="No keys.")


@app.command()
@with_exit_codes
def revoke(
    kid: Annotated[str, typer.Argument(help="The key's ID, as `eab list` shows it.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Revoke a key: it binds no account, and the accounts that it bound order nothing more. Certificates stay."""
    done = AdminClient(config, admin_socket).post(f"/v1/eab/{quoted(kid)}/revoke")
    print_done(done, format, f"Key {kid} is revoked; accounts that were bound with it: {done['accounts']}.")


def _read_key(path: Path) -> str:
    """Return a key as clients have it; padding is taken away, which many tools write."""
    with path.open(encoding="utf-8") as file:
        return file.read(4096).strip().rstrip("=")
