"""The certificates by which one profile knows others: TLS clients, fleets that move here, issuers of signed challenges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from gateway.config.credentials import (
    BearerCredential,
    IntuneJwsCredential,
    RaCertificateCredential,
    TlsCertificateCredential,
    VendorCertificateCredential,
)
from gateway.config.document import DataPath, Problem
from gateway.config.listener_checks import each_credential, renews_by_est
from gateway.config.load import Sources
from gateway.config.schema import ProfileConfig
from gateway.errors import Rejection
from gateway.model import ProfileName
from gateway.pki.certificate import Certificate
from gateway.pki.names import format_name
from gateway.pki.trust import CrlTerm, TrustAnchors
from gateway.ra.credentials.intune_jws import parse_challenge_anchors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NamedCrl:
    """The CRL by which certificates of one CA are judged, and the field that names its file; `term` None: none is in force."""

    path: DataPath
    issuer: str
    term: CrlTerm | None
    ends: datetime | None
    """When the last CRL of this CA ends, whether one is in force or not; None: there is none at all."""

    def warn(self, now: datetime) -> Problem | None:
        """Say what ends, or has ended; None while the CRL is good for long."""
        if self.term is None:
            return Problem(self.path, f"holds no CRL of {self.issuer} that is in force: what this CA has issued is refused")
        if self.term.ends_soon(now):
            sentence = f"the CRL of {self.issuer} ends at {self.term.next_update:%Y-%m-%d %H:%M}Z"
            return Problem(
                self.path, f"{sentence}, and what this CA has issued is refused then: put its successor here and reload"
            )
        return None


@dataclass(frozen=True, slots=True)
class ProfileAnchors:
    """What could be read; None where the profile names none, or where it is wrong."""

    profile: ProfileName
    clients: TrustAnchors | None
    renewals: TrustAnchors | None
    signers: Mapping[DataPath, tuple[Certificate, ...]]
    """The issuers of signed challenges and tokens, by the place of the credential in its profile."""
    makers: Mapping[DataPath, TrustAnchors]
    """The CAs of devices' makers and of registration authorities, by the place of the credential in its profile."""
    renews_by_est: bool
    """Certificates below `renewals` are shown in TLS."""
    vendors: Mapping[DataPath, TrustAnchors]
    """The CAs of makers whose devices sign CMP requests, by the place of the credential in its profile; never shown in TLS."""
    attestation: Mapping[str, TrustAnchors]
    """Whose statements about keys are good, by the field of `key_attestation`."""
    opens_est: bool
    """Certificates below `makers` are shown in TLS; by SCEP and CMP they sign messages."""

    def challenge_certificates(self) -> Iterator[tuple[DataPath, Certificate]]:
        """Yield the certificates whose keys sign challenges and tokens, each with the field that names its file."""
        for place, certificates in self.signers.items():
            path = ("profiles", self.profile, *place, "anchors")
            yield from ((path, certificate) for certificate in certificates)

    def client_bundles(self) -> Iterator[TrustAnchors]:
        """Yield the CAs whose certificates TLS clients show; those of a fleet that moves here only where EST renews."""
        if self.clients is not None:
            yield self.clients
        if self.opens_est:
            yield from self.makers.values()
        if self.renews_by_est and self.renewals is not None:
            yield self.renewals

    def client_certificates(self) -> Iterator[tuple[DataPath, Certificate]]:
        """Yield the CAs of clients and fleets, each with the field that names its file."""
        for path, _, anchors in self._bundles():
            yield from ((path, certificate) for certificate in anchors.certificates)

    def crls(self, now: datetime) -> Iterator[NamedCrl]:
        """Yield what each CA, where revocation is judged, has for a CRL at `now`."""
        for _, path, anchors in self._bundles():
            terms = zip(anchors.crl_terms(now), anchors.crl_ends(), strict=True)
            yield from (NamedCrl(path, format_name(ca.subject), term, ends) for (ca, term), (_, ends) in terms)

    def _bundles(self) -> Iterator[tuple[DataPath, DataPath, TrustAnchors]]:
        """Yield the fields of the certificates and of the CRLs of each bundle, and the bundle."""
        scep, renewal = (("profiles", self.profile, *where) for where in (("endpoints", "scep"), ("renewal", "anchors")))
        if self.clients is not None:
            yield (*scep, "client_anchors"), (*scep, "client_crls"), self.clients
        if self.renewals is not None:
            yield (*renewal, "certificates"), (*renewal, "crls"), self.renewals
        for place, anchors in (*self.makers.items(), *self.vendors.items()):
            credential = ("profiles", self.profile, *place)
            yield (*credential, "anchors"), (*credential, "crls"), anchors


def read_anchors(name: ProfileName, profile: ProfileConfig, sources: Sources) -> tuple[ProfileAnchors, tuple[Problem, ...]]:
    """Return the anchors of one profile, and what is wrong with their files."""
    found: list[Problem] = []
    clients = renewals = None
    scep = profile.endpoints.scep
    if scep is not None and scep.client_anchors is not None:
        where: DataPath = ("profiles", name, "endpoints", "scep")
        fields = ((*where, "client_anchors"), (*where, "client_crls"))
        clients = _read_bundle(fields, (scep.client_anchors, scep.client_crls), sources, found)
    if profile.renewal is not None and profile.renewal.anchors is not None:
        where = ("profiles", name, "renewal", "anchors")
        files = (profile.renewal.anchors.certificates, profile.renewal.anchors.crls)
        renewals = _read_bundle(((*where, "certificates"), (*where, "crls")), files, sources, found)
    by_est = profile.endpoints.est is not None and renews_by_est(profile.renewal)
    signers: dict[DataPath, tuple[Certificate, ...]] = {}
    makers: dict[DataPath, TrustAnchors] = {}
    vendors: dict[DataPath, TrustAnchors] = {}
    for place, credential in each_credential(profile.credentials):
        path = ("profiles", name, *place)
        match credential:
            case IntuneJwsCredential(anchors=file) | BearerCredential(anchors=file):
                certificates = _read((*path, "anchors"), file, partial(parse_challenge_anchors, sources.file(file)), found)
                if certificates is not None:
                    signers[place] = certificates
            case TlsCertificateCredential() | RaCertificateCredential() | VendorCertificateCredential():
                fields = ((*path, "anchors"), (*path, "crls"))
                anchors = _read_bundle(fields, (credential.anchors, credential.crls), sources, found)
                if anchors is not None:
                    (vendors if isinstance(credential, VendorCertificateCredential) else makers)[place] = anchors
            case _:
                continue
    attestation = _read_attestation_roots(name, profile, sources, found)
    bundles = (MappingProxyType(signers), MappingProxyType(makers), by_est, MappingProxyType(vendors), attestation)
    return ProfileAnchors(name, clients, renewals, *bundles, profile.endpoints.est is not None), tuple(found)


def _read_attestation_roots(
    name: ProfileName, profile: ProfileConfig, sources: Sources, found: list[Problem]
) -> Mapping[str, TrustAnchors]:
    roots: dict[str, TrustAnchors] = {}
    for field, file in attestation_roots(profile):
        path = ("profiles", name, "key_attestation", field)
        anchors = _read(path, file, partial(TrustAnchors.parse, sources.file(file)), found)
        if anchors is not None:
            roots[field] = anchors
    return MappingProxyType(roots)


def attestation_roots(profile: ProfileConfig) -> Iterator[tuple[str, str]]:
    """Yield the fields of `key_attestation` that name roots, and their files."""
    if profile.key_attestation is not None:
        files = ((field, getattr(profile.key_attestation, field)) for field in ("tpm_roots", "step_roots"))
        yield from ((field, file) for field, file in files if file is not None)


def _read_bundle(
    fields: tuple[DataPath, DataPath], files: tuple[str, str | None], sources: Sources, found: list[Problem]
) -> TrustAnchors | None:
    """Read certificates first, so that a fault is told of the file that it is in."""
    certificates, crls = files
    pem = sources.file(certificates)
    anchors = _read(fields[0], certificates, partial(TrustAnchors.parse, pem), found)
    if anchors is None or crls is None:
        return anchors
    return _read(fields[1], crls, partial(TrustAnchors.parse, pem, sources.file(crls)), found)


def _read(path: DataPath, file: str, read: Callable[[], T], found: list[Problem]) -> T | None:
    try:
        return read()
    except (Rejection, ValueError) as error:
        found.append(Problem(path, f"{file}: {error.cause if isinstance(error, Rejection) else error}"))
        return None
