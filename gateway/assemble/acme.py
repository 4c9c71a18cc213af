"""Builds the ACME endpoints of a generation: their directories, whose attestations are good, and how names are validated.

RFC 8555 §7.1.1 (directory), §7.4.2 (alternate chains), §8 (validation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import pairwise
from types import MappingProxyType
from urllib.parse import urlsplit

from gateway.ca.interfaces import UpstreamCA
from gateway.config.acme import AcmeEndpoint, AcmeValidation, TrustMode
from gateway.config.acme_checks import attestation_formats
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.load import Sources
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig, ProfileConfig
from gateway.config.upstream_cas import ExecCA, LocalCA
from gateway.config.upstream_checks import url_of
from gateway.errors import Rejection
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, ML_DSA_ALGORITHMS
from gateway.pki.names import format_name
from gateway.pki.trust import TrustAnchors, verify_issued_by
from gateway.ra.profile import AcmeTerms
from gateway.validation.attestation import DeviceAttestation
from gateway.validation.interfaces import Validation
from gateway.validation.profile import ValidationRoom, build_validation
from gateway.web.generation import AcmeService, FailureLimit
from gateway.wire.acme.objects import DirectoryTerms, encode_directory
from gateway.wire.acme.urls import Urls


@dataclass(frozen=True, slots=True)
class AcmeIdentity:
    """What one endpoint reads from files, proved."""

    roots: Mapping[str, TrustAnchors] = field(repr=False)
    """Whose attestations are good, by their format."""
    alternate_chains: tuple[tuple[bytes, ...], ...] = field(repr=False)
    """DER, issuing CA first, without roots."""


def build_acme(where: DataPath, endpoint: AcmeEndpoint, sources: Sources, chain: tuple[bytes, ...]) -> AcmeIdentity:
    """Build what the endpoint at `where` is; raises ConfigurationFaults where its certificates do not serve."""
    faults: list[Problem] = []
    roots = dict(_read_roots((*where, "validation", "attestation"), endpoint.validation, sources, faults))
    chains = []
    for number, file in enumerate(endpoint.alternate_chains):
        found = _read_chain((*where, "alternate_chains", number), file, sources, chain, faults)
        chains.append(found)
    if faults:
        raise ConfigurationFaults(*faults)
    return AcmeIdentity(MappingProxyType(roots), tuple(chains))


def _read_roots(
    where: DataPath, validation: AcmeValidation, sources: Sources, faults: list[Problem]
) -> Iterator[tuple[str, TrustAnchors]]:
    for name in attestation_formats(validation):
        file = getattr(validation.attestation, name)
        try:
            yield name, TrustAnchors.parse(sources.file(file))
        except (Rejection, ValueError) as error:
            faults.append(Problem((*where, name), f"{file}: {error.cause if isinstance(error, Rejection) else error}"))


def _read_chain(
    path: DataPath, file: str, sources: Sources, chain: tuple[bytes, ...], faults: list[Problem]
) -> tuple[bytes, ...]:
    """Read another chain above the issuing CA, which its file may begin with or leave out (RFC 8555 §7.4.2)."""
    try:
        ders = pem_to_ders(sources.file(file))
        certificates = tuple(map(parse_certificate, ders))
    except (Rejection, ValueError):
        faults.append(Problem(path, f"{file} does not hold readable PEM certificates"))
        return ()
    if not chain or not certificates:
        return ()
    issuing = parse_certificate(chain[0])
    if not _is_same_ca(certificates[0], issuing):
        certificates = (issuing, *certificates)
    for lower, upper in pairwise(certificates):
        if not _has_issued(upper, lower):
            sentence = f"{format_name(upper.subject)} has not issued {format_name(lower.subject)}, which stands below it"
            faults.append(Problem(path, f"{file}: {sentence}; the issuing CA's own chain comes first, root last"))
            return ()
    return tuple(certificate.der for certificate in certificates if not _has_issued(certificate, certificate))


def _is_same_ca(one: Certificate, other: Certificate) -> bool:
    return one.public_key.sha256 == other.public_key.sha256 and one.subject.der == other.subject.der


def _has_issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        verify_issued_by(certificate, issuer)
    except Rejection:
        return False
    return True


def build_acme_identities(
    config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA], problems: list[Problem]
) -> dict[ProfileName, AcmeIdentity]:
    """Return what every ACME endpoint is; what is wrong goes to `problems`."""
    found = {}
    for name, profile in config.profiles.items():
        if profile.endpoints.acme is None:
            continue
        ca = cas.get(UpstreamCAName(profile.upstream_ca))
        try:
            where: DataPath = ("profiles", name, "endpoints", "acme")
            found[ProfileName(name)] = build_acme(where, profile.endpoints.acme, sources, ca.chain() if ca else ())
        except ConfigurationFaults as error:
            problems += error.faults
    return found


def acme_url(config: GatewayConfig, name: str) -> str:
    """Return the URL of the folder of a profile's directory."""
    return f"{config.server.external_url.https}/acme/{name}"


def acme_terms(
    config: GatewayConfig, sources: Sources, identities: Mapping[ProfileName, AcmeIdentity]
) -> dict[ProfileName, AcmeTerms]:
    """Return what each profile that opens ACME lets accounts do."""
    proxies = [network for proxy in config.server.proxies for network in proxy.addresses]
    room = ValidationRoom(refused_hosts=tuple(sorted(set(_own_hosts(config)))), proxies=proxies)
    terms = {}
    for name, identity in identities.items():
        endpoint = config.profiles[name].endpoints.acme
        if endpoint is not None:
            validations = _validations(endpoint.validation, sources, identity, room)
            terms[name] = AcmeTerms(endpoint, MappingProxyType(validations), acme_url(config, name))
    return terms


def _validations(
    validation: AcmeValidation, sources: Sources, identity: AcmeIdentity, room: ValidationRoom
) -> dict[TrustMode, Validation]:
    """Return a validation for each trust mode that the profile has, or lets an external account have."""
    roots = identity.roots
    attestation = DeviceAttestation(roots.get("apple"), roots.get("tpm"), roots.get("step")) if roots else None
    secret = sources.secret(validation.webhook.secret) if validation.webhook is not None else b""
    return {
        mode: build_validation(validation, mode, room, attestation=attestation, webhook_secret=secret)
        for mode in open_modes(validation)
    }


def open_modes(validation: AcmeValidation) -> tuple[TrustMode, ...]:
    """Return the trust modes in which names may be validated: the profile's own, and those that external accounts may name."""
    there: dict[TrustMode, bool] = {
        "standard": True,
        "prevalidated": bool(validation.prevalidated.dns or validation.prevalidated.ip),
        "client_ip_forward": True,
        "client_ip_reverse": True,
        "webhook": validation.webhook is not None,
        "attestation": bool(attestation_formats(validation)),
        "none": validation.acknowledge_no_validation,
    }
    return tuple(mode for mode, is_there in there.items() if is_there)


def _own_hosts(config: GatewayConfig) -> Iterator[str]:
    """Yield the hosts of this service and of its CAs, which no validation connects to; loopback is judged as what it is."""
    urls = [config.server.external_url.http, config.server.external_url.https]
    for upstream in config.upstream_cas.values():
        match upstream:
            case LocalCA() | GroupCA():
                continue
            case ExecCA():
                # A program that signs is told where its CA is by its environment, whatever it calls it.
                urls += (value for value in upstream.environment.values() if isinstance(value, str) and "://" in value)
            case _:
                urls.append(url_of(upstream)[1])
    for url in urls:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            continue
        if host and not _is_loopback(host):
            yield host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def acme_services(config: GatewayConfig, identities: Mapping[ProfileName, AcmeIdentity]) -> dict[ProfileName, AcmeService]:
    """Return the service of every profile that opens ACME."""
    services = {}
    for name, identity in identities.items():
        profile = config.profiles[name]
        endpoint = profile.endpoints.acme
        if endpoint is not None:
            services[name] = _acme_service(acme_url(config, name), name, profile, endpoint, identity)
    return services


def _acme_service(
    base: str, name: ProfileName, profile: ProfileConfig, endpoint: AcmeEndpoint, identity: AcmeIdentity
) -> AcmeService:
    failures = profile.limits.failures_per_address
    directories = {url: _directory(url, endpoint) for url in (base, *endpoint.aliases)}
    return AcmeService(
        profile=name,
        base=base,
        aliases=endpoint.aliases,
        directories=MappingProxyType(directories),
        terms_of_service=endpoint.terms_of_service,
        cors_origins=endpoint.cors_origins,
        algorithms=(*CLASSICAL_ALGORITHMS, *ML_DSA_ALGORITHMS) if endpoint.ml_dsa_accounts else CLASSICAL_ALGORITHMS,
        padded_csr=endpoint.padded_csr,
        alternate_chains=identity.alternate_chains,
        retry_after=int(endpoint.renewal.retry_after.total_seconds()),
        failure_limit=FailureLimit(failures.count, failures.window) if failures else None,
        help=endpoint.website,
    )


def _directory(base: str, endpoint: AcmeEndpoint) -> bytes:
    terms = DirectoryTerms(
        terms_of_service=endpoint.terms_of_service,
        website=endpoint.website,
        caa_identities=endpoint.validation.caa.identities,
        external_account_required=endpoint.external_account == "required",
        profiles=endpoint.profiles,
        subdomains=endpoint.subdomains,
        pre_authorization=endpoint.authorization_reuse is not None,
    )
    return encode_directory(Urls(base), terms)
