"""The vocabulary of ACME's objects, frozen: accounts, external accounts, orders, authorizations, challenges (RFC 8555 §7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from gateway.errors import Reason, Rejection
from gateway.model import ChallengeType, Identifier, ProfileName, RequestId, RevocationReason


class AccountStatus(StrEnum):
    """RFC 8555 §7.1.6; `revoked` is the operator's."""

    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class OrderStatus(StrEnum):
    """pending → ready → processing → valid, or invalid (RFC 8555 §7.1.6)."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """pending → valid → deactivated, or invalid (RFC 8555 §7.1.6); that it expired is read from its `expires_at`."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    """pending → processing → valid or invalid (RFC 8555 §7.1.6)."""

    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an order or a challenge failed; public text."""

    reason: Reason
    detail: str
    identifiers: tuple[tuple[Identifier, Reason, str], ...] = ()
    """What is wrong with single identifiers (RFC 8555 §6.7.1)."""


@dataclass(frozen=True, slots=True)
class ExternalAccountPolicy:
    """What accounts bound to an external account may ask for; None and empty bound nothing but what the profile does.

    `dns` are patterns as in the configuration file, which a wildcard has to match with its `*.`; `ip` are networks. With either,
    a name of the other type is refused.
    """

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    wildcards: bool = True
    key_types: frozenset[str] | None = None
    challenges: frozenset[ChallengeType] | None = None
    mode: str | None = None
    """A trust mode in place of the profile's (`config.acme.TrustMode`)."""
    max_validity: timedelta | None = None
    max_identifiers: int | None = None
    max_accounts: int | None = 1
    """Accounts that may be bound; None: any number."""
    max_certificates: int | None = None
    """Certificates, all its accounts together; 1 is one-shot."""


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """A key that binds ACME accounts to somebody whom the operator knows (RFC 8555 §7.3.4); stored sealed."""

    kid: str
    profile: ProfileName
    key: bytes = field(repr=False)
    policy: ExternalAccountPolicy
    owner: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    accounts: int = 0
    """How many accounts are bound."""
    certificates: int = 0
    """How many orders were or are being finalized."""


@dataclass(frozen=True, slots=True)
class Account:
    """One ACME account; (`profile`, `thumbprint`) is unique, whatever its status. `jwk` is canonical JSON (RFC 7638)."""

    id: str
    profile: ProfileName
    status: AccountStatus
    thumbprint: str
    jwk: str
    contact: tuple[str, ...]
    terms: str | None
    """The terms of service that it agreed to."""
    external_account: str | None
    binding: str | None
    """The verified external account binding as it came, JSON, for the account object."""
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of an authorization; `token` is base64url of 128 random bits, empty for dns-persist-01."""

    id: str
    type: ChallengeType
    token: str
    status: ChallengeStatus = ChallengeStatus.PENDING
    validated_at: datetime | None = None
    error: Problem | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """Whether an account may have a name: `identifier` without `*.`, `wildcard` for those one label below it.

    At most one challenge is being tried: `trying` is its ID, held by `worker` until `lease_until`, the next attempt at `next_at`.
    """

    id: str
    account: str
    profile: ProfileName
    identifier: Identifier
    wildcard: bool
    subdomains: bool
    status: AuthorizationStatus
    challenges: tuple[Challenge, ...]
    created_at: datetime
    expires_at: datetime
    trying: str | None = None
    attempts: int = 0
    next_at: datetime | None = None
    worker: str = ""
    lease_until: datetime | None = None
    source: str = ""
    """The address that the account asked from."""
    payload: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """What the client sent with the challenge that is tried; stored sealed."""
    attested_key: bytes | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    caa_checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `directory` is the profile of its account, `profile` the one whose policy and CA count.

    `asked_profile` is echoed. `csr` is DER, stored sealed, from `processing` on; `certificate` the SHA-256 of the leaf.
    `worker` and `lease_until` say who finalizes it, `next_at` when somebody else may try again.
    """

    id: str
    account: str
    directory: ProfileName
    profile: ProfileName
    asked_profile: str | None
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    replaces: str | None
    """The certificate identifier that the client named (RFC 9773 §5), echoed."""
    replaces_sha256: bytes | None
    created_at: datetime
    expires_at: datetime
    error: Problem | None = None
    csr: bytes | None = field(default=None, repr=False)
    csr_sha256: bytes | None = None
    public_key_sha256: bytes | None = None
    request_id: RequestId | None = None
    certificate: bytes | None = None
    source: str = ""
    worker: str = ""
    lease_until: datetime | None = None
    next_at: datetime | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """Certificates that should be replaced at once, and where that is explained (RFC 9773 §4.2)."""

    id: str
    explanation_url: str | None
    created_at: datetime
    created_by: str
    certificates: int = 0


# What a client asks for


class IdentifiersRejected(Rejection):
    """Single names are refused, each for a reason of its own: `problems` are (name, reason, public text) (RFC 8555 §6.7.1)."""

    def __init__(
        self, reason: Reason, detail: str, problems: tuple[tuple[Identifier, Reason, str], ...], cause: str = ""
    ) -> None:
        super().__init__(reason, detail, cause)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class CertificateId:
    """A certificate by its issuer's key identifier and its serial number; `text` as it came (RFC 9773 §4.1)."""

    text: str
    authority_key_id: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class ExternalBinding:
    """An external account binding, taken apart; that it is for the account's key and this URL has been checked, its MAC has not.

    `text` is the JWS as it came, compact JSON (RFC 8555 §7.3.4). `pki.jws.verify_mac` checks `mac` over `signing_input`.
    """

    kid: str
    algorithm: str
    signing_input: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """newAccount (RFC 8555 §7.3): `jwk` is the canonical JSON of the key that signed it, `thumbprint` its name (RFC 7638)."""

    jwk: str = field(repr=False)
    thumbprint: str
    contact: tuple[str, ...]
    terms_agreed: bool
    only_existing: bool
    binding: ExternalBinding | None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """An update of an account (RFC 8555 §7.3.2, §7.3.6); None: the contact stays as it is."""

    contact: tuple[str, ...] | None = None
    terms_agreed: bool = False
    deactivate: bool = False

    @property
    def empty(self) -> bool:
        """Whether it changes nothing, like a read."""
        return self == AccountChange()


@dataclass(frozen=True, slots=True)
class KeyChange:
    """keyChange (RFC 8555 §7.3.5), both of whose signatures are good; that `account_url` and the old key are the account's is not
    said: `old_thumbprint` is what the request calls the old key."""

    account_url: str
    old_thumbprint: str
    jwk: str = field(repr=False)
    thumbprint: str


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """newOrder (RFC 8555 §7.4): names without repetition, in their comparable form.

    `ancestors` are the domains that the client would rather prove, by name (RFC 9444 §4.2).
    """

    identifiers: tuple[Identifier, ...]
    not_before: datetime | None = None
    not_after: datetime | None = None
    replaces: CertificateId | None = None
    profile: str | None = None
    ancestors: Mapping[Identifier, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """newAuthz (RFC 8555 §7.4.1); `subdomains`: it shall stand for names below it, too (RFC 9444 §4.1)."""

    identifier: Identifier
    subdomains: bool = False


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """revokeCert (RFC 8555 §7.6): `certificate` is DER, not parsed yet."""

    certificate: bytes = field(repr=False)
    reason: RevocationReason = RevocationReason.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class OrderPage:
    """IDs of orders, newest first; `after` is the cursor of the next page, None where this is the last (RFC 8555 §7.1.2.1)."""

    orders: tuple[str, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When to renew (RFC 9773 §4.2): `start` is before `end`; `retry_after` in seconds."""

    start: datetime
    end: datetime
    explanation_url: str | None
    retry_after: int
