"""Statements of incidents: which certificates should be replaced at once, and why (RFC 9773 §4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.acme import Incident
from gateway.audit import AuditEvent
from gateway.store import tables
from gateway.store.acme import Affected
from gateway.store.acme_rows import INCIDENT_SELECT, incident_columns, read_incident
from gateway.store.rows import insert, to_micros, to_serial
from gateway.store.sqlite.acme.statements import insert_many, listing, numbered
from gateway.store.sqlite.transaction import Queries, Transaction

_INSERT = insert(tables.acme_incidents)
_SERIALS = 512
"""Serial numbers of one statement."""
_FIND = INCIDENT_SELECT + (
    "JOIN acme_incident_certificates c ON c.incident = n.id WHERE c.sha256 = :sha256 "
    "ORDER BY n.created_at DESC, n.id DESC LIMIT 1"
)
_COUNT = "UPDATE acme_incidents SET certificates = certificates + :more WHERE id = :id"
_EXAMPLES = 10
PAGE = 1000
"""Certificates of one transaction: an incident may concern all there are, and enrollments wait for each."""
_FORGET = (
    "DELETE FROM acme_incident_certificates WHERE (sha256, incident) IN "  # noqa: S608 - a constant
    f"(SELECT sha256, incident FROM acme_incident_certificates WHERE incident = :id LIMIT {PAGE})"
)


def declare(tx: Transaction, incident: Incident, audit: AuditEvent) -> None:
    """Write an incident; its certificates are noted afterwards."""
    tx.execute(_INSERT, incident_columns(incident))
    tx.audit(audit)


def read_page(sql: Queries, where: str, parameters: Mapping[str, Any], after: bytes) -> list[bytes]:
    """Return the SHA-256 of some of the certificates that `conditions` selects, those after the last of the page before."""
    query = f"SELECT i.sha256 FROM inventory i {where} AND i.sha256 > :after ORDER BY i.sha256 LIMIT {PAGE}"  # noqa: S608
    return [row[0] for row in sql.all(query, {**parameters, "after": after})]


def note(tx: Transaction, id: str, certificates: Sequence[bytes]) -> None:
    """Note certificates that an incident concerns, and count them."""
    insert_many(tx, tables.acme_incident_certificates, [{"sha256": sha256, "incident": id} for sha256 in certificates])
    tx.execute(_COUNT, {"id": id, "more": len(certificates)})


def count(sql: Queries, affected: Affected, now: datetime) -> tuple[int, tuple[str, ...]]:
    """Return how many certificates are affected, and some of their subjects."""
    total, subjects = 0, []
    for where, parameters in conditions(affected, now):
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


def forget_portion(tx: Transaction, id: str) -> int:
    """Forget some of the certificates that an incident concerned; returns how many."""
    return tx.execute(_FORGET, {"id": id})


def withdraw(tx: Transaction, id: str, audit: AuditEvent) -> bool:
    """Forget an incident."""
    if tx.execute("DELETE FROM acme_incidents WHERE id = :id", {"id": id}) != 1:
        return False
    tx.audit(audit)
    return True


def conditions(affected: Affected, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
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
