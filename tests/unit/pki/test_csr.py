from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, Extension, RequestForm, SanKind
from gateway.pki import der, extensions, keys
from gateway.pki.csr import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENSION_REQUEST,
    MICROSOFT_EXTENSION_REQUEST,
    build_csr,
    parse_csr,
)
from gateway.pki.extensions import make_san
from gateway.pki.names import format_name, parse_name_text

GOLDEN = Path(__file__).parents[3] / "testdata" / "pkcs10"
KeyOf = Callable[[str], keys.PrivateKey]


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.der").read_bytes()


@pytest.mark.parametrize(
    ("name", "subject", "challenge", "digest"),
    [
        pytest.param("scepclient-2.1.0-enroll", "CN=dev1,OU=MDM,O=scep-client,C=CH", "secret", "sha256", id="scepclient"),
        pytest.param("strongswan-5.9.8-unsorted-attributes", "CN=moon,O=lab,C=CH", "secret", "sha256", id="unsorted-attributes"),
        pytest.param("strongswan-5.9.8-renewal", "CN=moon,O=lab,C=CH", "secret", "sha256", id="strongswan-renewal"),
        pytest.param("strongswan-5.9.8-pss", "CN=moon,O=lab,C=CH", "secret", "sha256", id="strongswan-pss"),
        pytest.param("sscep-0.10-renewal", "CN=ss1,C=CH", "secret", "sha256", id="sscep"),
        pytest.param("jscep-enroll", "CN=jscep1,C=CH", "secret", "sha256", id="jscep"),
        pytest.param("openssl-3.0-sha1", "CN=sha1", None, "sha1", id="sha1-is-reported"),
        pytest.param("openssl-3.0-pss", "CN=pss", None, "sha256", id="pss"),
        pytest.param("openssl-3.0-ed25519", "CN=ed", None, "none", id="ed25519"),
    ],
)
def test_requests_of_real_clients(name: str, subject: str, challenge: str | None, digest: str) -> None:
    data = golden(name)
    request = parse_csr(data)
    assert format_name(request.subject) == subject
    assert request.challenge_password == challenge
    assert request.signature_digest == digest
    assert request.der is data
    assert request.form is RequestForm.PKCS10
    assert "secret" not in repr(request)


def test_every_requested_extension_is_read() -> None:
    request = parse_csr(golden("openssl-3.0-ec-all-extensions"))
    assert format_name(request.subject) == "serialNumber=7+CN=ec,O=Käse AG,C=CH"
    assert [(s.kind, s.value) for s in request.sans] == [
        (SanKind.DNS, "a.example"),
        (SanKind.IP, "10.0.0.1"),
        (SanKind.IP, "2001:db8::1"),
        (SanKind.EMAIL, "a@b.example"),
        (SanKind.URI, "https://x.example/y"),
        (SanKind.UPN, "user@ad.example"),
        (SanKind.DIRECTORY_NAME, "CN=inner"),
        (SanKind.OTHER, "registeredID:1.2.3.4"),
    ]
    assert request.key_usage == frozenset({"digitalSignature"})
    assert request.ekus == ("1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2")
    assert request.is_ca
    assert [e.oid for e in request.extensions] == ["1.2.3.4.5"]
    assert (request.public_key.algorithm, request.public_key.curve, request.signature_digest) == ("ec", "P-384", "sha384")


def test_md5_is_verified_and_named_for_policy_to_judge() -> None:
    data = golden("openssl-3.0-md5")
    assert parse_csr(data).signature_digest == "md5"
    with pytest.raises(Rejection) as raised:
        parse_csr(data[:-1] + bytes((data[-1] ^ 1,)))
    assert raised.value.reason is Reason.BAD_PROOF_OF_POSSESSION


def test_md5_with_another_key_than_rsa_is_unsupported(key_of: KeyOf) -> None:
    data = build_csr(key_of("ec-p256"), parse_name_text("CN=a").der)
    ecdsa, rsa_md5 = der.sequence(der.oid("1.2.840.10045.4.3.2")), der.sequence(der.oid("1.2.840.113549.1.1.4"), der.null())
    info_start, _ = der.read_as(der.SEQUENCE, data)
    _, info_end = der.read_as(der.SEQUENCE, data, info_start)
    crafted = der.sequence(data[info_start:info_end], rsa_md5, data[info_end + len(ecdsa) :])
    with pytest.raises(Rejection) as raised:
        parse_csr(crafted)
    assert raised.value.reason is Reason.BAD_PROOF_OF_POSSESSION


def test_digest_is_over_what_is_signed() -> None:
    data = golden("openssl-3.0-ed25519")
    info = x509.load_der_x509_csr(data).tbs_certrequest_bytes
    assert parse_csr(data).digest == hashlib.sha256(info).digest()


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256", "ec-p384", "ec-p521", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_what_we_build_we_and_cryptography_read(spec: str, key_of: KeyOf) -> None:
    sans = (make_san(SanKind.DNS, "a.example"), make_san(SanKind.UPN, "u@ad.example"))
    data = build_csr(
        key_of(spec),
        parse_name_text("CN=a,O=b").der,
        sans,
        "p4ss",
        key_usage=["digitalSignature"],
        ekus=["1.3.6.1.5.5.7.3.2"],
        other_extensions=[Extension("1.2.3", False, b"\x05\x00")],
    )
    request = parse_csr(data)
    assert (request.sans, request.challenge_password) == (sans, "p4ss")
    assert request.key_usage == frozenset({"digitalSignature"})
    assert request.ekus == ("1.3.6.1.5.5.7.3.2",)
    assert request.extensions == (Extension("1.2.3", False, b"\x05\x00"),)
    theirs = x509.load_der_x509_csr(data)
    assert theirs.is_signature_valid
    assert len(theirs.extensions) == 4
    assert theirs.attributes.get_attribute_for_oid(x509.ObjectIdentifier(CHALLENGE_PASSWORD)).value == b"p4ss"


def test_openssl_accepts_what_we_build(key_of: KeyOf, openssl: Callable[..., str]) -> None:
    data = build_csr(key_of("ec-p256"), parse_name_text("CN=a").der, (), "geheim ä")
    assert "CN = a" in openssl("req -in csr -verify -noout -subject", csr=data)


def test_an_empty_subject_and_no_attributes(key_of: KeyOf) -> None:
    request = parse_csr(build_csr(key_of("ec-p256"), b"\x30\x00"))
    assert request.subject.rdns == ()
    assert (request.sans, request.key_usage, request.ekus, request.challenge_password) == ((), None, None, None)


def signed(key: keys.PrivateKey, info: bytes) -> bytes:
    return der.sequence(info, keys.signature_algorithm(key, "sha256"), der.bit_string(keys.sign(key, info)))


def with_attributes(key: keys.PrivateKey, *attributes: bytes, sort: bool = True) -> bytes:
    parts = sorted(attributes) if sort else attributes
    return signed(key, der.sequence(der.integer(0), b"\x30\x00", keys.public_key_der(key), der.context(0, *parts)))


def attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(*values))


SAN_A = der.sequence(extensions.encode_extension("2.5.29.17", False, der.sequence(b"\x82\x01a")))
SAN_B = der.sequence(extensions.encode_extension("2.5.29.17", False, der.sequence(b"\x82\x01b")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(der.printable_string("p w"), "p w", id="printable"),
        pytest.param(der.utf8_string("pä"), "pä", id="utf8"),
        pytest.param(der.ia5_string("p@"), "p@", id="ia5"),
        pytest.param(der.tlv(20, b"p\xe4"), "pä", id="t61"),
        pytest.param(der.tlv(30, "pä".encode("utf-16-be")), "pä", id="bmp"),
        pytest.param(der.tlv(28, "pä".encode("utf-32-be")), "pä", id="universal"),
        pytest.param(der.printable_string("x" * 8000), "x" * 8000, id="intune-sized"),
        pytest.param(der.printable_string(""), None, id="empty-is-none"),
    ],
)
def test_challenge_of_any_string_type(value: bytes, text: str | None, key_of: KeyOf) -> None:
    assert parse_csr(with_attributes(key_of("ec-p256"), attribute(CHALLENGE_PASSWORD, value))).challenge_password == text


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(
            [attribute(CHALLENGE_PASSWORD, der.utf8_string("a")), attribute(CHALLENGE_PASSWORD, der.utf8_string("b"))],
            id="two-challenges",
        ),
        pytest.param([attribute(CHALLENGE_PASSWORD, der.utf8_string("a"), der.utf8_string("b"))], id="two-values"),
        pytest.param([attribute(CHALLENGE_PASSWORD, der.integer(1))], id="challenge-is-no-string"),
        pytest.param([attribute(CHALLENGE_PASSWORD, der.tlv(12, b"\xff"))], id="challenge-is-no-utf8"),
        pytest.param([attribute(CHALLENGE_PASSWORD, der.printable_string("x" * 16385))], id="challenge-is-huge"),
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A), attribute(EXTENSION_REQUEST, SAN_B)], id="two-extension-requests"),
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A), attribute(MICROSOFT_EXTENSION_REQUEST, SAN_B)], id="two-that-differ"),
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A, SAN_B)], id="two-extension-lists"),
        pytest.param([attribute(EXTENSION_REQUEST, der.null())], id="extension-request-is-no-list"),
        pytest.param([attribute(EXTENSION_REQUEST, der.sequence(*[der.content(0x30, SAN_A)] * 2))], id="extension-repeated"),
        pytest.param([attribute(f"1.2.{n}", der.null()) for n in range(33)], id="too-many"),
        pytest.param([der.sequence(der.oid("1.2.3"), der.sequence())], id="values-are-no-set"),
        pytest.param([der.sequence(der.set_of(), der.oid("1.2.3"))], id="turned-round"),
        pytest.param([der.sequence(der.oid("1.2.3"), der.set_of(), der.null())], id="field-behind"),
        pytest.param([der.set_of()], id="attribute-is-no-sequence"),
        pytest.param(
            [attribute(EXTENSION_REQUEST, der.sequence(extensions.encode_extension("2.5.29.15", True, b"\x03\x03\x00\x00\x01")))],
            id="key-usage-bit-that-does-not-exist",
        ),
    ],
)
def test_attributes_that_are_refused(attributes: list[bytes], key_of: KeyOf) -> None:
    with pytest.raises(MalformedMessage):
        parse_csr(with_attributes(key_of("ec-p256"), *attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A)], id="pkcs9"),
        pytest.param([attribute(MICROSOFT_EXTENSION_REQUEST, SAN_A)], id="microsoft"),
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A), attribute(MICROSOFT_EXTENSION_REQUEST, SAN_A)], id="both-the-same"),
        pytest.param([attribute("1.2.3", der.null(), der.integer(1)), attribute(EXTENSION_REQUEST, SAN_A)], id="beside-unknown"),
        pytest.param([attribute(EXTENSION_REQUEST, SAN_A), attribute(CHALLENGE_PASSWORD, der.utf8_string("x"))], id="unsorted"),
    ],
)
def test_extension_requests(attributes: list[bytes], key_of: KeyOf) -> None:
    request = parse_csr(with_attributes(key_of("ec-p256"), *attributes, sort=False))
    assert [s.value for s in request.sans] == ["a"]


def test_an_empty_extension_request_asks_for_nothing(key_of: KeyOf) -> None:
    assert parse_csr(with_attributes(key_of("ec-p256"), attribute(EXTENSION_REQUEST))).sans == ()
    assert parse_csr(with_attributes(key_of("ec-p256"), attribute(EXTENSION_REQUEST, der.sequence()))).sans == ()


def test_attributes_may_be_absent_altogether(key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    info = der.sequence(der.integer(0), b"\x30\x00", keys.public_key_der(key))
    assert parse_csr(signed(key, info)).challenge_password is None


def test_a_request_signed_by_another_key(key_of: KeyOf) -> None:
    info = der.sequence(der.integer(0), b"\x30\x00", keys.public_key_der(key_of("ec-p256")), der.context(0))
    with pytest.raises(Rejection) as raised:
        parse_csr(signed(key_of("ec-p384"), info))
    assert raised.value.reason is Reason.BAD_PROOF_OF_POSSESSION
    with pytest.raises(Rejection) as raised:
        parse_csr(signed(key_of("rsa-2048"), info))
    assert raised.value.reason is Reason.BAD_PROOF_OF_POSSESSION


@pytest.mark.parametrize("version", [1, 2, -1, 1 << 64])
def test_other_versions(version: int, key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    with pytest.raises(MalformedMessage):
        parse_csr(signed(key, der.sequence(der.integer(version), b"\x30\x00", keys.public_key_der(key), der.context(0))))


def test_a_request_in_ber_verifies_over_its_der(key_of: KeyOf) -> None:
    data = build_csr(key_of("ec-p256"), parse_name_text("CN=a").der)
    body = der.content(der.SEQUENCE, data)
    request = parse_csr(b"\x30\x80" + body + b"\x00\x00")
    assert request.der == data
    assert request.digest == parse_csr(data).digest


def test_linking_attributes_do_not_count_in_the_digest(key_of: KeyOf) -> None:
    key, kept = key_of("ec-p256"), attribute(EXTENSION_REQUEST, SAN_A)
    plain = parse_csr(with_attributes(key, kept)).digest
    linked = [with_attributes(key, kept, attribute(EST_IDENTITY_LINKING, der.utf8_string(t))) for t in ("one", "two")]
    assert {parse_csr(data).digest for data in linked} == {plain}
    challenged = [with_attributes(key, kept, attribute(CHALLENGE_PASSWORD, der.utf8_string(t))) for t in ("one", "two")]
    assert len({parse_csr(data).digest for data in challenged} | {plain}) == 3
    assert {parse_csr(data, linking=frozenset({CHALLENGE_PASSWORD})).digest for data in challenged} == {plain}


@pytest.mark.parametrize("name", [p.stem for p in sorted(GOLDEN.glob("*.der"))])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutations_are_refused_by_a_rejection(name: str, data: st.DataObject) -> None:
    message = bytearray(golden(name))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    for hostile in (bytes(message), bytes(message[:cut])):
        with contextlib.suppress(Rejection):
            assert isinstance(parse_csr(hostile), CertificateRequest)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(lambda key: with_attributes(key, attribute("1.2.3", *[der.null()] * 8000)), id="8000-values"),
        pytest.param(
            lambda key: with_attributes(key, attribute(CHALLENGE_PASSWORD, der.utf8_string("ü" * 30000))), id="long-challenge"
        ),
        pytest.param(
            lambda key: with_attributes(
                key,
                attribute(
                    EXTENSION_REQUEST,
                    der.sequence(extensions.encode_extension("2.5.29.17", False, der.sequence(*[b"\x82\x01a"] * 20000))),
                ),
            ),
            id="20000-names",
        ),
        pytest.param(
            lambda key: with_attributes(
                key,
                attribute(
                    EXTENSION_REQUEST,
                    der.sequence(extensions.encode_extension("2.5.29.37", False, der.sequence(der.tlv(6, b"\x81" * 60000)))),
                ),
            ),
            id="object-identifier-hidden-in-an-octet-string",
        ),
        pytest.param(
            lambda key: with_attributes(
                key,
                attribute(
                    EXTENSION_REQUEST,
                    der.sequence(extensions.encode_extension("2.5.29.17", False, der.sequence(der.context(4, b"\x30" * 60000)))),
                ),
            ),
            id="junk-in-a-directory-name",
        ),
    ],
)
def test_hostile_requests_cost_little(hostile: Callable[[keys.PrivateKey], bytes], key_of: KeyOf) -> None:
    data = hostile(key_of("ec-p256"))
    began = time.process_time()
    with contextlib.suppress(MalformedMessage):
        parse_csr(data)
    assert time.process_time() - began < 0.05
