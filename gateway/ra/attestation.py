"""What a device says of the key of its request, beside who asks for it (draft-ietf-lamps-csr-attestation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, EnrollmentRequest, Requester


class EvidenceJudge(Protocol):
    """Judges the statements of one request; no I/O, and no clock of its own."""

    def judge(self, request: CertificateRequest, now: datetime) -> Mapping[str, str] | None:
        """Return what is attested of the request's key, None for nothing; raises Rejection BAD_ATTESTATION."""


@dataclass(frozen=True, slots=True)
class AttestationTerms:
    """Whose statements a profile takes, and whether it takes requests without one."""

    judge: EvidenceJudge
    required: bool


def add_attested(terms: AttestationTerms | None, request: EnrollmentRequest, requester: Requester, now: datetime) -> Requester:
    """Return the requester with what the device attested, which policy may use as `{attested.NAME}`.

    Without `terms` nothing of it is looked at. A key that device-attest-01 attested needs no other statement. Raises Rejection
    BAD_ATTESTATION.
    """
    if terms is None:
        return requester
    attested = terms.judge.judge(request.csr, now)
    if attested is not None:
        return replace(requester, attested=attested)
    proved = request.order is not None and request.order.attested_key is not None
    if terms.required and not proved:
        raise Rejection(Reason.BAD_ATTESTATION, "this profile wants an attestation of the key")
    return requester
