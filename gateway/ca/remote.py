"""What all CAs beyond this machine answer in the same way: the pinned chain, and no to what a backend cannot do."""

from __future__ import annotations

from datetime import datetime

from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    RenewalHint,
    UnknownResult,
    UpstreamIssued,
    UpstreamPending,
)
from gateway.ca.setup import Setup
from gateway.errors import Rejection
from gateway.model import RequestForm, RevocationReason
from gateway.pki.certificate import parse_certificate


class RemoteBackend:
    """Base of backends beyond this machine; a subclass adds `issue`, `health`, `check` and what its `capabilities` say."""

    accepts = frozenset({RequestForm.PKCS10})
    capabilities = Capability.NONE

    def __init__(self, setup: Setup) -> None:
        self.name = setup.name
        self.queue = setup.queue
        self._chain = setup.chain
        self._certificates = tuple(map(parse_certificate, setup.chain))

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def new_serial(self) -> None:
        """Return None: the CA chooses."""
        return

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Raise UnknownResult: this backend has no pending requests."""
        raise UnknownResult(f"upstream CA {self.name} has no pending requests")

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Raise UnknownResult: this CA cannot be asked what it did."""
        raise UnknownResult(f"upstream CA {self.name} cannot be asked what it did")

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Raise UnknownResult: this CA takes no revocations from us."""
        raise UnknownResult(f"upstream CA {self.name} takes no revocations")

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Raise UnknownResult: this CA takes nothing off hold for us."""
        raise UnknownResult(f"upstream CA {self.name} takes no certificate off hold")

    def chain(self) -> tuple[bytes, ...]:
        """Return the pinned CA certificates, issuing CA first, DER."""
        return self._chain

    def not_after_limit(self, now: datetime) -> datetime | None:
        """Return the first notAfter in the chain: nothing issued can be verified beyond it."""
        return min(certificate.not_after for certificate in self._certificates)

    async def crl(self) -> bytes | None:
        """Return None: the CA publishes its own."""
        return None

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        """Return None: the CA says nothing of the kind."""
        return None

    async def inspect(self, certificate: bytes) -> None:
        """Do nothing: what came back has been judged."""

    def complete(self, chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return what came with a leaf, DER, led up to the pinned root; `verify_issued` judges whether it holds.

        A CA may give no chain (the pinned one is meant) or one that ends below a pinned certificate. Raises UnknownResult.
        """
        if not chain:
            return self._chain
        if chain[-1] in self._chain:
            return chain + self._chain[self._chain.index(chain[-1]) + 1 :]
        try:
            issuer = parse_certificate(chain[-1]).issuer_der
        except Rejection as error:
            raise UnknownResult(f"upstream CA {self.name} gave a chain that cannot be read") from error
        subjects = [certificate.subject.der for certificate in self._certificates]
        above = subjects.index(issuer) if issuer in subjects else len(subjects)
        return chain + self._chain[above:]
