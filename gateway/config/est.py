"""EST endpoints of the configuration file (RFC 7030)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import EstLabel, FilePath, Model, RaPair, SecretSource

ServerKey = Literal["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "rsa-4096"]


class ServerKeygen(Model):
    """Keys that the server draws for devices that cannot (RFC 7030 §4.4)."""

    keys: Annotated[tuple[ServerKey, ...], Field(min_length=1)] = ("ec-p256", "rsa-2048")
    """Kinds of key that are drawn; the first where the request does not say."""
    symmetric_keys: dict[Annotated[str, Field(min_length=1, max_length=64)], SecretSource] = Field(default_factory=dict)
    """Keys that encrypt the private key, 16, 24 or 32 bytes in hex, by the identifier that requests name
    (DecryptKeyIdentifier)."""
    recipients: FilePath | None = None
    """PEM certificates whose keys encrypt the private key, RSA or EC, by the subject key identifier that requests name
    (AsymmetricDecryptKeyIdentifier); a TLS client's own certificate is always one."""
    signer: RaPair | None = None
    """The certificate and key that sign private keys before they are encrypted; absent: none is encrypted."""
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
