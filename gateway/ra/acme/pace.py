"""How often an account may be refused, or change itself, before it has to wait: each is a row of the audit trail for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

MOST = 60
"""Refusals and changes of one account in `WINDOW`, counted by each worker for itself."""
WINDOW = timedelta(minutes=10)
MAX_ACCOUNTS = 20000
"""Accounts that are remembered; beyond, those that came first are forgotten."""


class Pace:
    """Counts what accounts cost beside what they are granted, which has limits of its own."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[datetime, int]] = {}

    def wait(self, account: str, now: datetime) -> int:
        """Return for how many seconds an account has to wait; 0: it need not."""
        since, count = self._since.get(account, (now, 0))
        left = since + WINDOW - now
        if count < MOST or not timedelta(0) < left <= WINDOW:
            return 0
        return int(left.total_seconds()) + 1

    def note(self, account: str, now: datetime) -> None:
        """Count one."""
        since, count = self._since.pop(account, (now, 0))
        if not since <= now < since + WINDOW:
            since, count = now, 0
        while len(self._since) >= MAX_ACCOUNTS:
            del self._since[next(iter(self._since))]
        self._since[account] = (since, count + 1)
