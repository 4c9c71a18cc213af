"""Makes an upstream CA from its configuration; the only place that knows every backend."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import assert_never

from gateway.ca.circuit import GuardedCA
from gateway.ca.exec import DEFAULT_ENVIRONMENT, ExecCA, ExecSettings
from gateway.ca.interfaces import Capability, UpstreamCA
from gateway.ca.local import CaUrls, LocalCA, find_broken_links, find_ca_faults
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.fields import FilePath
from gateway.config.load import Sources
from gateway.config.upstream_cas import ExecCA as ExecConfig
from gateway.config.upstream_cas import LocalCA as LocalConfig
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.errors import Rejection
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, load_private_key
from gateway.pki.trust import check_pair

__all__ = ["CaUrls", "create"]

CAPABILITIES = {"find": Capability.FIND, "poll": Capability.POLL, "revoke": Capability.REVOKE}


def _utc_now() -> datetime:
    return datetime.now(UTC)


def create(
    name: UpstreamCAName,
    config: UpstreamCAConfig,
    sources: Sources,
    urls: CaUrls,
    *,
    clock: Callable[[], datetime] = _utc_now,
    newest_crl: Callable[[], Awaitable[bytes | None]] | None = None,
) -> UpstreamCA:
    """Return the backend, ready for `start`; `newest_crl` reads a local CA's published CRL.

    Raises ConfigurationFaults with every reason why it cannot sign: unreadable files, key and certificate that do not
    match, a certificate that may not sign, a program that cannot be run. Dates are judged by whoever starts a service;
    here a CA whose time is over answers each request with NotSent.
    """
    match config:
        case LocalConfig():
            return _create_local(name, config, sources, urls, clock, newest_crl)
        case ExecConfig():
            return GuardedCA(_create_exec(name, config, sources))
        case _:
            assert_never(config)


def _create_local(
    name: UpstreamCAName,
    config: LocalConfig,
    sources: Sources,
    urls: CaUrls,
    clock: Callable[[], datetime],
    newest_crl: Callable[[], Awaitable[bytes | None]] | None,
) -> LocalCA:
    where = ("upstream_cas", name)
    above = (((*where, "chain", number), file) for number, file in enumerate(config.chain))
    chain, faults = _read_chain((((*where, "certificate"), config.certificate), *above), sources)
    if not faults:
        found = find_ca_faults(tuple(map(parse_certificate, chain)), signs_crl=config.crl is not None)
        faults = [Problem((*where, "certificate"), fault) for fault in found]
    key = None
    try:
        key = _read_key(config, sources)
        if chain:
            check_pair(chain[0], key)
    except ValueError as error:
        faults.append(Problem((*where, "key"), f"{config.key}: {error}"))
    if faults or key is None:
        raise ConfigurationFaults(*faults)
    return LocalCA(name, key, chain, urls, publishes_crl=config.crl is not None, clock=clock, newest_crl=newest_crl)


def _read_key(config: LocalConfig, sources: Sources) -> PrivateKey:
    password = None if config.key_password is None else sources.secret(config.key_password)
    return load_private_key(sources.secret(config.key), password)


def _create_exec(name: UpstreamCAName, config: ExecConfig, sources: Sources) -> ExecCA:
    where = ("upstream_cas", name)
    chain, faults = _read_chain((((*where, "chain", n), file) for n, file in enumerate(config.chain)), sources)
    if not faults:
        faults = [Problem((*where, "chain"), fault) for fault in find_broken_links(tuple(map(parse_certificate, chain)))]
    environment = {}
    for key, value in config.environment.items():
        try:
            environment[key] = value if isinstance(value, str) else sources.secret(value).decode("utf-8")
        except UnicodeDecodeError:
            faults.append(Problem((*where, "environment", key), "the secret is not UTF-8 text"))
    program, *arguments = config.command
    if "/" in program:
        program = str(sources.resolve(program))
    if shutil.which(program, path=environment.get("PATH", DEFAULT_ENVIRONMENT["PATH"])) is None:
        faults.append(Problem((*where, "command"), f"{program} is not a program that this user may run"))
    if faults:
        raise ConfigurationFaults(*faults)
    capabilities = Capability.NONE
    for operation in config.operations:
        capabilities |= CAPABILITIES[operation]
    settings = ExecSettings(
        command=(program, *arguments),
        deadline=config.deadline.total_seconds(),
        concurrency=config.concurrency,
        capabilities=capabilities,
        environment=environment,
    )
    return ExecCA(name, settings, chain)


def _read_chain(files: Iterable[tuple[DataPath, FilePath]], sources: Sources) -> tuple[tuple[bytes, ...], list[Problem]]:
    """Read PEM files in order and say which cannot be read; what stands in two (a bundle and the chain) is taken once."""
    found: dict[bytes, None] = {}
    faults = []
    for path, file in files:
        try:
            ders = pem_to_ders(sources.file(file))
            for der in ders:
                parse_certificate(der)
            found.update(dict.fromkeys(ders))
        except (Rejection, ValueError):
            faults.append(Problem(path, f"{file} does not hold readable PEM certificates"))
    return tuple(found), faults
