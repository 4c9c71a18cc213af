"""How a rule says what it found: one verdict when it is kept, one for each way in which it is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.config.policy import RuleMode
from gateway.errors import Reason
from gateway.model import Verdict

MAX_SHOWN = 80
MAX_PROBLEMS = 8
"""Verdicts of one rule; a request can break a rule thousands of times."""

Verdicts = tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a rule is broken: the configuration field below the rule's own, and a public sentence."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule by name, with the configuration section that it comes from and the reason that a refusal has.

    Each is a constant of its module, and equal to itself alone.
    """

    name: str
    section: str
    reason: Reason

    def judge(self, mode: RuleMode, problems: Sequence[Problem], kept: str) -> Verdicts:
        """Return the rule's verdicts; `kept` says what is so when there is no problem."""
        if mode == RuleMode.OFF:
            return _passed(self, mode, "not judged")
        if not problems:
            return _passed(self, mode, kept)
        return tuple(self._broken(mode, problem) for problem in problems[:MAX_PROBLEMS])

    def _broken(self, mode: RuleMode, problem: Problem) -> Verdict:
        field = f"{self.section}.{problem.field}" if problem.field else self.section
        return Verdict(self.name, mode.value, False, problem.message, self.reason, field)


@lru_cache(maxsize=512)
def _passed(rule: Rule, mode: RuleMode, said: str) -> Verdicts:
    """Return the verdict of a rule that is kept: most rules are, and say the same of every request."""
    return (Verdict(rule.name, mode.value, True, said, rule.reason, rule.section),)


def shown(text: str) -> str:
    """Return what a device sent as quoted, bounded text in which nothing is invisible."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return '"' + "".join(c if c.isprintable() and c != '"' else c.encode("unicode_escape").decode("ascii") for c in cut) + '"'
