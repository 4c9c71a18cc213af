"""When certificates should be renewed, and orders that replace one (RFC 9773)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.acme import Account, CertificateId, Incident, OrderRequest, RenewalInfo
from gateway.errors import Reason, Rejection
from gateway.model import Identifier, ProfileName, Protocol, SanKind, SubjectAltName
from gateway.pki.certificate import parse_certificate
from gateway.pki.identifiers import to_identifier
from gateway.pki.renewal_window import past_window, suggest_window
from gateway.ra.acme.terms import Means, directory
from gateway.ra.credentials.acme_order import identity_of
from gateway.ra.profile import AcmeTerms, Snapshot
from gateway.store.interfaces import InventoryRow

SERVES_AT_LEAST = timedelta(hours=1)
"""A certificate that is younger is replaced within the limits of orders, unless an incident names it."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """The certificate that an order replaces; `due` says that it is time, so that it is counted by itself (RFC 9773 §5)."""

    sha256: bytes | None = None
    due: bool = False


class Renewals:
    """Renewal information of every certificate in the inventory, whatever protocol it came by."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def info(self, snapshot: Snapshot, profile: ProfileName, certificate: CertificateId) -> RenewalInfo:
        """Say when a certificate should be renewed, to everybody who can name it. Raises Rejection UNKNOWN_CERTIFICATE."""
        _, terms = directory(snapshot, profile)
        row = await self._find(snapshot, certificate)
        if row is None:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate")
        retry_after = max(1, int(terms.config.renewal.retry_after.total_seconds()))
        incident = await self._means.records.find_incident(row.sha256)
        return await self._info(snapshot, terms, row, incident, retry_after)

    async def replaced(
        self, snapshot: Snapshot, terms: AcmeTerms, account: Account, request: OrderRequest, now: datetime
    ) -> Replaced:
        """Judge what an order says that it replaces (RFC 9773 §5).

        A certificate that was not ordered by an ACME account here is nobody's to replace: that is ignored, or refused where the
        profile says so. Clients try again without it only where the refusal names 'replaces'.
        """
        if request.replaces is None:
            return Replaced()
        row = await self._find(snapshot, request.replaces)
        if row is None or row.protocol != Protocol.ACME:
            if terms.config.renewal.foreign_replaces == "reject":
                raise Rejection(Reason.MALFORMED, "the certificate in 'replaces' was not issued to an account of this server")
            return Replaced()
        if row.requester != identity_of(account.id):
            raise Rejection(Reason.NOT_AUTHORIZED, "the certificate in 'replaces' was issued to another account")
        if identifiers_of(row).isdisjoint(request.identifiers):
            raise Rejection(Reason.MALFORMED, "the certificate in 'replaces' shares no identifier with this order")
        incident = await self._means.records.find_incident(row.sha256)
        info = await self._info(snapshot, terms, row, incident, 1)
        return Replaced(row.sha256, incident is not None or (info.start <= now and _has_served(row, now)))

    async def _info(
        self, snapshot: Snapshot, terms: AcmeTerms, row: InventoryRow, incident: Incident | None, retry_after: int
    ) -> RenewalInfo:
        """Say when to renew a certificate: at once where something happened, else as its CA says, else as its profile does."""
        times = [at for at in (row.revoked_at, None if incident is None else incident.created_at) if at is not None]
        if times:
            explained = None if incident is None else incident.explanation_url
            return RenewalInfo(*past_window(row.not_before, min(times)), explained, retry_after)
        hint = await self._means.authority.renewal_hint(snapshot, row)
        if hint is not None:
            return RenewalInfo(hint.start, hint.end, hint.explanation_url, min(retry_after, hint.retry_after))
        own = snapshot.profiles.get(row.profile)
        config = (own.acme if own is not None and own.acme is not None else terms).config
        return RenewalInfo(*suggest_window(row.not_before, row.not_after, config.renewal.before), None, retry_after)

    async def _find(self, snapshot: Snapshot, certificate: CertificateId) -> InventoryRow | None:
        """Return the certificate that has this serial under a CA of the configuration, and this very authority key identifier."""
        for name in snapshot.upstream_cas:
            row = await self._means.inventory.find_serial(name, certificate.serial)
            if row is not None and parse_certificate(row.der).authority_key_id == certificate.authority_key_id:
                return row
        return None


def _has_served(row: InventoryRow, now: datetime) -> bool:
    """Say whether a certificate was of use for a while: one that was asked for, or revoked, so as to be due at once was not."""
    age = now - row.issued_at
    return row.revoked_at is None and age >= max(SERVES_AT_LEAST, (row.not_after - row.issued_at) / 2)


def identifiers_of(row: InventoryRow) -> frozenset[Identifier]:
    """Return those names of a certificate that an order could name."""
    named = [text.partition(":") for text in row.sans]
    found = [to_identifier(SubjectAltName(SanKind(kind), value, b"")) for kind, _, value in named]
    return frozenset([one for one in found if one is not None])
