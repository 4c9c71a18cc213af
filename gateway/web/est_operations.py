"""EST operations that ask for a certificate: how each reads its body, asks for it and spells the answer (RFC 7030 §4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import Rejection
from gateway.model import CertificateRequest, EnrollmentRequest, Issued, IssuedWithKey, Outcome
from gateway.pki.csr import EST_LINKING_ATTRIBUTES, EstAttributes, parse_csr, read_est_attributes
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.web.generation import EstService
from gateway.wire.est import messages

EstAnswer = Outcome | IssuedWithKey


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for.

    `attributes` are those of EST in the same request, `details` the operation's own.
    """

    csr: CertificateRequest
    attributes: EstAttributes
    details: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EstBody:
    """What goes into an answer: its media type, parameters and all, and its octets, base64 as the client wants it.

    The status is not its own: 200 where a certificate was issued, else as `wire.est.errors` says.
    """

    media_type: str
    body: bytes = field(repr=False)


class EstOperation(Protocol):
    """One operation; an instance serves all profiles, for the whole life of one worker."""

    @property
    def name(self) -> str:
        """Its name, in the path and in the ledger."""

    @property
    def media_type(self) -> str:
        """What Content-Type must say, as `wire.est.messages.is_media_type` compares it; else the answer is 415."""

    def is_offered(self, service: EstService) -> bool:
        """Whether this profile has it; where it has not, the answer is 404."""

    async def decode(self, service: EstService, body: bytes, client: bytes | None) -> Asked:
        """Read a body; `client` is the TLS client's certificate. Raises Rejection, MalformedMessage for what cannot be read."""

    async def ask(
        self, authority: RegistrationAuthority, snapshot: Snapshot, request: EnrollmentRequest, asked: Asked
    ) -> EstAnswer:
        """Put the request to the registration authority."""

    async def encode(self, service: EstService, asked: Asked | Rejection, answer: EstAnswer, *, wrap: bool) -> EstBody | None:
        """Spell an answer to what was asked, or to what `decode` refused; None where HTTP alone says it (202, 503, text)."""


class SimpleEnroll:
    """`simpleenroll` and `simplereenroll`: a PKCS#10, answered with the certificate alone (RFC 7030 §4.2)."""

    media_type = messages.MEDIA_PKCS10

    def __init__(self, name: str) -> None:
        self.name = name

    def is_offered(self, _service: EstService) -> bool:
        """Always: enrollment is what an EST server is for."""
        return True

    async def decode(self, _service: EstService, body: bytes, _client: bytes | None) -> Asked:
        """Read a PKCS#10 and verify its signature."""
        csr = parse_csr(messages.decode_request(body), linking=EST_LINKING_ATTRIBUTES)
        return Asked(csr, read_est_attributes(csr.der))

    async def ask(
        self, authority: RegistrationAuthority, snapshot: Snapshot, request: EnrollmentRequest, _asked: Asked
    ) -> EstAnswer:
        """Enroll."""
        return await authority.enroll(snapshot, request)

    async def encode(self, _service: EstService, _asked: Asked | Rejection, answer: EstAnswer, *, wrap: bool) -> EstBody | None:
        """Return the issued certificate without its chain, as clients expect (RFC 7030 §4.2.3)."""
        if not isinstance(answer, Issued):
            return None
        return EstBody(messages.MEDIA_CERTS_ONLY, messages.encode_certs_only((answer.certificate,), wrap))
