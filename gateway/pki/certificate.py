"""X.509 certificates: decode, and build from DER parts that are prepared once for an issuer (RFC 5280 §4)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from gateway.errors import MalformedMessage, Reason
from gateway.model import Extension, Grant, Name, PublicKey, SignerCertificate, SubjectAltName
from gateway.pki import der, extensions
from gateway.pki.keys import PrivateKey, default_digest, key_matches, public_key_der, sign, signature_algorithm
from gateway.pki.names import normalize_name, parse_name, parse_name_text
from gateway.pki.public_keys import describe_public_key

MAX_CERTIFICATE_BYTES = 65536
MAX_SERIAL_BYTES = 64
"""RFC 5280 §4.1.2.2 allows 20; older CAs wrote more."""

_MAX_KNOWN_BYTES = 4096

CA_KEY_USAGE = ("digitalSignature", "keyCertSign", "cRLSign")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A decoded certificate; nothing in it has been verified.

    `tbs`, `algorithm` and `signature` are what a verifier needs, as received. `key_usage` and `ekus` are None when the
    extension is absent.
    """

    der: bytes = field(repr=False)
    sha256: bytes
    serial: int
    issuer_der: bytes = field(repr=False)
    issuer: Name
    subject: Name
    public_key: PublicKey
    not_before: datetime
    not_after: datetime
    sans: tuple[SubjectAltName, ...]
    key_usage: frozenset[str] | None
    ekus: tuple[str, ...] | None
    is_ca: bool
    path_length: int | None
    subject_key_id: bytes | None
    authority_key_id: bytes | None
    extensions: tuple[Extension, ...]
    tbs: bytes = field(repr=False)
    algorithm: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same name (RFC 5280 §6.1); compared when asked, for few certificates are."""
        return self.subject.der == self.issuer_der or normalize_name(self.issuer) == normalize_name(self.subject)


def parse_certificate(data: bytes) -> Certificate:
    """Decode a DER certificate in one pass without recursion; MalformedMessage when it is none."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise MalformedMessage("certificate is too large", reason=Reason.TOO_LARGE)
    tbs, algorithm, signature = split_signed(data)
    serial, inner, issuer_der, validity, subject_der, key, found = _split_tbs(tbs)
    if inner != algorithm or len(serial) > MAX_SERIAL_BYTES:
        raise MalformedMessage("certificate is broken", "algorithms differ or the serial number is too long")
    by_oid = {e.oid: e.value for e in found}
    issuer = parse_name(issuer_der)
    subject = issuer if issuer_der == subject_der else parse_name(subject_der)
    not_before, not_after = _parse_validity(validity)
    sans, constraints = by_oid.get(extensions.SUBJECT_ALT_NAME), by_oid.get(extensions.BASIC_CONSTRAINTS)
    usage, ekus = by_oid.get(extensions.KEY_USAGE), by_oid.get(extensions.EXTENDED_KEY_USAGE)
    subject_id, issuer_id = by_oid.get(extensions.SUBJECT_KEY_IDENTIFIER), by_oid.get(extensions.AUTHORITY_KEY_IDENTIFIER)
    is_ca, path_length = extensions.parse_basic_constraints(constraints) if constraints is not None else (False, None)
    return Certificate(
        der=data,
        sha256=hashlib.sha256(data).digest(),
        serial=der.decode_integer(der.content(der.INTEGER, serial)),
        issuer_der=issuer_der,
        issuer=issuer,
        subject=subject,
        public_key=describe_public_key(key),
        not_before=not_before,
        not_after=not_after,
        sans=extensions.parse_sans(sans) if sans is not None else (),
        key_usage=extensions.parse_key_usage(usage) if usage is not None else None,
        ekus=extensions.parse_ekus(ekus) if ekus is not None else None,
        is_ca=is_ca,
        path_length=path_length,
        subject_key_id=der.content(der.OCTET_STRING, subject_id) if subject_id is not None else None,
        authority_key_id=extensions.parse_authority_key_id(issuer_id) if issuer_id is not None else None,
        extensions=found,
        tbs=tbs,
        algorithm=algorithm,
        signature=signature,
    )


def recall_certificate(data: bytes) -> Certificate:
    """Return what `parse_certificate` does, remembered where it is not large.

    For signers and TLS clients: all that judge a message look at the same certificate, and it comes again with the next one.
    """
    return _recall(data) if len(data) <= _MAX_KNOWN_BYTES else parse_certificate(data)


_recall = lru_cache(maxsize=1024)(parse_certificate)


def split_signed(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return to-be-signed part, AlgorithmIdentifier and signature of a certificate or CRL (RFC 5280 §4.1, §5.1)."""
    body = der.content(der.SEQUENCE, data)
    parts = der.elements(body)
    if len(parts) != 3 or (parts[0][0], parts[1][0], parts[2][0]) != _SIGNED_TAGS:
        raise MalformedMessage("certificate or CRL is broken")
    return body[: parts[0][3]], body[parts[1][1] : parts[1][3]], der.decode_bits(body[parts[2][2] : parts[2][3]])


_SIGNED_TAGS = (der.SEQUENCE, der.SEQUENCE, der.BIT_STRING)
_TBS_TAGS = [der.INTEGER, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE]
_VERSION, _UNIQUE_IDS, _EXTENSIONS = 0xA0, (0x81, 0x82), 0xA3


def _split_tbs(tbs: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes, tuple[Extension, ...]]:
    """Return serial, signature algorithm, issuer, validity, subject and key as encoded, and the extensions."""
    body = der.content(der.SEQUENCE, tbs)
    fields = der.elements(body)
    first = 1 if fields and fields[0][0] == _VERSION else 0
    if [f[0] for f in fields[first : first + 6]] != _TBS_TAGS:
        raise MalformedMessage("certificate is broken")
    found: tuple[Extension, ...] = ()
    for position, (tag, _, start, end) in enumerate(rest := fields[first + 6 :]):
        if tag == _EXTENSIONS and position == len(rest) - 1:
            found = extensions.parse_extensions(body[start:end])
        elif tag not in _UNIQUE_IDS:
            raise MalformedMessage("certificate is broken", f"tag {tag:#04x} in the to-be-signed part")
    serial, inner, issuer, validity, subject, key = [body[start:end] for _, start, _, end in fields[first : first + 6]]
    return serial, inner, issuer, validity, subject, key, found


def _parse_validity(validity: bytes) -> tuple[datetime, datetime]:
    if len(validity) == 32 and validity.startswith(b"\x30\x1e\x17\x0d") and validity[17:19] == b"\x17\x0d":  # two UTCTimes
        return der.decode_time(der.UTC_TIME, validity[4:17]), der.decode_time(der.UTC_TIME, validity[19:])
    body = der.content(der.SEQUENCE, validity)
    times = der.elements(body)
    if len(times) != 2:
        raise MalformedMessage("validity is broken")
    (first, _, start, end), (second, _, later, last) = times
    return der.decode_time(first, body[start:end]), der.decode_time(second, body[later:last])


def to_signer(certificate: Certificate) -> SignerCertificate:
    """Return the view of `certificate` that the registration authority takes; `self_signed` is what the names say."""
    return SignerCertificate(
        der=certificate.der,
        sha256=certificate.sha256,
        issuer_der=certificate.issuer_der,
        serial=certificate.serial,
        subject=certificate.subject,
        sans=certificate.sans,
        public_key=certificate.public_key,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        self_signed=certificate.self_issued,
    )


# Building


def key_identifier(spki: bytes) -> bytes:
    """Return the leftmost 160 bits of the SHA-256 of the key's BIT STRING (RFC 7093 §2, method 1)."""
    body = der.content(der.SEQUENCE, spki)
    _, end = der.read_as(der.SEQUENCE, body)
    start, stop = der.read_as(der.BIT_STRING, body, end)
    return hashlib.sha256(der.decode_bits(body[start:stop])).digest()[:20]


@dataclass(frozen=True, slots=True)
class Issuer:
    """What signs certificates and CRLs, its DER parts prepared once."""

    name_der: bytes = field(repr=False)
    key: PrivateKey = field(repr=False)
    digest: str
    algorithm: bytes = field(repr=False)
    """AlgorithmIdentifier of its signatures."""
    authority_key_id: bytes = field(repr=False)
    """The whole authorityKeyIdentifier extension."""

    @classmethod
    def create(cls, name_der: bytes, key: PrivateKey, key_id: bytes, digest: str | None = None) -> Issuer:
        """Prepare an issuer of this name and subjectKeyIdentifier; `digest` defaults to the one that fits the key."""
        used = digest or default_digest(key)
        value = der.sequence(der.context(0, key_id, constructed=False))
        identifier = extensions.encode_extension(extensions.AUTHORITY_KEY_IDENTIFIER, False, value)
        return cls(name_der, key, used, signature_algorithm(key, used), identifier)

    @classmethod
    def from_certificate(cls, certificate_der: bytes, key: PrivateKey, digest: str | None = None) -> Issuer:
        """Prepare the issuer of a CA certificate; ValueError when `key` is not its key, MalformedMessage when it is none."""
        certificate = parse_certificate(certificate_der)
        if not key_matches(key, certificate.public_key.der):
            raise ValueError("the private key does not belong to the CA certificate")
        key_id = certificate.subject_key_id or key_identifier(certificate.public_key.der)
        return cls.create(certificate.subject.der, key, key_id, digest)

    def sign(self, to_be_signed: bytes) -> bytes:
        """Return the SIGNED structure of a TBSCertificate or TBSCertList (RFC 5280 §4.1.1)."""
        return der.sequence(to_be_signed, self.algorithm, der.bit_string(sign(self.key, to_be_signed, self.digest)))


_VERSION_3 = bytes.fromhex("a003020102")
_EMPTY_NAME = b"\x30\x00"
_KEY_IDENTIFIER_HEAD = extensions.encode_extension(extensions.SUBJECT_KEY_IDENTIFIER, False, der.octet_string(bytes(20)))[:-20]
_CA_ONLY = frozenset({"keyCertSign", "cRLSign"})
_BUILT = frozenset(
    {
        extensions.SUBJECT_KEY_IDENTIFIER,
        extensions.AUTHORITY_KEY_IDENTIFIER,
        extensions.BASIC_CONSTRAINTS,
        extensions.KEY_USAGE,
        extensions.EXTENDED_KEY_USAGE,
        extensions.SUBJECT_ALT_NAME,
    }
)


def build_certificate(
    issuer: Issuer,
    serial: int,
    grant: Grant,
    public_key: bytes,
    *,
    is_ca: bool = False,
    path_length: int | None = None,
    crl_url: str | None = None,
    ca_issuers_url: str | None = None,
) -> bytes:
    """Build and sign the certificate that `grant` describes for `public_key`, a SubjectPublicKeyInfo; DER.

    ValueError for what must never be signed: keyCertSign or cRLSign without `is_ca`, an extension given twice, neither
    subject nor subjectAltName, a serial that is not positive or above 20 bytes, an end before the beginning.
    """
    _check_grant(grant, serial, is_ca)
    parts = [
        _key_identifier_extension(public_key),
        issuer.authority_key_id,
        _basic_constraints_extension(is_ca, path_length),
        _usage_extensions(grant.key_usage, grant.ekus),
        _pointers_beside(grant, crl_url, ca_issuers_url),
    ]
    if grant.sans:
        critical = grant.subject_der == _EMPTY_NAME
        value = extensions.encode_sans(grant.sans)
        parts.append(extensions.encode_extension(extensions.SUBJECT_ALT_NAME, critical, value))
    parts += [extensions.encode_extension(e.oid, e.critical, e.value) for e in grant.extensions]
    return issuer.sign(
        der.sequence(
            _VERSION_3,
            der.integer(serial),
            issuer.algorithm,
            issuer.name_der,
            der.sequence(der.time(grant.not_before), der.time(grant.not_after)),
            grant.subject_der,
            public_key,
            der.context(3, der.sequence(*parts)),
        )
    )


def _check_grant(grant: Grant, serial: int, is_ca: bool) -> None:
    if not 0 < serial < 1 << 159:
        raise ValueError("a serial number is positive and fits 20 bytes (RFC 5280 §4.1.2.2)")
    if not is_ca and not _CA_ONLY.isdisjoint(grant.key_usage):
        raise ValueError("keyCertSign and cRLSign are for CA certificates only")
    if grant.not_after < grant.not_before:
        raise ValueError("the certificate would end before it begins")
    if grant.subject_der == _EMPTY_NAME and (is_ca or not grant.sans):
        raise ValueError("a certificate needs a subject or a subject alternative name (RFC 5280 §4.1.2.6)")
    oids = [e.oid for e in grant.extensions]
    if not _BUILT.isdisjoint(oids) or len(set(oids)) != len(oids):
        raise ValueError("an extension is given twice (RFC 5280 §4.2)")


def _key_identifier_extension(public_key: bytes) -> bytes:
    return _KEY_IDENTIFIER_HEAD + key_identifier(public_key)


@lru_cache(maxsize=64)
def _basic_constraints_extension(is_ca: bool, path_length: int | None) -> bytes:
    value = extensions.encode_basic_constraints(is_ca, path_length)
    return extensions.encode_extension(extensions.BASIC_CONSTRAINTS, True, value)


@lru_cache(maxsize=256)
def _usage_extensions(key_usage: tuple[str, ...], ekus: tuple[str, ...]) -> bytes:
    encoded = b""
    if key_usage:
        encoded = extensions.encode_extension(extensions.KEY_USAGE, True, extensions.encode_key_usage(key_usage))
    if ekus:
        encoded += extensions.encode_extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(ekus))
    return encoded


def _pointers_beside(grant: Grant, crl_url: str | None, ca_issuers_url: str | None) -> bytes:
    """Return the CA's own pointers, without those that were granted otherwise."""
    granted = {e.oid for e in grant.extensions}
    return _pointer_extensions(
        None if extensions.CRL_DISTRIBUTION_POINTS in granted else crl_url,
        None if extensions.AUTHORITY_INFO_ACCESS in granted else ca_issuers_url,
    )


@lru_cache(maxsize=256)
def _pointer_extensions(crl_url: str | None, ca_issuers_url: str | None) -> bytes:
    encoded = b""
    if crl_url:
        value = extensions.encode_crl_distribution_point(crl_url)
        encoded = extensions.encode_extension(extensions.CRL_DISTRIBUTION_POINTS, False, value)
    if ca_issuers_url:
        value = extensions.encode_ca_issuers(ca_issuers_url)
        encoded += extensions.encode_extension(extensions.AUTHORITY_INFO_ACCESS, False, value)
    return encoded


def self_signed_ca(
    key: PrivateKey, subject_text: str, not_before: datetime, not_after: datetime, path_length: int | None = None
) -> bytes:
    """Build a root CA certificate for an RFC 4514 subject, DER."""
    subject = parse_name_text(subject_text)
    spki = public_key_der(key)
    grant = Grant(subject.der, (), CA_KEY_USAGE, (), not_before, not_after)
    issuer = Issuer.create(subject.der, key, key_identifier(spki))
    return build_certificate(issuer, new_serial(), grant, spki, is_ca=True, path_length=path_length)


def new_serial() -> int:
    """Draw a positive serial of 159 random bits, which fills at most 20 bytes (RFC 5280 §4.1.2.2)."""
    while not (serial := secrets.randbits(159)):
        pass
    return serial


# PEM

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----\s([A-Za-z0-9+/=\s]+?)-----END \1-----")


def pem_to_ders(pem: bytes, *labels: str) -> tuple[bytes, ...]:
    """Return the DER of every block with one of `labels` (CERTIFICATE when none is given), in order (RFC 7468).

    One bare DER value is returned as it is. ValueError when there is none, or its base64 is broken.
    """
    wanted = {label.encode("ascii") for label in labels} or {b"CERTIFICATE"}
    if pem[:1] == b"\x30":
        return (pem,)
    try:
        found = tuple(base64.b64decode(b"".join(m[2].split()), validate=True) for m in _PEM.finditer(pem) if m[1] in wanted)
    except binascii.Error:
        raise ValueError("PEM block holds broken base64") from None
    if not found:
        raise ValueError(f"no PEM block {' or '.join(sorted(w.decode() for w in wanted))}")
    return found


def der_to_pem(data: bytes, label: str = "CERTIFICATE") -> bytes:
    """Return `data` as one PEM block of 64 columns (RFC 7468)."""
    text = base64.b64encode(data)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    name = label.encode("ascii")
    return b"\n".join([b"-----BEGIN " + name + b"-----", *lines, b"-----END " + name + b"-----", b""])
