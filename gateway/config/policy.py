"""Certificate policy of a profile, as configured: the same for every protocol."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import Duration, Model, Network, ObjectIdentifier, Pattern


class RuleMode(StrEnum):
    """What a broken rule does: refuse, only tell, or nothing (the rule is not judged)."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


class Unlisted(StrEnum):
    """What becomes of something that was asked for and is on no list."""

    REFUSE = "refuse"
    DROP = "drop"


class RsaSizes(Model):
    """RSA modulus sizes, in bits."""

    min_bits: Annotated[int, Field(ge=1024, le=16384)] = 2048
    max_bits: Annotated[int, Field(ge=1024, le=16384)] = 4096


class KeyRule(Model):
    """Which public keys may be certified; an algorithm that is not named is refused."""

    mode: RuleMode = RuleMode.ENFORCE
    rsa: RsaSizes | None = RsaSizes()
    ec: tuple[Literal["P-256", "P-384", "P-521"], ...] = ("P-256", "P-384", "P-521")
    eddsa: tuple[Literal["ed25519", "ed448"], ...] = ("ed25519",)
    ml_dsa: tuple[Literal["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"], ...] = ()
    allow_sha1_signature: bool = False
    """Accept a CSR that is signed with SHA-1."""


class SubjectRule(Model):
    """The subject name. Keys are short names (CN, O, OU, C, ST, L, DC, UID, serialNumber, emailAddress …) or OIDs."""

    mode: RuleMode = RuleMode.ENFORCE
    allow: tuple[str, ...] = ("CN", "O", "OU", "C", "ST", "L", "DC", "UID", "serialNumber", "emailAddress")
    require: tuple[str, ...] = ()
    unlisted: Unlisted = Unlisted.REFUSE
    patterns: dict[str, Pattern] = Field(default_factory=dict)
    """A regular expression that every value of this attribute must match whole."""
    template: str | None = None
    """An RFC 4514 name that replaces the subject; `{CN}`, `{serialNumber}`, `{dns}`, `{requester}` and `{owner}` are taken from
    the request."""
    override: dict[str, str] = Field(default_factory=dict)
    """Attributes set to this value whatever was asked for."""
    max_common_names: Annotated[int, Field(ge=0, le=8)] = 1
    allow_empty: bool = False
    """Accept an empty subject when there is a subject alternative name (which then is critical)."""


class NamePatterns(Model):
    """One type of subject alternative name: every value must match one of the patterns whole."""

    patterns: tuple[Pattern, ...] = ()
    max: Annotated[int, Field(ge=0, le=1000)] = 10


class DnsNames(NamePatterns):
    """dNSName; matched in lower case."""

    wildcards: bool = False
    """Accept a leading `*.` label; the rest is matched."""


class IpAddresses(Model):
    """iPAddress; every value must be in one of the networks."""

    networks: tuple[Network, ...] = ()
    max: Annotated[int, Field(ge=0, le=1000)] = 10


class SidNames(Model):
    """The strong-mapping SID URI; passes only where the credential vouches for it."""

    max: Annotated[int, Field(ge=0, le=1)] = 1


class SanRule(Model):
    """Subject alternative names by type; a type that is not named here is unlisted."""

    mode: RuleMode = RuleMode.ENFORCE
    dns: DnsNames | None = None
    ip: IpAddresses | None = None
    email: NamePatterns | None = None
    uri: NamePatterns | None = None
    upn: NamePatterns | None = None
    sid: SidNames | None = None
    max: Annotated[int, Field(ge=0, le=1000)] = 20
    """All types together."""
    require: bool = False
    unlisted: Unlisted = Unlisted.REFUSE
    dns_from_common_name: bool = False
    """When no name was asked for and the CN is a DNS name, add it as dNSName (judged like the others)."""


KeyUsageBit = Literal[
    "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "encipherOnly", "decipherOnly"
]


class KeyUsageRule(Model):
    """Key usage; keyCertSign and cRLSign are refused whatever is written here."""

    mode: RuleMode = RuleMode.ENFORCE
    allow: tuple[KeyUsageBit, ...] = ("digitalSignature", "keyEncipherment")
    default: tuple[KeyUsageBit, ...] = ("digitalSignature", "keyEncipherment")
    """Used when the request names none; keyEncipherment is left out for keys that cannot encipher."""
    unlisted: Unlisted = Unlisted.REFUSE


class EkuRule(Model):
    """Extended key usage by name (clientAuth, serverAuth, emailProtection, codeSigning, timeStamping, ipsecIKE …) or OID."""

    mode: RuleMode = RuleMode.ENFORCE
    allow: tuple[str, ...] = ("clientAuth",)
    default: tuple[str, ...] = ("clientAuth",)
    unlisted: Unlisted = Unlisted.REFUSE
    dangerous_ekus: tuple[str, ...] = ()
    """anyExtendedKeyUsage, OCSPSigning, cmcCA, cmcRA, cmcArchive, cmKGA, certificateRequestAgent and smartcardLogon pass only if
    they are named here too."""


class ValidityRule(Model):
    """How long a certificate is valid."""

    mode: RuleMode = RuleMode.ENFORCE
    default: Duration = Field(default="365d", validate_default=True)
    max: Duration = Field(default="365d", validate_default=True)
    """Cap on what a request may ask for, where its protocol can."""
    backdate: Duration = Field(default="1h", validate_default=True)
    """notBefore lies this far in the past: device clocks run behind."""
    not_after: Literal["unlimited"] | None = None
    """`unlimited` writes 99991231235959Z (IEEE 802.1AR IDevID); the CA's own end does not cap it."""


class ExtensionRule(Model):
    """Other requested extensions: by allow-list of OIDs, copied as they are."""

    mode: RuleMode = RuleMode.ENFORCE
    allow: tuple[ObjectIdentifier, ...] = ()
    unlisted: Unlisted = Unlisted.DROP


class PolicyConfig(Model):
    """What may be certified under a profile."""

    key: KeyRule = KeyRule()
    subject: SubjectRule = SubjectRule()
    san: SanRule = SanRule()
    key_usage: KeyUsageRule = KeyUsageRule()
    eku: EkuRule = EkuRule()
    validity: ValidityRule = ValidityRule()
    extensions: ExtensionRule = ExtensionRule()
