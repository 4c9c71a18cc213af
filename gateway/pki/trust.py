"""Who issued what: one link, a chain up to its anchor, a key and its certificate (RFC 5280 §6.1)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import extensions
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.crl import CertificateList
from gateway.pki.keys import PrivateKey, key_matches
from gateway.pki.name_constraints import NAME_CONSTRAINTS, NameConstraints, parse_name_constraints
from gateway.pki.names import format_name, normalize_name

MAX_CHAIN = 16

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
