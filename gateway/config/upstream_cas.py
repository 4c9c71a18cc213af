"""Upstream CAs, as configured: one model a backend, told apart by `type`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import Duration, FilePath, KeySource, Model, SecretSource
from gateway.config.remote_cas import AcmeCA, CfsslCA, CmpCA, EstCA, GroupCA, ScepCA, StepCA, VaultCA


class CrlConfig(Model):
    """The CRL that a local CA signs."""

    lifetime: Duration = Field(default="7d", validate_default=True)
    """From thisUpdate to nextUpdate."""
    refresh: Duration = Field(default="24h", validate_default=True)
    """A new CRL is signed this long after the last one, and at once on a revocation."""


class LocalCA(Model):
    """An embedded CA: its certificate in a file, its key in a file or in a token."""

    type: Literal["local"]
    """An embedded CA."""
    certificate: FilePath
    """The issuing CA's certificate, PEM."""
    key: KeySource
    """Its private key, PEM (PKCS#8): RSA, EC, Ed25519 or ML-DSA; or in a token: RSA or EC."""
    key_password: SecretSource | None = None
    """Its password, when the key is encrypted."""
    chain: tuple[FilePath, ...] = ()
    """Certificates above it, PEM, root last."""
    crl: CrlConfig | None = CrlConfig()
    """null: no CRL is signed and certificates carry no distribution point."""


class ExecCA(Model):
    """A program that signs one request: JSON on standard input, JSON on standard output."""

    type: Literal["exec"]
    """A program."""
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments; no shell. A relative path with a slash counts from the configuration file's folder."""
    chain: Annotated[tuple[FilePath, ...], Field(min_length=1)]
    """CA certificates, PEM, issuing CA first, root last."""
    deadline: Duration = Field(default="30s", validate_default=True)
    """At most 90s; then the program is killed, and what it did is asked with `find`."""
    operations: tuple[Literal["find", "poll", "revoke"], ...] = ()
    """What the program can do beyond `issue`."""
    forms: Annotated[tuple[Literal["pkcs10", "crmf"], ...], Field(min_length=1)] = ("pkcs10",)
    """What the program takes: `pkcs10`, the request of SCEP, EST, ACME and CMP p10cr; `crmf`, that of CMP ir, cr and kur, which
    has no `csr`: the public key stands beside it."""
    environment: dict[str, str | SecretSource] = Field(default_factory=dict)
    """Variables that the program gets; it gets no others but a few that every program needs."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """Most programs at once, in one worker."""


UpstreamCAConfig = Annotated[
    LocalCA | ExecCA | VaultCA | StepCA | CfsslCA | AcmeCA | EstCA | ScepCA | CmpCA | GroupCA, Field(discriminator="type")
]
