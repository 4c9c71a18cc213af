"""Builds the CMP endpoints of a generation: what they sign with, what goes beside certificates, and under which paths they are.

RFC 9483 §3.2 (signer), RFC 9810 §5.3.19.15 (change of roots), RFC 9811 §3.3 (paths).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.assemble.certificates import NamedCertificate, cmp_pairs
from gateway.assemble.cmp_template import encode_request_template
from gateway.assemble.scep_ra import prove_signer
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.key_source import is_in_token, read_key
from gateway.config.cmp import CmpEndpoint
from gateway.config.credentials import CmpSecretCredential
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.fields import RaPair
from gateway.config.load import Sources
from gateway.config.schema import GatewayConfig, ProfileConfig
from gateway.errors import Rejection
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.cms import Signer
from gateway.pki.extensions import eku_oid
from gateway.pki.key_package import KeyGenerationAuthority
from gateway.pki.names import format_name
from gateway.pki.trust import check_pair, verify_issued_by
from gateway.ra.profile import CmpTerms
from gateway.web.generation import CmpService, FailureLimit
from gateway.wire.cmp.protection import Protector

SLOW_RSA_BITS = 3072
"""From this size on a private-key operation takes long enough (0.7 ms and more) to be kept off the event loop."""
_KEY_GENERATION: DataPath = ("key_generation", "signer")


@dataclass(frozen=True, slots=True)
class SignerIdentity:
    """A certificate with its key, and what leads from it towards a root that is not sent (RFC 9483 §3.3)."""

    signer: Signer
    chain: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CmpIdentity:
    """What one endpoint shows and signs with, read and proved; certificates are DER."""

    signer: SignerIdentity
    key_authority: KeyGenerationAuthority | None = field(repr=False)
    ca_certificates: tuple[bytes, ...] = field(repr=False)
    """The chain of the CA, issuing CA first."""
    extra_certificates: tuple[bytes, ...] = field(repr=False)
    root_update: tuple[bytes, ...] = field(repr=False)
    """newWithNew, then newWithOld and oldWithNew where there are such."""


def build_cmp(where: DataPath, endpoint: CmpEndpoint, sources: Sources, chain: tuple[bytes, ...]) -> CmpIdentity:
    """Build what the endpoint at `where` is; raises ConfigurationFaults where its certificates and keys do not serve."""
    faults: list[Problem] = []
    signers = {place: _read_signer((*where, *place), pair, sources, chain, faults) for place, pair in cmp_pairs(endpoint)}
    extra = _read_certificates((*where, "extra_certificates"), endpoint.extra_certificates, sources, faults)
    update = _read_root_update((*where, "root_update"), endpoint.root_update, sources, chain, faults)
    signer, key_signer = signers[("signer",)], signers.get(_KEY_GENERATION)
    if key_signer is not None:
        faults += _check_key_signer((*where, *_KEY_GENERATION, "certificate"), key_signer)
    if faults or signer is None:
        raise ConfigurationFaults(*faults)
    key_authority = None if key_signer is None else KeyGenerationAuthority.create(key_signer.signer, key_signer.chain)
    return CmpIdentity(signer, key_authority, chain, tuple(certificate.der for certificate in extra), update)


def _read_signer(
    where: DataPath, pair: RaPair, sources: Sources, chain: tuple[bytes, ...], faults: list[Problem]
) -> SignerIdentity | None:
    """Read a pair that signs, and try it."""
    at = (*where, "certificate")
    try:
        leaf, *above = map(parse_certificate, pem_to_ders(sources.file(pair.certificate)))
    except (Rejection, ValueError):
        faults.append(Problem(at, f"{pair.certificate} does not hold a readable PEM certificate"))
        return None
    fault = _signer_fault(leaf)
    if fault is not None:
        faults.append(Problem(at, f"{format_name(leaf.subject)} {fault}"))
        return None
    try:
        key = read_key(pair.key, sources)
        check_pair(leaf.der, key)
        signer = Signer.create(leaf.der, key)
        prove_signer(signer)
    except ValueError as error:
        faults.append(Problem((*where, "key"), f"{pair.key}: {error}"))
        return None
    return SignerIdentity(signer, _path_above(leaf, (*above, *map(parse_certificate, chain))))


def _signer_fault(certificate: Certificate) -> str | None:
    """Say why clients would not take what this certificate signs (RFC 9483 §3.2); OpenSSL looks at the key usage."""
    if certificate.is_ca:
        return "is a CA certificate: answers are signed with a certificate of their own"
    if certificate.key_usage is not None and "digitalSignature" not in certificate.key_usage:
        return "has a key usage without digitalSignature: clients refuse what it signs"
    if certificate.subject_key_id is None:
        return "has no subject key identifier, which clients find it by (senderKID)"
    return None


def _check_key_signer(path: DataPath, identity: SignerIdentity) -> Iterator[Problem]:
    """RFC 9483 §4.1.6: whoever signs a key that was drawn must be allowed to."""
    certificate = parse_certificate(identity.signer.certificate)
    if certificate.ekus is None or eku_oid("cmKGA") not in certificate.ekus:
        sentence = (
            f"{format_name(certificate.subject)} lacks id-kp-cmKGA in its extended key usage: devices would refuse its keys"
        )
        yield Problem(path, sentence)


def _path_above(leaf: Certificate, pool: Iterable[Certificate]) -> tuple[bytes, ...]:
    """Return what leads up from a certificate, DER, the root left out: clients have that, or would not believe it."""
    known, below = tuple(pool), leaf
    path: list[bytes] = []
    while len(path) < len(known):
        issuer = next((ca for ca in known if ca.der not in path and ca.der != below.der and _has_issued(ca, below)), None)
        if issuer is None or _has_issued(issuer, issuer):
            break
        path.append(issuer.der)
        below = issuer
    return tuple(path)


def _has_issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        verify_issued_by(certificate, issuer)
    except Rejection:
        return False
    return True


def _read_certificates(path: DataPath, file: str | None, sources: Sources, faults: list[Problem]) -> tuple[Certificate, ...]:
    if file is None:
        return ()
    try:
        return tuple(map(parse_certificate, pem_to_ders(sources.file(file))))
    except (Rejection, ValueError):
        faults.append(Problem(path, f"{file} does not hold readable PEM certificates"))
        return ()


def _read_root_update(
    path: DataPath, file: str | None, sources: Sources, chain: tuple[bytes, ...], faults: list[Problem]
) -> tuple[bytes, ...]:
    """Read a change of roots: newWithNew, newWithOld and oldWithNew, in whatever order (RFC 9810 §4.4).

    Clients put the new root in place of the old one, so the links between the two must be proved before they are told.
    """
    found = _read_certificates(path, file, sources, faults)
    if not found:
        return ()
    roots = [certificate for certificate in found if certificate.is_ca and _has_issued(certificate, certificate)]
    old = next((ca for ca in map(parse_certificate, chain) if _has_issued(ca, ca)), None)
    new = next((root for root in roots if old is None or root.public_key.sha256 != old.public_key.sha256), None)
    if new is None:
        faults.append(Problem(path, f"{file} holds no new root: a self-signed CA certificate that is not in the chain"))
        return ()
    links = _find_links(path, new, old, [one for one in found if one is not new and one not in roots], faults)
    return (new.der, *(link.der for link in links))


def _find_links(
    path: DataPath, new: Certificate, old: Certificate | None, others: list[Certificate], faults: list[Problem]
) -> tuple[Certificate, ...]:
    """Return newWithOld and oldWithNew; what is neither goes to `faults`."""
    by_old: Certificate | None = None
    by_new: Certificate | None = None
    for certificate in others:
        name = format_name(certificate.subject)
        if old is None:
            faults.append(
                Problem(path, f"{name} links an old root and a new one, and no root is in the chain of the upstream CA")
            )
        elif certificate.public_key.sha256 == new.public_key.sha256 and _has_issued(old, certificate):
            by_old = by_old or certificate
        elif certificate.public_key.sha256 == old.public_key.sha256 and _has_issued(new, certificate):
            by_new = by_new or certificate
        else:
            faults.append(Problem(path, f"{name} is neither the new root under the old key nor the old one under the new"))
    if by_new is not None and by_old is None:
        faults.append(
            Problem(path, "holds OldWithNew without NewWithOld, by which clients come from the old root to the new one")
        )
    return tuple(link for link in (by_old, by_new) if link is not None)


def build_cmp_identities(
    config: GatewayConfig, sources: Sources, cas: Mapping[UpstreamCAName, UpstreamCA], problems: list[Problem]
) -> dict[ProfileName, CmpIdentity]:
    """Return what every CMP endpoint is; what is wrong goes to `problems`."""
    found = {}
    for name, profile in config.profiles.items():
        if profile.endpoints.cmp is None:
            continue
        ca = cas.get(UpstreamCAName(profile.upstream_ca))
        try:
            where: DataPath = ("profiles", name, "endpoints", "cmp")
            found[ProfileName(name)] = build_cmp(where, profile.endpoints.cmp, sources, ca.chain() if ca else ())
        except ConfigurationFaults as error:
            problems += error.faults
    return found


def refuse_shared_signers(certificates: Iterable[NamedCertificate]) -> Iterator[Problem]:
    """Yield CMP signers whose key is that of a CA, a TLS listener or another RA too: one that leaks would be all of them."""
    named = tuple(certificates)
    others = {one.certificate.public_key.sha256: one for one in named if one.standing.is_ours and not _is_of_cmp(one.path)}
    for one in named:
        other = others.get(one.certificate.public_key.sha256)
        signs = _is_of_cmp(one.path) and one.path[-1] == "certificate" and not one.certificate.is_ca
        if signs and one.standing.is_ours and other is not None:
            place = ".".join(map(str, other.path))
            yield Problem(
                one.path, f"the key of {one.subject} is that of {place} too: answers are signed with a key of their own"
            )


def _is_of_cmp(path: DataPath) -> bool:
    return path[:1] == ("profiles",) and path[2:4] == ("endpoints", "cmp")


def cmp_terms(config: GatewayConfig, identities: Mapping[ProfileName, CmpIdentity]) -> dict[ProfileName, CmpTerms]:
    """Return what each profile that opens CMP lets clients do."""
    terms = {}
    for name, identity in identities.items():
        endpoint = config.profiles[name].endpoints.cmp
        if endpoint is not None:
            terms[name] = CmpTerms(
                config=endpoint,
                ca_certificates=identity.ca_certificates,
                extra_certificates=identity.extra_certificates,
                root_update=identity.root_update,
                request_template=encode_request_template(config.profiles[name].policy),
                key_authority=identity.key_authority,
                secrets=_secrets(config.profiles[name]),
            )
    return terms


def _secrets(profile: ProfileConfig) -> CmpSecretCredential | None:
    """Return how the profile's shared secrets may be made."""
    return next((one for one in profile.credentials if isinstance(one, CmpSecretCredential)), None)


def cmp_services(config: GatewayConfig, identities: Mapping[ProfileName, CmpIdentity]) -> dict[str, CmpService]:
    """Return every service by each of its paths."""
    services = {}
    for name, identity in identities.items():
        profile = config.profiles[name]
        endpoint = profile.endpoints.cmp
        if endpoint is None:
            continue
        failures = profile.limits.failures_per_address
        service = CmpService(
            profile=name,
            signer=identity.signer.signer,
            protector=Protector.create(identity.signer.signer, identity.signer.chain, strictness=endpoint.strictness),
            failure_limit=FailureLimit(failures.count, failures.window) if failures else None,
            offload=_is_slow(identity.signer.signer),
            ends=parse_certificate(identity.signer.signer.certificate).not_after,
        )
        services.update(dict.fromkeys(endpoint.paths(name), service))
    return services


def _is_slow(signer: Signer) -> bool:
    key = parse_certificate(signer.certificate).public_key
    return is_in_token(signer.key) or (key.algorithm == "rsa" and key.bits >= SLOW_RSA_BITS)


def cmp_signers(services: Iterable[CmpService], terms: Iterable[CmpTerms | None]) -> tuple[Signer, ...]:
    """Return what protects answers and what signs keys that are drawn, each once."""
    protecting = (service.signer for service in services)
    drawing = (one.key_authority.signer for one in terms if one is not None and one.key_authority is not None)
    return tuple({signer.certificate: signer for signer in (*protecting, *drawing)}.values())
