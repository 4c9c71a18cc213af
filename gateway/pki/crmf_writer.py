"""CRMF: encode certificate templates, requests and proofs of possession (RFC 4211 §3-§6)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gateway.asn1 import crmf as asn1
from gateway.errors import MalformedMessage
from gateway.model import Extension, Grant
from gateway.pki import der, extensions
from gateway.pki.keys import PrivateKey, default_digest, sign, signature_algorithm

RA_VERIFIED = der.context(0, constructed=False)
"""ProofOfPossession of a registration authority that has verified it (RFC 4211 §4)."""
KEY_ENCIPHERMENT = der.context(2, der.context(1, b"\x00", constructed=False))
"""ProofOfPossession by a certificate that is to come encrypted: keyEncipherment, subsequentMessage encrCert (RFC 4211 §4.2)."""
_EMPTY_NAME = der.sequence()


def encode_cert_template(
    *,
    serial: int | None = None,
    issuer: bytes | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    subject: bytes | None = None,
    public_key: bytes | None = None,
    wanted: Iterable[Extension] = (),
) -> bytes:
    """Return a CertTemplate (RFC 4211 §5) of what is given; names and `public_key`, a SubjectPublicKeyInfo, are DER."""
    parts = []
    if serial is not None:
        parts.append(der.context(1, der.content(der.INTEGER, der.integer(serial)), constructed=False))
    if issuer is not None:
        parts.append(der.context(3, issuer))  # explicit, as Name is a CHOICE
    if not_before is not None or not_after is not None:
        parts.append(der.context(4, *_times(not_before, not_after)))
    if subject is not None:
        parts.append(der.context(5, subject))
    if public_key is not None:
        parts.append(der.context(6, der.content(der.SEQUENCE, public_key)))
    encoded = [extensions.encode_extension(e.oid, e.critical, e.value) for e in wanted]
    if encoded:
        parts.append(der.context(9, *encoded))
    return der.sequence(*parts)


def _times(not_before: datetime | None, not_after: datetime | None) -> Iterable[bytes]:
    """Yield the members of OptionalValidity, each Time, a CHOICE, in its explicit tag."""
    for number, moment in enumerate((not_before, not_after)):
        if moment is not None:
            yield der.context(number, der.time(moment))


def template_of_grant(grant: Grant, public_key: bytes) -> bytes:
    """Return the CertTemplate that asks for all that was granted to a key, with its end and without its beginning.

    A beginning is in the past by the time that it is read, which many CAs refuse.
    """
    return encode_cert_template(
        not_after=grant.not_after, subject=grant.subject_der, public_key=public_key, wanted=granted_extensions(grant)
    )


def granted_extensions(grant: Grant) -> tuple[Extension, ...]:
    """Return names, usages and further extensions of a grant as a certificate has them (RFC 5280 §4.2.1)."""
    found = []
    if grant.key_usage:
        found.append(Extension(extensions.KEY_USAGE, True, extensions.encode_key_usage(grant.key_usage)))
    if grant.ekus:
        found.append(Extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(grant.ekus)))
    if grant.sans:
        # critical where nothing else names the subject (RFC 5280 §4.2.1.6)
        critical = grant.subject_der == _EMPTY_NAME
        found.append(Extension(extensions.SUBJECT_ALT_NAME, critical, extensions.encode_sans(grant.sans)))
    return (*found, *grant.extensions)


def encode_cert_request(cert_req_id: int, template: bytes, controls: Iterable[bytes] = ()) -> bytes:
    """Return a CertRequest (RFC 4211 §5); `template` and each of `controls` are DER."""
    listed = tuple(controls)
    return der.sequence(der.integer(cert_req_id), template, *((der.sequence(*listed),) if listed else ()))


def encode_cert_req_msg(cert_request: bytes, proof: bytes | None) -> bytes:
    """Return a CertReqMsg (RFC 4211 §3) of a CertRequest and a ProofOfPossession, DER both; None: without one."""
    return der.sequence(cert_request, *((proof,) if proof is not None else ()))


def prove_by_signature(cert_request: bytes, key: PrivateKey) -> bytes:
    """Return the ProofOfPossession of a key that signs: POPOSigningKey over the CertRequest (RFC 4211 §4.1)."""
    digest = default_digest(key)
    signature = sign(key, cert_request, digest)
    return der.context(1, signature_algorithm(key, digest), der.bit_string(signature))


def split_cert_req_msg(data: bytes) -> tuple[bytes, bytes | None]:
    """Return CertRequest and ProofOfPossession of a CertReqMsg, DER, as they stand there; raises MalformedMessage."""
    body = der.content(der.SEQUENCE, data)
    found = der.elements(body, limit=3)
    if not found or found[0][0] != der.SEQUENCE:
        raise MalformedMessage("certificate request message is broken")
    proofs = [body[start:end] for tag, start, _, end in found[1:] if tag != der.SEQUENCE]
    return body[found[0][1] : found[0][3]], proofs[0] if proofs else None


def encode_control(oid: str, value: bytes) -> bytes:
    """Return one control, an AttributeTypeAndValue (RFC 4211 §6); `value` is DER."""
    return der.sequence(der.oid(oid), value)


def old_cert_id(issuer: bytes, serial: int) -> bytes:
    """Return the control that names the certificate to be updated (RFC 4211 §6.5)."""
    return encode_control(asn1.OID_OLD_CERT_ID, der.sequence(der.context(4, issuer), der.integer(serial)))
