"""YubiKeys in their PIV slots and devices of the operator's own CA, format `step` (Yubico PIV attestation)."""

from __future__ import annotations

from gateway.asn1.attestation import (
    OID_STEP_MANAGED_DEVICE,
    OID_YUBICO_FIRMWARE,
    OID_YUBICO_FORM_FACTOR,
    OID_YUBICO_POLICIES,
    OID_YUBICO_SERIAL_NUMBER,
)
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.algorithms import signature_oid, verify_signature
from gateway.pki.certificate import Certificate
from gateway.pki.trust import TrustAnchors
from gateway.validation.attestation.chain import clean_text, extension, verify_certificates
from gateway.validation.attestation.evidence import Evidence, described
from gateway.validation.attestation.statement import Claim, Statement, decode_cbor

_DIGESTS = {("rsa", None): "sha256", ("ec", "P-256"): "sha256", ("ec", "P-384"): "sha384", ("ed25519", None): "none"}
_FORM_FACTORS = {1: "usb-a-keychain", 2: "usb-a-nano", 3: "usb-c-keychain", 4: "usb-c-nano", 5: "usb-c-lightning", 6: "usb-a-bio"}
_PIN_POLICIES = {1: "never", 2: "once", 3: "always", 4: "match-once", 5: "match-always"}
_TOUCH_POLICIES = {1: "never", 2: "always", 3: "cached"}
_MAX_SERIAL_BYTES = 8


def judge_step(statement: Statement, anchors: TrustAnchors, claim: Claim) -> Evidence:
    """Return what is attested: the certificate's own key, which has signed the key authorization. Raises Rejection."""
    leaf = verify_certificates(anchors, statement.certificates, claim.now)
    signature = decode_cbor(statement.octets("sig"))
    if not isinstance(signature, bytes):
        raise MalformedMessage("the attestation's sig is no CBOR byte string")
    _verify(leaf, signature, claim.key_authorization.encode("ascii"))
    return read_attested_certificate(leaf)


def read_attested_certificate(leaf: Certificate) -> Evidence:
    """Return what the certificate of an attestation says of its own key; it leads to a root already."""
    claims = _claims(leaf)
    serial = claims.get("serial")
    return Evidence(leaf.public_key.sha256, described(leaf) | claims, frozenset() if serial is None else frozenset({serial}))


def _verify(leaf: Certificate, signature: bytes, data: bytes) -> None:
    key = leaf.public_key
    digest = _DIGESTS.get((key.algorithm, key.curve))
    if digest is None:
        raise Rejection(
            Reason.BAD_ATTESTATION, "keys of this kind cannot be attested in this format", f"{key.algorithm} {key.curve}"
        )
    algorithm = der.sequence(der.oid(signature_oid(key.algorithm, digest)))
    try:
        verify_signature(key.der, algorithm, signature, data)
    except Rejection as error:
        raise Rejection(Reason.BAD_ATTESTATION, "the attested key did not sign this challenge", error.cause) from None


def _claims(leaf: Certificate) -> dict[str, str]:
    """Read Yubico's extensions, and the name that another CA gave the device where there is no serial number."""
    claims = {}
    firmware, factor = extension(leaf, OID_YUBICO_FIRMWARE), extension(leaf, OID_YUBICO_FORM_FACTOR)
    policies = extension(leaf, OID_YUBICO_POLICIES)
    serial = _serial(leaf)
    if serial is not None:
        claims["serial"] = serial
    if firmware is not None and len(firmware) == 3:
        claims["firmware"] = ".".join(map(str, firmware))
    if factor is not None and len(factor) == 1:
        # The two highest bits say that it is a FIPS or a Security Key model.
        claims["form_factor"] = _FORM_FACTORS.get(factor[0] & 0x3F, "other")
    if policies is not None and len(policies) == 2:
        claims["pin_policy"] = _PIN_POLICIES.get(policies[0], "other")
        claims["touch_policy"] = _TOUCH_POLICIES.get(policies[1], "other")
    return claims


def _serial(leaf: Certificate) -> str | None:
    number = extension(leaf, OID_YUBICO_SERIAL_NUMBER)
    if number is not None:
        content = der.content(der.INTEGER, number)
        if len(content) > _MAX_SERIAL_BYTES:
            raise MalformedMessage("the attested serial number is too long")
        return str(der.decode_integer(content))
    managed = extension(leaf, OID_STEP_MANAGED_DEVICE)
    if managed is None:
        return None
    fields = der.elements(body := der.content(der.SEQUENCE, managed))
    if len(fields) != 1 or fields[0][0] not in {0x0C, 0x13}:
        raise MalformedMessage("the attested name of the device is broken")
    return clean_text(body[fields[0][2] : fields[0][3]])
