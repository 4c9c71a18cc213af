"""EST operations that ask for a certificate: how each reads its body, asks for it and spells the answer (RFC 7030 §4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway.model import CertificateRequest, EnrollmentRequest, IssuedWithKey, Outcome
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.web.generation import EstService

EstAnswer = Outcome | IssuedWithKey


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for.

    RFC 7894 has one attribute to prove who asks and one to tie a request to its connection; the challengePassword of RFC 7030
    may be either, which is judged later. `details` are the operation's own.
    """

    csr: CertificateRequest
    otp_challenge: str | None = field(default=None, repr=False)
    """otpChallenge (RFC 7894 §3.1)."""
    identity_linking: str | None = field(default=None, repr=False)
    """estIdentityLinking (RFC 7894 §3.3); a challengePassword is in `csr`."""
    details: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EstBody:
    """What goes into an answer: its media type, parameters and all, and its octets, base64 as the client wants it."""

    media_type: str
    body: bytes = field(repr=False)
    status: int | None = None
    """None: what the answer has by itself, 200 where a certificate was issued, else as `wire.est.errors` says."""


class EstOperation(Protocol):
    """One operation; an instance serves all profiles, for the whole life of one worker."""

    @property
    def name(self) -> str:
        """Its name, in the path and in the ledger."""

    @property
    def media_types(self) -> frozenset[str]:
        """What Content-Type may say, without parameters, in lower case; everything else is answered with 415."""

    def is_offered(self, service: EstService) -> bool:
        """Whether this profile has it; where it has not, the answer is 404."""

    async def decode(self, service: EstService, body: bytes) -> Asked:
        """Read a body; raises Rejection, MalformedMessage for what cannot be read."""

    async def ask(
        self, authority: RegistrationAuthority, snapshot: Snapshot, request: EnrollmentRequest, asked: Asked
    ) -> EstAnswer:
        """Put the request to the registration authority."""

    async def encode(self, service: EstService, asked: Asked | None, answer: EstAnswer, *, wrap: bool) -> EstBody | None:
        """Spell an answer; None where HTTP alone says it (202, 503, a refusal as text). Without `asked`, `decode` refused."""
