"""What a role of Vault's or OpenBao's PKI engine certifies: the body of a request, and why a grant cannot come out of it.

Vault takes names from the PKCS#10 or from the body, and usages from the role, and leaves out or adds what it cannot say, with
a warning at best. What would not be as granted is therefore found before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from gateway.ca.verify import CA_EXTENSIONS
from gateway.model import CertificateRequest, Extension, Grant, Name, NameAttribute, SanKind, SubjectAltName
from gateway.pki.certificate import der_to_pem
from gateway.pki.extensions import EKU_OIDS, KEY_USAGE_BITS, SID_PREFIX, UPN_OID, eku_name
from gateway.pki.names import attribute_oid, encode_name, format_name, parse_name

DEFAULT_ISSUER = "default"
DEFAULT_BACKDATING = 30.0
"""Seconds between notBefore and the time of issuing where a role says nothing else."""

_COMMON_NAME, _SERIAL_NUMBER, _USER_ID = attribute_oid("CN"), attribute_oid("serialNumber"), "0.9.2342.19200300.100.1.1"
_FIXED = MappingProxyType(
    {
        "country": "2.5.4.6",
        "province": "2.5.4.8",
        "locality": "2.5.4.7",
        "street_address": "2.5.4.9",
        "postal_code": "2.5.4.17",
        "organization": "2.5.4.10",
        "ou": "2.5.4.11",
    }
)
"""Fields of a role that become subject attributes, in the order in which Go 1.26 puts them before the common name."""
_EARLIER_ORDER = ("country", "organization", "ou", "locality", "province", "street_address", "postal_code")
"""As Go put them before; which Go a Vault was built with cannot be asked."""
_USAGES = MappingProxyType(
    {name.lower(): name for name in KEY_USAGE_BITS}
    | {"contentcommitment": "nonRepudiation", "certsign": "keyCertSign"}  # Go's names
)
_USAGE_WORDS = MappingProxyType({"nonRepudiation": "ContentCommitment", "keyCertSign": "CertSign"})
_EKU_FLAGS = MappingProxyType(
    {
        "server_flag": "serverAuth",
        "client_flag": "clientAuth",
        "code_signing_flag": "codeSigning",
        "email_protection_flag": "emailProtection",
    }
)
_EKU_WORDS = MappingProxyType({name.lower(): oid for name, oid in EKU_OIDS.items()} | {"any": EKU_OIDS["anyExtendedKeyUsage"]})
_HOST = re.compile(r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.?")
"""Vault leaves out a DNS name of another form without a word."""
_SAN_FIELDS = MappingProxyType(
    {
        SanKind.DNS: "alt_names",
        SanKind.EMAIL: "alt_names",
        SanKind.IP: "ip_sans",
        SanKind.URI: "uri_sans",
        SanKind.SID: "uri_sans",
        SanKind.UPN: "other_sans",
    }
)
"""Where a name stands in the body; other kinds cannot be said."""

Subject = tuple[frozenset[tuple[str, str]], ...]


@dataclass(frozen=True, slots=True)
class Role:
    """What matters here of a role, with Vault's defaults; `ekus` are dotted OIDs, `backdating` seconds."""

    use_csr_common_name: bool = True
    use_csr_sans: bool = True
    serial_number_from_csr: bool = True
    require_cn: bool = True
    no_store: bool = False
    issuer: str = DEFAULT_ISSUER
    backdating: float = DEFAULT_BACKDATING
    fixed_not_after: bool = False
    takes_not_after: bool = True
    key_usage: frozenset[str] = frozenset({"digitalSignature", "keyAgreement", "keyEncipherment"})
    ekus: frozenset[str] = frozenset({EKU_OIDS["serverAuth"], EKU_OIDS["clientAuth"]})
    fixed_subjects: tuple[Subject, ...] = ((),)
    """What stands before the common name, in each order that it may have."""


VERBATIM = Role(require_cn=False, key_usage=frozenset(), ekus=frozenset())
"""What `sign-verbatim` does without a role."""


def read_role(data: Mapping[str, Any]) -> Role:
    """Read `data` of `GET /roles/NAME`; what is missing or of another type is taken as Vault's default."""
    flags = {_EKU_WORDS[word.lower()] for flag, word in _EKU_FLAGS.items() if data.get(flag) is True}
    words = (word.strip().lower() for word in _texts(data, "ext_key_usage"))
    named = {_EKU_WORDS.get(word, f"the unknown usage {word}") for word in words}
    backdating = data.get("not_before_duration")
    issuer = data.get("issuer_ref")
    return Role(
        use_csr_common_name=data.get("use_csr_common_name") is not False,
        use_csr_sans=data.get("use_csr_sans") is not False,
        serial_number_from_csr=data.get("serial_number_source") != "json",
        require_cn=data.get("require_cn") is not False,
        no_store=data.get("no_store") is True,
        issuer=issuer if isinstance(issuer, str) and issuer else DEFAULT_ISSUER,
        backdating=float(backdating) if isinstance(backdating, int | float) and 0 < backdating < 1e9 else DEFAULT_BACKDATING,
        fixed_not_after=bool(data.get("not_after")),
        takes_not_after=data.get("not_after_bound") != "forbid",
        key_usage=frozenset(_USAGES.get(u.strip().lower(), u) for u in _texts(data, "key_usage")),
        ekus=frozenset(flags | named | set(_texts(data, "ext_key_usage_oids"))),
        fixed_subjects=(_fixed_subject(data, _FIXED), _fixed_subject(data, _EARLIER_ORDER)),
    )


def for_verbatim(role: Role) -> Role:
    """Return what remains of a role where names and usages are taken from the request."""
    return replace(VERBATIM, no_store=role.no_store, issuer=role.issuer, backdating=role.backdating)


def make_body(csr: bytes, grant: Grant, role: Role | None, now: datetime, *, verbatim: bool) -> dict[str, Any]:
    """Return the body for `sign` or `sign-verbatim`; `csr` is DER. An unknown role (None) is told everything."""
    body: dict[str, Any] = {"csr": der_to_pem(csr, "CERTIFICATE REQUEST").decode("ascii"), "format": "pem"}
    body["exclude_cn_from_sans"] = True
    if role is None or role.takes_not_after:
        body["not_after"] = f"{grant.not_after:%Y-%m-%dT%H:%M:%SZ}"
    else:
        body["ttl"] = f"{max(1, round((grant.not_after - now).total_seconds()))}s"
    if verbatim:
        body["key_usage"] = [_USAGE_WORDS.get(u, u[0].upper() + u[1:]) for u in grant.key_usage]
        body["ext_key_usage"] = []
        body["ext_key_usage_oids"] = list(grant.ekus)
        return body
    return body | _names_in_body(grant, role)


def find_conflicts(csr: CertificateRequest, grant: Grant, role: Role, *, verbatim: bool) -> tuple[str, ...]:
    """Return, in sentences, what would not be certified as it was granted; empty where all would."""
    if verbatim:
        return tuple(_verbatim_conflicts(csr, grant))
    return tuple(_role_conflicts(csr, grant, role))


def _names_in_body(grant: Grant, role: Role | None) -> dict[str, Any]:
    """Names for those fields that the role takes from the body: what stands in both is certified twice."""
    subject, body = parse_name(grant.subject_der), dict[str, Any]()
    body["common_name"] = next(iter(subject.values(_COMMON_NAME)), "")
    body["serial_number"] = next(iter(subject.values(_SERIAL_NUMBER)), "")
    body["user_ids"] = list(subject.values(_USER_ID))
    if role is None or not role.use_csr_sans:
        lists: dict[str, list[str]] = {"alt_names": [], "ip_sans": [], "uri_sans": [], "other_sans": []}
        for san in grant.sans:
            if san.kind in _SAN_FIELDS:
                lists[_SAN_FIELDS[san.kind]].append(_say(san))
        body |= lists | {"alt_names": ",".join(lists["alt_names"])}
    return {name: value for name, value in body.items() if value}


def _say(san: SubjectAltName) -> str:
    if san.kind is SanKind.UPN:
        return f"{UPN_OID};UTF8:{san.value}"
    if san.kind is SanKind.SID:
        return SID_PREFIX + san.value
    return san.value


def _role_conflicts(csr: CertificateRequest, grant: Grant, role: Role) -> Iterable[str]:
    granted = parse_name(grant.subject_der)
    if role.require_cn and not granted.values(_COMMON_NAME):
        yield "the role demands a common name (require_cn), and none is granted"
    expected = _expected_subjects(csr.subject, granted, role)
    if _attributes(granted) not in expected:
        source = "the request" if role.use_csr_common_name else "the gateway"
        yield (
            f"the role makes the subject {_format(expected[0])}, with the common name of {source}"
            f" (use_csr_common_name) and its own organization, ou, country and so on; granted is {format_name(granted)}"
        )
    yield from _san_conflicts(csr, grant, role)
    if role.key_usage != frozenset(grant.key_usage):
        yield f"the role's key_usage is {_list(role.key_usage)}; granted is {_list(grant.key_usage)}"
    if role.ekus != frozenset(grant.ekus):
        names, granted_names = map(eku_name, role.ekus), map(eku_name, grant.ekus)
        yield (
            f"the role's extended key usage is {_list(names)} (server_flag and client_flag are set by default);"
            f" granted is {_list(granted_names)}"
        )
    for extension in grant.extensions:
        yield f"a role certifies no extension {extension.oid}; sign_verbatim does, where the request has it"


def _san_conflicts(csr: CertificateRequest, grant: Grant, role: Role) -> Iterable[str]:
    for san in grant.sans:
        if san.kind not in _SAN_FIELDS:
            yield f"a role certifies no alternative name of type {san.kind.value}"
        elif not _can_say(san):
            yield f"Vault leaves out or changes the {san.kind.value} name {san.value}"
    if role.use_csr_sans and _set(csr.sans) != _set(grant.sans):
        yield "the role takes the alternative names from the request (use_csr_sans), and others are granted"


def _can_say(san: SubjectAltName) -> bool:
    match san.kind:
        case SanKind.DNS:
            return _HOST.fullmatch(san.value) is not None
        case SanKind.EMAIL:
            return "," not in san.value and san.value == san.value.strip()
        case _:
            return san.value == san.value.strip()


def _verbatim_conflicts(csr: CertificateRequest, grant: Grant) -> Iterable[str]:
    granted = parse_name(grant.subject_der)
    if _attributes(csr.subject) != _attributes(granted):
        yield f"the subject is taken from the request: {format_name(csr.subject)}; granted is {format_name(granted)}"
    if _set(csr.sans) != _set(grant.sans):
        yield "the alternative names are taken from the request, and others are granted"
    if csr.key_usage is not None and csr.key_usage != frozenset(grant.key_usage):
        yield f"the request's key usage {_list(csr.key_usage)} comes before the granted {_list(grant.key_usage)}"
    if csr.ekus is not None and frozenset(csr.ekus) != frozenset(grant.ekus):
        asked, names = map(eku_name, csr.ekus), map(eku_name, grant.ekus)
        yield f"the request's extended key usage {_list(asked)} comes before the granted {_list(names)}"
    yield from _extension_conflicts(csr.extensions, grant.extensions)


def _extension_conflicts(asked: tuple[Extension, ...], granted: tuple[Extension, ...]) -> Iterable[str]:
    oids = {extension.oid for extension in granted}
    for extension in granted:
        if extension not in asked:
            yield f"the granted extension {extension.oid} is not in the request, from which it would be taken"
    for extension in asked:
        if extension.oid not in oids and extension.oid not in CA_EXTENSIONS:
            yield f"the request's extension {extension.oid} would be certified, and was not granted"


def _expected_subjects(asked: Name, granted: Name, role: Role) -> tuple[Subject, ...]:
    """The subject that the role makes, in each order that it may have: its own, common name, serial number, user IDs."""
    own = asked.values(_COMMON_NAME) if role.use_csr_common_name else ()
    name = own[-1:] or granted.values(_COMMON_NAME)[:1]  # of several Go takes the last
    number = granted.values(_SERIAL_NUMBER)[:1]
    if not number and role.serial_number_from_csr:
        number = asked.values(_SERIAL_NUMBER)[-1:]
    users = granted.values(_USER_ID) or asked.values(_USER_ID)
    parts = (
        *(frozenset({(_COMMON_NAME, value)}) for value in name if value),
        *(frozenset({(_SERIAL_NUMBER, value)}) for value in number if value),
        *(frozenset({(_USER_ID, value)}) for value in users),
    )
    return tuple((*fixed, *parts) for fixed in role.fixed_subjects)


def _fixed_subject(data: Mapping[str, Any], order: Iterable[str]) -> Subject:
    found = (frozenset((_FIXED[name], value) for value in _texts(data, name)) for name in order)
    return tuple(attributes for attributes in found if attributes)


def _attributes(name: Name) -> Subject:
    return tuple(frozenset((a.oid, a.value) for a in rdn) for rdn in name.rdns)


def _format(subject: Subject) -> str:
    rdns = [[NameAttribute(oid, value) for oid, value in sorted(rdn)] for rdn in subject]
    return format_name(Name(tuple(map(tuple, rdns)), encode_name(()))) or "empty"


def _set(sans: Iterable[SubjectAltName]) -> frozenset[tuple[SanKind, str]]:
    return frozenset((san.kind, san.value) for san in sans)


def _texts(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of strings, which may also come as one string with commas."""
    value = data.get(name)
    if isinstance(value, str):
        value = value.split(",")
    return tuple(text for text in value if isinstance(text, str) and text) if isinstance(value, list) else ()


def _list(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"
