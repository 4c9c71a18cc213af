"""Which subject name will be certified: what was asked for, through template and overrides, judged attribute by attribute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from gateway.config.policy import RuleMode, SubjectRule, Unlisted
from gateway.config.policy_checks import FACTS
from gateway.errors import Reason
from gateway.model import Name, NameAttribute
from gateway.pki.names import (
    IA5_STRING,
    PRINTABLE_STRING,
    UTF8_STRING,
    attribute_name,
    attribute_oid,
    make_attribute,
    normalize_name,
    parse_name_text,
)
from gateway.ra.policy.texts import text_problem
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts, shown

MAX_VALUE = 512
"""Longest value of any attribute, whatever the mode."""

COMMON_NAME = attribute_oid("CN")
SERIAL_NUMBER = attribute_oid("serialNumber")
_RULE = Rule("subject", "policy.subject", Reason.POLICY_SUBJECT)
_RESERVED = Rule("reserved_subject", "policy.subject", Reason.POLICY_SUBJECT)
_FORM = Rule("subject_form", "policy.subject", Reason.POLICY_SUBJECT)
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9._]{1,64})\}", re.ASCII)
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*", re.ASCII)
_STRING_TAGS = frozenset({12, 18, 19, 20, 22, 26, 27, 28, 30})
_WRITABLE = frozenset({UTF8_STRING, IA5_STRING})
_UPPER_BOUNDS = {
    attribute_oid(name): bound
    for name, bound in {
        "CN": 64,
        "O": 64,
        "OU": 64,
        "C": 2,
        "ST": 128,
        "L": 128,
        "serialNumber": 64,
        "title": 64,
        "emailAddress": 255,
        "DC": 63,
        "UID": 256,
    }.items()
}
"""Longest values (RFC 5280 appendix A.1, ub-…)."""

ComparableName = tuple[tuple[tuple[str, str], ...], ...]
"""What `normalize_name` makes of a name."""
_Rdns = tuple[tuple[NameAttribute, ...], ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject that will be certified; `rdns` is empty for the empty name."""

    rdns: _Rdns

    def values(self, oid: str) -> tuple[str, ...]:
        """Return the values of every attribute of type `oid`, in order."""
        return tuple([a.value for rdn in self.rdns for a in rdn if a.oid == oid])


@lru_cache(maxsize=4096)
def resolve_attribute(name: str) -> str | None:
    """Return the OID of a configured short name or OID; None for a word that means nothing, which then matches nothing."""
    try:
        return attribute_oid(name)
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _oids(names: tuple[str, ...]) -> frozenset[str | None]:
    return frozenset(map(resolve_attribute, names)) - {None}


def same_subject(one: Name, other: Name) -> bool:
    """Say whether two names say the same to every reader: string types do not count, case does.

    Stricter than name matching (RFC 5280 §7.1), by which `CN=ADMIN` and full-width letters would pass for `CN=admin`.
    """
    return _exact(one) == _exact(other)


def _exact(name: Name) -> list[list[tuple[str, str, bool]]]:
    return [sorted((a.oid, a.value, a.tag in _STRING_TAGS) for a in rdn) for rdn in name.rdns]


def judge_subject(rule: SubjectRule, asked: Name, facts: Mapping[str, str | None]) -> tuple[Subject, Verdicts]:
    """Judge the asked subject and return the one to be granted.

    `facts` are the values of `{dns}`, `{requester}`, `{owner}` and `{attested.…}` in a template. Patterns judge what was asked
    for; values that the configuration itself sets are not judged again.
    """
    replaced = frozenset([oid for name in rule.override if (oid := resolve_attribute(name))])
    used = _template_attributes(rule.template) if rule.template is not None else None
    kept = _kept_attributes(rule, used)
    judged = [a for rdn in asked.rdns for a in rdn if a.oid not in replaced and (kept is None or a.oid in kept)]
    form = _form_problems(judged)
    if form:
        return Subject(()), _FORM.judge(RuleMode.ENFORCE, form, "")
    rdns, missing = (_keep_listed(rule, asked.rdns, replaced), []) if used is None else _fill_template(rule, asked, facts)
    rdns, refused = _override(rule, rdns)
    subject = Subject(rdns)
    made = _made_problems(subject)
    # A name that lacks a value looks wrong for that reason.
    form = [*refused, *(missing if missing and (made or not rdns) else made)]
    problems = [*missing, *(_listed_problems(rule, judged) if used is None else ())]
    problems += _value_problems(rule, judged) + _whole_problems(rule, subject)
    return subject, (
        *_FORM.judge(RuleMode.ENFORCE, form, "the subject is what it looks like"),
        *_RULE.judge(rule.mode, problems, "the subject is allowed"),
    )


def _kept_attributes(rule: SubjectRule, used: frozenset[str | None] | None) -> frozenset[str | None] | None:
    """Return which asked attributes go on to the subject, taken up by the template or without one not dropped; None: all."""
    if used is not None:
        return used
    return _oids(rule.allow) if _drops(rule) else None


def _drops(rule: SubjectRule) -> bool:
    """Only an enforced rule changes what was asked for."""
    return rule.unlisted == Unlisted.DROP and rule.mode == RuleMode.ENFORCE


def judge_empty_subject(rule: SubjectRule, subject: Subject, has_names: bool) -> Verdicts:
    """Judge a subject without attributes; without a subject alternative name it is always refused (RFC 5280 §4.1.2.6)."""
    if subject.rdns:
        return ()
    if not has_names:
        return _FORM.judge(RuleMode.ENFORCE, [Problem("", "neither a subject nor a subject alternative name is left")], "")
    problems = [] if rule.allow_empty else [Problem("allow_empty", "the subject is empty")]
    return _RULE.judge(rule.mode, problems, "an empty subject is allowed")


def judge_reserved(subject: Subject, reserved: frozenset[ComparableName]) -> Verdicts:
    """Refuse, whatever the mode, a subject that matches the name of a CA or of an RA.

    A leaf with its issuer's name passes for a self-issued CA certificate where paths are built by name (RFC 5280 §3.2, §6.1).
    """
    taken = bool(subject.rdns) and normalize_name(Name(subject.rdns, b"")) in reserved
    problems = [Problem("", "the subject is the name of a CA or of the gateway's RA")] if taken else []
    return _RESERVED.judge(RuleMode.ENFORCE, problems, "the subject is nobody else's")


def _form_problems(attributes: list[NameAttribute]) -> list[Problem]:
    """Find what no mode lets through: values that are no text, or text that does not show what it says."""
    problems = []
    for attribute in attributes:
        problem = "is no text" if attribute.tag not in _STRING_TAGS else text_problem(attribute.value, MAX_VALUE)
        if problem:
            problems.append(Problem("", f"subject attribute {attribute_name(attribute.oid)} {problem}"))
    return problems


def _made_problems(subject: Subject) -> list[Problem]:
    made = [a for rdn in subject.rdns for a in rdn]
    problems = _form_problems(made)
    if len(made) > len(subject.rdns) and any(len({a.oid for a in rdn}) != len(rdn) for rdn in subject.rdns):
        problems.append(Problem("", "the subject has two attributes of one type in one RDN"))
    return problems


def _listed_problems(rule: SubjectRule, attributes: list[NameAttribute]) -> list[Problem]:
    allowed = _oids(rule.allow)
    unlisted = dict.fromkeys([a.oid for a in attributes if a.oid not in allowed])
    return [Problem("allow", f"subject attribute {attribute_name(oid)} is not allowed") for oid in unlisted]


def _value_problems(rule: SubjectRule, attributes: list[NameAttribute]) -> list[Problem]:
    """Judge asked values: upper bounds, country codes, and the pattern of their attribute."""
    patterns = {resolve_attribute(name): (name, pattern) for name, pattern in rule.patterns.items()}
    problems = []
    for attribute in attributes:
        bound = _UPPER_BOUNDS.get(attribute.oid, 256)
        if len(attribute.value) > bound:
            name = attribute_name(attribute.oid)
            problems.append(Problem("", f"subject attribute {name} is longer than {bound} characters"))
            continue
        field, pattern = patterns.get(attribute.oid, ("", None))
        if pattern is not None and not pattern.matches(attribute.value):
            said = f"{attribute_name(attribute.oid)} {shown(attribute.value)} does not match the pattern"
            problems.append(Problem(f"patterns.{field}", said))
    return problems


def _whole_problems(rule: SubjectRule, subject: Subject) -> list[Problem]:
    """Judge the subject as it will be certified: required attributes and the number of common names."""
    required = [(name, resolve_attribute(name)) for name in rule.require]
    problems = [
        Problem("require", f"subject attribute {name} is required")
        for name, oid in required
        if oid is None or not subject.values(oid)
    ]
    names = len(subject.values(COMMON_NAME))
    if names > rule.max_common_names:
        problems.append(Problem("max_common_names", f"{names} common names, at most {rule.max_common_names} are allowed"))
    return problems


def _keep_listed(rule: SubjectRule, rdns: _Rdns, replaced: frozenset[str]) -> _Rdns:
    """Drop unlisted attributes where the rule drops."""
    if _drops(rule):
        allowed = _oids(rule.allow)
        rdns = tuple(tuple(a for a in rdn if a.oid in allowed or a.oid in replaced) for rdn in rdns)
    return tuple([tuple([_writable(a) for a in rdn]) for rdn in rdns if rdn])


def _writable(attribute: NameAttribute) -> NameAttribute:
    """Return the attribute in a string type that a CA may write and that fits its value (RFC 5280 §4.1.2.4)."""
    tag = attribute.tag
    if tag in _WRITABLE or (tag == PRINTABLE_STRING and _PRINTABLE.fullmatch(attribute.value)):
        return attribute
    return NameAttribute(attribute.oid, attribute.value, UTF8_STRING)


def _override(rule: SubjectRule, rdns: _Rdns) -> tuple[_Rdns, list[Problem]]:
    """Set what the configuration sets: the first attribute of its type is replaced, the others go; else it stands in front."""
    problems: list[Problem] = []
    added: list[tuple[NameAttribute, ...]] = []
    if not rule.override:
        return rdns, problems
    for name, value in rule.override.items():
        try:
            made = make_attribute(name, value)
        except ValueError as error:
            problems.append(Problem("override", f"the profile's override for {name} cannot be used: {error}"))
            continue
        rdns, is_new = _replace_attribute(rdns, made)
        added += [(made,)] if is_new else []
    return (*added, *rdns), problems


def _replace_attribute(rdns: _Rdns, made: NameAttribute) -> tuple[_Rdns, bool]:
    """Return the RDNs with `made` as the only one of its type, and whether there was none that it could replace."""
    pending = [made]
    changed = tuple(tuple(pending.pop() if a.oid == made.oid else a for a in rdn if a.oid != made.oid or pending) for rdn in rdns)
    return tuple(rdn for rdn in changed if rdn), bool(pending)


@lru_cache(maxsize=256)
def parse_template(template: str) -> _Rdns:
    """Read an RFC 4514 template. Raises ValueError, also for a placeholder that means nothing."""
    rdns = parse_name_text(template).rdns
    for placeholder in _PLACEHOLDER.findall("".join(a.value for rdn in rdns for a in rdn)):
        if placeholder not in FACTS:
            attribute_oid(placeholder)
    return rdns


@lru_cache(maxsize=256)
def _template_attributes(template: str) -> frozenset[str | None]:
    """Return the OIDs of the asked attributes that a template takes up."""
    return frozenset(map(resolve_attribute, template_placeholders(template)))


def template_placeholders(template: str) -> tuple[str, ...]:
    """Return what stands in braces in a template: attributes by name, and facts such as `dns`."""
    return tuple(_PLACEHOLDER.findall(template))


def _fill_template(rule: SubjectRule, asked: Name, facts: Mapping[str, str | None]) -> tuple[_Rdns, list[Problem]]:
    """Put facts and asked values into the template's values; they are values only and can add no attribute."""
    problems: list[Problem] = []

    def fill(found: re.Match[str]) -> str:
        value = _fact(found[1], asked, facts)
        if value is None:
            problems.append(Problem("template", f"the subject needs exactly one {found[1]}"))
        return value or ""

    try:
        template = parse_template(rule.template or "")
        rdns = tuple(tuple(_filled(a, _PLACEHOLDER.sub(fill, a.value)) for a in rdn) for rdn in template)
    except ValueError as error:
        return (), problems or [Problem("template", f"the subject cannot be made from the profile's template: {error}")]
    return rdns, problems


def _fact(name: str, asked: Name, facts: Mapping[str, str | None]) -> str | None:
    if name in facts:
        return facts[name]
    oid = resolve_attribute(name)
    values = asked.values(oid) if oid else ()
    return values[0] if len(values) == 1 else None


def _filled(attribute: NameAttribute, value: str) -> NameAttribute:
    return attribute if value == attribute.value else make_attribute(attribute.oid, value)
