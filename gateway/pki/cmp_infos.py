"""Values of general messages: lists of certificates, CRLs, algorithms, a change of roots, a template (RFC 9810 §5.3.19)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from gateway.asn1.crmf import OID_ALG_ID, OID_RSA_KEY_LEN
from gateway.errors import MalformedMessage
from gateway.pki import der
from gateway.pki.names import parse_name
from gateway.pki.public_keys import CURVE_OIDS, EC_PUBLIC_KEY, FIXED_KEY_OIDS, RSA_ENCRYPTION

MAX_SOURCES = 16
MAX_LANGUAGES = 16
_DPN, _ISSUER = 0xA0, 0xA1
_FULL_NAME = 0xA0
_DIRECTORY_NAME = 0xA4
_UTF8_STRING = 12
_MAX_TAG = 64


@dataclass(frozen=True, slots=True)
class CrlQuestion:
    """One CRLStatus (RFC 9810 §5.3.19.17): whose CRL is asked for, and the thisUpdate of the one that the client has.

    `issuers` are the Names, DER, that its source has; none where that is a distribution point without one.
    """

    issuers: tuple[bytes, ...] = field(repr=False)
    this_update: datetime | None


def encode_list(elements: Iterable[bytes]) -> bytes:
    """Return a SEQUENCE OF certificates, CRLs or AlgorithmIdentifiers, DER all."""
    return der.sequence(*elements)


def encode_oids(oids: Iterable[str]) -> bytes:
    """Return UnsupportedOIDs (RFC 9810 §5.3.19.7)."""
    return der.sequence(*map(der.oid, oids))


def encode_languages(tags: Iterable[str]) -> bytes:
    """Return SuppLangTagsValue (RFC 9810 §5.3.19.13)."""
    return der.sequence(*map(der.utf8_string, tags))


def encode_root_update(new_with_new: bytes, new_with_old: bytes | None, old_with_new: bytes | None) -> bytes:
    """Return RootCaKeyUpdateValue of certificates, DER (RFC 9810 §5.3.19.15)."""
    others = [der.context(number, found) for number, found in enumerate((new_with_old, old_with_new)) if found is not None]
    return der.sequence(new_with_new, *others)


def encode_key_update(old_with_new: bytes, new_with_old: bytes, new_with_new: bytes) -> bytes:
    """Return CAKeyUpdAnnContent of certificates, DER (RFC 4210 §5.3.13)."""
    return der.sequence(old_with_new, new_with_old, new_with_new)


def rsa_algorithm() -> bytes:
    """Return the AlgorithmIdentifier of RSA keys."""
    return der.sequence(der.oid(RSA_ENCRYPTION), der.null())


def key_algorithm(algorithm: str, curve: str = "") -> bytes:
    """Return the AlgorithmIdentifier of a kind of key, named as in `model.PublicKey`; ValueError for one without a name here."""
    if algorithm == "rsa":
        return rsa_algorithm()
    if algorithm == "ec" and curve in CURVE_OIDS:
        return der.sequence(der.oid(EC_PUBLIC_KEY), der.oid(CURVE_OIDS[curve]))
    if algorithm in FIXED_KEY_OIDS:
        return der.sequence(der.oid(FIXED_KEY_OIDS[algorithm]))
    raise ValueError(f"{curve or algorithm} is no kind of key that has an object identifier here")


def encode_template(template: bytes, algorithm: bytes | None = None, rsa_bits: int | None = None) -> bytes:
    """Return CertReqTemplateContent: a CertTemplate, DER, and the one kind of key that is taken (RFC 9810 §5.3.19.16)."""
    wanted = []
    if rsa_bits is not None:
        wanted.append(der.sequence(der.oid(OID_RSA_KEY_LEN), der.integer(rsa_bits)))
    elif algorithm is not None:
        wanted.append(der.sequence(der.oid(OID_ALG_ID), algorithm))
    return der.sequence(template, *((der.sequence(*wanted),) if wanted else ()))


def decode_languages(value: bytes) -> tuple[str, ...]:
    """Read SuppLangTagsValue; MalformedMessage for anything else."""
    body = der.content(der.SEQUENCE, value)
    found = der.elements(body, limit=MAX_LANGUAGES)
    if any(tag != _UTF8_STRING or end - start > _MAX_TAG for tag, _, start, end in found):
        raise MalformedMessage("language tags are broken")
    try:
        return tuple([body[start:end].decode("utf-8") for _, _, start, end in found])
    except UnicodeDecodeError:
        raise MalformedMessage("language tags are broken") from None


def decode_crl_questions(value: bytes) -> tuple[CrlQuestion, ...]:
    """Read CRLStatusListValue, at least one entry; MalformedMessage for anything else."""
    body = der.content(der.SEQUENCE, value)
    found = der.elements(body, limit=MAX_SOURCES)
    if not found:
        raise MalformedMessage("the list of CRLs is empty")
    return tuple([_decode_question(body, *element) for element in found])


def _decode_question(body: bytes, tag: int, _: int, start: int, end: int) -> CrlQuestion:
    found = der.elements(body, start, end, limit=2)
    if tag != der.SEQUENCE or not found:
        raise MalformedMessage("the list of CRLs is broken")
    source, _, first, last = found[0]
    if source not in {_DPN, _ISSUER}:
        raise MalformedMessage("the source of a CRL is broken")
    issuers = (
        _point_issuers(body[first:last]) if source == _DPN else _directory_names(der.content(der.SEQUENCE, body[first:last]))
    )
    if len(found) == 1:
        return CrlQuestion(issuers, None)
    time, _, first, last = found[1]
    return CrlQuestion(issuers, der.decode_time(time, body[first:last]))


def _point_issuers(point: bytes) -> tuple[bytes, ...]:
    """Return the directory names of a DistributionPointName; URLs and names relative to an issuer say nothing here."""
    tag, start, end = der.read(point)
    if end != len(point):
        raise MalformedMessage("the source of a CRL is broken")
    return _directory_names(point[start:end]) if tag == _FULL_NAME else ()


def _directory_names(names: bytes) -> tuple[bytes, ...]:
    found = []
    for tag, _, start, end in der.elements(names, limit=MAX_SOURCES):
        if tag == _DIRECTORY_NAME:
            parse_name(names[start:end])
            found.append(names[start:end])
    return tuple(found)
