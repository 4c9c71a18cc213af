"""Keys of a TPM 2.0, certified by its attestation key, format `tpm` (WebAuthn §8.3)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime

from gateway.asn1.attestation import OID_TCG_AIK_CERTIFICATE, OID_TPM_MANUFACTURER, OID_TPM_MODEL, OID_TPM_VERSION
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Name, SanKind, SubjectAltName
from gateway.pki import der
from gateway.pki.algorithms import signature_oid, verify_signature
from gateway.pki.certificate import Certificate
from gateway.pki.names import parse_name
from gateway.pki.trust import TrustAnchors
from gateway.validation.attestation import tpm_structures as tpm
from gateway.validation.attestation.chain import verify_certificates
from gateway.validation.attestation.evidence import Evidence, described
from gateway.validation.attestation.statement import Claim, Statement

_ALGORITHMS = {
    -7: (tpm.ECDSA, "sha256"),
    -35: (tpm.ECDSA, "sha384"),
    -36: (tpm.ECDSA, "sha512"),
    -257: (tpm.RSASSA, "sha256"),
    -258: (tpm.RSASSA, "sha384"),
    -259: (tpm.RSASSA, "sha512"),
    # Old attestation keys know nothing else. A collision needs room in what is signed on both sides, and there is none: what a
    # client may choose is compared with the one value that it must be, and what is not compared is bounded to the size of a name.
    -65535: (tpm.RSASSA, "sha1"),
}
"""COSE algorithm to signature scheme and digest."""
_MUST_BE = tpm.FIXED_TPM | tpm.FIXED_PARENT | tpm.SENSITIVE_DATA_ORIGIN
_MIN_RSA_BITS = 2048


def judge_tpm(statement: Statement, anchors: TrustAnchors, claim: Claim) -> Evidence:
    """Return what the TPM certifies: `pubArea` is the key, `certInfo` binds it to the key authorization. Raises Rejection.

    The device's identifiers are those of the attestation key's certificate; one that has none proves the identity of nothing.
    """
    if statement.fields.get("ver") != "2.0":
        raise _bad("the attestation is not of a TPM 2.0")
    certificate = verify_certificates(anchors, statement.certificates, claim.now)
    maker = _maker(certificate)
    cert_info = statement.octets("certInfo")
    _verify_statement(certificate, statement, cert_info)
    certified, area = tpm.parse_certify_info(cert_info), tpm.parse_public_area(statement.octets("pubArea"))
    expected = hashlib.sha256(claim.key_authorization.encode("ascii")).digest()
    if not hmac.compare_digest(certified.extra_data, expected):
        raise _bad("the attestation was made for another challenge or account")
    return _evidence(certificate, maker, certified, area)


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """What TPM2_Certify returned for a key: TPMS_ATTEST and TPMT_SIGNATURE, and the key's TPMT_PUBLIC.

    `certificates` begin with the attestation key's; each is issued by the next.
    """

    info: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    area: bytes = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)


def judge_certified_key(certified: CertifiedKey, anchors: TrustAnchors, now: datetime) -> Evidence:
    """Return what a TPM certifies of a key, at whatever time and for whomever it did so. Raises Rejection."""
    certificate = verify_certificates(anchors, certified.certificates, now)
    maker = _maker(certificate)
    signature = tpm.parse_signature(certified.signature)
    if signature.digest == "sha1":
        raise _bad("the attestation is signed with SHA-1")
    _verify(certificate, signature, certified.info)
    return _evidence(certificate, maker, tpm.parse_certify_info(certified.info), tpm.parse_public_area(certified.area))


def _evidence(certificate: Certificate, maker: dict[str, str], certified: tpm.CertifyInfo, area: tpm.PublicArea) -> Evidence:
    """Return what is proved, once it is about this key and the key can be nowhere else."""
    if not hmac.compare_digest(certified.name, area.name):
        raise _bad("the TPM certified another key")
    if area.attributes & _MUST_BE != _MUST_BE:
        raise _bad("the attested key was not made in the TPM or can leave it")
    if area.attributes & tpm.RESTRICTED:
        raise _bad("the attested key is restricted: it signs for the TPM alone")
    permanent, modules = [_names(certificate, kind) for kind in (SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE)]
    claims = described(certificate) | maker | {"ak": certificate.public_key.sha256.hex()}
    return Evidence(hashlib.sha256(area.spki).digest(), claims, permanent, modules)


def _maker(certificate: Certificate) -> dict[str, str]:
    """Check the certificate of an attestation key (WebAuthn §8.3.1) and return who made the TPM."""
    if certificate.subject.rdns:
        raise _bad("the attestation key's certificate has a subject")
    if certificate.ekus is None or OID_TCG_AIK_CERTIFICATE not in certificate.ekus:
        raise _bad("the certificate is not that of an attestation key")
    if certificate.public_key.algorithm == "rsa" and certificate.public_key.bits < _MIN_RSA_BITS:
        raise _bad("the attestation key is too short")
    names = [_directory_name(san) for san in certificate.sans if san.kind is SanKind.DIRECTORY_NAME]
    found = {}
    for claim, oid in (("manufacturer", OID_TPM_MANUFACTURER), ("model", OID_TPM_MODEL), ("version", OID_TPM_VERSION)):
        values = [value for name in names for value in name.values(oid)]
        if len(values) != 1 or not values[0].isprintable():
            raise _bad(f"the attestation key's certificate does not say the TPM's {claim}")
        found[claim] = values[0]
    return found


def _directory_name(san: SubjectAltName) -> Name:
    start, end = der.read_as(0xA4, san.der)
    return parse_name(san.der[start:end])


def _names(certificate: Certificate, kind: SanKind) -> frozenset[str]:
    return frozenset(san.value for san in certificate.sans if san.kind is kind)


def _verify_statement(certificate: Certificate, statement: Statement, cert_info: bytes) -> None:
    """Verify the signature of the attestation key; scheme and digest are those that `alg` says."""
    number = statement.fields.get("alg")
    expected = _ALGORITHMS.get(number) if type(number) is int else None
    if expected is None:
        raise _bad("the attestation's alg is not supported")
    signature = tpm.parse_signature(statement.octets("sig"))
    if (signature.scheme, signature.digest) != expected:
        raise _bad("the attestation's signature is of another kind than its alg says")
    _verify(certificate, signature, cert_info)


def _verify(certificate: Certificate, signature: tpm.TpmSignature, cert_info: bytes) -> None:
    try:
        kind = "ec" if signature.scheme == tpm.ECDSA else "rsa"
        algorithm = der.sequence(der.oid(signature_oid(kind, signature.digest)))
        verify_signature(certificate.public_key.der, algorithm, signature.value, cert_info)
    except MalformedMessage:
        raise
    except Rejection as error:
        raise Rejection(Reason.BAD_ATTESTATION, "the attestation key did not sign this", error.cause) from None


def _bad(detail: str) -> Rejection:
    return Rejection(Reason.BAD_ATTESTATION, detail)
