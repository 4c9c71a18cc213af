"""The configuration in force as the supervisor knows it: bytes that were read once and judged; workers start from these alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from gateway.assemble.anchors import NamedCrl
from gateway.assemble.certificates import NamedCertificate
from gateway.assemble.judgement import Judgement, judge
from gateway.config.document import DataPath, dotted
from gateway.config.load import read
from gateway.config.restart import needs_restart
from gateway.config.schema import GatewayConfig
from gateway.config.sources import Sources
from gateway.config.view import HIDDEN, Difference, differences, redact
from gateway.errors import ConfigurationError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One generation of the configuration: its models, the bytes that they were read from, and these packed for workers."""

    generation: int
    config: GatewayConfig
    sources: Sources
    packed: bytes = field(repr=False)
    certificates: tuple[NamedCertificate, ...] = field(repr=False)
    """Every certificate that the configuration names."""
    crls: tuple[NamedCrl, ...] = field(default=(), repr=False)
    """The CRLs by which certificates of others are judged."""

    @classmethod
    def first(
        cls,
        config: GatewayConfig,
        sources: Sources,
        certificates: tuple[NamedCertificate, ...],
        crls: tuple[NamedCrl, ...] = (),
    ) -> Accepted:
        """Return the generation that a service starts with; the caller has judged it."""
        return cls(1, config, sources, sources.to_bytes(), certificates, crls)


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two generations: fields of the configuration, and files and secrets whose content is another."""

    fields: tuple[Difference, ...]
    contents: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All that differs, by name; no values."""
        return (*(change.field for change in self.fields), *self.contents)


class NeedsRestartError(Exception):
    """The configuration is right, but some of it is fixed when the service starts; `fields` is a sentence for each."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__("\n".join(fields))
        self.fields = fields


def read_next(path: Path, environ: Mapping[str, str], old: Accepted, number: int, now: datetime) -> Accepted:
    """Read the configuration and every file that it names, once, and judge them as at a start; `number` is the generation's.

    Raises ConfigurationError with every problem, NeedsRestartError for fields that cannot change while the service runs.
    """
    config, sources = read(path, environ)
    judged = judge(config, sources, now)
    if judged.problems:
        raise ConfigurationError(tuple(map(str, judged.problems)))
    fixed = needs_restart(old.config, old.sources, config, sources)
    if fixed:
        raise NeedsRestartError(fixed)
    log_warnings(judged)
    return Accepted(number, config, sources, sources.to_bytes(), judged.certificates, judged.crls)


def log_warnings(judged: Judgement) -> None:
    """Log which certificates end soon, and what else deserves a look."""
    for problem in judged.expiring:
        log.warning("a certificate ends soon", problem=str(problem))
    for problem in judged.warnings:
        log.warning("the configuration deserves a look", problem=str(problem))


def compare(old: Accepted, new: Accepted) -> Changes:
    """Return what differs, fit for eyes: of secrets only where they come from, and that their content is another."""
    shown = tuple(_differ((), redact(old.config), redact(new.config)))
    known = tuple(f"{change.field}." for change in shown)
    # Values that are hidden from eyes look alike; that they differ is shown all the same.
    hidden = tuple(
        Difference(change.field, HIDDEN, HIDDEN)
        for change in differences(_whole(old.config), _whole(new.config))
        if ".environment." in change.field and not f"{change.field}.".startswith(known)
    )
    files = _other_content(old.sources.files, new.sources.files)
    secrets = _other_content(old.sources.secrets, new.sources.secrets)
    return Changes((*shown, *hidden), (*(f"content of {name}" for name in files), *(f"secret of {name}" for name in secrets)))


def _differ(path: DataPath, before: Any, after: Any) -> Iterator[Difference]:
    """Yield the values that differ; a block that comes or goes is one difference, however much it holds."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differ((*path, name), before.get(name), after.get(name))
    elif _holds_blocks(before) and _holds_blocks(after) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differ((*path, number), old, new)
    else:
        yield Difference(dotted(path), _in_short(before), _in_short(after))


def _holds_blocks(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _in_short(value: Any) -> Any:
    if _holds_blocks(value):
        return f"({len(value)} entries)"
    return "(a block)" if isinstance(value, dict) else value


def utc_now() -> datetime:
    """Return the time at which certificates are judged."""
    return datetime.now(UTC)


def _whole(config: GatewayConfig) -> dict[str, Any]:
    shown: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    return shown


def _other_content(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names that both know, with other bytes behind them; a name that only one knows is a field that differs."""
    return tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name]))
