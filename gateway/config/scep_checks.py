"""SCEP endpoints that contradict themselves, or the listeners that they need (RFC 8894)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.credential_checks import positive
from gateway.config.document import DataPath, Problem
from gateway.config.fields import Address
from gateway.config.parts import Parts
from gateway.config.schema import ScepEndpoint, Server


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


def check_listeners(server: Server) -> Iterator[Problem]:
    """Yield listeners of one server that share an address; paths begin at the server."""
    seen: dict[Address, str] = {}
    for path, address in addresses(server):
        name = ".".join(("server", *map(str, path)))
        if address.port and address in seen:
            yield Problem(path, f"is the same address as {seen[address]}: {address}")
        seen.setdefault(address, name.removesuffix(".listen"))


def addresses(server: Server) -> Iterator[tuple[DataPath, Address]]:
    """Yield every address that is listened on, for clients or for monitoring; paths begin at the server."""
    yield from listeners(server)
    yield ("monitoring",), server.monitoring


def listeners(server: Server) -> Iterator[tuple[DataPath, Address]]:
    """Yield where the server listens for clients, each with the path of the field that says so; paths begin at the server."""
    yield ("http",), server.http
    yield ("https", "listen"), server.https.listen
    if server.https_mtls is not None:
        yield ("https_mtls", "listen"), server.https_mtls.listen


def check_client_certificates(parts: Parts) -> Iterator[Problem]:
    """Yield profiles that ask for a TLS client certificate where no listener does, and a listener that asks for nobody."""
    scep = {name: profile.endpoints.scep for name, profile in parts.profiles.items() if profile.endpoints is not None}
    asking = [name for name, endpoint in scep.items() if endpoint is not None and endpoint.client_certificate == "require"]
    if parts.server is None:
        return
    if parts.server.https_mtls is None:
        for name in asking:
            path = ("profiles", name, "endpoints", "scep", "client_certificate")
            yield Problem(path, "needs server.https_mtls, the listener that asks clients for a certificate")
    elif not asking and len(scep) == len(parts.profiles):
        yield Problem(("server", "https_mtls"), "serves no profile; set client_certificate: require in one, or remove it")
