from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedMessage, Rejection
from gateway.model import UNLIMITED_NOT_AFTER, Extension, SanKind
from gateway.pki import der, keys
from gateway.pki.certificate import (
    Issuer,
    build_certificate,
    der_to_pem,
    key_identifier,
    new_serial,
    parse_certificate,
    pem_to_ders,
    self_signed_ca,
    to_signer,
)
from gateway.pki.csr import build_csr
from gateway.pki.extensions import encode_crl_distribution_point, make_san
from gateway.pki.names import format_name, parse_name_text

from .conftest import END, START, Hierarchy, grant

KeyOf = Callable[[str], keys.PrivateKey]
Openssl = Callable[..., str]


def test_a_certificate_reads_as_it_was_granted(hierarchy: Hierarchy) -> None:
    leaf, issuing = parse_certificate(hierarchy.leaf), parse_certificate(hierarchy.issuing)
    wanted = grant()
    assert leaf.subject.der == wanted.subject_der
    assert leaf.sans == wanted.sans
    assert leaf.key_usage == frozenset(wanted.key_usage)
    assert leaf.ekus == wanted.ekus
    assert (leaf.not_before, leaf.not_after) == (START, END)
    assert (leaf.is_ca, leaf.path_length, leaf.self_issued) == (False, None, False)
    assert leaf.issuer_der == issuing.subject.der
    assert leaf.authority_key_id == issuing.subject_key_id
    assert leaf.subject_key_id == key_identifier(leaf.public_key.der)
    assert leaf.sha256 == hashlib.sha256(hierarchy.leaf).digest()
    assert (issuing.is_ca, issuing.path_length) == (True, 0)


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_cryptography_reads_and_verifies_what_every_key_signs(spec: str, key_of: KeyOf) -> None:
    root = self_signed_ca(key_of(spec), "CN=Root,O=Example", START, END, 1)
    issuer = Issuer.from_certificate(root, key_of(spec))
    leaf = build_certificate(issuer, new_serial(), grant(), keys.public_key_der(key_of("ec-p256")))
    theirs, their_root = x509.load_der_x509_certificate(leaf), x509.load_der_x509_certificate(root)
    theirs.verify_directly_issued_by(their_root)
    their_root.verify_directly_issued_by(their_root)
    assert [e.oid.dotted_string for e in theirs.extensions] == [e.oid for e in parse_certificate(leaf).extensions]
    assert theirs.extensions.get_extension_for_class(x509.KeyUsage).critical
    assert their_root.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 1)
    assert theirs.not_valid_after_utc == END


def test_openssl_judges_the_chain(hierarchy: Hierarchy, openssl: Openssl) -> None:
    output = openssl(
        "verify -x509_strict -purpose sslclient -attime 1780315200 -CAfile root -untrusted issuing leaf",
        root=hierarchy.root,
        issuing=hierarchy.issuing,
        leaf=hierarchy.leaf,
    )
    assert output.strip() == "leaf: OK"


def test_openssl_prints_the_extensions(hierarchy: Hierarchy, openssl: Openssl) -> None:
    text = openssl("x509 -in leaf -noout -text", leaf=hierarchy.leaf)
    for expected in (
        "Digital Signature, Key Encipherment",
        "TLS Web Client Authentication",
        "DNS:dev1.example, IP Address:10.0.0.1",
        "URI:http://127.0.0.1:8080/crl/issuing.crl",
        "CA Issuers - URI:http://127.0.0.1:8080/ca/issuing.crt",
        "CA:FALSE",
        "X509v3 Key Usage: critical",
    ):
        assert expected in text


def test_no_expiration(hierarchy: Hierarchy, openssl: Openssl) -> None:
    data = build_certificate(hierarchy.issuer, 1, grant(not_after=UNLIMITED_NOT_AFTER), keys.public_key_der(hierarchy.leaf_key))
    assert b"\x18\x0f99991231235959Z" in data
    assert parse_certificate(data).not_after == UNLIMITED_NOT_AFTER
    assert x509.load_der_x509_certificate(data).not_valid_after_utc == UNLIMITED_NOT_AFTER
    assert "Dec 31 23:59:59 9999 GMT" in openssl("x509 -in leaf -noout -enddate", leaf=data)


def test_an_empty_subject_makes_the_names_critical(hierarchy: Hierarchy, openssl: Openssl) -> None:
    data = build_certificate(hierarchy.issuer, 1, grant(""), keys.public_key_der(hierarchy.leaf_key))
    assert next(e for e in parse_certificate(data).extensions if e.oid == "2.5.29.17").critical
    assert "X509v3 Subject Alternative Name: critical" in openssl("x509 -in leaf -noout -text", leaf=data)


def test_granted_extensions_are_carried(hierarchy: Hierarchy) -> None:
    wanted = (Extension("1.2.3.4", True, b"\x05\x00"), Extension("1.3.6.1.4.1.311.25.2", False, b"\x30\x00"))
    data = build_certificate(hierarchy.issuer, 1, grant(extensions=wanted), keys.public_key_der(hierarchy.leaf_key))
    assert parse_certificate(data).extensions[-2:] == wanted


def test_a_granted_pointer_stands_instead_of_ours(hierarchy: Hierarchy) -> None:
    pointer = Extension("2.5.29.31", False, encode_crl_distribution_point("http://127.0.0.1/granted.crl"))
    data = build_certificate(
        hierarchy.issuer,
        1,
        grant(extensions=(pointer,)),
        keys.public_key_der(hierarchy.leaf_key),
        crl_url="http://127.0.0.1/x.crl",
    )
    assert [e for e in parse_certificate(data).extensions if e.oid == "2.5.29.31"] == [pointer]


def test_no_usages_leave_no_extensions(hierarchy: Hierarchy) -> None:
    data = build_certificate(hierarchy.issuer, 1, grant(key_usage=(), ekus=(), sans=()), keys.public_key_der(hierarchy.leaf_key))
    leaf = parse_certificate(data)
    assert (leaf.key_usage, leaf.ekus, leaf.sans) == (None, None, ())


@pytest.mark.parametrize(
    ("changes", "serial"),
    [
        pytest.param({"key_usage": ("keyCertSign",)}, 1, id="keyCertSign"),
        pytest.param({"key_usage": ("digitalSignature", "cRLSign")}, 1, id="cRLSign"),
        pytest.param(
            {"extensions": (Extension("2.5.29.19", True, b"\x30\x03\x01\x01\xff"),)}, 1, id="basic-constraints-by-extension"
        ),
        pytest.param({"extensions": (Extension("2.5.29.15", True, b"\x03\x02\x02\x04"),)}, 1, id="key-usage-by-extension"),
        pytest.param({"extensions": (Extension("1.2.3", False, b""),) * 2}, 1, id="extension-twice"),
        pytest.param({"subject_der": b"\x30\x00", "sans": ()}, 1, id="no-name-at-all"),
        pytest.param({"not_after": START - timedelta(seconds=1)}, 1, id="ends-before-it-begins"),
        pytest.param({}, 0, id="serial-zero"),
        pytest.param({}, -1, id="negative-serial"),
        pytest.param({}, 1 << 159, id="serial-of-21-bytes"),
        pytest.param({"key_usage": ("nonsense",)}, 1, id="unknown-usage"),
    ],
)
def test_what_must_never_be_signed(changes: dict[str, object], serial: int, hierarchy: Hierarchy) -> None:
    with pytest.raises(ValueError):
        build_certificate(
            hierarchy.issuer,
            serial,
            replace(grant(), **changes),  # type: ignore[arg-type]
            keys.public_key_der(hierarchy.leaf_key),
            crl_url="http://127.0.0.1/x.crl",
        )


def test_an_issuer_needs_its_own_key(hierarchy: Hierarchy) -> None:
    with pytest.raises(ValueError, match="private key"):
        Issuer.from_certificate(hierarchy.issuing, hierarchy.root_key)
    assert "key" not in repr(hierarchy.issuer)


def test_an_issuer_signs_with_the_digest_that_it_was_given(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    root = self_signed_ca(key_of("rsa-2048"), "CN=R", START, END)
    issuer = Issuer.from_certificate(root, key_of("rsa-2048"), "sha512")
    leaf = x509.load_der_x509_certificate(build_certificate(issuer, 1, grant(), keys.public_key_der(hierarchy.leaf_key)))
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA512)


def test_serials_are_positive_and_fit() -> None:
    drawn = [new_serial() for _ in range(200)]
    assert len(set(drawn)) == 200
    assert all(0 < s < 1 << 159 for s in drawn)
    assert max(s.bit_length() for s in drawn) >= 157


def certificate_without_extensions() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, START, END)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_certificates_of_others_are_read() -> None:
    certificate = parse_certificate(certificate_without_extensions())
    assert certificate.self_issued
    assert certificate.extensions == ()
    assert to_signer(certificate).self_signed
    assert format_name(to_signer(certificate).subject) == "CN=x"


def test_openssl_made_certificates_are_read(openssl: Openssl, key_of: KeyOf) -> None:
    pem = openssl(
        "req -x509 -new -key key -subj /CN=v3 -days 3 -addext certificatePolicies=1.2.3 -addext nameConstraints=permitted;DNS:.x",
        key=keys.serialize_private_key(key_of("rsa-2048")),
    )
    (data,) = pem_to_ders(pem.encode())
    certificate = parse_certificate(data)
    assert certificate.is_ca
    assert {"2.5.29.32", "2.5.29.30"} <= {e.oid for e in certificate.extensions}
    old = openssl("x509 -req -in csr -signkey key -days 3", csr=request_of(key_of("rsa-2048")))
    assert parse_certificate(pem_to_ders(old.encode())[0]).extensions == ()


def request_of(key: keys.PrivateKey) -> bytes:
    return build_csr(key, parse_name_text("CN=v1").der)


def rebuilt(hierarchy: Hierarchy, **changes: bytes) -> bytes:
    """The leaf with some fields of its to-be-signed part replaced (its signature no longer fits)."""
    body = der.content(der.SEQUENCE, hierarchy.leaf)
    tbs, algorithm, signature = (body[p[1] : p[3]] for p in der.elements(body))
    content = der.content(der.SEQUENCE, tbs)
    names = ("version", "serial", "inner", "issuer", "validity", "subject", "key", "extensions")
    fields = {n: content[f[1] : f[3]] for n, f in zip(names, der.elements(content), strict=True)}
    outer = {"algorithm": algorithm, "signature": signature}
    fields |= {k: v for k, v in changes.items() if k in fields}
    outer |= {k: v for k, v in changes.items() if k in outer}
    behind = changes.get("behind", b"")
    return der.sequence(der.sequence(*fields.values(), behind), outer["algorithm"], outer["signature"])


EXTENSION = der.sequence(der.oid("1.2.3"), der.octet_string(b""))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"inner": der.sequence(der.oid("1.2.3"))}, id="algorithms-differ"),
        pytest.param({"serial": der.tlv(2, b"\x01" * 65)}, id="serial-of-65-bytes"),
        pytest.param({"serial": der.tlv(2)}, id="serial-without-content"),
        pytest.param({"serial": der.octet_string(b"\x01")}, id="serial-is-no-integer"),
        pytest.param({"validity": der.sequence(der.time(START))}, id="one-time"),
        pytest.param({"validity": der.sequence(der.time(START), der.utf8_string("now"))}, id="time-is-text"),
        pytest.param({"subject": der.set_of()}, id="subject-is-a-set"),
        pytest.param({"key": der.sequence()}, id="no-key"),
        pytest.param({"extensions": der.context(3, der.sequence(EXTENSION, EXTENSION))}, id="extension-twice"),
        pytest.param({"extensions": der.context(4, der.sequence(EXTENSION))}, id="unknown-field"),
        pytest.param({"behind": der.context(3, der.sequence(EXTENSION))}, id="extensions-twice"),
        pytest.param({"signature": der.bit_string(b"x", 1)}, id="signature-of-bits"),
        pytest.param({"signature": der.octet_string(b"x")}, id="signature-is-no-bit-string"),
    ],
)
def test_broken_certificates(changes: dict[str, bytes], hierarchy: Hierarchy) -> None:
    assert rebuilt(hierarchy) == hierarchy.leaf
    with pytest.raises(MalformedMessage):
        parse_certificate(rebuilt(hierarchy, **changes))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x00", id="empty-sequence"),
        pytest.param(b"\x30\x80" * 100, id="indefinite"),
        pytest.param(b"\x30\x82\xff\xff" + bytes(65535), id="too-large"),
        pytest.param(der.sequence(der.sequence(), der.sequence(), der.bit_string(b"")), id="empty-parts"),
    ],
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_certificate(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutations_are_refused_by_a_rejection(data: st.DataObject) -> None:
    message = bytearray(_SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Rejection):
        parse_certificate(bytes(message[: data.draw(st.integers(0, len(message)))]))
    with contextlib.suppress(Rejection):
        parse_certificate(bytes(message))


_SAMPLE = self_signed_ca(keys.generate_private_key("ec-p256"), "CN=Root,O=Example,C=CH", START, END, 3)


def test_pem_goes_both_ways(hierarchy: Hierarchy) -> None:
    chain = der_to_pem(hierarchy.issuing) + b"# root\r\n" + der_to_pem(hierarchy.root).replace(b"\n", b"\r\n")
    key = keys.serialize_private_key(hierarchy.leaf_key)
    assert pem_to_ders(key + chain) == (hierarchy.issuing, hierarchy.root)
    assert pem_to_ders(hierarchy.leaf) == (hierarchy.leaf,)
    assert pem_to_ders(der_to_pem(b"\x30\x00", "CERTIFICATE REQUEST"), "CERTIFICATE REQUEST") == (b"\x30\x00",)
    assert x509.load_pem_x509_certificate(der_to_pem(hierarchy.leaf)).serial_number


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n", id="broken-base64"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END X509 CRL-----\n", id="other-end"),
        pytest.param(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", id="other-label"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\n" * 2000, id="beginnings-without-end"),
    ],
)
def test_what_is_no_pem(pem: bytes) -> None:
    with pytest.raises(ValueError, match="PEM"):
        pem_to_ders(pem)


def test_a_name_in_another_encoding_is_still_self_issued(key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    issuer_name = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.printable_string("ROOT"))))
    issuer = Issuer.create(issuer_name, key, b"\x01" * 20)
    data = build_certificate(issuer, 1, grant("CN=root"), keys.public_key_der(key))
    assert parse_certificate(data).self_issued


def test_times_are_kept_to_the_second(hierarchy: Hierarchy) -> None:
    start = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
    data = build_certificate(hierarchy.issuer, 1, grant(not_before=start), keys.public_key_der(hierarchy.leaf_key))
    assert parse_certificate(data).not_before == start.replace(microsecond=0)


def test_kinds_of_names_reach_the_certificate(hierarchy: Hierarchy) -> None:
    sans = (make_san(SanKind.SID, "S-1-5-21-1-2-3-1001"), make_san(SanKind.UPN, "u@ad.example"))
    data = build_certificate(hierarchy.issuer, 1, grant(sans=sans), keys.public_key_der(hierarchy.leaf_key))
    assert parse_certificate(data).sans == sans
