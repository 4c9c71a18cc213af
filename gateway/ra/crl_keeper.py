"""Keeps the CRLs that CAs beyond this machine sign, so that they are served while their CA is away (RFC 5280 §5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from gateway.ca.interfaces import UpstreamCA, UpstreamError
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.metrics.registry import UpstreamOperation
from gateway.pki.certificate import parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.trust import verify_crl
from gateway.ra.upstream import ask
from gateway.store.interfaces import CRLRow, Inventory

log = structlog.get_logger(__name__)

REFRESH = timedelta(minutes=10)
"""How often a CA is asked for its CRL."""
SOON = timedelta(minutes=1)
"""After this it is asked again where something was revoked meanwhile."""
RETRY = timedelta(seconds=15)
"""After this it is asked again where it did not answer, or answered nonsense."""
CHECK_SECONDS = 5.0
"""How often a worker looks whether it is time."""
CACHE_SECONDS = 1.0
"""How old an answer of `current` may be."""
FETCHED_WITHIN = 60.0
"""Seconds that a CA has to send it."""
LONGEST = 16 * 1024 * 1024
"""The longest CRL, in bytes, that is kept."""
SKEW = timedelta(minutes=5)
"""How far ahead of our clock the CA's may be."""
_HIGHEST_NUMBER = 1 << 63


class CrlKeeper:
    """The CRL of one CA; every worker has one, and a lease in the store lets one of them ask.

    What comes is kept only when the CA's pinned certificate signed it, when it is in force, and when it is no older than what is
    kept: whoever stands between the gateway and the CA can hold a new CRL back for a while, and no more. It outlives
    configurations, which may give the CA another certificate at any time.
    """

    def __init__(self, store: Inventory, ca: UpstreamCA, clock: Callable[[], datetime], holder: str) -> None:
        self._store = store
        self._ca = ca
        self._clock = clock
        self._holder = holder
        self._cached: CRLRow | None = None
        self._cached_at = float("-inf")
        self._asked_at: datetime | None = None
        self._again_after = REFRESH
        self._covered = 0

    def follow(self, ca: UpstreamCA) -> None:
        """Ask this CA from now on, which has the same name; one that was made anew is asked at once."""
        if ca is not self._ca:
            self._ca, self._asked_at = ca, None

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

    async def run(self) -> None:
        """Fetch whenever it is time, until cancelled; failures are logged and tried again."""
        while True:
            try:
                await self.look_after()
            except StoreUnavailable as error:
                log.warning("CRLs wait for the store", upstream_ca=self._ca.name, cause=str(error))
            except Exception:
                log.exception("a CRL could not be fetched and is tried again", upstream_ca=self._ca.name)
            await asyncio.sleep(CHECK_SECONDS)

    async def look_after(self) -> bool:
        """Fetch the CRL where it is time and no other worker does; returns whether one was kept. Raises StoreUnavailable."""
        revocations = await self._store.count_revocations(self._ca.name)
        now = self._clock()
        if not self._is_time(now, revocations):
            return False
        if not await self._store.take_lease(f"crl:{self._ca.name}", self._holder, now, now + await self._turn(now)):
            return False
        self._asked_at, self._covered, self._again_after = now, revocations, RETRY
        try:
            kept = await self._fetch(revocations)
        except (UpstreamError, TimeoutError, Rejection) as error:
            cause = error.cause if isinstance(error, Rejection) else str(error) or "the CA did not answer in time"
            log.warning("the CRL of an upstream CA could not be fetched", upstream_ca=self._ca.name, cause=cause)
            return False
        self._again_after = REFRESH
        return kept

    def _is_time(self, now: datetime, revocations: int) -> bool:
        """Whether to ask now: regularly, and once soon after something was revoked."""
        if self._asked_at is None or now < self._asked_at:
            return True
        return now >= self._asked_at + (SOON if revocations > self._covered else self._again_after)

    async def _turn(self, now: datetime) -> timedelta:
        """Return for how long one worker asks: not long where a CRL is missed, lest its successor waits for its lease to end."""
        kept = await self.current()
        return RETRY if kept is None or kept.next_update <= now + REFRESH else REFRESH

    async def _fetch(self, revocations: int) -> bool:
        ca = self._ca
        seen = await self._store.newest_crl(ca.name)
        der = await ask(ca, UpstreamOperation.CRL, ca.crl(), FETCHED_WITHIN)
        if der is None or (seen is not None and der == seen.der):
            return False
        # A CRL of a large CA takes long to read.
        row = await asyncio.to_thread(_judge, der, ca, seen, self._clock())
        if not await self._store.keep_crl(row, seen, revocations):
            return False
        log.info("a CRL was fetched", upstream_ca=ca.name, number=row.number, next_update=row.next_update.isoformat())
        self._remember(row)
        return True

    def _remember(self, row: CRLRow | None) -> CRLRow | None:
        self._cached = row
        self._cached_at = time.monotonic()
        return row


def _judge(der: bytes, ca: UpstreamCA, seen: CRLRow | None, now: datetime) -> CRLRow:
    """Return what is to be kept of a CRL; raises Rejection, with the cause, for one that is not."""
    if len(der) > LONGEST:
        raise _refused(f"it has {len(der)} bytes; at most {LONGEST} are kept")
    crl = parse_crl(der, scoped=True)
    issuer = parse_certificate(ca.chain()[0])
    verify_crl(crl, issuer)
    if crl.next_update is None:
        raise _refused("it does not say when the next one comes")
    if crl.this_update > now + SKEW or crl.next_update <= now:
        raise _refused(f"it is in force from {crl.this_update.isoformat()} to {crl.next_update.isoformat()}")
    if seen is not None and crl.this_update < seen.this_update and _has_signed(ca, seen.der):
        raise _refused(f"it is of {crl.this_update.isoformat()}, older than what is known, of {seen.this_update.isoformat()}")
    number = crl.number if crl.number is not None and 0 <= crl.number < _HIGHEST_NUMBER else 0
    return CRLRow(ca.name, number, der, crl.this_update, crl.next_update)


def _has_signed(ca: UpstreamCA, der: bytes) -> bool:
    """Whether a CRL is of the key that the CA has now: what another key signed is replaced by anything newer or older."""
    try:
        verify_crl(parse_crl(der, scoped=True), parse_certificate(ca.chain()[0]))
    except Rejection:
        return False
    return True


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.UPSTREAM_MISMATCH, "the CRL of the CA is of no use", cause)
