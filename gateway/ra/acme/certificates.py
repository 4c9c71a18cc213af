"""Certificates of orders: handed out, and revoked by whoever may (RFC 8555 §7.4.2, §7.6)."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from gateway.acme import Account, Order, OrderStatus, RevocationRequest
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, Protocol, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.acme.names import base_of
from gateway.ra.acme.orders import covers
from gateway.ra.acme.renewal import identifiers_of
from gateway.ra.acme.terms import Busy, Means, check_account, directory, find_policy, trust_mode
from gateway.ra.credentials.acme_order import identity_of
from gateway.ra.profile import AcmeTerms, Snapshot
from gateway.ra.requests import RevokeRequest
from gateway.ra.transactions import DELIVERABLE
from gateway.store.interfaces import InventoryRow

_REASONS = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "keyCompromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliationChanged",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessationOfOperation",
    RevocationReason.PRIVILEGE_WITHDRAWN: "privilegeWithdrawn",
}
"""How configuration calls what clients may say."""


class Certificates:
    """The certificates of all directories, as one worker sees them."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def chain(self, order: Order) -> tuple[bytes, ...]:
        """Return an order's certificate and the chain above it, DER; without the root, unless nothing else would be left.

        certbot takes no answer of a single certificate. Raises Rejection UNKNOWN_CERTIFICATE, for one that was revoked as well.
        """
        if order.status is not OrderStatus.VALID or order.request_id is None:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "this order has no certificate")
        row = await self._means.ledger.get_row(order.request_id)
        if row is None or row.certificate is None or hashlib.sha256(row.certificate).digest() != order.certificate:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "this order has no certificate")
        if row.state not in DELIVERABLE:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "the certificate of this order was revoked")
        return (row.certificate, *without_root(row.chain))

    async def revoke(
        self, snapshot: Snapshot, profile: ProfileName, signer: Account | bytes, request: RevocationRequest, source: str
    ) -> None:
        """Revoke a certificate of this directory for an account or for the holder of its key (RFC 8555 §7.6)."""
        _, terms = directory(snapshot, profile)
        row = await self._means.ledger.find_certificate(hashlib.sha256(request.certificate).digest())
        if row is None or row.profile not in {profile, *terms.config.profiles}:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate")
        reason = request.reason
        if isinstance(signer, bytes):
            if signer != row.public_key_sha256:
                raise Rejection(Reason.NOT_AUTHORIZED, "the request is signed by another key than the certificate's")
            # Whoever can sign with it here may as well be who stole it: the key is not certified again.
            reason, authorized = RevocationReason.KEY_COMPROMISE, None
        else:
            check_account(signer, profile)
            await self._check_entitled(terms, snapshot, signer, row)
            authorized = identity_of(signer.id)
            if _REASONS.get(reason) not in terms.config.revocation_reasons:
                raise Rejection(Reason.BAD_REVOCATION_REASON, "this reason is not for clients to give")
        if row.revoked_at is not None:
            raise Rejection(Reason.ALREADY_REVOKED, "the certificate was revoked already")
        await self._revoke(snapshot, row, reason, authorized, source)

    async def _revoke(
        self, snapshot: Snapshot, row: InventoryRow, reason: RevocationReason, authorized: str | None, source: str
    ) -> None:
        outcome = await self._means.authority.revoke(
            snapshot,
            RevokeRequest(
                profile=row.profile,
                protocol=Protocol.ACME,
                operation="revokeCert",
                transaction_id="",
                requester_key=row.public_key_sha256,
                certificate_sha256=row.sha256,
                reason=reason,
                source=source,
                authorized=authorized,
            ),
        )
        if isinstance(outcome, Rejected):
            raise Rejection(outcome.reason, outcome.detail)
        if isinstance(outcome, Unavailable):
            raise Busy(outcome.reason, outcome.retry_after)

    async def _check_entitled(self, terms: AcmeTerms, snapshot: Snapshot, account: Account, row: InventoryRow) -> None:
        """Refuse an account that neither ordered the certificate nor holds authorizations for all of its names.

        Where nothing is proved to get an authorization, having one says nothing about another account's certificate.
        """
        if row.requester == identity_of(account.id):
            return
        now = self._means.clock()
        _, policy = await find_policy(self._means.records, account, now)
        own = snapshot.profiles.get(row.profile)
        names = identifiers_of(row)
        if (
            own is not None
            and own.acme is not None
            and trust_mode(own.acme, policy) != "none"
            and len(names) == len(row.sans) > 0
        ):
            bases = {base_of(name) for name in names}
            rows = await self._means.records.find_valid_authorizations(account.id, row.profile, bases, now)
            if all(any(covers(one, name) for one in rows) for name in names):
                return
        raise Rejection(Reason.NOT_AUTHORIZED, "the account neither ordered the certificate nor is authorized for all its names")


def without_root(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return a chain without the root at its end, unless it is the whole chain: clients have it (RFC 8555 §7.4.2)."""
    return chain[:-1] if len(chain) > 1 and _is_root(chain[-1]) else chain


@lru_cache(maxsize=64)
def _is_root(der: bytes) -> bool:
    return parse_certificate(der).self_issued
