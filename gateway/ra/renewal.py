"""Renewal by a certificate, the gateway's own or a migrated fleet's: it is no passport (RFC 8894 §2.3 and §3.3.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection
from gateway.model import (
    UNLIMITED_NOT_AFTER,
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    Protocol,
    Requester,
    Reservation,
    SanKind,
    SignerCertificate,
    SubjectAltName,
)
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.names import parse_name
from gateway.pki.trust import TrustAnchors
from gateway.ra.client_path import purpose_problem
from gateway.ra.policy import judge_names
from gateway.ra.policy.sans import comparable_name
from gateway.ra.policy.subject import same_subject
from gateway.ra.profile import RenewalRule
from gateway.store.interfaces import RENEWAL, InventoryRow, Ledger


class RenewalCredential:
    """Recognises the signer of a message as the holder of a certificate that may be renewed here.

    `own_keys` are the SHA-256 of the SubjectPublicKeyInfo of the gateway's RA, TLS and CA keys: they authenticate nobody. With
    `policy`, a request is also for the same names when they become the certificate's through the policy's template, overrides
    and dropped names.
    """

    kind = CredentialKind.CERTIFICATE

    def __init__(
        self, rule: RenewalRule, ledger: Ledger, policy: PolicyConfig | None = None, own_keys: frozenset[bytes] = frozenset()
    ) -> None:
        self._rule = rule
        self._ledger = ledger
        self._policy = policy
        self._own_keys = own_keys

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the holder of the renewed certificate.

        None when the message does not claim to be a renewal and either is signed by a certificate that is neither ours nor below
        the rule's anchors, or carries a challenge that may prove it instead. A SID is vouched for by our own certificates only.
        Raises Rejection UNKNOWN_CERTIFICATE, RENEWAL_REFUSED, CREDENTIAL_EXPIRED or CREDENTIAL_REVOKED, and StoreUnavailable.
        """
        if request.operation not in self._rule.messages or self._is_first(request):
            return None
        judged = await self._judge(request, now)
        if isinstance(judged, Requester):
            return judged
        if request.is_renewal or not (request.challenge or judged.reason is Reason.UNKNOWN_CERTIFICATE):
            raise _as_signer(request, judged)
        return None

    def _is_first(self, request: EnrollmentRequest) -> bool:
        """Whether the message renews nothing, as its self-signed signer says: neither the inventory nor a fleet has such ones."""
        signer = request.signer
        return signer is not None and signer.self_signed and self._rule.anchors is None and not request.is_renewal

    async def _judge(self, request: EnrollmentRequest, now: datetime) -> Requester | Rejection:
        """Return the holder or why there is none: UNKNOWN_CERTIFICATE for a signer that has nothing to do with us."""
        signer = request.signer
        if signer is None:
            return _unknown("it is not signed by a certificate")
        row = await self._ledger.find_certificate(signer.sha256)
        if row is not None:
            return self._refusal(request, signer, row, now) or _requester(request, signer, row)
        if self._rule.anchors is None:
            return _unknown("the signer's certificate is not in the inventory")
        return await self._migrate(self._rule.anchors, request, signer, now)

    async def _migrate(
        self, anchors: TrustAnchors, request: EnrollmentRequest, signer: SignerCertificate, now: datetime
    ) -> Requester | Rejection:
        """Judge a certificate of a fleet that was enrolled elsewhere, by the same rules.

        The inventory has no row that could say who its heir is, so a reservation that never ends does. It names the signed part,
        not the whole: an ECDSA signature can be changed so that it still verifies, which would make a second certificate of one.
        """
        try:
            certificate = parse_certificate(signer.der)
            anchors.verify(certificate, now, self._rule.grace)
        except Rejection as error:
            lapsed = error.reason in {Reason.CREDENTIAL_EXPIRED, Reason.CREDENTIAL_REVOKED}
            return error if lapsed else _unknown(error.cause)
        if await self._ledger.find_issued(certificate.issuer_der, certificate.serial) is not None:
            return _unknown("the inventory has another certificate of this issuer and serial number")
        heir = Reservation(RENEWAL, hashlib.sha256(certificate.tbs).hexdigest(), UNLIMITED_NOT_AFTER)
        return self._migration_refusal(request, signer, certificate, now) or Requester(
            identity=_identity(signer), kind=self.kind, reservations=(heir,)
        )

    def _migration_refusal(
        self, request: EnrollmentRequest, signer: SignerCertificate, certificate: Certificate, now: datetime
    ) -> Rejection | None:
        if certificate.is_ca or certificate.public_key.sha256 in self._own_keys:
            return _refused("this certificate is not renewed here", "it is a CA certificate, or its key is the gateway's own")
        if certificate.key_usage is not None and "digitalSignature" not in certificate.key_usage:
            return _refused("this certificate is not renewed here", "its key usage does not let it sign")
        if request.protocol is Protocol.EST and (problem := purpose_problem(certificate)):
            return _refused("this certificate is not renewed here", problem)
        return self._time_refusal(signer, now) or self._name_refusal(request, signer)

    def _refusal(
        self, request: EnrollmentRequest, signer: SignerCertificate, row: InventoryRow, now: datetime
    ) -> Rejection | None:
        """Say why this certificate may not be renewed by this request, or None."""
        return (
            self._origin_refusal(signer, row)
            or self._time_refusal(signer, now)
            or _key_refusal(request, row)
            or self._name_refusal(request, signer, row.owner)
        )

    def _origin_refusal(self, signer: SignerCertificate, row: InventoryRow) -> Rejection | None:
        if row.profile not in self._rule.from_profiles:
            return _refused("this certificate is not renewed here", f"it was issued under profile {row.profile}")
        if row.protocol == Protocol.ACME:
            # What was proved for it (names, an external account that is in force) is proved anew each time, by an order.
            return _refused("this certificate is not renewed here", "it came by ACME, where a new order renews it")
        if signer.public_key.sha256 in self._own_keys or signer.public_key.sha256 != row.public_key_sha256:
            return _refused("this certificate is not renewed here", "its key is the gateway's own or not the inventory's")
        if row.revoked_at is not None:
            return Rejection(
                Reason.CREDENTIAL_REVOKED, "the certificate has been revoked", f"revoked at {row.revoked_at.isoformat()}"
            )
        return None

    def _time_refusal(self, signer: SignerCertificate, now: datetime) -> Rejection | None:
        """Judge window and grace; they move `now`, because notAfter may be the last second that there is."""
        if now < signer.not_before:
            return _refused("the certificate is not valid yet")
        if now - self._rule.grace > signer.not_after:
            return Rejection(Reason.CREDENTIAL_EXPIRED, "the certificate has expired", f"it ended {signer.not_after.isoformat()}")
        if self._rule.window is not None and now + self._rule.window < signer.not_after:
            return _refused("it is too early to renew this certificate", f"it is valid until {signer.not_after.isoformat()}")
        return None

    def _name_refusal(self, request: EnrollmentRequest, signer: SignerCertificate, owner: str | None = None) -> Rejection | None:
        same = self._are_same_names(request.csr, signer, owner)
        return None if same else _refused("a renewal keeps subject and subject alternative names")

    def _are_same_names(self, csr: CertificateRequest, signer: SignerCertificate, owner: str | None) -> bool:
        if same_subject(csr.subject, signer.subject) and _comparable(csr.sans) == _comparable(signer.sans):
            return True
        if self._policy is None:
            return False
        holder = Requester(_identity(signer), CredentialKind.CERTIFICATE, owner=owner, claims=_claims(signer, owner))
        names = judge_names(self._policy, csr, holder)
        made = None if names.refused else parse_name(names.subject_der)
        return made is not None and same_subject(made, signer.subject) and _comparable(names.sans) == _comparable(signer.sans)


def _as_signer(request: EnrollmentRequest, refusal: Rejection) -> Rejection:
    """Say of a CMP message that its signer is not known, where not a certificate that it names is what is not."""
    if refusal.reason is not Reason.UNKNOWN_CERTIFICATE or request.proof is None or request.proof.updates is not None:
        return refusal
    return Rejection(Reason.SIGNER_NOT_TRUSTED, "the signer of the message is not trusted here", refusal.cause)


def _unknown(cause: str) -> Rejection:
    text = "the request comes with no certificate that may be renewed here"
    return Rejection(Reason.UNKNOWN_CERTIFICATE, text, cause)


def _key_refusal(request: EnrollmentRequest, row: InventoryRow) -> Rejection | None:
    """Refuse a second heir: a stolen old key must not renew what its owner has renewed to a new key."""
    if row.renewed_by is not None and row.renewed_by != request.csr.public_key.sha256:
        reason = Reason.ALREADY_REPLACED if request.protocol is Protocol.CMP else Reason.RENEWAL_REFUSED
        return Rejection(reason, "the certificate has been renewed already", "it was renewed by another key")
    return None


def _requester(request: EnrollmentRequest, signer: SignerCertificate, row: InventoryRow) -> Requester:
    """Return the holder. A SID that the old certificate has was vouched for when it was issued."""
    held = {name.value for name in signer.sans if name.kind is SanKind.SID}
    asked = {name.value for name in request.csr.sans if name.kind is SanKind.SID}
    return Requester(
        identity=_identity(signer),
        kind=CredentialKind.CERTIFICATE,
        owner=row.owner,
        vouches_for_sid=bool(asked) and asked == held,
        renews=signer.sha256,
        claims=_claims(signer, row.owner),
    )


def _claims(signer: SignerCertificate, owner: str | None) -> Mapping[str, str]:
    """Return what the maker called a device that enrolled by his certificate, where its own certificate shows that too.

    A template that named the device by it once does so again.
    """
    shown = [attribute.value for rdn in signer.subject.rdns for attribute in rdn]
    return MappingProxyType({"vendor.id": owner} if owner and any(owner in value for value in shown) else {})


def _identity(signer: SignerCertificate) -> str:
    return f"certificate:{signer.sha256.hex()}"


def _comparable(sans: tuple[SubjectAltName, ...]) -> set[tuple[SanKind, str]]:
    return {comparable_name(name.kind, name.value) for name in sans}


def _refused(detail: str, cause: str = "") -> Rejection:
    return Rejection(Reason.RENEWAL_REFUSED, detail, cause)
