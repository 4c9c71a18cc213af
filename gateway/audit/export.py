"""Audit rows for other systems: JSON lines, ArcSight CEF and Elastic Common Schema, each a pure function of one row."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from gateway.audit.chain import ChainRow

ECS_VERSION = "8.11.0"
_SEVERITY = MappingProxyType({"refused": 6, "pending": 3, "granted": 3, "done": 3})
_OUTCOME = MappingProxyType({"refused": "failure", "pending": "unknown", "granted": "success", "done": "success"})
_CEF_FIELDS = (
    ("suser", "actor"),
    ("src", "source"),
    ("app", "protocol"),
    ("act", "operation"),
    ("externalId", "request_id"),
    ("reason", "reason"),
    ("msg", "detail"),
    ("cnt", "count"),
)
_CEF_CUSTOM = (
    ("cs1", "profile"),
    ("cs2", "transaction_id"),
    ("cs3", "serial"),
    ("cs4", "subject"),
    ("cs5", "upstream_ca"),
    ("cs6", "public_key_sha256"),
)
_OWN_FIELDS = ("profile", "operation", "transaction_id", "request_id", "request_sha256", "upstream_ca", "generation", "count")


def to_jsonl(row: ChainRow) -> str:
    """Return the event as one JSON object with its `seq` and `hash`."""
    return _dump({"seq": row.seq, "hash": row.hash.hex(), **_event(row)})


def to_cef(row: ChainRow) -> str:
    """Return the event in Common Event Format (ArcSight CEF, version 0)."""
    event = _event(row)
    name = str(event.get("event", ""))
    decision = str(event.get("decision", ""))
    severity = _SEVERITY.get(decision, 3)
    fields = {
        "rt": str(_milliseconds(event)),
        "outcome": _OUTCOME.get(decision, "unknown"),
        "cn1": str(row.seq),
        "cn1Label": "seq",
    }
    for field, source in _CEF_FIELDS:
        if source in event:
            fields[field] = str(event[source])
    for field, source in _CEF_CUSTOM:
        if source in event:
            fields |= {field: str(event[source]), f"{field}Label": source}
    extension = " ".join(f"{key}={_escape_extension(value)}" for key, value in fields.items())
    header = "|".join(_escape_header(part) for part in ("pki-gateway", "pki-gateway", "1", name, f"{name} {decision}"))
    return f"CEF:0|{header}|{severity}|{extension}"


def to_ecs(row: ChainRow) -> str:
    """Return the event in Elastic Common Schema; what ECS has no field for stands under `pki_gateway`."""
    event = _event(row)
    decision = str(event.get("decision", ""))
    document: dict[str, Any] = {
        "@timestamp": event.get("at"),
        "ecs": {"version": ECS_VERSION},
        "event": _present(
            kind="event",
            category=["authentication" if decision == "refused" else "configuration"],
            type=["denied" if decision == "refused" else "allowed" if decision == "granted" else "info"],
            action=event.get("event"),
            outcome=_OUTCOME.get(decision, "unknown"),
            reason=event.get("reason"),
            sequence=row.seq,
            hash=row.hash.hex(),
            module="pki-gateway",
        ),
        "message": event.get("detail", event.get("event")),
        "network": _present(protocol=event.get("protocol")),
        "source": _present(address=event.get("source"), ip=_ip_or_none(event.get("source"))),
        "user": _present(name=event.get("actor")),
        "x509": _present(
            serial_number=str(event["serial"]).upper() if "serial" in event else None,
            subject=_present(distinguished_name=event.get("subject")),
            alternative_names=event.get("sans"),
        ),
        "pki_gateway": {name: event[name] for name in _OWN_FIELDS if name in event},
    }
    return _dump({name: value for name, value in document.items() if value})


FORMATS: Mapping[str, Callable[[ChainRow], str]] = MappingProxyType({"jsonl": to_jsonl, "cef": to_cef, "ecs": to_ecs})
"""What `audit export --format` offers."""


def _event(row: ChainRow) -> dict[str, Any]:
    event = json.loads(row.body)
    return event if isinstance(event, dict) else {}


def _ip_or_none(text: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return None


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _milliseconds(event: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(str(event["at"])).timestamp() * 1000)


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _escape_header(text: str) -> str:
    return _one_line(text.replace("\\", "\\\\").replace("|", "\\|"), " ")


def _escape_extension(text: str) -> str:
    return _one_line(text.replace("\\", "\\\\").replace("=", "\\="), "\\n")


def _one_line(text: str, line_end: str) -> str:
    """No text of a device may begin a line of its own in somebody's log."""
    plain = line_end.join(text.splitlines())
    return "".join(c if c.isprintable() else "?" for c in plain)
