"""The whole configuration file, as models; docs and JSON Schema are generated from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.defaults import ADMIN_SOCKET, MONITORING
from gateway.config.fields import (
    ConfigName,
    Duration,
    EstLabel,
    FilePath,
    HttpUrl,
    ListenAddress,
    Model,
    Network,
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
    """A proxy that ends TLS in front of this server and says what it saw; nobody else is believed."""

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
    """A second HTTPS listener, for profiles with `client_certificate: require`; it asks clients for a certificate."""
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


class RaPair(Model):
    """An RA certificate and its key; RSA."""

    certificate: FilePath
    """The certificate, PEM."""
    key: SecretSource
    """Its private key, PEM."""


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
    ra_key: SecretSource
    """The RA certificate's private key, PEM."""
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
    https_mtls listener; the challenge is asked for all the same."""
    client_anchors: FilePath | None = None
    """PEM CA certificates that issue the TLS client certificates."""
    client_crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused. Absent: revocation is known only for
    certificates that were issued here."""
    reply_chain: bool = False
    """Put the CA chain into CertRep beside the leaf."""


ServerKey = Literal["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "rsa-4096"]


class ServerKeygen(Model):
    """Keys that the server draws for devices that cannot (RFC 7030 §4.4)."""

    keys: Annotated[tuple[ServerKey, ...], Field(min_length=1)] = ("ec-p256", "rsa-2048")
    """Kinds of key that are drawn; the first where the request does not say."""
    symmetric_keys: dict[Annotated[str, Field(min_length=1, max_length=64)], SecretSource] = Field(default_factory=dict)
    """Keys that encrypt the private key, 16, 24 or 32 bytes in hex, by the identifier that requests name (DecryptKeyIdentifier)."""
    require_encryption: bool = False
    """Refuse requests whose private key would leave under TLS alone."""


class EstEndpoint(Model):
    """EST at `/.well-known/est/LABEL` (RFC 7030)."""

    label: EstLabel | None = None
    """The label in the URL; absent: the profile's name."""
    default: bool = False
    """Serve this profile at `/.well-known/est` without a label as well; at most one profile."""
    pop_linking: Literal["off", "if_present", "require"] = "if_present"
    """Whether a request must be tied to its TLS connection; `require` refuses TLS 1.3, resumed sessions and proxies."""
    csrattrs: Literal["template", "legacy", "both", "off"] = "both"
    """What `csrattrs` tells clients of the policy: the template of RFC 9908, the attributes of RFC 7030, or nothing."""
    rollover: FilePath | None = None
    """PEM certificates that lead from an old root to a new one and back; `cacerts` gives them out."""
    server_keygen: ServerKeygen | None = None
    """Draw keys for devices; absent: refused."""
    cmc: RaPair | None = None
    """The certificate and key that sign answers to `fullcmc`; absent: refused."""
    renewal_info: bool = False
    """Tell clients when to renew, at `renewal-info/CERTID` (draft-ietf-lamps-est-renewal-info)."""
    base64_wrap: Literal["auto", "always", "never"] = "auto"
    """Line breaks in answers; `auto`: for clients that send a User-Agent, since old strongSwan sends none and wants none."""


class Endpoints(Model):
    """The protocols by which this profile is reached; absent is closed."""

    scep: ScepEndpoint | None = None
    """SCEP."""
    est: EstEndpoint | None = None
    """EST."""


class StaticCredential(Model):
    """One shared secret for all requests: needs subject and SAN rules, or `any_name: true`."""

    type: Literal["static"]
    """A static challenge."""
    challenge: SecretSource
    """The secret: 8 to 255 printable ASCII characters."""
    any_name: bool = False
    """Say that whoever knows the secret may ask for any name that policy lets through."""


class OneTimeCredential(Model):
    """Challenges made by `pki-gateway challenge new`, each good for one certificate."""

    type: Literal["one_time"]
    """One-time challenges."""
    ttl: Duration = Field(default="1h", validate_default=True)
    """Lifetime where `--ttl` does not say otherwise."""
    max_ttl: Duration = Field(default="7d", validate_default=True)
    """The longest lifetime that `--ttl` may ask for."""


class QuotaConfig(Model):
    """At most `count` certificates (or failed requests) in any `window`."""

    count: Annotated[int, Field(ge=1)]
    """How many."""
    window: Duration
    """In which time."""


class IntuneJwsCredential(Model):
    """Challenges that are signed JWTs and name the device (docs/intune.md); this is not Microsoft's own Intune challenge."""

    type: Literal["intune_jws"]
    """Signed challenges."""
    anchors: FilePath
    """PEM certificates whose keys sign the challenges: RSA of 2048 bits and more, or EC P-256."""
    audience: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """What `aud` must be, or hold; absent: not judged."""
    max_age: Duration = Field(default="1h", validate_default=True)
    """How long after `iat` a challenge is good, whatever its `exp` says; one without `iat`, where `required_claims` lets it pass,
    is bounded by `exp` alone."""
    skew: Duration = Field(default="60s", validate_default=True)
    """How far the issuer's clock may be from ours."""
    required_claims: tuple[Literal["iss", "sub", "iat", "exp", "nonce", "aud"], ...] = (
        "iss",
        "sub",
        "iat",
        "exp",
        "nonce",
        "aud",
    )
    """Claims without which a challenge is malformed; `aud` counts only where `audience` is set."""
    absent_claims: Literal["none", "unconstrained"] = "none"
    """What it means when a claim for one type of name is absent: the CSR must have no such name, or any that policy allows."""
    per_device: QuotaConfig | None = Field(default={"count": 3, "window": "24h"}, validate_default=True)
    """Certificates for one device, which is `sub` and `iss` together; null: unlimited."""
    replay_capacity: Annotated[int, Field(ge=1, le=10000000)] = 100000
    """How many used challenges are remembered at once; when it is full, new ones are refused."""
    with_other_challenges: bool = False
    """Say that the profile's other kinds of challenge are accepted beside signed ones."""


class Ocsp(Model):
    """Revocation of client certificates by OCSP (RFC 6960)."""

    url: HttpUrl | None = None
    """The responder; absent: the one that the certificate names."""
    timeout: Duration = Field(default="3s", validate_default=True)
    """How long an answer may take."""
    if_unavailable: Literal["refuse", "accept"] = "refuse"
    """What becomes of a certificate that no responder vouches for."""


class TlsCertificateCredential(Model):
    """A TLS client certificate of another CA, for a first enrollment over EST: a maker's device identity, say."""

    type: Literal["tls_certificate"]
    """TLS client certificates."""
    anchors: FilePath
    """PEM CA certificates that issue them."""
    crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused."""
    ocsp: Ocsp | None = None
    """Ask a responder instead."""
    names: Literal["same", "serial_number", "any"] = "same"
    """Which names it may ask for: its own, any with its own serialNumber in the subject, or any that policy lets through."""


class RaCertificateCredential(Model):
    """A registration authority's TLS client certificate (id-kp-cmcRA), which asks for others, with their proof of possession."""

    type: Literal["ra_certificate"]
    """Certificates of registration authorities."""
    anchors: FilePath
    """PEM CA certificates that issue them."""
    crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused."""
    ocsp: Ocsp | None = None
    """Ask a responder instead."""
    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their subjects, as `CN=ra1,O=Example`; no other may speak for devices of this profile."""


class BasicCredential(Model):
    """Name and password over TLS (HTTP Basic, RFC 7617)."""

    type: Literal["basic"]
    """HTTP Basic."""
    users: SecretSource
    """Lines `NAME:HASH`, made by `pki-gateway password hash`."""
    realm: Annotated[str, Field(min_length=1, max_length=64, pattern=r"[ !#-\[\]-~]+")] = "pki-gateway"
    """What clients show to their users."""
    names: Literal["user", "any"] = "user"
    """`user`: the CN must be the user's name; `any`: any name that policy lets through."""


class DigestCredential(Model):
    """HTTP Digest with MD5 for clients that know nothing better (RFC 7616); who reads its file can log in."""

    type: Literal["digest_md5_legacy"]
    """HTTP Digest with MD5."""
    users: SecretSource
    """Lines `NAME:HEX`, the MD5 of `NAME:REALM:PASSWORD`, made by `pki-gateway password digest`."""
    realm: Annotated[str, Field(min_length=1, max_length=64, pattern=r"[ !#-\[\]-~]+")] = "pki-gateway"
    """What the hashes were made with."""
    names: Literal["user", "any"] = "user"
    """`user`: the CN must be the user's name; `any`: any name that policy lets through."""


class BearerCredential(Model):
    """A signed JWT in the Authorization header (RFC 6750): RS256 or ES256."""

    type: Literal["bearer"]
    """Bearer tokens."""
    anchors: FilePath
    """PEM certificates whose keys sign the tokens: RSA of 2048 bits and more, or EC P-256."""
    issuer: Annotated[str, Field(min_length=1, max_length=1024)]
    """What `iss` must be."""
    audience: Annotated[str, Field(min_length=1, max_length=1024)]
    """What `aud` must be, or hold."""
    max_age: Duration = Field(default="1h", validate_default=True)
    """How long after `iat` a token is good, whatever its `exp` says."""
    skew: Duration = Field(default="60s", validate_default=True)
    """How far the issuer's clock may be from ours."""
    names: Literal["subject", "any"] = "subject"
    """`subject`: the CN must be the token's `sub`; `any`: any name that policy lets through."""


SingleCredential = (
    StaticCredential
    | OneTimeCredential
    | IntuneJwsCredential
    | TlsCertificateCredential
    | RaCertificateCredential
    | BasicCredential
    | DigestCredential
    | BearerCredential
)


class AllOfCredential(Model):
    """Several credentials of one request, all of which must be good."""

    type: Literal["all_of"]
    """All of several credentials."""
    of: Annotated[tuple[Annotated[SingleCredential, Field(discriminator="type")], ...], Field(min_length=2, max_length=4)]
    """The credentials; the first says who is asking, the names that any of them binds are bound."""


CredentialConfig = Annotated[SingleCredential | AllOfCredential, Field(discriminator="type")]


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
    messages: Annotated[tuple[Literal["RenewalReq", "PKCSReq", "simplereenroll"], ...], Field(min_length=1)] = (
        "RenewalReq",
        "simplereenroll",
    )
    """Messages that may renew, of SCEP and EST; `PKCSReq` for SCEP clients that know no other."""
    window: Duration | None = None
    """How long before notAfter a renewal may begin; absent: at any time."""
    grace: Duration = Field(default="0s", validate_default=True)
    """How long after notAfter it is still accepted."""
    anchors: RenewalAnchors | None = None
    """CAs beside ours whose certificates may be renewed here, for fleets that move."""


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
