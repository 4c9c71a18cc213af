"""What is wrong with a policy before any request is judged by it: words that mean nothing, patterns without a bound."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.config.patterns import PatternError, linear_pattern
from gateway.config.policy import PolicyConfig
from gateway.pki.extensions import eku_name, eku_oid
from gateway.pki.names import attribute_oid, make_attribute
from gateway.ra.policy.subject import parse_template
from gateway.ra.policy.usages import DANGEROUS_EKUS, resolve_ekus


def policy_problems(policy: PolicyConfig) -> tuple[str, ...]:
    """Return a sentence for each thing that could never work as written, headed by its field; judging would refuse it anyway."""
    return tuple(
        f"policy.{field}: {problem}"
        for field, problem in (*_subject(policy), *_patterns(policy), *_ekus(policy), *_validity(policy))
    )


def _attempt(field: str, action: Callable[[], object]) -> Iterator[tuple[str, str]]:
    try:
        action()
    except ValueError as error:
        yield field, str(error)


def _subject(policy: PolicyConfig) -> Iterator[tuple[str, str]]:
    rule = policy.subject
    names: Iterable[tuple[str, Iterable[str]]] = (("allow", rule.allow), ("require", rule.require), ("patterns", rule.patterns))
    for field, words in names:
        for word in words:
            yield from _attempt(f"subject.{field}", lambda word=word: attribute_oid(word))  # type: ignore[misc]
    for word, value in rule.override.items():
        yield from _attempt(f"subject.override.{word}", lambda word=word, value=value: make_attribute(word, value))  # type: ignore[misc]
    if rule.template is not None:
        template = rule.template
        yield from _attempt("subject.template", lambda: parse_template(template))


def _patterns(policy: PolicyConfig) -> Iterator[tuple[str, str]]:
    san = policy.san
    lists: list[tuple[str, Sequence[re.Pattern[str]]]] = [
        (f"subject.patterns.{n}", (p,)) for n, p in policy.subject.patterns.items()
    ]
    lists += [
        (f"san.{n}.patterns", r.patterns)
        for n, r in (("dns", san.dns), ("email", san.email), ("uri", san.uri), ("upn", san.upn))
        if r
    ]
    for field, patterns in lists:
        for pattern in patterns:
            try:
                linear_pattern(pattern)
            except PatternError as error:
                yield field, f'"{pattern.pattern}" cannot be used: {error}'


def _ekus(policy: PolicyConfig) -> Iterator[tuple[str, str]]:
    rule = policy.eku
    for field, words in (("allow", rule.allow), ("default", rule.default), ("dangerous_ekus", rule.dangerous_ekus)):
        for word in words:
            yield from _attempt(f"eku.{field}", lambda word=word: eku_oid(word))  # type: ignore[misc]
    named = resolve_ekus(rule.dangerous_ekus)
    for field, words in (("allow", rule.allow), ("default", rule.default)):
        for oid in resolve_ekus(words):
            if oid in DANGEROUS_EKUS and oid not in named:
                yield f"eku.{field}", f"{eku_name(oid)} is dangerous and passes only if dangerous_ekus names it too"


def _validity(policy: PolicyConfig) -> Iterator[tuple[str, str]]:
    rule = policy.validity
    if rule.default > rule.max and rule.not_after is None:
        yield "validity.default", "is longer than max"
    if rule.backdate >= rule.max:
        yield "validity.backdate", "is not shorter than max"
