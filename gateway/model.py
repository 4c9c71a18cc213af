"""The vocabulary that every room speaks: requests, requesters, grants and outcomes, frozen."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, NewType

from gateway.errors import Reason

ProfileName = NewType("ProfileName", str)
UpstreamCAName = NewType("UpstreamCAName", str)
RequestId = NewType("RequestId", str)
"""Identifies one ledger row: 26 characters, sortable by time (ULID)."""

UNLIMITED_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""No well-defined expiration date (RFC 5280 §4.1.2.5): 99991231235959Z."""


class Protocol(StrEnum):
    """The enrollment protocols, and ADMIN for an operator's own commands."""

    SCEP = "scep"
    EST = "est"
    ACME = "acme"
    CMP = "cmp"
    ADMIN = "admin"


class RequestForm(StrEnum):
    """What carries the public key and the wished names."""

    PKCS10 = "pkcs10"
    CRMF = "crmf"


class CredentialKind(StrEnum):
    """What proves who is asking; a kind that the profile does not name is refused."""

    STATIC = "static"
    ONE_TIME = "one_time"
    INTUNE_JWS = "intune_jws"
    CERTIFICATE = "certificate"
    """A certificate that is renewed."""
    TLS_CERTIFICATE = "tls_certificate"
    RA_CERTIFICATE = "ra_certificate"
    """The certificate of a registration authority that asks for others (id-kp-cmcRA, RFC 6402 §2.10)."""
    BASIC = "basic"
    DIGEST = "digest"
    BEARER = "bearer"
    ALL_OF = "all_of"
    CMP_SECRET = "cmp_secret"  # noqa: S105 - the name of a kind
    """A shared secret that protects CMP messages, by its reference number (RFC 9810 §5.1.3.1)."""
    VENDOR_CERTIFICATE = "vendor_certificate"
    """A certificate that the maker gave the device, which signs its first CMP request (3GPP TS 33.310)."""
    ACME_ORDER = "acme_order"
    """An order whose every identifier was authorized for its account (RFC 8555 §7.1.3)."""
    ADMIN = "admin"


class SanKind(StrEnum):
    """A subjectAltName by the type that policy judges (RFC 5280 §4.2.1.6)."""

    DNS = "dns"
    IP = "ip"
    EMAIL = "email"
    URI = "uri"
    UPN = "upn"
    """otherName 1.3.6.1.4.1.311.20.2.3."""
    SID = "sid"
    """URI tag:microsoft.com,2022-09-14:sid:<SID> (KB5014754); `value` is the bare SID."""
    DIRECTORY_NAME = "directory_name"
    PERMANENT_IDENTIFIER = "permanent_identifier"
    """otherName 1.3.6.1.5.5.7.8.3 (RFC 4043); `value` is its identifierValue, and where it has one `/` and the assigner's OID."""
    HARDWARE_MODULE = "hardware_module"
    """otherName 1.3.6.1.5.5.7.8.4 (RFC 4108 §5); `value` is its hwSerialNum, text, `/` and the OID of its hwType."""
    OTHER = "other"
    """Any GeneralName above that has no kind of its own."""


class RevocationReason(Enum):
    """CRLReason (RFC 5280 §5.3.1); the value is its code."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10


@dataclass(frozen=True, slots=True)
class NameAttribute:
    """One AttributeTypeAndValue; `tag` is the universal tag of its string type (12 is UTF8String)."""

    oid: str
    value: str
    tag: int = 12


@dataclass(frozen=True, slots=True)
class Name:
    """A distinguished name; `der` is its encoding as received, which equality ignores."""

    rdns: tuple[tuple[NameAttribute, ...], ...]
    der: bytes = field(compare=False, repr=False)

    def values(self, oid: str) -> tuple[str, ...]:
        """Return the values of every attribute of type `oid`, in order."""
        return tuple([a.value for rdn in self.rdns for a in rdn if a.oid == oid])


@dataclass(frozen=True, slots=True)
class SubjectAltName:
    """One GeneralName: its kind, its text for policy and logs, and its DER as it goes into a certificate."""

    kind: SanKind
    value: str
    der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Extension:
    """One X.509 extension; `value` is the content of extnValue."""

    oid: str
    critical: bool
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A SubjectPublicKeyInfo and what policy asks about it.

    `algorithm` is one of `rsa`, `ec`, `ed25519`, `ed448`, `ml-dsa-44`, `ml-dsa-65`, `ml-dsa-87` or
    `unknown`; `bits` the modulus or field size; `curve` is `P-256`, `P-384`, `P-521` or another name for EC.
    `sha256` is the SHA-256 of `der`, the whole SubjectPublicKeyInfo.
    """

    der: bytes = field(repr=False)
    sha256: bytes
    algorithm: str
    bits: int
    curve: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statement of a device about the key of its request (draft-ietf-lamps-csr-attestation).

    `type` is its OID, `statement` the value, DER; `certificates` those that came in the same bundle, DER.
    """

    type: str
    statement: bytes = field(repr=False)
    certificates: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a PKCS#10 (RFC 2986) or a CRMF CertRequest (RFC 4211) asks for, parsed once, its signature verified.

    `digest` is the SHA-256 of the CertificationRequestInfo without attributes that link proof of possession to
    a connection. `key_usage` holds RFC 5280 bit names (`digitalSignature`), `ekus` dotted OIDs; both None when not
    asked for. `extensions` are all other requested extensions (not SAN, KU, EKU, basicConstraints).
    """

    form: RequestForm
    der: bytes = field(repr=False)
    digest: bytes
    subject: Name
    public_key: PublicKey
    sans: tuple[SubjectAltName, ...] = ()
    key_usage: frozenset[str] | None = None
    ekus: tuple[str, ...] | None = None
    is_ca: bool = False
    extensions: tuple[Extension, ...] = ()
    challenge_password: str | None = field(default=None, repr=False)
    signature_digest: str = "sha256"
    """Digest of the request's own signature: `sha256`, `sha1`, … or `none` for Ed25519 and ML-DSA."""
    evidence: tuple[Evidence, ...] = ()
    """What the device says of its key; nothing of it is verified."""


@dataclass(frozen=True, slots=True)
class SignerCertificate:
    """The certificate that signed the message (SCEP, CMP) or the TLS client's (EST)."""

    der: bytes = field(repr=False)
    sha256: bytes
    issuer_der: bytes = field(repr=False)
    serial: int
    subject: Name
    sans: tuple[SubjectAltName, ...]
    public_key: PublicKey
    not_before: datetime
    not_after: datetime
    self_signed: bool


@dataclass(frozen=True, slots=True)
class Linking:
    """What ties a request to its TLS connection (RFC 7030 §3.5).

    `presented` is the text that the request brought for it, None for none; `expected` is base64 of the connection's tls-unique
    (RFC 5929 §3), None where there is none, and `unavailable` then says in plain words why.
    """

    presented: str | None = field(default=None, repr=False)
    expected: str | None = field(default=None, repr=False)
    unavailable: str = ""


class IdentifierType(StrEnum):
    """What an ACME order may name (RFC 8555 §9.7.7, RFC 8738, draft-ietf-acme-device-attest §3)."""

    DNS = "dns"
    IP = "ip"
    PERMANENT_IDENTIFIER = "permanent-identifier"
    HARDWARE_MODULE = "hardware-module"


class ChallengeType(StrEnum):
    """How control of an identifier is proved (RFC 8555 §8)."""

    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"
    DNS_ACCOUNT_01 = "dns-account-01"
    DNS_PERSIST_01 = "dns-persist-01"
    DEVICE_ATTEST_01 = "device-attest-01"


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """One name of an order, as it is compared: DNS names as lower-case A-labels without a final dot (a wildcard keeps its `*.`),
    IP addresses in their canonical text (RFC 5952)."""

    type: IdentifierType
    value: str

    @property
    def wildcard(self) -> bool:
        """Whether it stands for every name one label below."""
        return self.type is IdentifierType.DNS and self.value.startswith("*.")


@dataclass(frozen=True, slots=True)
class OrderProof:
    """What an ACME order proves: its account was authorized for each of `identifiers`.

    `attested_key` is the SHA-256 of the SubjectPublicKeyInfo that a device attested, which alone may be certified; `claims` is
    what the attestation said beside it. `max_validity` and `key_types` (`rsa`, `ec`, `P-256`, `ed25519`, …) are bounds of the
    external account, `owner` is whose it is; None: none.
    """

    account: str
    identifiers: frozenset[Identifier]
    external_account: str | None = None
    attested_key: bytes | None = None
    max_validity: timedelta | None = None
    key_types: frozenset[str] | None = None
    owner: str | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class SecretProof:
    """The shared secret that protected a message, as it was made; `max_uses` are certificates."""

    id: str
    binding: NameBinding
    owner: str | None
    max_uses: int
    expires_at: datetime
    created_at: datetime
    profile: ProfileName


@dataclass(frozen=True, slots=True)
class MessageProof:
    """What the protection of one CMP message proved (RFC 9810 §5.1.3), and what it says of its request's proof of possession.

    `secret` None: the key of `EnrollmentRequest.signer` protected it, with `chain` beside its certificate, DER. `transaction` is
    32 bytes that no other transaction of this sender at this profile has.
    """

    secret: SecretProof | None
    transaction: bytes
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    possession_verified: bool = True
    """False: the request does not prove possession itself, which a registration authority alone may vouch for."""
    confirm_by: datetime | None = None
    """When the client must have confirmed its certificate; None: it need not (implicitConfirm)."""
    kept_until: datetime | None = None
    """Until when its transaction serves no other request; None: without end, as where nothing says when the message was made."""
    updates: SignerCertificate | None = None
    """The certificate that a registration authority updates for its holder; None: the signer's own, where one is updated."""


@dataclass(frozen=True, slots=True)
class AskedValidity:
    """The times that a client asked for; None: it did not say. Policy bounds them, and refuses rather than ignores.

    `asked_at` is when it asked, where that was before the request: what began a little in the past then may do so now.
    """

    not_before: datetime | None = None
    not_after: datetime | None = None
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """One request for one certificate, whatever protocol it came in by.

    `operation` is the protocol's own message or body type (`PKCSReq`, `RenewalReq`, `simpleenroll`, `ir`).
    `challenge` is the shared secret that came with the request, wherever the protocol carries it.
    """

    profile: ProfileName
    protocol: Protocol
    operation: str
    transaction_id: str
    csr: CertificateRequest
    challenge: str | None = field(repr=False)
    signer: SignerCertificate | None
    source: str
    is_renewal: bool = False
    """The protocol's own word that this is a renewal; the profile's `renewal` rule must then allow it."""
    client_certificate: bytes | None = field(default=None, repr=False)
    """The certificate, DER, that the TLS client proved to hold the key of; nothing else about it is checked yet."""
    client_chain: tuple[bytes, ...] = field(default=(), repr=False)
    """What the TLS client sent beside it, DER; it helps to find a path and proves nothing."""
    authorization: str | None = field(default=None, repr=False)
    """The HTTP Authorization header (RFC 9110 §11.6.2)."""
    linking: Linking | None = None
    """None where the protocol has no such thing."""
    order: OrderProof | None = None
    """What an ACME order proves; nothing but the state machine of orders makes one."""
    proof: MessageProof | None = None
    """What the protection of a CMP message proved; nothing but the state machine of CMP makes one."""
    validity: AskedValidity | None = None
    """The times that were asked for, where the protocol can."""

    @property
    def requester_key(self) -> bytes:
        """SHA-256 of the public key that signed the message, else of the key to be certified; of a shared secret, of its name."""
        if self.proof is not None and self.proof.secret is not None:
            return secret_key_of(self.proof.secret.id)
        return self.signer.public_key.sha256 if self.signer else self.csr.public_key.sha256


@dataclass(frozen=True, slots=True)
class Reservation:
    """Something that serves once: a one-time challenge or a nonce, taken in the transaction that opens the ledger row."""

    kind: str
    key: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `count` certificates in any `window` for whatever `key` names; counted when the ledger row is opened."""

    key: str
    count: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class NameBinding:
    """Names that a credential was issued for; None leaves a field unbound (VU#971035)."""

    subject: str | None = None
    """RFC 4514 string that the requested subject must equal."""
    sans: frozenset[tuple[SanKind, str]] | None = None
    """The exact set of requested subject alternative names."""
    common_name: str | None = None
    """The one CN that the requested subject must have, to the letter; empty: it must have none."""
    san_kinds: frozenset[SanKind] | None = None
    """The kinds of names that `sans` speaks for; None: all of them."""
    serial_number: str | None = None
    """The one serialNumber that the requested subject must have, to the letter."""
    allowed_sans: frozenset[tuple[SanKind, str]] | None = None
    """The only subject alternative names that may be requested, any number of them; None: whichever policy lets through."""
    device: str | None = None
    """What the subject to be certified must have as its one CN or its one serialNumber, to the letter; needs `certified`."""
    certified: bool = False
    """Common name, serialNumber and `allowed_sans` bind what will be certified, too, whatever a template makes of the request."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who is asking, as an authenticated credential says.

    `identity` is stable and not secret: `one_time:<challenge id>`, `static:<profile>`, `certificate:<sha256>`.
    `vouches_for_sid` lets SID names through policy. `reservations` and `allowances` are taken when the ledger row is opened.
    """

    identity: str
    kind: CredentialKind
    binding: NameBinding = NameBinding()
    owner: str | None = None
    vouches_for_sid: bool = False
    reservations: tuple[Reservation, ...] = ()
    allowances: tuple[Allowance, ...] = ()
    device: str | None = None
    """What the credential calls the device, for limits; None: the device is known by the names that it asks for."""
    renews: bytes | None = None
    """SHA-256 of the certificate that this request renews."""
    factors: frozenset[CredentialKind] = frozenset()
    """What it was proved by where several credentials had to be good (ALL_OF)."""
    also_bound: tuple[NameBinding, ...] = ()
    """What the others of several credentials bind, each for itself."""
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    attested: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the device said of the key of its request, verified (draft-ietf-lamps-csr-attestation)."""

    def proved_by(self, *kinds: CredentialKind) -> bool:
        """Say whether one of these kinds is what it was proved by, alone or with others."""
        return self.kind in kinds or not self.factors.isdisjoint(kinds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy rule says: `mode` is `enforce`, `warn` or `off`; `field` is the configuration field that decided."""

    rule: str
    mode: str
    passed: bool
    message: str
    reason: Reason
    field: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What will be certified, decided before anything is sent: it judges whatever the upstream CA returns."""

    subject_der: bytes
    sans: tuple[SubjectAltName, ...]
    key_usage: tuple[str, ...]
    ekus: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    extensions: tuple[Extension, ...] = ()
    modified: bool = False
    """Differs from what was asked for in names or usages (CMP grantedWithMods)."""

    def to_json(self) -> str:
        """Serialise for the ledger; `from_json` reverses it."""
        return _to_json(
            {
                "subject": _b64(self.subject_der),
                "sans": [[s.kind.value, s.value, _b64(s.der)] for s in self.sans],
                "key_usage": self.key_usage,
                "ekus": self.ekus,
                "not_before": int(self.not_before.timestamp()),
                "not_after": int(self.not_after.timestamp()),
                "extensions": [[e.oid, e.critical, _b64(e.value)] for e in self.extensions],
                "modified": self.modified,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Grant:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(
            subject_der=base64.b64decode(raw["subject"]),
            sans=tuple(SubjectAltName(SanKind(k), v, base64.b64decode(d)) for k, v, d in raw["sans"]),
            key_usage=tuple(raw["key_usage"]),
            ekus=tuple(raw["ekus"]),
            not_before=datetime.fromtimestamp(raw["not_before"], UTC),
            not_after=datetime.fromtimestamp(raw["not_after"], UTC),
            extensions=tuple(Extension(o, c, base64.b64decode(v)) for o, c, v in raw["extensions"]),
            modified=raw["modified"],
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Every rule's verdict, and the grant where no enforced rule was broken."""

    verdicts: tuple[Verdict, ...]
    grant: Grant | None

    @property
    def violations(self) -> tuple[Verdict, ...]:
        """The broken rules that are enforced."""
        return tuple([v for v in self.verdicts if not v.passed and v.mode == "enforce"])

    @property
    def warnings(self) -> tuple[Verdict, ...]:
        """The broken rules that only warn."""
        return tuple([v for v in self.verdicts if not v.passed and v.mode == "warn"])


@dataclass(frozen=True, slots=True)
class Remarks:
    """What the log says of an outcome and its client is not told; never a secret."""

    requester: str = ""
    """Who was authenticated; empty where nobody was."""
    cause: str = ""
    """Why it was refused, where that is more than the public detail."""
    warnings: str = ""
    """The rules that the grant breaks and that only warn."""
    counted: bool = False
    """It has no audit row of its own: whoever serves the endpoint counts it by reason, profile and minute."""
    label: str = ""
    """What became of a signed challenge, in its own closed vocabulary (`success`, `replay` …); empty where there was none."""


_NO_REMARKS = Remarks()


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate and the chain above it, issuing CA first, all DER."""

    certificate: bytes
    chain: tuple[bytes, ...]
    request_id: RequestId
    modified: bool = False
    remarks: Remarks = field(default=_NO_REMARKS, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IssuedWithKey:
    """A certificate and the private key that was drawn for it, PKCS#8 DER; the key exists here and nowhere else."""

    issued: Issued
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Accepted and not finished; ask again after `retry_after` seconds."""

    request_id: RequestId
    retry_after: int
    remarks: Remarks = field(default=_NO_REMARKS, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused for good; `detail` is public text that may go to the client."""

    reason: Reason
    detail: str
    remarks: Remarks = field(default=_NO_REMARKS, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nothing was decided; the same request may succeed after `retry_after` seconds."""

    reason: Reason
    retry_after: int
    remarks: Remarks = field(default=_NO_REMARKS, compare=False, repr=False)


Outcome = Issued | Pending | Rejected | Unavailable
KeyOutcome = IssuedWithKey | Rejected | Unavailable
"""Of a request for a server-made key, which is never held back."""


def secret_key_of(id: str) -> bytes:
    """Return the 32 bytes that stand for the requester's key where a shared secret proved the request."""
    return hashlib.sha256(f"cmp_secret:{id}".encode()).digest()


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
