"""How long the registration authority waits, holds and asks again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from gateway.config.defaults import UPSTREAM_CALL_SECONDS


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one worker; all in seconds where they are floats."""

    lease: timedelta = timedelta(seconds=60)
    """How long a row stays ours without being renewed: after a crash, how long its client waits for another worker."""
    renew_every: float = 15.0
    """How often leases are renewed; well under a third of `lease`, so that two misses lose nothing."""
    answer_within: float = 20.0
    """After this a client is told to come back (Pending) while the work goes on; below what clients wait for a reply."""
    issue_within: float = UPSTREAM_CALL_SECONDS
    """What one call to an upstream CA may take; after it the result is unknown."""
    find_for: float = 20.0
    """How long a worker that has just lost an answer keeps asking the CA what it did, before it lets the row rest."""
    find_pause: float = 0.5
    """First pause between two such questions; it doubles."""
    store_patience: float = 45.0
    """How long a result of the CA is kept in hand while the store refuses writes; below `lease` plus its renewals."""
    rest: timedelta = timedelta(seconds=20)
    """First pause before a row in doubt is asked about again; it doubles with the age of the row up to `longest_rest`."""
    longest_rest: timedelta = timedelta(minutes=15)
    hold: timedelta = timedelta(hours=12)
    """How often the alert of a row is repeated that only an operator can end."""
    look_every: float = 0.1
    """First pause while waiting for a row that another worker works on; it doubles up to one second."""
    hold_retry: int = 60
    """Retry-After of a request that waits for a person, and the longest of any."""
    busy_retry: int = 5
    """Retry-After where work goes on in this very moment, or the store is down."""
    attempts: int = 3
    """How often a row is sent to the CA while its client waits, when the CA says definitely that it did nothing the last time."""

    first_trial: timedelta = timedelta(seconds=10)
    """After this what waits for a CA that could not be reached is tried again; it doubles with each failure."""
    longest_trial: timedelta = timedelta(minutes=2)
    """The longest such pause: so much later than its CA a request is finished at most."""
    trial: timedelta = timedelta(minutes=2)
    """How long one trial may go without an answer before another is made."""
    longest_poll: timedelta = timedelta(days=1)
    """The longest that a CA may put off what it has accepted."""
    revoke_within: float = 15.0
    """What a revocation at its CA may take while somebody waits for it."""


def rest_for(timing: Timing, age: timedelta) -> timedelta:
    """Return the pause before the next question about a row of this age: as long again as it has lasted, within bounds."""
    return min(timing.longest_rest, max(timing.rest, age))
