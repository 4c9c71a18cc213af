"""Compiles the credentials of one profile: each to the provider that judges it, from what was read and proved before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from gateway.assemble.anchors import ProfileAnchors
from gateway.ca.interfaces import UpstreamCA
from gateway.config import credentials as configured
from gateway.config.document import DataPath
from gateway.config.load import Sources
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.trust import TrustAnchors
from gateway.ra.client_path import ClientCertificates, RevocationCheck
from gateway.ra.credentials.all_of import AllOfCredential
from gateway.ra.credentials.basic import BasicCredential
from gateway.ra.credentials.bearer import BearerCredential
from gateway.ra.credentials.cmp_secret import CmpSecretCredential
from gateway.ra.credentials.digest import DigestCredential
from gateway.ra.credentials.interfaces import CredentialProvider, Derive
from gateway.ra.credentials.intune_jws import IntuneJwsCredential
from gateway.ra.credentials.one_time import OneTimeCredential
from gateway.ra.credentials.ra_certificate import RaCertificateCredential
from gateway.ra.credentials.static import StaticCredential
from gateway.ra.credentials.tls_certificate import TlsCertificateCredential
from gateway.ra.credentials.vendor_certificate import VendorCertificateCredential
from gateway.ra.policy.subject import ComparableName
from gateway.ra.profile import AcmeTerms, CmpTerms
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every profile of a generation is compiled with."""

    sources: Sources
    cas: Mapping[UpstreamCAName, UpstreamCA]
    store: Store
    challenge_macs: Callable[[str], tuple[bytes, ...]]
    nonce_macs: Callable[[bytes], tuple[bytes, ...]]
    """HMACs of what goes into nonces of HTTP Digest, newest store key first."""
    derive: Derive
    ocsp: Callable[[configured.Ocsp], RevocationCheck]
    own_keys: frozenset[bytes]
    """SHA-256 of the SubjectPublicKeyInfo of each of the gateway's own keys."""
    reserved_names: frozenset[ComparableName]
    acme: Mapping[ProfileName, AcmeTerms]
    """Of each profile that opens ACME."""
    cmp: Mapping[ProfileName, CmpTerms]
    """Of each profile that opens CMP."""


InChallenge = configured.StaticCredential | configured.OneTimeCredential | configured.IntuneJwsCredential
InHeader = configured.BasicCredential | configured.DigestCredential | configured.BearerCredential
InMessage = configured.CmpSecretCredential | configured.VendorCertificateCredential
InTls = configured.TlsCertificateCredential | configured.RaCertificateCredential


def read_inventory(credential: configured.VendorCertificateCredential, sources: Sources) -> frozenset[str] | None:
    """Return the devices that may enroll by their makers' certificates; None: all of them may."""
    if credential.inventory is None:
        return None
    lines = (line.partition("#")[0].strip() for line in sources.file(credential.inventory).decode("utf-8").splitlines())
    return frozenset(line for line in lines if line)


@dataclass(frozen=True, slots=True)
class CredentialBuilder:
    """Makes the providers of one profile."""

    profile: ProfileName
    retransmission_window: timedelta
    anchors: ProfileAnchors
    around: Surroundings
    updates: RenewalCredential | None = None
    """The profile's own rule of renewal, by which registration authorities update certificates too."""

    def provider(
        self, place: DataPath, credential: configured.SingleCredential | configured.AllOfCredential
    ) -> CredentialProvider:
        """Return what judges the credential at `place` in the profile."""
        match credential:
            case configured.AllOfCredential():
                parts = (self._single((*place, "of", number), member) for number, member in enumerate(credential.of))
                return AllOfCredential(tuple(parts))
            case _:
                return self._single(place, credential)

    def _single(self, place: DataPath, credential: configured.SingleCredential) -> CredentialProvider:
        if isinstance(credential, InTls):
            return self._in_tls(place, credential)
        if isinstance(credential, InMessage):
            return self._in_message(place, credential)
        return self._in_header(place, credential) if isinstance(credential, InHeader) else self._in_challenge(place, credential)

    def _in_challenge(self, place: DataPath, credential: InChallenge) -> CredentialProvider:
        match credential:
            case configured.StaticCredential():
                return StaticCredential(self.profile, self.around.sources.secret(credential.challenge))
            case configured.OneTimeCredential():
                return OneTimeCredential(self.profile, self.around.store, self.around.challenge_macs, self.retransmission_window)
            case configured.IntuneJwsCredential():
                exclusive = not credential.with_other_challenges
                return IntuneJwsCredential(self.profile, self.anchors.signers[place], credential, exclusive=exclusive)

    def _in_header(self, place: DataPath, credential: InHeader) -> CredentialProvider:
        match credential:
            case configured.BasicCredential():
                users = self.around.sources.secret(credential.users)
                return BasicCredential(users, credential.realm, credential.names, self.around.derive, credential.sans)
            case configured.DigestCredential():
                users = self.around.sources.secret(credential.users)
                macs = self.around.nonce_macs
                return DigestCredential(self.profile, users, credential.realm, credential.names, macs, credential.sans)
            case configured.BearerCredential():
                return BearerCredential(self.profile, self.anchors.signers[place], credential)

    def _in_message(self, place: DataPath, credential: InMessage) -> CredentialProvider:
        match credential:
            case configured.CmpSecretCredential():
                return CmpSecretCredential(self.profile)
            case configured.VendorCertificateCredential():
                clients = self._clients(self.anchors.vendors[place], credential.ocsp)
                return VendorCertificateCredential(clients, credential, read_inventory(credential, self.around.sources))

    def _clients(self, anchors: TrustAnchors, ocsp: configured.Ocsp | None) -> ClientCertificates:
        around = self.around
        return ClientCertificates(anchors, around.store, around.own_keys, around.ocsp(ocsp) if ocsp is not None else None)

    def _in_tls(self, place: DataPath, credential: InTls) -> CredentialProvider:
        clients = self._clients(self.anchors.makers[place], credential.ocsp)
        match credential:
            case configured.TlsCertificateCredential():
                return TlsCertificateCredential(clients, credential.names, credential.sans)
            case configured.RaCertificateCredential():
                return RaCertificateCredential(clients, credential.subjects, frozenset(credential.may), self.updates)
