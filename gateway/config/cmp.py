"""CMP endpoints of the configuration file (RFC 9810, RFC 9483, RFC 9811)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.est import ServerKey
from gateway.config.fields import ConfigName, Duration, FilePath, Model, RaPair

CMP_ROOT = ".well-known/cmp"
"""Where CMP is served (RFC 9811 §3.3)."""
CmpAlias = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$")]


class CmpMac(Model):
    """What protects messages under a shared secret; checked before anything is derived from it."""

    iterations: Annotated[tuple[int, int], Field(min_length=2, max_length=2)] = (100, 10000)
    """Fewest and most iterations of PasswordBasedMac; both from 100 to 100000."""
    pbmac1_iterations: Annotated[tuple[int, int], Field(min_length=2, max_length=2)] = (1000, 100000)
    """Fewest and most iterations of PBMAC1; both from 100 to 1000000."""
    hmac_sha1: bool | None = None
    """Take PasswordBasedMac with HMAC-SHA1, which OpenSSL uses unasked; absent: with `strictness: rfc4210` only."""


class CmpConfirmation(Model):
    """How clients confirm their certificates (RFC 9810 §5.3.18)."""

    implicit: Literal["allow", "refuse"] = "allow"
    """Whether clients that ask for it need not confirm (implicitConfirm)."""
    wait: Duration = Field(default="10m", validate_default=True)
    """How long a certificate may stay unconfirmed."""
    on_timeout: Literal["revoke", "keep"] = "revoke"
    """What becomes of one that was not confirmed in time."""


class CmpKeyGeneration(Model):
    """Keys that the server draws for devices (RFC 9483 §4.1.6)."""

    keys: Annotated[tuple[ServerKey, ...], Field(min_length=1)] = ("ec-p256", "rsa-2048")
    """Kinds of key that are drawn; the first where the request does not say."""
    signer: RaPair
    """The certificate, with id-kp-cmKGA in its extended key usage, and the key that sign what was drawn."""


class CmpEndpoint(Model):
    """CMP at `/.well-known/cmp/p/PROFILE` (RFC 9811)."""

    signer: RaPair
    """The certificate, with digitalSignature and a subject key identifier, and the key that sign answers; none of a CA or TLS."""
    default: bool = False
    """Serve this profile at `/.well-known/cmp` as well; at most one profile."""
    aliases: Annotated[tuple[CmpAlias, ...], Field(max_length=16)] = ()
    """Other paths, without a slash in front, as `ejbca/publicweb/cmp/devices` or `pkix`."""
    strictness: Literal["rfc4210", "lightweight"] = "rfc4210"
    """`lightweight` demands what RFC 9483 does of header and protection; `rfc4210` takes what older clients leave out."""
    message_time_skew: Duration = Field(default="5m", validate_default=True)
    """How far a message's time may be from ours."""
    mac: CmpMac = CmpMac()
    """Bounds on protection under shared secrets."""
    confirmation: CmpConfirmation = CmpConfirmation()
    """How certificates are confirmed."""
    same_key: Literal["refuse", "allow"] = "refuse"
    """Whether kur may keep the key of the certificate that it updates."""
    key_generation: CmpKeyGeneration | None = None
    """Draw keys for devices; absent: refused."""
    encrypted_certificates: bool = False
    """Prove possession of keys that cannot sign by sending their certificates encrypted to them (encrCert)."""
    extra_certificates: FilePath | None = None
    """PEM certificates that go beside every certificate, as the operator's root to base stations."""
    root_update: FilePath | None = None
    """PEM certificates of a change of roots: the new root, then NewWithOld and OldWithNew where there are such."""
    batch: Annotated[int, Field(ge=1, le=64)] = 16
    """Most messages of one batch that a registration authority forwards."""
    cert_profiles: dict[Annotated[str, Field(min_length=1, max_length=64)], ConfigName] = Field(default_factory=dict)
    """Other profiles that requests may choose by the certProfile of their header; each opens CMP itself."""

    def paths(self, profile: str) -> tuple[str, ...]:
        """Return where the profile of this name is served, without operations, and without a slash in front."""
        return (f"{CMP_ROOT}/p/{profile}", *((CMP_ROOT,) if self.default else ()), *self.aliases)
