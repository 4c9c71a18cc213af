"""Paths from a certificate to trust anchors by way of certificates that its holder sent along (RFC 4158, RFC 5280 §6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from gateway.errors import Reason, Rejection
from gateway.pki.algorithms import signature_digest
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import format_name
from gateway.pki.trust import TrustAnchors, path_refusal, verify_issued_by

MAX_SENT = 4
"""CA certificates of a client that are looked at; every one more multiplies the ways to try."""
MAX_PATHS = 8
"""Ways up that are kept, cross-certificates make several."""

_MAX_SENT_BYTES = 8192
_MAX_RSA_BITS = 8192
_COLLIDING = frozenset({"md5", "sha1"})
_PURPOSES = frozenset({eku_oid("clientAuth"), "2.5.29.37.0"})

Path = tuple[Certificate, ...]
"""CA certificates above a leaf, issuing CA first, trust anchor last."""


def find_paths(anchors: TrustAnchors, leaf: Certificate, sent: tuple[bytes, ...], now: datetime) -> tuple[Path, ...]:
    """Return the ways from `leaf` to the bundle that stand at `now`, revocation aside; at least one.

    What was `sent` beside it proves nothing: it is looked at when the bundle alone does not lead to the leaf, and every
    certificate of it must be signed up to the bundle, be a CA's, and not by SHA-1, which lets another be made with its signature.
    Raises Rejection NOT_AUTHORIZED or CREDENTIAL_EXPIRED.
    """
    if _collides(leaf):
        raise _not_trusted(f"{format_name(leaf.subject)} is signed with SHA-1 or weaker: it could be the twin of another")
    refusal: Rejection | None = None
    for candidates in (anchors.paths(leaf), _paths_by_way_of(anchors, leaf, sent)):
        good = []
        for path in islice(candidates, 2 * MAX_PATHS):
            problem = path_refusal(leaf, path, now)
            if problem is None:
                good.append(path)
            # That it has expired says more than that one of several ways does not lead there.
            elif refusal is None or problem.reason is Reason.CREDENTIAL_EXPIRED:
                refusal = problem
        if good:
            return tuple(good[:MAX_PATHS])
    raise refusal or _not_trusted(f"{format_name(leaf.subject)} was issued by no CA of the bundle")


def _paths_by_way_of(anchors: TrustAnchors, leaf: Certificate, sent: tuple[bytes, ...]) -> Iterator[Path]:
    """Yield ways up whose first certificates are the client's; each pair of certificates is verified once at most."""
    pool = _usable(anchors, leaf, sent)
    links: dict[tuple[bytes, bytes], bool] = {}
    above: dict[bytes, tuple[Path, ...]] = {}
    growing: list[Path] = [(leaf,)]
    while growing:
        chain = growing.pop()
        for ca in pool:
            if ca in chain or not _is_linked(chain[-1], ca, links):
                continue
            if ca.sha256 not in above:
                above[ca.sha256] = tuple(islice(anchors.paths(ca), MAX_PATHS))
            yield from ((*chain[1:], ca, *path) for path in above[ca.sha256])
            growing.append((*chain, ca))


def _usable(anchors: TrustAnchors, leaf: Certificate, sent: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    known = {leaf.sha256, *(ca.sha256 for ca in anchors.certificates)}
    found: dict[bytes, Certificate] = {}
    for data in [data for data in sent if data != leaf.der][:MAX_SENT]:
        if len(data) > _MAX_SENT_BYTES:
            continue
        try:
            certificate = parse_certificate(data)
            usable = certificate.is_ca and not _collides(certificate) and certificate.public_key.bits <= _MAX_RSA_BITS
        except Rejection:
            continue
        may_serve = certificate.ekus is None or not _PURPOSES.isdisjoint(certificate.ekus)
        if usable and may_serve and certificate.sha256 not in known:
            found[certificate.sha256] = certificate
    return tuple(found.values())


def _is_linked(certificate: Certificate, issuer: Certificate, links: dict[tuple[bytes, bytes], bool]) -> bool:
    pair = (certificate.sha256, issuer.sha256)
    if pair not in links:
        try:
            verify_issued_by(certificate, issuer)
            links[pair] = True
        except Rejection:
            links[pair] = False
    return links[pair]


def _collides(certificate: Certificate) -> bool:
    return signature_digest(certificate.algorithm) in _COLLIDING


def _not_trusted(cause: str) -> Rejection:
    return Rejection(Reason.NOT_AUTHORIZED, "the certificate is not trusted here", cause)
