"""Every key and certificate that a configuration names, proved without store and network, with all that is wrong at once."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType

from gateway.assemble.acme import AcmeIdentity, build_acme_identities
from gateway.assemble.anchors import ProfileAnchors, read_anchors
from gateway.assemble.certificates import NamedCertificate, name_certificates, refuse_own_anchors
from gateway.assemble.cmp import CmpIdentity, build_cmp_identities, refuse_shared_signers
from gateway.assemble.est import EstIdentity, build_identities, check_users
from gateway.assemble.http01 import check_http01
from gateway.assemble.scep_ra import build_ra, read_next_ca
from gateway.audit import parse_audit_key
from gateway.ca.claims import Claims
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.registry import CaUrls, create
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.listener_checks import renews_by_est
from gateway.config.load import Sources
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.errors import ConfigurationError
from gateway.model import ProfileName, UpstreamCAName
from gateway.store.keys import KeyRing
from gateway.web.tls import mtls_context, server_context
from gateway.wire.scep.identity import RaIdentity


@dataclass(frozen=True, slots=True)
class Shared:
    """What upstream CAs have of the store: the CRL that one published last, DER, and claims that all workers know."""

    newest_crl: Callable[[UpstreamCAName], Awaitable[bytes | None]]
    claims: Claims


@dataclass(frozen=True, slots=True)
class Identities:
    """What could be built; where `problems` are, something of it is missing."""

    cas: Mapping[UpstreamCAName, UpstreamCA]
    scep: Mapping[ProfileName, RaIdentity]
    next_cas: Mapping[ProfileName, tuple[bytes, ...]]
    est: Mapping[ProfileName, EstIdentity]
    acme: Mapping[ProfileName, AcmeIdentity]
    cmp: Mapping[ProfileName, CmpIdentity]
    anchors: Mapping[ProfileName, ProfileAnchors]
    tls: Mapping[str, ssl.SSLContext]
    """By the listener's name in the configuration."""
    certificates: tuple[NamedCertificate, ...]
    problems: tuple[Problem, ...]


def establish(
    config: GatewayConfig,
    sources: Sources,
    clock: Callable[[], datetime],
    shared: Shared | None = None,
    kept: Mapping[UpstreamCAName, UpstreamCA] = MappingProxyType({}),
) -> Identities:
    """Build every CA and RA identity and prove each key with its certificate, whatever is wrong with others.

    The CAs in `kept` were built from the same configuration before and go on as they are.
    """
    anchors: dict[ProfileName, ProfileAnchors] = {}
    cas, found = build_cas(config, sources, clock, shared, kept)
    problems = [*_check_secrets(config, sources), *found]
    for text, profile in config.profiles.items():
        anchors[ProfileName(text)], faults = read_anchors(ProfileName(text), profile, sources)
        problems += faults
    tls = _build_tls(config, sources, _client_cas(config, cas, anchors), problems)
    scep, next_cas = _build_scep(config, sources, cas, problems)
    est = build_identities(config, sources, cas, problems)
    acme = build_acme_identities(config, sources, cas, problems)
    cmp = build_cmp_identities(config, sources, cas, problems)
    problems += check_users(config, sources)
    problems += check_http01(cas)
    certificates = tuple(name_certificates(config, sources, cas, anchors))
    problems += refuse_own_anchors(certificates)
    problems += refuse_shared_signers(certificates)
    return Identities(
        MappingProxyType(cas),
        MappingProxyType(scep),
        MappingProxyType(next_cas),
        MappingProxyType(est),
        MappingProxyType(acme),
        MappingProxyType(cmp),
        MappingProxyType(anchors),
        MappingProxyType(tls),
        certificates,
        tuple(problems),
    )


def _client_cas(
    config: GatewayConfig, cas: Mapping[UpstreamCAName, UpstreamCA], anchors: Mapping[ProfileName, ProfileAnchors]
) -> tuple[bytes, ...]:
    """Return the CAs, DER, below which TLS takes client certificates: the union over all profiles, each of which judges anew.

    Where EST renews, these are our own CAs too, those of other profiles as well: a profile may have changed its CA.
    """
    bundles = [bundle for named in anchors.values() for bundle in named.client_bundles()]
    found = [certificate.der for bundle in bundles for certificate in bundle.certificates]
    if any(profile.endpoints.est is not None and renews_by_est(profile.renewal) for profile in config.profiles.values()):
        found += (ca.chain()[0] for ca in cas.values())
    return tuple(dict.fromkeys(found))


def _build_scep(
    config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA], problems: list[Problem]
) -> tuple[dict[ProfileName, RaIdentity], dict[ProfileName, tuple[bytes, ...]]]:
    """Return the RA of every SCEP endpoint, and the CA that comes next where one does; what is wrong goes to `problems`."""
    scep: dict[ProfileName, RaIdentity] = {}
    next_cas: dict[ProfileName, tuple[bytes, ...]] = {}
    for text, profile in config.profiles.items():
        endpoint, name = profile.endpoints.scep, ProfileName(text)
        if endpoint is None:
            continue
        ca = cas.get(UpstreamCAName(profile.upstream_ca))
        where: DataPath = ("profiles", text, "endpoints", "scep")
        try:
            scep[name] = build_ra(where, profile, endpoint, sources, ca.chain() if ca else ())
        except ConfigurationFaults as error:
            problems += error.faults
        try:
            if endpoint.next_ca is not None:
                next_cas[name] = read_next_ca((*where, "next_ca"), endpoint.next_ca, sources)
        except ConfigurationFaults as error:
            problems += error.faults
    return scep, next_cas


def _build_tls(
    config: GatewayConfig, sources: Sources, client_cas: tuple[bytes, ...], problems: list[Problem]
) -> dict[str, ssl.SSLContext]:
    """Return the context of each listener; that of `https_mtls` takes client certificates below `client_cas`, DER.

    What is wrong goes to `problems`, but for anchors that cannot be read: that is told where they are named.
    """
    https, mtls = config.server.https, config.server.https_mtls
    build: dict[str, Callable[[], ssl.SSLContext]] = {
        "https": lambda: server_context(sources.file(https.certificate), sources.secret(https.key), https.min_version)
    }
    if mtls is not None:
        files = (sources.file(mtls.certificate), sources.secret(mtls.key), mtls.min_version)
        build["https_mtls"] = lambda: mtls_context(*files, client_cas) if client_cas else server_context(*files, "https_mtls")
    contexts = {}
    for listener, context in build.items():
        try:
            contexts[listener] = context()
        except ConfigurationFaults as error:
            problems += error.faults
    return contexts


def _check_secrets(config: GatewayConfig, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with store and audit keys."""
    checks: tuple[tuple[DataPath, Callable[[], object]], ...] = (
        (("store", "key"), lambda: KeyRing.parse(sources.secret(config.store.key))),
        (("audit", "key"), lambda: parse_audit_key(sources.secret(config.audit.key))),
    )
    for path, parse in checks:
        try:
            parse()
        except ConfigurationError as error:
            yield from (Problem(path, sentence) for sentence in error.problems)


def build_cas(
    config: GatewayConfig,
    sources: Sources,
    clock: Callable[[], datetime],
    shared: Shared | None = None,
    kept: Mapping[UpstreamCAName, UpstreamCA] = MappingProxyType({}),
) -> tuple[dict[UpstreamCAName, UpstreamCA], list[Problem]]:
    """Return every upstream CA that can be built, and what is wrong with the others; those in `kept` go on as they are."""
    cas: dict[UpstreamCAName, UpstreamCA] = {}
    problems: list[Problem] = []
    for name in _members_first(config):
        try:
            cas[name] = kept[name] if name in kept else _build_ca(name, config, sources, clock, shared, cas)
        except ConfigurationFaults as error:
            problems += error.faults
    return cas, problems


def _members_first(config: GatewayConfig) -> Iterator[UpstreamCAName]:
    """Yield the names of all CAs, those of groups last."""
    for name in sorted(config.upstream_cas, key=lambda name: isinstance(config.upstream_cas[name], GroupCA)):
        yield UpstreamCAName(name)


def _build_ca(
    name: UpstreamCAName,
    config: GatewayConfig,
    sources: Sources,
    clock: Callable[[], datetime],
    shared: Shared | None,
    others: Mapping[UpstreamCAName, UpstreamCA],
) -> UpstreamCA:
    ca = config.upstream_cas[name]
    url = config.server.external_url.http
    publishes = isinstance(ca, LocalCAConfig) and ca.crl is not None
    urls = CaUrls(crl=f"{url}/crl/{name}.crl" if publishes else None, ca_issuers=f"{url}/ca/{name}.crt")
    newest_crl = partial(shared.newest_crl, name) if shared is not None else None
    claims = shared.claims if shared is not None else None
    return create(name, ca, sources, urls, clock=clock, newest_crl=newest_crl, others=others, claims=claims)
