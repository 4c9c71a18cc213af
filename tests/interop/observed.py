"""What a server wrote down about its clients: the audit trail and the log."""

import json
from typing import Any

from tests.conftest import RunningServer

Row = dict[str, Any]


def audit_rows(server: RunningServer, event: str | None = None) -> list[Row]:
    rows = [json.loads(line) for line in server.cli("audit", "export").stdout.splitlines()]
    return [row for row in rows if event in (None, row["event"])]


def rejections(server: RunningServer) -> list[str]:
    """The reasons of all refusals so far."""
    return [row["reason"] for row in audit_rows(server, "enrollment.rejected")]


def log_lines(server: RunningServer) -> list[Row]:
    """The log's lines about SCEP messages, in their order."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "scep"]


def operations(server: RunningServer, common_name: str) -> list[tuple[str, str]]:
    """Message type and outcome of all messages about a subject, polls included; no other test's name may begin with it."""
    lines = log_lines(server)
    about = {line["transaction_id"] for line in lines if f"CN={common_name}" in line.get("subject", "")}
    return [(line["operation"], line["outcome"]) for line in lines if line["transaction_id"] in about]


def approve(server: RunningServer, attempts: int = 100) -> None:
    """Approve the one request that waits, as soon as it does."""
    waiting: list[Row] = []
    for _ in range(attempts):
        waiting = json.loads(server.cli("requests", "list", "--format", "json").stdout)
        if waiting:
            break
    assert [row["state"] for row in waiting] == ["pending"]
    server.cli("requests", "approve", waiting[0]["id"])
