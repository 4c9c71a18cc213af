"""CRMF: decode certificate request messages, verify proof of possession (RFC 4211, RFC 9810 Appendix F)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from gateway.asn1 import crmf as asn1
from gateway.cmp import CertId, CertRequestMessage, Possession, PublicKeyMac
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import AskedValidity, CertificateRequest, Extension, Name, PublicKey, RequestForm
from gateway.pki import der, extensions
from gateway.pki.algorithms import NO_DIGEST, verify_signature
from gateway.pki.names import parse_name
from gateway.pki.public_keys import describe_public_key
from gateway.pki.requested import read_requested

MAX_CONTROLS = 16
MAX_TEXT_BYTES = 1024
MAX_NUMBER_BYTES = 8
MAX_SERIAL_BYTES = 32
"""RFC 5280 §4.1.2.2 allows 20; numbers are compared, printed and looked for."""

(
    _VERSION,
    _SERIAL,
    _SIGNING_ALGORITHM,
    _ISSUER,
    _VALIDITY,
    _SUBJECT,
    _PUBLIC_KEY,
    _ISSUER_UID,
    _SUBJECT_UID,
    _EXTENSIONS,
) = range(10)
_PRIMITIVE = frozenset({_VERSION, _SERIAL, _ISSUER_UID, _SUBJECT_UID})
_EMPTY_NAME = Name((), der.sequence())


@dataclass(frozen=True, slots=True)
class CertTemplate:
    """A CertTemplate (RFC 4211 §5), as a request and a revocation carry it; what it does not say is None.

    `issuer` is a Name, `public_key` a SubjectPublicKeyInfo, DER; `signing_algorithm` and `unique_ids` say that there are such.
    """

    version: int | None = None
    serial: int | None = None
    signing_algorithm: bool = False
    issuer: bytes | None = field(default=None, repr=False)
    validity: AskedValidity | None = None
    subject: Name | None = None
    public_key: bytes | None = field(default=None, repr=False)
    unique_ids: bool = False
    extensions: tuple[Extension, ...] = ()


# Templates


def parse_cert_template(content: bytes) -> CertTemplate:
    """Read the content of a CertTemplate; MalformedMessage where a field is broken, repeated or out of order."""
    fields = _template_fields(content)
    subject, key, extensions_value = fields.get(_SUBJECT), fields.get(_PUBLIC_KEY), fields.get(_EXTENSIONS)
    version, serial, issuer = fields.get(_VERSION), fields.get(_SERIAL), fields.get(_ISSUER)
    if issuer is not None:
        parse_name(issuer)
    return CertTemplate(
        version=_number(version) if version is not None else None,
        serial=_number(serial, MAX_SERIAL_BYTES) if serial is not None else None,
        signing_algorithm=_SIGNING_ALGORITHM in fields,
        issuer=issuer,
        validity=_parse_validity(fields[_VALIDITY]) if _VALIDITY in fields else None,
        subject=parse_name(subject) if subject is not None else None,
        public_key=der.sequence(key) if key is not None else None,
        unique_ids=_ISSUER_UID in fields or _SUBJECT_UID in fields,
        extensions=extensions.parse_extensions(der.sequence(extensions_value)) if extensions_value is not None else (),
    )


def _template_fields(content: bytes) -> dict[int, bytes]:
    """Return tag number to content; the tags are IMPLICIT, EXPLICIT where a Name stands, which is a CHOICE (X.680 §31.2.7)."""
    fields: dict[int, bytes] = {}
    previous = -1
    for tag, _, start, end in der.elements(content, limit=10):
        number = tag & 0x1F
        if number <= previous or number > _EXTENSIONS or tag & 0xE0 != (0x80 if number in _PRIMITIVE else 0xA0):
            raise MalformedMessage("certificate template is broken", f"tag {tag:#04x}")
        previous = number
        fields[number] = content[start:end]
    return fields


def _parse_validity(content: bytes) -> AskedValidity | None:
    """Read OptionalValidity: each Time, a CHOICE, in its explicit tag."""
    times: dict[int, datetime] = {}
    for tag, _, start, end in der.elements(content, limit=2):
        inner, time_start, time_end = der.read(content, start)
        if tag not in {0xA0, 0xA1} or tag in times or time_end != end:
            raise MalformedMessage("validity of the certificate template is broken")
        times[tag] = der.decode_time(inner, content[time_start:time_end])
    return AskedValidity(times.get(0xA0), times.get(0xA1)) if times else None


def _number(content: bytes, limit: int = MAX_NUMBER_BYTES) -> int:
    if len(content) > limit:
        raise MalformedMessage("a number of the certificate request is too long", f"{len(content)} bytes")
    return der.decode_integer(content)


# Requests


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a ProofOfPossession says and is worth."""

    possession: Possession
    problem: str = ""
    digest: str = NO_DIGEST
    sender: bytes | None = field(default=None, repr=False)
    mac: PublicKeyMac | None = None
    encrypted_certificate: bool = False
    refused: Reason | None = None
    """What the request is refused for beside the proof."""


@dataclass(frozen=True, slots=True)
class _Controls:
    """The controls that are understood."""

    old_cert_id: CertId | None = None
    reg_token: str | None = field(default=None, repr=False)
    authenticator: str | None = field(default=None, repr=False)
    algorithm: bytes | None = None
    unknown: bool = False


def parse_cert_req_msg(data: bytes) -> CertRequestMessage:
    """Decode one CertReqMsg, DER, and verify its proof of possession where that is a signature (RFC 4211 §3-§6).

    `request.digest` is SHA-256 of the CertRequest. Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM for a key that
    cannot be used; a proof that proves nothing is `possession_problem`, a template that asks for what no client may is `problem`.
    """
    body = der.content(der.SEQUENCE, data)
    found = der.elements(body, limit=3)
    if not found or found[0][0] != der.SEQUENCE:
        raise MalformedMessage("certificate request message is broken")
    _, start, content, end = found[0]
    proof_element = _proof_element(found[1:])
    cert_req_id, template, controls = _parse_cert_request(body, content, end)
    cert_request = body[start:end]
    key, wanted = _template_key(template.public_key)
    popo = body[proof_element[1] : proof_element[3]] if proof_element else None
    proof = _verify_possession(popo, cert_request, template.public_key if key is not None else None)
    return CertRequestMessage(
        request=_certificate_request(data, cert_request, template, key, proof.digest),
        cert_req_id=cert_req_id,
        possession=proof.possession,
        possession_problem=proof.problem,
        authenticated_sender=proof.sender,
        public_key_mac=proof.mac,
        encrypted_certificate=proof.encrypted_certificate,
        wants_key=key is None,
        wanted_key=wanted or controls.algorithm if key is None else None,
        old_cert_id=controls.old_cert_id,
        issuer=template.issuer,
        reg_token=controls.reg_token,
        authenticator=controls.authenticator,
        validity=template.validity,
        problem=_template_problem(template, controls) or proof.refused,
    )


_Element = tuple[int, int, int, int]


def _proof_element(found: list[_Element]) -> _Element | None:
    """Return ProofOfPossession, which has a context tag; regInfo, a SEQUENCE behind it, is not read (RFC 4211 §7)."""
    proof = found[0] if found and found[0][0] != der.SEQUENCE else None
    rest = found[1:] if proof else found
    if len(rest) > 1 or (rest and rest[0][0] != der.SEQUENCE):
        raise MalformedMessage("certificate request message is broken")
    return proof


def _parse_cert_request(body: bytes, start: int, end: int) -> tuple[int, CertTemplate, _Controls]:
    found = der.elements(body, start, end, limit=3)
    if [e[0] for e in found] not in ([der.INTEGER, der.SEQUENCE], [der.INTEGER, der.SEQUENCE, der.SEQUENCE]):
        raise MalformedMessage("certificate request is broken")
    (_, _, number, number_end), (_, _, template, template_end) = found[:2]
    controls = _parse_controls(body[found[2][2] : found[2][3]]) if len(found) > 2 else _NO_CONTROLS
    return _number(body[number:number_end]), parse_cert_template(body[template:template_end]), controls


_NO_CONTROLS = _Controls()


def _certificate_request(
    data: bytes, cert_request: bytes, template: CertTemplate, key: PublicKey | None, digest: str
) -> CertificateRequest:
    wanted = read_requested(template.extensions)
    return CertificateRequest(
        form=RequestForm.CRMF,
        der=data,
        digest=hashlib.sha256(cert_request).digest(),
        subject=template.subject or _EMPTY_NAME,
        public_key=key or _NO_KEY,
        sans=wanted.sans,
        key_usage=wanted.key_usage,
        ekus=wanted.ekus,
        is_ca=wanted.is_ca,
        extensions=wanted.others,
        signature_digest=digest,
        evidence=wanted.evidence,
    )


_NO_KEY = PublicKey(b"", hashlib.sha256(b"").digest(), "unknown", 0)
"""In the place of a key that the server is to draw."""


def _template_key(spki: bytes | None) -> tuple[PublicKey | None, bytes | None]:
    """Return the key to be certified; None where the server is to draw it, of the kind in its place, an AlgorithmIdentifier.

    A key without bits says what kind it is to be (RFC 9483 §4.1.6).
    """
    if spki is None:
        return None, None
    body = der.content(der.SEQUENCE, spki)
    found = der.elements(body, limit=2)
    if [e[0] for e in found] != [der.SEQUENCE, der.BIT_STRING]:
        raise MalformedMessage("public key is broken")
    (_, start, _, end), (_, _, bits, bits_end) = found
    if bits_end - bits <= 1:
        return None, body[start:end]
    return describe_public_key(spki), None


def _template_problem(template: CertTemplate, controls: _Controls) -> Reason | None:
    """Say what a client asks for that it must leave to the CA (RFC 4211 §5), or in a control that nobody here understands."""
    if template.version not in {None, 2} or template.serial is not None or template.signing_algorithm or template.unique_ids:
        return Reason.BAD_TEMPLATE
    return Reason.UNSUPPORTED_MESSAGE if controls.unknown else None


# Controls

_HARMLESS = frozenset({asn1.OID_PKI_PUBLICATION_INFO, asn1.OID_PROTOCOL_ENCR_KEY, asn1.OID_RSA_KEY_LEN})
"""Wishes that a server need not fulfil (RFC 4211 §6.3, §6.6)."""


def _parse_controls(content: bytes) -> _Controls:
    values: dict[str, bytes] = {}
    for tag, _, start, end in der.elements(content, limit=MAX_CONTROLS):
        oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, content, start)
        oid = der.decode_oid(content[oid_start:oid_end])
        if tag != der.SEQUENCE or oid_end >= end or der.read(content, oid_end)[2] != end or oid in values:
            raise MalformedMessage("control of the certificate request is broken", oid)
        values[oid] = content[oid_end:end]
    algorithm = values.pop(asn1.OID_ALG_ID, None)
    if algorithm is not None:
        der.content(der.SEQUENCE, algorithm)
    old = values.pop(asn1.OID_OLD_CERT_ID, None)
    return _Controls(
        old_cert_id=parse_cert_id(old) if old is not None else None,
        reg_token=_text(values.pop(asn1.OID_REG_TOKEN, None)),
        authenticator=_text(values.pop(asn1.OID_AUTHENTICATOR, None)),
        algorithm=algorithm,
        unknown=not values.keys() <= _HARMLESS,
    )


def _text(element: bytes | None) -> str | None:
    if element is None:
        return None
    text = der.content(0x0C, element)
    if len(text) > MAX_TEXT_BYTES:
        raise MalformedMessage("control of the certificate request is too long", f"{len(text)} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("control of the certificate request is no text") from None


def parse_cert_id(element: bytes) -> CertId:
    """Read a CertId: issuer, a GeneralName that must be a name, and serialNumber (RFC 4211 §6.5)."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=2)
    if [e[0] for e in found] != [0xA4, der.INTEGER]:
        raise MalformedMessage("certificate identifier is broken")
    (_, _, issuer, issuer_end), (_, _, serial, serial_end) = found
    parse_name(body[issuer:issuer_end])
    return CertId(body[issuer:issuer_end], _number(body[serial:serial_end], MAX_SERIAL_BYTES))


# Proof of possession

_NO_PROOF = _Proof(Possession.NONE)
_RA_VERIFIED, _SIGNATURE, _KEY_ENCIPHERMENT, _KEY_AGREEMENT = 0x80, 0xA1, 0xA2, 0xA3
_PRIVATE_KEY_PROOFS: Mapping[int, Possession] = MappingProxyType(
    {_KEY_ENCIPHERMENT: Possession.KEY_ENCIPHERMENT, _KEY_AGREEMENT: Possession.KEY_AGREEMENT}
)
_SUBSEQUENT_MESSAGE, _ENCR_CERT = 0x81, b"\x00"


def _verify_possession(popo: bytes | None, cert_request: bytes, public_key: bytes | None) -> _Proof:
    if popo is None:
        return _NO_PROOF
    tag, start, end = der.read(popo)
    if tag == _RA_VERIFIED and start == end:
        return _Proof(Possession.RA_VERIFIED)
    if tag in _PRIVATE_KEY_PROOFS:
        return _private_key_proof(_PRIVATE_KEY_PROOFS[tag], popo[start:end])
    if tag != _SIGNATURE:
        raise MalformedMessage("proof of possession is broken", f"tag {tag:#04x}")
    return _verify_signing_key(popo[start:end], cert_request, public_key)


def _private_key_proof(possession: Possession, content: bytes) -> _Proof:
    """Read POPOPrivKey (RFC 4211 §4.2): of its forms, only the certificate that comes encrypted proves something here."""
    tag, start, end = der.read(content)
    if end != len(content):
        raise MalformedMessage("proof of possession is broken")
    if tag == _SUBSEQUENT_MESSAGE and content[start:end] == _ENCR_CERT:
        return _Proof(possession, encrypted_certificate=True)
    return _Proof(possession, "possession of this key can be proved by an encrypted certificate (encrCert) only")


@dataclass(frozen=True, slots=True)
class _SigningKey:
    """POPOSigningKey (RFC 4211 §4.1): what was signed, where it is not the CertRequest, and how."""

    signed: bytes | None
    algorithm: bytes
    signature: bytes


def _verify_signing_key(content: bytes, cert_request: bytes, public_key: bytes | None) -> _Proof:
    signing = _parse_signing_key(content)
    sender, mac, problem = (None, None, "")
    if signing.signed is not None:
        sender, mac, copy = _parse_signing_input(signing.signed)
        if copy != public_key:
            problem = "the key in the proof of possession is another than that of the template"
    if public_key is None:
        # Whatever was signed with: a key that the template does not name is not the one that would be certified.
        return _Proof(Possession.SIGNATURE, "there is a signature and no key in the template", sender=sender, mac=mac)
    signed = der.sequence(signing.signed) if signing.signed is not None else cert_request
    digest, refused = NO_DIGEST, None
    try:
        digest = verify_signature(public_key, signing.algorithm, signing.signature, signed, accept_md5=True)
    except MalformedMessage:
        raise
    except Rejection as error:
        if error.reason is not Reason.BAD_SIGNATURE:
            refused = error.reason
        problem = problem or "the certificate request is not signed by its own key"
    return _Proof(Possession.SIGNATURE, problem, digest, sender, mac, refused=refused)


def _parse_signing_key(content: bytes) -> _SigningKey:
    found = der.elements(content, limit=3)
    tags = [e[0] for e in found]
    if tags not in ([der.SEQUENCE, der.BIT_STRING], [0xA0, der.SEQUENCE, der.BIT_STRING]):
        raise MalformedMessage("proof of possession is broken")
    (_, algorithm, _, algorithm_end), (_, _, bits, bits_end) = found[-2:]
    return _SigningKey(
        signed=content[found[0][2] : found[0][3]] if len(found) == 3 else None,
        algorithm=content[algorithm:algorithm_end],
        signature=der.decode_bits(content[bits:bits_end]),
    )


def _parse_signing_input(content: bytes) -> tuple[bytes | None, PublicKeyMac | None, bytes]:
    """Read POPOSigningKeyInput: sender, a GeneralName, or publicKeyMAC; and the copy of the public key (RFC 4211 §4.1)."""
    found = der.elements(content, limit=2)
    if len(found) != 2 or found[0][0] not in {0xA0, der.SEQUENCE} or found[1][0] != der.SEQUENCE:
        raise MalformedMessage("proof of possession is broken")
    (tag, _, start, end), (_, key, _, key_end) = found
    public_key = content[key:key_end]
    if tag == 0xA0:
        if der.read(content, start)[2] != end:
            raise MalformedMessage("proof of possession is broken")
        return content[start:end], None, public_key
    members = der.elements(content, start, end, limit=2)
    if [e[0] for e in members] != [der.SEQUENCE, der.BIT_STRING]:
        raise MalformedMessage("proof of possession is broken")
    (_, algorithm, _, algorithm_end), (_, _, bits, bits_end) = members
    value = der.decode_bits(content[bits:bits_end])
    return None, PublicKeyMac(content[algorithm:algorithm_end], public_key, value), public_key
