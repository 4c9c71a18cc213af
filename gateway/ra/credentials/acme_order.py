"""ACME orders as a credential: the account was authorized for every name (RFC 8555 §7.4)."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.errors import Reason, Rejection
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    NameBinding,
    OrderProof,
    ProfileName,
    Protocol,
    PublicKey,
    Requester,
    Reservation,
    SanKind,
)
from gateway.pki.identifiers import to_san

RESERVATION_KIND = "acme_order"
"""One order, one certificate, however long its answer was remembered."""

_DEVICE_NAMES = frozenset({SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE})
_EXACT = frozenset(SanKind) - _DEVICE_NAMES
_KEPT_FOR = timedelta(days=90)
"""Longer than any order is finalized for."""


class AcmeOrderCredential:
    """Takes the proof that the state machine of orders hands over, and binds the request to exactly the names of the order.

    Names of devices may be left out of a request, which keeps them out of the certificate, and none may be added
    (draft-ietf-acme-device-attest §3).
    """

    kind = CredentialKind.ACME_ORDER

    def __init__(self, profile: ProfileName) -> None:
        """Take the profile whose orders these are."""
        self._profile = profile

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the account; None where there is no order. Raises Rejection BAD_CSR for a key that the order is not for."""
        proof = request.order
        if proof is None or request.protocol is not Protocol.ACME or request.profile != self._profile:
            return None
        if not proof.identifiers or not proof.account or not request.transaction_id:
            raise Rejection(Reason.NOT_AUTHORIZED, "not authorized", "the order names nobody or nothing")
        check_key(proof, request.csr.public_key)
        names = frozenset((san.kind, san.value) for san in map(to_san, proof.identifiers))
        binding = NameBinding(
            sans=frozenset(name for name in names if name[0] in _EXACT), san_kinds=_EXACT, allowed_sans=names, certified=True
        )
        return Requester(
            identity=identity_of(proof.account),
            kind=self.kind,
            binding=binding,
            owner=proof.owner,
            reservations=(Reservation(RESERVATION_KIND, request.transaction_id, now + _KEPT_FOR),),
            claims=proof.claims,
        )


def identity_of(account: str) -> str:
    """Return what an account is called in ledger, inventory and audit."""
    return f"acme:{account}"


def check_key(proof: OrderProof, key: PublicKey) -> None:
    """Refuse a key other than the one that was attested, or of a kind that the external account may not have."""
    if proof.attested_key is not None and key.sha256 != proof.attested_key:
        raise Rejection(Reason.BAD_CSR, "the key of the CSR is not the one that the device attested")
    kinds = {key.algorithm, key.curve} - {None}
    if proof.key_types is not None and proof.key_types.isdisjoint(kinds):
        raise Rejection(Reason.BAD_CSR, f"the external account may not have {key.curve or key.algorithm} keys")
