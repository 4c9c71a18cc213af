"""What the endpoints ask of the registration authority beside an enrollment, and what it answers; protocol-neutral and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.model import (
    Outcome,
    ProfileName,
    Protocol,
    Rejected,
    RequestId,
    RevocationReason,
    SignerCertificate,
    SubjectAltName,
    Unavailable,
    Verdict,
)
from gateway.store.interfaces import LedgerRow


@dataclass(frozen=True, slots=True)
class PollRequest:
    """Asks about an earlier request (SCEP CertPoll, RFC 8894 §3.3.3; CMP pollReq).

    `requester_key` is the SHA-256 of the SubjectPublicKeyInfo that signed the message: it must be the one that opened
    the transaction.
    """

    profile: ProfileName
    protocol: Protocol
    operation: str
    transaction_id: str
    requester_key: bytes
    source: str
    client_certificate: bytes | None = field(default=None, repr=False)
    """The TLS client's certificate, DER."""


@dataclass(frozen=True, slots=True)
class ConfirmRequest:
    """Says whether the client took the certificate (CMP certConf, RFC 9810 §5.3.18).

    `certificate_sha256` is the SHA-256 of the DER that the client received.
    """

    profile: ProfileName
    protocol: Protocol
    operation: str
    transaction_id: str
    requester_key: bytes
    certificate_sha256: bytes
    accepted: bool
    source: str
    client_certificate: bytes | None = field(default=None, repr=False)
    """The TLS client's certificate, DER."""
    row: LedgerRow | None = field(default=None, repr=False)
    """The transaction, where whoever asks has just found it by this very key."""


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Asks that a certificate be revoked by whoever proves to hold its key (RFC 8555 §7.6, RFC 9810 §5.3.9).

    `requester_key` is the SHA-256 of the SubjectPublicKeyInfo that signed the message.
    """

    profile: ProfileName
    protocol: Protocol
    operation: str
    transaction_id: str
    requester_key: bytes
    certificate_sha256: bytes
    reason: RevocationReason
    source: str
    client_certificate: bytes | None = field(default=None, repr=False)
    """The TLS client's certificate, DER."""
    authorized: str | None = None
    """Whom the protocol's own state machine has found entitled, in place of the key's holder (RFC 8555 §7.6)."""
    revive: bool = False
    """Take a certificate off hold instead, where its CA can (removeFromCRL, RFC 5280 §5.3.1)."""


@dataclass(frozen=True, slots=True)
class PrecheckRequest:
    """Asks whether names could be certified at all (ACME newOrder and newAuthz)."""

    profile: ProfileName
    protocol: Protocol
    operation: str
    sans: tuple[SubjectAltName, ...]
    requester: str
    source: str


class Sought(StrEnum):
    """What may be looked up."""

    CA_CERTIFICATES = "ca_certificates"
    CRL = "crl"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class LookUpRequest:
    """Asks for the chain of a profile's CA, its CRL, or one certificate (SCEP GetCert and GetCRL, RFC 8894 §3.3.4).

    With `signer` the message was signed, and nothing is shown unless that certificate is in the inventory, of this profile and
    good; a certificate is never shown without. `issuer_der` and `serial` name the certificate that is asked for, or for a CRL the
    one to be checked; an empty issuer names none.
    """

    profile: ProfileName
    protocol: Protocol
    operation: str
    sought: Sought
    source: str
    issuer_der: bytes = b""
    serial: int | None = None
    signer: SignerCertificate | None = None
    transaction_id: str = ""
    client_certificate: bytes | None = field(default=None, repr=False)
    """The TLS client's certificate, DER."""


@dataclass(frozen=True, slots=True)
class RenewalWindowRequest:
    """Asks when a certificate should be renewed, which is told to everybody who can name it (RFC 9773 §4.1)."""

    profile: ProfileName
    protocol: Protocol
    operation: str
    authority_key_id: bytes
    serial: int
    source: str
    transaction_id: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A confirmation or a revocation is on record."""

    request_id: RequestId | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What was looked up, DER; CA certificates come issuing CA first."""

    ders: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """When a certificate should be renewed: at some moment from `start` to `end`, at once where that is past (RFC 9773 §4.2)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Prechecked:
    """Every rule's verdict on the names."""

    verdicts: tuple[Verdict, ...]

    @property
    def violations(self) -> tuple[Verdict, ...]:
        """The broken rules that are enforced; empty when the names could be certified."""
        return tuple(v for v in self.verdicts if not v.passed and v.mode == "enforce")


AcknowledgeOutcome = Acknowledged | Rejected | Unavailable
LookUpOutcome = Found | Rejected | Unavailable
RenewalWindowOutcome = RenewalWindow | Rejected | Unavailable
PrecheckOutcome = Prechecked | Rejected | Unavailable
AnyOutcome = Outcome | Acknowledged | Found | RenewalWindow | Prechecked
