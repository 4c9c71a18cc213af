"""What a service is started with: a configuration that was read and judged once, sockets that were bound once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.assemble.anchors import NamedCrl
from gateway.assemble.certificates import NamedCertificate
from gateway.config.schema import GatewayConfig
from gateway.config.sources import Sources
from gateway.supervise.sockets import ListeningSockets


@dataclass(frozen=True, slots=True)
class Plan:
    """`path` is the configuration file as it was named, `environ` where secrets may come from: both are read again on reload."""

    path: Path
    config: GatewayConfig
    sources: Sources
    sockets: ListeningSockets
    workers: int
    log_format: str | None
    log_level: str
    drain_seconds: float = 30.0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    worker_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What workers find in their environment beside the supervisor's own."""
    certificates: tuple[NamedCertificate, ...] = ()
    """What was judged: every certificate that the configuration names."""
    crls: tuple[NamedCrl, ...] = ()
    """What was judged too: the CRLs by which certificates of others are."""
