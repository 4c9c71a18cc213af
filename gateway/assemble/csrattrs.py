"""From a profile's policy to what `csrattrs` tells its clients (RFC 7030 §4.5)."""

from __future__ import annotations

from gateway.config.policy import EkuRule, KeyRule, KeyUsageRule, PolicyConfig, RuleMode, SubjectRule
from gateway.config.policy_checks import FACTS
from gateway.model import PublicKey
from gateway.ra.policy.subject import resolve_attribute, template_placeholders
from gateway.ra.policy.usages import judge_ekus, judge_key_usage
from gateway.wire.est.csrattrs import Demands, KeyDemand

_COMMON_RSA_BITS = 2048


def find_demands(policy: PolicyConfig, *, linking: bool, one_time_password: bool = False) -> Demands:
    """Return what a CSR must hold to pass `policy`: nothing that the policy leaves to the client or adds by itself.

    `linking`: proof of possession must be linked to the connection. `one_time_password`: nothing else proves who is asking.
    """
    subject = policy.subject
    from_names = subject.template is not None and "dns" in template_placeholders(subject.template)
    return Demands(
        subject=_subject(subject),
        key=_key(policy.key),
        key_usage=_key_usage(policy.key_usage, policy.key),
        ekus=_ekus(policy.eku),
        san=from_names or (policy.san.require and policy.san.mode != RuleMode.OFF and not policy.san.dns_from_common_name),
        linking=linking,
        one_time_password=one_time_password,
    )


def _subject(rule: SubjectRule) -> tuple[tuple[str, str | None], ...]:
    """Return the attributes that are required, those that a template takes up, and those that are set whatever is asked for."""
    wanted: dict[str, str | None] = {}
    for name in _asked_attributes(rule):
        oid = resolve_attribute(name)
        if oid is not None:
            wanted[oid] = None
    for name, value in rule.override.items():
        oid = resolve_attribute(name)
        if oid is not None:
            wanted[oid] = value
    return tuple(wanted.items())


def _asked_attributes(rule: SubjectRule) -> tuple[str, ...]:
    if rule.template is not None:
        return tuple(name for name in template_placeholders(rule.template) if name not in FACTS)
    return rule.require if rule.mode != RuleMode.OFF else ()


def _key(rule: KeyRule) -> KeyDemand | None:
    """Return the key to make where only one kind is accepted; among curves or sizes of one kind the first."""
    if rule.mode == RuleMode.OFF:
        return None
    found = [KeyDemand("ec", curve=curve) for curve in rule.ec[:1]]
    found += [KeyDemand(name) for names in (rule.eddsa, rule.ml_dsa) for name in names[:1]]
    if rule.rsa is not None:
        found.append(KeyDemand("rsa", bits=max(rule.rsa.min_bits, min(_COMMON_RSA_BITS, rule.rsa.max_bits))))
    return found[0] if len(found) == 1 else None


def _key_usage(rule: KeyUsageRule, keys: KeyRule) -> tuple[str, ...]:
    """Return the default bits where every accepted kind of key can do them all: else each gets what it can by not asking."""
    if rule.mode == RuleMode.OFF:
        return ()
    algorithms = [*keys.eddsa, *keys.ml_dsa, *(["ec"] if keys.ec else []), *(["rsa"] if keys.rsa else [])]
    granted = {judge_key_usage(rule, None, PublicKey(b"", b"", algorithm, 0))[0] for algorithm in algorithms}
    return granted.pop() if len(granted) == 1 and keys.mode == RuleMode.ENFORCE else ()


def _ekus(rule: EkuRule) -> tuple[str, ...]:
    return judge_ekus(rule, None)[0] if rule.mode != RuleMode.OFF else ()
