"""`pki-gateway crl`: lists of revoked certificates of the CAs that sign here."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.client import AdminClient
from gateway.cli.options import AdminSocketOption, ConfigOption, FormatOption, OutputFormat, print_records, with_exit_codes

app = typer.Typer(no_args_is_help=True)


@app.callback()
def crl() -> None:
    """Certificate revocation lists."""


@app.command()
@with_exit_codes
def publish(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    upstream_ca: Annotated[str | None, typer.Argument(help="The CA; default: all that sign a CRL here.")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Sign and publish a new CRL now, though none is due."""
    rows = AdminClient(config, admin_socket).post("/v1/crl/publish", upstream_ca=upstream_ca)
    print_records(rows, format, empty="No CA signs a CRL here.")
