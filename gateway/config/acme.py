"""ACME endpoints of the configuration file (RFC 8555, RFC 9773)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import ConfigName, Duration, FilePath, HttpUrl, Model, Network, Pattern, QuotaConfig, SecretSource

AcmeChallenge = Literal["http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01", "device-attest-01"]
AttestationFormat = Literal["apple", "tpm", "step"]
TrustMode = Literal["standard", "prevalidated", "client_ip_forward", "client_ip_reverse", "webhook", "attestation", "none"]
ClientReason = Literal[
    "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn"
]
DnsText = Annotated[str, Field(min_length=1, max_length=253)]


class Resolver(Model):
    """Who is asked for addresses and records of the names that are validated."""

    servers: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """IP addresses of DNS servers, with a port where it is not 53: `192.0.2.53`, `"[2001:db8::53]:5353"`; none: the system's."""
    hosts: dict[DnsText, tuple[str, ...]] = Field(default_factory=dict)
    """Addresses of names that no DNS server is asked for; `*.example.test` is every name below."""
    timeout: Duration = Field(default="8s", validate_default=True)
    """How long one question may take, all servers together."""
    tcp: bool = False
    """Ask over TCP only."""


class Caa(Model):
    """CAA records (RFC 8659, RFC 8657)."""

    mode: Literal["off", "log", "enforce"] = "log"
    """`log`: what they forbid is only logged."""
    identities: Annotated[tuple[DnsText, ...], Field(max_length=10)] = ()
    """Names by which records may permit this CA; the directory and dns-persist-01 tell them to clients."""


class Prevalidated(Model):
    """Names whose control needs no proof: who may order them is the account's external account."""

    dns: tuple[Pattern, ...] = ()
    """Regular expressions that a DNS name must match whole."""
    ip: tuple[Network, ...] = ()
    """Networks that an address must be in."""


class ValidationWebhook(Model):
    """A service of yours that says who may have a name: it is sent JSON with identifier, account and address."""

    url: HttpUrl
    """Where it is asked, by POST; 200 with `{"allow": true}` allows."""
    secret: SecretSource
    """Signs each question: HMAC-SHA-256 of the body, hex, in `X-Gateway-Signature`."""
    timeout: Duration = Field(default="5s", validate_default=True)
    """How long it may take; then the name is refused."""


class Attestation(Model):
    """device-attest-01 (draft-ietf-acme-device-attest)."""

    apple: FilePath | None = None
    """PEM roots of Apple's attestations (Apple Enterprise Attestation Root CA); absent: the format is refused."""
    tpm: FilePath | None = None
    """PEM roots of the makers of TPMs, or of the CA that certifies attestation keys; absent: the format is refused."""
    step: FilePath | None = None
    """PEM roots of YubiKey PIV attestations; absent: the format is refused."""


class AcmeValidation(Model):
    """How control of a name is proved."""

    mode: TrustMode = "standard"
    """`standard`: by challenges; `attestation`: by device-attest-01 alone; `prevalidated`: names below are good at once, others
    by challenges; `client_ip_forward`: the name's address must be the client's; `client_ip_reverse`: and the PTR of that address
    must be the name; `webhook`: a service of yours says so; `none`: nothing is proved, see `acknowledge_no_validation`."""
    challenges: Annotated[tuple[AcmeChallenge, ...], Field(min_length=1)] = ("http-01", "dns-01", "tls-alpn-01")
    """Challenges that are offered."""
    allow_cidrs: tuple[Network, ...] = ()
    """Networks that may be connected to; none: all but `deny_cidrs` and what is never connected to unasked: loopback, link-local,
    multicast, cloud metadata, this server and its CAs."""
    deny_cidrs: tuple[Network, ...] = ()
    """Networks that are never connected to."""
    http01_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Another port than 80, for trials: only where `allow_cidrs` names loopback."""
    tlsalpn01_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Another port than 443, for trials: only where `allow_cidrs` names loopback."""
    resolver: Resolver = Resolver()
    """Who is asked for DNS records."""
    caa: Caa = Caa()
    """CAA records."""
    prevalidated: Prevalidated = Prevalidated()
    """Names that are good at once."""
    webhook: ValidationWebhook | None = None
    """The service that mode `webhook` asks."""
    attestation: Attestation = Attestation()
    """Whose attestations are good."""
    acknowledge_no_validation: bool = False
    """Mode `none` and `prevalidated` patterns that match everything are refused without it."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """How often a challenge is tried."""
    attempt_every: Duration = Field(default="5s", validate_default=True)
    """Pause before the second attempt; each further one is that much longer."""


class AcmeRenewal(Model):
    """What clients are told about when to renew (RFC 9773)."""

    before: Duration | None = None
    """How long before its end a certificate should be renewed; absent: a third of its life, half of one shorter than 10 days."""
    retry_after: Duration = Field(default="6h", validate_default=True)
    """When clients should ask again."""
    foreign_replaces: Literal["ignore", "reject"] = "ignore"
    """Orders that replace a certificate that was not issued here: fleets that move from another CA."""


class AcmeLimits(Model):
    """How much; absent is unlimited."""

    orders_per_account: QuotaConfig | None = QuotaConfig(count=300, window="3h")  # type: ignore[arg-type]  # read as in the file
    """New orders of one account."""
    orders_per_external_account: QuotaConfig | None = None
    """New orders of all accounts of one external account."""
    orders: QuotaConfig | None = None
    """New orders of the whole profile."""
    accounts_per_address: QuotaConfig | None = QuotaConfig(count=50, window="3h")  # type: ignore[arg-type]  # read as in the file
    """New accounts from one source address."""
    failed_validations: QuotaConfig | None = QuotaConfig(count=30, window="1h")  # type: ignore[arg-type]  # read as in the file
    """Failed validations of one name by one account."""


class AcmeEndpoint(Model):
    """ACME at `/acme/PROFILE/directory` (RFC 8555)."""

    external_account: Literal["off", "optional", "required"] = "off"
    """Whether accounts must be bound to an external account (`pki-gateway eab create`)."""
    validation: AcmeValidation = AcmeValidation()
    """How control of a name is proved."""
    profiles: dict[ConfigName, Annotated[str, Field(min_length=1, max_length=512)]] = Field(default_factory=dict)
    """Other profiles of this file that orders may ask for by name, each with a description or a URL
    (draft-ietf-acme-profiles); each opens ACME itself, and its own policy, CA and validation count. Without a name an order is
    this profile's."""
    terms_of_service: HttpUrl | None = None
    """Accounts must agree to it."""
    website: HttpUrl | None = None
    """About this CA."""
    aliases: Annotated[tuple[HttpUrl, ...], Field(max_length=8)] = ()
    """Other URLs of the directory's folder, of a server that this one replaces: `https://acme.example.com/acme`; clients that
    were set up with them go on working."""
    cors_origins: tuple[str, ...] = ("*",)
    """Origins whose scripts may use this endpoint."""
    subdomains: bool = False
    """Authorizations of a domain may stand for names below it (RFC 9444)."""
    authorization_reuse: Duration | None = None
    """How long a valid authorization serves further orders of its account; absent: one order only, and no newAuthz."""
    order_lifetime: Duration = Field(default="7d", validate_default=True)
    """How long an order, and what it needs to be authorized, waits."""
    max_identifiers: Annotated[int, Field(ge=1, le=1000)] = 100
    """Most names in one order."""
    finalize_wait: Duration = Field(default="8s", validate_default=True)
    """How long finalize waits for the CA before it answers `processing`; at most 25s."""
    ml_dsa_accounts: bool = False
    """Take account keys of ML-DSA (RFC 9964)."""
    padded_csr: bool = False
    """Take CSRs in base64url with padding (old Synology)."""
    revocation_reasons: tuple[ClientReason, ...] = (
        "unspecified",
        "keyCompromise",
        "affiliationChanged",
        "superseded",
        "cessationOfOperation",
        "privilegeWithdrawn",
    )
    """Reasons that clients may give."""
    alternate_chains: Annotated[tuple[FilePath, ...], Field(max_length=4)] = ()
    """PEM files, each another chain above the issuing CA, which clients may choose."""
    renewal: AcmeRenewal = AcmeRenewal()
    """When to renew."""
    limits: AcmeLimits = AcmeLimits()
    """How much."""
