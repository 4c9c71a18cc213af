"""`pki-gateway doctor`: look at everything that a start would need, and say what to do where something is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from gateway.assemble.anchors import NamedCrl
from gateway.assemble.certificates import NamedCertificate, Standing, warn_of_dates
from gateway.assemble.identities import build_cas
from gateway.assemble.judgement import Judgement, judge
from gateway.assemble.trials import try_upstreams
from gateway.audit import parse_audit_key
from gateway.cli.client import connect, read_admin_socket
from gateway.cli.options import ConfigOption, ExitCode, FormatOption, OutputFormat, fail, print_records, with_exit_codes
from gateway.config.document import dotted
from gateway.config.listener_checks import addresses
from gateway.config.load import Sources, read
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig
from gateway.config.upstream_cas import LocalCA
from gateway.errors import ConfigurationError, Rejection, StoreRefused, StoreUnavailable
from gateway.model import SanKind, SubjectAltName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.trust import CrlTerm
from gateway.store.keys import KeyRing
from gateway.store.sqlite.files import check_usable

RED = timedelta(days=7)
LEAST_FREE_BYTES = 1 << 30
SAFE_SQLITE = (3, 51, 3)


_ADVICE = {
    Standing.CURRENT: "renew it",
    Standing.CHALLENGE_ANCHOR: "put its successor beside it",
    Standing.CLIENT_ANCHOR: "put its successor beside it, or remove it",
    Standing.RETIRED: "remove it once no device uses it",
    Standing.RECIPIENT: "ask its holder for a new one",
}


class Verdict(StrEnum):
    """How a check ended; any `fail` makes the command exit with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` says what to do."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


@with_exit_codes
def doctor(config: ConfigOption, format: FormatOption = OutputFormat.TABLE) -> None:
    """Check clock, keys, certificates, ports, upstream CAs, disk, file modes and store; exit 1 when something must be mended."""
    parsed, sources = read(config)
    findings = tuple(examine(config.absolute().parent, parsed, sources, datetime.now(UTC)))
    rows = [{"check": f.check, "verdict": f.verdict.value, "found": f.found, "advice": f.advice} for f in findings]
    print_records(rows, format)
    failed = sum(f.verdict is Verdict.FAIL for f in findings)
    if failed:
        fail(f"{failed} of {len(findings)} checks failed.", ExitCode.FAILED)


def examine(folder: Path, config: GatewayConfig, sources: Sources, now: datetime) -> Iterator[Finding]:
    """Yield every finding; `folder` is the configuration file's."""
    judged = judge(config, sources, now)
    yield from check_identities(judged, now)
    yield check_clock(judged, sources.resolve(config.store.path), now)
    yield from check_ports(config, connect(read_admin_socket(sources.path)))
    yield from check_hosts(config, sources)
    yield from check_upstreams(config, sources, now)
    yield check_disk(sources.resolve(config.store.path).parent)
    yield check_modes(folder, sources.resolve(config.store.path))
    yield check_store(config, sources)
    yield check_sqlite(sqlite3.sqlite_version_info)


def check_identities(judged: Judgement, now: datetime) -> Iterator[Finding]:
    """Yield each reason for which `serve` would refuse keys or certificates, what it would warn of, and what days are left."""
    for problem in judged.problems:
        advice = f"mend {problem.file}:{problem.line}, or the file that it names"
        yield Finding(problem.field, Verdict.FAIL, problem.sentence, advice)
    if not judged.problems:
        yield Finding("keys", Verdict.OK, "every key fits its certificate")
    for warning in judged.warnings:
        yield Finding(warning.field, Verdict.WARN, warning.sentence, f"look at {warning.file}:{warning.line}")
    refused = {problem.field for problem in judged.problems}
    yield from (days_left(named, now) for named in judged.certificates if dotted(named.path) not in refused)
    yield from (crl_left(named, named.term, now) for named in judged.crls if named.term and named.warn(now) is None)


def days_left(named: NamedCertificate, now: datetime) -> Finding:
    """Say how long a certificate is still good: 30 days amber, 7 red; amber at most where the service goes on without it."""
    left = named.certificate.not_after - now
    name, found, advice = dotted(named.path), f"{named.subject}: {left.days} days left", _ADVICE[named.standing]
    if named.standing.is_needed and left < RED:
        return Finding(name, Verdict.FAIL, found, f"{advice} now")
    warning = warn_of_dates(named, now)
    if warning is None:
        return Finding(name, Verdict.OK, found)
    return Finding(name, Verdict.WARN, found if named.standing is Standing.CURRENT else warning.sentence, advice)


def crl_left(named: NamedCrl, term: CrlTerm, now: datetime) -> Finding:
    """Say how long a CRL that is not near its end goes on; one that is has its warning."""
    left = term.next_update - now
    told = f"{left.days} days" if left.days else f"{left.seconds // 3600} hours"
    return Finding(dotted(named.path), Verdict.OK, f"the CRL of {named.issuer}: {told} left")


def check_clock(judged: Judgement, store: Path, now: datetime) -> Finding:
    """A clock behind the newest of our own certificates, or behind the store's last write, is wrong."""
    in_force = (named.certificate for named in judged.certificates if named.standing is Standing.CURRENT)
    newest = max((certificate.not_before for certificate in in_force), default=now)
    written = max((_changed(p) for p in (store, store.with_name(f"{store.name}-wal"))), default=now)
    if now < newest:
        return Finding("clock", Verdict.FAIL, f"{now:%Y-%m-%d %H:%M}Z is before a certificate's notBefore", "set the clock (NTP)")
    if now < written - timedelta(minutes=1):
        return Finding(
            "clock", Verdict.FAIL, f"the store was written at {written:%Y-%m-%d %H:%M}Z, in the future", "set the clock (NTP)"
        )
    return Finding("clock", Verdict.OK, f"{now:%Y-%m-%d %H:%M:%S}Z, behind nothing that was written here")


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime if path.exists() else 0, UTC)


def check_ports(config: GatewayConfig, running: socket.socket | None) -> Iterator[Finding]:
    """Yield whether each address can be listened on, or is already ours."""
    for (name, *_), address in addresses(config.server):
        shown = f"{address.host}:{address.port}"
        if running is not None:
            yield Finding(f"port {name}", Verdict.OK, f"{shown} is served by the running server")
            continue
        try:
            with socket.create_server((address.host, address.port), family=_family(address.host)):
                yield Finding(f"port {name}", Verdict.OK, f"{shown} is free")
        except OSError as error:
            advice = f"stop what listens there, or change the address in server.{name}"
            yield Finding(f"port {name}", Verdict.FAIL, f"{shown}: {(error.strerror or str(error)).lower()}", advice)
    if running is not None:
        running.close()


def check_hosts(config: GatewayConfig, sources: Sources) -> Iterator[Finding]:
    """ACME clients come by https alone, and refuse a server whose certificate is for another host than they were told."""
    urls = [config.server.external_url.https]
    urls += (alias for profile in config.profiles.values() if profile.endpoints.acme for alias in profile.endpoints.acme.aliases)
    if config.server.proxies or not any(profile.endpoints.acme for profile in config.profiles.values()):
        return  # a proxy that ends TLS has a certificate of its own
    try:
        sans = parse_certificate(pem_to_ders(sources.file(config.server.https.certificate))[0]).sans
    except (Rejection, ValueError):
        return  # told of above
    for host in dict.fromkeys(urlsplit(url).hostname or "" for url in urls):
        if any(covers_host(san, host) for san in sans):
            yield Finding("TLS name", Verdict.OK, f"the certificate of server.https is for {host}")
        else:
            advice = "issue one with this name, or correct server.external_url.https"
            yield Finding("TLS name", Verdict.WARN, f"the certificate of server.https is not for {host}", advice)


def covers_host(san: SubjectAltName, host: str) -> bool:
    """Say whether a name in a server's certificate is that of a host in a URL (RFC 9525 §6.3)."""
    if san.kind is SanKind.IP:
        return san.value == host
    value, name = san.value.lower(), host.lower()
    return san.kind is SanKind.DNS and (value == name or (value[:2] == "*." and value[2:] == name.partition(".")[2]))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def check_upstreams(config: GatewayConfig, sources: Sources, now: datetime) -> Iterator[Finding]:
    """Yield what came of trying each CA beyond this process; those that cannot be built have been told of."""
    cas, _ = build_cas(config, sources, lambda: now)
    beyond = [ca for name, ca in cas.items() if not isinstance(config.upstream_cas[name], LocalCA | GroupCA)]
    for tried in asyncio.run(try_upstreams(beyond, now)):
        for trial in tried.trials:
            verdict = Verdict.FAIL if not trial.good else Verdict.WARN if trial.advice else Verdict.OK
            yield Finding(f"upstream {tried.name}", verdict, f"{trial.subject}: {trial.finding}", trial.advice)


def check_disk(folder: Path) -> Finding:
    """The store needs room: a full disk refuses every enrollment."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    verdict = Verdict.OK if free >= LEAST_FREE_BYTES else Verdict.FAIL
    return Finding("disk", verdict, f"{free / (1 << 30):.1f} GiB free at {place}", "" if verdict is Verdict.OK else "make room")


def check_modes(folder: Path, store: Path) -> Finding:
    """Nobody but us may read the store or write where configuration and keys lie; secrets were checked when they were read."""
    checks: tuple[tuple[Path, int, Callable[[Path], str]], ...] = (
        (store, stat.S_IROTH | stat.S_IWOTH, lambda p: f"chmod o-rwx {p}"),
        (folder, stat.S_IWOTH, lambda p: f"chmod o-w {p}"),
        (store.parent, stat.S_IWOTH, lambda p: f"chmod o-w {p}"),
    )
    for path, forbidden, advice in checks:
        if path.exists() and path.stat().st_mode & forbidden:
            return Finding("file modes", Verdict.FAIL, f"{path} has mode {stat.S_IMODE(path.stat().st_mode):04o}", advice(path))
    owner = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    return Finding("file modes", Verdict.OK, f"secrets and store are closed to others (seen as {owner})")


def check_store(config: GatewayConfig, sources: Sources) -> Finding:
    """Schema and keys of the store are this program's and this configuration's."""
    path = sources.resolve(config.store.path)
    if not path.exists():
        advice = "restore a backup; only for a new installation: pki-gateway store migrate"
        return Finding("store", Verdict.FAIL, f"there is no store at {path}", advice)
    try:
        keys, audit_key = KeyRing.parse(sources.secret(config.store.key)), parse_audit_key(sources.secret(config.audit.key))
        check_usable(path, keys, audit_key)
    except (ConfigurationError, StoreRefused, StoreUnavailable) as error:
        return Finding("store", Verdict.FAIL, str(error), "see `pki-gateway store check`")
    return Finding("store", Verdict.OK, f"{path}: schema and keys fit")


def check_sqlite(version: tuple[int, ...]) -> Finding:
    """Versions before 3.51.3 can corrupt a WAL file written and checkpointed at once; our lock keeps these two apart."""
    shown = ".".join(map(str, version))
    if version < SAFE_SQLITE:
        return Finding(
            "SQLite", Verdict.OK, f"{shown}; older than 3.51.3, so open the store with pki-gateway's own commands only"
        )
    return Finding("SQLite", Verdict.OK, shown)
