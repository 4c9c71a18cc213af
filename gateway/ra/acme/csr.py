"""Whether a CSR asks for exactly what its order is for (RFC 8555 §7.4, §11.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import replace

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, Identifier, IdentifierType, OrderProof
from gateway.pki.csr import parse_csr
from gateway.pki.identifiers import to_identifier, to_san
from gateway.ra.credentials.acme_order import check_key
from gateway.ra.policy.subject import COMMON_NAME

_HOSTS = frozenset({IdentifierType.DNS, IdentifierType.IP})
_DEVICE_CLAIMS = ("serial", "udid", "permanent_identifier", "hardware_module")


def read_csr(der: bytes) -> CertificateRequest:
    """Decode a CSR and verify its proof of possession. Raises Rejection BAD_CSR, whatever is wrong with it."""
    try:
        return parse_csr(der)
    except Rejection as error:
        raise Rejection(Reason.BAD_CSR, f"the CSR cannot be taken: {error.detail}", error.cause) from None


def fit(request: CertificateRequest, proof: OrderProof, *, templated: bool) -> CertificateRequest:
    """Return the CSR with every name of its order as a subject alternative name. Raises Rejection BAD_CSR.

    Names may stand in the common name alone, which no client of today reads (RFC 8555 §7.4). Names of devices may be left out
    (draft-ietf-acme-device-attest §3). `templated`: the profile makes the subject, and the CSR's is of no account for devices.
    """
    check_key(proof, request.public_key)
    asked = _alternative_names(request)
    common = _common_names(request, proof, templated=templated)
    hosts = {one for one in proof.identifiers if one.type in _HOSTS}
    missing = hosts - asked - common
    if missing:
        raise _bad(f"the CSR lacks {_named(missing)}, which the order has")
    extra = asked - proof.identifiers
    if extra:
        raise _bad(f"the CSR has {_named(extra)}, which the order has not")
    added = tuple([to_san(one) for one in sorted(hosts - asked)])
    return replace(request, sans=(*request.sans, *added)) if added else request


def _alternative_names(request: CertificateRequest) -> frozenset[Identifier]:
    found = set()
    for san in request.sans:
        try:
            identifier = to_identifier(san)
        except ValueError:
            identifier = None
        if identifier is None:
            raise _bad(f"the CSR has a name of type {san.kind}, which no order is for")
        found.add(identifier)
    return frozenset(found)


def _common_names(request: CertificateRequest, proof: OrderProof, *, templated: bool) -> frozenset[Identifier]:
    """Return the names of the order that stand as common name; any other common name is one that nobody proved."""
    named = {one.value.lower(): one for one in proof.identifiers if one.type in _HOSTS}
    devices = _device_names(proof.identifiers, proof.claims)
    found = set()
    for value in request.subject.values(COMMON_NAME):
        identifier = named.get(_comparable(value))
        if identifier is not None:
            found.add(identifier)
        elif value not in devices and not (templated and not named):
            raise _bad("the common name is none of the order's names")
    return frozenset(found)


def _device_names(identifiers: Collection[Identifier], claims: Mapping[str, str]) -> frozenset[str]:
    """Return what a device may call itself: its identifiers, with or without their type, and what it attested."""
    values = [one.value for one in identifiers if one.type not in _HOSTS]
    bare = [value.rpartition("/")[0] for value in values if "/" in value]
    attested = [claims[name] for name in _DEVICE_CLAIMS if name in claims]
    return frozenset([*values, *bare, *attested])


def _comparable(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value.lower() if value.isascii() else value


def _named(identifiers: Collection[Identifier]) -> str:
    first = min(identifiers)
    return first.value if len(identifiers) == 1 else f"{first.value} and {len(identifiers) - 1} more"


def _bad(detail: str) -> Rejection:
    return Rejection(Reason.BAD_CSR, detail)
