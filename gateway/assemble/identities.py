"""Every key and certificate that a configuration names, proved without store and network, with all that is wrong at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from gateway.audit import parse_audit_key
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import describe_dates
from gateway.ca.registry import CaUrls, create
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.load import ConfigProblem, Sources, locate
from gateway.config.schema import GatewayConfig, ScepEndpoint
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.errors import ConfigurationError, Rejection
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.keys import load_private_key, sign, signature_algorithm
from gateway.pki.names import format_name
from gateway.pki.trust import check_pair
from gateway.store.keys import KeyRing
from gateway.web.tls import server_context
from gateway.wire.scep.pkimessage import RaIdentity

SOON = timedelta(days=30)
"""With less than this left a certificate is worth a warning."""

NewestCrl = Callable[[UpstreamCAName], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """One certificate that the service stands on, and the field that names its file."""

    path: DataPath
    certificate: Certificate

    @property
    def subject(self) -> str:
        """Its subject, RFC 4514."""
        return format_name(self.certificate.subject)


@dataclass(frozen=True, slots=True)
class Identities:
    """What could be built; where `problems` are, something of it is missing."""

    cas: Mapping[UpstreamCAName, UpstreamCA]
    scep: Mapping[ProfileName, RaIdentity]
    certificates: tuple[OwnCertificate, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a service may start: not with any `problems`; `expiring` certificates end within 30 days."""

    problems: tuple[ConfigProblem, ...]
    expiring: tuple[ConfigProblem, ...]
    certificates: tuple[OwnCertificate, ...]


def judge(config: GatewayConfig, sources: Sources, now: datetime) -> Judgement:
    """Say all that keeps a service from starting at `now`: what `build` would refuse, and certificates that are not valid.

    Dates are judged here and not in `build`: a worker that is replaced years later, and a command that revokes a certificate,
    must still come up when a certificate has ended meanwhile.
    """
    found = establish(config, sources, lambda: now)
    problems, expiring = list(found.problems), []
    for own in found.certificates:
        fault = describe_dates(own.certificate, now)
        left = own.certificate.not_after - now
        if fault is not None:
            problems.append(Problem(own.path, f"the certificate {own.subject} {fault}"))
        elif left < SOON:
            expiring.append(Problem(own.path, f"the certificate {own.subject} ends in {left.days} days: renew it"))
    return Judgement(locate(sources, problems), locate(sources, expiring), found.certificates)


def establish(
    config: GatewayConfig, sources: Sources, clock: Callable[[], datetime], newest_crl: NewestCrl | None = None
) -> Identities:
    """Build every CA and RA identity and prove each key with its certificate, whatever is wrong with others."""
    cas: dict[UpstreamCAName, UpstreamCA] = {}
    scep: dict[ProfileName, RaIdentity] = {}
    problems = list(_check_secrets(config, sources))
    for text in config.upstream_cas:
        name = UpstreamCAName(text)
        try:
            cas[name] = _build_ca(name, config, sources, clock, newest_crl)
        except ConfigurationFaults as error:
            problems += error.faults
    for text, profile in config.profiles.items():
        if profile.endpoints.scep is not None:
            ca = cas.get(UpstreamCAName(profile.upstream_ca))
            where = ("profiles", text, "endpoints", "scep")
            try:
                scep[ProfileName(text)] = _build_ra(where, profile.endpoints.scep, sources, ca.chain() if ca else ())
            except ConfigurationFaults as error:
                problems += error.faults
    certificates = tuple(_certificates(config, sources, cas))
    return Identities(MappingProxyType(cas), MappingProxyType(scep), certificates, tuple(problems))


def prove_identity(identity: RaIdentity) -> None:
    """Sign with the RA key and verify under its certificate; raises ValueError when that fails."""
    data = b"pki-gateway test signature"
    try:
        verify_signature(identity.certificate.public_key.der, signature_algorithm(identity.key), sign(identity.key, data), data)
    except Rejection as error:
        raise ValueError("a test signature of the RA key does not verify under the RA certificate") from error


def _check_secrets(config: GatewayConfig, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with TLS, store and audit keys."""
    https = config.server.https
    try:
        server_context(sources.file(https.certificate), sources.secret(https.key), https.min_version)
    except ConfigurationFaults as error:
        yield from error.faults
    checks: tuple[tuple[DataPath, Callable[[], object]], ...] = (
        (("store", "key"), lambda: KeyRing.parse(sources.secret(config.store.key))),
        (("audit", "key"), lambda: parse_audit_key(sources.secret(config.audit.key))),
    )
    for path, parse in checks:
        try:
            parse()
        except ConfigurationError as error:
            yield from (Problem(path, sentence) for sentence in error.problems)


def _build_ca(
    name: UpstreamCAName, config: GatewayConfig, sources: Sources, clock: Callable[[], datetime], newest_crl: NewestCrl | None
) -> UpstreamCA:
    ca = config.upstream_cas[name]
    url = config.server.external_url.http
    publishes = isinstance(ca, LocalCAConfig) and ca.crl is not None
    urls = CaUrls(crl=f"{url}/crl/{name}.crl" if publishes else None, ca_issuers=f"{url}/ca/{name}.crt")
    return create(name, ca, sources, urls, clock=clock, newest_crl=newest_crl and (lambda: newest_crl(name)))


def _build_ra(where: DataPath, endpoint: ScepEndpoint, sources: Sources, chain: tuple[bytes, ...]) -> RaIdentity:
    """Build one RA identity; raises ConfigurationFaults where RA key and certificate do not serve."""
    at_certificate, at_key = (*where, "ra_certificate"), (*where, "ra_key")
    faults: list[Problem] = []
    leaf = key = None
    try:
        leaf = pem_to_ders(sources.file(endpoint.ra_certificate))[0]
        parse_certificate(leaf)
    except (Rejection, ValueError):
        leaf = None
        faults.append(Problem(at_certificate, f"{endpoint.ra_certificate} does not hold a readable PEM certificate"))
    try:
        key = load_private_key(sources.secret(endpoint.ra_key))
        if leaf is not None:
            check_pair(leaf, key)
    except ValueError as error:
        faults.append(Problem(at_key, f"{endpoint.ra_key}: {error}"))
    if faults or leaf is None or key is None:
        raise ConfigurationFaults(*faults)
    try:
        identity = RaIdentity.create(leaf, key, chain)
        prove_identity(identity)
    except ValueError as error:
        raise ConfigurationFaults(Problem(at_certificate, str(error))) from error
    return identity


def _certificates(config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA]) -> Iterator[OwnCertificate]:
    """Yield every certificate that can be read and that clients judge by its dates."""
    leaves: list[tuple[DataPath, str]] = [(("server", "https", "certificate"), config.server.https.certificate)]
    for name, profile in config.profiles.items():
        if profile.endpoints.scep is not None:
            leaves.append((("profiles", name, "endpoints", "scep", "ra_certificate"), profile.endpoints.scep.ra_certificate))
    for path, file in leaves:
        try:
            yield OwnCertificate(path, parse_certificate(pem_to_ders(sources.file(file))[0]))
        except (Rejection, ValueError):
            continue
    for ca, upstream in cas.items():
        for number, der in enumerate(upstream.chain()):
            field = "chain" if number or not isinstance(config.upstream_cas[ca], LocalCAConfig) else "certificate"
            yield OwnCertificate(("upstream_cas", ca, field), parse_certificate(der))
