from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import Extension, Name, SanKind
from gateway.pki import der, keys, name_constraints
from gateway.pki.certificate import (
    CA_KEY_USAGE,
    Certificate,
    Issuer,
    build_certificate,
    key_identifier,
    parse_certificate,
    self_signed_ca,
)
from gateway.pki.extensions import make_san
from gateway.pki.name_constraints import parse_name_constraints
from gateway.pki.names import normalize_name, parse_name_text
from gateway.pki.trust import check_pair, verify_chain, verify_issued_by

from .conftest import END, NOW, START, Hierarchy, grant, make_hierarchy

KeyOf = Callable[[str], keys.PrivateKey]


def chain_of(hierarchy: Hierarchy) -> tuple[Certificate, ...]:
    return parse_certificate(hierarchy.issuing), parse_certificate(hierarchy.root)


def refused(leaf: Certificate, chain: tuple[Certificate, ...], at: datetime = NOW) -> Reason:
    with pytest.raises(Rejection) as raised:
        verify_chain(leaf, chain, at)
    return raised.value.reason


@pytest.mark.parametrize(
    ("root", "issuing", "leaf"),
    [
        pytest.param("ec-p384", "ec-p256", "rsa-2048", id="ec"),
        pytest.param("rsa-2048", "rsa-2048", "ec-p256", id="rsa"),
        pytest.param("ml-dsa-65", "ml-dsa-44", "ml-dsa-44", id="ml-dsa"),
        pytest.param("ed25519", "ec-p521", "ed25519", id="mixed"),
    ],
)
def test_chains_of_every_kind(root: str, issuing: str, leaf: str, key_of: KeyOf) -> None:
    hierarchy = make_hierarchy(key_of(root), key_of(issuing), key_of(leaf))
    verify_chain(parse_certificate(hierarchy.leaf), chain_of(hierarchy), NOW)


def test_times(hierarchy: Hierarchy) -> None:
    leaf, chain = parse_certificate(hierarchy.leaf), chain_of(hierarchy)
    verify_chain(leaf, chain, START)
    verify_chain(leaf, chain, END)
    assert refused(leaf, chain, START - timedelta(seconds=1)) is Reason.BAD_TIME
    assert refused(leaf, chain, END + timedelta(seconds=1)) is Reason.BAD_TIME


def test_chains_with_the_wrong_links(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    leaf, (issuing, root) = parse_certificate(hierarchy.leaf), chain_of(hierarchy)
    assert refused(leaf, ()) is Reason.BAD_SIGNATURE
    assert refused(leaf, (root,)) is Reason.BAD_SIGNATURE
    assert refused(leaf, (root, issuing)) is Reason.BAD_SIGNATURE
    assert refused(leaf, (leaf, issuing)) is Reason.BAD_SIGNATURE
    assert refused(issuing, (leaf,)) is Reason.BAD_SIGNATURE
    assert refused(root, (root,) * 17) is Reason.BAD_SIGNATURE
    other = make_hierarchy(key_of("ec-p521"), key_of("ed25519"), hierarchy.leaf_key)
    assert refused(leaf, chain_of(other)) is Reason.BAD_SIGNATURE


def test_a_changed_certificate(hierarchy: Hierarchy) -> None:
    data = hierarchy.leaf.replace(b"dev1.example", b"dev2.example")
    with pytest.raises(Rejection) as raised:
        verify_issued_by(parse_certificate(data), parse_certificate(hierarchy.issuing))
    assert raised.value.reason is Reason.BAD_SIGNATURE


def test_an_end_entity_signs_nothing(hierarchy: Hierarchy) -> None:
    issuer = Issuer.from_certificate(hierarchy.leaf, hierarchy.leaf_key)
    forged = parse_certificate(build_certificate(issuer, 1, grant("CN=victim"), keys.public_key_der(hierarchy.leaf_key)))
    chain = (parse_certificate(hierarchy.leaf), *chain_of(hierarchy))
    assert refused(forged, chain) is Reason.BAD_SIGNATURE


def sub_ca(hierarchy: Hierarchy, key: keys.PrivateKey, subject: str = "CN=Below", **changes: object) -> bytes:
    values: dict[str, object] = {"sans": (), "key_usage": CA_KEY_USAGE, "ekus": ()} | changes
    return build_certificate(hierarchy.issuer, 2, grant(subject, **values), keys.public_key_der(key), is_ca=True)


def leaf_of(ca: bytes, key: keys.PrivateKey, **changes: object) -> Certificate:
    return parse_certificate(build_certificate(Issuer.from_certificate(ca, key), 3, grant(**changes), keys.public_key_der(key)))  # type: ignore[arg-type]


def test_path_length(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    below = sub_ca(hierarchy, key_of("ed25519"))
    leaf = leaf_of(below, key_of("ed25519"))
    chain = (parse_certificate(below), *chain_of(hierarchy))
    verify_chain(leaf, chain[:1], NOW)
    assert refused(leaf, chain) is Reason.BAD_SIGNATURE


def test_self_issued_certificates_do_not_count_in_the_path_length(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    rollover = sub_ca(hierarchy, key_of("ed25519"), "CN=Issuing,O=Example")
    verify_chain(leaf_of(rollover, key_of("ed25519")), (parse_certificate(rollover), *chain_of(hierarchy)), NOW)


def test_key_usage_of_a_ca(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    ca = sub_ca(hierarchy, key_of("ed25519"), key_usage=("digitalSignature", "cRLSign"))
    assert refused(leaf_of(ca, key_of("ed25519")), (parse_certificate(ca),)) is Reason.BAD_SIGNATURE
    no_usage = sub_ca(hierarchy, key_of("ed25519"), key_usage=())
    verify_chain(leaf_of(no_usage, key_of("ed25519")), (parse_certificate(no_usage),), NOW)


def test_unknown_critical_extensions(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    ca = sub_ca(hierarchy, key_of("ed25519"), extensions=(Extension("1.2.3", True, b"\x05\x00"),))
    assert refused(leaf_of(ca, key_of("ed25519")), (parse_certificate(ca),)) is Reason.BAD_SIGNATURE
    harmless = sub_ca(hierarchy, key_of("ed25519"), extensions=(Extension("1.2.3", False, b"\x05\x00"),))
    verify_chain(leaf_of(harmless, key_of("ed25519")), (parse_certificate(harmless),), NOW)


def test_names_match_in_another_encoding(key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    root = self_signed_ca(key, "CN=Root,O=Example", START, END)
    name = der.sequence(
        der.set_of(der.sequence(der.oid("2.5.4.10"), der.printable_string("EXAMPLE"))),
        der.set_of(der.sequence(der.oid("2.5.4.3"), der.printable_string("root"))),
    )
    issuer = Issuer.create(name, key, key_identifier(keys.public_key_der(key)))
    leaf = build_certificate(issuer, 1, grant(), keys.public_key_der(key_of("ed25519")))
    verify_chain(parse_certificate(leaf), (parse_certificate(root),), NOW)


def constraints(permitted: list[bytes], excluded: list[bytes]) -> Extension:
    parts = [der.context(n, *(der.sequence(base) for base in bases)) for n, bases in enumerate((permitted, excluded)) if bases]
    return Extension("2.5.29.30", True, der.sequence(*parts))


def directory(text: str) -> bytes:
    return der.context(4, parse_name_text(text).der)


SUBNET = b"\x87\x08\x0a\x00\x00\x00\xff\x00\x00\x00"


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "allowed"),
    [
        pytest.param([b"\x82\x07example"], [], [(SanKind.DNS, "a.example")], True, id="dns-below"),
        pytest.param([b"\x82\x07example"], [], [(SanKind.DNS, "EXAMPLE")], True, id="dns-itself"),
        pytest.param([b"\x82\x07example"], [], [(SanKind.DNS, "badexample")], False, id="dns-beside"),
        pytest.param(
            [b"\x82\x07example"], [], [(SanKind.DNS, "a.example"), (SanKind.DNS, "b.test")], False, id="dns-one-outside"
        ),
        pytest.param([b"\x82\x07example"], [], [(SanKind.IP, "10.0.0.1")], True, id="other-kind-is-free"),
        pytest.param([], [b"\x82\x09a.example"], [(SanKind.DNS, "b.a.example")], False, id="dns-excluded"),
        pytest.param([], [b"\x82\x09a.example"], [(SanKind.DNS, "*.example")], False, id="wildcard-over-excluded"),
        pytest.param([], [b"\x82\x09a.example"], [(SanKind.DNS, "b.example")], True, id="dns-not-excluded"),
        pytest.param([SUBNET], [], [(SanKind.IP, "10.1.2.3")], True, id="ip-inside"),
        pytest.param([SUBNET], [], [(SanKind.IP, "11.1.2.3")], False, id="ip-outside"),
        pytest.param([SUBNET], [], [(SanKind.IP, "::1")], False, id="ip-of-the-other-family"),
        pytest.param([b"\x81\x07example"], [], [(SanKind.EMAIL, "a@example")], True, id="email-of-host"),
        pytest.param([b"\x81\x07example"], [], [(SanKind.EMAIL, "a@b.example")], False, id="email-of-host-below"),
        pytest.param([b"\x81\x08.example"], [], [(SanKind.EMAIL, "a@b.example")], True, id="email-of-domain"),
        pytest.param([b"\x81\x09a@example"], [], [(SanKind.EMAIL, "b@example")], False, id="email-of-mailbox"),
        pytest.param([b"\x86\x08.example"], [], [(SanKind.URI, "https://u@h.example:8443/x")], True, id="uri-inside"),
        pytest.param([b"\x86\x08.example"], [], [(SanKind.URI, "https://h.test/.example")], False, id="uri-outside"),
        pytest.param([b"\x86\x08.example"], [], [(SanKind.URI, "urn:x")], False, id="uri-without-host"),
        pytest.param([], [b"\x86\x08.example"], [(SanKind.URI, "https://[::1]/")], False, id="uri-of-an-address"),
        pytest.param([b"\x86\x08.example"], [], [(SanKind.SID, "S-1-5-1")], False, id="sid-is-a-uri"),
        pytest.param([directory("O=Example")], [], [], True, id="subject-inside"),
        pytest.param([directory("O=Other")], [], [], False, id="subject-outside"),
        pytest.param([], [directory("O=example")], [], False, id="subject-excluded"),
        pytest.param([directory("O=Example")], [], [(SanKind.DIRECTORY_NAME, "CN=x")], False, id="directory-name-outside"),
        pytest.param([b"\x88\x02\x2a\x03"], [], [(SanKind.UPN, "u@x")], False, id="kind-that-is-not-judged"),
        pytest.param([b"\x88\x02\x2a\x03"], [], [(SanKind.DNS, "x")], True, id="kind-that-does-not-occur"),
    ],
)
def test_name_constraints(
    permitted: list[bytes],
    excluded: list[bytes],
    names: list[tuple[SanKind, str]],
    allowed: bool,
    hierarchy: Hierarchy,
    key_of: KeyOf,
) -> None:
    key = key_of("ed25519")
    ca = sub_ca(hierarchy, key, extensions=(constraints(permitted, excluded),))
    leaf = leaf_of(ca, key, sans=tuple(make_san(*name) for name in names))
    if allowed:
        verify_chain(leaf, (parse_certificate(ca),), NOW)
    else:
        assert refused(leaf, (parse_certificate(ca),)) is Reason.BAD_SIGNATURE


def test_a_subject_is_prepared_once_for_all_subtrees(
    hierarchy: Hierarchy, key_of: KeyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = der.context(1, *(der.sequence(directory(f"O=Other {n}")) for n in range(500)))
    limits = parse_name_constraints(der.sequence(bases))
    prepared: list[Name] = []
    leaf = leaf_of(sub_ca(hierarchy, key_of("ed25519")), key_of("ed25519"), sans=(make_san(SanKind.DIRECTORY_NAME, "CN=x"),))

    def prepare(name: Name) -> object:
        prepared.append(name)
        return normalize_name(name)

    monkeypatch.setattr(name_constraints, "normalize_name", prepare)
    assert limits.violation(leaf.subject, leaf.sans) is None
    assert len(prepared) == 2, "the subject and the alternative name"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\x05\x00", id="no-sequence"),
        pytest.param(der.sequence(der.context(2)), id="unknown-list"),
        pytest.param(der.sequence(der.context(0, der.sequence(b"\x82\x01a", der.context(0, der.integer(1))))), id="minimum"),
        pytest.param(der.sequence(der.context(0, der.sequence(b"\x87\x04\x0a\x00\x00\x00"))), id="network-without-mask"),
        pytest.param(
            der.sequence(der.context(0, der.sequence(b"\x87\x08\x0a\x00\x00\x00\xff\x00\xff\x00"))), id="mask-with-holes"
        ),
        pytest.param(der.sequence(der.context(0, der.sequence(b"\x82\x01\xff"))), id="no-ascii"),
        pytest.param(der.sequence(der.context(0, *[der.sequence(b"\x82\x01a")] * 513)), id="too-many"),
    ],
)
def test_broken_name_constraints(value: bytes, hierarchy: Hierarchy, key_of: KeyOf) -> None:
    ca = sub_ca(hierarchy, key_of("ed25519"), extensions=(Extension("2.5.29.30", True, value),))
    assert refused(leaf_of(ca, key_of("ed25519")), (parse_certificate(ca),)) is Reason.MALFORMED


def test_pairs(hierarchy: Hierarchy, key_of: KeyOf) -> None:
    assert check_pair(hierarchy.leaf, hierarchy.leaf_key).der == hierarchy.leaf
    with pytest.raises(ValueError, match="does not belong to the certificate CN=dev1,O=Example"):
        check_pair(hierarchy.leaf, key_of("ec-p521"))
    with pytest.raises(ValueError, match="not a certificate"):
        check_pair(b"garbage", hierarchy.leaf_key)
