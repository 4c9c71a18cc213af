import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms
from gateway.wire.scep.client import decode_ca_certificates, decode_next_ca_certificates
from gateway.wire.scep.identity import Algorithms, RaIdentity
from gateway.wire.scep.operations import (
    MAX_QUERY,
    Operation,
    ca_capabilities,
    ca_certificate_chain,
    ca_certificates,
    decode_base64,
    decode_body,
    next_ca_certificates,
    parse_query,
)
from tests.unit.wire.scep.identities import CA

MESSAGE = bytes(range(256)) * 3 + b"\xfb\xff"
BASE64 = base64.b64encode(MESSAGE).decode()


def lines(text: str) -> str:
    return "%0A".join(text[i : i + 64] for i in range(0, len(text), 64))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BASE64.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"), id="percent-encoded"),
        pytest.param(BASE64.replace("=", "%3D"), id="unescaped plus and slash (iOS)"),
        pytest.param(BASE64.replace("+", " "), id="plus that became a space"),
        pytest.param(BASE64.replace("+", "%20"), id="plus that became an escaped space"),
        pytest.param(lines(BASE64), id="64-column lines (Cisco)"),
        pytest.param(lines(BASE64).replace("%0A", "%0D%0A"), id="CRLF lines"),
        pytest.param(BASE64.replace("+", "-").replace("/", "_"), id="URL-safe alphabet"),
        pytest.param(BASE64.replace("+", "-").replace("/", "_").rstrip("="), id="URL-safe without padding (scepclient)"),
        pytest.param(BASE64 + "%0A", id="trailing newline"),
    ],
)
def test_messages_by_get(text: str) -> None:
    expected = Operation("PKIOperation", MESSAGE)
    assert parse_query(f"operation=PKIOperation&message={text}") == expected
    assert parse_query(f"message={text}&operation=PKIOperation".encode()) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("operation=GetCACaps", Operation("GetCACaps"), id="no message"),
        pytest.param("operation=GetCACert&message=default", Operation("GetCACert"), id="Windows"),
        pytest.param("operation=GetCACert&message=0", Operation("GetCACert"), id="certmonger"),
        pytest.param("operation=GetCACaps&message=", Operation("GetCACaps"), id="jscep"),
        pytest.param("", Operation(""), id="POST without operation"),
        pytest.param("operation=PKIOperation", Operation("PKIOperation"), id="POST"),
        pytest.param("operation=%47etCACert&x=y", Operation("GetCACert"), id="escaped, with a stranger"),
        pytest.param("operation=a%0Ab&message=c%1Bd", Operation("ab"), id="control characters"),
    ],
)
def test_other_queries(query: str, expected: Operation) -> None:
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param("operation=PKIOperation&message=!!!!", Reason.MALFORMED, id="not base64"),
        pytest.param("operation=PKIOperation&message=AAAAA", Reason.MALFORMED, id="impossible length"),
        pytest.param("operation=PKIOperation&message=%C3%A4", Reason.MALFORMED, id="not ASCII"),
        pytest.param("operation=GetCACaps&operation=PKIOperation", Reason.MALFORMED, id="operation twice"),
        pytest.param("operation=PKIOperation&message=AA&message=BB", Reason.MALFORMED, id="message twice"),
        pytest.param("&".join(f"p{i}=1" for i in range(40)), Reason.MALFORMED, id="many parameters"),
        pytest.param("message=" + "A" * MAX_QUERY, Reason.TOO_LARGE, id="too long"),
    ],
)
def test_refused_queries(query: str, reason: Reason) -> None:
    with pytest.raises(MalformedMessage) as refused:
        parse_query(query)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x30\x03\x02\x01\x01", id="DER"),
        pytest.param(b"MAMCAQE=", id="base64"),
        pytest.param(b"MAMC\nAQE\n", id="lines"),
    ],
)
def test_bodies(body: bytes) -> None:
    assert decode_body(body) == b"\x30\x03\x02\x01\x01"


def test_empty_base64_is_empty() -> None:
    assert decode_base64(b"") == b""


def test_capabilities_are_what_the_ra_accepts_one_token_a_line(ra: RaIdentity) -> None:
    modern = ca_capabilities(ra, renewal=False).decode().splitlines()
    assert modern == ["AES", "POSTPKIOperation", "SCEPStandard", "SHA-256", "SHA-384", "SHA-512"]
    lenient = replace(ra, algorithms=Algorithms(sha1=True, triple_des=True))
    legacy = ca_capabilities(lenient, renewal=True).decode().splitlines()
    assert set(legacy) - set(modern) == {"Renewal", "SHA-1", "DES3"}
    forbidden = replace(ra, algorithms=Algorithms(md5=True, single_des=True))
    assert ca_capabilities(forbidden, renewal=False).decode().splitlines() == modern
    assert set(ca_capabilities(ra, renewal=False, next_ca=True).decode().splitlines()) - set(modern) == {"GetNextCACert"}


def test_ca_certificates_as_openssl_sees_them(ra: RaIdentity, openssl: Callable[..., bytes], testdata: Path) -> None:
    body, media_type = ca_certificates(ra)
    assert media_type == "application/x-x509-ca-ra-cert"
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", data=body)
    found = [p.split(b"-----END")[0] for p in printed.split(b"-----BEGIN CERTIFICATE-----")[1:]]
    expected = [(testdata / name).read_bytes().split(b"-----")[2] for name in ("ra.pem", "ca.pem")]
    assert found == expected


def test_chain_is_the_ca_s_without_the_ra(ra: RaIdentity) -> None:
    body, media_type = ca_certificate_chain(ra)
    assert media_type == "application/x-x509-ca-ra-cert-chain"
    assert decode_ca_certificates(body, media_type) == ra.chain


def test_next_ca_as_our_client_reads_it(ra: RaIdentity, client: cms.Signer) -> None:
    body, media_type = next_ca_certificates(ra, (CA, client.certificate))
    assert media_type == "application/x-x509-next-ca-cert"
    assert decode_next_ca_certificates(body, ra.certificate.der) == (CA, client.certificate)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda body: body[:-1] + bytes((body[-1] ^ 1,)), id="signature changed"),
        pytest.param(lambda body: body.replace(b"Test CA", b"Best CA"), id="certificate changed"),
        pytest.param(lambda body: cms.certs_only((CA,)), id="not signed"),
    ],
)
def test_next_ca_is_believed_only_when_the_ra_signed_it(
    spoil: Callable[[bytes], bytes], ra: RaIdentity, client: cms.Signer
) -> None:
    body, _ = next_ca_certificates(ra, (CA,))
    with pytest.raises(Rejection):
        decode_next_ca_certificates(spoil(body), ra.certificate.der)
    with pytest.raises(Rejection, match="another certificate"):
        decode_next_ca_certificates(body, client.certificate)


def test_next_ca_as_openssl_reads_it(ra: RaIdentity, openssl: Callable[..., bytes], testdata: Path) -> None:
    body, _ = next_ca_certificates(ra, (CA,))
    trust = ("-CAfile", str(testdata / "ca.pem"), "-purpose", "any", "-no_check_time")
    content = openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=body)
    assert content == cms.certs_only((CA,))
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", data=content)
    assert printed.count(b"BEGIN CERTIFICATE") == 1
    assert b"Test CA" in printed
    structure = openssl("asn1parse", "-inform", "DER", data=body).decode()
    assert structure.count("pkcs7-signedData") == 1, "the certificates are in an OCTET STRING of id-data"
    assert structure.count(":pkcs7-data") == 2, "as eContentType and as the contentType that is signed"
