"""The acme backend."""

from __future__ import annotations

from gateway.ca.interfaces import UpstreamCA
from gateway.ca.setup import Setup
from gateway.config.remote_cas import AcmeCA as Config


def create(config: Config, setup: Setup) -> UpstreamCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    raise setup.fault("is a type that this version does not have yet", "type")
