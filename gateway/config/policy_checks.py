"""Certificate policy that contradicts itself, names what does not exist, or leaves open what a static challenge must not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta

from gateway.config.document import Problem
from gateway.config.parts import PolicyRules
from gateway.config.patterns import LinearPattern
from gateway.config.policy import (
    ATTESTED_CLAIMS,
    EkuRule,
    IpAddresses,
    KeyRule,
    KeyUsageRule,
    RuleMode,
    SanRule,
    SubjectRule,
    Unlisted,
    ValidityRule,
)
from gateway.config.sentences import suggest
from gateway.pki.extensions import EKU_OIDS, eku_oid
from gateway.pki.names import ATTRIBUTE_OIDS, attribute_oid, make_attribute, parse_name_text

DANGEROUS_EKUS = frozenset(
    EKU_OIDS[name]
    for name in (
        "anyExtendedKeyUsage",
        "OCSPSigning",
        "cmcCA",
        "cmcRA",
        "cmcArchive",
        "cmKGA",
        "certificateRequestAgent",
        "smartcardLogon",
    )
)
"""Extended key usages with power over others than their holder; `dangerous_ekus` must name them too."""
FACTS = ("dns", "requester", "owner", "vendor.id", *(f"attested.{name}" for name in ATTESTED_CLAIMS))
"""Placeholders of a template that name no attribute: a judged name, the gateway's own words, what a maker calls its
device, and what a device attested."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PROBES = ("Q7zq probe-0.invalid", "q7zq-0.probe.invalid", "q7zq@probe.invalid", "urn:probe:q7zq", "10.203.0.113")
"""Names that nobody means: a pattern that matches the ones of its type lets everything through."""
_MAX_BACKDATE = timedelta(days=31)


def check_policy(rules: PolicyRules) -> Iterator[Problem]:
    """Yield what is wrong within each rule of one policy; paths begin at the policy."""
    checks: tuple[Iterable[Problem], ...] = (
        _check_key(rules.key) if rules.key else (),
        _check_subject(rules.subject) if rules.subject else (),
        _check_san(rules.san) if rules.san else (),
        _check_key_usage(rules.key_usage) if rules.key_usage else (),
        _check_eku(rules.eku) if rules.eku else (),
        _check_validity(rules.validity) if rules.validity else (),
    )
    for found in checks:
        yield from found


def check_static_names(rules: PolicyRules) -> Iterator[Problem]:
    """Yield why a secret that many share would let its holders ask for any name (VU#971035); paths begin at the credential."""
    if rules.subject is not None and not _limits_subject(rules.subject):
        yield Problem(
            (), f"{_SHARED} subject: give policy.subject patterns, a template or an override for CN; or say any_name: true"
        )
    if rules.san is None:
        return
    open_types = ", ".join(find_open_names(rules.san))
    if rules.san.mode is not RuleMode.ENFORCE:
        yield Problem((), f"{_SHARED} subject alternative name: policy.san.mode must be enforce; or say any_name: true")
    elif open_types:
        yield Problem((), f"{_SHARED} subject alternative name of type {open_types}: narrow its patterns; or say any_name: true")


_SHARED = "everybody who knows this challenge could ask for any"


def _limits_subject(rule: SubjectRule) -> bool:
    """Say whether the names in the subject are not simply what was asked for."""
    if rule.template is not None:
        copied = [name for name in _PLACEHOLDER.findall(rule.template) if name not in FACTS]
        # What is overridden is not judged as it was asked for, and a template copies what was asked for.
        return all(_has_pattern(rule, name) and not _overrides(rule, name) for name in copied)
    dropped = _oid("CN") not in {_oid(name) for name in rule.allow} and rule.mode is RuleMode.ENFORCE
    return dropped or _overrides(rule, "CN") or _has_pattern(rule, "CN")


def _overrides(rule: SubjectRule, attribute: str) -> bool:
    return any(_oid(name) == _oid(attribute) for name in rule.override)


def _has_pattern(rule: SubjectRule, attribute: str) -> bool:
    patterns = [pattern for name, pattern in rule.patterns.items() if _oid(name) == _oid(attribute)]
    return rule.mode is RuleMode.ENFORCE and any(not _matches_everything(pattern) for pattern in patterns)


def _oid(name: str) -> str | None:
    return _oid_or_none(attribute_oid, name)


def _matches_everything(pattern: LinearPattern, probes: Iterable[str] = _PROBES) -> bool:
    return all(pattern.matches(probe) for probe in probes)


def matches_every_name(pattern: LinearPattern) -> bool:
    """Say whether a pattern of DNS names lets everything through."""
    return _matches_everything(pattern, _PROBES[1:2])


def find_open_names(rule: SanRule) -> Iterator[str]:
    """Yield the types of name of which a rule lets everything through."""
    probes = {"dns": _PROBES[1:2], "email": _PROBES[2:3], "uri": _PROBES[3:4], "upn": _PROBES[2:3]}
    probes |= {"permanent_identifier": _PROBES[:1], "hardware_module": ("q7zq/2.25.71131",)}
    for kind, texts in probes.items():
        names = getattr(rule, kind)
        if names is not None and any(_matches_everything(pattern, texts) for pattern in names.patterns):
            yield kind
    if rule.ip is not None and any(network.prefixlen == 0 for network in rule.ip.networks):
        yield "ip"


def _oid_or_none(read: Callable[[str], str], name: str) -> str | None:
    try:
        return read(name)
    except ValueError:
        return None


def _check_key(rule: KeyRule) -> Iterator[Problem]:
    if rule.rsa is not None and rule.rsa.min_bits > rule.rsa.max_bits:
        yield Problem(("key", "rsa", "min_bits"), "must not be larger than max_bits")
    if rule.rsa is None and not (rule.ec or rule.eddsa or rule.ml_dsa):
        yield Problem(("key",), "allows no key at all")


def _check_subject(rule: SubjectRule) -> Iterator[Problem]:
    allowed = {_oid(name) for name in rule.allow}
    for field in ("allow", "require"):
        for number, name in enumerate(getattr(rule, field)):
            yield from _unknown_name(("subject", field, number), name, attribute_oid, ATTRIBUTE_OIDS, "attribute")
    for field in ("patterns", "override"):
        for name in getattr(rule, field):
            yield from _unknown_name(("subject", field, name), name, attribute_oid, ATTRIBUTE_OIDS, "attribute")
    overridden = {_oid(name) for name in rule.override}
    for number, name in enumerate(rule.require):
        if rule.template is None and _oid(name) not in allowed | overridden:
            yield Problem(("subject", "require", number), f"{name} is required but not in allow")
    for name, value in rule.override.items():
        yield from _check_override(name, value)
    if rule.template is not None:
        yield from _check_template(rule.template)


def _unknown_name(
    path: tuple[str | int, ...], name: str, read: Callable[[str], str], known: Mapping[str, str], what: str
) -> Iterator[Problem]:
    if _oid_or_none(read, name) is None:
        yield Problem(path, f"{name} is not a known {what}{suggest(name, known) or '; write its OID if it has no short name'}")


def _check_override(name: str, value: str) -> Iterator[Problem]:
    if _oid(name) is not None:
        try:
            make_attribute(name, value)
        except ValueError as error:
            yield Problem(("subject", "override", name), f"cannot be written into a certificate: {error}")


def _check_template(template: str) -> Iterator[Problem]:
    path = ("subject", "template")
    for name in _PLACEHOLDER.findall(template):
        if name not in FACTS and _oid(name) is None:
            known = (*FACTS, *ATTRIBUTE_OIDS)
            meant = suggest(name, known) or f"; known: {', '.join(FACTS)} and names of attributes"
            yield Problem(path, f"{{{name}}} is not a known placeholder{meant}")
    try:
        parse_name_text(template)
    except ValueError as error:
        yield Problem(path, f"is not an RFC 4514 name: {error}")


def _check_san(rule: SanRule) -> Iterator[Problem]:
    named = 0
    for kind in ("dns", "ip", "email", "uri", "upn", "permanent_identifier", "hardware_module"):
        names = getattr(rule, kind)
        if names is None:
            continue
        named += 1
        empty = "networks" if isinstance(names, IpAddresses) else "patterns"
        if not getattr(names, empty) and rule.mode is not RuleMode.OFF:
            yield Problem(("san", kind), f"has no {empty}, so no such name would pass; name some, or remove the block")
    if rule.require and not named and rule.sid is None:
        yield Problem(("san", "require"), "cannot be met: no type of name is allowed here")
    if rule.dns_from_common_name and rule.dns is None and rule.mode is RuleMode.ENFORCE and rule.unlisted is Unlisted.REFUSE:
        yield Problem(("san", "dns_from_common_name"), "needs a dns block that says which names pass")


def _check_key_usage(rule: KeyUsageRule) -> Iterator[Problem]:
    for number, name in enumerate(rule.default):
        if name not in rule.allow:
            yield Problem(("key_usage", "default", number), f"{name} is not in allow")


def _check_eku(rule: EkuRule) -> Iterator[Problem]:
    for field in ("allow", "default", "dangerous_ekus"):
        for number, name in enumerate(getattr(rule, field)):
            yield from _unknown_name(("eku", field, number), name, eku_oid, EKU_OIDS, "extended key usage")
    allowed = {_oid_or_none(eku_oid, name) for name in rule.allow}
    spoken_for = {_oid_or_none(eku_oid, name) for name in rule.dangerous_ekus}
    for number, name in enumerate(rule.default):
        if _oid_or_none(eku_oid, name) not in allowed | spoken_for:
            yield Problem(("eku", "default", number), f"{name} is not in allow")
    for field in ("allow", "default"):
        for number, name in enumerate(getattr(rule, field)):
            oid = _oid_or_none(eku_oid, name)
            if oid in DANGEROUS_EKUS - spoken_for:
                yield Problem(
                    ("eku", field, number), f"{name} gives power over others; name it in dangerous_ekus too if that is meant"
                )
    for number, name in enumerate(rule.dangerous_ekus):
        if _oid_or_none(eku_oid, name) not in DANGEROUS_EKUS | {None}:
            yield Problem(("eku", "dangerous_ekus", number), f"{name} is not dangerous; allow is enough")


def _check_validity(rule: ValidityRule) -> Iterator[Problem]:
    if rule.default <= timedelta(0):
        yield Problem(("validity", "default"), "must be longer than zero")
    if rule.default > rule.max and rule.not_after is None:
        yield Problem(("validity", "default"), "must not be longer than max")
    if rule.backdate > _MAX_BACKDATE:
        yield Problem(("validity", "backdate"), "must not be longer than 31d")
