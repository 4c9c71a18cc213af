"""What a worker looks up for its gauges now and then, so that no request has to keep them."""

from __future__ import annotations

from gateway.assemble import Gateway
from gateway.metrics import worker as metrics
from gateway.metrics.registry import AcmeWork, Waiting
from gateway.model import CredentialKind, UpstreamCAName
from gateway.ra.credentials import cmp_secret, intune_jws, one_time
from gateway.ra.credentials.challenge_labels import ChallengeLabel
from gateway.ra.profile import Profile
from gateway.supervise.endpoints import Endpoints

LOAD_SECONDS = 1.0
STORE_SECONDS = 30.0
_RESERVED = (one_time.RESERVATION_KIND, intune_jws.RESERVATION_KIND, cmp_secret.RESERVATION_KIND)
"""Kinds of what is forgotten again; reservations of renewals stay as long as the inventory."""


class Gauges:
    """Keeps one worker's gauges, and the series of every profile in force."""

    def __init__(self, gateway: Gateway, endpoints: Endpoints) -> None:
        self._gateway = gateway
        self._endpoints = endpoints
        self._opened = 0
        self._cas: set[UpstreamCAName] = set()

    async def note_load(self) -> None:
        """Set what changes with every request; begin the series of profiles that a reload has brought."""
        load = self._endpoints.load
        metrics.set_load(load.in_flight, load.connections)
        generation = self._gateway.generation
        if generation.number != self._opened:
            self._opened = generation.number
            for profile in generation.snapshot.profiles.values():
                _open_series(profile)

    async def note_store(self) -> None:
        """Set what the store counts and when the published CRLs end. Raises StoreUnavailable."""
        tally = await self._gateway.store.tally(_RESERVED)
        metrics.set_pending(
            {
                Waiting.APPROVAL: tally.approval,
                Waiting.UPSTREAM: tally.upstream,
                Waiting.QUEUE: tally.queue,
                Waiting.DOUBT: tally.doubt,
                Waiting.CONFIRMATION: tally.confirmation,
            }
        )
        # A CA that was named once keeps its series: what is told in the end must be seen to be nought.
        self._cas |= self._gateway.generation.snapshot.upstream_cas.keys() | tally.revocations.keys()
        metrics.set_pending_revocations({ca: tally.revocations.get(ca, 0) for ca in self._cas})
        metrics.set_reservations(tally.reserved)
        metrics.set_acme_unfinished(
            {
                AcmeWork.ORDER: tally.acme_orders,
                AcmeWork.FINALIZATION: tally.acme_finalizations,
                AcmeWork.CHALLENGE: tally.acme_challenges,
            }
        )
        for publication in self._gateway.generation.publications.values():
            crl = await publication.crl.current() if publication.crl is not None else None
            if crl is not None:
                metrics.set_crl_next_update(publication.name, crl.next_update)


def _open_series(profile: Profile) -> None:
    signed = any(provider.kind is CredentialKind.INTUNE_JWS for provider in profile.credentials)
    for protocol in profile.endpoints:
        metrics.open_profile(protocol, profile.name, ChallengeLabel if signed else ())
