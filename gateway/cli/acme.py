"""`pki-gateway acme`: accounts and orders."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.client import AdminClient, quoted
from gateway.cli.options import (
    AdminSocketOption,
    ConfigOption,
    FormatOption,
    LimitOption,
    OffsetOption,
    OutputFormat,
    ProfileOption,
    print_done,
    print_records,
    with_exit_codes,
)

app = typer.Typer(no_args_is_help=True)
accounts_app = typer.Typer()
app.add_typer(accounts_app, name="accounts", help="List accounts, newest first; deactivate one.")

ACCOUNTS = ("id", "profile", "status", "contact", "external_account", "source", "created_at")
ORDERS = ("id", "account", "profile", "status", "identifiers", "created_at", "detail")


@accounts_app.callback(invoke_without_command=True)
@with_exit_codes
def accounts(
    context: typer.Context,
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    limit: LimitOption = 100,
    offset: OffsetOption = 0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List accounts, newest first."""
    if context.invoked_subcommand is not None:
        return
    rows = AdminClient(config, admin_socket).list_of("/v1/acme/accounts", profile=profile, limit=limit, offset=offset)
    print_records(rows, format, ACCOUNTS, empty="No accounts.")


@accounts_app.command()
@with_exit_codes
def deactivate(
    id: Annotated[str, typer.Argument(help="The account's ID, as `acme accounts` shows it: the last part of its URL.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """End an account for good, with its pending orders; its key can open no other. Certificates stay."""
    done = AdminClient(config, admin_socket).post(f"/v1/acme/accounts/{quoted(id)}/deactivate")
    print_done(done, format, f"Account {id} is ended.")


@app.command()
@with_exit_codes
def orders(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: ProfileOption = None,
    status: Annotated[str | None, typer.Option(help="Only pending, ready, processing, valid or invalid ones.")] = None,
    limit: LimitOption = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List orders, newest first, with what went wrong."""
    rows = AdminClient(config, admin_socket).list_of("/v1/acme/orders", profile=profile, status=status, limit=limit)
    print_records(rows, format, ORDERS, empty="No orders.")
