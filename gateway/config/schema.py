"""The whole configuration file, as models; docs and JSON Schema are generated from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import (
    ConfigName,
    Duration,
    FilePath,
    HttpUrl,
    ListenAddress,
    Model,
    SecretSource,
    SocketPath,
    StatePath,
)
from gateway.config.policy import PolicyConfig
from gateway.config.upstream_cas import UpstreamCAConfig


class HttpsListener(Model):
    """TLS without client certificates."""

    listen: ListenAddress
    certificate: FilePath
    """Server certificate with its chain, PEM."""
    key: SecretSource
    min_version: Literal["1.2", "1.3"] = "1.2"


class ExternalUrl(Model):
    """How clients reach this server: goes into certificates (CDP, AIA) and printed commands."""

    http: HttpUrl
    https: HttpUrl


class Limits(Model):
    """Bounds on what a client may cost; all are checked before anything is parsed."""

    body_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 65536
    request_line_bytes: Annotated[int, Field(ge=8192, le=131072)] = 98304
    header_bytes: Annotated[int, Field(ge=2048, le=131072)] = 16384
    body_timeout: Duration = Field(default="10s", validate_default=True)
    connections: Annotated[int, Field(ge=1)] = 2000
    """Open connections of one worker."""
    connections_per_address: Annotated[int, Field(ge=1)] = 200
    requests_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests that one worker works on at once; more get 503 with Retry-After."""


class Server(Model):
    """Listeners, limits and the URLs that clients see. Relative paths count from the configuration file's folder."""

    http: ListenAddress = Field(default="127.0.0.1:8080", validate_default=True)
    https: HttpsListener
    external_url: ExternalUrl
    admin_socket: SocketPath = Field(default="run/admin.sock", validate_default=True)
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["cores"] = "cores"
    limits: Limits = Limits()


class SqliteStore(Model):
    """One file for one machine; `key` protects what is stored in it."""

    type: Literal["sqlite"]
    path: StatePath = Field(default="store/gateway.db", validate_default=True)
    key: SecretSource
    """store.key: one 256-bit key a line in hex, newest first."""


class Audit(Model):
    """The audit chain and where its signed heads go."""

    key: SecretSource
    heads: StatePath | None = None
    """A file that signed heads are appended to; they are logged in any case."""
    head_interval: Duration = Field(default="60s", validate_default=True)


class ScepEndpoint(Model):
    """SCEP at /scep/<profile> (RFC 8894)."""

    ra_certificate: FilePath
    """The RA certificate that clients encrypt to and that signs replies; RSA."""
    ra_key: SecretSource
    reply_chain: bool = False
    """Put the CA chain into CertRep beside the leaf."""


class Endpoints(Model):
    """The doors that this profile opens; absent is closed."""

    scep: ScepEndpoint | None = None


class StaticCredential(Model):
    """One shared secret for all requests: needs subject and SAN rules, or `any_name: true`."""

    type: Literal["static"]
    challenge: SecretSource
    any_name: bool = False
    """Say that whoever knows the secret may ask for any name that policy lets through."""


class OneTimeCredential(Model):
    """Challenges made by `pki-gateway challenge new`, each good for one certificate."""

    type: Literal["one_time"]
    ttl: Duration = Field(default="1h", validate_default=True)
    """Lifetime where `--ttl` does not say otherwise."""
    max_ttl: Duration = Field(default="7d", validate_default=True)


CredentialConfig = Annotated[StaticCredential | OneTimeCredential, Field(discriminator="type")]


class QuotaConfig(Model):
    """At most `count` certificates in any `window`."""

    count: Annotated[int, Field(ge=1)]
    window: Duration


class ProfileLimits(Model):
    """How many certificates; absent is unlimited."""

    per_requester: QuotaConfig | None = None
    """For one requester: the holder of one renewal certificate, one challenge, or one subject under a static challenge."""
    total: QuotaConfig | None = None


class Renewal(Model):
    """Renewal by a certificate that the gateway issued, without a challenge."""

    from_: Annotated[tuple[ConfigName, ...], Field(alias="from", min_length=1)]
    """Profiles whose certificates may be renewed here."""
    messages: Annotated[tuple[Literal["RenewalReq", "PKCSReq"], ...], Field(min_length=1)] = ("RenewalReq",)
    window: Duration | None = None
    """How long before notAfter a renewal may begin; absent: at any time."""
    grace: Duration = Field(default="0s", validate_default=True)
    """How long after notAfter it is still accepted."""


class ProfileConfig(Model):
    """One profile: doors, who may enroll and how, policy, and the CA that signs."""

    endpoints: Endpoints
    upstream_ca: ConfigName
    credentials: tuple[CredentialConfig, ...] = ()
    approval: Literal["automatic", "manual"] = "automatic"
    policy: PolicyConfig = PolicyConfig()
    limits: ProfileLimits = ProfileLimits()
    renewal: Renewal | None = None
    retransmission_window: Duration = Field(default="1h", validate_default=True)


class GatewayConfig(Model):
    """profiles.yaml."""

    server: Server
    store: SqliteStore
    audit: Audit
    upstream_cas: Annotated[dict[ConfigName, UpstreamCAConfig], Field(min_length=1)]
    profiles: Annotated[dict[ConfigName, ProfileConfig], Field(min_length=1)]
