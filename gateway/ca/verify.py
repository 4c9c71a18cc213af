"""Judges what an upstream CA returned by the grant that was stored before anything was sent (RFC 5280 §6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from gateway.ca.interfaces import Capability, IssueRequest
from gateway.errors import Reason, Rejection
from gateway.model import Grant, Name, SanKind, SubjectAltName
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.names import parse_name
from gateway.pki.trust import verify_chain

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the dates of a CA that reckons validity itself may lie from the granted ones: its clock is not ours."""
EARLIEST_START = timedelta(days=1)
"""How much earlier than granted a certificate may begin where the CA sets the dates by rules of its own."""
_COMMON_NAME = "2.5.4.3"
PUBLIC_DETAIL = "the CA returned a certificate that is not what was granted"

CA_EXTENSIONS = frozenset(
    {
        "2.5.29.14",  # subjectKeyIdentifier
        "2.5.29.15",  # keyUsage
        "2.5.29.17",  # subjectAltName
        "2.5.29.18",  # issuerAltName
        "2.5.29.19",  # basicConstraints
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.32",  # certificatePolicies
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.37",  # extKeyUsage
        "2.5.29.46",  # freshestCRL
        "1.3.6.1.5.5.7.1.1",  # authorityInfoAccess
        "1.3.6.1.4.1.11129.2.4.2",  # signed certificate timestamps
        "1.3.6.1.4.1.311.20.2",  # Microsoft template name
        "1.3.6.1.4.1.311.21.7",  # Microsoft template
        "1.3.6.1.4.1.37476.9000.64.1",  # smallstep's provisioner
        "2.16.840.1.113730.1.13",  # Netscape comment, which openssl.cnf adds
    }
)
"""What a CA adds by itself or what is judged apart; any other extension must have been granted."""


def verify_issued(
    request: IssueRequest,
    leaf: Certificate,
    chain: tuple[bytes, ...],
    ca_chain: tuple[bytes, ...],
    now: datetime,
    capabilities: Capability = Capability.NONE,
) -> None:
    """Raise Rejection UPSTREAM_MISMATCH unless the certificate is what was granted to this key and chains to the CA.

    `ca_chain` holds the trusted CA certificates, DER; `chain`, which came with the leaf, must lead from its issuer to one
    of them. Where the gateway chose the serial it chose all: serial and dates must be equal. Another CA may leave out the
    backdating, and its dates may differ from the granted ones by five minutes. What else it may do to dates and subject its
    `capabilities` say; never does a certificate last longer than was granted.
    """
    parsed = tuple(_parse_ca(der) for der in chain)
    faults = (
        *_key_faults(request, leaf),
        *_name_faults(request.grant, leaf, capabilities),
        *_usage_faults(request.grant, leaf),
        *_extension_faults(request.grant, leaf),
        *_validity_faults(request, leaf, now, capabilities),
    )
    if faults:
        raise _mismatch("; ".join(faults))
    _verify_path(request.grant, leaf, parsed, ca_chain, now)


def _mismatch(cause: str) -> Rejection:
    return Rejection(Reason.UPSTREAM_MISMATCH, PUBLIC_DETAIL, cause)


@lru_cache(maxsize=64)
def _parse_ca(der: bytes) -> Certificate:
    """Parse a CA certificate, which comes back with every certificate below it."""
    try:
        return parse_certificate(der)
    except Rejection as error:
        raise _mismatch(f"a certificate of the chain cannot be read: {error.cause}") from error


def _key_faults(request: IssueRequest, leaf: Certificate) -> Iterable[str]:
    if leaf.public_key.der != request.public_key:
        yield "it holds another key than the request"
    if request.serial is not None and leaf.serial != request.serial:
        yield f"its serial is {leaf.serial:x}, not {request.serial:x}"
    if leaf.serial <= 0:
        yield "its serial is not positive (RFC 5280 §4.1.2.2)"
    if leaf.is_ca:
        yield "it is a CA certificate"


def _name_faults(grant: Grant, leaf: Certificate, capabilities: Capability) -> Iterable[str]:
    if leaf.subject.der != grant.subject_der and not _is_subject(leaf.subject, grant, capabilities):
        yield "its subject is not the granted one"
    if _san_set(leaf.sans) != _san_set(grant.sans) or len(leaf.sans) != len(grant.sans):
        yield "its subject alternative names are not the granted ones"


def _is_subject(subject: Name, grant: Grant, capabilities: Capability) -> bool:
    """Say whether a subject stands for the granted one."""
    found, granted = _attributes(subject), _attributes(parse_name(grant.subject_der))
    if found == granted:
        return True
    if Capability.CHOOSES_COMMON_NAME not in capabilities or any(oid != _COMMON_NAME for rdn in granted for oid, _ in rdn):
        return False
    hosts = {san.value for san in grant.sans if san.kind in {SanKind.DNS, SanKind.IP}}
    names = {value for rdn in granted for _, value in rdn} | hosts
    return len(found) <= 1 and all(
        len(rdn) == 1 and oid == _COMMON_NAME and value in names for rdn in found for oid, value in rdn
    )


def _attributes(name: Name) -> tuple[frozenset[tuple[str, str]], ...]:
    """A name without its string types: CAs re-encode PrintableString as UTF8String and back, and nothing else."""
    return tuple(frozenset((a.oid, a.value) for a in rdn) for rdn in name.rdns)


def _san_set(sans: Iterable[SubjectAltName]) -> frozenset[tuple[SanKind, str | bytes]]:
    exact = {SanKind.OTHER, SanKind.DIRECTORY_NAME}
    return frozenset((san.kind, san.der if san.kind in exact else san.value) for san in sans)


def _usage_faults(grant: Grant, leaf: Certificate) -> Iterable[str]:
    usage, granted = frozenset(leaf.key_usage or ()), frozenset(grant.key_usage)
    if usage != granted:
        yield f"its key usage is {_list(usage)}, not {_list(granted)}"
    ekus, granted = frozenset(leaf.ekus or ()), frozenset(grant.ekus)
    if ekus != granted:
        yield f"its extended key usage is {_list(ekus)}, not {_list(granted)}"


def _extension_faults(grant: Grant, leaf: Certificate) -> Iterable[str]:
    granted = {extension.oid: extension for extension in grant.extensions}
    present = {extension.oid: extension for extension in leaf.extensions}
    for oid in sorted(granted.keys() - present.keys()):
        yield f"it lacks the granted extension {oid}"
    for oid, extension in present.items():
        if oid in granted and extension != granted[oid]:
            yield f"its extension {oid} is not the granted one"
        elif oid not in granted and oid not in CA_EXTENSIONS:
            yield f"it holds the extension {oid}, which was not granted"


def _validity_faults(request: IssueRequest, leaf: Certificate, now: datetime, capabilities: Capability) -> Iterable[str]:
    grant = request.grant
    if request.serial is not None:
        if (leaf.not_before, leaf.not_after) != (grant.not_before, grant.not_after):
            yield f"it is valid {_span(leaf.not_before, leaf.not_after)}, not {_span(grant.not_before, grant.not_after)}"
        return
    free = Capability.CHOOSES_VALIDITY in capabilities
    earliest_start = grant.not_before - (EARLIEST_START if free else CLOCK_TOLERANCE)
    latest_start = max(now, grant.not_before) + CLOCK_TOLERANCE
    if not earliest_start <= leaf.not_before <= latest_start:
        yield f"its notBefore is {leaf.not_before:%Y-%m-%dT%H:%M:%SZ}, granted was {grant.not_before:%Y-%m-%dT%H:%M:%SZ}"
    longer = leaf.not_after - grant.not_after
    if longer > CLOCK_TOLERANCE or (-longer > CLOCK_TOLERANCE and not free):
        yield f"its notAfter is {leaf.not_after:%Y-%m-%dT%H:%M:%SZ}, granted was {grant.not_after:%Y-%m-%dT%H:%M:%SZ}"


def _verify_path(
    grant: Grant, leaf: Certificate, chain: tuple[Certificate, ...], ca_chain: tuple[bytes, ...], now: datetime
) -> None:
    """Check signatures, names, CA rights and dates up to a trusted certificate, all at `now`.

    A CA whose clock runs ahead within the tolerance dates its certificate into our future, hence the later of the two.
    """
    if not chain or chain[-1].der not in ca_chain:
        raise _mismatch("its chain does not end in a certificate of the configured CA")
    # A granted extension may be critical and unknown to path validation; that it is as granted has been checked.
    granted = {extension.oid for extension in grant.extensions}
    if granted:
        leaf = replace(leaf, extensions=tuple(e for e in leaf.extensions if e.oid not in granted))
    try:
        verify_chain(leaf, chain, max(now, leaf.not_before))
    except Rejection as error:
        raise _mismatch(f"it does not chain to the configured CA: {error.cause}") from error


def _list(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"


def _span(start: datetime, end: datetime) -> str:
    return f"{start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
