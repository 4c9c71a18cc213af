"""Upstream CAs that a new configuration lets go while requests are in doubt or pending with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gateway.config.remote_cas import GroupCA
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.store.interfaces import Ledger, LedgerRow, LedgerState, WaitingFor

AT_THE_CA = frozenset({LedgerState.UNKNOWN, LedgerState.PENDING})
PAGE = 500
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Departure:
    """A CA that is not there any more, or those of a group's `members` that are none any more."""

    name: str
    members: frozenset[str] | None = None

    def concerns(self, row: LedgerRow) -> bool:
        """Say whether what goes may have a request, which nobody else could be asked about."""
        if row.upstream_ca != self.name or row.waiting_for is WaitingFor.APPROVAL:
            return False
        names, slash, _ = (row.upstream_reference or "").partition("/")
        return self.members is None or not slash or not self.members.isdisjoint(names.split(","))

    def describe(self, rows: list[LedgerRow]) -> str:
        """Say why it has to stay, and what to do."""
        where, who = f"upstream_cas.{self.name}", "it"
        if self.members is not None:
            where, who = f"{where}.members", ", ".join(sorted(self.members))
        some = ", ".join(row.id for row in rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
        return (
            f"{where}: {who} cannot go while requests are in doubt or pending there ({some}): end them first "
            f"(pki-gateway requests list), or leave {self.name} as it is until they have ended, and name another upstream_ca in "
            "the profiles meanwhile"
        )


def find_departures(old: Mapping[str, UpstreamCAConfig], new: Mapping[str, UpstreamCAConfig]) -> Iterator[Departure]:
    """Yield what is in the old configuration and not in the new one; a group that became one CA is gone, and so the reverse."""
    for name, ca in old.items():
        after = new.get(name)
        if after is None or isinstance(ca, GroupCA) != isinstance(after, GroupCA):
            yield Departure(name)
        elif (
            isinstance(ca, GroupCA) and isinstance(after, GroupCA) and (gone := frozenset(ca.members) - frozenset(after.members))
        ):
            yield Departure(name, gone)


async def find_left_behind(departures: Iterable[Departure], ledger: Ledger) -> tuple[str, ...]:
    """Return a sentence for each departure that would leave requests behind. Raises StoreUnavailable."""
    found: dict[Departure, list[LedgerRow]] = {departure: [] for departure in departures}
    offset = 0
    while found:
        rows = await ledger.list_rows(AT_THE_CA, None, PAGE, offset)
        for departure, behind in found.items():
            behind.extend(filter(departure.concerns, rows))
        offset += len(rows)
        if len(rows) < PAGE:
            break
    return tuple(departure.describe(behind) for departure, behind in found.items() if behind)
