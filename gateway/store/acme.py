"""What every store does for ACME: each write is one durable transaction that carries its own audit rows (RFC 8555 §7.1).

Each change of state is a compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from gateway.acme import (
    Account,
    AccountStatus,
    Authorization,
    ChallengeStatus,
    ExternalAccount,
    Incident,
    Order,
    OrderStatus,
    Problem,
)
from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Identifier, ProfileName, RequestId

if TYPE_CHECKING:
    from gateway.store.interfaces import QuotaTake


@dataclass(frozen=True, slots=True)
class OrderChange:
    """A compare-and-swap of one order: applies while its status is in `expected` and, with `worker`, that worker holds it.

    None leaves a field as it is; `release` takes `worker`, `lease_until` and `next_at` away, `forget_csr` the CSR.
    """

    id: str
    expected: frozenset[OrderStatus]
    to: OrderStatus
    at: datetime
    audit: AuditEvent | None
    worker: str | None = None
    new_worker: str | None = None
    lease_until: datetime | None = None
    next_at: datetime | None = None
    attempts: int | None = None
    error: Problem | None = None
    csr: bytes | None = field(default=None, repr=False)
    csr_sha256: bytes | None = None
    public_key_sha256: bytes | None = None
    request_id: RequestId | None = None
    certificate: bytes | None = None
    expires_at: datetime | None = None
    external_account: str | None = None
    """Count one certificate for it, within its policy: refused with RATE_LIMITED beyond, CREDENTIAL_REVOKED where it was revoked.

    Given back where the order ends invalid or goes back to ready.
    """
    release: bool = False
    forget_csr: bool = False


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order with those of its authorizations that are new, all or nothing.

    `quotas` are counted; of `replaces_sha256` no other order that is not invalid may exist (RFC 9773 §5).
    """

    order: Order
    authorizations: tuple[Authorization, ...]
    quotas: tuple[QuotaTake, ...]
    audit: AuditEvent


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt at a challenge came to, by the worker that holds it.

    VALID and INVALID end the challenge and the authorization, and decide every pending order that needs it: ready when all of
    its authorizations are valid, invalid when one is. PROCESSING waits for `next_at`, held by nobody.
    """

    authorization: str
    challenge: str
    worker: str
    status: ChallengeStatus
    at: datetime
    audit: AuditEvent | None
    error: Problem | None = None
    next_at: datetime | None = None
    expires_at: datetime | None = None
    """Of the authorization, when it is valid."""
    attested_key: bytes | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    by_challenge: bool = True
    """False where nothing had to be shown: then CAA records were not judged for a challenge either."""
    quotas: tuple[QuotaTake, ...] = ()
    """Failed validations are counted whatever the limit is; it is `has_room` that asks."""


@dataclass(frozen=True, slots=True)
class Affected:
    """Which certificates an incident concerns: not expired, not revoked, and fitting every field that is not None."""

    profile: str | None = None
    upstream_ca: str | None = None
    serials: frozenset[int] | None = None
    public_key_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Crowded:
    """Accounts, by ID, and addresses whose challenges are not tried for now."""

    accounts: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()


NOBODY_CROWDED = Crowded()


class AcmeRecords(Protocol):
    """What the state machines of ACME need. Every method may raise `StoreUnavailable`; then nothing may be granted."""

    async def redeem_nonce(self, nonce: bytes, issued_at: datetime) -> bool:
        """Use a nonce up, across all workers; False when it was used before. What is older than an hour may be forgotten.

        `issued_at` is part of a nonce: one nonce always comes with the same. It may be answered before the disk has it: every
        process sees at once that it was used, and a machine that fails forgets none that is older than any durable write.
        """

    async def add_account(self, account: Account, quotas: Sequence[QuotaTake], audit: AuditEvent) -> Account | Reason:
        """Add an account and count it for its external account; the one that has this key already is returned as it is.

        RATE_LIMITED where a quota is full, CREDENTIAL_USED where the external account has its number of accounts,
        CREDENTIAL_REVOKED or CREDENTIAL_EXPIRED where it is not in force any more.
        """

    async def find_account(self, id: str) -> Account | None:
        """Return one account."""

    async def find_account_by_key(self, profile: ProfileName, thumbprint: str) -> Account | None:
        """Return the account of a key."""

    async def is_account_key(self, thumbprint: str, profiles: Collection[ProfileName]) -> bool:
        """Say whether an account of one of these directories has this key."""

    async def update_account(
        self,
        id: str,
        audit: AuditEvent,
        *,
        contact: tuple[str, ...] | None = None,
        terms: str | None = None,
        status: AccountStatus | None = None,
    ) -> Account | None:
        """Change an account that is valid; None where it is not. One that ends takes its pending and ready orders with it."""

    async def change_account_key(
        self, id: str, old_thumbprint: str, thumbprint: str, jwk: str, audit: AuditEvent
    ) -> Account | None:
        """Give an account another key; returns instead the account that has that key, or None where ours changed meanwhile."""

    async def list_accounts(self, profile: str | None, limit: int, offset: int = 0) -> tuple[Account, ...]:
        """Accounts, newest first."""

    async def add_external_account(self, row: ExternalAccount, audit: AuditEvent) -> None:
        """Store a key, sealed."""

    async def find_external_account(self, kid: str) -> ExternalAccount | None:
        """Return one, with what is bound to it."""

    async def list_external_accounts(self, profile: str | None, limit: int) -> tuple[ExternalAccount, ...]:
        """All of them, newest first."""

    async def revoke_external_account(self, kid: str, at: datetime, audit: AuditEvent) -> ExternalAccount | None:
        """Revoke one: no further account is bound, and accounts that are bound order nothing more."""

    async def add_order(self, new: NewOrder) -> Order | Reason:
        """Add an order: as `ready` where all its authorizations are valid by now, as `invalid` where one is over.

        RATE_LIMITED where a quota is full, ALREADY_REPLACED where another order replaces that certificate, ACCOUNT_DEACTIVATED
        or CREDENTIAL_REVOKED where the account or its external account is not in force any more.
        """

    async def find_order(self, id: str) -> Order | None:
        """Return one order."""

    async def list_orders(self, account: str, after: str | None, limit: int) -> tuple[str, ...]:
        """IDs of an account's orders that are not invalid, newest first, beyond the one named `after` (RFC 8555 §7.1.2.1)."""

    async def search_orders(self, profile: str | None, status: OrderStatus | None, limit: int) -> tuple[Order, ...]:
        """Orders of all accounts, newest first."""

    async def change_order(self, change: OrderChange) -> Order | Reason | None:
        """Apply `change`; None when the order was not as expected.

        RATE_LIMITED where the external account has no certificate left, CREDENTIAL_REVOKED where it was revoked.
        """

    async def find_due_orders(self, now: datetime, limit: int) -> tuple[Order, ...]:
        """Orders in `processing` that nobody holds, or whose lease ran out, and whose `next_at` has come.

        So are those with times so far ahead that they were written under a clock that was wrong.
        """

    async def find_authorization(self, id: str) -> Authorization | None:
        """Return one authorization."""

    async def find_authorizations(self, ids: Collection[str]) -> tuple[Authorization, ...]:
        """Return several, in the order of `ids`."""

    async def find_valid_authorizations(
        self, account: str, profile: ProfileName, identifiers: Collection[Identifier], now: datetime
    ) -> tuple[Authorization, ...]:
        """Return valid authorizations of these identifiers (without `*.`) and, with `subdomains`, of domains above them."""

    async def add_authorization(self, row: Authorization, quotas: Sequence[QuotaTake], audit: AuditEvent) -> Reason | None:
        """Add one that no order needs yet (RFC 8555 §7.4.1); RATE_LIMITED where a quota is full."""

    async def deactivate_authorization(self, id: str, at: datetime, audit: AuditEvent) -> Authorization | None:
        """End one that is pending or valid, and the pending and ready orders that need it; None where it was over already."""

    async def begin_validation(
        self,
        id: str,
        challenge: str,
        payload: Mapping[str, object],
        source: str,
        worker: str,
        lease_until: datetime,
        at: datetime,
        audit: AuditEvent,
    ) -> Authorization | None:
        """Set a pending challenge of a pending authorization to `processing`, ours; None where another is tried or it is over.

        For the challenge that is being tried already it means "now": `next_at` becomes `at`, nothing else changes.
        """

    async def find_due_validations(
        self, now: datetime, limit: int, without: Crowded = NOBODY_CROWDED
    ) -> tuple[Authorization, ...]:
        """Authorizations of which a challenge is to be tried: `next_at` has come, and nobody's lease is in force."""

    async def claim_validation(
        self, id: str, seen_worker: str, seen_lease: datetime | None, worker: str, until: datetime
    ) -> bool:
        """Take an authorization from whoever left it, by compare-and-swap."""

    async def settle(self, attempt: Attempt) -> Authorization | None:
        """Record a good attempt that took no time, at a challenge that nobody has begun; None where that is not so."""

    async def end_attempt(self, attempt: Attempt) -> Authorization | None:
        """Record an attempt and all that follows from it; None where the worker does not hold the challenge any more."""

    async def has_room(self, quotas: Sequence[QuotaTake], now: datetime) -> bool:
        """Say whether each of these quotas has room, without taking anything."""

    async def declare_incident(self, incident: Incident, affected: Affected, now: datetime, audit: AuditEvent) -> Incident:
        """Write an incident, given without certificates, and note each that is affected; returns it with their number."""

    async def count_affected(self, affected: Affected, now: datetime) -> tuple[int, tuple[str, ...]]:
        """Say how many certificates an incident would concern, and names of up to ten of them.

        A name is the subject, or the first alternative name where that is empty.
        """

    async def find_incident(self, certificate_sha256: bytes) -> Incident | None:
        """Return the newest incident that concerns a certificate."""

    async def list_incidents(self, limit: int) -> tuple[Incident, ...]:
        """Incidents, newest first."""

    async def withdraw_incident(self, id: str, audit: AuditEvent) -> bool:
        """Forget an incident; False where there is none."""

    async def expire_acme(self, now: datetime) -> int:
        """Delete nonces older than an hour, and authorizations and orders that ended or expired 30 days ago; returns how many.

        Orders that are `valid` stay as long as their certificate. Pending orders whose time is over become `invalid`.
        """
