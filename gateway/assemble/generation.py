"""Builds one configuration generation: profiles with their credentials and CAs, RA identities, publications."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import LocalCA
from gateway.ca.registry import CaUrls, create
from gateway.config.load import Sources
from gateway.config.schema import GatewayConfig, OneTimeCredential, ProfileConfig, QuotaConfig, ScepEndpoint, StaticCredential
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.config.view import redact
from gateway.errors import ConfigurationError, Rejection
from gateway.model import ProfileName, Protocol, UpstreamCAName
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import load_private_key, sign, signature_algorithm
from gateway.ra.credentials import one_time, static
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.profile import Profile, Quota, RenewalRule, Snapshot
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.web.generation import Generation, Publication, ScepService
from gateway.wire.scep.operations import ca_capabilities, ca_certificates
from gateway.wire.scep.pkimessage import Algorithms, RaIdentity

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
    problems: list[str] = []
    cas: dict[UpstreamCAName, UpstreamCA] = {}
    for name in config.upstream_cas:
        try:
            cas[UpstreamCAName(name)] = _build_ca(UpstreamCAName(name), config, sources, parts)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(tuple(problems))
    publishers = _publishers(config, cas, parts)
    profiles, services = _build_profiles(config, sources, cas, parts)
    generation = Generation(
        number=number,
        snapshot=Snapshot(number, MappingProxyType(profiles), MappingProxyType(cas)),
        scep=MappingProxyType(services),
        publications=MappingProxyType({name: _publication(name, ca, publishers.get(name)) for name, ca in cas.items()}),
        config=MappingProxyType(redact(config)),
    )
    return Built(generation, MappingProxyType(publishers))


def _build_ca(name: UpstreamCAName, config: GatewayConfig, sources: Sources, parts: Parts) -> UpstreamCA:
    ca = config.upstream_cas[name]
    url = config.server.external_url.http
    publishes = isinstance(ca, LocalCAConfig) and ca.crl is not None
    urls = CaUrls(crl=f"{url}/crl/{name}.crl" if publishes else None, ca_issuers=f"{url}/ca/{name}.crt")

    async def newest_crl() -> bytes | None:
        row = await parts.store.newest_crl(name)
        return row.der if row else None

    return create(name, ca, sources, urls, clock=parts.clock, newest_crl=newest_crl)


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


def _build_profiles(
    config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA], parts: Parts
) -> tuple[dict[ProfileName, Profile], dict[ProfileName, ScepService]]:
    """Return every profile and every SCEP service; raises ConfigurationError with the problems of all."""
    problems: list[str] = []
    services: dict[ProfileName, ScepService] = {}
    for text, profile in config.profiles.items():
        name = ProfileName(text)
        if profile.endpoints.scep is None:
            continue
        try:
            services[name] = _build_scep(name, profile, profile.endpoints.scep, sources, cas)
        except ValueError as error:
            problems.append(f"profiles.{name}.endpoints.scep: {error}")
    if problems:
        raise ConfigurationError(tuple(problems))
    own = _own_keys(config, sources, cas, services)
    profiles = {
        ProfileName(text): _build_profile(ProfileName(text), profile, sources, cas, parts, own)
        for text, profile in config.profiles.items()
    }
    return profiles, services


def _build_scep(
    name: ProfileName, profile: ProfileConfig, endpoint: ScepEndpoint, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA]
) -> ScepService:
    """Build one SCEP service; raises ValueError with a sentence where RA key and certificate do not serve."""
    try:
        certificates = pem_to_ders(sources.file(endpoint.ra_certificate))
        key = load_private_key(sources.secret(endpoint.ra_key))
    except (Rejection, TypeError, ValueError) as error:
        raise ValueError("ra_certificate or ra_key cannot be read as PEM") from error
    if not certificates:
        raise ValueError(f"{endpoint.ra_certificate} holds no certificate")
    identity = RaIdentity.create(certificates[0], key, cas[UpstreamCAName(profile.upstream_ca)].chain())
    prove_identity(identity)
    body, media_type = ca_certificates(identity)
    renews = profile.renewal is not None and "RenewalReq" in profile.renewal.messages
    return ScepService(
        profile=name,
        identity=identity,
        capabilities=ca_capabilities(renewal=renews, algorithms=Algorithms()),
        ca_certificates=body,
        ca_media_type=media_type,
        reply_chain=endpoint.reply_chain,
        offload=identity.certificate.public_key.bits >= SLOW_RSA_BITS,
    )


def prove_identity(identity: RaIdentity) -> None:
    """Sign with the RA key and verify under its certificate; raises ValueError when that fails."""
    data = b"pki-gateway test signature"
    try:
        verify_signature(identity.certificate.public_key.der, signature_algorithm(identity.key), sign(identity.key, data), data)
    except Rejection as error:
        raise ValueError("a test signature of the RA key does not verify under the RA certificate") from error


def _own_keys(
    config: GatewayConfig,
    sources: Sources,
    cas: Mapping[UpstreamCAName, UpstreamCA],
    services: Mapping[ProfileName, ScepService],
) -> frozenset[bytes]:
    """SHA-256 of the gateway's own public keys: none of them authenticates anybody."""
    ders = [service.identity.signer.certificate for service in services.values()]
    ders += [der for ca in cas.values() for der in ca.chain()]
    ders += pem_to_ders(sources.file(config.server.https.certificate))
    return frozenset(parse_certificate(der).public_key.sha256 for der in ders)


def _build_profile(
    name: ProfileName,
    profile: ProfileConfig,
    sources: Sources,
    cas: Mapping[UpstreamCAName, UpstreamCA],
    parts: Parts,
    own_keys: frozenset[bytes],
) -> Profile:
    renewal = _renewal_rule(profile)
    one_times = [c for c in profile.credentials if isinstance(c, OneTimeCredential)]
    lifetimes = {"challenge_ttl": one_times[0].ttl, "challenge_max_ttl": one_times[0].max_ttl} if one_times else {}
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
        **lifetimes,
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
        static.StaticCredential(name, sources.secret(c.challenge)) for c in profile.credentials if isinstance(c, StaticCredential)
    ]
    if any(isinstance(c, OneTimeCredential) for c in profile.credentials):
        window = profile.retransmission_window
        providers.append(one_time.OneTimeCredential(name, parts.store, parts.challenge_macs, window))
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
