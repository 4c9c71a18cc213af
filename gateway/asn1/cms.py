# mypy: allow-subclassing-any
"""CMS structures whose members are read one by one and only when needed (RFC 5652).

asn1crypto's own declarations resolve every algorithm and choice; these leave to the reader what it takes apart itself, and
ask for the CMS form of EncapsulatedContentInfo, never PKCS#7's ANY.
"""

from __future__ import annotations

from typing import ClassVar

from asn1crypto import core

OID_DATA = "1.2.840.113549.1.7.1"
OID_SIGNED_DATA = "1.2.840.113549.1.7.2"
OID_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
OID_CONTENT_TYPE = "1.2.840.113549.1.9.3"
OID_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"


class Opaque(core.SetOf):
    """A SET OF whose elements are read from its contents."""

    _child_spec = core.Any


class EncapsulatedContentInfo(core.Sequence):
    """RFC 5652 §5.2."""

    _fields: ClassVar = [
        ("content_type", core.ObjectIdentifier),
        ("content", core.OctetString, {"explicit": 0, "optional": True}),
    ]


class SignerInfo(core.Sequence):
    """RFC 5652 §5.3."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("sid", core.Any),
        ("digest_algorithm", core.Sequence),
        ("signed_attrs", Opaque, {"implicit": 0, "optional": True}),
        ("signature_algorithm", core.Sequence),
        ("signature", core.OctetString),
        ("unsigned_attrs", Opaque, {"implicit": 1, "optional": True}),
    ]


class SignerInfos(core.SetOf):
    """RFC 5652 §5.1."""

    _child_spec = SignerInfo


class SignedData(core.Sequence):
    """RFC 5652 §5.1."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("digest_algorithms", Opaque),
        ("encap_content_info", EncapsulatedContentInfo),
        ("certificates", Opaque, {"implicit": 0, "optional": True}),
        ("crls", Opaque, {"implicit": 1, "optional": True}),
        ("signer_infos", SignerInfos),
    ]


class EnvelopedData(core.Sequence):
    """RFC 5652 §6.1."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("originator_info", core.Sequence, {"implicit": 0, "optional": True}),
        ("recipient_infos", Opaque),
        ("encrypted_content_info", core.Sequence),
        ("unprotected_attrs", Opaque, {"implicit": 1, "optional": True}),
    ]


class KeyTransRecipientInfo(core.Sequence):
    """RFC 5652 §6.2.1."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("rid", core.Any),
        ("key_encryption_algorithm", core.Sequence),
        ("encrypted_key", core.OctetString),
    ]


class PasswordRecipientInfo(core.Sequence):
    """RFC 5652 §6.2.4; a RecipientInfo has it under `[3]`."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("key_derivation_algorithm", core.Sequence, {"implicit": 0, "optional": True}),
        ("key_encryption_algorithm", core.Sequence),
        ("encrypted_key", core.OctetString),
    ]


class SignedDataInfo(core.Sequence):
    """ContentInfo with SignedData (RFC 5652 §3, §5.1)."""

    _fields: ClassVar = [
        ("content_type", core.ObjectIdentifier),
        ("content", SignedData, {"explicit": 0}),
    ]


class EnvelopedDataInfo(core.Sequence):
    """ContentInfo with EnvelopedData (RFC 5652 §3, §6.1)."""

    _fields: ClassVar = [
        ("content_type", core.ObjectIdentifier),
        ("content", EnvelopedData, {"explicit": 0}),
    ]
