"""Regular expressions matched in linear time by RE2, so that no value a device asks for can stall a worker.

Python's `re` backtracks: `([a-z0-9]+-?)+` takes hours to refuse forty letters. RE2 has no look-around and no back-references.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import re2

MAX_MEMORY = 1 << 20
"""Bytes that one compiled expression and its automaton may take."""


_ESCAPED = re.compile(r"\\.", re.DOTALL)
_FLAGS = re.compile(r"\(\?[a-zA-Z]*[-:)]")
_IGNORE_CASE = "(?i)"


class PatternError(ValueError):
    """The text is no regular expression that RE2 can match; the message says why."""


@dataclass(frozen=True, slots=True)
class LinearPattern:
    """A compiled regular expression; equal to another of the same text."""

    text: str
    _compiled: Any = field(compare=False, repr=False)
    _ascii_only: bool = field(compare=False, repr=False)
    """To RE2, which knows Unicode's cases, a Kelvin sign is a k: ignored case means ASCII, or look-alikes would pass."""

    @classmethod
    def compile(cls, text: str) -> LinearPattern:
        """Compile `text`; raises PatternError."""
        ignores_case = text.startswith(_IGNORE_CASE)
        flags = _FLAGS.findall(_ESCAPED.sub("", text.removeprefix(_IGNORE_CASE)))
        if any(found != "(?:" for found in flags):
            raise PatternError("the only flag is (?i), and it stands at the beginning")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MAX_MEMORY
        try:
            return cls(text, re2.compile(text, options), ignores_case)
        except re2.error as error:
            reason = error.args[0] if error.args else "unknown"
            raise PatternError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None

    def matches(self, value: str) -> bool:
        """Say whether the whole of `value` matches; time grows with its length only."""
        if self._ascii_only and not value.isascii():
            return False
        return self._compiled.fullmatch(value) is not None
