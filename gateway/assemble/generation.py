"""Builds one configuration generation: profiles with their credentials and CAs, RA identities, publications."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gateway.assemble.identities import Identities, establish, prove_identity
from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import LocalCA
from gateway.config.load import Sources, locate
from gateway.config.schema import GatewayConfig, OneTimeCredential, ProfileConfig, QuotaConfig, StaticCredential
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.config.view import redact
from gateway.errors import ConfigurationError
from gateway.model import ProfileName, Protocol, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.cms import certs_only
from gateway.pki.names import normalize_name
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.credentials.one_time import OneTimeCredential as OneTimeProvider
from gateway.ra.credentials.static import StaticCredential as StaticProvider
from gateway.ra.policy.subject import ComparableName
from gateway.ra.profile import Profile, Quota, RenewalRule, Snapshot
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.web.generation import FailureLimit, Generation, Publication, ScepService
from gateway.wire.scep.operations import ca_capabilities, ca_certificates

__all__ = ["CHALLENGE_PURPOSE", "Built", "Parts", "build", "prove_identity"]

SLOW_RSA_BITS = 3072
"""From this size on a private-key operation takes long enough (0.7 ms and more) to be kept off the event loop."""
CHALLENGE_PURPOSE = "challenge"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a generation is built on, and outlives it."""

    store: Store
    keys: KeyRing
    clock: Callable[[], datetime]
    worker: str

    def challenge_macs(self, challenge: str) -> tuple[bytes, ...]:
        """Return the HMACs of a one-time challenge, newest store key first."""
        return self.keys.macs(CHALLENGE_PURPOSE, challenge.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Built:
    """One generation, and the CRL publishers of its local CAs."""

    generation: Generation
    publishers: Mapping[UpstreamCAName, CrlPublisher]


def build(config: GatewayConfig, sources: Sources, number: int, parts: Parts) -> Built:
    """Build everything and prove each key with its certificate; no network.

    Raises ConfigurationError with what is wrong of all CAs and profiles.
    """

    async def newest_crl(name: UpstreamCAName) -> bytes | None:
        row = await parts.store.newest_crl(name)
        return row.der if row else None

    identities = establish(config, sources, parts.clock, newest_crl)
    if identities.problems:
        raise ConfigurationError(tuple(str(problem) for problem in locate(sources, identities.problems)))
    cas = identities.cas
    publishers = _publishers(config, cas, parts)
    own = _own_certificates(config, sources, identities)
    reserved = _reserved_names(identities)
    profiles = {
        ProfileName(text): _build_profile(ProfileName(text), profile, sources, cas, parts, own, reserved)
        for text, profile in config.profiles.items()
    }
    generation = Generation(
        number=number,
        snapshot=Snapshot(number, MappingProxyType(profiles), cas),
        scep=MappingProxyType(dict(_scep_services(config, identities))),
        publications=MappingProxyType({name: _publication(name, ca, publishers.get(name)) for name, ca in cas.items()}),
        config=MappingProxyType(redact(config)),
    )
    return Built(generation, MappingProxyType(publishers))


def _publishers(
    config: GatewayConfig, cas: Mapping[UpstreamCAName, UpstreamCA], parts: Parts
) -> dict[UpstreamCAName, CrlPublisher]:
    publishers = {}
    for name, ca in cas.items():
        configured = config.upstream_cas[name]
        if isinstance(configured, LocalCAConfig) and isinstance(ca, LocalCA) and configured.crl is not None:
            schedule = CrlSchedule(configured.crl.lifetime, configured.crl.refresh)
            publishers[name] = CrlPublisher(parts.store, ca, parts.clock, parts.worker, schedule)
    return publishers


def _publication(name: UpstreamCAName, ca: UpstreamCA, publisher: CrlPublisher | None) -> Publication:
    issuing = ca.chain()[0]
    return Publication(name, issuing, parse_certificate(issuing).sha256.hex(), publisher)


def _scep_services(config: GatewayConfig, identities: Identities) -> Iterator[tuple[ProfileName, ScepService]]:
    for name, identity in identities.scep.items():
        profile = config.profiles[name]
        scep, failures = profile.endpoints.scep, profile.limits.failures_per_address
        body, media_type = ca_certificates(identity)
        renews = profile.renewal is not None and "RenewalReq" in profile.renewal.messages
        yield (
            name,
            ScepService(
                profile=name,
                identity=identity,
                capabilities=ca_capabilities(identity, renewal=renews),
                ca_certificates=body,
                ca_media_type=media_type,
                ca_chain=certs_only(identity.chain),
                next_ca=None,
                requires_client_certificate=scep is not None and scep.client_certificate == "require",
                failure_limit=FailureLimit(failures.count, failures.window) if failures else None,
                reply_chain=scep is not None and scep.reply_chain,
                offload=identity.certificate.public_key.bits >= SLOW_RSA_BITS,
            ),
        )


def _own_certificates(config: GatewayConfig, sources: Sources, identities: Identities) -> tuple[Certificate, ...]:
    """Return the gateway's own certificates and the CAs': their keys authenticate nobody."""
    tls = (parse_certificate(der) for der in pem_to_ders(sources.file(config.server.https.certificate)))
    return (*(own.certificate for own in identities.certificates), *tls)


def _reserved_names(identities: Identities) -> frozenset[ComparableName]:
    """Return the subjects of CAs and RAs, which are granted to nobody; a host may well have the TLS certificate's."""
    signers = (own.certificate for own in identities.certificates if own.path[0] != "server")
    return frozenset(normalize_name(certificate.subject) for certificate in signers)


def _build_profile(
    name: ProfileName,
    profile: ProfileConfig,
    sources: Sources,
    cas: Mapping[UpstreamCAName, UpstreamCA],
    parts: Parts,
    own: tuple[Certificate, ...],
    reserved: frozenset[ComparableName],
) -> Profile:
    renewal = _renewal_rule(profile)
    one_times = (c for c in profile.credentials if isinstance(c, OneTimeCredential))
    one_time = next(one_times, OneTimeCredential(type="one_time"))
    own_keys = frozenset(certificate.public_key.sha256 for certificate in own)
    return Profile(
        name=name,
        endpoints=frozenset({Protocol.SCEP} if profile.endpoints.scep else ()),
        upstream_ca=cas[UpstreamCAName(profile.upstream_ca)],
        credentials=_providers(name, profile, renewal, sources, parts, own_keys),
        policy=profile.policy,
        renewal=renewal,
        per_requester=_quota(profile.limits.per_requester),
        per_profile=_quota(profile.limits.total),
        manual_approval=profile.approval == "manual",
        retransmission_window=profile.retransmission_window,
        challenge_ttl=one_time.ttl,
        challenge_max_ttl=one_time.max_ttl,
        reserved_names=reserved,
        own_keys=own_keys,
    )


def _providers(
    name: ProfileName,
    profile: ProfileConfig,
    renewal: RenewalRule | None,
    sources: Sources,
    parts: Parts,
    own_keys: frozenset[bytes],
) -> tuple[CredentialProvider, ...]:
    """Return the providers in the order in which they are asked: what costs no look into the store comes first."""
    providers: list[CredentialProvider] = [
        StaticProvider(name, sources.secret(c.challenge)) for c in profile.credentials if isinstance(c, StaticCredential)
    ]
    if any(isinstance(c, OneTimeCredential) for c in profile.credentials):
        window = profile.retransmission_window
        providers.append(OneTimeProvider(name, parts.store, parts.challenge_macs, window))
    if renewal is not None:
        providers.append(RenewalCredential(renewal, parts.store, profile.policy, own_keys))
    return tuple(providers)


def _renewal_rule(profile: ProfileConfig) -> RenewalRule | None:
    renewal = profile.renewal
    if renewal is None:
        return None
    sources = frozenset(ProfileName(name) for name in renewal.from_)
    return RenewalRule(sources, frozenset(renewal.messages), renewal.window, renewal.grace)


def _quota(quota: QuotaConfig | None) -> Quota | None:
    return Quota(quota.count, quota.window) if quota else None
