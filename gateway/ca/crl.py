"""Publishes a local CA's CRL: one signer at a time, numbered by the store, on schedule and on revocation (RFC 5280 §5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from gateway.audit import AuditEvent
from gateway.ca.interfaces import UpstreamError
from gateway.errors import StoreUnavailable
from gateway.model import RevocationReason, UpstreamCAName
from gateway.store.interfaces import CRLRow, Inventory

LEASE = timedelta(seconds=60)
"""How long one process has the right to sign; longer than signing the largest CRL takes."""
LEASE_POLL = 0.25
"""Seconds between looks at what another lease holder is doing."""
CACHE_SECONDS = 1.0
"""How old an answer of `current` may be."""
CHECK_SECONDS = 1.0
"""How often `run` asks whether something was revoked, by whichever process."""
SKEW = timedelta(minutes=1)
"""How far ahead of the clock thisUpdate may lie: a clock that is corrected in small steps makes no new CRL."""
RETRY_SECONDS = 15.0
"""How long `run` waits after a failure."""

log = structlog.get_logger("gateway.ca.crl")


class CrlSigner(Protocol):
    """What the publisher asks of the CA; `LocalCA` is one."""

    name: UpstreamCAName

    @property
    def not_after(self) -> datetime:
        """End of the CA certificate: no CRL can be verified after it."""

    async def sign_crl(
        self,
        number: int,
        this_update: datetime,
        next_update: datetime,
        entries: Iterable[tuple[int, datetime, RevocationReason]],
    ) -> bytes:
        """Return a signed CRL, DER."""

    async def has_signed(self, crl: bytes) -> bool:
        """Whether this CA's key signed the CRL."""


@dataclass(frozen=True, slots=True)
class CrlSchedule:
    """`lifetime` from thisUpdate to nextUpdate; a new CRL is due `refresh` after the last one."""

    lifetime: timedelta
    refresh: timedelta


class CrlUnavailable(Exception):
    """No CRL could be published now; the text says why."""


class CrlPublisher:
    """Makes and serves the CRL of one CA; every worker process has one, and the store lets one of them sign.

    Two locks keep numbers unique: a lease in the store so that only one process does the work, and `put_crl`, which
    takes a CRL only if its number follows the newest. What loses that race was never stored, so nobody has seen it.
    It outlives configurations, which may give it another key and schedule at any time.
    """

    def __init__(
        self, store: Inventory, ca: CrlSigner, clock: Callable[[], datetime], holder: str, schedule: CrlSchedule
    ) -> None:
        self._store = store
        self._ca = ca
        self._clock = clock
        self._holder = holder
        self._schedule = schedule
        self._cached: CRLRow | None = None
        self._cached_at = float("-inf")
        self._signing = asyncio.Lock()
        self._ours: tuple[CrlSigner, int] | None = None
        """A CRL's number, and the CA that is known to have signed it."""

    def follow(self, ca: CrlSigner, schedule: CrlSchedule) -> None:
        """Sign with this CA from now on, which has the same name; what it has not signed is replaced when `run` looks next."""
        self._ca = ca
        self._schedule = schedule

    async def current(self) -> CRLRow | None:
        """Return the newest CRL, at most a second old as an answer, or None. Raises StoreUnavailable if never read."""
        if time.monotonic() - self._cached_at < CACHE_SECONDS:
            return self._cached
        try:
            return self._remember(await self._store.newest_crl(self._ca.name))
        except StoreUnavailable:
            # A signed CRL that is still in force may go out although the store is away.
            if self._cached is None or self._cached.next_update <= self._clock():
                raise
            return self._cached

    async def publish(self, force: bool = False, actor: str | None = None) -> CRLRow:
        """Sign and store a CRL if one is due, or in any case with `force`; return the newest.

        When another process is signing, its CRL is awaited. Raises CrlUnavailable, StoreUnavailable.
        """
        give_up = time.monotonic() + LEASE.total_seconds()
        first = await self._store.newest_crl(self._ca.name)
        while True:
            newest = await self._store.newest_crl(self._ca.name)
            forced = force and _number(newest) == _number(first)
            if newest is not None and not forced and not await self._is_due(newest):
                self._remember(newest)
                return newest
            row = await self._try_publish(_number(newest), actor or self._holder)
            if row is not None:
                self._remember(row)
                return row
            if time.monotonic() > give_up:
                raise CrlUnavailable(f"another process holds the right to sign the CRL of {self._ca.name} and does not finish")
            await asyncio.sleep(LEASE_POLL)

    async def run(self) -> None:
        """Publish whenever a CRL is due, until cancelled; failures are logged and tried again."""
        while True:
            pause = CHECK_SECONDS
            try:
                current = await self.current()
                if current is None or await self._is_due(current):
                    await self.publish()
            except (CrlUnavailable, StoreUnavailable, UpstreamError) as error:
                log.warning(
                    "the CRL could not be published", upstream_ca=self._ca.name, cause=str(error), retry_after=RETRY_SECONDS
                )
                pause = RETRY_SECONDS
            except Exception:
                log.exception("the CRL could not be published", upstream_ca=self._ca.name, retry_after=RETRY_SECONDS)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _is_due(self, newest: CRLRow) -> bool:
        now = self._clock()
        if now >= min(newest.this_update + self._schedule.refresh, newest.next_update):
            return True
        if newest.this_update > now + SKEW:
            return True  # signed under a clock that ran ahead: clients refuse it until its time comes
        return not await self._is_ours(newest) or await self._store.crl_is_stale(self._ca.name)

    async def _is_ours(self, newest: CRLRow) -> bool:
        """Whether this CA signed a CRL, looked at once: a CA with a new key must not go on serving what the old one signed.

        The old one may still sign after this process has changed over, in another process that has not.
        """
        ca, known = self._ca, self._ours
        if known is not None and known[0] is ca and known[1] == newest.number:
            return True
        if not await ca.has_signed(newest.der):
            return False
        self._ours = (ca, newest.number)
        return True

    async def _try_publish(self, newest: int, actor: str) -> CRLRow | None:
        """Sign the CRL after number `newest` under the lease; None when another has the lease or was first."""
        name = f"crl:{self._ca.name}"
        async with self._signing:  # the lease belongs to the process, whichever of its tasks asks
            now = self._clock()
            if not await self._store.take_lease(name, self._holder, now, now + LEASE):
                return None
            try:
                return await self._sign_after(newest, actor)
            finally:
                # The lease ends with the work: the next revocation may come to another process.
                await self._release(name)

    async def _release(self, name: str) -> None:
        now = self._clock()
        try:
            await self._store.take_lease(name, self._holder, now, now)
        except StoreUnavailable:
            log.warning("the CRL lease could not be given back", upstream_ca=self._ca.name)

    async def _sign_after(self, seen: int, actor: str) -> CRLRow | None:
        newest = await self._store.newest_crl(self._ca.name)
        if _number(newest) != seen:
            return None
        this_update = self._clock().replace(microsecond=0)
        # An entry stays until a CRL after the certificate's end has listed it (RFC 5280 §3.3).
        since = min(newest.this_update, this_update) if newest is not None else this_update
        entries = await self._store.list_revoked(self._ca.name, since)
        # The CA of this moment: the one before it may be closed by now.
        ca = self._ca
        if ca.not_after <= this_update:
            raise CrlUnavailable(f"the certificate of upstream CA {ca.name} expired: it can sign no CRL any more")
        next_update = min(this_update + self._schedule.lifetime, ca.not_after)
        number = _number(newest) + 1
        der = await ca.sign_crl(number, this_update, next_update, ((e.serial, e.revoked_at, e.reason) for e in entries))
        row = CRLRow(ca.name, number, der, this_update, next_update)
        if not await self._store.put_crl(row, self._event(row, len(entries), actor)):
            return None
        self._ours = (ca, number)
        log.info(
            "a CRL was published",
            upstream_ca=self._ca.name,
            number=number,
            entries=len(entries),
            next_update=next_update.isoformat(),
        )
        return row

    def _event(self, row: CRLRow, entries: int, actor: str) -> AuditEvent:
        return AuditEvent(
            event="crl.published",
            at=row.this_update,
            actor=actor,
            decision="done",
            upstream_ca=row.upstream_ca,
            detail=f"CRL {row.number} with {entries} entries, next update {row.next_update.isoformat()}",
        )

    def _remember(self, row: CRLRow | None) -> CRLRow | None:
        self._cached = row
        self._cached_at = time.monotonic()
        return row


def _number(row: CRLRow | None) -> int:
    return 0 if row is None else row.number
