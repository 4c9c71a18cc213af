"""Builds one configuration generation: profiles with their credentials and CAs, RA identities, publications."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType

from gateway.assemble.acme import acme_services, acme_terms
from gateway.assemble.claims import StoredClaims
from gateway.assemble.cmp import cmp_services, cmp_terms
from gateway.assemble.continuity import CrlDuty, CrlWatch, Lasting, ca_fingerprints
from gateway.assemble.credentials import Surroundings
from gateway.assemble.est import Challenges, est_services
from gateway.assemble.http01 import http01_thumbprints
from gateway.assemble.identities import Identities, Shared, establish
from gateway.assemble.profiles import build_profile
from gateway.assemble.scep_ra import prove_identity
from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.interfaces import Capability, UpstreamCA
from gateway.ca.key_source import is_in_token
from gateway.ca.local import LocalCA
from gateway.config.load import Sources, locate
from gateway.config.schema import GatewayConfig, ProfileConfig, ScepEndpoint
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.config.view import redact
from gateway.errors import ConfigurationError
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.names import normalize_name
from gateway.ra.credentials.http_schemes import www_authenticate
from gateway.ra.credentials.passwords import ScryptPool
from gateway.ra.crl_keeper import CrlKeeper
from gateway.ra.policy.subject import ComparableName
from gateway.ra.profile import Profile, Snapshot
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.validation.ocsp import OcspClient
from gateway.web.generation import FailureLimit, Generation, Publication, ScepService
from gateway.web.proxies import Proxies, TrustedProxy
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.operations import ca_capabilities, ca_certificate_chain, ca_certificates, next_ca_certificates

__all__ = ["CHALLENGE_PURPOSE", "Built", "Parts", "build", "prove_identity"]

SLOW_RSA_BITS = 3072
"""From this size on a private-key operation takes long enough (0.7 ms and more) to be kept off the event loop."""
CHALLENGE_PURPOSE = "challenge"
_NONCE_PURPOSE = "digest-nonce"
_ACME_NONCE_PURPOSE = "acme-nonce"
_CMP_NONCE_PURPOSE = "cmp-nonce"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a generation is built on, and outlives it."""

    store: Store
    keys: KeyRing
    clock: Callable[[], datetime]
    worker: str
    passwords: ScryptPool
    ocsp: OcspClient

    def challenge_macs(self, challenge: str) -> tuple[bytes, ...]:
        """Return the HMACs of a one-time challenge, newest store key first."""
        return self.keys.macs(CHALLENGE_PURPOSE, challenge.encode("utf-8", "surrogatepass"))

    def nonce_macs(self, data: bytes) -> tuple[bytes, ...]:
        """Return the HMACs of what goes into a nonce of HTTP Digest, newest store key first."""
        return self.keys.macs(_NONCE_PURPOSE, data)

    def acme_nonce_keys(self) -> tuple[bytes, ...]:
        """Return the keys of ACME's nonces, newest first: the same in all workers, and after a restart."""
        return self.keys.macs(_ACME_NONCE_PURPOSE, b"")

    def cmp_nonce_keys(self) -> tuple[bytes, ...]:
        """Return the keys of CMP's nonces, newest first."""
        return self.keys.macs(_CMP_NONCE_PURPOSE, b"")


@dataclass(frozen=True, slots=True)
class Built:
    """One generation, the configuration that it is of, and what the next one may go on using."""

    generation: Generation
    config: GatewayConfig
    lasting: Lasting


def build(config: GatewayConfig, sources: Sources, number: int, parts: Parts, before: Lasting = Lasting()) -> Built:  # noqa: B008
    """Build everything and prove each key with its certificate; no network, and nothing that has to be closed.

    Runs on any thread. Raises ConfigurationError with what is wrong of all CAs and profiles.
    """

    async def newest_crl(name: UpstreamCAName) -> bytes | None:
        """Return the CRL that a local CA published last, DER; None before its first."""
        row = await parts.store.newest_crl(name)
        return row.der if row else None

    fingerprints = ca_fingerprints(config, sources)
    shared = Shared(newest_crl, StoredClaims(parts.store, parts.clock))
    identities = establish(config, sources, parts.clock, shared, before.unchanged(fingerprints))
    if identities.problems:
        raise ConfigurationError(tuple(str(problem) for problem in locate(sources, identities.problems)))
    cas = identities.cas
    crls = _crl_duties(config, cas, parts, before)
    own_keys, reserved = _own_keys(config, sources, identities), _reserved_names(identities)
    around = Surroundings(
        sources,
        cas,
        parts.store,
        parts.challenge_macs,
        parts.nonce_macs,
        parts.passwords,
        parts.ocsp.source,
        own_keys,
        reserved,
        acme_terms(config, sources, identities.acme),
        cmp_terms(config, identities.cmp),
    )
    profiles = {name: build_profile(name, config.profiles[name], anchors, around) for name, anchors in identities.anchors.items()}
    generation = Generation(
        number=number,
        snapshot=Snapshot(number, MappingProxyType(profiles), cas),
        scep=MappingProxyType(dict(_scep_services(config, identities))),
        publications=MappingProxyType({name: _publication(name, ca, crls.get(name)) for name, ca in cas.items()}),
        tls=identities.tls,
        config=MappingProxyType(redact(config)),
        est=MappingProxyType(est_services(config, sources, identities.est, partial(_schemes, profiles))),
        acme=MappingProxyType(acme_services(config, identities.acme)),
        cmp=MappingProxyType(cmp_services(config, identities.cmp)),
        proxies=Proxies(TrustedProxy(p.addresses, p.client_certificate, p.client_address) for p in config.server.proxies),
        http01_thumbprint=next(iter(http01_thumbprints(cas).values()), None),
    )
    return Built(generation, config, Lasting(cas, MappingProxyType(fingerprints), MappingProxyType(crls)))


def _schemes(profiles: Mapping[ProfileName, Profile], name: ProfileName) -> Challenges:
    """Return what makes the values of WWW-Authenticate for one profile."""
    return partial(www_authenticate, profiles[name].credentials)


def _crl_duties(
    config: GatewayConfig, cas: Mapping[UpstreamCAName, UpstreamCA], parts: Parts, before: Lasting
) -> dict[UpstreamCAName, CrlDuty | CrlWatch]:
    """Return what CRLs are to be published or fetched; a CA that had a publisher keeps it, so that it never has two."""
    duties: dict[UpstreamCAName, CrlDuty | CrlWatch] = {}
    for name, ca in cas.items():
        configured, known = config.upstream_cas[name], before.crls.get(name)
        if not isinstance(configured, LocalCAConfig):
            if Capability.CRL in ca.capabilities:
                keeper = known.publisher if isinstance(known, CrlWatch) else None
                duties[name] = CrlWatch(keeper or CrlKeeper(parts.store, ca, parts.clock, parts.worker), ca)
        elif isinstance(ca, LocalCA) and configured.crl is not None:
            schedule = CrlSchedule(configured.crl.lifetime, configured.crl.refresh)
            publisher = known.publisher if isinstance(known, CrlDuty) else None
            publisher = publisher or CrlPublisher(parts.store, ca, parts.clock, parts.worker, schedule)
            duties[name] = CrlDuty(publisher, ca, schedule)
    return duties


def _publication(name: UpstreamCAName, ca: UpstreamCA, crl: CrlDuty | CrlWatch | None) -> Publication:
    issuing = ca.chain()[0]
    return Publication(name, issuing, parse_certificate(issuing).sha256.hex(), crl.publisher if crl else None)


def _scep_services(config: GatewayConfig, identities: Identities) -> Iterator[tuple[ProfileName, ScepService]]:
    for name, identity in identities.scep.items():
        scep = config.profiles[name].endpoints.scep
        if scep is not None:
            yield name, _scep_service(name, config.profiles[name], scep, identity, identities.next_cas.get(name))


def _scep_service(
    name: ProfileName, profile: ProfileConfig, scep: ScepEndpoint, identity: RaIdentity, next_ca: tuple[bytes, ...] | None
) -> ScepService:
    """Prepare every answer of an endpoint that does not depend on the request; with a next CA that is one signature."""
    failures = profile.limits.failures_per_address
    renews = profile.renewal is not None and "RenewalReq" in profile.renewal.messages
    body, media_type = ca_certificates(identity)
    keys = (identity.certificate, *(pair.certificate for pair in identity.pairs))
    shown = tuple(map(parse_certificate, identity.certificates))
    return ScepService(
        profile=name,
        identity=identity,
        capabilities=ca_capabilities(identity, renewal=renews, next_ca=next_ca is not None),
        ca_certificates=body,
        ca_media_type=media_type,
        ca_chain=ca_certificate_chain(identity)[0],
        next_ca=next_ca_certificates(identity, next_ca)[0] if next_ca is not None else None,
        requires_client_certificate=scep.client_certificate == "require",
        failure_limit=FailureLimit(failures.count, failures.window) if failures else None,
        reply_chain=scep.reply_chain,
        offload=any(map(is_in_token, (identity.key, *(pair.key for pair in identity.pairs))))
        or max(certificate.public_key.bits for certificate in keys) >= SLOW_RSA_BITS,
        ra_ends=min(certificate.not_after for certificate in shown),
    )


def _own_keys(config: GatewayConfig, sources: Sources, identities: Identities) -> frozenset[bytes]:
    """Return the SHA-256 of every key of the gateway, those of earlier RAs and later CAs too: they authenticate nobody."""
    ours = [named.certificate for named in identities.certificates if named.standing.is_ours]
    for listener in (config.server.https, config.server.https_mtls):
        if listener is not None:
            ours += map(parse_certificate, pem_to_ders(sources.file(listener.certificate)))
    return frozenset(certificate.public_key.sha256 for certificate in ours)


def _reserved_names(identities: Identities) -> frozenset[ComparableName]:
    """Return the subjects of CAs and RAs, which are granted to nobody; a host may well have the TLS certificate's."""
    ours = (named for named in identities.certificates if named.standing.is_ours and named.path[0] != "server")
    return frozenset(normalize_name(named.certificate.subject) for named in ours)
