"""OCSP: answers that count, and every one that does not, made with cryptography's builder; openssl reads the question."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Extension, Grant
from gateway.pki import der
from gateway.pki.certificate import Certificate, Issuer, build_certificate, der_to_pem, new_serial, parse_certificate
from gateway.pki.extensions import AUTHORITY_INFO_ACCESS, eku_oid
from gateway.pki.keys import public_key_der, sign, signature_algorithm
from gateway.pki.names import parse_name_text
from gateway.pki.ocsp import (
    MAX_RESPONSE_BYTES,
    WITHOUT_END,
    CertificateStatus,
    build_ocsp_request,
    ocsp_url,
    read_ocsp_response,
)
from tests.unit.ra.fleet import DAY, NOW, ca_of, enroll, key_of

SECOND = timedelta(seconds=1)
CA, LEAF = ca_of(), enroll()
CA_PARSED, LEAF_PARSED = parse_certificate(CA), parse_certificate(LEAF)
SIGNING = eku_oid("OCSPSigning")


@cache
def responder(ca: str = "Old CA", **changes: Any) -> bytes:
    """A certificate by which a CA names its responder."""
    values: dict[str, Any] = {
        "subject_der": parse_name_text("CN=Responder").der,
        "sans": (),
        "key_usage": ("digitalSignature",),
        "ekus": (SIGNING,),
        "not_before": NOW - DAY,
        "not_after": NOW + DAY,
    }
    digest = changes.pop("digest", None)
    issuer = Issuer.from_certificate(ca_of(ca), key_of(ca), digest)
    return build_certificate(issuer, new_serial(), Grant(**(values | changes)), public_key_der(key_of("responder")))


def answer(
    signer: str = "Old CA",
    signer_certificate: bytes = CA,
    leaf: bytes = LEAF,
    issuer: bytes = CA,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    this_update: datetime = NOW - SECOND,
    next_update: datetime | None = NOW + DAY,
    by: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH,
    certificates: tuple[bytes, ...] = (),
    algorithm: Any = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> bytes:
    """A response as responders write it."""
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=x509.load_der_x509_certificate(leaf),
        issuer=x509.load_der_x509_certificate(issuer),
        algorithm=algorithm or hashes.SHA1(),
        cert_status=status,
        this_update=this_update,
        next_update=next_update,
        revocation_time=NOW - DAY if revoked else None,
        revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
    )
    builder = builder.responder_id(by, x509.load_der_x509_certificate(signer_certificate))
    if certificates:
        builder = builder.certificates([x509.load_der_x509_certificate(c) for c in certificates])
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    key = cast("ec.EllipticCurvePrivateKey", key_of(signer))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def signed_anew(data: bytes, signer: str, digest: str = "sha256") -> bytes:
    """The same response under another signature."""
    response = der.content(der.SEQUENCE, data)
    wrapped = der.content(der.SEQUENCE, der.content(0xA0, response[3:]))
    kind = der.read(wrapped)[2]
    basic = der.content(der.SEQUENCE, der.content(der.OCTET_STRING, wrapped[kind:]))
    tbs, _, _, *rest = (basic[start:end] for _, start, _, end in der.elements(basic))
    key = key_of(signer)
    made = der.sequence(tbs, signature_algorithm(key, digest), der.bit_string(sign(key, tbs, digest)), *rest)
    return der.sequence(response[:3], der.context(0, der.sequence(wrapped[:kind], der.octet_string(made))))


def read(data: bytes, leaf: Certificate = LEAF_PARSED, at: datetime = NOW) -> tuple[CertificateStatus, datetime]:
    found = read_ocsp_response(data, leaf, CA_PARSED, at)
    return found.status, found.until


def named(**changes: Any) -> bytes:
    """An answer of a responder whom the CA has named."""
    certificate = responder()
    return answer(**({"signer": "responder", "signer_certificate": certificate, "certificates": (certificate,)} | changes))


@pytest.mark.parametrize("status", list(CertificateStatus))
@pytest.mark.parametrize("by", list(ocsp.OCSPResponderEncoding))
@pytest.mark.parametrize("make", [answer, named])
def test_what_counts(make: Callable[..., bytes], by: ocsp.OCSPResponderEncoding, status: CertificateStatus) -> None:
    data = make(by=by, status=ocsp.OCSPCertStatus[status.name])
    assert read(data) == (status, NOW + DAY)


def test_signing_anew_changes_nothing_else() -> None:
    assert read(signed_anew(named(), "responder"))[0] is CertificateStatus.GOOD


def test_an_answer_without_end_speaks_shortly() -> None:
    assert read(answer(next_update=None)) == (CertificateStatus.GOOD, NOW - SECOND + WITHOUT_END)
    with pytest.raises(Rejection) as refused:
        read(answer(next_update=None), at=NOW + WITHOUT_END)
    assert refused.value.reason is Reason.BAD_TIME


def test_the_end_of_time() -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert read(answer(next_update=last)) == (CertificateStatus.GOOD, last)
    with pytest.raises(Rejection) as refused:
        read(answer(this_update=last, next_update=None))
    assert refused.value.reason is Reason.BAD_TIME


def test_a_nonce_of_the_responders_own_is_no_obstacle() -> None:
    assert read(answer(extensions=((x509.OCSPNonce(b"n" * 16), False),)))[0] is CertificateStatus.GOOD


OTHER_LEAF = enroll(subject="CN=other")
SERVER = responder(ekus=(eku_oid("serverAuth"),))
FOREIGN = responder("Another CA")
REJECTED: list[Any] = [
    pytest.param(lambda: answer("Another CA", ca_of("Another CA")), Reason.BAD_SIGNATURE, id="another-cas"),
    pytest.param(lambda: signed_anew(answer(), "Another CA"), Reason.BAD_SIGNATURE, id="signed-by-another-key"),
    pytest.param(lambda: named(certificates=()), Reason.BAD_SIGNATURE, id="an-unknown-responder"),
    pytest.param(
        lambda: named(signer_certificate=FOREIGN, certificates=(FOREIGN,)), Reason.BAD_SIGNATURE, id="named-by-another-ca"
    ),
    pytest.param(
        lambda: answer("device", LEAF, certificates=(LEAF,)), Reason.BAD_SIGNATURE, id="the-certificate-speaks-for-itself"
    ),
    pytest.param(
        lambda: named(signer_certificate=SERVER, certificates=(SERVER,)), Reason.BAD_SIGNATURE, id="named-for-something-else"
    ),
    pytest.param(lambda: signed_anew(named(), "device"), Reason.BAD_SIGNATURE, id="signed-by-another-than-the-named-one"),
    pytest.param(lambda: answer(leaf=OTHER_LEAF), Reason.UNKNOWN_CERTIFICATE, id="another-certificates"),
    pytest.param(lambda: answer(issuer=ca_of("Another CA")), Reason.UNKNOWN_CERTIFICATE, id="the-same-serial-of-another-ca"),
    pytest.param(lambda: answer(algorithm=hashes.SHA256()), Reason.UNKNOWN_CERTIFICATE, id="not-as-asked"),
    pytest.param(lambda: answer(next_update=NOW), Reason.BAD_TIME, id="over"),
    pytest.param(lambda: answer(this_update=NOW + timedelta(minutes=6)), Reason.BAD_TIME, id="of-the-future"),
    pytest.param(lambda: signed_anew(answer(), "Old CA", "sha1"), Reason.BAD_SIGNATURE, id="signed-with-sha-1"),
    pytest.param(
        lambda: named(signer_certificate=responder(digest="sha1"), certificates=(responder(digest="sha1"),)),
        Reason.BAD_SIGNATURE,
        id="named-with-sha-1",
    ),
    pytest.param(
        lambda: named(signer_certificate=responder(not_after=NOW - SECOND), certificates=(responder(not_after=NOW - SECOND),)),
        Reason.BAD_TIME,
        id="named-once",
    ),
    pytest.param(lambda: answer(extensions=((x509.OCSPNonce(b"n"), True),)), Reason.MALFORMED, id="critical-extension"),
]


@pytest.mark.parametrize(("make", "reason"), REJECTED)
def test_what_does_not_count(make: Callable[[], bytes], reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        read(make())
    assert refused.value.reason is reason


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6])
def test_a_responder_that_refuses(status: int) -> None:
    data = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus(status))
    with pytest.raises(Rejection) as refused:
        read(data.public_bytes(serialization.Encoding.DER))
    assert (refused.value.reason, refused.value.cause) == (Reason.UNSUPPORTED_MESSAGE, f"responseStatus {status}")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a-page"),
        pytest.param(b"\x30\x00", id="empty"),
        pytest.param(b"\x30\x03\x0a\x01\x00", id="success-without-answer"),
        pytest.param(answer()[:-1], id="cut-short"),
        pytest.param(answer() + b"\x00", id="with-more-behind"),
        pytest.param(b"\x30" * MAX_RESPONSE_BYTES, id="nested"),
        pytest.param(b"\x30" * (MAX_RESPONSE_BYTES + 1), id="large"),
    ],
)
def test_rubbish(data: bytes) -> None:
    with pytest.raises(Rejection):
        read(data)


def test_every_changed_byte_is_noticed() -> None:
    data = named()
    for position in range(0, len(data), 3):
        changed = data[:position] + bytes((data[position] ^ 0x01,)) + data[position + 1 :]
        try:
            status, _ = read(changed)
        except Rejection:
            continue
        # Parts that nobody signed may change what they say of nothing: certificates that are not needed, lengths there.
        assert status is CertificateStatus.GOOD


def test_openssl_reads_the_question(tmp_path: Path) -> None:
    (tmp_path / "q.der").write_bytes(build_ocsp_request(LEAF_PARSED, CA_PARSED))
    said = subprocess.run(
        ["openssl", "ocsp", "-reqin", str(tmp_path / "q.der"), "-req_text"], capture_output=True, text=True, check=True
    ).stdout
    number = f"{LEAF_PARSED.serial:x}"
    assert f"serial number: {number.zfill(len(number) + len(number) % 2)}" in said.lower()
    (tmp_path / "ca.pem").write_bytes(der_to_pem(CA))
    (tmp_path / "leaf.pem").write_bytes(der_to_pem(LEAF))
    made = tmp_path / "o.der"
    subprocess.run(
        ["openssl", "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", str(made)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert made.read_bytes() == build_ocsp_request(LEAF_PARSED, CA_PARSED)


def access(*entries: tuple[str, bytes]) -> Extension:
    return Extension(
        AUTHORITY_INFO_ACCESS, False, der.sequence(*(der.sequence(der.oid(method), name) for method, name in entries))
    )


OCSP_METHOD, ISSUERS = "1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"


def uri(text: str) -> bytes:
    return der.tlv(0x86, text.encode("latin-1"))


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        pytest.param((), None, id="none"),
        pytest.param(((OCSP_METHOD, uri("http://o.example/x")),), "http://o.example/x", id="one"),
        pytest.param(
            ((ISSUERS, uri("http://c.example")), (OCSP_METHOD, uri("http://o.example"))), "http://o.example", id="beside"
        ),
        pytest.param(((OCSP_METHOD, uri("ldap://o")), (OCSP_METHOD, uri("HTTP://o.example"))), "HTTP://o.example", id="by-http"),
        pytest.param(((OCSP_METHOD, uri("file:///etc/passwd")),), None, id="a-file"),
        pytest.param(((OCSP_METHOD, uri("http://o.example/a b")),), None, id="space"),
        pytest.param(((OCSP_METHOD, uri("http://o.example/\r\nX: 1")),), None, id="line-break"),
        pytest.param(((OCSP_METHOD, uri("http://ö.example")),), None, id="beyond-ascii"),
        pytest.param(((OCSP_METHOD, uri("http://o.example/" + "x" * 1100)),), None, id="long"),
        pytest.param(((OCSP_METHOD, der.tlv(0x82, b"o.example")),), None, id="no-uri"),
    ],
)
def test_the_responder_of_a_certificate(entries: tuple[tuple[str, bytes], ...], found: str | None) -> None:
    certificate = enroll(extensions=(access(*entries),)) if entries else LEAF
    assert ocsp_url(parse_certificate(certificate)) == found


def test_a_broken_pointer() -> None:
    broken = enroll(extensions=(Extension(AUTHORITY_INFO_ACCESS, False, b"\x30\x03\x02\x01\x00"),))
    assert ocsp_url(parse_certificate(broken)) is None


def test_malformed_is_all_that_rubbish_raises() -> None:
    with pytest.raises(MalformedMessage):
        read(b"\x30\x80\x00\x00")
