"""YAML 1.2 text to plain data in which every value knows its place; what YAML 1.1 quietly makes of a word is a problem."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.resolver import Resolver

from gateway.errors import ConfigurationError

MAX_BYTES = 1048576
MAX_DEPTH = 32
MAX_NODES = 50000
"""Nodes after aliases are expanded."""

_TYPE_NAMES = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}
_CONSTANTS: Mapping[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,8})\.[0-9]{1,9}", re.ASCII)
_ALSO_SURPRISING = {"y": "bool", "Y": "bool", "n": "bool", "N": "bool"}
_MODERN_OCTAL = re.compile(r"[-+]?0o[0-7]+", re.ASCII)
_RESOLVER = Resolver()

DataPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file to a value."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value or key at `path`; `sentence` reads on after it. `mark` None: found by `path`."""

    path: DataPath
    sentence: str
    mark: Mark | None = None


def dotted(path: DataPath) -> str:
    """Write a path as `profiles.corp.renewal.from[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


class ConfigurationFaults(ConfigurationError):
    """Values that read well but cannot be put in force; `faults` name their places, which `load.locate` finds in the file."""

    def __init__(self, *faults: Problem) -> None:
        super().__init__(tuple(f"{dotted(fault.path)}: {fault.sentence}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and where each key and value was written."""

    data: Any
    keys: Mapping[DataPath, Mark]
    values: Mapping[DataPath, Mark]
    problems: tuple[Problem, ...]

    def mark(self, path: DataPath) -> Mark:
        """Return where `path` is written: its key, else its value, else the nearest part of the file that holds it."""
        for end in range(len(path), -1, -1):
            found = self.keys.get(path[:end]) or self.values.get(path[:end])
            if found is not None:
                return found
        return Mark(1, 1)


def read_document(text: bytes) -> Document:
    """Parse one YAML document of at most 1 MiB. Never raises: what is wrong is in `problems`."""
    if len(text) > MAX_BYTES:
        return _refused(Mark(1, 1), f"the file is larger than {MAX_BYTES} bytes")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _refused(Mark(text.count(b"\n", 0, error.start) + 1, 1), "the file is not UTF-8 text")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        builder.read(yaml.parse(decoded, Loader=loader))
    except _BoundError as error:
        return _refused(error.mark, error.sentence)
    except yaml.YAMLError as error:
        return _refused(*_syntax_problem(error))
    return Document(builder.data, builder.keys, builder.values, tuple(builder.problems))


def _refused(mark: Mark, sentence: str) -> Document:
    return Document(None, {}, {}, (Problem((), sentence, mark),))


def _syntax_problem(error: yaml.YAMLError) -> tuple[Mark, str]:
    """Turn PyYAML's report into a place and a sentence."""
    place = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    mark = Mark(place.line + 1, place.column + 1) if place is not None else Mark(1, 1)
    said = " ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    said = said or str(getattr(error, "reason", "a character that YAML does not allow"))
    hint = "; text that holds any of [ ] { } : # & * ! | > ' \" % @ ` belongs in quotes, and tabs may not indent"
    return mark, f"this is not YAML: {said}{hint}"


class _BoundError(Exception):
    """The document exceeds a bound; nothing more of it is read."""

    def __init__(self, mark: Mark, sentence: str) -> None:
        super().__init__(sentence)
        self.mark = mark
        self.sentence = sentence


@dataclass
class _Builder:
    """Builds data from parser events, without PyYAML's constructors and their conversions."""

    data: Any = None
    keys: dict[DataPath, Mark] = field(default_factory=dict)
    values: dict[DataPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    nodes: int = 0

    def read(self, events: Iterator[yaml.Event]) -> None:
        """Read the first document; a second one is a problem."""
        seen = False
        for event in events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if seen:
                self.problems.append(
                    Problem((), "a second document begins here; the configuration is one document", _mark(event))
                )
                return
            seen = True
            self.data = self._node(next(events), events, ())

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: DataPath) -> Any:
        mark = _mark(event)
        self.values.setdefault(path, mark)
        self._count(1, mark)
        if len(path) > MAX_DEPTH:
            raise _BoundError(mark, f"the file is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, mark)
        before = self.nodes
        self._refuse_tag(event, path, mark)
        value: Any
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(events, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, path)
        else:
            value = self._scalar(event, path, mark)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = (value, self.nodes - before + 1)
        return value

    def _alias(self, event: yaml.AliasEvent, path: DataPath, mark: Mark) -> Any:
        """Return what the anchor names; its whole size counts again, which is what stops a tower of aliases."""
        if event.anchor not in self.anchors:
            self.problems.append(
                Problem(path, "is an alias (it begins with *) of no anchor that is complete above it; put text in quotes", mark)
            )
            return None
        value, size = self.anchors[event.anchor]
        self._count(size, mark)
        if len(path) + _depth(value) > MAX_DEPTH:
            raise _BoundError(mark, f"the file is nested deeper than {MAX_DEPTH} levels, aliases expanded")
        return value

    def _sequence(self, events: Iterator[yaml.Event], path: DataPath) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, (*path, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: DataPath) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            mark = _mark(event)
            key = self._key(event, events, path, mark)
            if key is None or key in entries:
                if key is not None:
                    first = self.keys[(*path, key)].line
                    self.problems.append(Problem((*path, key), f"is written twice; the first is in line {first}", mark))
                self._skip(next(events), events, path)
                continue
            self.keys[(*path, key)] = mark
            entries[key] = self._node(next(events), events, (*path, key))
        return entries

    def _key(self, event: yaml.Event, events: Iterator[yaml.Event], path: DataPath, mark: Mark) -> str | None:
        """Return a key, or None with a problem when it is not text."""
        if not isinstance(event, yaml.ScalarEvent):
            self._skip(event, events, path)
            self.problems.append(Problem(path, "a key must be text", mark))
            return None
        if event.value == "<<" and event.implicit[0]:
            self.problems.append(Problem(path, 'merge keys ("<<") are not supported; use an alias for the whole value', mark))
            return None
        known = len(self.problems)
        key = self._scalar(event, (*path, event.value), mark)
        if isinstance(key, str):
            return key
        if len(self.problems) == known:
            self.problems.append(Problem((*path, event.value), "a key must be text; put it in quotes", mark))
        return None

    def _skip(self, event: yaml.Event, events: Iterator[yaml.Event], path: DataPath) -> None:
        """Read a value under a key that counts for nothing; its marks must not replace those of a good value."""
        aside = _Builder(anchors=self.anchors, nodes=self.nodes)
        aside._node(event, events, path)
        self.nodes = aside.nodes

    def _scalar(self, event: yaml.Event, path: DataPath, mark: Mark) -> Any:
        assert isinstance(event, yaml.ScalarEvent)  # noqa: S101  nothing else is left in YAML
        if not event.implicit[0]:
            return event.value
        value = read_plain(event.value)
        kind = surprising_kind(value) if isinstance(value, str) else None
        if kind is not None:
            advice = "; write true or false, or put it in quotes" if kind == "bool" else "; put it in quotes, or write it plainly"
            sentence = f"{value} without quotes is {_TYPE_NAMES[kind]} to some YAML readers{advice}"
            self.problems.append(Problem(path, sentence, mark))
        return value

    def _refuse_tag(self, event: yaml.Event, path: DataPath, mark: Mark) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problems.append(Problem(path, "has a tag (it begins with !), which is not supported; put text in quotes", mark))

    def _count(self, nodes: int, mark: Mark) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _BoundError(mark, f"the file has more than {MAX_NODES} values, aliases expanded")


def read_plain(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means: null, true, false, a decimal number, or itself (YAML 1.2 §10.3)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def surprising_kind(text: str) -> str | None:
    """Return what YAML 1.1 or 1.2 makes of an unquoted scalar that looks like text: `bool`, `int`, … or None."""
    if text in _ALSO_SURPRISING:
        return _ALSO_SURPRISING[text]
    if _MODERN_OCTAL.fullmatch(text):
        return "int"
    tag = str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]
    kind = tag.rpartition(":")[2]
    return kind if kind in _TYPE_NAMES else None


def _mark(event: yaml.Event) -> Mark:
    start = event.start_mark
    return Mark(start.line + 1, start.column + 1) if start is not None else Mark(1, 1)


def _depth(value: Any) -> int:
    """Return how deep lists and mappings are nested in a value that is itself within MAX_DEPTH."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
