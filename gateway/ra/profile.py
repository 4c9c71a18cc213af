"""Profile and Snapshot: one configuration generation as the registration authority sees it, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from gateway.ca.interfaces import UpstreamCA
from gateway.config.acme import AcmeEndpoint, TrustMode
from gateway.config.cmp import CmpEndpoint
from gateway.config.credentials import CmpSecretCredential
from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, Protocol, UpstreamCAName
from gateway.pki.key_package import KeyGenerationAuthority
from gateway.pki.trust import TrustAnchors
from gateway.ra.attestation import AttestationTerms
from gateway.ra.client_certificate import ClientTrust
from gateway.ra.compliance import ComplianceCheck
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.occupancy import Occupancy
from gateway.ra.policy.subject import ComparableName
from gateway.validation.interfaces import Validation


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `count` certificates in any `window`, for one device or for the whole profile."""

    count: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class RenewalRule:
    """Who may renew here without a challenge ("a certificate is no passport")."""

    from_profiles: frozenset[ProfileName]
    messages: frozenset[str]
    window: timedelta | None
    """How long before notAfter a renewal may begin; None: any time."""
    grace: timedelta
    """How long after notAfter it is still accepted."""
    anchors: TrustAnchors | None = None
    """CAs of a fleet that was enrolled elsewhere, whose certificates may be renewed here as well."""


@dataclass(frozen=True, slots=True)
class AcmeTerms:
    """What a profile lets ACME accounts do.

    `config` is what the file says of it, `validations` how names are validated under each trust mode, the profile's own and those
    that external accounts may name. `base` is the URL of the directory's folder, without a slash at the end.
    """

    config: AcmeEndpoint
    validations: Mapping[TrustMode, Validation] = field(repr=False)
    base: str = ""

    def account_url(self, id: str) -> str:
        """Return the URL of an account of this directory: its Location, its `kid`, and what DNS records name it by."""
        return f"{self.base}/acct/{id}"


@dataclass(frozen=True, slots=True)
class CmpTerms:
    """What a profile lets CMP clients do.

    `config` is what the file says of it; `ca_certificates` are the chain, issuing CA first, `root_update` newWithNew, newWithOld
    and oldWithNew, `request_template` a CertReqTemplateContent, DER all.
    """

    config: CmpEndpoint
    ca_certificates: tuple[bytes, ...] = field(default=(), repr=False)
    extra_certificates: tuple[bytes, ...] = field(default=(), repr=False)
    root_update: tuple[bytes, ...] = field(default=(), repr=False)
    key_authority: KeyGenerationAuthority | None = field(default=None, repr=False)
    """Signs keys that are drawn; None where none are."""
    request_template: bytes | None = field(default=None, repr=False)
    secrets: CmpSecretCredential | None = None
    """How shared secrets may be made; None where the profile takes none."""


LinkingMode = Literal["off", "if_present", "require"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile, compiled: nothing here is parsed or loaded again on a request."""

    name: ProfileName
    endpoints: frozenset[Protocol]
    upstream_ca: UpstreamCA
    credentials: tuple[CredentialProvider, ...]
    policy: PolicyConfig
    renewal: RenewalRule | None
    per_requester: Quota | None
    per_profile: Quota | None
    manual_approval: bool
    retransmission_window: timedelta
    challenge_ttl: timedelta = timedelta(hours=1)
    """Lifetime of a one-time challenge where the operator does not say otherwise."""
    challenge_max_ttl: timedelta = timedelta(days=7)
    reserved_names: frozenset[ComparableName] = frozenset()
    """Subjects of the CAs' and RAs' certificates, as they compare: no request gets one of them."""
    own_keys: frozenset[bytes] = frozenset()
    """SHA-256 of the SubjectPublicKeyInfo of the gateway's RA, TLS and CA keys: they authenticate nobody."""
    client_trust: ClientTrust | None = None
    """Demands a TLS client certificate for every message; None where the profile asks for none."""
    linking: LinkingMode = "off"
    """Whether requests must be tied to their TLS connection (RFC 7030 §3.5)."""
    acme: AcmeTerms | None = None
    """None where the profile does not open ACME."""
    cmp: CmpTerms | None = None
    """None where the profile does not open CMP."""
    key_attestation: AttestationTerms | None = None
    """None where nobody looks at what requests say of their keys."""
    compliance: tuple[ComplianceCheck, ...] = ()
    """What is asked about a device after policy; one that finds fault, or fails, denies."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration generation: read once per request, at the endpoint."""

    generation: int
    profiles: Mapping[ProfileName, Profile]
    upstream_cas: Mapping[UpstreamCAName, UpstreamCA]
    occupancy: Occupancy = field(default_factory=Occupancy, repr=False, compare=False)

    def profile(self, name: ProfileName, protocol: Protocol) -> Profile:
        """Return the profile if it opens this endpoint; raises Rejection UNKNOWN_PROFILE or ENDPOINT_CLOSED."""
        profile = self.profiles.get(name)
        if profile is None:
            raise Rejection(Reason.UNKNOWN_PROFILE, "there is no such profile")
        if protocol not in profile.endpoints:
            raise Rejection(Reason.ENDPOINT_CLOSED, f"this profile does not open {protocol}")
        return profile
