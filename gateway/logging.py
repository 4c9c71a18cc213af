"""Operator logs: one structured line an event, JSON or for a console, from structlog and the standard library alike."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

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
    chain = (structlog.contextvars.merge_contextvars, arrange, *_renderers(chosen))
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *chain])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    logging.getLogger("asyncio").setLevel(max(number, logging.WARNING))
    logging.getLogger("alembic").setLevel(max(number, logging.WARNING))


class _StandardError(io.TextIOBase):
    """Whatever standard error is when a line is written; one write a line keeps the lines of several processes whole.

    A line that cannot be written is lost, and nothing else with it: a full disk under the log, or a reader of it that is gone,
    must fail no request and end no thread. Long lines of several threads would run into each other without the lock.
    """

    _lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock, suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


class _Lines:
    """Where structlog leaves its lines, whatever their level. Standard error is buffered by lines: each write is a whole one."""

    def __init__(self, *_names: object) -> None:
        self._file = _StandardError()

    def info(self, line: str) -> None:
        self._file.write(f"{line}\n")

    debug = warning = error = critical = info


def arrange(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin each line with time, level and event; leave out fields that say nothing, hide secrets, spell exceptions.

    One function does what a chain of processors could: a line is written for every request.
    """
    now = datetime.now(UTC).isoformat().removesuffix("+00:00")
    line = {"timestamp": f"{now}Z", "level": level, "event": event.pop("event", None)}
    for name, value in event.items():
        if value is not None and name not in line:
            line[name] = "(hidden)" if name in SECRET_NAMES and not isinstance(value, Enum) else value
    return structlog.processors.format_exc_info(_logger, level, line) if "exc_info" in line else line


def show_control_characters(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a client could steer a terminal with; JSON does so by itself."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception" and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event


_encode = json.JSONEncoder(default=str, check_circular=False).encode
"""What is logged is flat: circles need not be looked for."""


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


def _renderers(format: LogFormat) -> tuple[structlog.typing.Processor, ...]:
    if format is LogFormat.JSON:
        return (_render_json,)
    return show_control_characters, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=40)
