"""Devices that attest themselves, made by tests: an Apple device, a YubiKey and a TPM 2.0, each with roots of its own.

Every part can be replaced before the object is put together, so that a test says what is wrong with it and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.asn1 import attestation as oids
from gateway.model import Extension, Grant, SanKind, SubjectAltName
from gateway.pki import base64url, der
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, self_signed_ca
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.trust import TrustAnchors

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
MODULE_TYPE = "2.23.133.1.2"

Parts = dict[str, Any]


def envelope(attestation_object: object) -> dict[str, object]:
    """Return the payload of a challenge around an object, or around the bytes that it should be."""
    data = attestation_object if isinstance(attestation_object, bytes) else cbor2.dumps(attestation_object)
    return {"attObj": base64url.encode(data)}


@dataclass(frozen=True)
class Maker:
    """A maker's root and the intermediate that issues the certificates of attestations."""

    name: str
    root: bytes
    certificate: bytes
    key: PrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str) -> Maker:
        root_key, key = generate_private_key("ec-p384"), generate_private_key("ec-p256")
        root = self_signed_ca(root_key, f"CN={name} Root CA", NOW - 100 * DAY, NOW + 3650 * DAY)
        subject = parse_name_text(f"CN={name} Sub CA").der
        grant = Grant(subject, (), ("keyCertSign", "cRLSign"), (), NOW - 90 * DAY, NOW + 999 * DAY)
        sub = build_certificate(Issuer.from_certificate(root, root_key), new_serial(), grant, public_key_der(key), is_ca=True)
        return cls(name, root, sub, key)

    @property
    def pem(self) -> bytes:
        return der_to_pem(self.root)

    @property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors.parse(self.pem)

    def issue(self, spki: bytes, grant: Grant, *, is_ca: bool = False) -> bytes:
        issuer = Issuer.from_certificate(self.certificate, self.key)
        return build_certificate(issuer, new_serial(), grant, spki, is_ca=is_ca)


def leaf_grant(subject: str = "", **fields: Any) -> Grant:
    name = parse_name_text(subject).der if subject else der.sequence()
    return replace(Grant(name, (), ("digitalSignature",), (), NOW - DAY, NOW + 9 * DAY), **fields)


def extensions(values: Mapping[str, bytes]) -> tuple[Extension, ...]:
    return tuple(Extension(oid, False, value) for oid, value in values.items())


@dataclass(frozen=True)
class AppleDevice:
    """Attests a key by way of Apple's servers: all is in the certificate."""

    maker: Maker
    serial: str = "C02XL0ATTEST"
    udid: str = "00008110-000A1B2C3D4E801E"
    key: PrivateKey = field(default_factory=lambda: generate_private_key("ec-p384"), repr=False)

    def attest(self, token: str, *, left_out: tuple[str, ...] = (), **fields: Any) -> Parts:
        values = {
            oids.OID_APPLE_SERIAL_NUMBER: self.serial.encode(),
            oids.OID_APPLE_UDID: self.udid.encode(),
            oids.OID_APPLE_OS_VERSION: b"26.1",
            oids.OID_APPLE_SEPOS_VERSION: b"26.1",
            oids.OID_APPLE_NONCE: hashlib.sha256(token.encode()).digest(),
        } | fields.pop("values", {})
        kept = extensions({k: v for k, v in values.items() if k not in left_out})
        leaf = self.maker.issue(public_key_der(self.key), leaf_grant("CN=" + "ab" * 20, extensions=kept, **fields))
        return {"fmt": "apple", "attStmt": {"x5c": [leaf, self.maker.certificate]}}


@dataclass(frozen=True)
class YubiKey:
    """Attests the key of a PIV slot, which signs the key authorization."""

    maker: Maker
    serial: int = 16023607
    key: PrivateKey = field(default_factory=lambda: generate_private_key("ec-p256"), repr=False)

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(data, ec.ECDSA(hashes.SHA384() if self.key.curve.key_size == 384 else hashes.SHA256()))
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        assert isinstance(self.key, ed25519.Ed25519PrivateKey)
        return self.key.sign(data)

    def attest(self, key_authorization: str, *, left_out: tuple[str, ...] = (), **parts: Any) -> Parts:
        values = {
            oids.OID_YUBICO_FIRMWARE: bytes((5, 7, 4)),
            oids.OID_YUBICO_SERIAL_NUMBER: der.integer(self.serial),
            oids.OID_YUBICO_POLICIES: bytes((2, 3)),
            oids.OID_YUBICO_FORM_FACTOR: bytes((0x83,)),
        } | parts.pop("values", {})
        kept = {k: v for k, v in values.items() if k not in left_out}
        grant = leaf_grant("CN=YubiKey PIV Attestation 9a", extensions=extensions(kept))
        statement = {
            "x5c": [self.maker.issue(public_key_der(self.key), grant), self.maker.certificate],
            "sig": cbor2.dumps(self.sign(key_authorization.encode())),
        }
        return {"fmt": "step", "attStmt": {name: value for name, value in (statement | parts).items() if value is not None}}


def buffer(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2) + data


def directory_name(**attributes: str) -> SubjectAltName:
    """A SAN that says who made a TPM."""
    ids = {"manufacturer": oids.OID_TPM_MANUFACTURER, "model": oids.OID_TPM_MODEL, "version": oids.OID_TPM_VERSION}
    rdns = [der.set_of(der.sequence(der.oid(ids[name]), der.utf8_string(value))) for name, value in attributes.items()]
    return SubjectAltName(SanKind.DIRECTORY_NAME, "tpm", der.context(4, der.sequence(*rdns)))


MAKER = {"manufacturer": "id:54455354", "model": "Test TPM", "version": "id:00010002"}
ATTRIBUTES = 0x00040072
"""sign, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM."""


def ecc_public(key: PrivateKey, attributes: int = ATTRIBUTES, **parts: bytes) -> bytes:
    """A TPMT_PUBLIC of a key on P-256 or P-384."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    numbers, size = key.public_key().public_numbers(), key.curve.key_size // 8
    found = {
        "type": b"\x00\x23",
        "name": b"\x00\x0b",
        "attributes": attributes.to_bytes(4),
        "policy": buffer(b""),
        "symmetric": b"\x00\x10",
        "scheme": b"\x00\x18\x00\x0b",
        "curve": b"\x00\x03" if size == 32 else b"\x00\x04",
        "kdf": b"\x00\x10",
        "x": buffer(numbers.x.to_bytes(size)),
        "y": buffer(numbers.y.to_bytes(size)),
        "rest": b"",
    }
    return b"".join((found | parts).values())


def rsa_public(key: PrivateKey, attributes: int = ATTRIBUTES, **parts: bytes) -> bytes:
    """A TPMT_PUBLIC of an RSA key."""
    assert isinstance(key, rsa.RSAPrivateKey)
    found = {
        "type": b"\x00\x01",
        "name": b"\x00\x0b",
        "attributes": attributes.to_bytes(4),
        "policy": buffer(bytes(32)),
        "symmetric": b"\x00\x10",
        "scheme": b"\x00\x10",
        "bits": key.key_size.to_bytes(2),
        "exponent": bytes(4),
        "modulus": buffer(key.public_key().public_numbers().n.to_bytes(key.key_size // 8)),
        "rest": b"",
    }
    return b"".join((found | parts).values())


def public_area(key: PrivateKey, attributes: int = ATTRIBUTES, **parts: bytes) -> bytes:
    make = rsa_public if isinstance(key, rsa.RSAPrivateKey) else ecc_public
    return make(key, attributes, **parts)


def certify_info(signed_along: bytes, area: bytes, **parts: bytes) -> bytes:
    """A TPMS_ATTEST of TPM2_Certify about the key of `area`."""
    name = b"\x00\x0b" + hashlib.sha256(area).digest()
    found = {
        "magic": b"\xffTCG",
        "type": b"\x80\x17",
        "signer": buffer(b"\x00\x0b" + bytes(32)),
        "extra": buffer(signed_along),
        "clock": bytes(8) + bytes(4) + bytes(4) + b"\x01",
        "firmware": bytes(8),
        "name": buffer(name),
        "qualified": buffer(b"\x00\x0b" + bytes(32)),
        "rest": b"",
    }
    return b"".join((found | parts).values())


@dataclass(frozen=True)
class Tpm:
    """A TPM in software: `ak` signs what it certifies about `key`."""

    maker: Maker
    permanent: str | None = "TPM-SERIAL-0001"
    module: str | None = f"MODULE-0001/{MODULE_TYPE}"
    key: PrivateKey = field(default_factory=lambda: generate_private_key("ec-p256"), repr=False)
    ak: PrivateKey = field(default_factory=lambda: generate_private_key("rsa-2048"), repr=False)

    @property
    def sans(self) -> tuple[SubjectAltName, ...]:
        found = [directory_name(**MAKER)]
        found += [make_san(SanKind.PERMANENT_IDENTIFIER, self.permanent)] if self.permanent else []
        return (*found, *([make_san(SanKind.HARDWARE_MODULE, self.module)] if self.module else []))

    def certificate(self, subject: str = "", *, is_ca: bool = False, **fields: Any) -> bytes:
        grant = leaf_grant(subject, **({"sans": self.sans, "ekus": (oids.OID_TCG_AIK_CERTIFICATE,)} | fields))
        return self.maker.issue(public_key_der(self.ak), grant, is_ca=is_ca)

    def sign(self, data: bytes, digest: str = "sha256") -> bytes:
        """Return a TPMT_SIGNATURE."""
        number, algorithm = {
            "sha1": (b"\x00\x04", hashes.SHA1()),
            "sha256": (b"\x00\x0b", hashes.SHA256()),
            "sha384": (b"\x00\x0c", hashes.SHA384()),
        }[digest]
        if isinstance(self.ak, rsa.RSAPrivateKey):
            return b"\x00\x14" + number + buffer(self.ak.sign(data, padding.PKCS1v15(), algorithm))
        assert isinstance(self.ak, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self.ak.sign(data, ec.ECDSA(algorithm)))
        size = self.ak.curve.key_size // 8
        return b"\x00\x18" + number + buffer(r.to_bytes(size)) + buffer(s.to_bytes(size))

    def attest(
        self,
        key_authorization: str,
        *,
        area: bytes | None = None,
        info: Mapping[str, bytes] | None = None,
        digest: str = "sha256",
        ak: bytes | None = None,
        **parts: Any,
    ) -> Parts:
        area = public_area(self.key) if area is None else area
        signed = certify_info(hashlib.sha256(key_authorization.encode()).digest(), area, **(info or {}))
        rsa_numbers, ec_numbers = {"sha1": -65535, "sha256": -257}, {"sha256": -7, "sha384": -35}
        statement = {
            "ver": "2.0",
            "alg": (rsa_numbers if isinstance(self.ak, rsa.RSAPrivateKey) else ec_numbers)[digest],
            "x5c": [ak or self.certificate(), self.maker.certificate],
            "sig": self.sign(signed, digest),
            "certInfo": signed,
            "pubArea": area,
        } | parts
        return {"fmt": "tpm", "attStmt": {name: value for name, value in statement.items() if value is not None}}
