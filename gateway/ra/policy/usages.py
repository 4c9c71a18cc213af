"""Which key usages and extended key usages will be certified (RFC 5280 §4.2.1.3 and §4.2.1.12)."""

from __future__ import annotations

from functools import lru_cache

from gateway.config.policy import EkuRule, KeyUsageRule, RuleMode, Unlisted
from gateway.config.policy_checks import DANGEROUS_EKUS
from gateway.errors import Reason
from gateway.model import PublicKey
from gateway.pki.extensions import KEY_USAGE_BITS, eku_name, eku_oid
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_CA = Rule("ca_certificate", "policy", Reason.POLICY_KEY_USAGE)
_KEY_USAGE = Rule("key_usage", "policy.key_usage", Reason.POLICY_KEY_USAGE)
_EKU = Rule("extended_key_usage", "policy.eku", Reason.POLICY_EKU)
_DANGEROUS = Rule("dangerous_ekus", "policy.eku.dangerous_ekus", Reason.POLICY_EKU)

_CA_BITS = frozenset({"keyCertSign", "cRLSign"})
_AGREEMENT_BITS = frozenset({"encipherOnly", "decipherOnly"})
_SIGN = frozenset({"digitalSignature", "nonRepudiation"})
_CAPABLE = {
    "rsa": _SIGN | {"keyEncipherment", "dataEncipherment"},  # RFC 3279 §2.3.1
    "ec": _SIGN | {"keyAgreement", "encipherOnly", "decipherOnly"},  # RFC 5480 §3, RFC 8813 §3
    "ed25519": _SIGN,  # RFC 9295 §3
    "ed448": _SIGN,
    "ml-dsa-44": _SIGN,  # RFC 9881 §5
    "ml-dsa-65": _SIGN,
    "ml-dsa-87": _SIGN,
}
_ONLY_LISTED = frozenset(
    {
        eku_oid("pkInitClientAuth"),  # logs on as any user of a realm (RFC 4556 §3.2.2)
        eku_oid("pkInitKdc"),  # speaks for a domain controller
        "1.3.6.1.4.1.311.10.3.4.1",  # file recovery agent
        "1.3.6.1.4.1.311.10.3.10",  # qualified subordination
        "1.3.6.1.4.1.311.21.6",  # key recovery agent
    }
)
"""Usages with power over others that pass only by `allow`, also where the rule warns or is off."""


def judge_ca_request(is_ca: bool, key_usage: frozenset[str] | None) -> Verdicts:
    """Refuse to make a CA, whatever is configured: basicConstraints CA:TRUE, keyCertSign, cRLSign."""
    asked = ["CA:TRUE"] if is_ca else []
    if key_usage is not None:
        asked += _in_order(key_usage & _CA_BITS)
    problems = [Problem("", f"{what} is asked for, and CA certificates are never issued") for what in asked]
    return _CA.judge(RuleMode.ENFORCE, problems, "no CA certificate is asked for")


def judge_key_usage(rule: KeyUsageRule, asked: frozenset[str] | None, key: PublicKey) -> tuple[tuple[str, ...], Verdicts]:
    """Judge asked bits, or take the default; return the bits to be granted in RFC 5280's order.

    A bit that the key cannot do is left out of the default, and is unlisted when asked for. Where nothing that was asked for
    is left, the default holds: a certificate without key usage would be good for everything.
    """
    capable = _CAPABLE.get(key.algorithm, _SIGN)
    default = _default_usage(rule.default, capable)
    if not asked:
        granted, verdicts = default, _KEY_USAGE.judge(rule.mode, (), "key usage is the profile's default")
    else:
        useful = asked - _CA_BITS
        kept = _meaningful(useful & capable & frozenset(rule.allow)) if rule.mode == RuleMode.ENFORCE else useful
        granted = kept or default
        said = "every key usage is allowed" if kept == asked else "what is not allowed is dropped"
        verdicts = _KEY_USAGE.judge(rule.mode, _key_usage_problems(rule, useful, capable, key), said)
    if not granted and (asked or rule.default):
        problem = Problem("default", f"no key usage is left that a key of type {key.algorithm} can do")
        verdicts += _KEY_USAGE.judge(RuleMode.ENFORCE, [problem], "")
    return _in_order(granted), verdicts


def _key_usage_problems(rule: KeyUsageRule, asked: frozenset[str], capable: frozenset[str], key: PublicKey) -> list[Problem]:
    if rule.unlisted == Unlisted.DROP and rule.mode == RuleMode.ENFORCE:
        return []
    problems = []
    for bit in sorted(asked):
        if bit not in rule.allow:
            problems.append(Problem("allow", f"key usage {bit} is not allowed"))
        elif bit not in capable:
            problems.append(Problem("allow", f"a key of type {key.algorithm} cannot do {bit}"))
    if asked != _meaningful(asked):
        problems.append(Problem("allow", "encipherOnly and decipherOnly mean nothing without keyAgreement"))
    return problems


@lru_cache(maxsize=256)
def _default_usage(default: tuple[str, ...], capable: frozenset[str]) -> frozenset[str]:
    return _meaningful(frozenset(default) & capable)


@lru_cache(maxsize=512)
def _in_order(bits: frozenset[str]) -> tuple[str, ...]:
    return tuple(bit for bit in KEY_USAGE_BITS if bit in bits)


def _meaningful(bits: frozenset[str]) -> frozenset[str]:
    """Leave out encipherOnly and decipherOnly where there is no keyAgreement to restrict (RFC 5280 §4.2.1.3)."""
    return bits if "keyAgreement" in bits else bits - _AGREEMENT_BITS


def judge_ekus(rule: EkuRule, asked: tuple[str, ...] | None) -> tuple[tuple[str, ...], Verdicts]:
    """Judge asked usages, or take the default; return the dotted OIDs to be granted, in the order of the request.

    Dangerous usages pass only if `dangerous_ekus` names them too, whatever the mode. Where nothing that was asked for is
    left, the default holds: a certificate without extended key usage would be good for everything.
    """
    forbidden = _forbidden_ekus(rule.allow, rule.dangerous_ekus)
    default = _without(resolve_ekus(rule.default), forbidden)
    distinct = tuple(dict.fromkeys(asked or ()))
    if not distinct:
        granted, verdicts = default, _EKU.judge(rule.mode, (), "extended key usage is the profile's default")
    else:
        kept, problems = _listed_ekus(rule, _without(distinct, forbidden))
        granted = kept or default
        said = "every extended key usage is allowed" if kept == distinct else "what is not allowed is dropped"
        verdicts = _EKU.judge(rule.mode, problems, said)
    refused = [] if rule.unlisted == Unlisted.DROP else [oid for oid in distinct if oid in forbidden]
    found = [Problem("", f"extended key usage {eku_name(oid)} is dangerous and not named") for oid in refused]
    if not granted and (distinct or rule.default) and not found:
        found = [Problem("", "no extended key usage is left")]
    return granted, verdicts + _DANGEROUS.judge(RuleMode.ENFORCE, found, "no dangerous extended key usage by accident")


def _without(oids: tuple[str, ...], forbidden: frozenset[str]) -> tuple[str, ...]:
    return oids if forbidden.isdisjoint(oids) else tuple(oid for oid in oids if oid not in forbidden)


@lru_cache(maxsize=256)
def _forbidden_ekus(allow: tuple[str, ...], dangerous: tuple[str, ...]) -> frozenset[str]:
    """Return the usages that no mode lets through."""
    return DANGEROUS_EKUS.difference(resolve_ekus(dangerous)) | _ONLY_LISTED.difference(resolve_ekus(allow + dangerous))


def _listed_ekus(rule: EkuRule, asked: tuple[str, ...]) -> tuple[tuple[str, ...], list[Problem]]:
    """Return what is kept and what is wrong; only an enforced rule takes away."""
    allowed = resolve_ekus(rule.allow)
    listed = tuple(oid for oid in asked if oid in allowed)
    if rule.mode != RuleMode.ENFORCE:
        listed, unlisted = asked, [oid for oid in asked if oid not in allowed]
    else:
        unlisted = [] if rule.unlisted == Unlisted.DROP else [oid for oid in asked if oid not in allowed]
    return listed, [Problem("allow", f"extended key usage {eku_name(oid)} is not allowed") for oid in unlisted]


@lru_cache(maxsize=1024)
def resolve_ekus(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the OIDs of configured names or OIDs; a word that means nothing is left out and so allows nothing."""
    return tuple(oid for name in names if (oid := _resolve_eku(name)) is not None)


def _resolve_eku(name: str) -> str | None:
    try:
        return eku_oid(name)
    except ValueError:
        return None
