"""When a certificate begins and ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.config.policy import RuleMode, ValidityRule
from gateway.errors import Reason
from gateway.model import UNLIMITED_NOT_AFTER
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_RULE = Rule("validity", "policy.validity", Reason.POLICY_VALIDITY)
_CA = Rule("ca_validity", "upstream_ca", Reason.POLICY_VALIDITY)
_SECOND = timedelta(seconds=1)


def judge_validity(
    rule: ValidityRule, now: datetime, ca_not_before: datetime | None, ca_not_after: datetime | None
) -> tuple[tuple[datetime, datetime], Verdicts]:
    """Return notBefore and notAfter in whole seconds; a CA that is not valid now signs nothing, whatever the mode.

    `default` counts from now. `max` caps the whole of it, backdating included and both ends counted (RFC 5280 §4.1.2.5): an
    enforced rule cuts, one that warns only tells. Neither end lies outside the CA's own, except that `not_after: unlimited` is
    not capped (IEEE 802.1AR §8.7).
    """
    now = _in_whole_seconds(now)
    not_before = now - rule.backdate
    if ca_not_before is not None:
        not_before = max(not_before, ca_not_before)
    if rule.not_after == "unlimited":
        not_after, verdicts = UNLIMITED_NOT_AFTER, _RULE.judge(rule.mode, (), "the certificate has no well-defined end")
    else:
        not_after, verdicts = _judge_length(rule, now, not_before)
        if ca_not_after is not None:
            not_after = min(not_after, _in_whole_seconds(ca_not_after))
    return (not_before, not_after), (*verdicts, *_judge_ca(now, not_after, ca_not_before, ca_not_after))


def _judge_length(rule: ValidityRule, now: datetime, not_before: datetime) -> tuple[datetime, Verdicts]:
    wanted, most = now + rule.default, not_before + rule.max - _SECOND
    if rule.mode == RuleMode.ENFORCE:
        return min(wanted, most), _RULE.judge(rule.mode, (), "validity is the profile's default, cut to its max")
    problems = [Problem("max", "validity with backdating is longer than max")] if wanted > most else []
    return wanted, _RULE.judge(rule.mode, problems, "validity is the profile's default")


def _judge_ca(now: datetime, not_after: datetime, ca_not_before: datetime | None, ca_not_after: datetime | None) -> Verdicts:
    if ca_not_after is not None and ca_not_after <= now:
        problems = [Problem("", "the CA certificate has expired")]
    elif ca_not_before is not None and ca_not_before > now:
        problems = [Problem("", "the CA certificate is not valid yet")]
    else:
        problems = [] if not_after > now else [Problem("", "the certificate would have expired when it is issued")]
    cut = ca_not_after is not None and not_after == _in_whole_seconds(ca_not_after)
    return _CA.judge(RuleMode.ENFORCE, problems, "validity is cut to the CA's end" if cut else "validity is within the CA's")


def _in_whole_seconds(at: datetime) -> datetime:
    return at.replace(microsecond=0) if at.microsecond else at
