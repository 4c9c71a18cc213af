"""PKCS#10 certification requests: decode, verify proof of possession, and build (RFC 2986, RFC 2985)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from gateway.asn1 import est as asn1_est
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, Extension, Name, PublicKey, RequestForm, SubjectAltName
from gateway.pki import der, extensions
from gateway.pki.algorithms import verify_signature
from gateway.pki.keys import PrivateKey, default_digest, public_key_der, sign, signature_algorithm
from gateway.pki.names import STRING_CODECS, parse_name
from gateway.pki.public_keys import describe_public_key

MAX_ATTRIBUTES = 32
MAX_CHALLENGE_BYTES = 16384
"""A signed challenge has a few KB, twice that as BMPString; how long one of its kind may be, its reader says."""
MAX_LINKING_BYTES = 1024
"""base64 of tls-unique has 16 characters in ASCII, 255 at most (RFC 7030 §3.5), four times that as UniversalString."""
MAX_KEY_ID_BYTES = 256
MAX_CAPABILITIES = 64
RECENT = 128
"""Requests that need not be read again when they are sent to their CA."""
_MAX_CACHED_BYTES = 8192

CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"  # noqa: S105 - the attribute's OID (RFC 2985 §5.4.1)
EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
MICROSOFT_EXTENSION_REQUEST = "1.3.6.1.4.1.311.2.1.14"
"""What Windows called extensionRequest before PKCS#9 had it; same syntax."""
EST_IDENTITY_LINKING = asn1_est.OID_EST_IDENTITY_LINKING
"""RFC 7894 §3.3: holds tls-unique, so it differs with every connection."""

LINKING_ATTRIBUTES = frozenset({EST_IDENTITY_LINKING})
EST_LINKING_ATTRIBUTES = LINKING_ATTRIBUTES | {CHALLENGE_PASSWORD}
"""In EST challengePassword too may hold tls-unique (RFC 7030 §3.5)."""

_PARTS = [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]
_INFO = [der.INTEGER, der.SEQUENCE, der.SEQUENCE]
_ATTRIBUTES = 0xA0


@dataclass(frozen=True, slots=True)
class _Fields:
    """The parts of a CertificationRequest as they were received."""

    info: bytes
    subject: bytes
    public_key: bytes
    attributes: bytes
    algorithm: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class _Attributes:
    """What the attributes ask for; `by_type` is type to the content of its value SET."""

    by_type: Mapping[str, bytes]
    challenge: str | None = field(repr=False)
    extensions: tuple[Extension, ...]


def parse_csr(data: bytes, *, linking: frozenset[str] = LINKING_ATTRIBUTES, proof: bool = True) -> CertificateRequest:
    """Decode a PKCS#10, DER or BER, and verify its signature over the certificationRequestInfo as received.

    `linking` are the attribute types that tie proof of possession to a connection; they do not count in `digest` (EST
    adds challengePassword, RFC 7030 §3.5). Attributes need not be in DER order (strongSwan). Without `proof` the signature is
    not looked at and `signature_digest` is `none`, and a key that cannot be read is `unknown`: where the server draws the key,
    the one in the CSR is a placeholder (§4.4.1).
    Raises MalformedMessage; Rejection BAD_PROOF_OF_POSSESSION, or UNSUPPORTED_ALGORITHM (what we do not know). MD5 is read and
    named in `signature_digest`, for policy to judge.
    """
    encoded = der.normalize(data)
    again = len(encoded) <= _MAX_CACHED_BYTES
    fields, attributes = _decode_again(encoded) if again else _decode_parts(encoded)
    digest = _verify_proof_of_possession(fields) if proof else "none"
    asked = (_read_again if again else _read)(encoded)
    return CertificateRequest(
        form=RequestForm.PKCS10,
        der=encoded,
        digest=_request_digest(fields, attributes.by_type, linking),
        subject=asked.subject,
        public_key=describe_public_key(fields.public_key) if proof else _placeholder(fields.public_key),
        sans=asked.sans,
        key_usage=asked.key_usage,
        ekus=asked.ekus,
        is_ca=asked.is_ca,
        extensions=asked.extensions,
        challenge_password=attributes.challenge,
        signature_digest=digest,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a PKCS#10 asks for."""

    subject: Name
    sans: tuple[SubjectAltName, ...]
    key_usage: frozenset[str] | None
    ekus: tuple[str, ...] | None
    is_ca: bool
    extensions: tuple[Extension, ...]


def _decode_parts(encoded: bytes) -> tuple[_Fields, _Attributes]:
    fields = _decode(encoded)
    return fields, _decode_attributes(fields.attributes)


def _read(encoded: bytes) -> _Asked:
    fields, attributes = _decode_again(encoded) if len(encoded) <= _MAX_CACHED_BYTES else _decode_parts(encoded)
    by_oid = {e.oid: e.value for e in attributes.extensions}
    sans, usage = by_oid.get(extensions.SUBJECT_ALT_NAME), by_oid.get(extensions.KEY_USAGE)
    ekus, constraints = by_oid.get(extensions.EXTENDED_KEY_USAGE), by_oid.get(extensions.BASIC_CONSTRAINTS)
    return _Asked(
        subject=parse_name(fields.subject),
        sans=extensions.parse_sans(sans) if sans is not None else (),
        key_usage=extensions.parse_key_usage(usage) if usage is not None else None,
        ekus=extensions.parse_ekus(ekus) if ekus is not None else None,
        is_ca=constraints is not None and extensions.parse_basic_constraints(constraints)[0],
        extensions=tuple(e for e in attributes.extensions if e.oid not in _OWN_FIELDS),
    )


_decode_again, _read_again = lru_cache(maxsize=RECENT)(_decode_parts), lru_cache(maxsize=RECENT)(_read)
"""A request is read when it comes, and again by whoever sends it to its CA."""


@dataclass(frozen=True, slots=True)
class EstAttributes:
    """What the attributes of a PKCS#10 say to an EST server beside what every protocol reads."""

    otp_challenge: str | None = field(default=None, repr=False)
    """otpChallenge (RFC 7894 §3.1)."""
    identity_linking: str | None = field(default=None, repr=False)
    """estIdentityLinking (RFC 7894 §3.3)."""
    decrypt_key_id: bytes | None = None
    """DecryptKeyIdentifier: names the symmetric key that a private key is to be encrypted with (RFC 7030 §4.4.1.1)."""
    asymmetric_decrypt_key_id: bytes | None = None
    """AsymmetricDecryptKeyIdentifier: the same for an asymmetric key (RFC 7030 §4.4.1.2)."""
    smime_capabilities: tuple[str, ...] | None = None
    """OIDs of algorithms that it can decrypt with (RFC 8551 §2.5.2), None where it does not say; parameters are not read."""


def read_est_attributes(csr_der: bytes) -> EstAttributes:
    """Read EST's attributes of a PKCS#10, the `der` of what `parse_csr` returned; revocationChallenge is not used.

    Raises MalformedMessage for an attribute that has not exactly one value of its type, and Rejection RENEWAL_REFUSED where
    ChangeSubjectName asks for other names than those of the certificate that is renewed (RFC 6402 §2.8).
    """
    attributes = _decode_by_type(_decode(csr_der).attributes)
    if asn1_est.OID_CHANGE_SUBJECT_NAME in attributes:
        raise Rejection(Reason.RENEWAL_REFUSED, "names cannot be changed by ChangeSubjectName: enroll anew")
    return EstAttributes(
        otp_challenge=_text(attributes, asn1_est.OID_OTP_CHALLENGE, "one-time password"),
        identity_linking=_text(attributes, asn1_est.OID_EST_IDENTITY_LINKING, "identity linking", MAX_LINKING_BYTES),
        decrypt_key_id=_key_id(attributes, asn1_est.OID_DECRYPT_KEY_ID),
        asymmetric_decrypt_key_id=_key_id(attributes, asn1_est.OID_ASYMMETRIC_DECRYPT_KEY_ID),
        smime_capabilities=_smime_capabilities(attributes),
    )


def _key_id(by_type: Mapping[str, bytes], oid: str) -> bytes | None:
    values = by_type.get(oid)
    if values is None:
        return None
    key_id = der.content(der.OCTET_STRING, values)
    if not 0 < len(key_id) <= MAX_KEY_ID_BYTES:
        raise MalformedMessage("key identifier is empty or too long", f"{len(key_id)} bytes")
    return key_id


def _smime_capabilities(by_type: Mapping[str, bytes]) -> tuple[str, ...] | None:
    values = by_type.get(asn1_est.OID_SMIME_CAPABILITIES)
    if values is None:
        return None
    body = der.content(der.SEQUENCE, values)
    return tuple(_smime_capability(body, *element) for element in der.elements(body, limit=MAX_CAPABILITIES))


def _smime_capability(body: bytes, tag: int, _: int, start: int, end: int) -> str:
    members = der.elements(body, start, end, limit=2)
    if tag != der.SEQUENCE or not members or members[0][0] != der.OBJECT_IDENTIFIER:
        raise MalformedMessage("S/MIME capabilities are broken")
    _, _, oid_start, oid_end = members[0]
    return der.decode_oid(body[oid_start:oid_end])


_OWN_FIELDS = frozenset(
    {
        extensions.SUBJECT_ALT_NAME,
        extensions.KEY_USAGE,
        extensions.EXTENDED_KEY_USAGE,
        extensions.BASIC_CONSTRAINTS,
    }
)


def _decode(encoded: bytes) -> _Fields:
    """Take the parts of a CertificationRequest (RFC 2986 §4.2)."""
    tag, start, end = der.read(encoded)
    parts = der.elements(encoded, start, end)
    if tag != der.SEQUENCE or end != len(encoded) or [p[0] for p in parts] != _PARTS:
        raise MalformedMessage("certification request is broken", "it is not three parts")
    (_, info, info_start, info_end), (_, algorithm, _, algorithm_end), (_, _, bits, bits_end) = parts
    members = der.elements(encoded, info_start, info_end)
    if [m[0] for m in members] not in (_INFO, [*_INFO, _ATTRIBUTES]):
        raise MalformedMessage("certification request is broken", "its information has other members than RFC 2986 §4.1 has")
    (_, _, version, version_end), (_, subject, _, subject_end), (_, key, _, key_end) = members[:3]
    if encoded[version:version_end] != b"\x00" or bits == bits_end:
        raise MalformedMessage("certification request is broken", "version is not v1, or the signature is empty")
    return _Fields(
        info=encoded[info:info_end],
        subject=encoded[subject:subject_end],
        public_key=encoded[key:key_end],
        attributes=encoded[members[3][2] : members[3][3]] if len(members) > 3 else b"",
        algorithm=encoded[algorithm:algorithm_end],
        signature=der.decode_bits(encoded[bits:bits_end]),
    )


def _decode_attributes(body: bytes) -> _Attributes:
    by_type = _decode_by_type(body)
    challenge = _text(by_type, CHALLENGE_PASSWORD, "challenge password")
    return _Attributes(by_type, challenge, _requested_extensions(by_type))


def _decode_by_type(body: bytes) -> Mapping[str, bytes]:
    """Return type to the content of its value SET; MalformedMessage for a type that occurs twice."""
    by_type: dict[str, bytes] = {}
    for tag, _, start, end in der.elements(body, limit=MAX_ATTRIBUTES):
        type_start, type_end = der.read_as(der.OBJECT_IDENTIFIER, body, start)
        values_start, values_end = der.read_as(der.SET, body, type_end)
        oid = der.decode_oid(body[type_start:type_end])
        if tag != der.SEQUENCE or values_end != end:
            raise MalformedMessage("certification request attribute is broken")
        if oid in by_type:
            raise MalformedMessage("certification request repeats an attribute", oid)
        by_type[oid] = body[values_start:values_end]
    return MappingProxyType(by_type)


def _text(by_type: Mapping[str, bytes], oid: str, name: str, limit: int = MAX_CHALLENGE_BYTES) -> str | None:
    """Return an attribute's text, whatever string type it has; None when absent or empty (RFC 2985 §5.4.1)."""
    values = by_type.get(oid)
    if not values:
        return None
    tag, start, end = der.read(values)
    codec = STRING_CODECS.get(tag)
    if codec is None or end != len(values):
        raise MalformedMessage(f"{name} is not one string")
    if end - start > limit:
        raise MalformedMessage(f"{name} is too long", f"{end - start} bytes")
    try:
        return values[start:end].decode(codec) or None
    except UnicodeDecodeError:
        raise MalformedMessage(f"{name} holds text that its string type cannot hold") from None


def _requested_extensions(by_type: Mapping[str, bytes]) -> tuple[Extension, ...]:
    """Return the extensions of extensionRequest under either OID (RFC 2985 §5.4.2); two that differ are refused."""
    values = {v for v in (by_type.get(EXTENSION_REQUEST), by_type.get(MICROSOFT_EXTENSION_REQUEST)) if v}
    if len(values) > 1:
        raise MalformedMessage("certification request repeats an attribute", "two extension requests")
    return extensions.parse_extensions(values.pop()) if values else ()


def _placeholder(spki: bytes) -> PublicKey:
    """Describe a key that nobody has to have; whatever is broken in it does not count."""
    try:
        return describe_public_key(spki)
    except MalformedMessage:
        return PublicKey(spki, hashlib.sha256(spki).digest(), "unknown", 0)


def _verify_proof_of_possession(fields: _Fields) -> str:
    try:
        return verify_signature(fields.public_key, fields.algorithm, fields.signature, fields.info, accept_md5=True)
    except Rejection as error:
        if error.reason is not Reason.BAD_SIGNATURE:
            raise
        detail = "the certification request is not signed by its own key"
        raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, detail, error.cause) from None


def _request_digest(fields: _Fields, by_type: Mapping[str, bytes], linking: frozenset[str]) -> bytes:
    """Return SHA-256 of the certificationRequestInfo, without `linking` attributes where it has any."""
    if not linking.intersection(by_type):
        return hashlib.sha256(fields.info).digest()
    kept = [der.sequence(der.oid(oid), der.tlv(der.SET, values)) for oid, values in by_type.items() if oid not in linking]
    info = der.sequence(der.integer(0), fields.subject, fields.public_key, der.context(0, *kept))
    return hashlib.sha256(info).digest()


def build_csr(
    key: PrivateKey,
    subject_der: bytes,
    sans: Iterable[SubjectAltName] = (),
    challenge_password: str | None = None,
    *,
    key_usage: Iterable[str] = (),
    ekus: Iterable[str] = (),
    other_extensions: Iterable[Extension] = (),
    digest: str | None = None,
) -> bytes:
    """Build and sign a PKCS#10, DER; `ekus` are dotted OIDs, `digest` defaults to the one that fits the key.

    challengePassword is a PrintableString where it can be and UTF8String otherwise (RFC 2985 §5.4.1).
    """
    names, bits, oids = tuple(sans), tuple(key_usage), tuple(ekus)
    wanted = [extensions.encode_extension(e.oid, e.critical, e.value) for e in other_extensions]
    if names:
        wanted.append(extensions.encode_extension(extensions.SUBJECT_ALT_NAME, False, extensions.encode_sans(names)))
    if bits:
        wanted.append(extensions.encode_extension(extensions.KEY_USAGE, True, extensions.encode_key_usage(bits)))
    if oids:
        wanted.append(extensions.encode_extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(oids)))
    attributes = []
    if wanted:
        attributes.append(der.sequence(der.oid(EXTENSION_REQUEST), der.set_of(der.sequence(*wanted))))
    if challenge_password is not None:
        attributes.append(der.sequence(der.oid(CHALLENGE_PASSWORD), der.set_of(der.directory_string(challenge_password))))
    info = der.sequence(der.integer(0), subject_der, public_key_der(key), der.context(0, *sorted(attributes)))
    used = digest or default_digest(key)
    return der.sequence(info, signature_algorithm(key, used), der.bit_string(sign(key, info, used)))
