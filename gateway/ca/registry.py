"""Makes an upstream CA from its configuration; the only place that knows every backend."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import assert_never

from gateway.ca.exec import ExecCA, ExecSettings
from gateway.ca.interfaces import Capability, UpstreamCA
from gateway.ca.local import CaUrls, LocalCA, find_ca_faults
from gateway.config.fields import FilePath, SecretSource
from gateway.config.load import Sources
from gateway.config.upstream_cas import ExecCA as ExecConfig
from gateway.config.upstream_cas import LocalCA as LocalConfig
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.errors import ConfigurationError, Rejection
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, load_private_key
from gateway.pki.trust import verify_issued_by

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

    Raises ConfigurationError with every reason why it cannot sign: unreadable files, key and certificate that do not
    match, a certificate that expired or may not sign.
    """
    match config:
        case LocalConfig():
            return _create_local(name, config, sources, urls, clock, newest_crl)
        case ExecConfig():
            return _create_exec(name, config, sources)
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
    where = f"upstream_cas.{name}"
    chain = _read_chain(where, "certificate", (config.certificate, *config.chain), sources)
    key = _read_key(where, config.key, config.key_password, sources)
    certificates = tuple(parse_certificate(der) for der in chain)
    faults = find_ca_faults(certificates, key, clock(), signs_crl=config.crl is not None)
    if faults:
        raise ConfigurationError(tuple(f"{where}: {fault}" for fault in faults))
    return LocalCA(name, key, chain, urls, publishes_crl=config.crl is not None, clock=clock, newest_crl=newest_crl)


def _create_exec(name: UpstreamCAName, config: ExecConfig, sources: Sources) -> ExecCA:
    where = f"upstream_cas.{name}"
    chain = _read_chain(where, "chain", config.chain, sources)
    certificates = tuple(parse_certificate(der) for der in chain)
    for lower, upper in itertools.pairwise(certificates):
        try:
            verify_issued_by(lower, upper)
        except Rejection as error:
            problem = f"{where}.chain: serial {lower.serial:x} was not issued by the next certificate: {error.cause}"
            raise ConfigurationError((problem,)) from error
    capabilities = Capability.NONE
    for operation in config.operations:
        capabilities |= CAPABILITIES[operation]
    program, *arguments = config.command
    if "/" in program:
        program = str(sources.resolve(program))
    settings = ExecSettings(
        command=(program, *arguments),
        deadline=config.deadline.total_seconds(),
        concurrency=config.concurrency,
        capabilities=capabilities,
        environment={
            key: _read_variable(f"{where}.environment.{key}", value, sources) for key, value in config.environment.items()
        },
    )
    return ExecCA(name, settings, chain)


def _read_variable(where: str, value: str | SecretSource, sources: Sources) -> str:
    if isinstance(value, str):
        return value
    try:
        return sources.secret(value).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError((f"{where}: the secret is not UTF-8 text",)) from None


def _read_chain(where: str, field: str, files: tuple[FilePath, ...], sources: Sources) -> tuple[bytes, ...]:
    """Read PEM files in order; a certificate that stands in two of them (a bundle and the chain) is taken once."""
    found: dict[bytes, None] = {}
    for file in files:
        try:
            ders = pem_to_ders(sources.file(file))
            for der in ders:
                parse_certificate(der)
        except (Rejection, ValueError) as error:
            raise ConfigurationError((f"{where}.{field}: {file} does not hold readable PEM certificates",)) from error
        if not ders:
            raise ConfigurationError((f"{where}.{field}: {file} holds no PEM certificate",))
        found.update(dict.fromkeys(ders))
    return tuple(found)


def _read_key(where: str, source: SecretSource, password: SecretSource | None, sources: Sources) -> PrivateKey:
    try:
        return load_private_key(sources.secret(source), None if password is None else sources.secret(password))
    except ValueError as error:
        raise ConfigurationError((f"{where}.key: {source}: {error}",)) from None
