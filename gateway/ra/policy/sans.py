"""Which subject alternative names may be certified, type by type."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from gateway.config.policy import DnsNames, IpAddresses, NamePatterns, RuleMode, SanRule, Unlisted
from gateway.errors import Reason
from gateway.model import SanKind, SubjectAltName
from gateway.pki.extensions import make_san
from gateway.ra.policy.texts import (
    email_problem,
    hardware_module_problem,
    host_name_problem,
    matches_any,
    permanent_identifier_problem,
    upn_problem,
    uri_problem,
)
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts, shown

MAX_NAMES = 1000
"""Most names that are looked at, whatever `max` says."""

_RULE = Rule("subject_alternative_names", "policy.san", Reason.POLICY_SAN)
_REQUIRED = Rule("subject_alternative_name_required", "policy.san.require", Reason.POLICY_SAN)
_SID = Rule("sid", "policy.san.sid", Reason.POLICY_SAN)
_FORM = Rule("name_form", "policy.san", Reason.POLICY_SAN)
_SID_VALUE = re.compile(r"S-1-[0-9]{1,15}(?:-[0-9]{1,10}){1,15}", re.ASCII)
_NEVER = frozenset({SanKind.OTHER, SanKind.DIRECTORY_NAME})
_UNLISTED = "is of a type that is not allowed"
_HONEST = "every name is what it looks like"
_PASSED = "names that pass: "
_SID_PREFIX = "tag:microsoft.com,"


@dataclass(frozen=True, slots=True)
class _Judged:
    """One name after its type's rule: `name` to be granted (None: dropped), and what is wrong with it."""

    name: SubjectAltName | None
    problem: Problem | None = None
    rule: Rule = _RULE
    """Whose problem it is; those of the form and of SIDs stand whatever the mode."""


def comparable_name(kind: SanKind, value: str) -> tuple[SanKind, str]:
    """Return what two equal names have in common: case of hosts and spelling of addresses do not count (RFC 5280 §7.2-7.5)."""
    match kind:
        case SanKind.DNS:
            return kind, value.lower() if value.isascii() else value
        case SanKind.EMAIL:
            local, at, host = value.rpartition("@")
            return kind, f"{local}{at}{host.lower() if host.isascii() else host}"
        case SanKind.IP:
            try:
                return kind, str(ipaddress.ip_address(value))
            except ValueError:
                return kind, value
        case _:
            return kind, value


def judge_sans(rule: SanRule, asked: tuple[SubjectAltName, ...], vouched: bool) -> tuple[tuple[SubjectAltName, ...], Verdicts]:
    """Judge every name, types, values and counts; `vouched` lets a SID through. Return the names to be granted, in order.

    A type that the rule does not name is refused or dropped as `unlisted` says. Types that no rule can name (otherName other
    than a UPN, directoryName, …) and names that are not what they look like are never granted, whatever the mode.
    """
    if not asked:
        return (), _judge_none(rule.mode)
    if len(asked) > MAX_NAMES:
        return (), _FORM.judge(RuleMode.ENFORCE, [Problem("max", f"more than {MAX_NAMES} names are asked for")], "")
    judged = [_judge_san(rule, name, vouched) for name in _distinct(asked)]
    granted = tuple([one.name for one in judged if one.name is not None])
    found: dict[Rule, list[Problem]] = {_FORM: [], _RULE: [], _SID: []}
    for one in judged:
        if one.problem:
            found[one.rule].append(one.problem)
    dropped = len(judged) - len(granted)
    kept = f"{_PASSED}{len(granted)}" + (f", left out: {dropped}" if dropped else "")
    return granted, (
        *_FORM.judge(RuleMode.ENFORCE, found[_FORM], _HONEST),
        *_RULE.judge(rule.mode, found[_RULE] + _count_problems(rule, granted), kept),
        *_judge_sids(granted, found[_SID]),
    )


@lru_cache(maxsize=len(RuleMode))
def _judge_none(mode: RuleMode) -> Verdicts:
    """Return what is said where no name is asked for: nothing can be wrong with it."""
    return (
        *_FORM.judge(RuleMode.ENFORCE, (), _HONEST),
        *_RULE.judge(mode, (), f"{_PASSED}0"),
        *_judge_sids((), []),
    )


def judge_san_required(rule: SanRule, granted: tuple[SubjectAltName, ...]) -> Verdicts:
    """Judge `require`."""
    problems = [Problem("", "a subject alternative name is required")] if rule.require and not granted else []
    return _REQUIRED.judge(rule.mode, problems, "a subject alternative name is there" if granted else "none is required")


def dns_from_common_name(rule: SanRule, common_names: tuple[str, ...]) -> tuple[SubjectAltName, ...]:
    """Return the one common name as dNSName if the rule wants it and it is a host name with a dot, else nothing."""
    if not rule.dns_from_common_name or len(common_names) != 1:
        return ()
    name = common_names[0]
    if "." not in name or host_name_problem(name.removeprefix("*.")):
        return ()
    return (make_san(SanKind.DNS, name),)


def _distinct(asked: tuple[SubjectAltName, ...]) -> Sequence[SubjectAltName]:
    if len(asked) < 2:
        return asked
    return list({comparable_name(name.kind, name.value): name for name in reversed(asked)}.values())[::-1]


def _judge_san(rule: SanRule, name: SubjectAltName, vouched: bool) -> _Judged:
    if name.kind in _NEVER:
        return _refuse_or_drop(rule, Problem("", f"names of type {name.kind} are never certified"), _FORM)
    if name.kind is SanKind.SID or _looks_like_sid(name):
        return _judge_sid(rule, name, vouched)
    form = _FORM_PROBLEMS[name.kind](name.value)
    if form:
        return _Judged(None, Problem(name.kind.value, f"{name.kind} name {shown(name.value)} {form}"), _FORM)
    plain = _plainly_encoded(name)
    if plain is None:
        return _Judged(None, Problem(name.kind.value, f"{name.kind} name {shown(name.value)} cannot be encoded"), _FORM)
    return _judge_listed(rule, plain)


def _judge_listed(rule: SanRule, name: SubjectAltName) -> _Judged:
    match name.kind:
        case SanKind.DNS:
            problem = _dns_problem(rule.dns, name.value) if rule.dns else _UNLISTED
        case SanKind.IP:
            problem = _ip_problem(rule.ip, name.value) if rule.ip else _UNLISTED
        case _:
            patterns = _patterns(rule, name.kind)
            problem = _pattern_problem(patterns, name.value) if patterns else _UNLISTED
    if problem is None:
        return _Judged(name)
    if problem is not _UNLISTED:
        return _Judged(name, Problem(name.kind.value, f"{name.kind} name {shown(name.value)} {problem}"))
    unlisted = Problem("", f"names of type {name.kind} are not allowed")
    return _refuse_or_drop(rule, unlisted, _RULE) if rule.mode == RuleMode.ENFORCE else _Judged(name, unlisted)


def _refuse_or_drop(rule: SanRule, problem: Problem, whose: Rule) -> _Judged:
    return _Judged(None, None if rule.unlisted == Unlisted.DROP else problem, whose)


def _patterns(rule: SanRule, kind: SanKind) -> NamePatterns | None:
    match kind:
        case SanKind.EMAIL:
            return rule.email
        case SanKind.URI:
            return rule.uri
        case SanKind.UPN:
            return rule.upn
        case SanKind.PERMANENT_IDENTIFIER:
            return rule.permanent_identifier
        case SanKind.HARDWARE_MODULE:
            return rule.hardware_module
        case _:
            return None


def _pattern_problem(rule: NamePatterns, value: str) -> str | None:
    return None if matches_any(rule.patterns, value) else "matches none of the patterns"


def _dns_problem(rule: DnsNames, value: str) -> str | None:
    if value.startswith("*."):
        if not rule.wildcards:
            return "is a wildcard"
        if value.count(".") < 2:
            return "is a wildcard for a whole top-level domain"
    return _pattern_problem(rule, value.lower().removeprefix("*."))


def _dns_form_problem(value: str) -> str | None:
    return host_name_problem(value.removeprefix("*."))


def _ip_problem(rule: IpAddresses, value: str) -> str | None:
    address = ipaddress.ip_address(value)
    inside = any(address.version == network.version and address in network for network in rule.networks)
    return None if inside else "is in none of the networks"


def _ip_form_problem(value: str) -> str | None:
    """Refuse scoped addresses, and IPv4 written as IPv6: a network list for one family would be asked about the other."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return "is not an IP address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "is not an IP address"
        if address.ipv4_mapped is not None:
            return "is an IPv4 address written as IPv6"
    return None


_FORM_PROBLEMS: dict[SanKind, Callable[[str], str | None]] = {
    SanKind.DNS: _dns_form_problem,
    SanKind.IP: _ip_form_problem,
    SanKind.EMAIL: email_problem,
    SanKind.URI: uri_problem,
    SanKind.UPN: upn_problem,
    SanKind.PERMANENT_IDENTIFIER: permanent_identifier_problem,
    SanKind.HARDWARE_MODULE: hardware_module_problem,
}


def _plainly_encoded(name: SubjectAltName) -> SubjectAltName | None:
    """Return the name encoded from the very text that is judged, so that its DER cannot say anything else."""
    try:
        plain = make_san(name.kind, name.value)
    except ValueError:
        return None
    return name if plain.der == name.der else plain


def _looks_like_sid(name: SubjectAltName) -> bool:
    """Whether some reader may take a URI for the SID tag, which is one only in its exact spelling (KB5014754)."""
    return name.kind is SanKind.URI and unquote(name.value).strip().casefold().startswith(_SID_PREFIX)


def _judge_sid(rule: SanRule, name: SubjectAltName, vouched: bool) -> _Judged:
    """A SID decides who Windows takes the holder for: it passes only where it is configured and the credential vouches for it."""
    if rule.sid is None or not vouched:
        why = "the credential does not vouch for it" if rule.sid else "this profile does not certify SIDs"
        return _refuse_or_drop(rule, Problem("", f"a SID is asked for and {why}"), _SID)
    plain = _plainly_encoded(name) if name.kind is SanKind.SID and _SID_VALUE.fullmatch(name.value) else None
    if plain is None:
        return _Judged(None, Problem("", f"{shown(name.value)} is not a SID"), _SID)
    return _Judged(plain)


def _judge_sids(granted: tuple[SubjectAltName, ...], problems: list[Problem]) -> Verdicts:
    sids = _count(granted, SanKind.SID)
    if sids > 1:
        problems = [*problems, Problem("max", "more than one SID is asked for")]
    return _SID.judge(RuleMode.ENFORCE, problems, "the credential vouches for the SID" if sids else "no SID is certified")


def _count_problems(rule: SanRule, granted: tuple[SubjectAltName, ...]) -> list[Problem]:
    every = len(granted)
    problems = [Problem("max", f"{every} names, at most {rule.max} are allowed")] if every > rule.max else []
    for kind, listed in (
        (SanKind.DNS, rule.dns),
        (SanKind.IP, rule.ip),
        (SanKind.EMAIL, rule.email),
        (SanKind.URI, rule.uri),
        (SanKind.UPN, rule.upn),
        (SanKind.SID, rule.sid),
        (SanKind.PERMANENT_IDENTIFIER, rule.permanent_identifier),
        (SanKind.HARDWARE_MODULE, rule.hardware_module),
    ):
        if listed is not None and every > listed.max and (count := _count(granted, kind)) > listed.max:
            problems.append(Problem(f"{kind.value}.max", f"{count} {kind} names, at most {listed.max} are allowed"))
    return problems


def _count(names: tuple[SubjectAltName, ...], kind: SanKind) -> int:
    return sum([name.kind is kind for name in names])
