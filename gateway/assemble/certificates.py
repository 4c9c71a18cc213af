"""Every certificate that a configuration names, and what the end of each one means for the service (RFC 5280 §4.1.2.5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from gateway.assemble.anchors import ProfileAnchors, attestation_roots
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import describe_dates
from gateway.config.acme import AcmeEndpoint
from gateway.config.acme_checks import attestation_formats
from gateway.config.cmp import CmpEndpoint
from gateway.config.document import DataPath, Problem
from gateway.config.est import EstEndpoint
from gateway.config.fields import RaPair
from gateway.config.load import Sources
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig, ScepEndpoint
from gateway.config.upstream_cas import LocalCA as LocalCAConfig
from gateway.errors import Rejection
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.names import format_name

SOON = timedelta(days=30)
"""With less than this left a certificate is worth a warning."""


class Standing(Enum):
    """Whose a certificate is, and whether a service may start without it."""

    CURRENT = "ours, in force"
    RETIRED = "ours, before its time or after it"
    CHALLENGE_ANCHOR = "another's; without it challenges are refused"
    CLIENT_ANCHOR = "another's; without it some certificates are refused"
    RECIPIENT = "another's; private keys are encrypted to it"

    @property
    def is_ours(self) -> bool:
        """Whether its key is the gateway's own, which authenticates nobody."""
        return self in {Standing.CURRENT, Standing.RETIRED}

    @property
    def is_needed(self) -> bool:
        """Whether the service does not start after its end."""
        return self in {Standing.CURRENT, Standing.CHALLENGE_ANCHOR}


@dataclass(frozen=True, slots=True)
class NamedCertificate:
    """One certificate, and the field that names its file."""

    path: DataPath
    certificate: Certificate
    standing: Standing = Standing.CURRENT

    @property
    def subject(self) -> str:
        """Its subject, RFC 4514."""
        return format_name(self.certificate.subject)


def name_certificates(
    config: GatewayConfig,
    sources: Sources,
    cas: Mapping[UpstreamCAName, UpstreamCA],
    anchors: Mapping[ProfileName, ProfileAnchors],
) -> Iterator[NamedCertificate]:
    """Yield every certificate that can be read."""
    for path, file, standing in _files(config):
        yield from (NamedCertificate(path, leaf, standing) for leaf in _read(sources.file(file))[:1])
    for path, file, standing in _bundles(config):
        yield from (NamedCertificate(path, certificate, standing) for certificate in _read(sources.file(file)))
    for ca, upstream in cas.items():
        if isinstance(config.upstream_cas[ca], GroupCA):
            continue  # its members' have been named
        for number, der in enumerate(upstream.chain()):
            field = "chain" if number or not isinstance(config.upstream_cas[ca], LocalCAConfig) else "certificate"
            yield NamedCertificate(("upstream_cas", ca, field), parse_certificate(der))
    for trusted in anchors.values():
        for path, certificate in trusted.challenge_certificates():
            yield NamedCertificate(path, certificate, Standing.CHALLENGE_ANCHOR)
        for path, certificate in trusted.client_certificates():
            yield NamedCertificate(path, certificate, Standing.CLIENT_ANCHOR)


def _files(config: GatewayConfig) -> Iterator[tuple[DataPath, str, Standing]]:
    """Yield the files whose first certificate is the gateway's own."""
    yield ("server", "https", "certificate"), config.server.https.certificate, Standing.CURRENT
    if config.server.https_mtls is not None:
        yield ("server", "https_mtls", "certificate"), config.server.https_mtls.certificate, Standing.CURRENT
    for name, profile in config.profiles.items():
        if profile.endpoints.scep is not None:
            for path, file, standing in _ra_files(profile.endpoints.scep):
                yield ("profiles", name, "endpoints", "scep", *path), file, standing
        if profile.endpoints.est is not None:
            for path, pair in est_pairs(profile.endpoints.est):
                yield ("profiles", name, "endpoints", "est", *path, "certificate"), pair.certificate, Standing.CURRENT
        if profile.endpoints.cmp is not None:
            for path, pair in cmp_pairs(profile.endpoints.cmp):
                yield ("profiles", name, "endpoints", "cmp", *path, "certificate"), pair.certificate, Standing.CURRENT


def est_pairs(endpoint: EstEndpoint) -> Iterator[tuple[DataPath, RaPair]]:
    """Yield the pairs with which an EST endpoint signs, each with its place in the endpoint."""
    if endpoint.cmc is not None:
        yield ("cmc",), endpoint.cmc
    if endpoint.server_keygen is not None and endpoint.server_keygen.signer is not None:
        yield ("server_keygen", "signer"), endpoint.server_keygen.signer


def cmp_pairs(endpoint: CmpEndpoint) -> Iterator[tuple[DataPath, RaPair]]:
    """Yield the pairs with which a CMP endpoint signs, each with its place in the endpoint."""
    yield ("signer",), endpoint.signer
    if endpoint.key_generation is not None:
        yield ("key_generation", "signer"), endpoint.key_generation.signer


def _bundles(config: GatewayConfig) -> Iterator[tuple[DataPath, str, Standing]]:
    """Yield the files of which every certificate counts: of CAs that come and go, and of those whom keys are encrypted to."""
    for name, profile in config.profiles.items():
        scep, est, acme = profile.endpoints.scep, profile.endpoints.est, profile.endpoints.acme
        where: DataPath = ("profiles", name, "endpoints")
        if scep is not None and scep.next_ca is not None:
            yield (*where, "scep", "next_ca"), scep.next_ca, Standing.RETIRED
        if est is not None and est.rollover is not None:
            yield (*where, "est", "rollover"), est.rollover, Standing.RETIRED
        if est is not None and est.server_keygen is not None and est.server_keygen.recipients is not None:
            yield (*where, "est", "server_keygen", "recipients"), est.server_keygen.recipients, Standing.RECIPIENT
        for field, file in attestation_roots(profile):
            yield ("profiles", name, "key_attestation", field), file, Standing.CLIENT_ANCHOR
        if profile.endpoints.cmp is not None:
            for field in ("extra_certificates", "root_update"):
                if (file := getattr(profile.endpoints.cmp, field)) is not None:
                    yield (*where, "cmp", field), file, Standing.RETIRED
        if acme is not None:
            yield from (((*where, "acme", *path), file, standing) for path, file, standing in _acme_bundles(acme))


def _acme_bundles(endpoint: AcmeEndpoint) -> Iterator[tuple[DataPath, str, Standing]]:
    """Yield an endpoint's bundles: roots of makers of devices, and chains above our own CA."""
    for name in attestation_formats(endpoint.validation):
        yield ("validation", "attestation", name), getattr(endpoint.validation.attestation, name), Standing.CLIENT_ANCHOR
    for number, file in enumerate(endpoint.alternate_chains):
        yield ("alternate_chains", number), file, Standing.RETIRED


def _ra_files(endpoint: ScepEndpoint) -> Iterator[tuple[DataPath, str, Standing]]:
    yield ("ra_certificate",), endpoint.ra_certificate, Standing.CURRENT
    if endpoint.ra_encryption is not None:
        yield ("ra_encryption", "certificate"), endpoint.ra_encryption.certificate, Standing.CURRENT
    for number, pair in enumerate(endpoint.previous_ra):
        yield ("previous_ra", number, "certificate"), pair.certificate, Standing.RETIRED


def _read(pem: bytes) -> tuple[Certificate, ...]:
    try:
        return tuple(map(parse_certificate, pem_to_ders(pem)))
    except (Rejection, ValueError):
        return ()


def refuse_own_anchors(certificates: Iterable[NamedCertificate]) -> Iterator[Problem]:
    """Yield anchors of signed challenges whose key is the gateway's own: its keys authenticate nobody."""
    named = tuple(certificates)
    own_keys = {one.certificate.public_key.sha256 for one in named if one.standing.is_ours}
    for one in named:
        if one.standing is Standing.CHALLENGE_ANCHOR and one.certificate.public_key.sha256 in own_keys:
            yield Problem(one.path, f"the key of {one.subject} is the gateway's own, and no issuer's of challenges")


def refuse_expired_anchors(certificates: Iterable[NamedCertificate], now: datetime) -> Iterator[Problem]:
    """Yield the fields whose CAs of clients have all expired: nobody could ever be let in by them.

    One that has expired beside others is only told of: bundles outlive their members, and the others' clients must be served.
    """
    fields: dict[DataPath, list[NamedCertificate]] = {}
    for named in certificates:
        if named.standing is Standing.CLIENT_ANCHOR:
            fields.setdefault(named.path, []).append(named)
    for path, anchors in fields.items():
        if all(now > named.certificate.not_after for named in anchors):
            last = max(anchors, key=lambda named: named.certificate.not_after)
            which = "the certificate" if len(anchors) == 1 else f"all {len(anchors)} certificates have expired; the last,"
            yield Problem(path, f"{which} {last.subject} {describe_dates(last.certificate, now)}")


def refuse_dates(named: NamedCertificate, now: datetime) -> Problem | None:
    """Say why a service does not start with this certificate at `now`; None where it does."""
    fault = describe_dates(named.certificate, now)
    if fault is None or not named.standing.is_needed:
        return None
    if named.standing is Standing.CHALLENGE_ANCHOR and now < named.certificate.not_before:
        return None  # the issuer's next certificate, put in place ahead of its time
    return Problem(named.path, f"the certificate {named.subject} {fault}")


def warn_of_dates(named: NamedCertificate, now: datetime) -> Problem | None:
    """Say what is worth knowing about the dates of a certificate with which a service starts; None for nothing."""
    certificate, name = named.certificate, f"the certificate {named.subject}"
    left = certificate.not_after - now
    match named.standing:
        case Standing.RETIRED:
            if left < timedelta(0):
                return Problem(named.path, f"{name} {describe_dates(certificate, now)}: remove it once no device uses it")
        case Standing.CLIENT_ANCHOR | Standing.CHALLENGE_ANCHOR:
            fault = describe_dates(certificate, now)
            if fault is not None:
                return Problem(named.path, f"{name} {fault}: what it has signed is refused")
            if left < SOON:
                return Problem(named.path, f"{name} ends in {left.days} days: put its successor beside it")
        case Standing.RECIPIENT:
            if left < timedelta(0):
                return Problem(named.path, f"{name} {describe_dates(certificate, now)}, and keys are still encrypted to it")
        case Standing.CURRENT:
            if left < SOON:
                return Problem(named.path, f"{name} ends in {left.days} days: renew it")
    return None
