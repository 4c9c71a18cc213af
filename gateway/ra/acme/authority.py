"""What an ACME endpoint asks: the verbs of accounts, orders, authorizations, certificates and renewal (RFC 8555 §7, RFC 9773)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from gateway.acme import (
    Account,
    AccountChange,
    AccountRequest,
    Authorization,
    AuthorizationRequest,
    CertificateId,
    KeyChange,
    Order,
    OrderPage,
    OrderRequest,
    RenewalInfo,
    RevocationRequest,
)
from gateway.model import ProfileName
from gateway.ra.acme.terms import AcmeTiming
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.store.acme import AcmeRecords
from gateway.store.interfaces import Inventory, Ledger


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
        raise NotImplementedError

    def new_nonce(self) -> str:
        """Return a fresh nonce, base64url; nothing is stored until it is used (RFC 8555 §6.5)."""
        raise NotImplementedError

    async def redeem_nonce(self, nonce: str) -> bool:
        """Use a nonce up, across all workers; False for one that was not made here, is older than an hour, or was used."""
        raise NotImplementedError

    async def find_account(self, snapshot: Snapshot, profile: ProfileName, id: str) -> Account:
        """Return an account of this directory, whatever its status: its signature is to be verified before that is told.

        Raises Rejection UNKNOWN_ACCOUNT.
        """
        raise NotImplementedError

    async def find_account_by_key(self, snapshot: Snapshot, profile: ProfileName, thumbprint: str) -> Account | None:
        """Return the account of a key at this directory."""
        raise NotImplementedError

    async def new_account(
        self, snapshot: Snapshot, profile: ProfileName, request: AccountRequest, source: str
    ) -> tuple[Account, bool]:
        """Return the account of this key and whether it was created now (RFC 8555 §7.3, §7.3.1, §7.3.4)."""
        raise NotImplementedError

    async def change_account(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, change: AccountChange, source: str
    ) -> Account:
        """Change contact or agreement, or end an account (RFC 8555 §7.3.2, §7.3.3, §7.3.6).

        Of one that ends the certificates stay, its unfinished orders do not.
        """
        raise NotImplementedError

    async def change_key(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, change: KeyChange, source: str
    ) -> Account:
        """Give an account another key (RFC 8555 §7.3.5); `change.account_url` was compared with the `kid`. Raises KeyInUse."""
        raise NotImplementedError

    async def new_order(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, request: OrderRequest, source: str
    ) -> Order:
        """Add an order (RFC 8555 §7.4); as `ready` where nothing needs to be proved."""
        raise NotImplementedError

    async def find_order(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, *, wait: bool = True
    ) -> Order:
        """Return an order; while it is processing, with `wait`, a few seconds are given to whoever finalizes it."""
        raise NotImplementedError

    async def list_orders(self, snapshot: Snapshot, profile: ProfileName, account: Account, after: str | None) -> OrderPage:
        """Return one page of an account's orders that are not invalid (RFC 8555 §7.1.2.1)."""
        raise NotImplementedError

    async def new_authorization(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, request: AuthorizationRequest, source: str
    ) -> Authorization:
        """Add an authorization that no order needs yet (RFC 8555 §7.4.1, RFC 9444)."""
        raise NotImplementedError

    async def find_authorization(self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str) -> Authorization:
        """Return an authorization (RFC 8555 §7.5)."""
        raise NotImplementedError

    async def deactivate_authorization(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, source: str
    ) -> Authorization:
        """Relinquish an authorization (RFC 8555 §7.5.2)."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def finalize(
        self, snapshot: Snapshot, profile: ProfileName, account: Account, id: str, csr: bytes, source: str
    ) -> Order:
        """Have an order certified by this CSR, DER, or return how far that is (RFC 8555 §7.4); the same CSR may come again.

        Raises Rejection ORDER_NOT_READY, BAD_CSR and what policy says of the CSR, with which the order stays ready.
        """
        raise NotImplementedError

    async def certificate(self, snapshot: Snapshot, profile: ProfileName, account: Account, order: str) -> tuple[bytes, ...]:
        """Return the certificate of an order and the chain above it, DER, leaf first, without the root (RFC 8555 §7.4.2)."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def renewal_info(self, snapshot: Snapshot, profile: ProfileName, certificate: CertificateId) -> RenewalInfo:
        """Say when any certificate that was issued here should be renewed; public (RFC 9773 §4.1)."""
        raise NotImplementedError

    def retry_after(self, order: Order | Authorization) -> int | None:
        """Return Retry-After, in whole seconds, of what is not over yet; None where nothing is to be waited for."""
        raise NotImplementedError

    async def run_due(self, snapshot: Snapshot) -> int:
        """Take up validations and orders that are due and that nobody works on; returns how many. Raises StoreUnavailable."""
        raise NotImplementedError

    async def drain(self, seconds: float) -> int:
        """Refuse new work, let what runs finish for `seconds`, cancel the rest; returns how many were cancelled."""
        raise NotImplementedError
