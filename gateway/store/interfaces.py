"""What every store does for the registration authority: each write is one durable transaction that carries its own audit rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import (
    Grant,
    ProfileName,
    RequestForm,
    RequestId,
    Reservation,
    RevocationReason,
    SanKind,
    UpstreamCAName,
)
from gateway.store.acme import AcmeRecords
from gateway.store.cmp import CmpRecords

RENEWAL = "renewal"
"""Kind of the reservation for the one heir of a certificate: requests for the same public key share it, no other key gets it."""

DIGEST = "digest"
"""Kind of the reservation for one response of HTTP Digest: it serves one sending, which no later one takes over from it."""

TRANSACTION = "cmp_transaction"
"""Kind of the reservation for one CMP transaction of one sender: it serves one message (RFC 9810 §5.1.1)."""

SUPERSEDED = "superseded"
"""Kind of the reservation for the one row that takes the place of another of the same request; its key is that row's ID."""


class LedgerState(StrEnum):
    """open → (pending) → issued → held → delivered → confirmed | revoked, or rejected, or unknown.

    PENDING waits without a lease: for an approver before anything is sent, or for an upstream CA that accepted
    the request (`waiting_for` says which, `poll_at` when to ask again). UNKNOWN waits for `find` or an operator.
    """

    OPEN = "open"
    PENDING = "pending"
    ISSUED = "issued"
    HELD = "held"
    DELIVERED = "delivered"
    CONFIRMED = "confirmed"
    REVOKED = "revoked"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class WaitingFor(StrEnum):
    """What a PENDING row waits for.

    An OPEN one waits for its PREDECESSOR to be revoked: until then nothing is sent for it; or in the QUEUE of its CA, which could
    not be reached, with nothing of it at the CA.
    """

    NOTHING = ""
    APPROVAL = "approval"
    UPSTREAM = "upstream"
    PREDECESSOR = "predecessor"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One enrollment, from the moment something was reserved for it.

    `request_key` identifies the same request by the same requester (32 bytes); `requester_key` is the SHA-256 of
    the public key that signed the message. `sent` is set before the first byte may leave for the CA.
    """

    id: RequestId
    request_key: bytes
    profile: ProfileName
    protocol: str
    operation: str
    transaction_id: str
    requester: str
    requester_key: bytes
    owner: str | None
    source: str
    form: RequestForm
    request: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    public_key_sha256: bytes
    subject: str
    sans: tuple[str, ...]
    grant: Grant
    upstream_ca: UpstreamCAName
    serial: int | None
    generation: int
    renews: bytes | None
    state: LedgerState
    waiting_for: WaitingFor
    sent: bool
    worker: str
    lease_until: datetime
    poll_at: datetime | None
    upstream_reference: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    reason: Reason | None = None
    detail: str | None = None
    certificate: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    queued_at: datetime | None = None
    """Since when it waits for a CA that cannot be reached; None: it never did."""
    sent_at: datetime | None = None
    """Before this nothing of it can have reached its CA; None: it may have since it was made."""
    confirm_by: datetime | None = None
    """When its client must have confirmed the certificate (CMP certConf); None: it need not, or has."""


@dataclass(frozen=True, slots=True)
class QuotaTake:
    """Take one from a quota: at most `limit` uses of `key` in any `window` seconds."""

    key: str
    limit: int
    window: int


@dataclass(frozen=True, slots=True)
class Opening:
    """Step 4 of the walk, whole or not at all: reservations, quotas (each with a key of its own), request key and ledger row."""

    row: LedgerRow
    reservations: tuple[Reservation, ...]
    quotas: tuple[QuotaTake, ...]
    retransmission_until: datetime
    audit: AuditEvent
    supersedes: RequestId | None = None
    """The row of the same request, with a certificate that is to be revoked: this row answers for the request from now on, and
    has what the other one reserved. A release gives both back, unless the certificate was revoked as superseded meanwhile.
    """


@dataclass(frozen=True, slots=True)
class Opened:
    """The row is ours and durable."""

    row: LedgerRow


@dataclass(frozen=True, slots=True)
class AlreadyOpen:
    """The same request is or was being worked on; this is its row."""

    row: LedgerRow


@dataclass(frozen=True, slots=True)
class OpeningRefused:
    """Nothing was taken: CREDENTIAL_USED, CREDENTIAL_REVOKED, TRANSACTION_IN_USE, RATE_LIMITED, RENEWAL_REFUSED, or POLICY_KEY
    for a key that was revoked as compromised.
    """

    reason: Reason


@dataclass(frozen=True, slots=True)
class Transition:
    """A compare-and-swap of one ledger row: applies only while `state` is in `expected` and `worker` holds it.

    `None` in a field leaves it as it is. `worker=None` skips the owner check (operators). `release` gives
    reservations, quotas and the request key back: only when nothing was sent or the refusal is definite.
    A `certificate` puts the row's certificate into the inventory in the same transaction; a certificate that is in
    the inventory under another request is never replaced. CONFIRMED takes `confirm_by` away. `opened` is the row as it was
    opened, or as it has its certificate, where the caller has it: what never changes afterwards is answered from it instead of
    being read and decrypted again.
    """

    id: RequestId
    expected: frozenset[LedgerState]
    worker: str | None
    to: LedgerState
    at: datetime
    audit: AuditEvent
    new_worker: str | None = None
    lease_until: datetime | None = None
    waiting_for: WaitingFor | None = None
    poll_at: datetime | None = None
    sent: bool | None = None
    attempts: int | None = None
    serial: int | None = None
    upstream_reference: str | None = None
    reason: Reason | None = None
    detail: str | None = None
    certificate: InventoryRow | None = None
    chain: tuple[bytes, ...] | None = None
    queued_at: datetime | None = None
    sent_at: datetime | None = None
    confirm_by: datetime | None = None
    release: bool = False
    opened: LedgerRow | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One certificate; `sha256` of its DER is its key, (`upstream_ca`, `serial`) is unique too."""

    sha256: bytes
    der: bytes = field(repr=False)
    upstream_ca: UpstreamCAName
    issuer_der: bytes = field(repr=False)
    serial: int
    profile: ProfileName
    protocol: str
    requester: str
    owner: str | None
    request_id: RequestId | None
    request_sha256: bytes
    public_key_sha256: bytes
    subject: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    revoked_at: datetime | None = None
    revocation_reason: RevocationReason | None = None
    renews: bytes | None = None
    renewed_by: bytes | None = None
    """SHA-256 of the public key that renewed it: another key may not renew it again."""


@dataclass(frozen=True, slots=True)
class ChallengeRow:
    """One one-time challenge; the secret itself is stored only as `mac`, an HMAC under `store.key`."""

    id: str
    profile: ProfileName
    mac: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    created_by: str
    subject: str | None = None
    sans: frozenset[tuple[SanKind, str]] | None = None
    owner: str | None = None
    revoked_at: datetime | None = None
    used_by: RequestId | None = None


@dataclass(frozen=True, slots=True)
class CRLRow:
    """The newest CRL of one CA; `number` is 0 for one of a CA beyond this machine that has none, or one too long to be kept."""

    upstream_ca: UpstreamCAName
    number: int
    der: bytes = field(repr=False)
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """A revocation that the certificate's CA has not been told of; `cause` says why not, `next_at` when it is tried again."""

    sha256: bytes
    der: bytes = field(repr=False)
    upstream_ca: UpstreamCAName
    serial: int
    reason: RevocationReason
    revoked_at: datetime
    not_after: datetime
    next_at: datetime
    attempts: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One line of a CRL."""

    serial: int
    revoked_at: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class CertificateFilter:
    """Which inventory rows to list; None matches all. Rows come ordered by `issued_at`, newest first."""

    profile: str | None = None
    upstream_ca: str | None = None
    serial: int | None = None
    subject_contains: str | None = None
    expires_before: datetime | None = None
    revoked: bool | None = None
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Unfinished requests by what they wait for (`doubt`: to know what the upstream CA did, `queue`: for it to be reached).

    Also reservations by kind, and by CA the revocations that it was not told of.
    Of ACME: orders that wait for their accounts, orders that are finalized, challenges that are tried. Of CMP: certificates that
    their clients have yet to confirm.
    """

    approval: int
    upstream: int
    doubt: int
    reserved: Mapping[str, int]
    queue: int = 0
    revocations: Mapping[UpstreamCAName, int] = field(default_factory=dict)
    acme_orders: int = 0
    acme_finalizations: int = 0
    acme_challenges: int = 0
    confirmation: int = 0


class Ledger(Protocol):
    """What the registration authority needs. Every method may raise `StoreUnavailable`; then nothing may be granted."""

    async def find_request(self, request_key: bytes, now: datetime) -> LedgerRow | None:
        """Return the row of the same request inside its retransmission window."""

    async def get_row(self, id: RequestId) -> LedgerRow | None:
        """Return one row."""

    async def find_transaction(
        self, profile: ProfileName, protocol: str, transaction_id: str, requester_key: bytes
    ) -> LedgerRow | None:
        """Return the newest row of a transaction that this very key opened."""

    async def open(self, opening: Opening) -> Opened | AlreadyOpen | OpeningRefused:
        """Take all that `opening` names and write the row, or change nothing."""

    async def foresee(self, opening: Opening) -> Reason | None:
        """Say for which of its quotas or reservations `open` would refuse at this moment, without taking anything."""

    async def transition(self, change: Transition) -> LedgerRow | None:
        """Apply `change`; None when the row was no longer as expected (then nothing was written, no audit row either).

        Raises Rejection UPSTREAM_MISMATCH where the certificate or its serial belongs to another request, or this
        request has another certificate already; then nothing was written either.
        """

    async def renew_leases(self, worker: str, ids: Sequence[RequestId], until: datetime) -> None:
        """Let the leases of rows that `worker` still holds end at `until`."""

    async def take_over(
        self, id: RequestId, seen_worker: str, seen_lease: datetime, worker: str, until: datetime, audit: AuditEvent
    ) -> LedgerRow | None:
        """Make an OPEN or UNKNOWN row whose lease ran out ours, by compare-and-swap.

        It becomes UNKNOWN if `sent`, else stays OPEN.
        """

    async def find_lapsed(
        self, now: datetime, limit: int, beyond: datetime | None = None, resting: Collection[UpstreamCAName] = ()
    ) -> tuple[LedgerRow, ...]:
        """Rows to be looked after: OPEN or UNKNOWN with a lapsed lease, PENDING for upstream with `poll_at` passed and no lease.

        So are rows that a worker holds with a lease that ends after `beyond`: it was taken under a clock that ran ahead.
        Those that wait in the queue of a CA of `resting` are left out.
        """

    async def list_rows(
        self, states: frozenset[LedgerState], profile: str | None, limit: int, offset: int = 0
    ) -> tuple[LedgerRow, ...]:
        """Rows in these states, newest first."""

    async def find_challenge(self, mac: bytes) -> ChallengeRow | None:
        """Return the one-time challenge of any profile with this HMAC."""

    async def find_certificate(self, sha256: bytes) -> InventoryRow | None:
        """Return one inventory row by the SHA-256 of its DER."""

    async def find_issued(self, issuer_der: bytes, serial: int) -> InventoryRow | None:
        """Return one inventory row by issuer, as encoded in it, and serial number, whatever CA of the configuration it was."""

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write audit rows that belong to no other change."""

    async def queue_revocation(self, pending: PendingRevocation) -> None:
        """Remember a revocation that a CA is to be told of; one that is remembered already stays as it is."""


class Inventory(Protocol):
    """Certificates, challenges and CRLs: what operators and the local CA need."""

    async def list_certificates(self, filter: CertificateFilter) -> tuple[InventoryRow, ...]:
        """List inventory rows."""

    async def find_serial(self, upstream_ca: UpstreamCAName, serial: int) -> InventoryRow | None:
        """Return one inventory row by issuer and serial."""

    async def mark_revoked(
        self,
        sha256: bytes,
        at: datetime,
        reason: RevocationReason,
        audit: AuditEvent,
        pending: PendingRevocation | None = None,
    ) -> InventoryRow | None:
        """Mark one certificate (and its ledger row) revoked; None if unknown.

        With `pending` its CA is to be told of it later, which is remembered in the same transaction. Already revoked changes
        nothing and returns the row as it is.
        """

    async def revoke_unconfirmed(
        self, row: LedgerRow, at: datetime, reason: RevocationReason, audit: AuditEvent, pending: PendingRevocation | None = None
    ) -> bool:
        """Revoke the certificate of a DELIVERED row that its client did not take; False when it was confirmed or revoked.

        With `pending` its CA is to be told of it, as by `mark_revoked`. The certificate that it renewed may be renewed again, by
        any key: its holder never took this one.
        """

    async def revive(self, sha256: bytes, at: datetime, audit: AuditEvent) -> InventoryRow | None:
        """Mark a certificate in force again that was on hold, with its ledger row; None where it is not on hold.

        So it is of one whose CA was not told of the hold yet: first it must be.
        """

    async def find_due_revocations(
        self, now: datetime, limit: int, resting: Collection[UpstreamCAName] = ()
    ) -> tuple[PendingRevocation, ...]:
        """Revocations that CAs are to be told of now, the longest due first; none of a CA of `resting`."""

    async def put_off_revocation(self, seen: PendingRevocation, until: datetime, cause: str | None = None) -> bool:
        """Let a revocation wait until then; False when another changed it since it was `seen`.

        With a `cause` an attempt has failed; without, it begins, and nobody else makes one before `until`.
        """

    async def end_revocation(self, sha256: bytes, audit: AuditEvent) -> bool:
        """Forget a revocation of which its CA knows, or need not know any more; False when another was first."""

    async def list_revocations(self, limit: int, offset: int = 0) -> tuple[PendingRevocation, ...]:
        """Revocations that CAs were not told of yet, the oldest first."""

    async def find_revocation(self, sha256: bytes) -> PendingRevocation | None:
        """Return the revocation of one certificate that its CA was not told of yet."""

    async def add_challenge(self, row: ChallengeRow, audit: AuditEvent) -> None:
        """Store one one-time challenge."""

    async def list_challenges(self, profile: str | None, now: datetime, limit: int) -> tuple[ChallengeRow, ...]:
        """Challenges that have not expired, newest first."""

    async def revoke_challenge(self, id: str, at: datetime, audit: AuditEvent) -> bool:
        """Revoke an unused challenge; False if there is none."""

    async def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew a named lease; True when `holder` has it.

        Another's lease that ends more than twice as far ahead as `until` was taken under a clock that ran ahead: it is free.
        """

    async def list_revoked(self, upstream_ca: UpstreamCAName, not_expired_at: datetime) -> tuple[RevokedEntry, ...]:
        """Every revoked certificate of a CA that had not expired at the given time."""

    async def newest_crl(self, upstream_ca: UpstreamCAName) -> CRLRow | None:
        """The newest CRL, if any."""

    async def crl_is_stale(self, upstream_ca: UpstreamCAName) -> bool:
        """Whether a certificate was revoked since the newest CRL's thisUpdate (or there is no CRL)."""

    async def put_crl(self, row: CRLRow, audit: AuditEvent) -> bool:
        """Store a CRL whose number is one above the newest; False when another holder was first."""

    async def count_revocations(self, upstream_ca: UpstreamCAName) -> int:
        """Return how many revocations were ever recorded for a CA."""

    async def keep_crl(self, row: CRLRow, seen: CRLRow | None, covers: int) -> bool:
        """Store a CRL that another CA has signed, in place of the one that was `seen`; False when another was first.

        `covers` is the count of revocations that was read before the CRL was asked for.
        """


class Upkeep(Protocol):
    """Life of the store itself."""

    async def start(self) -> None:
        """Open; raises StoreRefused when there is no store, or schema or keys are not ours."""

    async def close(self) -> None:
        """Finish what is queued and close."""

    async def ping(self) -> None:
        """Prove that a durable write works; raises StoreUnavailable."""

    async def expire(self, now: datetime) -> int:
        """Delete what only had to be kept until now (reservations, quotas, request keys, old challenges, leases that lapsed).

        Ledger, inventory and audit stay.
        """

    async def tally(self, kinds: Collection[str]) -> Tally:
        """Count unfinished requests, and the reservations of these kinds."""


class Store(Ledger, Inventory, AcmeRecords, CmpRecords, Upkeep, Protocol):
    """The whole store."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One link of the chain: `hash` is HMAC(audit key, previous hash, canonical JSON of the rest)."""

    seq: int
    previous: bytes
    hash: bytes
    body: str
