"""`pki-gateway reload`: put the configuration on disk in force in the running server, or hear why not."""

from __future__ import annotations

import json
import time
from typing import Any

from gateway.cli.client import BROKE_OFF, AdminClient, require_server
from gateway.cli.options import (
    AdminSocketOption,
    CommandError,
    ConfigOption,
    FormatOption,
    OutputFormat,
    print_json,
    print_records,
    with_exit_codes,
)

PATIENCE_SECONDS = 180.0
"""Longer than every worker may take to prove a configuration and follow, and than a reload before this one."""

TRIES = 3
"""The worker that has our connection may die of what it reads; asking twice does no harm, and the second answer is right."""
PAUSE_SECONDS = 1.0


@with_exit_codes
def reload(config: ConfigOption, admin_socket: AdminSocketOption = None, format: FormatOption = OutputFormat.TABLE) -> None:
    """Read the configuration and all its files again, in a running server; what was in force stays when anything is wrong.

    Waits for the end: exit status 0 when it is in force in every worker, 1 with the reason when it is not.
    """
    require_server(config, admin_socket)
    found = _reload(AdminClient(config, admin_socket, patience=PATIENCE_SECONDS), TRIES)
    if format is OutputFormat.JSON:
        print_json({name: found[name] for name in ("generation", "fields", "contents")})
        return
    text = found["text"]
    print(f"{text[:1].upper()}{text[1:]}.")
    rows = [{name: _cell(value) for name, value in row.items()} for row in found["fields"]]
    rows += [{"field": name, "before": "", "after": "changed"} for name in found["contents"]]
    if rows:
        print_records(rows, format)


def _reload(client: AdminClient, tries: int) -> Any:
    try:
        return client.post("/v1/reload")
    except CommandError as error:
        if error.reason == BROKE_OFF and tries > 1:
            time.sleep(PAUSE_SECONDS)
            return _reload(client, tries - 1)
        raise


def _cell(value: object) -> str:
    """Write one value on one line; nothing for a value that is not there."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
