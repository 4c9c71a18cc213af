"""How many audit rows those may cause who prove nothing: some a minute and address, the rest is counted."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

from gateway.errors import Reason
from gateway.model import Rejected, Unavailable

ROWS_A_MINUTE = 60
MAX_SOURCES = 4096
_MINUTE = timedelta(minutes=1)

FLOODS = frozenset({Reason.RATE_LIMITED, Reason.OVERLOADED})
"""Refusals that never have a row of their own: they are themselves the answer to a flood."""

FAILED_AUTHENTICATIONS = frozenset(
    {
        Reason.BAD_MESSAGE_CHECK,
        Reason.BAD_PROOF_OF_POSSESSION,
        Reason.CREDENTIAL_EXPIRED,
        Reason.CREDENTIAL_INVALID,
        Reason.CREDENTIAL_MALFORMED,
        Reason.CREDENTIAL_MISSING,
        Reason.CREDENTIAL_REVOKED,
        Reason.CREDENTIAL_SIGNATURE,
        Reason.NOT_AUTHORIZED,
        Reason.SIGNER_NOT_TRUSTED,
        Reason.UNKNOWN_CERTIFICATE,
        Reason.UNKNOWN_TRANSACTION,
    }
)
"""Refusals of somebody who proved nothing that counts now; a challenge that was used has been proved."""


class Strangers:
    """Bounds the audit rows of failed authentications by profile and source address.

    Nobody is locked out: a stranger behind the same proxy as a fleet must not be able to stop it. Every failure is answered
    alike; those beyond sixty in a minute share the row that counts them. Where more addresses fail in a minute than are kept,
    those that came too late share one bound a profile.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._until: datetime | None = None

    def only_counted(self, outcome: object, profile: str, source: str, now: datetime) -> bool:
        """Say whether an answer has no row of its own; takes one from the bound of its address when it has."""
        if not isinstance(outcome, Rejected | Unavailable):
            return False
        if outcome.reason in FLOODS:
            return True
        return outcome.reason in FAILED_AUTHENTICATIONS and not self.take_row(profile, source, now)

    def take_row(self, profile: str, source: str, now: datetime) -> bool:
        """Take one row from the bound of an address; False where its minute has none left."""
        if self._until is None or not self._until - _MINUTE <= now < self._until:
            self._rows.clear()
            self._until = now + _MINUTE
        key = (profile, source_network(source))
        if key not in self._rows and len(self._rows) >= MAX_SOURCES:
            key = (profile, "")
        count = self._rows[key] = self._rows.get(key, 0) + 1
        return count <= ROWS_A_MINUTE


def source_network(source: str) -> str:
    """Return whom an address stands for when it is counted: itself, of IPv6 the /64 that one host may use as it likes."""
    if ":" not in source:
        return source
    try:
        return str(ipaddress.ip_network((source.partition("%")[0], 64), strict=False))
    except ValueError:
        return source
