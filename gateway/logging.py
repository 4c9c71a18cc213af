"""Operator logs: one structured line an event, JSON or for a console, from structlog and the standard library alike."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from enum import Enum, StrEnum
from typing import Any, TextIO, cast

import structlog

SECRET_NAMES = frozenset({"challenge", "password", "secret", "token", "private_key", "mac"})
"""Event fields that never reach a log, whoever writes them; the word of an enumeration may say what became of one."""


class LogFormat(StrEnum):
    """How lines are written."""

    JSON = "json"
    CONSOLE = "console"


def configure_logging(format: LogFormat | None = None, level: str = "info") -> None:
    """Send every log line to standard error; `format` None takes console on a terminal, JSON elsewhere."""
    chosen = format or (LogFormat.CONSOLE if sys.stderr.isatty() else LogFormat.JSON)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
        structlog.processors.format_exc_info,
    ]
    rendered = (put_first, *_renderers(chosen))
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    logging.getLogger("asyncio").setLevel(max(number, logging.WARNING))
    logging.getLogger("alembic").setLevel(max(number, logging.WARNING))


class _StandardError(io.TextIOBase):
    """Whatever standard error is when a line is written; one write a line keeps the lines of several processes whole.

    A line that cannot be written is lost, and nothing else with it: a full disk under the log, or a reader of it that is gone,
    must fail no request and end no thread.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every field that is named like a secret, unless it is absent or a member of an enumeration."""
    for name in SECRET_NAMES & event.keys():
        if event[name] is not None and not isinstance(event[name], Enum):
            event[name] = "(hidden)"
    return event


def put_first(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin each line with time, level and event, and leave out fields that say nothing."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **{name: value for name, value in event.items() if value is not None}}


def show_control_characters(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a client could steer a terminal with; JSON does so by itself."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception" and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event


_encode = json.JSONEncoder(default=str).encode


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


def _renderers(format: LogFormat) -> tuple[structlog.typing.Processor, ...]:
    if format is LogFormat.JSON:
        return (_render_json,)
    return show_control_characters, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=40)
