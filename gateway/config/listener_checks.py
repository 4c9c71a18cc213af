"""Listeners that share an address, that a profile needs and that are missing, or that serve nobody."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.credentials import AllOfCredential, RaCertificateCredential, SingleCredential, TlsCertificateCredential
from gateway.config.document import DataPath, Problem
from gateway.config.fields import Address
from gateway.config.parts import Parts, ProfileParts
from gateway.config.schema import Renewal, Server

EST_RENEWAL = "simplereenroll"
"""The EST message that renews (RFC 7030 §4.2.2)."""
_UNSEEN = "needs server.https_mtls, or a proxy in server.proxies that hands over client certificates"
_IDLE = "serves no profile; set client_certificate: require in one, or take TLS certificates by EST, or remove it"


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


def sees_certificates(server: Server) -> bool:
    """Say whether a TLS client's certificate can come here: through the listener that asks for one, or a proxy that does."""
    return server.https_mtls is not None or any(proxy.client_certificate is not None for proxy in server.proxies)


def renews_by_est(renewal: Renewal | None) -> bool:
    """Say whether certificates may be renewed by EST, which takes the old one in TLS."""
    return renewal is not None and EST_RENEWAL in renewal.messages


def tls_credentials(
    credentials: tuple[SingleCredential | AllOfCredential | None, ...],
) -> Iterator[tuple[DataPath, TlsCertificateCredential | RaCertificateCredential]]:
    """Yield the credentials that are TLS client certificates, those in `all_of` too; paths begin at the profile."""
    for path, credential in each_credential(credentials):
        if isinstance(credential, TlsCertificateCredential | RaCertificateCredential):
            yield path, credential


def each_credential(
    credentials: tuple[SingleCredential | AllOfCredential | None, ...],
) -> Iterator[tuple[DataPath, SingleCredential]]:
    """Yield every credential that could be read, those in `all_of` one by one; paths begin at the profile."""
    for number, credential in enumerate(credentials):
        if isinstance(credential, AllOfCredential):
            for place, member in enumerate(credential.of):
                yield ("credentials", number, "of", place), member
        elif credential is not None:
            yield ("credentials", number), credential


def check_client_certificates(parts: Parts) -> Iterator[Problem]:
    """Yield profiles that ask for a TLS client certificate where no listener does, and a listener that asks for nobody."""
    server = parts.server
    if server is None:
        return
    for name, profile in parts.profiles.items():
        endpoints = profile.endpoints
        by_message = endpoints is not None and (endpoints.est is None or endpoints.cmp is not None)
        asking = [
            place
            for place, credential in tls_credentials(profile.credentials)
            if not (by_message and isinstance(credential, RaCertificateCredential))
        ]
        if _requires_by_scep(profile):
            asking.append(("endpoints", "scep", "client_certificate"))
        for place in asking if not sees_certificates(server) else ():
            yield Problem(("profiles", name, *place), _UNSEEN)
    if server.https_mtls is not None and not any(map(_may_ask, parts.profiles.values())):
        yield Problem(("server", "https_mtls"), _IDLE)


def _requires_by_scep(profile: ProfileParts) -> bool:
    scep = profile.endpoints.scep if profile.endpoints is not None else None
    return scep is not None and scep.client_certificate == "require"


def _may_ask(profile: ProfileParts) -> bool:
    """Say whether a profile asks for certificates, or cannot be read well enough to know."""
    if profile.endpoints is None or None in profile.credentials:
        return True
    by_est = profile.endpoints.est is not None and (
        renews_by_est(profile.renewal) or any(True for _ in tls_credentials(profile.credentials))
    )
    return by_est or _requires_by_scep(profile)
