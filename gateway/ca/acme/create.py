"""Builds an upstream ACME CA from its configuration: account keys, external account, and who writes DNS records."""

from __future__ import annotations

import dns.exception
import dns.name
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.ca.acme.backend import AcmeCA
from gateway.ca.acme.dns import DynamicUpdates, HookRecords, Records, UpdateSettings, read_key
from gateway.ca.acme.session import Account
from gateway.ca.setup import Setup
from gateway.config.document import ConfigurationFaults, Problem
from gateway.config.remote_cas import AcmeCA as Config
from gateway.config.remote_cas import AcmeDnsUpdate
from gateway.pki import base64url
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import load_private_key
from gateway.wire.acme.client import ExternalKey


def create(config: Config, setup: Setup) -> AcmeCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    faults: list[Problem] = []
    signer = _read_signer(config, setup, faults)
    external = _read_external(config, setup, faults)
    records = _make_records(config, setup, faults)
    if faults or signer is None:
        raise ConfigurationFaults(*faults)
    account = Account(signer, config.contact, config.terms_agreed, external)
    return AcmeCA(setup, config, account, records, setup.connect(config.directory, config.connection))


def _read_signer(config: Config, setup: Setup, faults: list[Problem]) -> Signer | None:
    try:
        key = load_private_key(setup.sources.secret(config.account_key))
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError("a key of this kind signs no ACME requests that CAs take; EC P-256 and RSA do")  # noqa: TRY004, TRY301
        return Signer.of(key)
    except ValueError as error:
        faults.append(Problem(setup.where("account_key"), f"{config.account_key}: {error}"))
    return None


def _read_external(config: Config, setup: Setup, faults: list[Problem]) -> ExternalKey | None:
    if config.external_account is None:
        return None
    where = setup.where("external_account", "key")
    try:
        text = setup.sources.secret(config.external_account.key).decode("ascii").strip().rstrip("=")
        key = base64url.decode(text.replace("+", "-").replace("/", "_"))
    except ValueError:
        faults.append(Problem(where, f"{config.external_account.key} does not hold base64url"))
        return None
    if not key:
        faults.append(Problem(where, f"{config.external_account.key} is empty"))
    return ExternalKey(config.external_account.kid, key)


def _make_records(config: Config, setup: Setup, faults: list[Problem]) -> Records | None:
    dns_config = config.dns
    if dns_config is None:
        return None
    if isinstance(dns_config, AcmeDnsUpdate):
        return _make_updates(dns_config, setup, faults)
    program, *arguments = dns_config.command
    if "/" in program:
        program = str(setup.sources.resolve(program))
    return HookRecords((program, *arguments), dns_config.timeout, dns_config.wait.total_seconds())


def _make_updates(config: AcmeDnsUpdate, setup: Setup, faults: list[Problem]) -> Records | None:
    host, port = _split_server(config.server)
    if port is None:
        faults.append(Problem(setup.where("dns", "server"), "must be a host or an address; a port goes after `:`"))
    zone = None
    try:
        zone = dns.name.from_text(config.zone) if config.zone is not None else None
    except dns.exception.DNSException:
        faults.append(Problem(setup.where("dns", "zone"), "is no DNS name"))
    try:
        key = read_key(config.key_name, setup.sources.secret(config.key), config.algorithm)
    except ValueError as error:
        faults.append(Problem(setup.where("dns", "key"), f"{config.key} {error}"))
        return None
    return DynamicUpdates(UpdateSettings(host, port or 53, zone, key, config.wait.total_seconds()))


def _split_server(text: str) -> tuple[str, int | None]:
    """Return host and port of `host`, `host:port` or `[address]:port`; the port is None where it cannot be read."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return host, None
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not port:
        return host, 53
    return host, int(port) if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536 else None
