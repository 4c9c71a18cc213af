"""SqliteStore: the whole Store interface over one SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit import AuditEvent, AuditHead
from gateway.errors import Reason
from gateway.model import ProfileName, RequestId, RevocationReason, UpstreamCAName
from gateway.store.interfaces import (
    AlreadyOpen,
    CertificateFilter,
    ChallengeRow,
    CRLRow,
    InventoryRow,
    LedgerRow,
    LedgerState,
    Opened,
    Opening,
    OpeningRefused,
    PendingRevocation,
    RevokedEntry,
    Tally,
    Transition,
)
from gateway.store.keys import KeyRing
from gateway.store.rows import seal_request
from gateway.store.sqlite import inventory, ledger, revocations, tally
from gateway.store.sqlite.acme.records import AcmeFile
from gateway.store.sqlite.cmp import CmpFile


class SqliteStore(AcmeFile, CmpFile):
    """One SQLite file, shared by the workers of one machine."""

    def __init__(
        self,
        path: Path,
        keys: KeyRing,
        audit_key: bytes,
        worker: str,
        on_head: Callable[[AuditHead], None],
        *,
        head_interval: float = 60.0,
        timeout: float = 10.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(path, keys, audit_key, worker, on_head, head_interval=head_interval, timeout=timeout, clock=clock)
        self._covered: dict[UpstreamCAName, int] = {}

    async def tally(self, kinds: Collection[str]) -> Tally:
        """Count unfinished requests, and the reservations of these kinds."""
        return await self._read_aside(lambda sql: tally.take(sql, kinds))

    # Ledger

    async def find_request(self, request_key: bytes, now: datetime) -> LedgerRow | None:
        """Return the row of the same request inside its retransmission window, or not yet answered."""
        return self._read(lambda sql: ledger.find_request(sql, self._keys, request_key, now))

    async def get_row(self, id: RequestId) -> LedgerRow | None:
        """Return one row."""
        return self._read(lambda sql: ledger.get_row(sql, self._keys, id))

    async def find_transaction(
        self, profile: ProfileName, protocol: str, transaction_id: str, requester_key: bytes
    ) -> LedgerRow | None:
        """Return the newest row of a transaction that this very key opened."""
        return self._read(lambda sql: ledger.find_transaction(sql, self._keys, profile, protocol, transaction_id, requester_key))

    async def open(self, opening: Opening) -> Opened | AlreadyOpen | OpeningRefused:
        """Take all that `opening` names and write the row, or change nothing."""
        sealed = seal_request(self._keys, opening.row.request)
        return await self._write(lambda tx: ledger.open_row(tx, self._keys, opening, sealed))

    async def foresee(self, opening: Opening) -> Reason | None:
        """Say for which of its quotas or reservations `open` would refuse at this moment."""
        return self._read(lambda sql: ledger.foresee(sql, opening))

    async def transition(self, change: Transition) -> LedgerRow | None:
        """Apply `change`; None when the row is not as expected.

        Raises Rejection UPSTREAM_MISMATCH where the certificate belongs to another request.
        """
        return await self._write(lambda tx: ledger.change_row(tx, self._keys, change))

    async def renew_leases(self, worker: str, ids: Sequence[RequestId], until: datetime) -> None:
        """Let the leases of rows that `worker` still holds end at `until`."""
        if ids:
            await self._write(lambda tx: ledger.renew_leases(tx, worker, ids, until))

    async def take_over(
        self, id: RequestId, seen_worker: str, seen_lease: datetime, worker: str, until: datetime, audit: AuditEvent
    ) -> LedgerRow | None:
        """Make a lapsed OPEN or UNKNOWN row ours by compare-and-swap; `audit.at` is the time of the take-over."""
        return await self._write(lambda tx: ledger.take_over(tx, self._keys, id, seen_worker, seen_lease, worker, until, audit))

    async def find_lapsed(
        self, now: datetime, limit: int, beyond: datetime | None = None, resting: Collection[UpstreamCAName] = ()
    ) -> tuple[LedgerRow, ...]:
        """Rows to be looked after, the longest lapsed first, with those that a worker holds until after `beyond`."""
        return self._read(lambda sql: ledger.find_lapsed(sql, self._keys, now, limit, beyond, resting))

    async def list_rows(
        self, states: frozenset[LedgerState], profile: str | None, limit: int, offset: int = 0
    ) -> tuple[LedgerRow, ...]:
        """Rows in these states, newest first."""
        return await self._read_aside(lambda sql: ledger.list_rows(sql, self._keys, states, profile, limit, offset))

    async def find_challenge(self, mac: bytes) -> ChallengeRow | None:
        """Return the one-time challenge of any profile with this HMAC."""
        return self._read(lambda sql: inventory.find_challenge(sql, mac))

    async def find_certificate(self, sha256: bytes) -> InventoryRow | None:
        """Return one inventory row by the SHA-256 of its DER."""
        return self._read(lambda sql: inventory.find_certificate(sql, sha256))

    async def find_issued(self, issuer_der: bytes, serial: int) -> InventoryRow | None:
        """Return one inventory row by the issuer that the certificate names and its serial."""
        return self._read(lambda sql: inventory.find_issued(sql, issuer_der, serial))

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write audit rows that belong to no other change."""
        if events:
            await self._write(lambda tx: tx.audit(*events))

    async def queue_revocation(self, pending: PendingRevocation) -> None:
        """Remember a revocation that a CA is to be told of; one that is remembered already stays as it is."""
        await self._write(lambda tx: revocations.add(tx, pending))

    # Inventory

    async def list_certificates(self, filter: CertificateFilter) -> tuple[InventoryRow, ...]:
        """List inventory rows, newest first."""
        return await self._read_aside(lambda sql: inventory.list_certificates(sql, filter))

    async def find_serial(self, upstream_ca: UpstreamCAName, serial: int) -> InventoryRow | None:
        """Return one inventory row by issuer and serial."""
        return self._read(lambda sql: inventory.find_serial(sql, upstream_ca, serial))

    async def mark_revoked(
        self,
        sha256: bytes,
        at: datetime,
        reason: RevocationReason,
        audit: AuditEvent,
        pending: PendingRevocation | None = None,
    ) -> InventoryRow | None:
        """Mark a certificate and its ledger row revoked; already revoked changes nothing. None if unknown."""
        return await self._write(lambda tx: inventory.mark_revoked(tx, sha256, at, reason, audit, pending))

    async def revoke_unconfirmed(
        self, row: LedgerRow, at: datetime, reason: RevocationReason, audit: AuditEvent, pending: PendingRevocation | None = None
    ) -> bool:
        """Revoke the certificate of a DELIVERED row that its client did not take; False when it was confirmed or revoked."""
        return await self._write(lambda tx: inventory.revoke_unconfirmed(tx, row, at, reason, audit, pending))

    async def revive(self, sha256: bytes, at: datetime, audit: AuditEvent) -> InventoryRow | None:
        """Mark a certificate in force again that was on hold; None where it is not, or its CA was not told of that yet."""
        return await self._write(lambda tx: inventory.revive(tx, sha256, at, audit))

    async def find_due_revocations(
        self, now: datetime, limit: int, resting: Collection[UpstreamCAName] = ()
    ) -> tuple[PendingRevocation, ...]:
        """Revocations that CAs are to be told of now, the longest due first."""
        return self._read(lambda sql: revocations.find_due(sql, now, limit, resting))

    async def put_off_revocation(self, seen: PendingRevocation, until: datetime, cause: str | None = None) -> bool:
        """Let a revocation wait until then; False when another changed it since it was `seen`."""
        return await self._write(lambda tx: revocations.put_off(tx, seen, until, cause))

    async def end_revocation(self, sha256: bytes, audit: AuditEvent) -> bool:
        """Forget a revocation of which its CA knows, or need not know any more; False when another was first."""
        return await self._write(lambda tx: revocations.end(tx, sha256, audit))

    async def list_revocations(self, limit: int, offset: int = 0) -> tuple[PendingRevocation, ...]:
        """Revocations that CAs were not told of yet, the oldest first."""
        return await self._read_aside(lambda sql: revocations.list_pending(sql, limit, offset))

    async def find_revocation(self, sha256: bytes) -> PendingRevocation | None:
        """Return the revocation of one certificate that its CA was not told of yet."""
        return self._read(lambda sql: revocations.find(sql, sha256))

    async def add_challenge(self, row: ChallengeRow, audit: AuditEvent) -> None:
        """Store one challenge, its `mac` made with the newest store key; raises StoreUnavailable where it exists already."""
        await self._write(lambda tx: inventory.add_challenge(tx, row, self._keys.newest_id, audit))

    async def list_challenges(self, profile: str | None, now: datetime, limit: int) -> tuple[ChallengeRow, ...]:
        """Challenges that have not expired, newest first."""
        return await self._read_aside(lambda sql: inventory.list_challenges(sql, profile, now, limit))

    async def revoke_challenge(self, id: str, at: datetime, audit: AuditEvent) -> bool:
        """Revoke an unused challenge; False if there is none."""
        return await self._write(lambda tx: inventory.revoke_challenge(tx, id, at, audit))

    async def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew a named lease; True when `holder` has it."""
        return await self._write(lambda tx: inventory.take_lease(tx, name, holder, now, until))

    async def list_revoked(self, upstream_ca: UpstreamCAName, not_expired_at: datetime) -> tuple[RevokedEntry, ...]:
        """Every revoked certificate of a CA that had not expired at the given time, oldest revocation first.

        The store remembers how many revocations this list can hold, for the CRL that is made from it.
        """
        covered, entries = await self._read_aside(lambda sql: inventory.list_revoked(sql, upstream_ca, not_expired_at))
        self._covered[upstream_ca] = min(covered, self._covered.get(upstream_ca, covered))
        return entries

    async def newest_crl(self, upstream_ca: UpstreamCAName) -> CRLRow | None:
        """Return the newest CRL, if any."""
        return self._read(lambda sql: inventory.newest_crl(sql, upstream_ca))

    async def crl_is_stale(self, upstream_ca: UpstreamCAName) -> bool:
        """Whether a revocation was recorded that the newest CRL cannot hold, or there is no CRL."""
        return self._read(lambda sql: inventory.crl_is_stale(sql, upstream_ca))

    async def put_crl(self, row: CRLRow, audit: AuditEvent) -> bool:
        """Store the CRL made from the last `list_revoked`; False when another holder was first."""
        covers = self._covered.pop(row.upstream_ca, 0)
        return await self._write(lambda tx: inventory.put_crl(tx, row, covers, audit), is_long=True)

    async def count_revocations(self, upstream_ca: UpstreamCAName) -> int:
        """Return how many revocations were ever recorded for a CA."""
        return self._read(lambda sql: inventory.count_revocations(sql, upstream_ca))

    async def keep_crl(self, row: CRLRow, seen: CRLRow | None, covers: int) -> bool:
        """Store a CRL that another CA has signed, in place of the one that was `seen`; False when another was first."""
        return await self._write(lambda tx: inventory.keep_crl(tx, row, seen, covers), is_long=True)
