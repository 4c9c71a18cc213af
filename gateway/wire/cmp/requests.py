"""Bodies of requests, for clients and registration authorities (RFC 9810 §5.3, RFC 9483 §4, §5)."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.cmp import P10CR_ID, BodyType, GeneralInfo, PkiStatus
from gateway.model import RevocationReason
from gateway.pki import der, extensions
from gateway.pki.certificate_hash import certificate_hash, hash_algorithm_identifier, needs_hash_algorithm
from gateway.pki.crmf_writer import encode_cert_template
from gateway.wire.cmp.answers import free_text
from gateway.wire.cmp.general import encode_infos

_REMOVE_FROM_CRL = 8
_DIGEST = "sha256"
"""hashAlg where the certificate's signature names no digest."""


def enrollment(type_: BodyType, messages: Iterable[bytes]) -> bytes:
    """Return the body of ir, cr or kur with CertReqMsgs, DER."""
    return der.context(type_, der.sequence(*messages))


def p10cr(csr: bytes) -> bytes:
    """Return the body of p10cr with a PKCS#10, DER."""
    return der.context(BodyType.P10CR, csr)


def cert_conf(certificate: bytes, cert_req_id: int = 0, *, accepted: bool = True, text: str = "") -> bytes:
    """Return the body of certConf that accepts or rejects a certificate, DER (RFC 9810 §5.3.18).

    Where its signature names no digest hashAlg says SHA-256: such a message must be of pvno 3.
    """
    algorithm = hash_algorithm_identifier(_DIGEST) if needs_hash_algorithm(certificate) else None
    status = b"" if accepted else der.sequence(der.integer(PkiStatus.REJECTION), free_text(text))
    beside = b"" if algorithm is None else der.context(0, algorithm)
    hashed = der.octet_string(certificate_hash(certificate, algorithm))
    return der.context(BodyType.CERTCONF, der.sequence(der.sequence(hashed, der.integer(cert_req_id), status, beside)))


def poll_req(cert_req_id: int = P10CR_ID) -> bytes:
    """Return the body of pollReq (RFC 9810 §5.3.22)."""
    return der.context(BodyType.POLLREQ, der.sequence(der.sequence(der.integer(cert_req_id))))


def rr(issuer: bytes, serial: int, reason: RevocationReason | None) -> bytes:
    """Return the body of rr for one certificate (RFC 9810 §5.3.9); `issuer` is a Name, DER; no `reason` takes it off the CRL."""
    code = _REMOVE_FROM_CRL if reason is None else reason.value
    entry = extensions.encode_extension(extensions.CRL_REASON, False, der.tlv(0x0A, bytes((code,))))
    details = der.sequence(encode_cert_template(serial=serial, issuer=issuer), der.sequence(entry))
    return der.context(BodyType.RR, der.sequence(details))


def genm(infos: Iterable[GeneralInfo]) -> bytes:
    """Return the body of genm (RFC 9810 §5.3.19)."""
    return der.context(BodyType.GENM, encode_infos(tuple(infos)))


def nested(messages: Iterable[bytes]) -> bytes:
    """Return the body of nested with whole PKIMessages, DER (RFC 9810 §5.1.3.4)."""
    return der.context(BodyType.NESTED, der.sequence(*messages))


def error(text: str) -> bytes:
    """Return the body of an error that a client reports (RFC 9810 §5.3.21)."""
    return der.context(BodyType.ERROR, der.sequence(der.sequence(der.integer(PkiStatus.REJECTION), free_text(text))))
