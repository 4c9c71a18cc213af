"""Makes an upstream CA from its configuration; the only place that knows every backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import assert_never

from gateway.ca import cfssl, est, group, local, scep, step_ca, vault
from gateway.ca import exec as program
from gateway.ca.acme import create as acme
from gateway.ca.circuit import GuardedCA
from gateway.ca.claims import Claims, OwnClaims
from gateway.ca.cmp import backend as cmp
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import CaUrls, find_broken_links
from gateway.ca.second_opinion import MissingPackage, SecondOpinion
from gateway.ca.setup import Setup, read_certificates, utc_now
from gateway.config import remote_cas as remote
from gateway.config.document import ConfigurationFaults, Problem
from gateway.config.load import Sources
from gateway.config.upstream_cas import ExecCA, LocalCA, UpstreamCAConfig
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate

__all__ = ["CaUrls", "create", "create_unpinned"]

RemoteConfig = (
    ExecCA | remote.VaultCA | remote.StepCA | remote.CfsslCA | remote.AcmeCA | remote.EstCA | remote.ScepCA | remote.CmpCA
)
"""All but `local` and `group`."""


def create(
    name: UpstreamCAName,
    config: UpstreamCAConfig,
    sources: Sources,
    urls: CaUrls,
    *,
    clock: Callable[[], datetime] = utc_now,
    newest_crl: Callable[[], Awaitable[bytes | None]] | None = None,
    others: Mapping[UpstreamCAName, UpstreamCA] = MappingProxyType({}),
    claims: Claims | None = None,
) -> UpstreamCA:
    """Return the backend, ready for `start`; `newest_crl` reads a local CA's published CRL, `others` has a group's members.

    `claims` are those that all workers share; None for a process that works alone.

    Raises ConfigurationFaults with every reason why it cannot work: unreadable files, key and certificate that do not
    match, a certificate that may not sign, a program that cannot be run. Dates are judged by whoever starts a service.
    """
    match config:
        case LocalCA():
            return local.create(name, config, sources, urls, clock, newest_crl)
        case remote.GroupCA():
            return group.create(name, config, others)
        case _:
            ca = _create_remote(config, _set_up(name, config, sources, clock, claims or OwnClaims()))
            return GuardedCA(ca, second_opinion=_second_opinion(name, config))


def create_unpinned(name: UpstreamCAName, config: UpstreamCAConfig, sources: Sources) -> GuardedCA:
    """Return a CA beyond this machine before its chain is known: good for `fetch_chain` alone. Raises ConfigurationFaults."""
    if isinstance(config, LocalCA | remote.GroupCA):
        sentence = "has its chain in its own files" if isinstance(config, LocalCA) else "has members: ask them"
        raise ConfigurationFaults(Problem(("upstream_cas", name, "type"), sentence))
    return GuardedCA(_create_remote(config, Setup(name, (), sources)))


def _create_remote(config: RemoteConfig, setup: Setup) -> UpstreamCA:
    ca: UpstreamCA
    match config:
        case ExecCA():
            ca = program.create(config, setup)
        case remote.VaultCA():
            ca = vault.create(config, setup)
        case remote.StepCA():
            ca = step_ca.create(config, setup)
        case remote.CfsslCA():
            ca = cfssl.create(config, setup)
        case remote.AcmeCA():
            ca = acme.create(config, setup)
        case remote.EstCA():
            ca = est.create(config, setup)
        case remote.ScepCA():
            ca = scep.create(config, setup)
        case remote.CmpCA():
            ca = cmp.create(config, setup)
        case _:
            assert_never(config)
    return ca


def _second_opinion(name: UpstreamCAName, config: RemoteConfig) -> SecondOpinion | None:
    """Return what judges certificates beside our own checks; raises ConfigurationFaults where it is not installed."""
    if isinstance(config, ExecCA) or config.pkilint == "off":
        return None
    try:
        return SecondOpinion(name, config.pkilint)
    except MissingPackage as error:
        raise ConfigurationFaults(Problem(("upstream_cas", name, "pkilint"), str(error))) from error


def _set_up(name: UpstreamCAName, config: RemoteConfig, sources: Sources, clock: Callable[[], datetime], claims: Claims) -> Setup:
    """Return what every backend needs; raises ConfigurationFaults for a chain that does not hold together."""
    where = ("upstream_cas", name)
    chain, faults = read_certificates((((*where, "chain", n), file) for n, file in enumerate(config.chain)), sources)
    if not faults:
        faults = [Problem((*where, "chain"), fault) for fault in find_broken_links(tuple(map(parse_certificate, chain)))]
    if faults:
        raise ConfigurationFaults(*faults)
    queue = timedelta(0) if isinstance(config, ExecCA) else config.queue
    return Setup(name, chain, sources, queue, clock, claims)
