"""Whether the request asks for exactly the names that its credential was made for (VU#971035)."""

from __future__ import annotations

from functools import lru_cache

from gateway.config.policy import RuleMode
from gateway.errors import Reason
from gateway.model import CertificateRequest, Name, NameBinding, SanKind, SubjectAltName
from gateway.pki.names import parse_name_text
from gateway.ra.policy.sans import comparable_name
from gateway.ra.policy.subject import COMMON_NAME, SERIAL_NUMBER, Subject, same_subject
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_RULE = Rule("bound_names", "credential", Reason.NAME_NOT_BOUND)
_CERTIFIED = Rule("bound_certified_names", "credential", Reason.NAME_NOT_BOUND)


def judge_binding(binding: NameBinding, request: CertificateRequest) -> Verdicts:
    """Judge subject, common name and subject alternative names against the credential's; always enforced."""
    problems = []
    if binding.subject is not None and not _is_subject(binding.subject, request):
        problems.append(Problem("subject", "the credential was made for another subject"))
    if binding.common_name is not None and not _is_common_name(binding.common_name, request):
        problems.append(Problem("common_name", "the credential was made for another common name"))
    if binding.serial_number is not None and request.subject.values(SERIAL_NUMBER) != (binding.serial_number,):
        problems.append(Problem("serial_number", "the credential was made for another serialNumber"))
    if binding.sans is not None and not _are_sans(binding.sans, binding.san_kinds, request):
        problems.append(Problem("sans", "the credential was made for other subject alternative names"))
    if not _are_allowed(binding, request.sans):
        problems.append(Problem("sans", "the credential does not speak for these subject alternative names"))
    said = "the names are the credential's" if _binds(binding) else "the credential is bound to no names"
    return _RULE.judge(RuleMode.ENFORCE, problems, said)


def judge_certified(binding: NameBinding, subject: Subject, sans: tuple[SubjectAltName, ...]) -> Verdicts:
    """Judge the names that would be certified, where a credential binds them: a template could make them of unbound ones.

    Without this `CN={dns}` would let a user whose CN alone is bound be anybody. Always enforced; nothing where nothing is bound.
    """
    if not binding.certified:
        return ()
    problems = []
    for name, oid, bound in (("CN", COMMON_NAME, binding.common_name), ("serialNumber", SERIAL_NUMBER, binding.serial_number)):
        if bound is not None and subject.values(oid) != ((bound,) if bound else ()):
            problems.append(Problem("", f"the subject to be certified would have another {name} than the credential binds"))
    if binding.device is not None and (binding.device,) not in (subject.values(COMMON_NAME), subject.values(SERIAL_NUMBER)):
        problems.append(Problem("", "the subject to be certified would have another CN and serialNumber than the device's name"))
    if not _are_allowed(binding, sans):
        problems.append(Problem("", "names would be certified that the credential does not speak for"))
    return _CERTIFIED.judge(RuleMode.ENFORCE, problems, "the names to be certified are the credential's")


def _binds(binding: NameBinding) -> bool:
    sans = binding.sans is not None and binding.san_kinds != frozenset()
    others = (binding.subject, binding.common_name, binding.serial_number, binding.device, binding.allowed_sans)
    return sans or any(other is not None for other in others)


def _is_common_name(text: str, request: CertificateRequest) -> bool:
    """Compare to the letter: name matching would let `CN=ADMIN` pass for `CN=admin` (RFC 5280 §7.1)."""
    return request.subject.values(COMMON_NAME) == ((text,) if text else ())


def _is_subject(text: str, request: CertificateRequest) -> bool:
    try:
        return same_subject(_parse(text), request.subject)
    except ValueError:
        return False


def _are_allowed(binding: NameBinding, sans: tuple[SubjectAltName, ...]) -> bool:
    if binding.allowed_sans is None or not sans:
        return True
    allowed = {comparable_name(kind, value) for kind, value in binding.allowed_sans}
    return all(comparable_name(name.kind, name.value) in allowed for name in sans)


@lru_cache(maxsize=256)
def _parse(text: str) -> Name:
    return parse_name_text(text)


def _are_sans(sans: frozenset[tuple[SanKind, str]], kinds: frozenset[SanKind] | None, request: CertificateRequest) -> bool:
    """Compare as sets; names of kinds that the credential says nothing of are left out."""
    bound = {comparable_name(kind, value) for kind, value in sans}
    asked = {comparable_name(name.kind, name.value) for name in request.sans if kinds is None or name.kind in kinds}
    return bound == asked
