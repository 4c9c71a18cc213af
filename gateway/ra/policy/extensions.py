"""Which other requested extensions are copied: those that are named, and never one that only a CA may write."""

from __future__ import annotations

from gateway.config.policy import ExtensionRule, RuleMode, Unlisted
from gateway.errors import Reason
from gateway.model import Extension
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

MAX_VALUE = 8192
"""Most bytes of one copied extension."""

SID_EXTENSION = "1.3.6.1.4.1.311.25.2"
"""szOID_NTDS_CA_SECURITY_EXT (KB5014754)."""

_RULE = Rule("extensions", "policy.extensions", Reason.POLICY_EXTENSION)
_NEVER_COPIED = frozenset(
    {
        "2.5.29.14",  # subjectKeyIdentifier
        "2.5.29.15",  # keyUsage, as are the next three judged by a rule of its own
        "2.5.29.17",  # subjectAltName
        "2.5.29.19",  # basicConstraints
        "2.5.29.37",  # extKeyUsage
        "2.5.29.1",  # authorityKeyIdentifier, obsolete form
        "2.5.29.10",  # basicConstraints, obsolete form
        "2.5.29.18",  # issuerAltName
        "2.5.29.30",  # nameConstraints
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.33",  # policyMappings
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.36",  # policyConstraints
        "2.5.29.46",  # freshestCRL
        "2.5.29.54",  # inhibitAnyPolicy
        "1.3.6.1.5.5.7.1.1",  # authorityInfoAccess
        "1.3.6.1.5.5.7.1.11",  # subjectInfoAccess
        "1.3.6.1.4.1.11129.2.4.2",  # embedded SCTs
        "1.3.6.1.4.1.11129.2.4.3",  # CT poison
        "1.3.6.1.4.1.311.21.1",  # CA version
        "1.3.6.1.4.1.311.21.10",  # application policies: Windows reads them as extended key usage (CVE-2024-49019)
        "1.3.6.1.4.1.311.21.11",  # application policy mappings
        "1.3.6.1.4.1.311.21.12",  # application policy constraints
        "2.16.840.1.113730.1.1",  # Netscape certificate type, which has CA bits
    }
)


def judge_extensions(rule: ExtensionRule, asked: tuple[Extension, ...], vouched: bool) -> tuple[tuple[Extension, ...], Verdicts]:
    """Return the extensions to be copied as they are; `vouched` lets a listed SID extension through.

    An extension that is not on the list is never copied: the mode says only whether that is a refusal.
    """
    if not asked:
        return (), _RULE.judge(rule.mode, (), "extensions copied: 0")
    listed = {extension.oid for extension in asked if _may_be_copied(rule, extension, vouched)}
    copied = tuple(e for e in asked if e.oid in listed)
    if len(listed) != len(copied):
        return (), _RULE.judge(RuleMode.ENFORCE, [Problem("", "an extension is asked for twice")], "")
    left_out = [e.oid for e in asked if e.oid not in listed]
    refused = left_out if rule.unlisted == Unlisted.REFUSE else []
    said = f"extensions copied: {len(copied)}" + (f", left out: {', '.join(left_out[:8])}" if left_out else "")
    return copied, _RULE.judge(rule.mode, [Problem("allow", f"extension {oid} is not allowed") for oid in refused], said)


def _may_be_copied(rule: ExtensionRule, extension: Extension, vouched: bool) -> bool:
    if extension.oid in _NEVER_COPIED or len(extension.value) > MAX_VALUE:
        return False
    return extension.oid in rule.allow and (vouched or extension.oid != SID_EXTENSION)
