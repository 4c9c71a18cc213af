"""Tells CAs of revocations that they could not be told of when they were recorded (RFC 5280 §5.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from gateway.audit import AuditEvent
from gateway.ca.interfaces import Capability, NotSent, UpstreamCA, UpstreamRejected
from gateway.metrics.registry import UpstreamOperation
from gateway.model import RevocationReason, UpstreamCAName
from gateway.ra.profile import Snapshot
from gateway.ra.reach import Reach
from gateway.ra.timing import Timing
from gateway.ra.upstream import ask
from gateway.store.interfaces import Inventory, PendingRevocation

log = structlog.get_logger(__name__)

ROWS_A_PASS = 100
AT_ONCE = 4
"""How many revocations one worker sends at the same time: clients come first."""
LONGEST_CAUSE = 500
"""Characters of a CA's words that are kept."""


class RevocationQueue:
    """One worker's part in telling CAs what the inventory knows already; several may pass over it at once.

    An attempt is claimed by compare-and-swap on its time, so that one worker makes it; one that dies at it leaves it to be
    made again: a CA takes the same revocation twice as success. None is given up before its certificate has ended.
    """

    def __init__(self, inventory: Inventory, clock: Callable[[], datetime], worker: str, timing: Timing, reach: Reach) -> None:
        self._inventory = inventory
        self._clock = clock
        self._worker = worker
        self._timing = timing
        self._reach = reach

    async def pass_over(self, snapshot: Snapshot) -> int:
        """Tell CAs all that is due; returns of how many revocations they know now. Raises StoreUnavailable."""
        told = 0
        while True:
            count, waiting = await self._round(snapshot)
            told += count
            if not count or not any(self._reach.is_reached(ca) for ca in waiting):
                return told

    async def _round(self, snapshot: Snapshot) -> tuple[int, frozenset[UpstreamCAName]]:
        """Try what is due; returns how many attempts succeeded, and the CAs for which something is left."""
        rows = await self._inventory.find_due_revocations(self._clock(), ROWS_A_PASS, self._reach.resting())
        gate = asyncio.Semaphore(AT_ONCE)

        async def take(row: PendingRevocation) -> bool:
            async with gate:
                return await self._take(snapshot, row)

        done = await asyncio.gather(*(take(row) for row in rows))
        left = (row.upstream_ca for row, told in zip(rows, done, strict=True) if not told)
        return sum(done), frozenset(left)

    async def _take(self, snapshot: Snapshot, row: PendingRevocation) -> bool:
        now = self._clock()
        if row.not_after <= now:
            await self._inventory.end_revocation(row.sha256, self._event("revocation.lapsed", row, "the certificate has ended"))
            return False
        upstream = snapshot.upstream_cas.get(row.upstream_ca)
        if upstream is None or Capability.REVOKE not in upstream.capabilities:
            await self._set_aside(
                row, "it is not configured any more" if upstream is None else "it takes no revocations any more"
            )
            return False
        if not self._reach.admit(row.upstream_ca):
            return False
        claimed = replace(row, next_at=now + self._timing.lease)
        if not await self._inventory.put_off_revocation(row, claimed.next_at):
            return False
        return await self._tell(upstream, claimed)

    async def _tell(self, upstream: UpstreamCA, row: PendingRevocation) -> bool:
        try:
            question = upstream.revoke(row.der, row.serial, row.reason, row.revoked_at)
            await ask(upstream, UpstreamOperation.REVOKE, question, self._timing.revoke_within)
        except UpstreamRejected as refusal:
            self._reach.answer(upstream.name)
            await self._set_aside(row, f"it refuses: {refusal}")
        except NotSent as error:
            await self._put_off(row, self._reach.fail(upstream.name, error.retry_after), error)
        except Exception as error:  # noqa: BLE001  whatever went wrong, the same revocation is sent again
            pause = min(self._timing.longest_rest, self._timing.first_trial * 2 ** min(row.attempts, 10))
            await self._put_off(row, pause, error)
        else:
            self._reach.answer(upstream.name)
            detail = f"{row.reason.name.lower()}, revoked {row.revoked_at.isoformat(timespec='seconds')}"
            await self._inventory.end_revocation(row.sha256, self._event("revocation.told", row, detail))
            return True
        return False

    async def _put_off(self, row: PendingRevocation, pause: timedelta, error: Exception) -> None:
        cause = str(error) or type(error).__name__
        await self._inventory.put_off_revocation(row, self._clock() + pause, cause[:LONGEST_CAUSE])
        log.warning("a CA could not be told of a revocation and is tried again", **_told(row), cause=cause)

    async def _set_aside(self, row: PendingRevocation, cause: str) -> None:
        """Let a revocation wait for long that an operator has to see to."""
        if await self._inventory.put_off_revocation(row, self._clock() + self._timing.hold, cause[:LONGEST_CAUSE]):
            log.error("a CA cannot be told of a revocation: revoke the certificate there", **_told(row), cause=cause)

    def _event(self, name: str, row: PendingRevocation, detail: str) -> AuditEvent:
        return AuditEvent(
            event=name,
            at=self._clock(),
            actor=self._worker,
            decision="done",
            upstream_ca=row.upstream_ca,
            serial=format(row.serial, "x"),
            detail=detail,
        )


def new_pending(
    der: bytes,
    sha256: bytes,
    upstream_ca: UpstreamCAName,
    serial: int,
    not_after: datetime,
    reason: RevocationReason,
    at: datetime,
    cause: str,
    attempts: int = 1,
) -> PendingRevocation:
    """Return a revocation that a CA could not be told of for this cause; it is tried again at once."""
    return PendingRevocation(sha256, der, upstream_ca, serial, reason, at, not_after, at, attempts, cause[:LONGEST_CAUSE])


def _told(row: PendingRevocation) -> dict[str, str]:
    return {"upstream_ca": row.upstream_ca, "serial": format(row.serial, "x"), "certificate": row.sha256.hex()}
