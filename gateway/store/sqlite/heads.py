"""Audit rows out of the store: pages for verification and export, and signed heads at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from gateway.audit import AuditHead, sign_head
from gateway.store.interfaces import AuditRow
from gateway.store.sqlite.transaction import CHAIN, Link, Queries

log = structlog.get_logger(__name__)
_PAGE = "SELECT seq, previous, hash, body FROM audit WHERE chain = :chain AND seq > :after ORDER BY seq LIMIT :limit"


def read_audit(sql: Queries, after: int, limit: int) -> list[AuditRow]:
    """Return up to `limit` rows after sequence number `after`, in order."""
    rows = sql.all(_PAGE, {"chain": CHAIN, "after": after, "limit": limit})
    return [AuditRow(seq=row[0], previous=row[1], hash=row[2], body=row[3]) for row in rows]


class HeadSigner:
    """Signs the newest link that this process wrote, at most once an interval."""

    def __init__(self, key: bytes, on_head: Callable[[AuditHead], None], interval: float, clock: Callable[[], datetime]) -> None:
        self._key = key
        self._on_head = on_head
        self._interval = interval
        self._clock = clock
        self._newest: tuple[Link, datetime] | None = None
        """The newest link that no head was handed out for, and when the chain had come to it."""
        self._due = 0.0

    def note(self, link: Link | None) -> None:
        """Take note of a group's last link; None when it wrote no audit row."""
        if link is not None:
            self._newest = (link, self._clock())
        if self._newest is not None and time.monotonic() >= self._due:
            self.hand_out()

    def hand_out(self) -> None:
        """Sign and hand out what was not handed out yet; what could not be taken is offered again after the interval."""
        if self._newest is None:
            return
        newest, at = self._newest
        self._due = time.monotonic() + self._interval
        try:
            self._on_head(sign_head(self._key, newest.seq, newest.hash, at))
        except Exception as error:  # noqa: BLE001  a full disk under the heads must not stop the writer
            log.error("the audit head could not be handed out and is offered again", cause=str(error), seq=newest.seq)  # noqa: TRY400
        else:
            self._newest = None
