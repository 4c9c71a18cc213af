"""What a CSR should hold, told before it is made: RFC 7030's list and RFC 9908's template (RFC 7030 §4.5, RFC 9908 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.asn1 import est as asn1
from gateway.pki import der, extensions
from gateway.pki.csr import CHALLENGE_PASSWORD, EXTENSION_REQUEST
from gateway.pki.names import encode_name, make_attribute
from gateway.pki.public_keys import CURVE_OIDS, EC_PUBLIC_KEY, FIXED_KEY_OIDS, RSA_ENCRYPTION

Form = Literal["template", "legacy", "both", "off"]

_SUBJECT_PUBLIC_KEY, _ATTRIBUTES = 0, 1
_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class KeyDemand:
    """The one kind of key that is accepted: `algorithm` as in model.PublicKey, with `curve` for EC and `bits` for RSA."""

    algorithm: str
    curve: str = ""
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Demands:
    """What a profile's policy wants to find in a CSR."""

    subject: tuple[tuple[str, str | None], ...] = ()
    """Attributes that the subject must have: dotted OID, and the value where the policy sets it."""
    key: KeyDemand | None = None
    """None: the client chooses."""
    key_usage: tuple[str, ...] = ()
    """Bits by name."""
    ekus: tuple[str, ...] = ()
    """Dotted OIDs."""
    san: bool = False
    """A subject alternative name must be there."""
    linking: bool = False
    """Proof of possession must be linked to the connection."""
    one_time_password: bool = False
    """A one-time password must be there."""


def encode_csrattrs(demands: Demands, form: Form) -> bytes | None:
    """Return CsrAttrs, DER; None where there is nothing to tell (RFC 7030 §4.5.2).

    Old clients pass over the template, new ones over all else (RFC 9908 §4). ValueError for an algorithm or a curve without a
    name here, or a subject value that cannot be encoded.
    """
    if form == "off" or demands == Demands():
        return None
    listed = _listed(demands) if form != "template" else []
    template = [_template(demands)] if form != "legacy" else []
    return der.sequence(*listed, *template) if listed or template else None


def _listed(demands: Demands) -> list[bytes]:
    """Return attributes and OIDs of the old kind; names and parts of extensions cannot be told in it (RFC 9908 §3.2)."""
    wanted = [der.oid(oid) for oid in _secrets(demands)]
    usages = _usages(demands)
    if usages:
        wanted.append(_attribute(EXTENSION_REQUEST, der.sequence(*usages)))
    if demands.key is not None:
        wanted.append(_key_type(demands.key))
    return wanted


def _secrets(demands: Demands) -> list[str]:
    """Return the attributes whose value only the client knows (RFC 7030 §4.5.2, RFC 7894 §3)."""
    oids = [CHALLENGE_PASSWORD] if demands.linking else []
    return [*oids, asn1.OID_OTP_CHALLENGE] if demands.one_time_password else oids


def _usages(demands: Demands) -> list[bytes]:
    """Return the extensions whose values are known."""
    found = []
    if demands.key_usage:
        found.append(extensions.encode_extension(extensions.KEY_USAGE, True, extensions.encode_key_usage(demands.key_usage)))
    if demands.ekus:
        found.append(extensions.encode_extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(demands.ekus)))
    return found


def _attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(*values))


def _key_type(key: KeyDemand) -> bytes:
    """Return the attribute that names a kind of key, and its curve or size (RFC 9908 §3.2)."""
    match key.algorithm:
        case "rsa":
            return _attribute(RSA_ENCRYPTION, der.integer(key.bits))
        case "ec":
            return _attribute(EC_PUBLIC_KEY, der.oid(_known(CURVE_OIDS, key.curve)))
        case other:
            return _attribute(_known(FIXED_KEY_OIDS, other))


def _template(demands: Demands) -> bytes:
    """Return the CertificationRequestInfoTemplate attribute (RFC 9908 §3.4)."""
    subject = [der.sequence(*(_name_part(oid, value) for oid, value in demands.subject))] if demands.subject else []
    key = [der.context(_SUBJECT_PUBLIC_KEY, *_key_template(demands.key))] if demands.key is not None else []
    wanted = [_attribute(oid) for oid in _secrets(demands)] + _extension_request(demands)
    attributes = der.context(_ATTRIBUTES, *sorted(wanted))
    return _attribute(asn1.OID_REQUEST_INFO_TEMPLATE, der.sequence(der.integer(0), *subject, *key, attributes))


def _name_part(oid: str, value: str | None) -> bytes:
    """Return a RelativeDistinguishedNameTemplate; without a value the client fills it in."""
    if value is None:
        return der.set_of(der.sequence(der.oid(oid)))
    return der.content(der.SEQUENCE, encode_name([[make_attribute(oid, value)]]))


def _key_template(key: KeyDemand) -> list[bytes]:
    """Return an AlgorithmIdentifier, and for RSA a public key that stands for nothing but its size."""
    match key.algorithm:
        case "rsa":
            placeholder = der.sequence(der.integer((1 << key.bits) - 1), der.integer(_EXPONENT))
            return [der.sequence(der.oid(RSA_ENCRYPTION), der.null()), der.bit_string(placeholder)]
        case "ec":
            return [der.sequence(der.oid(EC_PUBLIC_KEY), der.oid(_known(CURVE_OIDS, key.curve)))]
        case other:
            return [der.sequence(der.oid(_known(FIXED_KEY_OIDS, other)))]


def _extension_request(demands: Demands) -> list[bytes]:
    """Return extensionRequest where every value is known, else extensionReqTemplate; never both."""
    usages = _usages(demands)
    if demands.san:
        name = der.sequence(der.oid(extensions.SUBJECT_ALT_NAME))
        return [_attribute(asn1.OID_EXTENSION_REQUEST_TEMPLATE, der.sequence(name, *usages))]
    return [_attribute(EXTENSION_REQUEST, der.sequence(*usages))] if usages else []


def _known(oids: Mapping[str, str], name: str) -> str:
    if name not in oids:
        raise ValueError(f"{name or 'nothing'} is no kind of key that has an object identifier here")
    return oids[name]
