"""One YAML file to `GatewayConfig`: every problem at once, each with file, line, column and field."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.config.checks import check
from gateway.config.document import MAX_BYTES, DataPath, Document, Mark, Problem, dotted, read_document
from gateway.config.parts import split
from gateway.config.schema import GatewayConfig
from gateway.config.sentences import problems_of
from gateway.config.sources import SourceError, Sources, gather, read_file
from gateway.errors import ConfigurationError

__all__ = ["ConfigProblem", "Examination", "Sources", "examine", "locate", "parse", "read"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem as it is shown; `field` is the dotted path, empty when it concerns the whole file."""

    file: str
    line: int
    column: int
    field: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {f'{self.field}: ' if self.field else ''}{self.sentence}"


@dataclass(frozen=True, slots=True)
class Examination:
    """What a configuration file came to: `config` is there exactly when there are no problems."""

    config: GatewayConfig | None
    sources: Sources | None
    problems: tuple[ConfigProblem, ...]


def read(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[GatewayConfig, Sources]:
    """Read a configuration and every file and secret that it names. Raises ConfigurationError with all problems."""
    found = examine(path, environ)
    if found.config is None or found.sources is None:
        raise ConfigurationError(tuple(str(problem) for problem in found.problems))
    return found.config, found.sources


def parse(sources: Sources) -> GatewayConfig:
    """Build the models from bytes read before; reads nothing. Raises ConfigurationError with all problems."""
    document = read_document(sources.text)
    config, problems = _validate(document, sources)
    if config is None:
        raise ConfigurationError(tuple(str(problem) for problem in _show(sources.name, document, problems)))
    return config


def examine(path: Path, environ: Mapping[str, str] = os.environ) -> Examination:
    """Read and judge a configuration file; problems are returned, in the order of the file."""
    try:
        text = read_file(path, MAX_BYTES)
    except SourceError as error:
        return Examination(None, None, (ConfigProblem(str(path), 1, 1, "", str(error)),))
    document = read_document(text)
    sources, unreadable = gather(path.absolute(), str(path), text, document.data, GatewayConfig, environ)
    config, problems = _validate(document, sources)
    problems = (*problems, *unreadable, *_check_mode(path))
    return Examination(None if problems else config, sources, _show(str(path), document, problems))


def locate(sources: Sources, problems: Iterable[Problem]) -> tuple[ConfigProblem, ...]:
    """Give problems that were found after reading their places in the file that was read."""
    return _show(sources.name, read_document(sources.text), tuple(problems))


def _check_mode(path: Path) -> tuple[Problem, ...]:
    """The file names programs that are run and CAs that sign: whoever may change it holds their keys."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IWOTH:
        return ()
    return (Problem((), f"this file can be changed by everybody (mode {mode:04o}): chmod o-w it", Mark(1, 1)),)


def _validate(document: Document, sources: Sources) -> tuple[GatewayConfig | None, tuple[Problem, ...]]:
    """Return the models, or everything that is wrong; parts that are right are checked even where others are wrong."""
    if document.data is None:
        return None, document.problems or (Problem((), "the file is empty", Mark(1, 1)),)
    config, problems = _build(TypeAdapter(GatewayConfig), document.data, ())
    problems = _without_echo((*document.problems, *problems), document)
    problems = (*problems, *check(split(document.data), sources))
    return (None, problems) if problems else (config, ())


def _build(adapter: TypeAdapter[T], data: Any, base: DataPath) -> tuple[T | None, tuple[Problem, ...]]:
    """Validate in pydantic's JSON mode, in which strictness still takes a list for a tuple and a word for an enum."""
    try:
        return adapter.validate_json(json.dumps(data)), ()
    except ValidationError as error:
        return None, problems_of(error, GatewayConfig, data, base)


def _without_echo(problems: tuple[Problem, ...], document: Document) -> tuple[Problem, ...]:
    """Drop what models say of a value that the YAML reader has already refused."""
    refused = {problem.path for problem in document.problems if problem.path}
    return tuple(
        problem
        for problem in problems
        if problem in document.problems or not any(problem.path[:end] in refused for end in range(len(problem.path) + 1))
    )


def _show(name: str, document: Document, problems: tuple[Problem, ...]) -> tuple[ConfigProblem, ...]:
    """Give each problem its place, in the order of the file, each once."""
    shown = {
        ConfigProblem(name, mark.line, mark.column, dotted(problem.path), problem.sentence)
        for problem in problems
        for mark in (problem.mark or document.mark(problem.path),)
    }
    return tuple(sorted(shown, key=lambda problem: (problem.line, problem.column, problem.field, problem.sentence)))
