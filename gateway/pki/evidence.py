"""What devices say of their keys in a request, taken apart and not yet believed (draft-ietf-lamps-csr-attestation-29 §5)."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.asn1 import attestation as asn1
from gateway.errors import MalformedMessage
from gateway.model import Evidence
from gateway.pki import der

MAX_STATEMENTS = 8
"""Each of which may cost the signatures of a chain."""
MAX_CERTIFICATES = 16

EXTENSIONS = frozenset(
    {
        asn1.OID_ATTESTATION,
        asn1.OID_YUBICO_ATTESTATION,
        asn1.OID_YUBICO_ATTESTATION_OLD,
        asn1.OID_YUBICO_ATTESTATION_CA,
    }
)
"""Extensions of a request that say something about its key and are never asked to be certified."""

_OTHER_CERTIFICATE = 0xA3


def read_bundle(data: bytes) -> tuple[Evidence, ...]:
    """Return the statements of an AttestationBundle, each with all certificates of the bundle.

    Never refused here, for nobody may be asking: what cannot be read is one statement of type id-aa-attestation, which nobody
    takes for good.
    """
    try:
        return _parse_bundle(data)
    except MalformedMessage:
        return (Evidence(asn1.OID_ATTESTATION, data),)


def read_extensions(values: Mapping[str, bytes]) -> tuple[Evidence, ...]:
    """Return what the extensions of a request say of its key: a bundle (CRMF), or the certificates of a YubiKey."""
    found = read_bundle(values[asn1.OID_ATTESTATION]) if asn1.OID_ATTESTATION in values else ()
    attested = values.get(asn1.OID_YUBICO_ATTESTATION) or values.get(asn1.OID_YUBICO_ATTESTATION_OLD)
    if attested is None:
        return found
    above = values.get(asn1.OID_YUBICO_ATTESTATION_CA)
    return (*found, Evidence(asn1.OID_YUBICO_ATTESTATION, attested, () if above is None else (above,)))


def _parse_bundle(data: bytes) -> tuple[Evidence, ...]:
    """Read attestations and certs; drafts before the twentieth have the same form, with a hint behind each statement."""
    body = der.content(der.SEQUENCE, data)
    found = der.elements(body, limit=2)
    if not found or any(tag != der.SEQUENCE for tag, *_ in found):
        raise MalformedMessage("attestation of the request is broken")
    certificates = _certificates(body, found[1][2], found[1][3]) if len(found) > 1 else ()
    statements = der.elements(body, found[0][2], found[0][3], limit=MAX_STATEMENTS)
    if not statements:
        raise MalformedMessage("attestation of the request is empty")
    return tuple([_statement(body, one, certificates) for one in statements])


def _certificates(body: bytes, start: int, end: int) -> tuple[bytes, ...]:
    """Return the X.509 certificates among LimitedCertChoices; those of other kinds help nobody here."""
    found = der.elements(body, start, end, limit=MAX_CERTIFICATES)
    if any(tag not in {der.SEQUENCE, _OTHER_CERTIFICATE} for tag, *_ in found):
        raise MalformedMessage("attestation of the request is broken")
    return tuple([body[begin:stop] for tag, begin, _, stop in found if tag == der.SEQUENCE])


def _statement(body: bytes, element: tuple[int, int, int, int], certificates: tuple[bytes, ...]) -> Evidence:
    tag, _, start, end = element
    found = der.elements(body, start, end, limit=3)
    if tag != der.SEQUENCE or len(found) < 2 or found[0][0] != der.OBJECT_IDENTIFIER:
        raise MalformedMessage("attestation of the request is broken")
    (_, _, oid, oid_end), (_, value, _, value_end) = found[:2]
    return Evidence(der.decode_oid(body[oid:oid_end]), body[value:value_end], certificates)
