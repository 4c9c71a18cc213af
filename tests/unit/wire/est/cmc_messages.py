"""Full PKI Requests as clients make them, and Full PKI Responses taken apart by another library (RFC 5272)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc6402

from gateway.asn1 import cmc as asn1
from gateway.asn1 import cms as asn1_cms
from gateway.model import Extension
from gateway.pki import cms, der
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.pki.names import parse_name_text
from gateway.pki.signed_content import content_info, sign_content

KEY = generate_private_key("ec-p256")
KEY_ID = b"key-of-request"
SKI = Extension(SUBJECT_KEY_IDENTIFIER, False, der.octet_string(KEY_ID))
CSR = build_csr(KEY, parse_name_text("CN=device-1").der, other_extensions=(SKI,))
NONCE = der.octet_string(b"nonce-of-client!")
TRANSACTION = der.integer(0x1234567890ABCDEF)
REQUEST_PART = 7


def control(part: int, oid: str, *values: bytes) -> bytes:
    """A TaggedAttribute."""
    return der.sequence(der.integer(part), der.oid(oid), der.set_of(*values))


def tcr(csr: bytes = CSR, part: int = REQUEST_PART) -> bytes:
    """A TaggedRequest with a PKCS#10."""
    return der.context(0, der.integer(part), csr)


def pki_data(
    requests: Iterable[bytes] = (tcr(),), controls: Iterable[bytes] = (), cms_objects: bytes = b"", others: bytes = b""
) -> bytes:
    """A PKIData."""
    return der.sequence(der.sequence(*controls), der.sequence(*requests), der.sequence(cms_objects), der.sequence(others))


def sign_by_key_id(content: bytes, key: PrivateKey = KEY, key_id: bytes = KEY_ID, content_type: str = asn1.OID_PKI_DATA) -> bytes:
    """SignedData of a signer that has no certificate yet: named by a subjectKeyIdentifier (RFC 5272 §3.2)."""
    signer = Signer(b"", der.context(0, key_id, constructed=False), key)
    return content_info(asn1_cms.OID_SIGNED_DATA, sign_content(content_type, content, signer))


def sign_by_certificate(content: bytes, certificate: bytes, key: PrivateKey) -> bytes:
    """SignedData of a signer with a certificate, which is in it."""
    return content_info(asn1_cms.OID_SIGNED_DATA, sign_content(asn1.OID_PKI_DATA, content, Signer.create(certificate, key)))


@dataclass(frozen=True)
class Response:
    """A Full PKI Response: its first status, its other controls, and its certificates."""

    status: int
    parts: Sequence[int]
    text: str
    fail_info: int | None
    pending: tuple[bytes, str] | None
    controls: dict[str, bytes]
    certificates: tuple[bytes, ...] = field(repr=False)


def read_response(message: bytes, signer: bytes) -> Response:
    """Take a Full PKI Response apart; its signature under `signer`, a SubjectPublicKeyInfo, must verify."""
    signed = cms.parse_signed_data(message)
    assert signed.content_type == asn1.OID_PKI_RESPONSE
    assert signed.content is not None
    cms.verify_signer(signed, signed.signers[0], signer)
    body, rest = decode(signed.content, asn1Spec=rfc6402.PKIResponse())
    assert not rest
    assert [int(c["bodyPartID"]) for c in body["controlSequence"]] == list(range(1, len(body["controlSequence"]) + 1))
    found = {str(c["attrType"]): bytes(c["attrValues"][0]) for c in body["controlSequence"]}
    status, rest = decode(found.pop(asn1.OID_STATUS_INFO_V2), asn1Spec=rfc6402.CMCStatusInfoV2())
    assert not rest
    return Response(
        status=int(status["cMCStatus"]),
        parts=[int(part["bodyPartID"]) for part in status["bodyList"]],
        text=str(status["statusString"]) if status["statusString"].isValue else "",
        **_other(status["otherInfo"]),
        controls=found,
        certificates=signed.certificates,
    )


def _other(info: Any) -> dict[str, Any]:
    name = info.getName() if info.isValue else ""
    pending = (bytes(info["pendInfo"]["pendToken"]), str(info["pendInfo"]["pendTime"])) if name == "pendInfo" else None
    return {"fail_info": int(info["failInfo"]) if name == "failInfo" else None, "pending": pending}
