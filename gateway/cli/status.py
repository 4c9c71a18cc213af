"""`pki-gateway status`: what is in force, and what waits for an operator."""

from __future__ import annotations

from gateway.cli.client import AdminClient, connect, read_admin_socket
from gateway.cli.options import AdminSocketOption, ConfigOption, FormatOption, OutputFormat, print_record, with_exit_codes


@with_exit_codes
def status(config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE) -> None:
    """Say whether a server runs, what it serves, and what waits for somebody."""
    connection = connect(read_admin_socket(config, admin_socket))
    if connection is not None:
        connection.close()
    found = {"running": connection is not None, **AdminClient(config, admin_socket).get("/v1/status")}
    if format is OutputFormat.TABLE:
        for name, crl in found.pop("crls").items():
            found[f"crl_{name}"] = f"number {crl['number']}, next update {crl['next_update']}" if crl else "none"
        untold = found["revocations_to_tell"]
        found["revocations_to_tell"] = ", ".join(f"{count} of {name}" for name, count in sorted(untold.items())) or 0
    print_record(found, format)
