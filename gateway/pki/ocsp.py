"""Certificate status by OCSP: ask, and read an answer that was signed by who may (RFC 6960)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der, extensions
from gateway.pki.algorithms import digest_oid, signature_digest, verify_signature
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import normalize_name, parse_name
from gateway.pki.trust import verify_chain

MAX_RESPONSE_BYTES = 65536
MAX_URL = 1024
WITHOUT_END = timedelta(minutes=10)
"""How long an answer speaks that names no nextUpdate: there is always a newer one (RFC 6960 §4.2.2.1)."""

_SKEW = timedelta(minutes=5)
_LAST = datetime.max.replace(tzinfo=UTC) - WITHOUT_END
_MAX_SIGNERS = 4
_MAX_ANSWERS = 64
_COLLIDING = frozenset({"md5", "sha1"})
_OCSP_SIGNING = eku_oid("OCSPSigning")
_ACCESS_OCSP = "1.3.6.1.5.5.7.48.1"
_BASIC_RESPONSE = "1.3.6.1.5.5.7.48.1.1"
_ENUMERATED, _URI, _BY_NAME, _BY_KEY, _GOOD, _REVOKED, _UNKNOWN = 0x0A, 0x86, 0xA1, 0xA2, 0x80, 0xA1, 0x82


class CertificateStatus(StrEnum):
    """What a responder says of a certificate (RFC 6960 §2.2)."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OcspAnswer:
    """A status whose signature was verified, and until when it speaks."""

    status: CertificateStatus
    until: datetime


def ocsp_url(certificate: Certificate) -> str | None:
    """Return the first responder that a certificate names by http (RFC 5280 §4.2.2.1); None for none, and for a broken one."""
    for extension in certificate.extensions:
        if extension.oid != extensions.AUTHORITY_INFO_ACCESS:
            continue
        try:
            return next(_responders(extension.value), None)
        except MalformedMessage:
            return None
    return None


def _responders(extn_value: bytes) -> Iterator[str]:
    body = der.content(der.SEQUENCE, extn_value)
    for tag, _, start, end in der.elements(body, limit=16):
        if tag != der.SEQUENCE:
            raise MalformedMessage("authorityInfoAccess is broken")
        oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, body, start)
        name, name_start, name_end = der.read(body, oid_end)
        if name_end != end:
            raise MalformedMessage("authorityInfoAccess is broken")
        url = body[name_start:name_end].decode("latin-1")
        if der.decode_oid(body[oid_start:oid_end]) == _ACCESS_OCSP and name == _URI and _is_http(url):
            yield url


def _is_http(url: str) -> bool:
    return len(url) <= MAX_URL and url.isascii() and url.isprintable() and " " not in url and url.lower().startswith("http://")


def build_ocsp_request(certificate: Certificate, issuer: Certificate) -> bytes:
    """Return an OCSPRequest for one certificate (RFC 6960 §4.1.1).

    The identifier is by SHA-1, which responders that answer from prepared files know alone (RFC 5019 §2.1.1); nothing rests on it
    but which certificate is meant. There is no nonce: what an answer says is good until its nextUpdate, whoever asked.
    """
    return der.sequence(der.sequence(der.sequence(der.sequence(_certificate_id(certificate, issuer)))))


def _certificate_id(certificate: Certificate, issuer: Certificate) -> bytes:
    return der.sequence(
        der.sequence(der.oid(digest_oid("sha1")), der.null()),
        der.octet_string(_sha1(issuer.subject.der)),
        der.octet_string(_sha1(_key_bits(issuer))),
        der.integer(certificate.serial),
    )


def read_ocsp_response(data: bytes, certificate: Certificate, issuer: Certificate, now: datetime) -> OcspAnswer:
    """Return what a response says of `certificate` at `now`; `issuer` is its CA, which has been verified before.

    It must be signed by the CA itself or by a responder that this CA has named, and be neither old nor of the future. Raises
    MalformedMessage, or Rejection UNSUPPORTED_MESSAGE (the responder refuses), BAD_SIGNATURE, BAD_TIME,
    UNSUPPORTED_ALGORITHM or UNKNOWN_CERTIFICATE (another certificate's).
    """
    if len(data) > MAX_RESPONSE_BYTES:
        raise MalformedMessage("the OCSP response is too large", reason=Reason.TOO_LARGE)
    tbs, algorithm, signature, certificates = _split_basic(_basic_response(data))
    responder, answers = _split_data(tbs)
    key = _signing_key(responder, certificates, issuer, now)
    if signature_digest(algorithm) in _COLLIDING:
        raise _refused("it is signed with SHA-1 or weaker")
    verify_signature(key, algorithm, signature, tbs)
    found = [answer for answer in _answers(answers) if answer.is_for(certificate, issuer)]
    if not found:
        raise Rejection(Reason.UNKNOWN_CERTIFICATE, "the OCSP response is for another certificate")
    for answer in found:
        answer.check_time(now)
    worst = max(found, key=lambda answer: _SEVERITY.index(answer.status))
    return OcspAnswer(worst.status, min(answer.until for answer in found))


_SEVERITY = (CertificateStatus.GOOD, CertificateStatus.UNKNOWN, CertificateStatus.REVOKED)


def _basic_response(data: bytes) -> bytes:
    """Return the BasicOCSPResponse of an OCSPResponse (RFC 6960 §4.2.1)."""
    body = der.content(der.SEQUENCE, data)
    fields = der.elements(body, limit=2)
    if not fields or fields[0][0] != _ENUMERATED:
        raise MalformedMessage("the OCSP response is broken")
    status = der.decode_integer(body[fields[0][2] : fields[0][3]])
    if status != 0 or len(fields) != 2:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "the OCSP responder refuses to answer", f"responseStatus {status}")
    if fields[1][0] != 0xA0:
        raise MalformedMessage("the OCSP response is broken")
    inner = der.content(der.SEQUENCE, body[fields[1][2] : fields[1][3]])
    start, end = der.read_as(der.OBJECT_IDENTIFIER, inner)
    if der.decode_oid(inner[start:end]) != _BASIC_RESPONSE:
        raise MalformedMessage("the OCSP response is of another type")
    return der.content(der.OCTET_STRING, inner[end:])


def _split_basic(basic: bytes) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
    """Return tbsResponseData, signatureAlgorithm, signature and certs."""
    body = der.content(der.SEQUENCE, basic)
    fields = der.elements(body, limit=4)
    if [f[0] for f in fields] not in ([0x30, 0x30, 0x03], [0x30, 0x30, 0x03, 0xA0]):
        raise MalformedMessage("the OCSP response is broken")
    certificates: tuple[bytes, ...] = ()
    if len(fields) == 4:
        inner = der.content(der.SEQUENCE, body[fields[3][2] : fields[3][3]])
        certificates = tuple(inner[start:end] for _, start, _, end in der.elements(inner, limit=16))
    tbs, algorithm = (body[f[1] : f[3]] for f in fields[:2])
    return tbs, algorithm, der.decode_bits(body[fields[2][2] : fields[2][3]]), certificates


def _split_data(tbs: bytes) -> tuple[tuple[int, bytes], bytes]:
    """Return responderID, as tag and content, and responses of a ResponseData without critical extensions."""
    body = der.content(der.SEQUENCE, tbs)
    fields = der.elements(body, limit=5)
    if fields and fields[0][0] == 0xA0:
        fields = fields[1:]
    tags = [f[0] for f in fields]
    if tags[1:] not in ([der.GENERALIZED_TIME, der.SEQUENCE], [der.GENERALIZED_TIME, der.SEQUENCE, 0xA1]):
        raise MalformedMessage("the OCSP response is broken")
    if len(fields) == 4:
        _check_extensions(body[fields[3][2] : fields[3][3]])
    responder = (tags[0], body[fields[0][2] : fields[0][3]])
    return responder, body[fields[2][2] : fields[2][3]]


def _signing_key(responder: tuple[int, bytes], certificates: tuple[bytes, ...], issuer: Certificate, now: datetime) -> bytes:
    """Return the key of the CA, or of a responder that it has named by id-kp-OCSPSigning (RFC 6960 §4.2.2.2)."""
    if _is_responder(responder, issuer):
        return issuer.public_key.der
    for data in certificates[:_MAX_SIGNERS]:
        candidate = parse_certificate(data)
        if not _is_responder(responder, candidate) or _OCSP_SIGNING not in (candidate.ekus or ()):
            continue
        if signature_digest(candidate.algorithm) in _COLLIDING:
            continue
        verify_chain(candidate, (issuer,), now)
        return candidate.public_key.der
    raise _refused("its signer is neither the certificate's CA nor a responder that this CA has named")


def _is_responder(responder: tuple[int, bytes], certificate: Certificate) -> bool:
    tag, value = responder
    if tag == _BY_KEY:
        return der.content(der.OCTET_STRING, value) == _sha1(_key_bits(certificate))
    if tag == _BY_NAME:
        return normalize_name(parse_name(value)) == normalize_name(certificate.subject)
    raise MalformedMessage("the OCSP response is broken", "responderID is neither a name nor a key")


@dataclass(frozen=True, slots=True)
class _Single:
    """One SingleResponse (RFC 6960 §4.2.1)."""

    certificate_id: tuple[str, bytes, bytes, int]
    status: CertificateStatus
    this_update: datetime
    until: datetime

    def is_for(self, certificate: Certificate, issuer: Certificate) -> bool:
        asked = (digest_oid("sha1"), _sha1(issuer.subject.der), _sha1(_key_bits(issuer)), certificate.serial)
        return self.certificate_id == asked

    def check_time(self, now: datetime) -> None:
        if self.this_update > now + _SKEW or now >= self.until:
            text = f"it speaks from {self.this_update.isoformat()} to {self.until.isoformat()}"
            raise Rejection(Reason.BAD_TIME, "the OCSP response is out of its time", text)


def _answers(responses: bytes) -> Iterator[_Single]:
    for tag, _, start, end in der.elements(responses, limit=_MAX_ANSWERS):
        if tag != der.SEQUENCE:
            raise MalformedMessage("the OCSP response is broken")
        yield _single(responses[start:end])


def _single(body: bytes) -> _Single:
    fields = der.elements(body, limit=5)
    tags = [f[0] for f in fields]
    if tags[:1] != [der.SEQUENCE] or tags[2:3] != [der.GENERALIZED_TIME] or tags[3:] not in ([], [0xA0], [0xA1], [0xA0, 0xA1]):
        raise MalformedMessage("the OCSP response is broken")
    statuses = {_GOOD: CertificateStatus.GOOD, _REVOKED: CertificateStatus.REVOKED, _UNKNOWN: CertificateStatus.UNKNOWN}
    if tags[1] not in statuses:
        raise MalformedMessage("the OCSP response is broken", f"certStatus {tags[1]:#04x}")
    this_update = der.decode_time(der.GENERALIZED_TIME, body[fields[2][2] : fields[2][3]])
    until = min(this_update, _LAST) + WITHOUT_END
    for tag, _, start, end in fields[3:]:
        if tag == 0xA0:
            until = der.decode_time(der.GENERALIZED_TIME, der.content(der.GENERALIZED_TIME, body[start:end]))
        else:
            _check_extensions(body[start:end])
    return _Single(_read_id(body[fields[0][2] : fields[0][3]]), statuses[tags[1]], this_update, until)


def _read_id(body: bytes) -> tuple[str, bytes, bytes, int]:
    fields = der.elements(body, limit=4)
    if [f[0] for f in fields] != [der.SEQUENCE, der.OCTET_STRING, der.OCTET_STRING, der.INTEGER]:
        raise MalformedMessage("the OCSP response is broken")
    start, end = der.read_as(der.OBJECT_IDENTIFIER, body, fields[0][2])
    name, key, serial = (body[f[2] : f[3]] for f in fields[1:])
    return der.decode_oid(body[start:end]), name, key, der.decode_integer(serial)


def _check_extensions(encoded: bytes) -> None:
    if any(extension.critical for extension in extensions.parse_extensions(encoded)):
        raise MalformedMessage("the OCSP response has a critical extension that is not supported")


def _key_bits(certificate: Certificate) -> bytes:
    """Return the content of the BIT STRING of a certificate's key, which key identifiers are made of."""
    body = der.content(der.SEQUENCE, certificate.public_key.der)
    _, end = der.read_as(der.SEQUENCE, body)
    start, stop = der.read_as(der.BIT_STRING, body, end)
    return der.decode_bits(body[start:stop])


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.BAD_SIGNATURE, "the OCSP response cannot be trusted", cause)
