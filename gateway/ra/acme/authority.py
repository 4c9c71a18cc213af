"""What an ACME endpoint asks: the verbs of accounts, orders, authorizations, certificates and renewal (RFC 8555 §7, RFC 9773)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TypeVar

from gateway.acme import (
    Account,
    AccountChange,
    AccountRequest,
    Authorization,
    AuthorizationRequest,
    AuthorizationStatus,
    CertificateId,
    KeyChange,
    Order,
    OrderPage,
    OrderRequest,
    OrderStatus,
    RenewalInfo,
    RevocationRequest,
)
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName
from gateway.pki.nonces import RANDOM_BYTES, make_nonce, read_nonce
from gateway.ra.acme import journal
from gateway.ra.acme.accounts import Accounts
from gateway.ra.acme.certificates import Certificates
from gateway.ra.acme.finalize import Finalization
from gateway.ra.acme.orders import Orders
from gateway.ra.acme.proofs import Proofs
from gateway.ra.acme.renewal import Renewals
from gateway.ra.acme.terms import AcmeTiming, Means, Recorded, check_account, directory
from gateway.ra.acme.validations import Validations
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.store.acme import AcmeRecords
from gateway.store.interfaces import Inventory, Ledger

T = TypeVar("T")

_UNRECORDED = frozenset(
    {
        Reason.MALFORMED,
        Reason.RATE_LIMITED,
        Reason.UNKNOWN_TRANSACTION,
        Reason.UNKNOWN_CERTIFICATE,
        Reason.UNKNOWN_ACCOUNT,
        Reason.ORDER_NOT_READY,
    }
)
"""Refusals of requests that decide nothing; whoever serves the endpoint counts them."""


class AcmeAuthority:
    """The state machines of ACME around `RegistrationAuthority.enroll`; one serves one worker for its whole life.

    Every verb takes the snapshot and the directory's profile first. It raises Rejection, whose detail is public (RateLimited,
    IdentifiersRejected and KeyInUse say more), Busy and StoreUnavailable for what may succeed later, and nothing else. An account
    is the one whose key signed, as `find_account` returned it: verbs refuse one that is not valid, and answer what belongs to
    another account or another directory as what does not exist (UNKNOWN_TRANSACTION, UNKNOWN_CERTIFICATE).
    """

    def __init__(
        self,
        records: AcmeRecords,
        ledger: Ledger,
        inventory: Inventory,
        authority: RegistrationAuthority,
        clock: Callable[[], datetime],
        worker: str,
        nonce_keys: tuple[bytes, ...],
        timing: AcmeTiming | None = None,
    ) -> None:
        """Take the store's parts; the first of `nonce_keys`, 32 bytes each and the same in all workers, makes nonces."""
        if not nonce_keys:
            raise ValueError("there is no key for nonces")
        means = Means(records, ledger, inventory, authority, clock, worker, timing or AcmeTiming())
        self._means = means
        self._nonce_keys = nonce_keys
        self._accounts = Accounts(means)
        self._renewals = Renewals(means)
        self._orders = Orders(means, self._renewals)
        self._validations = Validations(records, clock, worker, means.timing)
        self._finalization = Finalization(means, self._orders, Proofs(means, self._validations))
        self._certificates = Certificates(means)

    def new_nonce(self) -> str:
        """Return a fresh nonce, base64url; nothing is stored until it is used (RFC 8555 §6.5)."""
        return make_nonce(self._nonce_keys[0], self._means.clock(), secrets.token_bytes(RANDOM_BYTES))

    async def redeem_nonce(self, nonce: str) -> bool:
        """Use a nonce up, across all workers; False for one that was not made here, is older than an hour, or was used."""
        read = read_nonce(self._nonce_keys, nonce, self._means.clock())
        return read is not None and await self._means.records.redeem_nonce(read.id, read.issued_at)

    async def find_account(self, snapshot: Snapshot, profile: ProfileName, id: str) -> Account:
        """Return an account of this directory, whatever its status: its signature is to be verified before that is told.

        Raises Rejection UNKNOWN_ACCOUNT.
        """
        directory(snapshot, profile)
        return await self._accounts.find(profile, id)

    async def find_account_by_key(self, snapshot: Snapshot, profile: ProfileName, thumbprint: str) -> Account | None:
        """Return the account of a key at this directory."""
        directory(snapshot, profile)
        return await self._means.records.find_account_by_key(profile, thumbprint)

    async def new_account(
        self, snapshot: Snapshot, profile: ProfileName, request: AccountRequest, source: str
    ) -> tuple[Account, bool]:
        """Return the account of this key and whether it was created now (RFC 8555 §7.3, §7.3.1, §7.3.4)."""
        return await self._accounts.create(snapshot, profile, request, source)

    async def change_account(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, change: AccountChange, source: str
    ) -> Account:
        """Change contact or agreement, or end an account (RFC 8555 §7.3.2, §7.3.3, §7.3.6).

        Of one that ends the certificates stay, its unfinished orders do not.
        """
        check_account(account, profile)
        return await self._recorded(
            "acme.account", snapshot, account, source, self._accounts.change(snapshot, account, change, source)
        )

    async def change_key(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, change: KeyChange, source: str
    ) -> Account:
        """Give an account another key (RFC 8555 §7.3.5); `change.account_url` was compared with the `kid`. Raises KeyInUse."""
        check_account(account, profile)
        work = self._accounts.change_key(snapshot, account, change, source)
        return await self._recorded("acme.account", snapshot, account, source, work)

    async def new_order(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, request: OrderRequest, source: str
    ) -> Order:
        """Add an order (RFC 8555 §7.4); as `ready` where nothing needs to be proved."""
        check_account(account, profile)
        work = self._orders.create(snapshot, account, request, source)
        return await self._recorded("acme.order", snapshot, account, source, work)

    async def find_order(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, *, wait: bool = True
    ) -> Order:
        """Return an order; while it is processing, with `wait`, a few seconds are given to whoever finalizes it."""
        check_account(account, profile)
        directory(snapshot, profile)
        order = await self._orders.find(account, id)
        if wait and order.status is OrderStatus.PROCESSING:
            return await self._finalization.follow(account, order)
        return order

    async def list_orders(self, snapshot: Snapshot, profile: ProfileName, account: Account, after: str | None) -> OrderPage:
        """Return one page of an account's orders that are not invalid (RFC 8555 §7.1.2.1)."""
        check_account(account, profile)
        directory(snapshot, profile)
        return await self._orders.page(account, after)

    async def new_authorization(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, request: AuthorizationRequest, source: str
    ) -> Authorization:
        """Add an authorization that no order needs yet (RFC 8555 §7.4.1, RFC 9444)."""
        check_account(account, profile)
        work = self._orders.authorize(snapshot, account, request, source)
        return await self._recorded("acme.authorization", snapshot, account, source, work)

    async def find_authorization(self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str) -> Authorization:
        """Return an authorization (RFC 8555 §7.5)."""
        check_account(account, profile)
        directory(snapshot, profile)
        return await self._orders.find_authorization(account, id)

    async def deactivate_authorization(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, source: str
    ) -> Authorization:
        """Relinquish an authorization (RFC 8555 §7.5.2)."""
        check_account(account, profile)
        directory(snapshot, profile)
        return await self._orders.relinquish(snapshot, account, id, source)

    async def answer_challenge(
        self,
        snapshot: Snapshot,
        profile: ProfileName,
        account: Account,
        id: str,
        challenge: str,
        payload: Mapping[str, object],
        source: str,
    ) -> Authorization:
        """Have a challenge tried now, and wait a little for it; what is over stays as it is (RFC 8555 §7.5.1).

        `payload` is the JSON object that was sent, bounded.
        """
        check_account(account, profile)
        directory(snapshot, profile)
        row = await self._orders.find_authorization(account, id)
        found = next((one for one in row.challenges if one.id == challenge), None)
        if found is None:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such challenge")
        return await self._validations.answer(snapshot, account, row, found, payload, source)

    async def finalize(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, csr: bytes, source: str
    ) -> Order:
        """Have an order certified by this CSR, DER, or return how far that is (RFC 8555 §7.4); the same CSR may come again.

        Raises Rejection ORDER_NOT_READY, BAD_CSR and what policy says of the CSR, with which the order stays ready.
        """
        check_account(account, profile)
        work = self._finalization.finalize(snapshot, account, id, csr, source)
        return await self._recorded("acme.order", snapshot, account, source, work)

    async def certificate(self, snapshot: Snapshot, profile: ProfileName, account: Account, order: str) -> tuple[bytes, ...]:
        """Return the certificate of an order and the chain above it, DER, leaf first, without the root (RFC 8555 §7.4.2)."""
        check_account(account, profile)
        directory(snapshot, profile)
        return await self._certificates.chain(await self._orders.find(account, order))

    async def revoke(
        self,
        snapshot: Snapshot,
        profile: ProfileName,
        signer: Account | bytes,
        request: RevocationRequest,
        source: str,
    ) -> None:
        """Revoke for the account that ordered it, one with authorizations for all its names, or its own key (RFC 8555 §7.6).

        `signer` is the account, or the SHA-256 of the SubjectPublicKeyInfo whose `jwk` signed. Raises Rejection
        UNKNOWN_CERTIFICATE, ALREADY_REVOKED, BAD_REVOCATION_REASON, NOT_AUTHORIZED.
        """
        await self._certificates.revoke(snapshot, profile, signer, request, source)

    async def renewal_info(self, snapshot: Snapshot, profile: ProfileName, certificate: CertificateId) -> RenewalInfo:
        """Say when any certificate that was issued here should be renewed; public (RFC 9773 §4.1)."""
        return await self._renewals.info(snapshot, profile, certificate)

    def retry_after(self, order: Order | Authorization) -> int | None:
        """Return Retry-After, in whole seconds, of what is not over yet; None where nothing is to be waited for."""
        timing = self._means.timing
        if isinstance(order, Authorization):
            return timing.retry if order.status is AuthorizationStatus.PENDING else None
        if order.status is OrderStatus.PENDING:
            return timing.retry
        if order.status is not OrderStatus.PROCESSING:
            return None
        if order.worker or order.next_at is None:
            return timing.retry
        left = int((order.next_at - self._means.clock()).total_seconds()) + 1
        return max(timing.retry, min(timing.longest_retry, left))

    async def run_due(self, snapshot: Snapshot) -> int:
        """Take up validations and orders that are due and that nobody works on; returns how many. Raises StoreUnavailable."""
        return await self._validations.run_due(snapshot) + await self._finalization.run_due(snapshot)

    async def drain(self, seconds: float) -> int:
        """Refuse new work, let what runs finish for `seconds`, cancel the rest; returns how many were cancelled."""
        validations, orders = await asyncio.gather(self._validations.drain(seconds), self._finalization.drain(seconds))
        return validations + orders

    async def _recorded(self, event: str, snapshot: Snapshot, account: Account, source: str, work: Awaitable[T]) -> T:
        """Run one verb, so that what an account is refused is on record before it is told."""
        try:
            return await work
        except Rejection as refusal:
            if refusal.reason not in _UNRECORDED and not isinstance(refusal, Recorded):
                now = self._means.clock()
                told = journal.change(
                    f"{event}.rejected",
                    account.id,
                    account.profile,
                    now,
                    source=source,
                    decision="refused",
                    reason=refusal.reason,
                    detail=refusal.cause,
                    generation=snapshot.generation,
                )
                await self._means.ledger.append_audit((told,))
            raise
