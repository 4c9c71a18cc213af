"""CMS SignedData: decode, check one signer, and write signed or certs-only messages from prepared parts (RFC 5652 §5)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from struct import Struct

from gateway.asn1 import cms as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.algorithms import digest_name, digest_oid, unsupported, verify_signature
from gateway.pki.keys import PrivateKey, is_rsa, sign, signature_algorithm

MAX_CERTIFICATES = 16
MAX_ATTRIBUTES = 32

_DATA = der.oid(asn1.OID_DATA)
_SIGNED_DATA = der.oid(asn1.OID_SIGNED_DATA)
_RSA_ENCRYPTION = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())
_CONTENT_TYPE_IS_DATA = der.sequence(der.oid(asn1.OID_CONTENT_TYPE), der.set_of(_DATA))
_EMPTY_SET = der.set_of()
_NO_CONTENT = der.sequence(_DATA)
_SUBJECT_KEY_IDENTIFIER = 0x80
_IMPLICIT_SET = _EXPLICIT_CONTENT = 0xA0
_UNSIGNED_ATTRIBUTES = 0xA1
_SIGNED = "CMS SignedData"
_HEAD = Struct(">HH11sHHHH")
"""What stands before the members of SignedData and EnvelopedData: SEQUENCE, type, `[0]` and SEQUENCE, long but not too long."""


@dataclass(frozen=True, slots=True)
class CertificateId:
    """SignerIdentifier or RecipientIdentifier: issuer and serial number, or a subjectKeyIdentifier (RFC 5652 §5.3, §6.2.1)."""

    issuer_der: bytes = b""
    serial: int = 0
    key_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signer; `signed_attributes` is the content of `[0]` as received, `attributes` its values by type, as elements."""

    sid: CertificateId
    digest_algorithm: str
    signed_attributes: bytes = field(repr=False)
    attributes: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    signature_algorithm: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedData:
    """A decoded SignedData; `content` is None where eContent is absent."""

    content_type: str
    content: bytes | None = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)
    crls: tuple[bytes, ...] = field(repr=False)
    signers: tuple[SignerInfo, ...]


def open_content_info(data: bytes, content_type: str, what: str) -> list[tuple[int, int, int, int]]:
    """Return the members of the SEQUENCE that a ContentInfo holds, as `der.elements` does (RFC 5652 §3).

    `data` was normalised. Raises MalformedMessage unless it is a ContentInfo of type `content_type`; `what` is that in words.
    """
    size = len(data)
    if _begins_as_usual(data, size, der.oid(content_type)):
        return der.elements(data, _HEAD.size, size)
    tag, start, end = der.read(data)
    members = der.elements(data, start, end)
    if tag != der.SEQUENCE or end != size or not _is_typed(members):
        raise MalformedMessage(f"message is not {what}", "it is no ContentInfo")
    (_, _, type_start, type_end), (_, _, start, end) = members
    found = der.decode_oid(data[type_start:type_end])
    if found != content_type:
        raise MalformedMessage("message has another CMS content type", f"{found} where {content_type} belongs")
    content = der.elements(data, start, end)
    if len(content) != 1 or content[0][0] != der.SEQUENCE:
        raise MalformedMessage(f"message is not {what}", "its content is no SEQUENCE")
    return der.elements(data, *content[0][2:])


def _begins_as_usual(data: bytes, size: int, content_type: bytes) -> bool:
    """Whether `data` begins as a ContentInfo of this type and size must where its lengths have two bytes each."""
    if len(content_type) != 11 or not _HEAD.size <= size <= 0xFFFF:
        return False
    inner = size - _HEAD.size
    return data.startswith(_HEAD.pack(0x3082, size - 4, content_type, 0xA082, inner + 4, 0x3082, inner))


def _is_typed(members: list[tuple[int, int, int, int]]) -> bool:
    """Whether these are a content type and explicit content."""
    return len(members) == 2 and members[0][0] == der.OBJECT_IDENTIFIER and members[1][0] == _EXPLICIT_CONTENT


def parse_signed_data(data: bytes, max_signers: int = 1) -> SignedData:
    """Decode a ContentInfo with SignedData, BER or DER, of at most `max_signers` signers (RFC 5652 §5.1).

    Raises MalformedMessage; no signature is checked here.
    """
    normal = der.normalize(data)
    members = open_content_info(normal, asn1.OID_SIGNED_DATA, _SIGNED)
    content_type, content = _encapsulated(normal, _take(members, _SIGNED, der.INTEGER, der.SET, der.SEQUENCE))
    certificates = _take_set(normal, members, 0xA0)
    crls = _take_set(normal, members, 0xA1)
    _, _, start, end = _take(members, _SIGNED, der.SET)
    infos = der.elements(normal, start, end)
    if members or any(info[0] != der.SEQUENCE for info in infos):
        raise MalformedMessage(f"message is not {_SIGNED}", "its members are others than RFC 5652 §5.1 has")
    if len(infos) > max_signers:
        raise MalformedMessage("message has more than one signer", f"{len(infos)} signers")
    return SignedData(content_type, content, certificates, crls, tuple([_parse_signer(normal, info) for info in infos]))


def _take(members: list[tuple[int, int, int, int]], what: str, *tags: int) -> tuple[int, int, int, int]:
    """Remove the first members, which must have these tags, and return the last of them."""
    taken = (0, 0, 0, 0)
    for tag in tags:
        if not members or members[0][0] != tag:
            raise MalformedMessage(f"message is not {what}", f"its members are not {', '.join(map(hex, tags))}")
        taken = members.pop(0)
    return taken


def _take_set(data: bytes, members: list[tuple[int, int, int, int]], tag: int) -> tuple[bytes, ...]:
    """Remove an optional first member of implicit SET type and return its SEQUENCEs."""
    if not members or members[0][0] != tag:
        return ()
    _, _, start, end = members.pop(0)
    return _sequences(data, start, end)


def _encapsulated(data: bytes, member: tuple[int, int, int, int]) -> tuple[str, bytes | None]:
    """Return type and content of an EncapsulatedContentInfo; None where eContent is absent (RFC 5652 §5.2)."""
    _, _, start, end = member
    members = der.elements(data, start, end)
    _, _, type_start, type_end = _take(members, _SIGNED, der.OBJECT_IDENTIFIER)
    content_type = der.decode_oid(data[type_start:type_end])
    if not members:
        return content_type, None
    _, _, start, end = _take(members, _SIGNED, _EXPLICIT_CONTENT)
    start, stop = der.read_as(der.OCTET_STRING, data, start)
    if members or stop != end:
        raise MalformedMessage(f"message is not {_SIGNED}", "its eContent is not one OCTET STRING")
    return content_type, data[start:stop]


def _sequences(data: bytes, start: int, end: int) -> tuple[bytes, ...]:
    """Return the certificates or CRLs of an implicit SET; other choices carry a context tag and are left out."""
    found = der.elements(data, start, end)
    if len(found) > MAX_CERTIFICATES:
        raise MalformedMessage("message carries too many certificates", f"{len(found)} certificates or CRLs")
    return tuple(data[start:end] for tag, start, _, end in found if tag == der.SEQUENCE)


def _parse_signer(data: bytes, info: tuple[int, int, int, int]) -> SignerInfo:
    members = der.elements(data, *info[2:])
    _take(members, _SIGNED, der.INTEGER)
    if not members:
        raise MalformedMessage(f"message is not {_SIGNED}", "a signer has no identifier")
    _, sid, _, sid_end = members.pop(0)
    _, _, digest, digest_end = _take(members, _SIGNED, der.SEQUENCE)
    signed_attributes = b""
    if members and members[0][0] == _IMPLICIT_SET:
        _, _, start, end = members.pop(0)
        signed_attributes = data[start:end]
    _, algorithm, _, algorithm_end = _take(members, _SIGNED, der.SEQUENCE)
    _, _, signature, signature_end = _take(members, _SIGNED, der.OCTET_STRING)
    if [member[0] for member in members] not in ([], [_UNSIGNED_ATTRIBUTES]):
        raise MalformedMessage(f"message is not {_SIGNED}", "a signer has more members than RFC 5652 §5.3 has")
    return SignerInfo(
        sid=parse_certificate_id(data[sid:sid_end]),
        digest_algorithm=algorithm_oid(data[digest:digest_end]),
        signed_attributes=signed_attributes,
        attributes=parse_attributes(signed_attributes),
        signature_algorithm=data[algorithm:algorithm_end],
        signature=data[signature:signature_end],
    )


def parse_certificate_id(data: bytes) -> CertificateId:
    """Decode a SignerIdentifier or RecipientIdentifier element; MalformedMessage otherwise."""
    tag, start, end = der.read(data)
    if tag == _SUBJECT_KEY_IDENTIFIER:
        return CertificateId(key_id=data[start:end])
    if tag != der.SEQUENCE:
        raise MalformedMessage("certificate identifier is broken", f"tag {tag:#04x}")
    members = der.elements(data, start, end)
    if len(members) != 2 or members[0][0] != der.SEQUENCE or members[1][0] != der.INTEGER:
        raise MalformedMessage("certificate identifier is broken")
    (_, issuer, _, issuer_end), (_, _, serial, serial_end) = members
    return CertificateId(data[issuer:issuer_end], der.decode_integer(data[serial:serial_end]))


def algorithm_oid(contents: bytes) -> str:
    """Return the OID of an AlgorithmIdentifier, given its content."""
    start, end = der.read_as(der.OBJECT_IDENTIFIER, contents)
    return der.decode_oid(contents[start:end])


def parse_attributes(contents: bytes) -> dict[str, tuple[bytes, ...]]:
    """Return the values of each attribute, as elements, by type (RFC 5652 §5.3).

    Raises MalformedMessage for a type that occurs twice: two readers could choose differently.
    """
    found: dict[str, tuple[bytes, ...]] = {}
    for tag, _, start, end in der.elements(contents):
        members = der.elements(contents, start, end)
        if tag != der.SEQUENCE or len(members) != 2 or members[0][0] != der.OBJECT_IDENTIFIER or members[1][0] != der.SET:
            raise MalformedMessage("attribute is broken")
        (_, _, type_start, type_end), (_, _, set_start, set_end) = members
        name = der.decode_oid(contents[type_start:type_end])
        if name in found or len(found) >= MAX_ATTRIBUTES:
            raise MalformedMessage("an attribute occurs twice, or there are too many", name)
        values = der.elements(contents, set_start, set_end)
        found[name] = (contents[set_start:set_end],) if len(values) == 1 else tuple([contents[s:e] for _, s, _, e in values])
    return found


def single_value(attributes: Mapping[str, tuple[bytes, ...]], oid: str) -> bytes | None:
    """Return the one value of an attribute, None when it is absent; MalformedMessage when it has not exactly one."""
    values = attributes.get(oid)
    if values is None:
        return None
    if len(values) != 1:
        raise MalformedMessage("attribute must have exactly one value", f"{oid} has {len(values)}")
    return values[0]


def verify_signer(signed: SignedData, signer: SignerInfo, public_key: bytes, accept_md5: bool = False) -> str:
    """Check messageDigest and signature of `signer` under a SubjectPublicKeyInfo; return the digest that the signature uses.

    Signed attributes are demanded: without them the signature could be lifted from other content (RFC 5652 §5.4). MD5, as
    digest of the content or of the attributes, is refused unless `accept_md5`.
    Raises Rejection BAD_SIGNATURE or UNSUPPORTED_ALGORITHM.
    """
    digest = digest_name(signer.digest_algorithm)
    if digest == "md5" and not accept_md5:
        raise unsupported("digestAlgorithm MD5")
    content_type = single_value(signer.attributes, asn1.OID_CONTENT_TYPE)
    message_digest = single_value(signer.attributes, asn1.OID_MESSAGE_DIGEST)
    if content_type is None or message_digest is None or content_type != der.oid(signed.content_type):
        raise Rejection(Reason.BAD_SIGNATURE, "message lacks signed attributes that fit its content")
    computed = der.octet_string(hashlib.new(digest, signed.content or b"").digest())
    if not hmac.compare_digest(message_digest, computed):
        raise Rejection(Reason.BAD_SIGNATURE, "message digest does not match the content")
    return _verify_attributes(signer, public_key, digest, accept_md5)


def _verify_attributes(signer: SignerInfo, public_key: bytes, digest: str, accept_md5: bool) -> str:
    received = signer.signed_attributes
    verify = partial(verify_signature, public_key, signer.signature_algorithm, signer.signature, accept_md5=accept_md5)
    try:
        return verify(der.tlv(der.SET, received), digest)
    except Rejection as rejection:
        ordered = der.set_of(*(received[start:end] for _, start, _, end in der.elements(received)))
        if rejection.reason is not Reason.BAD_SIGNATURE or ordered.endswith(received):
            raise
    # old stacks send attributes in any order but sign the DER form
    return verify(ordered, digest)


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate with its key, and the parts of its SignerInfo that no message changes."""

    certificate: bytes = field(repr=False)
    issuer_and_serial: bytes = field(repr=False)
    key: PrivateKey = field(repr=False)

    @classmethod
    def create(cls, certificate: bytes, key: PrivateKey) -> Signer:
        """Prepare a signer from its certificate's DER; that the key fits is for the caller to check."""
        return cls(certificate, issuer_and_serial(certificate), key)


def issuer_and_serial(certificate: bytes) -> bytes:
    """Return the IssuerAndSerialNumber element that names a certificate (RFC 5652 §10.2.4); raises MalformedMessage."""
    return der.sequence(*_issuer_and_serial(certificate))


def is_named_by(certificate: bytes, sid: CertificateId) -> bool:
    """Whether issuer and serial number of `sid` are a certificate's, told without reading all of it; raises MalformedMessage."""
    issuer, serial = _issuer_and_serial(certificate)
    if issuer == sid.issuer_der and serial[:1] == b"\x02":
        return der.decode_integer(der.content(der.INTEGER, serial)) == sid.serial
    return parse_certificate_id(der.sequence(issuer, serial)) == sid


def _issuer_and_serial(certificate: bytes) -> tuple[bytes, bytes]:
    start, _ = der.read_as(der.SEQUENCE, certificate)
    start, end = der.read_as(der.SEQUENCE, certificate, start)
    members = der.elements(certificate, start, end)
    first = 1 if members and members[0][0] == 0xA0 else 0
    if len(members) < first + 3:
        raise MalformedMessage("certificate is broken")
    (_, serial, _, serial_end), _, (_, issuer, _, issuer_end) = members[first : first + 3]
    return certificate[issuer:issuer_end], certificate[serial:serial_end]


def attribute(oid: str, value: bytes) -> bytes:
    """Return an Attribute of one encoded value."""
    return _attribute_head(oid, len(value)) + value


@lru_cache(maxsize=256)
def _attribute_head(oid: str, size: int) -> bytes:
    """Return what stands before an Attribute's one value of `size` bytes."""
    whole = der.sequence(der.oid(oid), der.tlv(der.SET, bytes(size)))
    return whole[: len(whole) - size]


def sign_data(content: bytes, signer: Signer, digest: str, attributes: Iterable[bytes], beside: Iterable[bytes] = ()) -> bytes:
    """Return ContentInfo with SignedData over `content` as id-data, one signer and its certificate.

    `attributes` are encoded Attributes beside contentType and messageDigest; certificates `beside` the signer's go unsigned.
    RSA signatures are named rsaEncryption, as strongSwan 5.9.8 demands and every other client accepts (RFC 3370 §3.2).
    """
    digest_algorithm = _digest_algorithm(digest)
    message_digest = attribute(asn1.OID_MESSAGE_DIGEST, der.octet_string(hashlib.new(digest, content).digest()))
    signed_attributes = der.set_of(_CONTENT_TYPE_IS_DATA, message_digest, *attributes)
    algorithm = _RSA_ENCRYPTION if is_rsa(signer.key) else signature_algorithm(signer.key, digest)
    signer_info = der.sequence(
        b"\x02\x01\x01",
        signer.issuer_and_serial,
        digest_algorithm,
        bytes((_IMPLICIT_SET,)) + signed_attributes[1:],
        algorithm,
        der.octet_string(sign(signer.key, signed_attributes, digest)),
    )
    return _signed_data(
        der.set_of(digest_algorithm),
        der.sequence(_DATA, der.context(0, der.octet_string(content))),
        der.context(0, signer.certificate, *beside),
        der.set_of(signer_info),
    )


@lru_cache(maxsize=16)
def _digest_algorithm(digest: str) -> bytes:
    return der.sequence(der.oid(digest_oid(digest)), der.null())


def certs_only(certificates: Iterable[bytes], crls: Iterable[bytes] = ()) -> bytes:
    """Return a degenerate SignedData with certificates and CRLs in the order given, eContent absent (RFC 8894 §3.4).

    Where there are none of a kind their field is absent, as the answer to a GetCRL has it.
    """
    issued, revocations = b"".join(certificates), b"".join(crls)
    return _signed_data(
        _EMPTY_SET,
        _NO_CONTENT,
        der.context(0, issued) if issued else b"",
        der.context(1, revocations) if revocations else b"",
        _EMPTY_SET,
    )


def _signed_data(*members: bytes) -> bytes:
    return der.sequence(_SIGNED_DATA, der.context(0, der.sequence(b"\x02\x01\x01", *members)))
