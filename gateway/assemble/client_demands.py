"""What Windows, Apple, Android and Debian's scepclient demand of the certificates that an RA shows, beyond what RFC 8894 does."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.assemble.est import warn_of_est_chains
from gateway.assemble.identities import Identities
from gateway.config.document import DataPath, Problem
from gateway.config.schema import GatewayConfig, ScepEndpoint
from gateway.errors import Rejection
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import format_name
from gateway.pki.trust import verify_issued_by
from gateway.wire.scep.identity import RaIdentity

_RA_USAGES = frozenset({eku_oid("certificateRequestAgent"), eku_oid("serverAuth")})


def warn_of_clients(config: GatewayConfig, identities: Identities) -> Iterator[Problem]:
    """Yield every demand that an endpoint does not meet; whether it matters depends on the devices that come."""
    yield from warn_of_est_chains(identities.est)
    for name, identity in identities.scep.items():
        profile = config.profiles[name]
        endpoint = profile.endpoints.scep
        if endpoint is None:
            continue
        where: DataPath = ("profiles", name, "endpoints", "scep")
        at_ca: DataPath = ("profiles", name, "upstream_ca")
        shown = tuple(map(parse_certificate, identity.certificates))
        chain = tuple(map(parse_certificate, identity.chain))
        for path, ra in zip((("ra_certificate",), ("ra_encryption", "certificate")), shown, strict=False):
            yield from _warn_of_ra((*where, *path), ra, chain)
        yield from _warn_of_chain(at_ca, endpoint, chain)
        yield from _warn_of_next_ca((*where, "next_ca"), identity, identities.next_cas.get(name, ()))


def _warn_of_ra(path: DataPath, ra: Certificate, chain: tuple[Certificate, ...]) -> Iterator[Problem]:
    """Yield what Windows and Apple find wrong with one RA certificate."""
    if not _RA_USAGES & set(ra.ekus or ()):
        sentence = "has neither the extended key usage Certificate Request Agent (1.3.6.1.4.1.311.20.2.1) nor serverAuth"
        yield Problem(path, f"{sentence}: Windows refuses it (0x8010002c)")
    issuers = [ca for ca in chain if _issued(ra, ca)]
    if any(ra.authority_key_id and ca.subject_key_id and ra.authority_key_id != ca.subject_key_id for ca in issuers):
        sentence = "names its issuer by another key identifier than the CA's certificate has"
        yield Problem(path, f"{sentence}: strongSwan and certmonger do not find the CA then; issue it anew")
    if chain and not issuers:
        sentence = f"was issued by {format_name(ra.issuer)} and by no CA of the profile's chain"
        yield Problem(path, f"{sentence}: Apple's clients want one CA above the RA and what it hands out (-67731)")


def _warn_of_chain(path: DataPath, endpoint: ScepEndpoint, chain: tuple[Certificate, ...]) -> Iterator[Problem]:
    """Yield what is wrong with the CA certificates that GetCACert shows."""
    if not chain:
        return
    if not any(_issued(ca, ca) for ca in chain):
        sentence = "has no self-signed root in its chain: Android and Windows look for the root in GetCACert"
        yield Problem(path, f"{sentence}; add it to the chain of upstream_cas")
    if endpoint.legacy.des and any(ca.public_key.algorithm != "rsa" for ca in chain):
        # What needs single DES is Debian's scepclient; with it off that client is refused anyway.
        sentence = "has a CA certificate whose key is not RSA, and legacy.des is for clients like Debian's scepclient"
        yield Problem(path, f"{sentence}, which breaks down at the sight of one")


def _warn_of_next_ca(path: DataPath, identity: RaIdentity, next_ca: tuple[bytes, ...]) -> Iterator[Problem]:
    if next_ca and identity.chain[:1] and identity.chain[0] in next_ca:
        yield Problem(path, "holds the CA that is in force: remove it when the change is done")


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        verify_issued_by(certificate, issuer)
    except Rejection:
        return False
    return True
