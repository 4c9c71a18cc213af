"""When a certificate should be renewed: a window of time, by its life (RFC 9773 §4.2, draft-ietf-lamps-est-renewal-info)."""

from __future__ import annotations

from datetime import datetime, timedelta

SHORT_LIFE = timedelta(days=10)
"""Shorter certificates are renewed at half of their life, others when a third of it is left."""
_MOMENT = timedelta(seconds=1)
_SPREAD = 100
"""The window goes a hundredth of the life to each side, so that certificates of one day are not renewed in one hour."""


def suggest_window(not_before: datetime, not_after: datetime, before: timedelta | None = None) -> tuple[datetime, datetime]:
    """Return start and end, a second apart at least, around the time `before` the end; None: as the life suggests."""
    life = max(not_after - not_before, _MOMENT)
    if before is None:
        before = life / 2 if life < SHORT_LIFE else life / 3
    point = not_after - min(before, life)
    start = max(point - life / _SPREAD, not_before).replace(microsecond=0)
    end = min(point + life / _SPREAD, not_after).replace(microsecond=0)
    return start, max(end, start + _MOMENT)


def opening_window(not_before: datetime, not_after: datetime, opens: timedelta | None) -> tuple[datetime, datetime]:
    """Return the first half of the time in which renewal is allowed, so that a client that fails has the second to try again.

    `opens` is how long before the end that is; None: the last third of the life.
    """
    life = not_after - not_before
    left = min(life, opens) if opens is not None else life / 3
    return not_after - left, not_after - left / 2


def past_window(not_before: datetime, since: datetime) -> tuple[datetime, datetime]:
    """Return a window that has ended: what should be replaced at once, because it was revoked `since` or an incident says so."""
    return not_before, max(since, not_before + _MOMENT)
