"""Upstream CAs beyond this machine, as configured: one model a backend, told apart by `type`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import ConfigName, Duration, FilePath, HttpUrl, LivePath, Model, RaPair, SecretSource

Text = Annotated[str, Field(min_length=1, max_length=512)]
Chain = Annotated[tuple[FilePath, ...], Field(min_length=1)]
Concurrency = Annotated[int, Field(ge=1, le=1024)]


class Connection(Model):
    """How a CA is reached over HTTP."""

    anchors: FilePath | None = None
    """PEM CA certificates that its TLS certificate must chain to; absent: the system's."""
    client_certificate: RaPair | None = None
    """The certificate and key that are shown to it."""
    connect_timeout: Duration = Field(default="3s", validate_default=True)
    """How long connecting may take; then nothing was sent."""
    timeout: Duration = Field(default="10s", validate_default=True)
    """How long one request may take; then what the CA did is unknown."""
    concurrency: Concurrency = 32
    """Most requests at once, of one worker; more wait."""


class RemoteCA(Model):
    """What all CAs beyond this machine have."""

    chain: Chain
    """CA certificates, PEM, issuing CA first, root last. What comes back must lead to one of them;
    `pki-gateway upstream chain NAME` prints what the CA says it has."""
    queue: Duration = Field(default="24h", validate_default=True)
    """How long requests and revocations wait for a CA that cannot be reached; clients are told to come back. `0s`: they are told
    that nothing is available."""
    pkilint: Literal["off", "warn", "enforce"] = "off"
    """What pkilint finds in a certificate that came back: `warn` logs it, `enforce` puts the certificate into quarantine.
    Needs the extra `pkilint`."""


class VaultToken(Model):
    """A token."""

    type: Literal["token"]
    """A token."""
    token: SecretSource
    """The token; it is renewed while it can be."""


class VaultAppRole(Model):
    """AppRole."""

    type: Literal["approle"]
    """AppRole."""
    role_id: SecretSource
    """The role ID."""
    secret_id: SecretSource
    """The secret ID."""
    mount: Text = "approle"
    """Where the method is mounted."""


class VaultCertificate(Model):
    """TLS client certificate."""

    type: Literal["cert"]
    """TLS client certificate: `connection.client_certificate`."""
    role: Text | None = None
    """The role; absent: any that fits."""
    mount: Text = "cert"
    """Where the method is mounted."""


class VaultKubernetes(Model):
    """Service account of a pod."""

    type: Literal["kubernetes"]
    """Service account of a pod."""
    role: Text
    """The role."""
    token: LivePath = Field(default="/var/run/secrets/kubernetes.io/serviceaccount/token", validate_default=True)
    """The service account's token; it is read anew for each login, since it is exchanged again and again."""
    mount: Text = "kubernetes"
    """Where the method is mounted."""


class VaultCA(RemoteCA):
    """HashiCorp Vault or OpenBao, PKI secrets engine."""

    type: Literal["vault"]
    """HashiCorp Vault or OpenBao."""
    url: HttpUrl
    """Its address: `https://vault.example.com:8200`."""
    connection: Connection = Connection()
    """How it is reached."""
    auth: Annotated[VaultToken | VaultAppRole | VaultCertificate | VaultKubernetes, Field(discriminator="type")]
    """How the gateway logs in."""
    mount: Text = "pki"
    """Where the PKI secrets engine is mounted."""
    role: Text | None = None
    """The role; may be absent for `sign_verbatim`."""
    issuer: Text | None = None
    """An issuer other than the mount's default."""
    sign_verbatim: bool = False
    """Take names and usages from the request as they are (`sign-verbatim`): needs more rights, and no role of Vault's judges."""
    namespace: Text | None = None
    """Namespace."""


class StepJwk(Model):
    """A JWK provisioner."""

    type: Literal["jwk"]
    """A JWK provisioner."""
    name: Text
    """Its name."""
    key: SecretSource
    """Its private key: a JWK, plain or encrypted (JWE, as `step ca provisioner` shows it)."""
    password: SecretSource | None = None
    """The password of an encrypted one."""


class StepX5c(Model):
    """An X5C provisioner."""

    type: Literal["x5c"]
    """An X5C provisioner."""
    name: Text
    """Its name."""
    signer: RaPair
    """The certificate, with its chain, and key that sign tokens."""


class StepCA(RemoteCA):
    """smallstep's step-ca."""

    type: Literal["step-ca"]
    """smallstep's step-ca."""
    url: HttpUrl
    """Its address: `https://ca.example.com`."""
    connection: Connection = Connection()
    """How it is reached."""
    provisioner: Annotated[StepJwk | StepX5c, Field(discriminator="type")]
    """Who signs the gateway's tokens."""
    template_data: dict[str, str] = Field(default_factory=dict)
    """What the provisioner's template gets beside the request."""
    grant_template: bool = False
    """That the provisioner has the template of docs/upstream-cas.md, which certifies all that was granted: any subject, names,
    usages and extensions. Without it step-ca certifies a common name and names, for servers and clients."""
    keeps_tokens: bool = False
    """That all of its processes keep used tokens in one database (`db`): then a request whose answer was lost is sent again, and
    step-ca refuses it where the first came through. Without it such a request is held."""


class CfsslCA(RemoteCA):
    """Cloudflare's cfssl."""

    type: Literal["cfssl"]
    """Cloudflare's cfssl."""
    url: HttpUrl
    """Its address: `https://cfssl.example.com:8888`."""
    connection: Connection = Connection()
    """How it is reached."""
    profile: Text
    """The signing profile, which must exist: cfssl takes `default` for one that it does not know."""
    auth_key: SecretSource | None = None
    """The profile's auth key, hex; then `authsign` is used."""
    label: Text | None = None
    """The signer, where there are several."""


class AcmeEab(Model):
    """External account binding."""

    kid: Text
    """The key identifier."""
    key: SecretSource
    """The MAC key, base64url."""


class AcmeDnsUpdate(Model):
    """dns-01 by dynamic updates (RFC 2136)."""

    type: Literal["rfc2136"]
    """Dynamic DNS updates."""
    server: Text
    """The primary server, with a port where it is not 53."""
    zone: Text | None = None
    """The zone; absent: it is looked for."""
    key_name: Text
    """The TSIG key's name."""
    key: SecretSource
    """The TSIG key, base64."""
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    """The TSIG algorithm."""
    wait: Duration = Field(default="5s", validate_default=True)
    """How long other servers of the zone need to follow."""


class AcmeDnsHook(Model):
    """dns-01 by a program."""

    type: Literal["hook"]
    """A program."""
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Run as `COMMAND add|remove NAME VALUE`; no shell."""
    timeout: Duration = Field(default="60s", validate_default=True)
    """How long it may take."""
    wait: Duration = Field(default="0s", validate_default=True)
    """How long the zone needs to follow."""


class AcmeCA(RemoteCA):
    """Any ACME CA (RFC 8555)."""

    type: Literal["acme"]
    """Any ACME CA."""
    directory: HttpUrl
    """Its directory."""
    connection: Connection = Connection()
    """How it is reached."""
    account_key: SecretSource
    """The account's private key, PEM: EC P-256 or RSA."""
    contact: tuple[Text, ...] = ()
    """`mailto:` URLs."""
    terms_agreed: bool = False
    """That its terms of service are agreed to."""
    external_account: AcmeEab | None = None
    """External account binding."""
    dns: Annotated[AcmeDnsUpdate | AcmeDnsHook, Field(discriminator="type")] | None = None
    """How dns-01 is answered."""
    http01: bool = False
    """Answer http-01 from this server's own HTTP listener: the names must lead to it."""
    profile: Text | None = None
    """The CA's profile to be asked for (draft-ietf-acme-profiles)."""
    preferred_chain: Text | None = None
    """Common name of an issuer in the chain to be preferred."""


class EstCA(RemoteCA):
    """Any EST server (RFC 7030)."""

    type: Literal["est"]
    """Any EST server."""
    url: HttpUrl
    """`https://est.example.com/.well-known/est`, with a label where there is one."""
    connection: Connection = Connection()
    """How it is reached; `client_certificate` is shown in TLS."""
    username: Text | None = None
    """HTTP Basic."""
    password: SecretSource | None = None
    """HTTP Basic."""
    remembers: Duration | None = None
    """How long the server gives the same certificate when the same request comes again, as this program does for its
    `retransmission_window`. Absent: it may issue another, so a request whose answer was lost is held for an operator."""


class ScepCA(RemoteCA):
    """Any SCEP server (RFC 8894)."""

    type: Literal["scep"]
    """Any SCEP server."""
    url: HttpUrl
    """`http://scep.example.com/scep`."""
    connection: Connection = Connection()
    """How it is reached."""
    signer: RaPair
    """The certificate and RSA key that sign requests and that replies are encrypted to."""
    ra: FilePath | None = None
    """The server's RA certificates, PEM: requests are encrypted to them, and they sign answers. Absent: the issuing CA itself.
    What the server shows of itself is never believed."""
    challenge: SecretSource | None = None
    """A challenge that serves every request. Devices have it in their requests, so it is also a `static` credential of the
    profile. Absent: the server knows the gateway by `signer`."""
    poll_every: Duration = Field(default="60s", validate_default=True)
    """How often a pending request is asked about."""
    remembers: Duration | None = None
    """How long the server knows a transaction: a CertPoll tells what became of it, and it never has two certificates, as with
    this program's `retransmission_window`. Absent: a request whose answer was lost is held for an operator."""


class CmpSecret(Model):
    """A shared secret that protects requests (PBM or PBMAC1)."""

    type: Literal["secret"]
    """A shared secret."""
    reference: Text
    """Its reference number."""
    secret: SecretSource
    """The secret."""
    mac: Literal["pbm", "pbmac1"] = "pbm"
    """How it protects."""


class CmpSignature(Model):
    """A certificate whose key protects requests."""

    type: Literal["signature"]
    """A certificate."""
    signer: RaPair
    """The certificate and key; of a registration authority (id-kp-cmcRA) where `forward` needs one."""


class CmpCA(RemoteCA):
    """Any CMP server (RFC 9810)."""

    type: Literal["cmp"]
    """Any CMP server."""
    url: HttpUrl
    """`http://ca.example.com/.well-known/cmp/p/NAME`."""
    connection: Connection = Connection()
    """How it is reached."""
    auth: Annotated[CmpSecret | CmpSignature, Field(discriminator="type")]
    """What protects requests."""
    signers: FilePath | None = None
    """PEM certificates that sign its answers, or CAs of such; absent: `chain`. A certificate below a CA signs answers only with
    id-kp-cmcRA or id-kp-cmcCA in its extended key usage."""
    forward: Literal["p10cr", "ra_verified", "nested"] = "p10cr"
    """How requests go there. `p10cr`: PKCS#10 as it came, so CMP devices may not send ir, cr or kur. The others take those, too:
    `ra_verified` writes what was granted into a template of its own, with raVerified in place of the device's proof of
    possession; `nested` sends the request as it came, with that proof, in a nested message."""
    recipient: Text | None = None
    """The server's name, as `CN=CA,O=Example`; absent: the subject of the first of `chain`."""
    poll_every: Duration = Field(default="60s", validate_default=True)
    """How often a pending request is asked about where the server does not say."""
    remembers: Duration | None = None
    """How long the server gives the same certificate when the same transaction comes again, as this program does. Absent: it may
    issue another, so a request whose answer was lost is held for an operator."""


class GroupCA(Model):
    """Several CAs, one in place of another: a request goes to the next only when nothing of it was sent to the one before."""

    type: Literal["group"]
    """Several CAs."""
    members: Annotated[tuple[ConfigName, ...], Field(min_length=2, max_length=8)]
    """Their names in `upstream_cas`, asked in this order; not `local`, not a group."""
