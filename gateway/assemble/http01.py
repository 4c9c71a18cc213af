"""Finds whose account key answers http-01 on the gateway's own listener (RFC 8555 §8.3)."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.ca.acme.backend import AcmeCA
from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import UpstreamCA
from gateway.config.document import Problem
from gateway.model import UpstreamCAName


def http01_thumbprints(cas: Mapping[UpstreamCAName, UpstreamCA]) -> dict[UpstreamCAName, str]:
    """Return the account key's thumbprint of each CA whose names are proved on our listener."""
    backends = ((name, ca.ca) for name, ca in cas.items() if isinstance(ca, GuardedCA))
    return {name: ca.thumbprint for name, ca in backends if isinstance(ca, AcmeCA) and ca.thumbprint is not None}


def check_http01(cas: Mapping[UpstreamCAName, UpstreamCA]) -> list[Problem]:
    """Say which CAs have another account key than the first one: a token does not tell whose it is."""
    found = http01_thumbprints(cas)
    first = next(iter(found), None)
    sentence = f"must hold the same key as that of {first}: http-01 is answered for one account key only"
    return [
        Problem(("upstream_cas", name, "account_key"), sentence)
        for name, thumbprint in found.items()
        if first is not None and thumbprint != found[first]
    ]
