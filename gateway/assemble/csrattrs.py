"""From a profile's policy to what `csrattrs` tells its clients (RFC 7030 §4.5)."""

from __future__ import annotations

from gateway.config.policy import PolicyConfig
from gateway.wire.est.csrattrs import Demands


def find_demands(policy: PolicyConfig, *, linking: bool) -> Demands:
    """Return what a CSR must hold to pass `policy`; `linking`: proof of possession must be linked to the connection."""
    raise NotImplementedError
