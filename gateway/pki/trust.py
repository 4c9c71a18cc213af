"""Who issued what: one link, a chain up to its anchor, a key and its certificate (RFC 5280 §6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeVar

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import extensions
from gateway.pki.algorithms import signature_digest, verify_signature
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.crl import CertificateList, parse_crl
from gateway.pki.keys import PrivateKey, key_matches
from gateway.pki.name_constraints import NAME_CONSTRAINTS, NameConstraints, parse_name_constraints
from gateway.pki.names import format_name, normalize_name

T = TypeVar("T")

MAX_CHAIN = 16
MAX_ANCHORS = 256
"""CA certificates of one bundle."""
MAX_PATHS = 64
"""Ways up from one CA of a bundle; cross-certificates multiply them."""
MAX_BUNDLE_BYTES = 16 * 1024 * 1024
"""Certificates, or CRLs, of one bundle."""
_SUCCESSOR_DUE = timedelta(days=30)

_UNDERSTOOD = frozenset(
    {
        extensions.BASIC_CONSTRAINTS,
        extensions.KEY_USAGE,
        extensions.EXTENDED_KEY_USAGE,
        extensions.SUBJECT_ALT_NAME,
        NAME_CONSTRAINTS,
        "2.5.29.32",  # certificatePolicies: any policy is acceptable here (RFC 5280 §6.1.1 (c))
        "2.5.29.36",  # policyConstraints
        "2.5.29.54",  # inhibitAnyPolicy
    }
)


_COLLIDING = frozenset({"md5", "sha1"})
"""Digests under which two certificates can be made that have one signature."""

_verify_ca_signature = lru_cache(maxsize=256)(verify_signature)
"""CA certificates are few and met again above every leaf: a P-384 signature costs more than all else of a chain."""


def verify_issued_by(
    certificate: Certificate, issuer: Certificate, verify: Callable[[bytes, bytes, bytes, bytes], object] = verify_signature
) -> None:
    """Check that `issuer` is a CA, has the issuer's name and signed `certificate`.

    Raises Rejection BAD_SIGNATURE, or UNSUPPORTED_ALGORITHM. Validity is not looked at.
    """
    if certificate.issuer_der != issuer.subject.der and normalize_name(certificate.issuer) != normalize_name(issuer.subject):
        raise _refused(certificate, f"its issuer is {format_name(certificate.issuer)}, not {format_name(issuer.subject)}")
    _check_may_sign(issuer, "keyCertSign")
    verify(issuer.public_key.der, certificate.algorithm, certificate.signature, certificate.tbs)


def verify_crl(crl: CertificateList, issuer: Certificate) -> None:
    """Check that `issuer` may sign CRLs and signed `crl`; Rejection BAD_SIGNATURE or UNSUPPORTED_ALGORITHM."""
    if crl.issuer_der != issuer.subject.der:
        raise Rejection(Reason.BAD_SIGNATURE, "the CRL has another issuer")
    _check_may_sign(issuer, "cRLSign")
    verify_signature(issuer.public_key.der, crl.algorithm, crl.signature, crl.tbs)


def _check_may_sign(issuer: Certificate, usage: str) -> None:
    """Check basicConstraints and keyUsage of an issuer (RFC 5280 §6.1.4 (k), (n), §6.3.3 (f))."""
    if not issuer.is_ca:
        raise _refused(issuer, "it is no CA certificate")
    if issuer.key_usage is not None and usage not in issuer.key_usage:
        raise _refused(issuer, f"its key usage lacks {usage}")


def verify_chain(leaf: Certificate, chain: tuple[Certificate, ...], at: datetime) -> None:
    """Check every link from `leaf` to the last certificate of `chain`, which is the trust anchor.

    `chain` starts with the leaf's issuer. Names, signatures, validity at `at`, basicConstraints, keyCertSign, path
    lengths, name constraints and unknown critical extensions are checked; revocation is not. The anchor is trusted for its
    name and key; its own limits hold too. Raises Rejection BAD_SIGNATURE, BAD_TIME or UNSUPPORTED_ALGORITHM.
    """
    if not 0 < len(chain) <= MAX_CHAIN:
        raise _refused(leaf, f"its chain has {len(chain)} certificates")
    path = (leaf, *chain)
    below = 0
    for position, (certificate, issuer) in enumerate(zip(path, chain, strict=False)):
        verify_issued_by(certificate, issuer, _verify_ca_signature if position else verify_signature)
        if issuer.path_length is not None and below > issuer.path_length:
            raise _refused(issuer, f"{below} CA certificates stand below it, {issuer.path_length} may")
        _check_name_constraints(issuer, path[: position + 1])
        below += not issuer.self_issued
    for certificate in path:
        _check_time(certificate, at)
        _check_critical(certificate)


def _check_time(certificate: Certificate, at: datetime) -> None:
    if not certificate.not_before <= at <= certificate.not_after:
        text = f"the certificate {format_name(certificate.subject)} is not valid at this time"
        raise Rejection(Reason.BAD_TIME, text, f"{text}: {certificate.not_before} to {certificate.not_after}, now {at}")


def _check_critical(certificate: Certificate) -> None:
    """Refuse critical extensions that are not processed (RFC 5280 §4.2)."""
    unknown = [e.oid for e in certificate.extensions if e.critical and e.oid not in _UNDERSTOOD]
    if unknown:
        raise _refused(certificate, f"critical extension {unknown[0]} is not supported")


def _check_name_constraints(issuer: Certificate, below: tuple[Certificate, ...]) -> None:
    """Check the names of `below`, leaf first, against the issuer's name constraints (RFC 5280 §6.1.3 (b), (c))."""
    constraints: NameConstraints | None = None
    for extension in issuer.extensions:
        if extension.oid == NAME_CONSTRAINTS:
            constraints = parse_name_constraints(extension.value)
    if constraints is None:
        return
    for position, certificate in enumerate(below):
        if position and certificate.self_issued:
            continue
        problem = constraints.violation(certificate.subject, certificate.sans)
        if problem:
            raise _refused(certificate, f"{problem} is outside the name constraints of {format_name(issuer.subject)}")


def check_pair(certificate_der: bytes, key: PrivateKey) -> Certificate:
    """Return the certificate when `key` is its private key; ValueError, with a sentence, when it is not or cannot be read."""
    try:
        certificate = parse_certificate(certificate_der)
        matches = key_matches(key, certificate.public_key.der)
    except MalformedMessage as error:
        raise ValueError(f"not a certificate: {error.cause}") from None
    except Rejection as error:
        raise ValueError(f"the certificate's key cannot be used: {error.cause}") from None
    if not matches:
        raise ValueError(f"the private key does not belong to the certificate {format_name(certificate.subject)}")
    return certificate


def _refused(certificate: Certificate, why: str) -> Rejection:
    text = "a certificate of the chain cannot be trusted"
    return Rejection(Reason.BAD_SIGNATURE, text, f"{format_name(certificate.subject)}: {why}")


class TrustAnchors:
    """CA certificates that an operator trusts, with their CRLs where revocation is judged; prepared once, then only read.

    Each certificate of the bundle is trusted by itself; where another one of the bundle has issued it, that one must stand for
    it as well, so that an intermediate beside its root can be revoked.
    """

    __slots__ = ("_by_subject", "_paths", "_revocations", "certificates")

    def __init__(self, certificates: tuple[Certificate, ...], crls: tuple[CertificateList, ...] | None = None) -> None:
        """Take the bundle; `crls` None leaves revocation unjudged. ValueError, with a sentence, where it can prove nothing."""
        if not 0 < len(certificates) <= MAX_ANCHORS:
            raise ValueError(f"a bundle has 1 to {MAX_ANCHORS} CA certificates, not {len(certificates)}")
        self.certificates = certificates
        for certificate in certificates:
            try:
                _check_may_sign(certificate, "keyCertSign")
            except Rejection as error:
                raise ValueError(f"{error.cause}: only CA certificates belong here") from None
        self._by_subject: _BySubject = {}
        for certificate in certificates:
            name = normalize_name(certificate.subject)
            self._by_subject[name] = (*self._by_subject.get(name, ()), certificate)
        self._paths = {anchor.sha256: _paths_above(anchor, self._by_subject) for anchor in certificates}
        self._revocations = None if crls is None else _assign(crls, certificates)

    @classmethod
    def parse(cls, pem: bytes, crl_pem: bytes | None = None) -> TrustAnchors:
        """Read PEM certificates, and PEM CRLs where revocation is judged; ValueError, with a sentence."""
        certificates = tuple(_decode(pem, "CERTIFICATE", "CA certificate", parse_certificate))
        crls = None if crl_pem is None else tuple(_decode(crl_pem, "X509 CRL", "CRL", parse_crl))
        return cls(certificates, crls)

    def crl_terms(self, now: datetime) -> Iterator[tuple[Certificate, CrlTerm | None]]:
        """Yield each CA with the term of its CRL in force at `now` that ends last, or None; nothing where none is judged."""
        if self._revocations is not None:
            for ca in self.certificates:
                current = [crl for crl in self._revocations.get(ca.sha256, ()) if crl.in_force(now)]
                yield ca, max(current, key=lambda crl: crl.next_update, default=None)

    def crl_ends(self) -> Iterator[tuple[Certificate, datetime | None]]:
        """Yield each CA with the nextUpdate of its CRL that ends last, or None; nothing where none is judged."""
        if self._revocations is not None:
            for ca in self.certificates:
                yield ca, max((crl.next_update for crl in self._revocations.get(ca.sha256, ())), default=None)

    def without_crl(self, now: datetime) -> tuple[Certificate, ...]:
        """Return the CAs that have no CRL in force at `now`: what they issued is refused. Empty where none is judged."""
        return tuple(ca for ca, term in self.crl_terms(now) if term is None)

    def verify(self, leaf: Certificate, now: datetime, grace: timedelta = timedelta(0)) -> None:
        """Check that `leaf` stands below a CA of the bundle, is valid at `now` and is not revoked.

        Every CA of the path is valid at `now`, too. With CRLs each of them needs one in force that does not list the certificate
        below it. `grace` forgives a leaf that expired so lately; its CRL must then date from before its end, because a later one
        need not list it any more (RFC 5280 §3.3). Raises Rejection NOT_AUTHORIZED, CREDENTIAL_EXPIRED or CREDENTIAL_REVOKED.
        """
        if signature_digest(leaf.algorithm) in _COLLIDING:
            raise _not_trusted(f"{format_name(leaf.subject)} is signed with SHA-1 or weaker: it could be the twin of another")
        refusal: Rejection | None = None
        for path in self.paths(leaf):
            refusal = path_refusal(leaf, path, now, grace) or self.revocation(leaf, path, now)
            if refusal is None:
                return
        raise refusal or _not_trusted(f"{format_name(leaf.subject)} was issued by no CA of the bundle")

    def paths(self, certificate: Certificate) -> Iterator[tuple[Certificate, ...]]:
        """Yield every way up from the CAs of the bundle that have signed `certificate`, issuing CA first; no more is checked."""
        for anchor in _issuers_of(certificate, self._by_subject, verify_signature):
            yield from self._paths[anchor.sha256]

    def revocation(self, leaf: Certificate, path: tuple[Certificate, ...], now: datetime) -> Rejection | None:
        """Say by the CRLs in force at `now` why `leaf`, or a CA of its path, is not to be trusted.

        None also where none is judged. A CA that has no CRL in the bundle vouches for nothing.
        """
        if self._revocations is None:
            return None
        for certificate, issuer in zip((leaf, *path), path, strict=False):
            expired_at = leaf.not_after if certificate is leaf and now > leaf.not_after else None
            refusal = _revocation(certificate, issuer, self._revocations.get(issuer.sha256, ()), now, expired_at)
            if refusal is not None:
                return refusal
        return None


def path_refusal(
    leaf: Certificate, path: tuple[Certificate, ...], now: datetime, grace: timedelta = timedelta(0)
) -> Rejection | None:
    """Say why a path does not stand at `now`, but for revocation: NOT_AUTHORIZED, or CREDENTIAL_EXPIRED for the leaf."""
    if now < leaf.not_before:
        return _not_trusted(f"{format_name(leaf.subject)} is not valid before {leaf.not_before.isoformat()}")
    if now - grace > leaf.not_after:
        return Rejection(Reason.CREDENTIAL_EXPIRED, "the certificate has expired", f"it ended {leaf.not_after.isoformat()}")
    try:
        verify_chain(leaf, path, min(now, leaf.not_after))
        for ca in path:
            _check_time(ca, now)
    except Rejection as error:
        return _not_trusted(error.cause)
    return None


@dataclass(frozen=True, slots=True)
class CrlTerm:
    """From when to when a CRL speaks (RFC 5280 §5.1.2.4, §5.1.2.5)."""

    this_update: datetime
    next_update: datetime

    def in_force(self, now: datetime) -> bool:
        """Whether the CRL speaks at `now`: from thisUpdate on, and not at nextUpdate any more."""
        return self.this_update <= now < self.next_update

    def ends_soon(self, now: datetime) -> bool:
        """Whether its successor is due: less than a tenth of its term is left, at most 30 days."""
        return self.next_update - now < min((self.next_update - self.this_update) / 10, _SUCCESSOR_DUE)


@dataclass(frozen=True, slots=True)
class _Revocations(CrlTerm):
    """What is left of a CRL once its signature is verified."""

    serials: frozenset[int] = field(repr=False)


def _decode(pem: bytes, label: str, what: str, parse: Callable[[bytes], T]) -> Iterator[T]:
    if len(pem) > MAX_BUNDLE_BYTES:
        raise ValueError(f"a bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    for number, data in enumerate(pem_to_ders(pem, label), start=1):
        try:
            yield parse(data)
        except Rejection as error:
            raise ValueError(f"{what} {number} of the bundle cannot be read: {error.cause}") from None


_BySubject = dict[tuple[tuple[tuple[str, str], ...], ...], tuple[Certificate, ...]]
"""CA certificates by their subject as `normalize_name` compares it."""


def _issuers_of(
    certificate: Certificate, by_subject: _BySubject, verify: Callable[[bytes, bytes, bytes, bytes], object]
) -> Iterator[Certificate]:
    """Yield those that have signed `certificate`."""
    for issuer in by_subject.get(normalize_name(certificate.issuer), ()):
        try:
            verify_issued_by(certificate, issuer, verify)
        except Rejection:
            continue
        yield issuer


def _paths_above(anchor: Certificate, by_subject: _BySubject) -> tuple[tuple[Certificate, ...], ...]:
    """Return every way from a CA up to one that signed itself or that no other of the bundle has issued, issuing CA first."""
    finished: list[tuple[Certificate, ...]] = []
    growing: list[tuple[Certificate, ...]] = [(anchor,)]
    while growing:
        path = growing.pop()
        issuers = list(_issuers_of(path[-1], by_subject, _verify_ca_signature))
        above = [] if path[-1] in issuers else [ca for ca in issuers if ca not in path]
        if not above:
            finished.append(path)
        growing += [(*path, ca) for ca in above]
        if len(finished) + len(growing) > MAX_PATHS or len(path) > MAX_CHAIN:
            raise ValueError(f"the certificates of the bundle certify each other in more than {MAX_PATHS} ways")
    return tuple(finished)


def _assign(crls: tuple[CertificateList, ...], certificates: tuple[Certificate, ...]) -> dict[bytes, tuple[_Revocations, ...]]:
    """Return the CRLs of each CA by its SHA-256, signatures verified; ValueError for one that is of none of them."""
    assigned: dict[bytes, tuple[_Revocations, ...]] = {}
    for number, crl in enumerate(crls, start=1):
        if crl.next_update is None:
            raise ValueError(f"CRL {number} of the bundle has no nextUpdate, so it never ends (RFC 5280 §5.1.2.5)")
        prepared = _Revocations(crl.this_update, crl.next_update, crl.serials)
        issuers = [ca for ca in certificates if _has_signed(ca, crl)]
        if not issuers:
            raise ValueError(f"CRL {number} of the bundle was signed by none of its CA certificates")
        for ca in issuers:
            assigned[ca.sha256] = (*assigned.get(ca.sha256, ()), prepared)
    return assigned


def _has_signed(ca: Certificate, crl: CertificateList) -> bool:
    try:
        verify_crl(crl, ca)
    except Rejection:
        return False
    return True


def _revocation(
    certificate: Certificate, issuer: Certificate, lists: tuple[_Revocations, ...], now: datetime, expired_at: datetime | None
) -> Rejection | None:
    """Judge one certificate by the CRLs of its issuer that are in force."""
    current = [r for r in lists if r.in_force(now)]
    if any(certificate.serial in r.serials for r in current):
        text = (
            f"{format_name(certificate.subject)}, serial {certificate.serial:x}, is on the CRL of {format_name(issuer.subject)}"
        )
        return Rejection(Reason.CREDENTIAL_REVOKED, "the certificate has been revoked", text)
    if not any(expired_at is None or r.this_update <= expired_at for r in current):
        return _not_trusted(f"there is no CRL in force of {format_name(issuer.subject)} that speaks for it")
    return None


def _not_trusted(cause: str) -> Rejection:
    return Rejection(Reason.NOT_AUTHORIZED, "the certificate is not trusted here", cause)
