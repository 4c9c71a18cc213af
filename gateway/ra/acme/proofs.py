"""What an order proves, from its authorizations as they are when it is certified (RFC 8555 §7.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gateway.acme import Account, Authorization, AuthorizationStatus, ExternalAccount, ExternalAccountPolicy, Order
from gateway.errors import Reason, Rejection
from gateway.model import AskedValidity, CertificateRequest, EnrollmentRequest, OrderProof, Protocol
from gateway.pki.jwk import thumbprint_of
from gateway.ra.acme.csr import fit
from gateway.ra.acme.orders import covers
from gateway.ra.acme.terms import Busy, Means, check_account, check_bound, directory, find_policy
from gateway.ra.acme.validations import Validations
from gateway.ra.profile import Snapshot
from gateway.validation.interfaces import ValidationFailed

OPERATION = "finalize"


@dataclass(frozen=True, slots=True)
class Proved:
    """The enrollment of an order, and the external account that its certificate is counted for."""

    enrollment: EnrollmentRequest
    external_account: str | None


class Proofs:
    """Turns orders and CSRs into requests for certificates: the only place where an `OrderProof` is made."""

    def __init__(self, means: Means, validations: Validations) -> None:
        self._means = means
        self._validations = validations

    async def prove(
        self, snapshot: Snapshot, account: Account, order: Order, csr: CertificateRequest, *, begun: bool = False
    ) -> Proved:
        """Return the request for an order's certificate; the same order and CSR always make the same one.

        `begun`: it was found good when its finalization began, and may have outlived its time since. Raises Rejection, and Busy
        where something could not be asked.
        """
        check_account(account, order.directory)
        profile, terms = directory(snapshot, order.profile)
        for demanding in (directory(snapshot, order.directory)[1], terms):
            check_bound(demanding, account)
        now = self._means.clock()
        external, policy = await find_policy(self._means.records, account, order.profile, now)
        rows = await self._means.records.find_authorizations(order.authorizations)
        _check_authorizations(order, account, rows, now, begun=begun)
        proof = _proof(order, account, rows, external, policy)
        fitted = fit(csr, proof, templated=profile.policy.subject.template is not None)
        await self._check_other_key(snapshot, csr)
        await self._check_caa(snapshot, order, rows, account)
        validity = None
        if order.not_before is not None or order.not_after is not None:
            validity = AskedValidity(order.not_before, order.not_after, order.created_at)
        enrollment = EnrollmentRequest(
            profile=order.profile,
            protocol=Protocol.ACME,
            operation=OPERATION,
            transaction_id=order.id,
            csr=fitted,
            challenge=None,
            signer=None,
            source=order.source,
            order=proof,
            validity=validity,
        )
        return Proved(enrollment, account.external_account)

    async def _check_other_key(self, snapshot: Snapshot, csr: CertificateRequest) -> None:
        """Refuse the key of an account of any directory: whoever has the certificate's key could act for it (RFC 8555 §11.1)."""
        thumbprint = thumbprint_of(csr.public_key.der)
        if thumbprint is None:
            return
        directories = [name for name, profile in snapshot.profiles.items() if profile.acme is not None]
        if await self._means.records.is_account_key(thumbprint, directories):
            raise Rejection(Reason.BAD_CSR, "the key of the CSR is the key of an account")

    async def _check_caa(self, snapshot: Snapshot, order: Order, rows: Sequence[Authorization], account: Account) -> None:
        try:
            await self._validations.check_caa(snapshot, order, rows, account)
        except ValidationFailed as failure:
            if failure.reason is not Reason.VALIDATION_CAA:
                # DNS did not answer: what it would have said is not known, and may be asked again.
                raise Busy(failure.reason, self._means.timing.retry) from failure
            raise Rejection(failure.reason, failure.detail, failure.cause) from failure


def _check_authorizations(order: Order, account: Account, rows: Sequence[Authorization], now: datetime, *, begun: bool) -> None:
    """Refuse an order of which a name is not authorized in this very moment, whatever its status says."""
    good = [
        row
        for row in rows
        if row.account == account.id
        and row.profile == order.profile
        and row.status is AuthorizationStatus.VALID
        and (begun or row.expires_at > now)
    ]
    if not order.identifiers or not all(any(covers(row, name) for row in good) for name in order.identifiers):
        raise Rejection(Reason.ORDER_NOT_READY, "an authorization of this order is not valid any more")


def _proof(
    order: Order,
    account: Account,
    rows: Sequence[Authorization],
    external: ExternalAccount | None,
    policy: ExternalAccountPolicy,
) -> OrderProof:
    keys = {row.attested_key for row in rows} - {None}
    if len(keys) > 1:
        raise Rejection(Reason.BAD_CSR, "the devices of this order have attested different keys")
    claims: dict[str, str] = {}
    for row in rows:
        for name, value in row.claims.items():
            # Two devices that say different things say nothing; a template that needs it then refuses the order.
            if claims.setdefault(name, value) != value:
                claims[name] = ""
    return OrderProof(
        account=account.id,
        identifiers=frozenset(order.identifiers),
        external_account=account.external_account,
        attested_key=next(iter(keys), None),
        max_validity=policy.max_validity,
        key_types=policy.key_types,
        owner=None if external is None else external.owner,
        claims=MappingProxyType({name: value for name, value in claims.items() if value}),
    )
