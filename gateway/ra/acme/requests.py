"""What ACME's endpoint asks of its state machines, and how they refuse it; frozen (RFC 8555 §7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from gateway.acme import CertificateIdentifier
from gateway.errors import Reason, Rejection
from gateway.model import Identifier


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A public key that signed a JWS: its thumbprint (RFC 7638, base64url) and its JWK, canonical JSON."""

    thumbprint: str
    jwk: str


@dataclass(frozen=True, slots=True)
class ExternalBinding:
    """An external account binding, its inner JWS taken apart and all of it judged but the MAC (RFC 8555 §7.3.4).

    Whoever makes one has seen that its `url` is the request's, that it has no nonce and that its payload is the account's key.
    `algorithm` is `HS256`, `HS384` or `HS512`; `signed` is the JWS Signing Input; `text` the JWS as it came, JSON.
    """

    kid: str
    algorithm: str
    signed: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """newAccount (RFC 8555 §7.3); `contact` as it came, not judged yet."""

    key: AccountKey
    source: str
    contact: tuple[str, ...] = ()
    terms_agreed: bool = False
    only_existing: bool = False
    binding: ExternalBinding | None = None


@dataclass(frozen=True, slots=True)
class AccountUpdate:
    """What a client changes of its account (RFC 8555 §7.3.2, §7.3.3); None leaves it as it is, an empty contact takes it away."""

    source: str
    contact: tuple[str, ...] | None = None
    terms_agreed: bool = False


@dataclass(frozen=True, slots=True)
class KeyChange:
    """keyChange, its inner JWS verified with the new key (RFC 8555 §7.3.5).

    `old_thumbprint` is that of the inner payload's `oldKey`; the endpoint has compared its `account` with the outer `kid`.
    """

    key: AccountKey
    old_thumbprint: str
    source: str


@dataclass(frozen=True, slots=True)
class AskedIdentifier:
    """An identifier as it was asked for, bounded and not judged yet; `ancestor` is its `ancestorDomain` (RFC 9444 §4.1)."""

    type: str
    value: str
    ancestor: str | None = None


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """newOrder (RFC 8555 §7.4, RFC 9773 §5, draft-ietf-acme-profiles)."""

    identifiers: tuple[AskedIdentifier, ...]
    source: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    profile: str | None = None
    replaces: CertificateIdentifier | None = None


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """newAuthz (RFC 8555 §7.4.1); `subdomains` is `subdomainAuthAllowed` (RFC 9444 §4.2)."""

    identifier: AskedIdentifier
    source: str
    subdomains: bool = False


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """What a client sent to a challenge (RFC 8555 §7.5.1); `payload` is its JSON object, bounded."""

    authorization: str
    challenge: str
    source: str
    payload: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@dataclass(frozen=True, slots=True)
class Revocation:
    """revokeCert (RFC 8555 §7.6); `certificate` is DER, `reason` the CRLReason as it came.

    Signed by the certificate's own key, `signer_key` is the SHA-256 of that key's SubjectPublicKeyInfo.
    """

    certificate: bytes = field(repr=False)
    source: str
    reason: int | None = None
    signer_key: bytes | None = None


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


@dataclass(frozen=True, slots=True)
class AcmeTiming:
    """How long the state machines wait and keep what is theirs; seconds where they are floats."""

    lease: timedelta = timedelta(seconds=60)
    """How long an order that is finalized, or a challenge that is tried, stays ours without being renewed."""
    poll_wait: float = 12.0
    """How long a read of an order that is processing waits for its end."""
    look_every: float = 0.25
    """First pause between two looks at an order that another worker finalizes; it doubles up to two seconds."""
    retry: int = 5
    """Retry-After of what is under way."""
    longest_retry: int = 600
    """Longest Retry-After of an order that waits, for a person or for a CA that is down."""
    request_wait: float = 20.0
    """How long one request waits in all; below what clients and proxies wait."""


class IdentifiersRejected(Rejection):
    """Identifiers that may not be ordered, each with its own reason and public detail (RFC 8555 §6.7.1)."""

    def __init__(self, reason: Reason, detail: str, identifiers: tuple[tuple[Identifier, Reason, str], ...]) -> None:
        super().__init__(reason, detail, "; ".join(f"{i.type} {i.value}: {text}" for i, _, text in identifiers) or detail)
        self.identifiers = identifiers


class RateLimited(Rejection):
    """A quota is full; it has room again after `retry_after` seconds at the latest (RFC 8555 §6.6)."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(Reason.RATE_LIMITED, detail)
        self.retry_after = retry_after


class KeyInUse(Rejection):
    """The key belongs to another account already, which is named (RFC 8555 §7.3.5)."""

    def __init__(self, account: str) -> None:
        super().__init__(Reason.ACCOUNT_KEY_IN_USE, "this key belongs to another account already")
        self.account = account


class Busy(Exception):
    """Nothing was decided: the same request may succeed after `retry_after` seconds; never a 4xx."""

    def __init__(self, reason: Reason, retry_after: int) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.retry_after = retry_after
