"""One configuration generation as the endpoints see it: built once, read once per request."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal, Protocol

from gateway.config.est import ServerKey
from gateway.model import ProfileName, UpstreamCAName
from gateway.pki.cms import Signer
from gateway.ra.profile import Snapshot
from gateway.web.proxies import Proxies
from gateway.web.tls import unresumable
from gateway.wire.cmp.protection import Protector
from gateway.wire.est.server_keygen import KeyRecipients
from gateway.wire.scep.pkimessage import RaIdentity


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """At most `count` failed requests of one source address in any `window`, counted by each worker for itself."""

    count: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class ScepService:
    """The SCEP endpoint of one profile, with every answer prepared that does not depend on the request.

    `offload` says that the RA key is slow (RSA of 3072 bits or more): its work runs in an executor.
    """

    profile: ProfileName
    identity: RaIdentity
    capabilities: bytes
    ca_certificates: bytes
    ca_media_type: str
    ca_chain: bytes
    """The body of GetCACertChain: the CA's certificates alone, issuing CA first."""
    next_ca: bytes | None
    """The body of GetNextCACert, signed by the RA (RFC 8894 §4.7.1); None: no CA is next."""
    requires_client_certificate: bool
    """It is served to TLS clients with a certificate only, under `/scep-mtls/` too."""
    failure_limit: FailureLimit | None
    reply_chain: bool
    offload: bool
    ra_ends: datetime
    """When the first certificate of the RA in force ends; previous pairs may end, they are meant to."""

    def is_valid(self, now: datetime) -> bool:
        """Whether this RA may answer messages: its clients would refuse what it signs, and never encrypt to it, otherwise."""
        return now <= self.ra_ends

    def describe_end(self) -> str:
        """Return a sentence for operators: what has ended, and what to do."""
        ended = f"the RA certificate of profile {self.profile} expired on {self.ra_ends:%Y-%m-%d %H:%M:%SZ}"
        return f"{ended}: put a new one in its place and reload; its enrollments are refused until then"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One base64 body, for clients that want it in lines and for those that want it in one (RFC 8951 §3.1)."""

    in_lines: bytes = field(repr=False)
    in_one: bytes = field(repr=False)

    def body(self, *, wrap: bool) -> bytes:
        """Return the form that a client wants."""
        return self.in_lines if wrap else self.in_one


@dataclass(frozen=True, slots=True)
class KeygenService:
    """What keys an EST endpoint draws for its clients, and how it encrypts them (RFC 7030 §4.4)."""

    keys: tuple[ServerKey, ...]
    """The kinds, the first where the request does not say."""
    recipients: KeyRecipients
    """Whom they may be encrypted to."""


@dataclass(frozen=True, slots=True)
class EstService:
    """The EST endpoint of one profile, with every answer prepared that does not depend on the request."""

    profile: ProfileName
    ca_certificates: Prepared
    """The body of `cacerts`: root, chain and rollover certificates (RFC 7030 §4.1.3)."""
    csr_attributes: Prepared | None
    """The body of `csrattrs`; None: there are none to tell (RFC 7030 §4.5.2)."""
    base64_wrap: Literal["auto", "always", "never"]
    challenges: Callable[[datetime], tuple[str, ...]] = field(repr=False)
    """Makes the values of WWW-Authenticate at a time, one a scheme that the profile takes, as `Basic realm="pki"`."""
    failure_limit: FailureLimit | None
    server_keygen: KeygenService | None = None
    """None: `serverkeygen` is refused."""
    cmc: Signer | None = None
    """Signs the answers to `fullcmc`; None: it is refused."""
    renewal_info: bool = False
    """It says when to renew (draft-ietf-lamps-est-renewal-info)."""


@dataclass(frozen=True, slots=True)
class AcmeService:
    """The ACME directory of one profile, with every answer prepared that does not depend on the request (RFC 8555 §7.1.1).

    `base` is the URL of the directory's folder, without a slash at the end (`https://pki.example.com/acme/corp`); `aliases` are
    other ones that requests may have been made to.
    """

    profile: ProfileName
    base: str
    aliases: tuple[str, ...]
    directories: Mapping[str, bytes] = field(repr=False)
    """The directory, JSON, by the base URL that it is asked at."""
    terms_of_service: str | None
    cors_origins: tuple[str, ...]
    algorithms: tuple[str, ...]
    """Signature algorithms of account keys, in the JOSE registry's names."""
    padded_csr: bool
    alternate_chains: tuple[tuple[bytes, ...], ...] = field(repr=False)
    """Chains beside the CA's own, DER, issuing CA first."""
    retry_after: int
    """Seconds after which clients should ask again when to renew (RFC 9773 §4.3)."""
    failure_limit: FailureLimit | None
    help: str | None = None
    """A page about this CA, for who asks too much (RFC 8555 §6.6)."""


@dataclass(frozen=True, slots=True)
class CmpService:
    """The CMP endpoint of one profile (RFC 9811).

    `signer` is what `protector` protects answers with, but for those under a shared secret.
    `offload` says that the signer's key is slow, or in a token: its work runs in an executor.
    """

    profile: ProfileName
    signer: Signer
    protector: Protector
    failure_limit: FailureLimit | None
    offload: bool
    ends: datetime
    """When the signer's certificate ends: clients would refuse what it signs afterwards."""

    def is_valid(self, now: datetime) -> bool:
        """Whether this signer may answer messages."""
        return now <= self.ends

    def describe_end(self) -> str:
        """Return a sentence for operators: what has ended, and what to do."""
        ended = f"the CMP signer of profile {self.profile} expired on {self.ends:%Y-%m-%d %H:%M:%SZ}"
        return f"{ended}: put a new one in its place and reload; its requests are refused until then"


class SignedCrl(Protocol):
    """One signed CRL (RFC 5280 §5)."""

    @property
    def number(self) -> int:
        """Its CRL number (RFC 5280 §5.2.3)."""

    @property
    def der(self) -> bytes:
        """Its DER."""

    @property
    def this_update(self) -> datetime:
        """When it was signed."""

    @property
    def next_update(self) -> datetime:
        """When the next one is due at the latest."""


class CrlSource(Protocol):
    """Signs or fetches the CRL of one CA, and keeps it."""

    async def current(self) -> SignedCrl | None:
        """Return the newest CRL, or None when there was none yet."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What one upstream CA publishes: its own certificate, DER, and its CRL where the gateway signs or fetches it."""

    name: UpstreamCAName
    certificate: bytes = field(repr=False)
    certificate_sha256: str
    crl: CrlSource | None


@dataclass(frozen=True, slots=True)
class Generation:
    """What is in force; `config` is the configuration as JSON-like data, secrets left out."""

    number: int
    snapshot: Snapshot
    scep: Mapping[ProfileName, ScepService]
    publications: Mapping[UpstreamCAName, Publication]
    tls: Mapping[str, ssl.SSLContext]
    """By the listener's name in the configuration: `https`, and `https_mtls` where there is one."""
    config: Mapping[str, object]
    est: Mapping[str, EstService] = field(default_factory=lambda: MappingProxyType({}))
    """By label, and the default one under the empty label."""
    acme: Mapping[ProfileName, AcmeService] = field(default_factory=lambda: MappingProxyType({}))
    cmp: Mapping[str, CmpService] = field(default_factory=lambda: MappingProxyType({}))
    """By path without a slash in front (`.well-known/cmp/p/corp`, an alias), an operation left out."""
    proxies: Proxies = field(default_factory=Proxies)
    """Who may say what a TLS client showed, and where it is."""
    http01_thumbprint: str | None = None
    """Of the account key that http-01 is answered for, as an upstream ACME CA asks (RFC 8555 §8.1); None: for nobody's."""

    def tls_context(self, listener: str) -> ssl.SSLContext:
        """Return the context for one new connection.

        Where a profile serves nobody whose request is not tied to its connection, none is a resumed session, which ties nothing:
        libest and Java come back that way once they know that a password is asked for.
        """
        context = self.tls[listener]
        ties = any(profile.linking == "require" for profile in self.snapshot.profiles.values())
        return unresumable(context) if ties else context
