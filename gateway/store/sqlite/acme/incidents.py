"""Statements of incidents: which certificates should be replaced at once, and why (RFC 9773 §4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.acme import Incident
from gateway.audit import AuditEvent
from gateway.store import tables
from gateway.store.acme import Affected
from gateway.store.acme_rows import INCIDENT_SELECT, incident_columns, read_incident
from gateway.store.rows import insert, to_micros, to_serial
from gateway.store.sqlite.acme.statements import listing, numbered
from gateway.store.sqlite.transaction import Queries, Transaction

_INSERT = insert(tables.acme_incidents)
_SERIALS = 512
"""Serial numbers of one statement."""
_FIND = INCIDENT_SELECT + (
    "JOIN acme_incident_certificates c ON c.incident = n.id WHERE c.sha256 = :sha256 "
    "ORDER BY n.created_at DESC, n.id DESC LIMIT 1"
)
_EXAMPLES = 10


def declare(tx: Transaction, incident: Incident, affected: Affected, now: datetime, audit: AuditEvent) -> Incident:
    """Note every certificate that is affected, and the incident with their number."""
    count = 0
    for where, parameters in _conditions(affected, now):
        note = f"INSERT INTO acme_incident_certificates (sha256, incident) SELECT i.sha256, :incident FROM inventory i {where}"  # noqa: S608
        count += tx.execute(note, parameters | {"incident": incident.id})
    counted = replace(incident, certificates=count)
    tx.execute(_INSERT, incident_columns(counted))
    tx.audit(audit)
    return counted


def count(sql: Queries, affected: Affected, now: datetime) -> tuple[int, tuple[str, ...]]:
    """Return how many certificates are affected, and some of their subjects."""
    total, subjects = 0, []
    for where, parameters in _conditions(affected, now):
        total += sql.all(f"SELECT COUNT(*) FROM inventory i {where}", parameters)[0][0]  # noqa: S608 - constants
        query = f"SELECT i.subject FROM inventory i {where} ORDER BY i.issued_at DESC, i.sha256 LIMIT {_EXAMPLES}"  # noqa: S608
        subjects += [row[0] for row in sql.all(query, parameters)]
    return total, tuple(subjects[:_EXAMPLES])


def find(sql: Queries, certificate_sha256: bytes) -> Incident | None:
    """Return the newest incident that concerns a certificate."""
    row = sql.one(_FIND, {"sha256": certificate_sha256})
    return read_incident(row) if row else None


def list_rows(sql: Queries, limit: int) -> tuple[Incident, ...]:
    """Return incidents, newest first."""
    query = INCIDENT_SELECT + "ORDER BY n.created_at DESC, n.id DESC LIMIT :limit"
    return tuple(read_incident(row) for row in sql.all(query, {"limit": limit}))


def withdraw(tx: Transaction, id: str, audit: AuditEvent) -> bool:
    """Forget an incident and which certificates it concerned."""
    if tx.execute("DELETE FROM acme_incidents WHERE id = :id", {"id": id}) != 1:
        return False
    tx.execute("DELETE FROM acme_incident_certificates WHERE incident = :id", {"id": id})
    tx.audit(audit)
    return True


def _conditions(affected: Affected, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return what selects the affected certificates, serial numbers in portions that share none."""
    fields = {"profile": affected.profile, "upstream_ca": affected.upstream_ca, "public_key_sha256": affected.public_key_sha256}
    asked: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    where = " AND ".join(["WHERE i.not_after > :now AND i.revoked_at IS NULL", *(f"i.{name} = :{name}" for name in asked)])
    parameters = asked | {"now": to_micros(now)}
    if affected.serials is None:
        yield where, parameters
        return
    serials = [to_serial(serial) for serial in sorted(affected.serials)]
    for start in range(0, len(serials), _SERIALS):
        names = numbered("serial", serials[start : start + _SERIALS])
        yield f"{where} AND i.serial IN ({listing('serial', len(names))})", parameters | names
