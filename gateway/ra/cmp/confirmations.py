"""What becomes of certificates that their clients did not confirm in time (RFC 9810 §5.3.18)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from gateway.errors import Rejection
from gateway.model import RequestForm
from gateway.pki import der
from gateway.ra import journal
from gateway.ra.profile import Snapshot
from gateway.ra.revocation import revoke_unconfirmed
from gateway.store.cmp import CmpRecords
from gateway.store.interfaces import Inventory, LedgerRow

log = structlog.get_logger(__name__)

ROWS_A_PASS = 100
_LATE = "it was not confirmed in time"
_BY_DECRYPTION = frozenset({0xA2, 0xA3})
"""keyEncipherment and keyAgreement of ProofOfPossession (RFC 4211 §4)."""


class Confirmations:
    """One worker's part in ending waits for confirmations; several may pass over them at once, and each row is ended by one."""

    def __init__(self, records: CmpRecords, inventory: Inventory, clock: Callable[[], datetime], worker: str) -> None:
        self._records = records
        self._inventory = inventory
        self._clock = clock
        self._worker = worker

    async def pass_over(self, snapshot: Snapshot) -> int:
        """Revoke or keep every certificate whose time is over, as its profile says; returns how many were revoked.

        CAs are yet to be told of them. Raises StoreUnavailable.
        """
        revoked = 0
        while rows := await self._records.find_unconfirmed(self._clock(), ROWS_A_PASS):
            for row in rows:
                revoked += await self._end(snapshot, row)
            if len(rows) < ROWS_A_PASS:
                break
        return revoked

    async def _end(self, snapshot: Snapshot, row: LedgerRow) -> bool:
        now = self._clock()
        profile = snapshot.profiles.get(row.profile)
        keeps = profile is not None and profile.cmp is not None and profile.cmp.config.confirmation.on_timeout == "keep"
        if keeps and not _is_unproved(row):
            event = journal.change(row, "enrollment.unconfirmed", "done", now, actor=self._worker, detail=_LATE)
            await self._records.end_confirmation(row, event)
            return False
        event = journal.change(row, "certificate.revoked", "done", now, actor=self._worker, detail=_LATE)
        revoked = await revoke_unconfirmed(self._inventory, snapshot.upstream_cas.get(row.upstream_ca), row, now, event)
        if revoked:
            log.warning("revoked a certificate that was not confirmed in time", request_id=row.id, profile=row.profile)
        return revoked


def _is_unproved(row: LedgerRow) -> bool:
    """Say whether nothing but the confirmation proves its key, which the certificate was encrypted to (RFC 9810 §5.2.8.3.2)."""
    if row.form is not RequestForm.CRMF:
        return False
    try:
        parts = der.elements(der.content(0x30, row.request))
    except Rejection:
        return True
    return len(parts) > 1 and parts[1][0] in _BY_DECRYPTION
