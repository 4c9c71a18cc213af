"""Bundles of CA certificates and CRLs that an operator trusts: what stands below them, what does not, and what cannot be one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.errors import Reason, Rejection
from gateway.model import Extension, RevocationReason
from gateway.pki import der, keys
from gateway.pki.certificate import (
    CA_KEY_USAGE,
    Certificate,
    Issuer,
    build_certificate,
    der_to_pem,
    key_identifier,
    new_serial,
    parse_certificate,
    self_signed_ca,
)
from gateway.pki.crl import build_crl
from gateway.pki.names import parse_name_text
from gateway.pki.trust import MAX_ANCHORS, CrlTerm, TrustAnchors

from .conftest import END, NOW, START, Hierarchy, grant, make_hierarchy

KeyOf = Callable[[str], keys.PrivateKey]
DAY = timedelta(days=1)
WEEK = 7 * DAY


@pytest.fixture(scope="session")
def fleet(key_of: KeyOf) -> Hierarchy:
    return make_hierarchy(key_of("ec-p256"), key_of("ec-p384"), key_of("ed25519"))


def pem(*certificates: bytes, label: str = "CERTIFICATE") -> bytes:
    return b"".join(der_to_pem(certificate, label) for certificate in certificates)


def crl_of(
    ca: bytes, key: keys.PrivateKey, *revoked: int, this_update: datetime = NOW - DAY, next_update: datetime = NOW + WEEK
) -> bytes:
    entries = tuple((serial, START, RevocationReason.CESSATION_OF_OPERATION) for serial in revoked)
    return build_crl(Issuer.from_certificate(ca, key), 1, this_update, next_update, entries)


def lists(fleet: Hierarchy, *revoked: int, of_root: tuple[int, ...] = (), **times: Any) -> bytes:
    issuing = crl_of(fleet.issuing, fleet.issuing_key, *revoked, **times)
    return pem(issuing, crl_of(fleet.root, fleet.root_key, *of_root), label="X509 CRL")


def issue(fleet: Hierarchy, **changes: object) -> Certificate:
    """A device certificate below the issuing CA."""
    public_key = keys.public_key_der(fleet.leaf_key)
    return parse_certificate(build_certificate(fleet.issuer, new_serial(), grant(**changes), public_key))  # type: ignore[arg-type]


def refusal(anchors: TrustAnchors, leaf: Certificate, at: datetime = NOW, grace: timedelta = timedelta(0)) -> Rejection:
    with pytest.raises(Rejection) as raised:
        anchors.verify(leaf, at, grace)
    return raised.value


def signed_anew(certificate: Certificate, key: keys.PrivateKey, algorithm: str, digest: hashes.HashAlgorithm) -> Certificate:
    """The same certificate under another of the RSA signature algorithms, whose OIDs are equally long."""
    assert isinstance(key, rsa.RSAPrivateKey)
    names = der.oid("1.2.840.113549.1.1.11"), der.oid(algorithm)
    to_be_signed = certificate.tbs.replace(*names)
    signature = der.bit_string(key.sign(to_be_signed, padding.PKCS1v15(), digest))
    return parse_certificate(der.sequence(to_be_signed, certificate.algorithm.replace(*names), signature))


@pytest.mark.parametrize(
    ("algorithm", "digest", "trusted"),
    [
        pytest.param("1.2.840.113549.1.1.12", hashes.SHA384(), True, id="sha384"),
        pytest.param("1.2.840.113549.1.1.5", hashes.SHA1(), False, id="sha1"),
        pytest.param("1.2.840.113549.1.1.4", hashes.MD5(), False, id="md5"),
    ],
)
def test_digests_under_which_certificates_have_twins(
    key_of: KeyOf, algorithm: str, digest: hashes.HashAlgorithm, trusted: bool
) -> None:
    fleet = make_hierarchy(key_of("rsa-2048"), key_of("rsa-2048"), key_of("ed25519"))
    leaf = signed_anew(issue(fleet), fleet.issuing_key, algorithm, digest)
    anchors = TrustAnchors.parse(pem(fleet.issuing))
    if trusted:
        anchors.verify(leaf, NOW)
    else:
        assert refusal(anchors, leaf).reason is Reason.NOT_AUTHORIZED


@pytest.mark.parametrize("names", [("root", "issuing"), ("issuing", "root"), ("issuing",)], ids="-".join)
def test_below_any_certificate_of_the_bundle(names: tuple[str, ...], fleet: Hierarchy) -> None:
    anchors = TrustAnchors.parse(pem(*(getattr(fleet, name) for name in names)))
    anchors.verify(parse_certificate(fleet.leaf), NOW)


def test_a_missing_intermediate_is_not_guessed(fleet: Hierarchy) -> None:
    refused = refusal(TrustAnchors.parse(pem(fleet.root)), parse_certificate(fleet.leaf))
    assert refused.reason is Reason.NOT_AUTHORIZED
    assert "issued by no CA of the bundle" in refused.cause


def test_of_another_pki(fleet: Hierarchy, hierarchy: Hierarchy, key_of: KeyOf) -> None:
    anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing))
    assert refusal(anchors, parse_certificate(hierarchy.leaf)).reason is Reason.NOT_AUTHORIZED
    impostor = self_signed_ca(key_of("ec-p521"), "CN=Issuing,O=Example", START, END)
    public_key = keys.public_key_der(fleet.leaf_key)
    forged = build_certificate(Issuer.from_certificate(impostor, key_of("ec-p521")), 7, grant(), public_key)
    assert refusal(anchors, parse_certificate(forged)).reason is Reason.NOT_AUTHORIZED
    own = self_signed_ca(fleet.leaf_key, "CN=dev1,O=Example", START, END)
    assert refusal(anchors, parse_certificate(own)).reason is Reason.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("changes", "grace", "reason"),
    [
        pytest.param({"not_after": NOW}, timedelta(0), None, id="last-second"),
        pytest.param({"not_after": NOW - DAY}, timedelta(0), Reason.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param({"not_after": NOW - DAY}, DAY, None, id="expired-within-grace"),
        pytest.param({"not_after": NOW - 2 * DAY}, DAY, Reason.CREDENTIAL_EXPIRED, id="expired-beyond-grace"),
        pytest.param({"not_before": NOW + DAY}, DAY, Reason.NOT_AUTHORIZED, id="not-valid-yet"),
    ],
)
def test_times_of_the_leaf(changes: dict[str, object], grace: timedelta, reason: Reason | None, fleet: Hierarchy) -> None:
    anchors, leaf = TrustAnchors.parse(pem(fleet.root, fleet.issuing)), issue(fleet, **changes)
    if reason is None:
        anchors.verify(leaf, NOW, grace)
    else:
        assert refusal(anchors, leaf, grace=grace).reason is reason


def test_an_expired_ca_speaks_for_nobody(fleet: Hierarchy) -> None:
    root = self_signed_ca(fleet.root_key, "CN=Root,O=Example", START, NOW - DAY)
    leaf = issue(fleet, not_after=NOW - 2 * DAY)
    assert refusal(TrustAnchors.parse(pem(root, fleet.issuing)), leaf, grace=WEEK).reason is Reason.NOT_AUTHORIZED
    TrustAnchors.parse(pem(fleet.issuing)).verify(leaf, NOW, WEEK)


def test_a_renewed_root_beside_the_old_one(fleet: Hierarchy, key_of: KeyOf) -> None:
    old = self_signed_ca(fleet.root_key, "CN=Root,O=Example", START, NOW - DAY)
    other_key = self_signed_ca(key_of("ec-p521"), "CN=Root,O=Example", START, END)
    anchors = TrustAnchors.parse(pem(old, other_key, fleet.issuing, fleet.root))
    anchors.verify(parse_certificate(fleet.leaf), NOW)


def test_path_rules_hold_inside_the_bundle(fleet: Hierarchy, key_of: KeyOf) -> None:
    sub = grant("CN=Below", sans=(), key_usage=CA_KEY_USAGE, ekus=())
    below = build_certificate(fleet.issuer, 2, sub, keys.public_key_der(key_of("ec-p521")), is_ca=True)
    public_key = keys.public_key_der(fleet.leaf_key)
    leaf = parse_certificate(build_certificate(Issuer.from_certificate(below, key_of("ec-p521")), 3, grant(), public_key))
    refused = refusal(TrustAnchors.parse(pem(fleet.root, fleet.issuing, below)), leaf)
    assert refused.reason is Reason.NOT_AUTHORIZED
    assert "CA certificates stand below it" in refused.cause


def test_unknown_critical_extension_of_the_leaf(fleet: Hierarchy) -> None:
    leaf = issue(fleet, extensions=(Extension("1.2.3", True, b"\x05\x00"),))
    assert refusal(TrustAnchors.parse(pem(fleet.issuing)), leaf).reason is Reason.NOT_AUTHORIZED


class TestRevocation:
    def test_not_listed(self, fleet: Hierarchy) -> None:
        anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing), lists(fleet, 1, 2, 3))
        anchors.verify(parse_certificate(fleet.leaf), NOW)
        assert anchors.without_crl(NOW) == ()

    def test_listed(self, fleet: Hierarchy) -> None:
        leaf = parse_certificate(fleet.leaf)
        refused = refusal(TrustAnchors.parse(pem(fleet.root, fleet.issuing), lists(fleet, leaf.serial)), leaf)
        assert refused.reason is Reason.CREDENTIAL_REVOKED

    def test_an_intermediate_that_is_listed(self, fleet: Hierarchy) -> None:
        serial = parse_certificate(fleet.issuing).serial
        anchors = TrustAnchors.parse(pem(fleet.issuing, fleet.root), lists(fleet, of_root=(serial,)))
        assert refusal(anchors, parse_certificate(fleet.leaf)).reason is Reason.CREDENTIAL_REVOKED

    @pytest.mark.parametrize(
        "times",
        [
            pytest.param({"this_update": NOW + timedelta(seconds=1)}, id="of-tomorrow"),
            pytest.param({"next_update": NOW}, id="ended-now"),
            pytest.param({"next_update": NOW - timedelta(hours=1)}, id="ended"),
        ],
    )
    def test_a_list_that_is_not_in_force(self, times: dict[str, Any], fleet: Hierarchy) -> None:
        anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing), lists(fleet, **times))
        refused = refusal(anchors, parse_certificate(fleet.leaf))
        assert refused.reason is Reason.NOT_AUTHORIZED
        assert "no CRL in force" in refused.cause
        assert [ca.der for ca in anchors.without_crl(NOW)] == [fleet.issuing]

    def test_no_list_of_one_ca_of_the_path(self, fleet: Hierarchy) -> None:
        only_issuing = pem(crl_of(fleet.issuing, fleet.issuing_key), label="X509 CRL")
        anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing), only_issuing)
        assert refusal(anchors, parse_certificate(fleet.leaf)).reason is Reason.NOT_AUTHORIZED
        TrustAnchors.parse(pem(fleet.issuing), only_issuing).verify(parse_certificate(fleet.leaf), NOW)

    def test_any_list_in_force_revokes(self, fleet: Hierarchy) -> None:
        leaf = parse_certificate(fleet.leaf)
        both = lists(fleet, leaf.serial) + lists(fleet)
        assert refusal(TrustAnchors.parse(pem(fleet.root, fleet.issuing), both), leaf).reason is Reason.CREDENTIAL_REVOKED

    def test_a_list_from_after_the_end_of_a_leaf_says_nothing_of_it(self, fleet: Hierarchy) -> None:
        leaf = issue(fleet, not_after=NOW - timedelta(hours=12))
        anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing), lists(fleet))
        anchors.verify(leaf, NOW, DAY)
        later = TrustAnchors.parse(pem(fleet.root, fleet.issuing), lists(fleet, this_update=NOW - timedelta(hours=1)))
        assert refusal(later, leaf, grace=DAY).reason is Reason.NOT_AUTHORIZED

    def test_without_lists_nothing_is_judged(self, fleet: Hierarchy) -> None:
        anchors = TrustAnchors.parse(pem(fleet.root, fleet.issuing))
        assert (anchors.without_crl(NOW), list(anchors.crl_terms(NOW))) == ((), [])

    def test_the_list_that_ends_last_counts(self, fleet: Hierarchy) -> None:
        both = lists(fleet, next_update=NOW + timedelta(hours=1)) + lists(fleet, next_update=NOW + 5 * DAY)
        anchors = TrustAnchors.parse(pem(fleet.issuing, fleet.root), both)
        terms = {ca.der: term for ca, term in anchors.crl_terms(NOW)}
        assert {ca: term and term.next_update for ca, term in terms.items()}[fleet.issuing] == NOW + 5 * DAY


@pytest.mark.parametrize(
    ("days", "left", "soon"),
    [
        pytest.param(7, timedelta(hours=17), False, id="week-in-time"),
        pytest.param(7, timedelta(hours=16), True, id="week-soon"),
        pytest.param(1, timedelta(hours=3), False, id="day-in-time"),
        pytest.param(1, timedelta(hours=2), True, id="day-soon"),
        pytest.param(1000, timedelta(days=31), False, id="years-in-time"),
        pytest.param(1000, timedelta(days=29), True, id="years-soon"),
    ],
)
def test_when_the_successor_of_a_list_is_due(days: int, left: timedelta, soon: bool) -> None:
    term = CrlTerm(NOW + left - days * DAY, NOW + left)
    assert (term.in_force(NOW), term.ends_soon(NOW)) == (True, soon)


def list_without_end(fleet: Hierarchy) -> bytes:
    issuer = fleet.issuer
    return issuer.sign(der.sequence(der.integer(1), issuer.algorithm, issuer.name_der, der.time(NOW)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        pytest.param(lambda f: (b"", None), "no PEM block CERTIFICATE", id="empty"),
        pytest.param(lambda f: (pem(f.leaf), None), "only CA certificates belong here", id="end-entity"),
        pytest.param(lambda f: (pem(f.root, b"\x30\x00"), None), "CA certificate 2 of the bundle cannot be read", id="broken"),
        pytest.param(lambda f: (pem(f.root) * (MAX_ANCHORS + 1), None), "1 to 256", id="too-many"),
        pytest.param(lambda f: (pem(f.root), b""), "no PEM block X509 CRL", id="no-list"),
        pytest.param(lambda f: (pem(f.root), pem(b"\x30\x00", label="X509 CRL")), "CRL 1 .* cannot be read", id="broken-list"),
        pytest.param(lambda f: (pem(f.root), lists(f)), "signed by none", id="list-of-another-ca"),
        pytest.param(
            lambda f: (pem(f.issuing), pem(list_without_end(f), label="X509 CRL")), "no nextUpdate", id="list-without-end"
        ),
    ],
)
def test_bundles_that_prove_nothing(
    make: Callable[[Hierarchy], tuple[bytes, bytes | None]], sentence: str, fleet: Hierarchy
) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrustAnchors.parse(*make(fleet))


def test_a_ca_that_may_not_sign_certificates(fleet: Hierarchy) -> None:
    only_crls = grant("CN=Lists", sans=(), key_usage=("cRLSign",), ekus=())
    ca = build_certificate(fleet.issuer, 9, only_crls, keys.public_key_der(fleet.leaf_key), is_ca=True)
    with pytest.raises(ValueError, match="key usage lacks keyCertSign"):
        TrustAnchors.parse(pem(ca))


def cross_certified(key_of: KeyOf, count: int) -> tuple[bytes, ...]:
    """CAs that have all certified each other."""
    key = key_of("ec-p256")
    names = [parse_name_text(f"CN=CA {n}").der for n in range(count)]
    issuers = [Issuer.create(name, key, key_identifier(keys.public_key_der(key))) for name in names]
    return tuple(
        build_certificate(
            issuer,
            new_serial(),
            grant(f"CN=CA {n}", sans=(), key_usage=CA_KEY_USAGE, ekus=()),
            keys.public_key_der(key),
            is_ca=True,
        )
        for n in range(count)
        for issuer in issuers
    )


def test_cas_that_certify_each_other(key_of: KeyOf, fleet: Hierarchy) -> None:
    anchors = TrustAnchors.parse(pem(*cross_certified(key_of, 2)))
    issuer = Issuer.create(parse_name_text("CN=CA 0").der, key_of("ec-p256"), b"id")
    leaf = build_certificate(issuer, 5, grant(), keys.public_key_der(fleet.leaf_key))
    anchors.verify(parse_certificate(leaf), NOW)
    with pytest.raises(ValueError, match="certify each other in more than"):
        TrustAnchors.parse(pem(*cross_certified(key_of, 4)))
