"""What the registration authority asks of an upstream CA, and the errors by which it learns what a failure means."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Flag, auto
from typing import Protocol, runtime_checkable

from gateway.model import Grant, ProfileName, RequestForm, RequestId, RevocationReason, UpstreamCAName


class Capability(Flag):
    """What a backend can do beyond `issue`."""

    NONE = 0
    FIND = auto()
    """`find` gives a definite answer about any earlier `issue`."""
    POLL = auto()
    REVOKE = auto()
    CRL = auto()
    CHOOSES_SERIAL = auto()
    """The registration authority draws the serial with `new_serial` and stores it before `issue`."""
    RENEWAL_HINT = auto()
    """`renewal_hint` says when the CA itself wants a certificate renewed (RFC 9773)."""
    REPEATABLE = auto()
    """The same request may be sent again after any doubt: the CA gives the same certificate, or its first sending is void."""
    CHOOSES_VALIDITY = auto()
    """The CA sets the dates by rules of its own: a certificate may end sooner than was granted, and begin up to a day earlier."""
    CHOOSES_COMMON_NAME = auto()
    """Of a subject the CA keeps at most the common name, and may write one of the names there, or nothing."""
    POLL_SENDS = auto()
    """`poll` sends the request itself once more (RFC 7030 §4.2.3): without an answer it leaves the same doubt as `issue`."""
    REVIVE = auto()
    """The CA takes a certificate off hold again (removeFromCRL, RFC 5280 §5.3.1)."""


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """One certificate to be issued; the same `request_id` never yields two.

    `request` is the PKCS#10 or CRMF DER as received, `public_key` the SubjectPublicKeyInfo DER, `timeout` the seconds
    that the caller will wait. `in_doubt_since` is set where an earlier sending has no answer: when the request began. `reference`
    is what the CA called it when it was pending last. `renews` is the certificate, DER, in place of which this one is asked for,
    where a CA that says when to renew issued it.
    """

    request_id: RequestId
    profile: ProfileName
    form: RequestForm
    request: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    grant: Grant
    serial: int | None
    timeout: float
    in_doubt_since: datetime | None = None
    reference: str | None = None
    renews: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamIssued:
    """What came back: leaf and chain (issuing CA first), DER; `reference` is the CA's own handle."""

    certificate: bytes
    chain: tuple[bytes, ...]
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamPending:
    """Accepted upstream; poll with `reference` after `retry_after` seconds."""

    reference: str
    retry_after: int


class UpstreamError(Exception):
    """Base of what a backend may raise; anything else that escapes it counts as `UnknownResult`."""


class UpstreamRejected(UpstreamError):
    """A definite refusal of this request: nothing was issued. The text is public."""


class NotSent(UpstreamError):
    """Nothing left for the CA, or it said that it did not process it: safe to send again."""

    def __init__(self, message: str, retry_after: int = 30) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthFailed(NotSent):
    """The CA does not take our credentials, so it processed nothing: an operator has to look."""


class Unavailable(NotSent):
    """The CA says that it cannot work now and processed nothing (503, sealed, standby)."""


class UnknownResult(UpstreamError):
    """The request may or may not have been processed: only `find` or an operator can tell."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One finding of `check`: `good` or not, in a sentence; `advice` says what to do where it is not."""

    subject: str
    good: bool
    finding: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class RenewalHint:
    """When the CA wants a certificate renewed, and in how many seconds that should be asked again."""

    start: datetime
    end: datetime
    retry_after: int
    explanation_url: str | None = None


class UpstreamCA(Protocol):
    """A backend. Every method but `new_serial` and `chain` may raise `UpstreamError`."""

    name: UpstreamCAName
    accepts: frozenset[RequestForm]
    queue: timedelta
    """How long requests and revocations wait for a CA that cannot be reached; 0 where clients are told so at once."""

    @property
    def capabilities(self) -> Capability:
        """What the backend can do; it may learn of the CA that it can do less."""

    async def start(self) -> None:
        """Check what can be checked without issuing; called once before the first use."""

    async def close(self) -> None:
        """Release what `start` took."""

    def new_serial(self) -> int | None:
        """Draw a serial where `CHOOSES_SERIAL`, else None."""

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Issue one certificate."""

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Ask about an earlier `UpstreamPending`."""

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Say what became of `request`; None means definitely never issued and never will be. Needs `FIND`."""

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke; already revoked is success. Needs `REVOKE`."""

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Take a certificate off hold; one that is in force already is success. Needs `REVIVE`."""

    def chain(self) -> tuple[bytes, ...]:
        """CA certificates, issuing CA first, root last, DER."""

    def not_after_limit(self, now: datetime) -> datetime | None:
        """The latest notAfter that this CA may put in a certificate, None when unknown."""

    async def crl(self) -> bytes | None:
        """The current CRL, DER, or None. Needs `CRL`."""

    async def health(self) -> None:
        """Ask cheaply, without credentials where that is possible, whether the CA works; raises `UpstreamError`."""

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        """Ask when a certificate, DER, should be renewed. Needs `RENEWAL_HINT`."""

    async def inspect(self, certificate: bytes) -> None:
        """Have a certificate that came back, DER, judged once more; raises Rejection UPSTREAM_MISMATCH, nothing else."""

    async def check(self) -> tuple[Trial, ...]:
        """Try connection, credentials, chain and, where the CA can, a dry run; issues nothing and never raises."""


@runtime_checkable
class Several(Protocol):
    """A backend of several CAs, each of which may have a request until one has answered."""

    def may_go_to(self, earlier: str | None) -> str:
        """Return the reference of a request that is about to be sent: it names who may have it, also of the `earlier` one."""


@runtime_checkable
class ChainTeller(Protocol):
    """A backend whose CA says which certificates it has: for whoever pins them, and never believed without being compared."""

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return what the CA says, DER, issuing CA first; raises `UpstreamError`."""
