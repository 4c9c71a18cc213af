"""What the store keeps for CMP: shared secrets, transactions that serve once, certificates that wait to be confirmed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from gateway.audit import AuditEvent
from gateway.cmp import SharedSecret
from gateway.model import ProfileName, Reservation

if TYPE_CHECKING:
    from gateway.store.interfaces import LedgerRow


class CmpRecords(Protocol):
    """Every method may raise `StoreUnavailable`; then nothing may be granted."""

    async def add_secret(self, secret: SharedSecret, audit: AuditEvent) -> bool:
        """Keep a secret, sealed; False when the profile has one of this reference that is neither revoked nor expired."""

    async def find_secret(self, profile: ProfileName, reference: bytes) -> SharedSecret | None:
        """Return the newest secret of this reference, opened, also when it is revoked or has expired."""

    async def list_secrets(self, profile: str | None, now: datetime, limit: int) -> tuple[SharedSecret, ...]:
        """Return those in force, newest first, `secret` empty in each and `uses` counted."""

    async def revoke_secret(self, id: str, at: datetime, audit: AuditEvent) -> bool:
        """End a secret; False when there is none, or it has ended."""

    async def take(self, reservation: Reservation, now: datetime) -> bool:
        """Take a reservation by itself; False when it is taken (a transaction that enrolls nothing: rr, genm)."""

    async def find_unconfirmed(self, now: datetime, limit: int) -> tuple[LedgerRow, ...]:
        """Return DELIVERED rows whose `confirm_by` has passed, oldest first."""

    async def end_confirmation(self, row: LedgerRow, audit: AuditEvent) -> bool:
        """Clear `confirm_by` of a delivered row that keeps its certificate; False when it was cleared or confirmed meanwhile."""
