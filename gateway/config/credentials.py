"""Credentials of the configuration file: what proves who is asking for a certificate, by profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import Duration, FilePath, HttpUrl, Model, QuotaConfig, SecretSource

Sans = Literal["bound", "policy"]


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
    """Ask a responder; where `crls` are named too, both must be content."""
    names: Literal["same", "serial_number", "any"] = "same"
    """Which names it may ask for: its own, any with its own serialNumber in the subject, or any that policy lets through."""
    sans: Sans = "bound"
    """With `names: serial_number`: `bound` lets no subject alternative name through but the certificate's own, `policy` any that
    policy does."""


class RaCertificateCredential(Model):
    """A registration authority's certificate (id-kp-cmcRA), which asks for others, with their proof of possession: its TLS client
    certificate by EST, the signer of its messages by SCEP."""

    type: Literal["ra_certificate"]
    """Certificates of registration authorities."""
    anchors: FilePath
    """PEM CA certificates that issue them."""
    crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused."""
    ocsp: Ocsp | None = None
    """Ask a responder; where `crls` are named too, both must be content."""
    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their subjects, as `CN=ra1,O=Example`; no other may speak for devices of this profile."""
    may: Annotated[tuple[Literal["enroll", "update", "revoke", "forward"], ...], Field(min_length=1)] = ("enroll",)
    """What they may do by CMP beside enrolling: `update` devices' certificates (kur), `revoke` certificates of this profile (rr),
    `forward` the messages of devices under a protection of their own (nested)."""


class CmpSecretCredential(Model):
    """Shared secrets of CMP clients, made by `pki-gateway cmp-secret create`, named by reference numbers (RFC 9810 §5.1.3.1)."""

    type: Literal["cmp_secret"]
    """Shared secrets."""
    ttl: Duration = Field(default="7d", validate_default=True)
    """Lifetime where `--ttl` does not say otherwise."""
    max_ttl: Duration = Field(default="90d", validate_default=True)
    """The longest lifetime that `--ttl` may ask for."""
    max_uses: Annotated[int, Field(ge=1, le=100000)] = 1
    """Most certificates that `--uses` may let one secret be good for."""


class VendorCertificateCredential(Model):
    """Certificates that makers gave their devices, which sign the first CMP request (3GPP TS 33.310 clause 9)."""

    type: Literal["vendor_certificate"]
    """Makers' certificates."""
    anchors: FilePath
    """PEM CA certificates of the makers; CAs below them may come with the request."""
    crls: FilePath | None = None
    """CRLs of these CAs, PEM; a certificate whose CA has no valid CRL here is then refused."""
    ocsp: Ocsp | None = None
    """Ask a responder; where `crls` are named too, both must be content."""
    identity_from: Literal["serial_number", "common_name", "subject"] = "serial_number"
    """What of the certificate's subject names the device: `{vendor.id}` in a template of the subject."""
    inventory: FilePath | None = None
    """Devices that may enroll, one a line, as `identity_from` reads them; `#` begins a comment. Absent: needs `any_device`."""
    any_device: bool = False
    """Say that every device of these makers may enroll."""
    names: Literal["same", "identity", "any"] = "identity"
    """Which names it may ask for: its own, any with its identity as CN or serialNumber, or any that policy lets through."""


class BasicCredential(Model):
    """Name and password over TLS (HTTP Basic, RFC 7617)."""

    type: Literal["basic"]
    """HTTP Basic."""
    users: SecretSource
    """Lines `NAME:HASH`, made by `pki-gateway password hash`."""
    realm: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ !#-\[\]-~]+$")] = "pki-gateway"
    """What clients show to their users."""
    names: Literal["user", "any"] = "user"
    """`user`: the CN must be the user's name; `any`: any name that policy lets through."""
    sans: Sans = "bound"
    """With `names: user`: `bound` lets no subject alternative name through but the user's name, `policy` any that policy does."""


class DigestCredential(Model):
    """HTTP Digest with MD5 for clients that know nothing better (RFC 7616); who reads its file can log in."""

    type: Literal["digest_md5_legacy"]
    """HTTP Digest with MD5."""
    users: SecretSource
    """Lines `NAME:HEX`, the MD5 of `NAME:REALM:PASSWORD`, made by `pki-gateway password digest`."""
    realm: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ !#-\[\]-~]+$")] = "pki-gateway"
    """What the hashes were made with."""
    names: Literal["user", "any"] = "user"
    """`user`: the CN must be the user's name; `any`: any name that policy lets through."""
    sans: Sans = "bound"
    """With `names: user`: `bound` lets no subject alternative name through but the user's name, `policy` any that policy does."""


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
    sans: Sans = "bound"
    """With `names: subject`: `bound` lets no subject alternative name through but `sub`, `policy` any that policy does."""


SingleCredential = (
    StaticCredential
    | OneTimeCredential
    | IntuneJwsCredential
    | TlsCertificateCredential
    | RaCertificateCredential
    | CmpSecretCredential
    | VendorCertificateCredential
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
