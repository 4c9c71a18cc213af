"""AcmeRecords over one SQLite file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from gateway.acme import Account, AccountStatus, Authorization, ExternalAccount, Incident, Order, OrderStatus
from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Identifier, ProfileName
from gateway.store.acme import NOBODY_CROWDED, Affected, Attempt, Crowded, NewOrder, OrderChange
from gateway.store.acme_rows import (
    ORDER_CSR,
    authorization_columns,
    external_account_columns,
    order_columns,
    seal,
    seal_payload,
)
from gateway.store.interfaces import QuotaTake
from gateway.store.sqlite import quotas as quota_uses
from gateway.store.sqlite.acme import accounts, authorizations, expiry, incidents, orders
from gateway.store.sqlite.base import OpenFile


class AcmeFile(OpenFile):
    """What the state machines of ACME need, in the file of the store; values are sealed before the writer's turn comes."""

    async def redeem_nonce(self, nonce: bytes, issued_at: datetime) -> bool:
        """Use a nonce up, across all workers; False when it was used before."""
        return self._nonces.redeem(nonce, issued_at)

    # Accounts

    async def add_account(self, account: Account, quotas: Sequence[QuotaTake], audit: AuditEvent) -> Account | Reason:
        """Add an account and count it for its external account; the one that has this key already is returned as it is."""
        return await self._write(lambda tx: accounts.add(tx, account, quotas, audit))

    async def find_account(self, id: str) -> Account | None:
        """Return one account."""
        return self._read(lambda sql: accounts.find(sql, id))

    async def find_account_by_key(self, profile: ProfileName, thumbprint: str) -> Account | None:
        """Return the account of a key."""
        return self._read(lambda sql: accounts.find_by_key(sql, profile, thumbprint))

    async def is_account_key(self, thumbprint: str, profiles: Collection[ProfileName]) -> bool:
        """Say whether an account of one of these directories has this key."""
        return self._read(lambda sql: accounts.has_key(sql, thumbprint, profiles))

    async def update_account(
        self,
        id: str,
        audit: AuditEvent,
        *,
        contact: tuple[str, ...] | None = None,
        terms: str | None = None,
        status: AccountStatus | None = None,
    ) -> Account | None:
        """Change an account that is valid; None where it is not."""
        return await self._write(lambda tx: accounts.update(tx, id, audit, contact, terms, status))

    async def change_account_key(
        self, id: str, old_thumbprint: str, thumbprint: str, jwk: str, audit: AuditEvent
    ) -> Account | None:
        """Give an account another key; returns instead the account that has that key, or None where ours changed meanwhile."""
        return await self._write(lambda tx: accounts.change_key(tx, id, old_thumbprint, thumbprint, jwk, audit))

    async def list_accounts(self, profile: str | None, limit: int, offset: int = 0) -> tuple[Account, ...]:
        """Accounts, newest first."""
        return await self._read_aside(lambda sql: accounts.list_rows(sql, profile, limit, offset))

    async def add_external_account(self, row: ExternalAccount, audit: AuditEvent) -> None:
        """Store a key, sealed; raises StoreUnavailable where its ID exists already."""
        columns = external_account_columns(row, self._keys)
        await self._write(lambda tx: accounts.add_external(tx, columns, audit))

    async def find_external_account(self, kid: str) -> ExternalAccount | None:
        """Return one, with what is bound to it."""
        return self._read(lambda sql: accounts.find_external(sql, self._keys, kid))

    async def list_external_accounts(self, profile: str | None, limit: int) -> tuple[ExternalAccount, ...]:
        """All of them, newest first."""
        return await self._read_aside(lambda sql: accounts.list_external(sql, self._keys, profile, limit))

    async def revoke_external_account(self, kid: str, at: datetime, audit: AuditEvent) -> ExternalAccount | None:
        """Revoke one: no further account is bound, and accounts that are bound order nothing more."""
        return await self._write(lambda tx: accounts.revoke_external(tx, self._keys, kid, at, audit))

    # Orders

    async def add_order(self, new: NewOrder) -> Order | Reason:
        """Add an order: as `ready` where all its authorizations are valid by now, as `invalid` where one is over."""
        columns = order_columns(new.order, self._keys)
        rows = [authorization_columns(row, self._keys) for row in new.authorizations]
        return await self._write(lambda tx: orders.add(tx, new, columns, rows))

    async def find_order(self, id: str) -> Order | None:
        """Return one order."""
        return self._read(lambda sql: orders.find(sql, self._keys, id))

    async def list_orders(self, account: str, after: str | None, limit: int) -> tuple[str, ...]:
        """IDs of an account's orders that are not invalid, newest first, beyond the one named `after`."""
        return self._read(lambda sql: orders.list_ids(sql, account, after, limit))

    async def search_orders(self, profile: str | None, status: OrderStatus | None, limit: int) -> tuple[Order, ...]:
        """Orders of all accounts, newest first."""
        return await self._read_aside(lambda sql: orders.search(sql, self._keys, profile, status, limit))

    async def change_order(self, change: OrderChange) -> Order | Reason | None:
        """Apply `change`; None when the order was not as expected.

        Whoever finalizes waits for the disk with the ledger's rows before and after the CA is asked, and they take this along.
        """
        sealed = seal(self._keys, ORDER_CSR, change.csr)
        finalizes = change.to in {OrderStatus.PROCESSING, OrderStatus.VALID}
        return await self._write(lambda tx: orders.change(tx, self._keys, change, sealed), synced=not finalizes)

    async def find_due_orders(self, now: datetime, limit: int) -> tuple[Order, ...]:
        """Orders in `processing` that nobody holds, or whose lease ran out, and whose `next_at` has come."""
        return self._read(lambda sql: orders.find_due(sql, self._keys, now, limit))

    # Authorizations

    async def find_authorization(self, id: str) -> Authorization | None:
        """Return one authorization."""
        return self._read(lambda sql: authorizations.find(sql, self._keys, id))

    async def find_authorizations(self, ids: Collection[str]) -> tuple[Authorization, ...]:
        """Return several, in the order of `ids`."""
        return self._read(lambda sql: authorizations.find_several(sql, self._keys, ids))

    async def find_valid_authorizations(
        self, account: str, profile: ProfileName, identifiers: Collection[Identifier], now: datetime
    ) -> tuple[Authorization, ...]:
        """Return valid authorizations of these identifiers (without `*.`) and, with `subdomains`, of domains above them."""
        return self._read(lambda sql: authorizations.find_valid(sql, self._keys, account, profile, identifiers, now))

    async def add_authorization(self, row: Authorization, quotas: Sequence[QuotaTake], audit: AuditEvent) -> Reason | None:
        """Add one that no order needs yet (RFC 8555 §7.4.1); RATE_LIMITED where a quota is full."""
        columns = authorization_columns(row, self._keys)
        return await self._write(lambda tx: authorizations.add(tx, columns, quotas, row.created_at, audit))

    async def deactivate_authorization(self, id: str, at: datetime, audit: AuditEvent) -> Authorization | None:
        """End one that is pending or valid, and the pending and ready orders that need it; None where it was over already."""
        return await self._write(lambda tx: authorizations.deactivate(tx, self._keys, id, at, audit))

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
        """Set a pending challenge of a pending authorization to `processing`, ours; None where another is tried or it is over."""
        sealed = (payload, seal_payload(self._keys, payload))
        return await self._write(
            lambda tx: authorizations.begin(tx, self._keys, id, challenge, sealed, source, worker, lease_until, at, audit),
            synced=False,  # it promises nothing: what an attempt comes to waits for the disk
        )

    async def find_due_validations(
        self, now: datetime, limit: int, without: Crowded = NOBODY_CROWDED
    ) -> tuple[Authorization, ...]:
        """Authorizations of which a challenge is to be tried: `next_at` has come, and nobody's lease is in force."""
        return self._read(lambda sql: authorizations.find_due(sql, self._keys, now, limit, without))

    async def claim_validation(
        self, id: str, seen_worker: str, seen_lease: datetime | None, worker: str, until: datetime
    ) -> bool:
        """Take an authorization from whoever left it, by compare-and-swap."""
        return await self._write(lambda tx: authorizations.claim(tx, id, seen_worker, seen_lease, worker, until))

    async def settle(self, attempt: Attempt) -> Authorization | None:
        """Record a good attempt that took no time, at a challenge that nobody has begun."""
        return await self._write(lambda tx: authorizations.settle(tx, self._keys, attempt))

    async def end_attempt(self, attempt: Attempt) -> Authorization | None:
        """Record an attempt and all that follows from it; None where the worker does not hold the challenge any more."""
        return await self._write(lambda tx: authorizations.end_attempt(tx, self._keys, attempt))

    async def has_room(self, quotas: Sequence[QuotaTake], now: datetime) -> bool:
        """Say whether each of these quotas has room, without taking anything."""
        return self._read(lambda sql: all(quota_uses.has_room(sql, quota, now) for quota in quotas))

    # Incidents

    async def declare_incident(self, incident: Incident, affected: Affected, now: datetime, audit: AuditEvent) -> Incident:
        """Write the incident, then note each certificate that is affected, in portions; returns it with their number."""
        await self._write(lambda tx: incidents.declare(tx, incident, audit))
        count = 0
        for where, parameters in incidents.conditions(affected, now):
            after = b""
            read = partial(incidents.read_page, where=where, parameters=parameters)
            while page := await self._read_aside(partial(read, after=after)):
                await self._write(partial(incidents.note, id=incident.id, certificates=page), is_long=True)
                count, after = count + len(page), page[-1]
        return replace(incident, certificates=count)

    async def count_affected(self, affected: Affected, now: datetime) -> tuple[int, tuple[str, ...]]:
        """Say how many certificates an incident would concern, and the subjects of up to ten of them."""
        return await self._read_aside(lambda sql: incidents.count(sql, affected, now))

    async def find_incident(self, certificate_sha256: bytes) -> Incident | None:
        """Return the newest incident that concerns a certificate."""
        return self._read(lambda sql: incidents.find(sql, certificate_sha256))

    async def list_incidents(self, limit: int) -> tuple[Incident, ...]:
        """Incidents, newest first."""
        return await self._read_aside(lambda sql: incidents.list_rows(sql, limit))

    async def withdraw_incident(self, id: str, audit: AuditEvent) -> bool:
        """Forget an incident; False where there is none."""
        while await self._write(partial(incidents.forget_portion, id=id), is_long=True):
            pass
        return await self._write(lambda tx: incidents.withdraw(tx, id, audit))

    async def expire_acme(self, now: datetime) -> int:
        """End orders whose time is over, and delete nonces, orders and authorizations that were kept long enough."""
        total = 0
        while gone := await self._write(lambda tx: expiry.expire_portion(tx, now), is_long=True):
            total += gone
        return total
