"""Regular expressions matched in linear time (Thompson's construction), so that no value a device asks for can stall a worker.

Python's `re` backtracks: `([a-z0-9]+-?)+` takes hours to refuse forty letters. Here the structure of an expression
(groups, alternatives, repetitions) becomes an automaton that is walked once along the value; `re` only decides what a single
character matches. What no finite automaton can do (look-around, back-references, `\\b`) is refused with a sentence.
`\\d`, `\\w`, `\\s` and ignored case mean ASCII: a Kelvin sign is no k, an Arabic digit no digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

MAX_STATES = 2000
"""Largest automaton; `[a-z]{1,63}` takes 125 states."""
MAX_GROUPS = 32
"""Deepest nesting of groups."""
MAX_KNOWN = 100_000
"""States in all the steps that one automaton remembers, before it forgets them: some megabytes."""

_REPEAT = re.compile(r"\{(?:([0-9]+)|([0-9]*),([0-9]*))\}", re.ASCII)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[dDwWsSnrtfva]|[^0-9A-Za-z])", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
_NAMED = re.compile(r"\(\?P<[^>]*>")
_START, _END = ("^", "\\A"), ("$", "\\Z")


class PatternError(ValueError):
    """The expression cannot be matched in linear time; the text says why."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    token: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Leaf | _Sequence | _Choice | _Repeat


@dataclass(slots=True)
class _Reader:
    """Recursive descent over an expression that `re` has already accepted."""

    text: str
    position: int = 0
    depth: int = 0

    def read(self) -> _Node:
        flags = _FLAGS.match(self.text)
        self.position = flags.end() if flags else 0
        self._skip(_START)
        node = self._choice()
        if self.position != len(self.text):
            raise PatternError("its groups do not match")
        return node

    def _skip(self, tokens: tuple[str, ...]) -> None:
        for token in tokens:
            if self.text.startswith(token, self.position):
                self.position += len(token)
                return

    def _choice(self) -> _Node:
        branches = [self._sequence()]
        while self.text.startswith("|", self.position):
            self.position += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _Choice(tuple(branches))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self.position < len(self.text) and self.text[self.position] not in "|)":
            if self._at_last_end():
                break
            parts.append(self._quantified(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _at_last_end(self) -> bool:
        """Step over `$` or `\\Z` where it is the last thing in the expression: a whole match ends there anyway."""
        if self.depth == 0 and self.text[self.position :] in _END:
            self.position = len(self.text)
            return True
        return False

    def _atom(self) -> _Node:
        text, at = self.text, self.position
        match text[at]:
            case "(":
                return self._group()
            case "[":
                return self._leaf(_CLASS, "its character class")
            case "\\":
                return self._leaf(_ESCAPE, f"{text[at : at + 2]} (only single characters and \\d \\w \\s may be escaped)")
            case "^" | "$":
                raise PatternError(
                    f"{text[at]} may stand only at its start or end, outside of alternatives; values match whole anyway"
                )
            case _:
                self.position += 1
                return _Leaf(text[at])

    def _leaf(self, token: re.Pattern[str], what: str) -> _Leaf:
        found = token.match(self.text, self.position)
        if found is None:
            raise PatternError(f"{what} cannot be matched in bounded time")
        self.position = found.end()
        return _Leaf(found[0])

    def _group(self) -> _Node:
        start = self.text[self.position : self.position + 3]
        named = _NAMED.match(self.text, self.position)
        if named:
            self.position = named.end()
        elif start == "(?:":
            self.position += 3
        elif start[1:2] == "?":
            raise PatternError(f"{start} is not offered: only (…), (?:…) and flags at the start can be matched in bounded time")
        else:
            self.position += 1
        self.depth += 1
        if self.depth > MAX_GROUPS:
            raise PatternError(f"its groups are nested deeper than {MAX_GROUPS}")
        node = self._choice()
        self.depth -= 1
        if not self.text.startswith(")", self.position):
            raise PatternError("its groups do not match")
        self.position += 1
        return node

    def _quantified(self, node: _Node) -> _Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if self.text.startswith("+", self.position):
            raise PatternError("possessive repetition cannot be matched in bounded time")
        self._skip(("?",))  # lazy or greedy: a whole match exists or it does not
        return _Repeat(node, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        bounds = simple.get(self.text[self.position : self.position + 1])
        if bounds is not None:
            self.position += 1
            return bounds
        counted = _REPEAT.match(self.text, self.position)
        if counted is None:
            return None
        self.position = counted.end()
        exact, least, most = counted.groups()
        return (int(exact), int(exact)) if exact else (int(least or 0), int(most) if most else None)


@dataclass(slots=True)
class _Builder:
    """Lays a tree out as states: state i goes to `free[i]` without a character, or to `after[i]` by a leaf."""

    leaf: list[int | None] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    free: list[tuple[int, ...]] = field(default_factory=list)
    leaves: dict[str, int] = field(default_factory=dict)

    def add(self, leaf: int | None, after: int, free: tuple[int, ...]) -> int:
        if len(self.leaf) >= MAX_STATES:
            raise PatternError(f"it is too large: its repetitions multiply to more than {MAX_STATES} states")
        self.leaf.append(leaf)
        self.after.append(after)
        self.free.append(free)
        return len(self.leaf) - 1

    def lay(self, node: _Node, then: int) -> int:
        """Return the state where `node` begins, which goes on to `then`."""
        match node:
            case _Leaf(token):
                return self.add(self.leaves.setdefault(token, len(self.leaves)), then, ())
            case _Sequence(()):
                return self.add(None, -1, (then,))
            case _Sequence(parts):
                for part in reversed(parts):
                    then = self.lay(part, then)
                return then
            case _Choice(branches):
                return self.add(None, -1, tuple(self.lay(branch, then) for branch in branches))
            case _Repeat():
                return self.repeat(node, then)

    def repeat(self, node: _Repeat, then: int) -> int:
        if max(node.least, node.most or 0) > MAX_STATES:
            raise PatternError(f"it repeats something more than {MAX_STATES} times")
        if node.most is None:
            loop = self.add(None, -1, ())
            self.free[loop] = (self.lay(node.part, loop), then)
            then = loop
        else:
            end = then
            for _ in range(node.most - node.least):
                then = self.add(None, -1, (self.lay(node.part, then), end))
        for _ in range(node.least):
            then = self.lay(node.part, then)
        return then


class LinearPattern:
    """One expression, ready to be matched whole; immutable but for what it remembers of earlier walks."""

    __slots__ = ("_after", "_free", "_known", "_leaf", "_sets", "_start", "_tests", "_weight")

    def __init__(self, pattern: re.Pattern[str]) -> None:
        if pattern.flags & (re.VERBOSE | re.MULTILINE):
            raise PatternError("the flags x and m are not offered")
        builder = _Builder()
        end = builder.add(None, -1, ())
        first = builder.lay(_Reader(pattern.pattern).read(), end)
        flags = re.ASCII | (pattern.flags & (re.IGNORECASE | re.DOTALL))
        self._leaf, self._after, self._free = tuple(builder.leaf), tuple(builder.after), tuple(builder.free)
        self._tests: tuple[Callable[[str], object], ...] = tuple(re.compile(token, flags).fullmatch for token in builder.leaves)
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._sets: dict[frozenset[int], frozenset[int]] = {}
        self._weight = 0
        self._start = self._closure((first,))

    def matches(self, value: str) -> bool:
        """Say whether the whole of `value` matches; time grows with its length times the size of the expression."""
        states = self._start
        for character in value:
            following = self._known.get((states, character))
            if following is None:
                following = self._step(states, character)
            if not following:
                return False
            states = following
        return 0 in states

    def _step(self, states: frozenset[int], character: str) -> frozenset[int]:
        fits = [test(character) is not None for test in self._tests]
        following = self._closure(
            tuple(self._after[state] for state in states if (leaf := self._leaf[state]) is not None and fits[leaf])
        )
        following = self._sets.setdefault(following, following)  # equal sets are one object: looked up by identity
        self._weight += len(following) + 8
        if self._weight > MAX_KNOWN:
            self._known.clear()
            self._sets.clear()
            self._weight = 0
        self._known[states, character] = following
        return following

    def _closure(self, states: tuple[int, ...]) -> frozenset[int]:
        """Return the states reachable without a character; only those that read one, and the end (0), are kept."""
        seen, waiting = set(states), list(states)
        while waiting:
            for state in self._free[waiting.pop()]:
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
        return frozenset(state for state in seen if state == 0 or self._leaf[state] is not None)


@lru_cache(maxsize=1024)
def linear_pattern(pattern: re.Pattern[str]) -> LinearPattern:
    """Return `pattern` as an automaton. Raises PatternError."""
    return LinearPattern(pattern)
