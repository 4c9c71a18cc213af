"""Whether the request asks for exactly the names that its credential was made for (VU#971035)."""

from __future__ import annotations

from functools import lru_cache

from gateway.config.policy import RuleMode
from gateway.errors import Reason
from gateway.model import CertificateRequest, Name, NameBinding
from gateway.pki.names import parse_name_text
from gateway.ra.policy.sans import comparable_name
from gateway.ra.policy.subject import same_subject
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_RULE = Rule("bound_names", "credential", Reason.NAME_NOT_BOUND)


def judge_binding(binding: NameBinding, request: CertificateRequest) -> Verdicts:
    """Judge subject and subject alternative names against the credential's; always enforced."""
    problems = []
    if binding.subject is not None and not _is_subject(binding.subject, request):
        problems.append(Problem("subject", "the credential was made for another subject"))
    if binding.sans is not None and not _are_sans(binding, request):
        problems.append(Problem("sans", "the credential was made for other subject alternative names"))
    bound = binding.subject is not None or binding.sans is not None
    said = "the names are the credential's" if bound else "the credential is bound to no names"
    return _RULE.judge(RuleMode.ENFORCE, problems, said)


def _is_subject(text: str, request: CertificateRequest) -> bool:
    try:
        return same_subject(_parse(text), request.subject)
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _parse(text: str) -> Name:
    return parse_name_text(text)


def _are_sans(binding: NameBinding, request: CertificateRequest) -> bool:
    bound = {comparable_name(kind, value) for kind, value in binding.sans or ()}
    return bound == {comparable_name(name.kind, name.value) for name in request.sans}
