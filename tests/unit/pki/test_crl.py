from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import MalformedMessage, Rejection
from gateway.model import RevocationReason
from gateway.pki import crl, der, extensions, keys
from gateway.pki.certificate import Issuer, parse_certificate, self_signed_ca
from gateway.pki.trust import verify_crl

from .conftest import END, NOW, START, Hierarchy

KeyOf = Callable[[str], keys.PrivateKey]
NEXT = NOW + timedelta(days=7)
ENTRIES = tuple((n + 1, START + timedelta(hours=n), reason) for n, reason in enumerate(RevocationReason))


def build(hierarchy: Hierarchy, number: int = 7, entries: tuple[tuple[int, object, RevocationReason], ...] = ENTRIES) -> bytes:
    return crl.build_crl(hierarchy.issuer, number, NOW, NEXT, entries)  # type: ignore[arg-type]


def test_a_list_reads_as_it_was_built(hierarchy: Hierarchy) -> None:
    read = crl.parse_crl(build(hierarchy))
    assert (read.number, read.this_update, read.next_update) == (7, NOW, NEXT)
    assert read.entries == ENTRIES
    assert read.serials == set(range(1, len(ENTRIES) + 1))
    assert read.authority_key_id == parse_certificate(hierarchy.issuing).subject_key_id
    verify_crl(read, parse_certificate(hierarchy.issuing))


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "rsa-2048", "ed25519", "ml-dsa-44", "ml-dsa-65"])
def test_cryptography_reads_and_verifies_what_every_key_signs(spec: str, key_of: KeyOf) -> None:
    root = self_signed_ca(key_of(spec), "CN=Root", START, END)
    data = crl.build_crl(Issuer.from_certificate(root, key_of(spec)), 1 << 100, NOW, NEXT, ENTRIES)
    theirs = x509.load_der_x509_crl(data)
    assert theirs.is_signature_valid(x509.load_der_x509_certificate(root).public_key())  # type: ignore[arg-type]
    assert theirs.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 1 << 100
    assert len(theirs) == len(ENTRIES)
    compromised = theirs.get_revoked_certificate_by_serial_number(2)
    assert compromised is not None
    assert compromised.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    unspecified = theirs.get_revoked_certificate_by_serial_number(1)
    assert unspecified is not None
    assert len(unspecified.extensions) == 0


def test_a_long_list(hierarchy: Hierarchy) -> None:
    entries = tuple((n, NOW, RevocationReason.SUPERSEDED) for n in range(1, 10001))
    assert crl.parse_crl(build(hierarchy, entries=entries)).entries == entries


def test_an_empty_list_has_no_list(hierarchy: Hierarchy, openssl: Callable[..., str]) -> None:
    data = build(hierarchy, entries=())
    assert crl.parse_crl(data).entries == ()
    assert "No Revoked Certificates" in openssl("crl -in crl -noout -text", crl=data)


def test_openssl_refuses_the_revoked_leaf_only(hierarchy: Hierarchy, openssl: Callable[..., str]) -> None:
    serial = parse_certificate(hierarchy.leaf).serial
    files = {"root": hierarchy.root, "issuing": hierarchy.issuing, "leaf": hierarchy.leaf}
    command = "verify -crl_check -attime 1780315300 -CAfile root -untrusted issuing -CRLfile crl leaf"
    assert "OK" in openssl(command, crl=build(hierarchy), **files)
    revoked = build(hierarchy, 8, ((serial, START, RevocationReason.SUPERSEDED),))
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(command, crl=revoked, **files)
    text = openssl("crl -in crl -noout -text", crl=revoked)
    assert "Superseded" in text
    assert "X509v3 CRL Number" in text


def test_what_is_refused_to_be_built(hierarchy: Hierarchy) -> None:
    for number in (-1, 1 << 159):
        with pytest.raises(ValueError, match="number"):
            build(hierarchy, number)
    with pytest.raises(ValueError, match="next update"):
        crl.build_crl(hierarchy.issuer, 1, NOW, NOW, ())


def rebuilt(hierarchy: Hierarchy, *fields: bytes) -> bytes:
    issuer = hierarchy.issuer
    return issuer.sign(der.sequence(der.integer(1), issuer.algorithm, issuer.name_der, der.time(NOW), *fields))


CRITICAL = der.context(0, der.sequence(extensions.encode_extension("2.5.29.27", True, der.integer(1))))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([CRITICAL], id="delta"),
        pytest.param([der.context(1, der.sequence())], id="unknown-field"),
        pytest.param([der.sequence(), der.sequence()], id="two-lists"),
        pytest.param([der.sequence(der.sequence(der.integer(1)))], id="entry-without-time"),
        pytest.param([der.sequence(der.set_of(der.integer(1), der.time(NOW)))], id="entry-is-a-set"),
        pytest.param([der.sequence(der.sequence(der.octet_string(b"\x01"), der.time(NOW)))], id="serial-is-no-integer"),
        pytest.param(
            [
                der.sequence(
                    der.sequence(
                        der.integer(1),
                        der.time(NOW),
                        der.sequence(extensions.encode_extension("2.5.29.29", True, der.sequence())),
                    )
                )
            ],
            id="indirect",
        ),
        pytest.param(
            [
                der.sequence(
                    der.sequence(
                        der.integer(1),
                        der.time(NOW),
                        der.sequence(extensions.encode_extension("2.5.29.21", False, b"\x0a\x01\x07")),
                    )
                )
            ],
            id="unknown-reason",
        ),
    ],
)
def test_lists_that_are_refused(fields: list[bytes], hierarchy: Hierarchy) -> None:
    with pytest.raises(MalformedMessage):
        crl.parse_crl(rebuilt(hierarchy, *fields))


def test_a_list_without_next_update_is_read(hierarchy: Hierarchy) -> None:
    read = crl.parse_crl(rebuilt(hierarchy))
    assert (read.next_update, read.number, read.entries) == (None, None, ())


def test_a_list_of_another_issuer_or_signature(hierarchy: Hierarchy) -> None:
    read = crl.parse_crl(build(hierarchy))
    with pytest.raises(Rejection):
        verify_crl(read, parse_certificate(hierarchy.root))
    with pytest.raises(Rejection):
        verify_crl(read, parse_certificate(hierarchy.leaf))
    for broken in (b"", b"\x30\x00", hierarchy.leaf, build(hierarchy) + b"\x00"):
        with pytest.raises(MalformedMessage):
            crl.parse_crl(broken)


@pytest.mark.parametrize("critical", [True, False])
def test_a_list_with_a_scope_is_read_only_to_be_passed_on(hierarchy: Hierarchy, critical: bool) -> None:
    scope = x509.IssuingDistributionPoint(
        [x509.UniformResourceIdentifier("http://a.example/crl")], None, False, False, None, False, False
    )
    data = sign_with(hierarchy, scope, critical=critical)
    verify_crl(crl.parse_crl(data, scoped=True), parse_certificate(hierarchy.issuing))
    if critical:
        with pytest.raises(MalformedMessage, match="critical"):
            crl.parse_crl(data)
    else:
        crl.parse_crl(data)


def test_no_other_critical_extension_is_taken(hierarchy: Hierarchy) -> None:
    data = sign_with(hierarchy, x509.DeltaCRLIndicator(7), critical=True)
    for scoped in (True, False):
        with pytest.raises(MalformedMessage, match="critical"):
            crl.parse_crl(data, scoped=scoped)


def sign_with(hierarchy: Hierarchy, extension: x509.ExtensionType, *, critical: bool) -> bytes:
    issuer = x509.load_der_x509_certificate(hierarchy.issuing)
    made = x509.CertificateRevocationListBuilder(issuer.subject, NOW, NEXT).add_extension(extension, critical)
    return made.sign(hierarchy.issuer.key, SHA256()).public_bytes(Encoding.DER)
