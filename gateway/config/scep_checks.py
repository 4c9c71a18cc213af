"""SCEP endpoints that contradict themselves (RFC 8894)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import positive
from gateway.config.schema import ScepEndpoint


def check_scep(endpoint: ScepEndpoint) -> Iterator[Problem]:
    """Yield what is wrong within one SCEP endpoint; paths begin at it."""
    yield from positive(("signing_time_skew",), endpoint.signing_time_skew)
    yield from _check_pairs(endpoint)
    requires = endpoint.client_certificate == "require"
    if requires and endpoint.client_anchors is None:
        yield Problem(("client_certificate",), "needs client_anchors: the CAs whose certificates are accepted")
    if endpoint.client_anchors is not None and not requires:
        yield Problem(("client_anchors",), "is looked at only with client_certificate: require")
    if endpoint.client_crls is not None and endpoint.client_anchors is None:
        yield Problem(("client_crls",), "goes with client_anchors")


def _check_pairs(endpoint: ScepEndpoint) -> Iterator[Problem]:
    """Yield RA certificates that are named twice: which key is meant could not be told."""
    seen = {str(endpoint.ra_certificate): "ra_certificate"}
    pairs: list[tuple[DataPath, str, str]] = []
    if endpoint.ra_encryption is not None:
        pairs.append((("ra_encryption", "certificate"), "ra_encryption", endpoint.ra_encryption.certificate))
    for number, pair in enumerate(endpoint.previous_ra):
        pairs.append((("previous_ra", number, "certificate"), f"previous_ra[{number}]", pair.certificate))
    for path, name, file in pairs:
        if file in seen:
            yield Problem(path, f"is the same file as {seen[file]}")
        seen.setdefault(file, name)
