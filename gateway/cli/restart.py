"""`pki-gateway restart`: replace the workers of the running server one after another, so that somebody always accepts."""

from __future__ import annotations

from gateway.cli.client import AdminClient, require_server
from gateway.cli.options import AdminSocketOption, ConfigOption, FormatOption, OutputFormat, print_json, with_exit_codes

PATIENCE_SECONDS = 86400.0
"""256 workers, each with its start and its longest drain, take hours."""


@with_exit_codes
def restart(config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE) -> None:
    """Replace every worker of a running server, one after another: a new one serves before the old one finishes and ends.

    The configuration in force stays, whatever is on disk, and so does the supervisor: a new version of the program itself
    needs the service to be restarted. Waits until the last new worker serves.
    """
    require_server(config, admin_socket)
    found = AdminClient(config, admin_socket, patience=PATIENCE_SECONDS).post("/v1/restart")
    if format is OutputFormat.JSON:
        print_json({"generation": found["generation"], "text": found["text"]})
        return
    print(f"{found['text']}.")
