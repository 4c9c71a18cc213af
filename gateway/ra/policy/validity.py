"""When a certificate begins and ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.config.policy import RuleMode, ValidityRule
from gateway.errors import Reason
from gateway.model import UNLIMITED_NOT_AFTER, AskedValidity
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_RULE = Rule("validity", "policy.validity", Reason.POLICY_VALIDITY)
_CA = Rule("ca_validity", "upstream_ca", Reason.POLICY_VALIDITY)
_ASKED = Rule("validity_asked", "policy.validity", Reason.POLICY_VALIDITY)
_CAP = Rule("validity_of_account", "credential", Reason.POLICY_VALIDITY)
_SECOND = timedelta(seconds=1)


def judge_validity(
    rule: ValidityRule,
    now: datetime,
    ca_not_before: datetime | None,
    ca_not_after: datetime | None,
    asked: AskedValidity | None = None,
    cap: timedelta | None = None,
) -> tuple[tuple[datetime, datetime], Verdicts]:
    """Return notBefore and notAfter in whole seconds; a CA that is not valid now signs nothing, whatever the mode.

    `default` counts from now. `max` caps the whole of it, backdating included and both ends counted (RFC 5280 §4.1.2.5): an
    enforced rule cuts, one that warns only tells. Neither end lies outside the CA's own, except that `not_after: unlimited` is
    not capped (IEEE 802.1AR §8.7). Times that were asked for are given as they are or refused, never cut (RFC 8555 §7.4). `cap`
    is the credential's own `max`, which stands whatever the mode.
    """
    now = _in_whole_seconds(now)
    if asked is not None and (asked.not_before is not None or asked.not_after is not None):
        return _judge_asked(rule, now, ca_not_before, ca_not_after, asked, cap)
    not_before = now - rule.backdate
    if ca_not_before is not None:
        not_before = max(not_before, ca_not_before)
    if rule.not_after == "unlimited":
        not_after, verdicts = UNLIMITED_NOT_AFTER, _RULE.judge(rule.mode, (), "the certificate has no well-defined end")
    else:
        not_after, verdicts = _judge_length(rule, now, not_before)
        if ca_not_after is not None:
            not_after = min(not_after, _in_whole_seconds(ca_not_after))
    if cap is not None:
        not_after = min(not_after, not_before + cap - _SECOND)
    return (not_before, not_after), (*verdicts, *_judge_ca(now, not_after, ca_not_before, ca_not_after))


def _judge_asked(
    rule: ValidityRule,
    now: datetime,
    ca_not_before: datetime | None,
    ca_not_after: datetime | None,
    asked: AskedValidity,
    cap: timedelta | None,
) -> tuple[tuple[datetime, datetime], Verdicts]:
    """Judge times of which at least one was asked for; the other one is the profile's."""
    (usual_begin, _), _ = judge_validity(rule, now, ca_not_before, ca_not_after)
    not_before = usual_begin if asked.not_before is None else _in_whole_seconds(asked.not_before)
    not_after = _usual_end(rule, now, not_before, ca_not_after, cap)
    if asked.not_after is not None:
        not_after = _in_whole_seconds(asked.not_after)
    # A later begin makes it no longer: who may have a name for a year from now may not have it for the year after.
    length = not_after - min(not_before, now) + _SECOND
    problems = []
    if asked.not_before is not None and not_before < _in_whole_seconds(asked.asked_at or now) - rule.backdate:
        problems.append(Problem("backdate", "the certificate would begin earlier than it may"))
    if rule.not_after != "unlimited" and length > rule.max:
        problems.append(Problem("max", "the certificate would be valid for longer than it may"))
    too_long = cap is not None and length > cap
    outside = (ca_not_before is not None and not_before < ca_not_before) or (
        ca_not_after is not None and not_after > ca_not_after and (asked.not_after is not None or rule.not_after != "unlimited")
    )
    forced = [Problem("", "the certificate would end before it begins")] if not_after <= not_before else []
    forced += [Problem("", "the certificate would begin before its CA's or end after it")] if outside else []
    long = [Problem("", "the certificate would be valid for longer than the account may have one")] if too_long else []
    return (not_before, not_after), (
        *_RULE.judge(rule.mode, problems, "validity is what was asked for"),
        *_ASKED.judge(RuleMode.ENFORCE, forced, "the times that were asked for can be given"),
        *_CAP.judge(RuleMode.ENFORCE, long, "validity is within the account's"),
        *_judge_ca(now, not_after, ca_not_before, ca_not_after),
    )


def _usual_end(
    rule: ValidityRule, now: datetime, not_before: datetime, ca_not_after: datetime | None, cap: timedelta | None
) -> datetime:
    """Return the end of a certificate that begins when it was asked to; bounds count from now where that is later."""
    counted = min(now, not_before)
    if rule.not_after == "unlimited":
        return UNLIMITED_NOT_AFTER if cap is None else counted + cap - _SECOND
    ends = [max(now, not_before) + rule.default, counted + rule.max - _SECOND]
    if ca_not_after is not None:
        ends.append(_in_whole_seconds(ca_not_after))
    if cap is not None:
        ends.append(counted + cap - _SECOND)
    return min(ends)


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
