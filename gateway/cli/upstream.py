"""`pki-gateway upstream`: the CAs that sign, tried without a running server and without a certificate."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from gateway.assemble.identities import build_cas
from gateway.assemble.trials import describe_doubt, name_capabilities, try_upstreams
from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import UpstreamCA, UpstreamError
from gateway.ca.registry import create_unpinned
from gateway.cli.options import (
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    fail,
    print_json,
    print_records,
    with_exit_codes,
)
from gateway.config.document import ConfigurationFaults, read_document
from gateway.config.durations import format_duration
from gateway.config.load import Sources, examine, locate, read
from gateway.config.parts import split
from gateway.config.remote_cas import AcmeCA, GroupCA
from gateway.config.schema import GatewayConfig
from gateway.config.upstream_cas import ExecCA, LocalCA, UpstreamCAConfig
from gateway.errors import ConfigurationError, Rejection
from gateway.model import UpstreamCAName
from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.names import format_name

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The CA, by its name in upstream_cas.")]


@app.callback()
def upstream() -> None:
    """Upstream CAs: list them, try them, ask for their chains."""


@app.command("list")
@with_exit_codes
def list_upstreams(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """List the CAs of the configuration: type, address, what they can do, and which profiles they sign for."""
    parsed, sources = read(config)
    cas, problems = build_cas(parsed, sources, lambda: datetime.now(UTC))
    rows = [_describe(name, section, cas.get(UpstreamCAName(name)), parsed) for name, section in parsed.upstream_cas.items()]
    print_records(rows, format)
    if problems:
        raise ConfigurationError(tuple(str(problem) for problem in locate(sources, problems)))


@app.command("test")
@with_exit_codes
def test_upstream(name: NameArgument, config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Try connection, credentials, chain and, where the CA can, a dry run; nothing is issued. Exit 1 when something is wrong."""
    parsed, sources = read(config)
    section = _section(name, parsed.upstream_cas)
    wanted = (*(section.members if isinstance(section, GroupCA) else ()), name)
    alone = parsed.model_copy(update={"upstream_cas": {other: parsed.upstream_cas[other] for other in wanted}})
    cas, problems = build_cas(alone, sources, lambda: datetime.now(UTC))
    if problems:
        raise ConfigurationError(tuple(str(problem) for problem in locate(sources, problems)))
    *_, tried = asyncio.run(try_upstreams((cas[UpstreamCAName(other)] for other in wanted), datetime.now(UTC)))
    rows = [
        {"trial": trial.subject, "verdict": "ok" if trial.good else "fail", "found": trial.finding, "advice": trial.advice}
        for trial in tried.trials
    ]
    can = ", ".join(name_capabilities(tried.capabilities)) or "nothing"
    found = f"{can}; where an answer is lost, {describe_doubt(tried.capabilities)}"
    rows.append({"trial": "beyond issuing", "verdict": "ok", "found": found, "advice": ""})
    print_records(rows, format)
    failed = sum(not trial.good for trial in tried.trials)
    if failed:
        fail(f"{failed} of {len(tried.trials)} trials failed.")


@app.command("chain")
@with_exit_codes
def show_chain(name: NameArgument, config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Print the certificates that the CA says it has, PEM, for the file that `chain` names; compare their SHA-256 by another way.

    Works before that file is there. Exit 1 when the issuing CA is not the one that is pinned.
    """
    section, sources, pinned = _read_unpinned(name, config)
    try:
        found = asyncio.run(_fetch_chain(create_unpinned(UpstreamCAName(name), section, sources)))
        rows = [_describe_certificate(der, pinned) for der in found]
    except ConfigurationFaults as error:
        raise ConfigurationError(tuple(str(problem) for problem in locate(sources, error.faults))) from error
    except UpstreamError as error:
        fail(f"The CA does not tell its chain: {error}.")
    except Rejection as error:
        fail(f"The CA told what is no certificate: {error.cause}.")
    if format is OutputFormat.JSON:
        print_json(rows)
    else:
        sys.stdout.write("".join(f"# {_visible(row['subject'])}\n# SHA-256 {row['sha256']}\n{row['pem']}" for row in rows))
    if not rows:
        fail("The CA tells no certificate.")
    if pinned and not rows[0]["pinned"]:
        fail("The issuing CA is not in the pinned chain: find out whether the CA has changed before you pin it.")


def _section(name: str, sections: Mapping[str, T]) -> T:
    if name not in sections:
        fail(f"there is no upstream CA {name}; there are: {', '.join(sections)}", ExitCode.USAGE)
    return sections[name]


def _describe(name: str, section: UpstreamCAConfig, ca: UpstreamCA | None, config: GatewayConfig) -> dict[str, object]:
    return {
        "name": name,
        "type": section.type,
        "where": _where(section),
        "issuer": None if ca is None else format_name(parse_certificate(ca.chain()[0]).subject),
        "ends": None if ca is None else ca.not_after_limit(datetime.now(UTC)),
        "can": [] if ca is None else list(name_capabilities(ca.capabilities)),
        "queue": format_duration(ca.queue) if ca is not None and ca.queue else None,
        "profiles": [profile for profile, found in config.profiles.items() if found.upstream_ca == name],
    }


def _where(section: UpstreamCAConfig) -> str:
    match section:
        case LocalCA():
            return section.certificate
        case ExecCA():
            return section.command[0]
        case GroupCA():
            return ", ".join(section.members)
        case AcmeCA():
            return section.directory
        case _:
            return section.url


def _read_unpinned(name: str, config: ConfigOption) -> tuple[UpstreamCAConfig, Sources, frozenset[bytes]]:
    """Return one section whatever is wrong elsewhere, its chain's files included, and what of them is there."""
    found = examine(config)
    if found.sources is None:
        raise ConfigurationError(tuple(map(str, found.problems)))
    sections = split(read_document(found.sources.text).data).upstream_cas
    if name not in sections and found.config is None:
        raise ConfigurationError(tuple(map(str, found.problems)))  # it may stand in what cannot be read
    _section(name, sections)
    section, where = sections[name], f"upstream_cas.{name}"
    inside = (
        problem for problem in found.problems if problem.field == where or problem.field.startswith((f"{where}.", f"{where}["))
    )
    problems = tuple(str(problem) for problem in inside if not problem.field.startswith(f"{where}.chain"))
    if section is None or problems:
        raise ConfigurationError(problems or tuple(map(str, found.problems)))
    return section, found.sources, frozenset(_pinned(section, found.sources))


def _pinned(section: UpstreamCAConfig, sources: Sources) -> Iterator[bytes]:
    files: Iterable[str] = () if isinstance(section, GroupCA) else section.chain
    for file in files:
        try:
            yield from pem_to_ders(sources.file(file))
        except (KeyError, ValueError):
            continue


async def _fetch_chain(ca: GuardedCA) -> tuple[bytes, ...]:
    await ca.start()
    try:
        return await ca.fetch_chain()
    finally:
        await ca.close()


def _describe_certificate(der: bytes, pinned: frozenset[bytes]) -> dict[str, object]:
    certificate = parse_certificate(der)
    return {
        "subject": format_name(certificate.subject),
        "not_after": certificate.not_after,
        "sha256": hashlib.sha256(der).hexdigest(),
        "pinned": der in pinned,
        "pem": der_to_pem(der).decode("ascii"),
    }


def _visible(name: object) -> str:
    """Return a name that stays in its line, whatever a CA has put into it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
