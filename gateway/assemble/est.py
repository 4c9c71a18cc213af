"""Builds the EST endpoints of a generation: what they sign with, whom they encrypt to, and every answer that can be prepared.

RFC 7030 §4.1.3 (cacerts), §4.4 (server-side keys), §4.5 (CSR attributes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType

from gateway.assemble.certificates import est_pairs
from gateway.assemble.csrattrs import find_demands
from gateway.assemble.scep_ra import prove_signer
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.key_source import read_key
from gateway.config.credentials import BasicCredential, DigestCredential
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.est import EstEndpoint, ServerKeygen
from gateway.config.est_checks import key_identifier, wrapping_key
from gateway.config.fields import RaPair
from gateway.config.listener_checks import each_credential
from gateway.config.load import Sources
from gateway.config.schema import GatewayConfig, ProfileConfig
from gateway.errors import Rejection
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.cms import Signer
from gateway.pki.key_package import CertificateRecipient
from gateway.pki.names import format_name
from gateway.pki.trust import check_pair, verify_issued_by
from gateway.ra.credentials.digest import parse_digest_file
from gateway.ra.credentials.passwords import parse_password_file
from gateway.web.generation import EstService, FailureLimit, KeygenService, Prepared
from gateway.wire.est.csrattrs import encode_csrattrs
from gateway.wire.est.messages import encode_base64, encode_certs_only
from gateway.wire.est.server_keygen import KeyRecipients

WITHOUT_LABEL = ""
"""The label of the service at `/.well-known/est` itself."""
_CHALLENGES = frozenset({"static", "one_time"})


@dataclass(frozen=True, slots=True)
class EstIdentity:
    """What one endpoint shows and signs with, read and proved."""

    ca_certificates: tuple[bytes, ...] = field(repr=False)
    """The CA chain, root last, then what leads from an old root to a new one; DER."""
    signers: Mapping[DataPath, Signer] = field(repr=False)
    """By their place in the endpoint."""
    recipients: tuple[CertificateRecipient, ...] = field(repr=False)


def build_est(where: DataPath, endpoint: EstEndpoint, sources: Sources, chain: tuple[bytes, ...]) -> EstIdentity:
    """Build what the endpoint at `where` is; raises ConfigurationFaults where its certificates and keys do not serve."""
    faults: list[Problem] = []
    signers: dict[DataPath, Signer] = {}
    for place, pair in est_pairs(endpoint):
        signer = _read_signer((*where, *place), pair, sources, faults)
        if signer is not None:
            signers[place] = signer
    keygen = endpoint.server_keygen
    recipients = () if keygen is None else _read_recipients((*where, "server_keygen", "recipients"), keygen, sources, faults)
    rollover = _read_rollover((*where, "rollover"), endpoint.rollover, sources, chain, faults)
    if faults:
        raise ConfigurationFaults(*faults)
    return EstIdentity(tuple(dict.fromkeys((*chain, *rollover))), MappingProxyType(signers), recipients)


def _read_signer(where: DataPath, pair: RaPair, sources: Sources, faults: list[Problem]) -> Signer | None:
    """Read a pair that signs, and try it."""
    try:
        leaf = pem_to_ders(sources.file(pair.certificate))[0]
        certificate = parse_certificate(leaf)
    except (Rejection, ValueError):
        faults.append(Problem((*where, "certificate"), f"{pair.certificate} does not hold a readable PEM certificate"))
        return None
    if certificate.key_usage is not None and "digitalSignature" not in certificate.key_usage:
        faults.append(
            Problem((*where, "certificate"), f"the key usage of {format_name(certificate.subject)} lacks digitalSignature")
        )
        return None
    try:
        key = read_key(pair.key, sources)
        check_pair(leaf, key)
        signer = Signer.create(leaf, key)
        prove_signer(signer)
    except ValueError as error:
        faults.append(Problem((*where, "key"), f"{pair.key}: {error}"))
        return None
    return signer


def _read_recipients(
    path: DataPath, keygen: ServerKeygen, sources: Sources, faults: list[Problem]
) -> tuple[CertificateRecipient, ...]:
    """Read the certificates that private keys may be encrypted to."""
    if keygen.recipients is None:
        return ()
    found = []
    try:
        for number, der in enumerate(pem_to_ders(sources.file(keygen.recipients)), start=1):
            found.append(_recipient(number, der))
    except ValueError as error:
        faults.append(Problem(path, f"{keygen.recipients}: {error}"))
    except Rejection as error:
        faults.append(Problem(path, f"{keygen.recipients}: {error.cause}"))
    return tuple(found)


def _recipient(number: int, der: bytes) -> CertificateRecipient:
    try:
        return CertificateRecipient.create(der)
    except ValueError as error:
        raise ValueError(f"nothing can be encrypted to certificate {number}: {error}") from error


def _read_rollover(
    path: DataPath, file: str | None, sources: Sources, chain: tuple[bytes, ...], faults: list[Problem]
) -> tuple[bytes, ...]:
    """Read the certificates of a change of roots: OldWithOld, OldWithNew and NewWithOld (RFC 4210 §4.4)."""
    if file is None:
        return ()
    try:
        ders = pem_to_ders(sources.file(file))
        certificates = tuple(map(parse_certificate, ders))
    except (Rejection, ValueError):
        faults.append(Problem(path, f"{file} does not hold readable PEM certificates"))
        return ()
    known = (*map(parse_certificate, chain), *certificates)
    for certificate in certificates:
        if not certificate.is_ca:
            faults.append(Problem(path, f"{format_name(certificate.subject)} is no CA certificate: clients would not take it"))
        elif not any(_has_issued(issuer, certificate) for issuer in known):
            sentence = f"{format_name(certificate.subject)} was issued by no CA of the chain, nor of this file"
            faults.append(Problem(path, f"{sentence}: it leads nowhere"))
    return ders


def _has_issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        verify_issued_by(certificate, issuer)
    except Rejection:
        return False
    return True


def build_identities(
    config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA], problems: list[Problem]
) -> dict[ProfileName, EstIdentity]:
    """Return what every EST endpoint is; what is wrong goes to `problems`."""
    found = {}
    for name, profile in config.profiles.items():
        if profile.endpoints.est is None:
            continue
        ca = cas.get(UpstreamCAName(profile.upstream_ca))
        try:
            where: DataPath = ("profiles", name, "endpoints", "est")
            found[ProfileName(name)] = build_est(where, profile.endpoints.est, sources, ca.chain() if ca else ())
        except ConfigurationFaults as error:
            problems += error.faults
    return found


def check_users(config: GatewayConfig, sources: Sources) -> Iterator[Problem]:
    """Yield files of users that cannot be used; nothing of them is shown."""
    for name, profile in config.profiles.items():
        for place, credential in each_credential(profile.credentials):
            if isinstance(credential, BasicCredential | DigestCredential):
                fault = _users_fault(credential, sources.secret(credential.users))
                if fault is not None:
                    yield Problem(("profiles", name, *place, "users"), f"{credential.users}: {fault}")


def _users_fault(credential: BasicCredential | DigestCredential, data: bytes) -> str | None:
    try:
        users = parse_password_file(data) if isinstance(credential, BasicCredential) else parse_digest_file(data)
    except ValueError as error:
        return str(error)
    if "" in users and credential.names == "user":
        return "has a user without a name, whom no CN can equal: say names: any if that is meant"
    return None


def warn_of_est_chains(identities: Mapping[ProfileName, EstIdentity]) -> Iterator[Problem]:
    """Yield chains without a root, which clients look for in `cacerts` (RFC 7030 §4.1.3)."""
    for name, identity in identities.items():
        certificates = tuple(map(parse_certificate, identity.ca_certificates))
        if certificates and not any(_has_issued(ca, ca) for ca in certificates):
            sentence = "has no self-signed root in its chain, which EST clients must get from cacerts"
            yield Problem(("profiles", name, "upstream_ca"), f"{sentence}; add it to the chain of upstream_cas")


Challenges = Callable[[datetime], tuple[str, ...]]


def est_services(
    config: GatewayConfig,
    sources: Sources,
    identities: Mapping[ProfileName, EstIdentity],
    challenges: Callable[[ProfileName], Challenges],
) -> dict[str, EstService]:
    """Return every service by its label, and the default one under the empty label too."""
    services = {}
    for name, identity in identities.items():
        profile = config.profiles[name]
        endpoint = profile.endpoints.est
        if endpoint is None:
            continue
        service = _est_service(name, profile, endpoint, sources, identity, challenges(name))
        services[endpoint.label or name] = service
        if endpoint.default:
            services[WITHOUT_LABEL] = service
    return services


def est_signers(services: Iterable[EstService]) -> tuple[Signer, ...]:
    """Return what these services sign with, each once."""
    found: dict[bytes, Signer] = {}
    for service in services:
        keygen = service.server_keygen
        for signer in (service.cmc, keygen.recipients.signer if keygen is not None else None):
            if signer is not None:
                found.setdefault(signer.certificate, signer)
    return tuple(found.values())


def _est_service(
    name: ProfileName,
    profile: ProfileConfig,
    endpoint: EstEndpoint,
    sources: Sources,
    identity: EstIdentity,
    challenges: Challenges,
) -> EstService:
    failures = profile.limits.failures_per_address
    return EstService(
        profile=name,
        ca_certificates=_prepare(partial(encode_certs_only, identity.ca_certificates)),
        csr_attributes=_csr_attributes(profile, endpoint),
        base64_wrap=endpoint.base64_wrap,
        challenges=challenges,
        failure_limit=FailureLimit(failures.count, failures.window) if failures else None,
        server_keygen=_keygen_service(endpoint.server_keygen, sources, identity) if endpoint.server_keygen else None,
        cmc=identity.signers.get(("cmc",)),
        renewal_info=endpoint.renewal_info,
    )


def _prepare(encode: Callable[[bool], bytes]) -> Prepared:
    return Prepared(in_lines=encode(True), in_one=encode(False))


def _csr_attributes(profile: ProfileConfig, endpoint: EstEndpoint) -> Prepared | None:
    if endpoint.csrattrs == "off":
        return None
    by_challenge = bool(profile.credentials) and all(credential.type in _CHALLENGES for credential in profile.credentials)
    demands = find_demands(profile.policy, linking=endpoint.pop_linking == "require", one_time_password=by_challenge)
    encoded = encode_csrattrs(demands, endpoint.csrattrs)
    return None if encoded is None else _prepare(partial(encode_base64, encoded))


def _keygen_service(keygen: ServerKeygen, sources: Sources, identity: EstIdentity) -> KeygenService:
    """Take the keys as they were checked when the file was read."""
    keys = {
        identifier: key
        for text, source in keygen.symmetric_keys.items()
        if (identifier := key_identifier(text)) is not None and (key := wrapping_key(sources.secret(source))) is not None
    }
    signer = identity.signers.get(("server_keygen", "signer"))
    recipients = KeyRecipients(MappingProxyType(keys), identity.recipients, signer, keygen.require_encryption)
    return KeygenService(keygen.keys, recipients)
