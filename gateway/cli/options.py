"""Options, exit codes and printing that all commands share."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.config.durations import parse_duration
from gateway.errors import ConfigurationError, Rejection, StoreRefused, StoreUnavailable

P = ParamSpec("P")
R = TypeVar("R")

CONFIG_VARIABLE = "PKI_GATEWAY_CONFIG"
CONFIG_PLACES = (Path("var/profiles.yaml"), Path("/etc/pki-gateway/profiles.yaml"))
"""Where the configuration is looked for when neither `--config` nor the variable names it; the first that exists."""


class ExitCode(IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3


class OutputFormat(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


class CommandError(Exception):
    """A command ends with this one sentence and exit status; `reason` is the word for it that a server gave."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def default_config() -> Path:
    """Return the first of CONFIG_PLACES that exists, else the first."""
    return next((place for place in CONFIG_PLACES if place.is_file()), CONFIG_PLACES[0])


ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar=CONFIG_VARIABLE,
        default_factory=default_config,
        show_default="var/profiles.yaml, else /etc/pki-gateway/profiles.yaml",
        help="The configuration file.",
    ),
]
"""`config: ConfigOption` in a command's signature: `--config F`, else PKI_GATEWAY_CONFIG, else `default_config()`."""

ADMIN_SOCKET_VARIABLE = "PKI_GATEWAY_ADMIN_SOCKET"

AdminSocketOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-socket",
        envvar=ADMIN_SOCKET_VARIABLE,
        show_default="server.admin_socket of the configuration",
        help="Where the running server listens for operators, whatever the configuration file says.",
    ),
]
"""`admin_socket: AdminSocketOption = None` in the signature of a command that speaks to the server."""

FormatOption = Annotated[OutputFormat, typer.Option("--format", help="How to print data.")]
"""`format: FormatOption = OutputFormat.TABLE` in a command's signature."""


ProfileOption = Annotated[str | None, typer.Option("--profile", help="Only this profile's.")]
"""`profile: ProfileOption = None` in a command that lists."""
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10000)]
"""`limit: LimitOption = 100` in a command that lists."""
OffsetOption = Annotated[int, typer.Option("--offset", min=0)]
"""`offset: OffsetOption = 0` in a command that lists."""
NoSansOption = Annotated[bool, typer.Option("--no-sans", help="Bind it to requests without alternative names.")]
"""`no_sans: NoSansOption = False` beside `--san`, read by `bound_names`."""


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """End the command with one sentence on standard error and this exit status."""
    raise CommandError(message, code)


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Read an argument inside: what cannot be read ends the command as a usage error that begins with `name`."""
    try:
        yield
    except ValueError as error:
        fail(f"{name}: {error}", ExitCode.USAGE)
    except Rejection as error:
        fail(f"{name}: {error.cause}", ExitCode.USAGE)
    except OSError as error:
        fail(f"{name}: {error.filename or ''} {(error.strerror or str(error)).lower()}".replace(":  ", ": "), ExitCode.USAGE)


def seconds(name: str, text: str | None) -> int | None:
    """Return the seconds of a duration such as 12h, None for none; another text is a usage error that begins with `name`."""
    with argument(name):
        return None if text is None else int(parse_duration(text).total_seconds())


def bound_names(san: list[str] | None, *, no_sans: bool) -> list[str] | None:
    """Return the names that --san and --no-sans bind to, None where neither says; both are a usage error."""
    if san and no_sans:
        fail("--san and --no-sans exclude each other.", ExitCode.USAGE)
    return san or ([] if no_sans else None)


def describe_failure(error: BaseException) -> tuple[str, ExitCode] | None:
    """Return what to print and how to exit for an error that has a sentence of its own, else None."""
    match error:
        case CommandError():
            return str(error), error.code
        case ConfigurationError():
            return "\n".join(error.problems), ExitCode.CONFIGURATION
        case StoreRefused() | StoreUnavailable():
            return f"The store cannot be used: {error}", ExitCode.FAILED
        case Rejection():
            return error.cause, ExitCode.FAILED
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}", ExitCode.FAILED
        case _:
            return None


def program() -> list[str]:
    """Return the words that call this program again as it was called, be it on PATH or not; for printed examples."""
    called = Path(sys.argv[0])
    return [sys.executable, "-m", "gateway"] if called.name == "__main__.py" else [str(called)]


def with_exit_codes(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: errors that have a sentence are printed on standard error and become exit statuses."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            described = describe_failure(error)
            if described is None:
                raise
            message, code = described
            print(message, file=sys.stderr)
            raise typer.Exit(code) from error

    return run


def print_records(
    records: Sequence[Mapping[str, object]], format: OutputFormat, columns: Sequence[str] = (), empty: str = "Nothing to show."
) -> None:
    """Print many records: a table of `columns` (default: all of the first record's), or a JSON array of whole records."""
    if format is OutputFormat.JSON:
        print_json(list(records))
        return
    if not records:
        print(empty)
        return
    names = tuple(columns) or tuple(records[0])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.upper().replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(Text(_cell(record.get(name))) for name in names))
    _console().print(table)


def print_record(record: Mapping[str, object], format: OutputFormat) -> None:
    """Print one record: a line a field, or a JSON object."""
    if format is OutputFormat.JSON:
        print_json(record)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(Text(name.replace("_", " ")), Text(_cell(value)))
    _console().print(table)


def print_done(record: Mapping[str, object], format: OutputFormat, sentence: str) -> None:
    """Say what was done: in one sentence, or with the whole record as a JSON object."""
    if format is OutputFormat.JSON:
        print_json(record)
    else:
        print(sentence)


def print_json(value: object) -> None:
    """Print any JSON-like value, indented; times in ISO 8601, bytes in hex."""
    print(json.dumps(value, indent=2, ensure_ascii=True, default=_plain))


def _console() -> Console:
    """Return a console as wide as the terminal; wide when piped, so that lines stay whole."""
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case set() | frozenset() | tuple():
            return list(value)
        case _:
            return str(value)


def _cell(value: object) -> str:
    """Return one cell of a table; control characters, which a device may have put into a name, become visible."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            text = value.strftime("%Y-%m-%d %H:%M:%SZ")
        case bytes():
            text = value.hex()
        case list() | tuple() | set() | frozenset():
            text = ", ".join(_cell(item) for item in value)
        case _:
            text = str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
