"""The whole configuration file, as models; docs and JSON Schema are generated from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.acme import AcmeEndpoint
from gateway.config.cmp import CmpEndpoint
from gateway.config.credentials import CredentialConfig
from gateway.config.defaults import ADMIN_SOCKET, MONITORING
from gateway.config.est import EstEndpoint
from gateway.config.fields import (
    ConfigName,
    Duration,
    FilePath,
    HttpUrl,
    KeySource,
    ListenAddress,
    Model,
    Network,
    QuotaConfig,
    RaPair,
    SecretSource,
    SocketPath,
    StatePath,
)
from gateway.config.policy import PolicyConfig
from gateway.config.upstream_cas import UpstreamCAConfig


class HttpsListener(Model):
    """A TLS listener; `https` asks for no client certificate, `https_mtls` asks for one and takes none for an answer."""

    listen: ListenAddress
    """Where to listen for HTTPS."""
    certificate: FilePath
    """Server certificate with its chain, PEM."""
    key: SecretSource
    """The server certificate's private key, PEM."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest TLS version that is spoken."""


class ExternalUrl(Model):
    """How clients reach this server: goes into certificates (CDP, AIA) and printed commands."""

    http: HttpUrl
    """Where CRLs and CA certificates are fetched, and SCEP over HTTP; `http://`."""
    https: HttpUrl
    """The same server over TLS; `https://`."""


class Proxy(Model):
    """A proxy that ends TLS in front of this server and says what it saw; nobody else is believed.

    It sets `X-Forwarded-Proto: https` on what came by TLS: EST is refused where it does not.
    """

    addresses: Annotated[tuple[Network, ...], Field(min_length=1)]
    """Where it connects from: addresses or networks."""
    client_certificate: Literal["rfc9440", "nginx", "envoy", "haproxy"] | None = None
    """How it hands over the TLS client's certificate: in `Client-Cert` (RFC 9440), in `X-SSL-Client-Cert` as nginx's
    `$ssl_client_escaped_cert` or HAProxy's `%[ssl_c_der,base64]`, in Envoy's `X-Forwarded-Client-Cert`; absent: it does not."""
    client_address: bool = False
    """It sets `X-Forwarded-For` itself: the last address there is the client's."""


class Limits(Model):
    """Bounds on what a client may cost; all are checked before anything is parsed."""

    body_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 65536
    """Largest request body."""
    request_line_bytes: Annotated[int, Field(ge=8192, le=131072)] = 98304
    """Longest request line; SCEP over GET carries the message in it."""
    header_bytes: Annotated[int, Field(ge=2048, le=131072)] = 16384
    """Longest header field."""
    body_timeout: Duration = Field(default="10s", validate_default=True)
    """How long a client may take to send a body."""
    connections: Annotated[int, Field(ge=1)] = 2000
    """Open connections of one worker."""
    connections_per_address: Annotated[int, Field(ge=1)] = 200
    """Open connections from one address, of one worker."""
    requests_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests that one worker works on at once; more get 503 with Retry-After."""


class Server(Model):
    """Listeners, limits and the URLs that clients see. Relative paths count from the configuration file's folder."""

    http: ListenAddress = Field(default="127.0.0.1:8080", validate_default=True)
    """Where to listen for HTTP: SCEP, CRLs, CA certificates."""
    https: HttpsListener
    """Where to listen for HTTPS, and its certificate."""
    https_mtls: HttpsListener | None = None
    """A second HTTPS listener, which asks clients for a certificate: for SCEP with `client_certificate: require`, for EST with
    `tls_certificate`, `ra_certificate` or `simplereenroll`."""
    external_url: ExternalUrl
    """How clients reach this server."""
    monitoring: ListenAddress = Field(default=MONITORING, validate_default=True)
    """Where to listen for `/metrics`, `/livez` and `/readyz`; for your own monitoring, without TLS."""
    admin_socket: SocketPath = Field(default=ADMIN_SOCKET, validate_default=True)
    """The unix socket for this program's own commands; mode 0660."""
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["cores"] = "cores"
    """Worker processes; `cores` is one for each processor core."""
    proxies: tuple[Proxy, ...] = ()
    """Proxies that end TLS in front of this server."""
    limits: Limits = Limits()
    """What one client may cost."""


class SqliteStore(Model):
    """One file for one machine; `key` protects what is stored in it."""

    type: Literal["sqlite"]
    """SQLite."""
    path: StatePath = Field(default="store/gateway.db", validate_default=True)
    """The database file."""
    key: SecretSource
    """store.key: one 256-bit key a line in hex, newest first."""


class Audit(Model):
    """The audit chain and where its signed heads go."""

    key: SecretSource
    """audit.key: keys the chain; another secret than store.key."""
    heads: StatePath | None = None
    """A file that signed heads are appended to; they are logged in any case."""
    head_interval: Duration = Field(default="60s", validate_default=True)
    """How often a signed head leaves."""


class LegacyAlgorithms(Model):
    """Algorithms of old clients, each off; what uses one is counted in log and audit trail."""

    sha1: bool = False
    """Messages signed with SHA-1."""
    md5: bool = False
    """Messages signed with MD5, which RFC 8894 forbids."""
    triple_des: bool = False
    """Messages encrypted with 3DES."""
    des: bool = False
    """Messages encrypted with single DES, which RFC 8894 forbids; they are answered with 3DES."""


class ScepEndpoint(Model):
    """SCEP at `/scep/PROFILE` (RFC 8894)."""

    ra_certificate: FilePath
    """The RA certificate that clients encrypt to and that signs replies; RSA."""
    ra_key: KeySource
    """The RA certificate's private key: PEM, or in a token."""
    ra_encryption: RaPair | None = None
    """A second RA certificate that clients encrypt to; `ra_certificate` then only signs."""
    previous_ra: Annotated[tuple[RaPair, ...], Field(max_length=4)] = ()
    """RA certificates that were in force before: devices that still know them go on being served."""
    next_ca: FilePath | None = None
    """PEM certificates of the CA, and RA, that come next: GetNextCACert gives them out, signed by the RA."""
    legacy: LegacyAlgorithms = LegacyAlgorithms()
    """Algorithms of old clients."""
    pwri: bool = False
    """Serve devices whose keys cannot encrypt (EC, Ed25519, ML-DSA): messages are encrypted under the profile's one static
    challenge instead (PasswordRecipientInfo)."""
    signing_time_skew: Duration | None = None
    """How far a message's signingTime may be from our time, badTime beyond; absent: not judged, since device clocks are wrong
    before they have enrolled."""
    client_certificate: Literal["off", "require"] = "off"
    """`require`: only with a TLS client certificate below `client_anchors`, at `/scep-mtls/PROFILE` and `/scep/PROFILE` on the
    https_mtls listener, or through a proxy that hands it over; the challenge is asked for all the same."""
    client_anchors: FilePath | None = None
    """PEM CA certificates that issue the TLS client certificates."""
    client_crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused. Absent: revocation is known only for
    certificates that were issued here."""
    reply_chain: bool = False
    """Put the CA chain into CertRep beside the leaf."""


class Endpoints(Model):
    """The protocols by which this profile is reached; absent is closed."""

    scep: ScepEndpoint | None = None
    """SCEP."""
    est: EstEndpoint | None = None
    """EST."""
    acme: AcmeEndpoint | None = None
    """ACME."""
    cmp: CmpEndpoint | None = None
    """CMP."""


class ProfileLimits(Model):
    """How many certificates; absent is unlimited."""

    per_requester: QuotaConfig | None = None
    """For one device: what a signed challenge calls it, else the names that it asks for."""
    total: QuotaConfig | None = None
    """For the whole profile."""
    failures_per_address: QuotaConfig | None = None
    """Failed requests of one source address, in one worker; beyond, it gets HTTP 429. Off by default: an MDM proxy or NAT is one
    address for a whole fleet."""


class RenewalAnchors(Model):
    """CAs of a fleet that was enrolled elsewhere: their certificates may be renewed here too."""

    certificates: FilePath
    """PEM CA certificates."""
    crls: FilePath
    """Their CRLs, PEM; a certificate whose CA has no valid CRL here is refused."""


class Renewal(Model):
    """Renewal by a certificate that the gateway issued, without a challenge."""

    from_: Annotated[tuple[ConfigName, ...], Field(alias="from", min_length=1)]
    """Profiles whose certificates may be renewed here."""
    messages: Annotated[
        tuple[Literal["RenewalReq", "PKCSReq", "simplereenroll", "kur", "cr", "p10cr"], ...], Field(min_length=1)
    ] = (
        "RenewalReq",
        "simplereenroll",
        "kur",
    )
    """Messages that may renew, of SCEP, EST and CMP; `PKCSReq` for SCEP clients that know no other, `cr` and `p10cr` for CMP
    clients that ask with their certificate and not with kur."""
    window: Duration | None = None
    """How long before notAfter a renewal may begin; absent: at any time."""
    grace: Duration = Field(default="0s", validate_default=True)
    """How long after notAfter it is still accepted."""
    anchors: RenewalAnchors | None = None
    """CAs beside ours whose certificates may be renewed here, for fleets that move."""


class KeyAttestation(Model):
    """Statements of devices about their keys, in a CSR or a CMP request (draft-ietf-lamps-csr-attestation)."""

    tpm_roots: FilePath | None = None
    """PEM roots of the makers of TPMs, or of the CA that certifies attestation keys; absent: the format is refused."""
    step_roots: FilePath | None = None
    """PEM roots of YubiKey PIV attestations; absent: the format is refused."""
    require: bool = False
    """Refuse requests without a good statement about their key; otherwise only a bad one is refused."""


class ProfileConfig(Model):
    """One profile: how it is reached, who may enroll and how, policy, and the CA that signs."""

    endpoints: Endpoints
    """The protocols by which this profile is reached."""
    upstream_ca: ConfigName
    """The CA that signs, by its name in `upstream_cas`."""
    credentials: tuple[CredentialConfig, ...] = ()
    """What proves who is asking; asked in this order. A kind that is not named is refused."""
    approval: Literal["automatic", "manual"] = "automatic"
    """`manual`: every request waits for `pki-gateway requests approve`."""
    policy: PolicyConfig = PolicyConfig()
    """What may be certified."""
    limits: ProfileLimits = ProfileLimits()
    """How many certificates."""
    renewal: Renewal | None = None
    """Renewal by certificate; absent: refused."""
    key_attestation: KeyAttestation | None = None
    """Judge what devices say of their keys in CSRs and CMP requests; absent: it is not looked at."""
    retransmission_window: Duration = Field(default="1h", validate_default=True)
    """How long the same request by the same requester gets the same answer again."""


class GatewayConfig(Model):
    """profiles.yaml."""

    server: Server
    """Listeners, limits, URLs."""
    store: SqliteStore
    """Ledger, inventory and audit trail."""
    audit: Audit
    """How the audit trail is protected."""
    upstream_cas: Annotated[dict[ConfigName, UpstreamCAConfig], Field(min_length=1)]
    """CAs by name."""
    profiles: Annotated[dict[ConfigName, ProfileConfig], Field(min_length=1)]
    """Profiles by name; the name is a part of the URL."""
