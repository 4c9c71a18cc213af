"""What of one generation goes on in the next: upstream CAs whose configuration and files are the same, and CRL publishers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.interfaces import UpstreamCA
from gateway.ca.local import LocalCA
from gateway.config.fields import SecretSource
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig
from gateway.config.sources import Sources, find_named
from gateway.model import UpstreamCAName
from gateway.ra.crl_keeper import CrlKeeper


@dataclass(frozen=True, slots=True)
class CrlDuty:
    """One CRL that is to be published; the publisher is the same in every generation, its key and schedule are not."""

    publisher: CrlPublisher
    ca: LocalCA
    schedule: CrlSchedule

    def follow(self) -> None:
        """Have the publisher go on with this key and schedule."""
        self.publisher.follow(self.ca, self.schedule)


@dataclass(frozen=True, slots=True)
class CrlWatch:
    """One CRL of a CA beyond this machine that is to be fetched; the keeper is the same in every generation."""

    publisher: CrlKeeper
    ca: UpstreamCA

    def follow(self) -> None:
        """Have the keeper ask this CA from now on."""
        self.publisher.follow(self.ca)


@dataclass(frozen=True, slots=True)
class Lasting:
    """What a generation has that the next one may go on using."""

    cas: Mapping[UpstreamCAName, UpstreamCA] = field(default_factory=lambda: MappingProxyType({}))
    fingerprints: Mapping[UpstreamCAName, bytes] = field(default_factory=lambda: MappingProxyType({}))
    crls: Mapping[UpstreamCAName, CrlDuty | CrlWatch] = field(default_factory=lambda: MappingProxyType({}))

    def unchanged(self, fingerprints: Mapping[UpstreamCAName, bytes]) -> dict[UpstreamCAName, UpstreamCA]:
        """Return the CAs that would be made the same again.

        They go on: so do what they know of the other side, and the bound on how much they ask of it at once.
        """
        return {name: self.cas[name] for name, digest in fingerprints.items() if self.fingerprints.get(name) == digest}


def ca_fingerprints(config: GatewayConfig, sources: Sources) -> dict[UpstreamCAName, bytes]:
    """Return for each upstream CA a digest of all that it is made from: its section, what files and secrets hold, its URLs."""
    return {UpstreamCAName(name): _fingerprint(name, config, sources) for name in config.upstream_cas}


def _fingerprint(name: str, config: GatewayConfig, sources: Sources) -> bytes:
    """Digest one section; a group's holds those of its members, which may not stay behind when they are made anew."""
    section = config.upstream_cas[name]
    data = section.model_dump(mode="json", by_alias=True)
    parts = [name.encode(), config.server.external_url.http.encode(), json.dumps(data, sort_keys=True).encode()]
    for _, named in find_named(data, type(section)):
        parts.append(sources.secret(named) if isinstance(named, SecretSource) else sources.file(named))
    if isinstance(section, GroupCA):
        parts += (_fingerprint(member, config, sources) for member in section.members)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
