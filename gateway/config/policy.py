"""Certificate policy of a profile, as configured: the same for every protocol."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.fields import Duration, Model, Network, ObjectIdentifier, Pattern

ATTESTED_CLAIMS = (
    "format",
    "issuer",
    "permanent_identifier",
    "hardware_module",
    "serial",
    "udid",
    "os_version",
    "sepos_version",
    "llb_version",
    "manufacturer",
    "model",
    "version",
    "ak",
    "firmware",
    "form_factor",
    "pin_policy",
    "touch_policy",
)
"""What attestations of devices may say (device-attest-01); a template of a subject has each as `{attested.NAME}`."""


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
    """Smallest modulus."""
    max_bits: Annotated[int, Field(ge=1024, le=16384)] = 4096
    """Largest modulus."""


class KeyRule(Model):
    """Which public keys may be certified; an algorithm that is not named is refused."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    rsa: RsaSizes | None = RsaSizes()
    """RSA keys; null: refused."""
    ec: tuple[Literal["P-256", "P-384", "P-521"], ...] = ("P-256", "P-384", "P-521")
    """EC curves."""
    eddsa: tuple[Literal["ed25519", "ed448"], ...] = ("ed25519",)
    """Edwards curves."""
    ml_dsa: tuple[Literal["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"], ...] = ()
    """ML-DSA parameter sets (FIPS 204)."""
    allow_sha1_signature: bool = False
    """Accept a CSR that is signed with SHA-1."""
    allow_md5_signature: bool = False
    """Accept a CSR that is signed with MD5."""


class SubjectRule(Model):
    """The subject name. Keys are short names (CN, O, OU, C, ST, L, DC, UID, serialNumber, emailAddress …) or OIDs."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    allow: tuple[str, ...] = ("CN", "O", "OU", "C", "ST", "L", "DC", "UID", "serialNumber", "emailAddress")
    """Attributes that may be asked for."""
    require: tuple[str, ...] = ()
    """Attributes that must be there."""
    unlisted: Unlisted = Unlisted.REFUSE
    """What becomes of an attribute that is not in `allow`: refuse the request, or drop the attribute."""
    patterns: dict[str, Pattern] = Field(default_factory=dict)
    """A regular expression that every value of this attribute must match whole."""
    template: str | None = None
    """An RFC 4514 name that replaces the subject. `{CN}`, `{serialNumber}` and other attributes are taken from the request,
    `{dns}` is its DNS name, `{requester}` and `{owner}` come from the credential, `{attested.serial}` and other claims from the
    device's attestation (device-attest-01, `key_attestation`)."""
    override: dict[str, str] = Field(default_factory=dict)
    """Attributes set to this value whatever was asked for."""
    max_common_names: Annotated[int, Field(ge=0, le=8)] = 1
    """Most CN attributes in one subject."""
    allow_empty: bool = False
    """Accept an empty subject when there is a subject alternative name (which then is critical)."""


class NamePatterns(Model):
    """One type of subject alternative name: every value must match one of the patterns whole."""

    patterns: tuple[Pattern, ...] = ()
    """Regular expressions; none: no value passes."""
    max: Annotated[int, Field(ge=0, le=1000)] = 10
    """Most names of this type."""


class DnsNames(NamePatterns):
    """dNSName; matched in lower case."""

    wildcards: bool = False
    """Accept a leading `*.` label; the rest is matched."""


class IpAddresses(Model):
    """iPAddress; every value must be in one of the networks."""

    networks: tuple[Network, ...] = ()
    """Networks; none: no address passes."""
    max: Annotated[int, Field(ge=0, le=1000)] = 10
    """Most addresses."""


class SidNames(Model):
    """The strong-mapping SID URI; passes only where the credential vouches for it."""

    max: Annotated[int, Field(ge=0, le=1)] = 1
    """0 or 1."""


class SanRule(Model):
    """Subject alternative names by type; a type that is not named here is unlisted."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    dns: DnsNames | None = None
    """dNSName."""
    ip: IpAddresses | None = None
    """iPAddress."""
    email: NamePatterns | None = None
    """rfc822Name."""
    uri: NamePatterns | None = None
    """uniformResourceIdentifier."""
    upn: NamePatterns | None = None
    """otherName userPrincipalName."""
    sid: SidNames | None = None
    """SID of the account (KB5014754)."""
    permanent_identifier: NamePatterns | None = None
    """otherName permanentIdentifier (RFC 4043): its value, and where it has one `/` and the OID of its assigner."""
    hardware_module: NamePatterns | None = None
    """otherName hardwareModuleName (RFC 4108): its serial number, `/` and the OID of its type."""
    max: Annotated[int, Field(ge=0, le=1000)] = 20
    """All types together."""
    require: bool = False
    """At least one name must be there."""
    unlisted: Unlisted = Unlisted.REFUSE
    """What becomes of a name whose type is not listed: refuse the request, or drop the name."""
    dns_from_common_name: bool = False
    """When no name was asked for and the CN is a DNS name, add it as dNSName (judged like the others)."""


KeyUsageBit = Literal[
    "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "encipherOnly", "decipherOnly"
]


class KeyUsageRule(Model):
    """Key usage; keyCertSign and cRLSign are refused whatever is written here."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    allow: tuple[KeyUsageBit, ...] = ("digitalSignature", "keyEncipherment")
    """Bits that may be asked for."""
    default: tuple[KeyUsageBit, ...] = ("digitalSignature", "keyEncipherment")
    """Used when the request names none; keyEncipherment is left out for keys that cannot encipher."""
    unlisted: Unlisted = Unlisted.REFUSE
    """What becomes of a bit that is not in `allow`: refuse the request, or drop the bit."""


class EkuRule(Model):
    """Extended key usage by name (clientAuth, serverAuth, emailProtection, codeSigning, timeStamping, ipsecIKE …) or OID."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    allow: tuple[str, ...] = ("clientAuth",)
    """Usages that may be asked for."""
    default: tuple[str, ...] = ("clientAuth",)
    """Used when the request names none."""
    unlisted: Unlisted = Unlisted.REFUSE
    """What becomes of a usage that is not in `allow`: refuse the request, or drop the usage."""
    dangerous_ekus: tuple[str, ...] = ()
    """anyExtendedKeyUsage, OCSPSigning, cmcCA, cmcRA, cmcArchive, cmKGA, certificateRequestAgent and smartcardLogon pass only if
    they are named here too."""


class ValidityRule(Model):
    """How long a certificate is valid."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    default: Duration = Field(default="365d", validate_default=True)
    """Used when the request asks for no time."""
    max: Duration = Field(default="365d", validate_default=True)
    """Cap on what a request may ask for, where its protocol can."""
    backdate: Duration = Field(default="1h", validate_default=True)
    """notBefore lies this far in the past: device clocks run behind."""
    not_after: Literal["unlimited"] | None = None
    """`unlimited` writes 99991231235959Z (IEEE 802.1AR IDevID); the CA's own end does not cap it."""


class ExtensionRule(Model):
    """Other requested extensions: by allow-list of OIDs, copied as they are."""

    mode: RuleMode = RuleMode.ENFORCE
    """`warn`: a broken rule is only logged and audited; `off`: not judged."""
    allow: tuple[ObjectIdentifier, ...] = ()
    """OIDs of extensions that are copied."""
    unlisted: Unlisted = Unlisted.DROP
    """What becomes of an extension that is not in `allow`: refuse the request, or drop the extension."""


class PolicyConfig(Model):
    """What may be certified under a profile."""

    key: KeyRule = KeyRule()
    """Public keys."""
    subject: SubjectRule = SubjectRule()
    """The subject name."""
    san: SanRule = SanRule()
    """Subject alternative names."""
    key_usage: KeyUsageRule = KeyUsageRule()
    """Key usage."""
    eku: EkuRule = EkuRule()
    """Extended key usage."""
    validity: ValidityRule = ValidityRule()
    """Lifetime."""
    extensions: ExtensionRule = ExtensionRule()
    """Everything else that a request asks for."""
