"""Paths by way of certificates that a client sent along: they help to find a path and prove nothing."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import UNLIMITED_NOT_AFTER, Extension, Grant
from gateway.pki.certificate import (
    CA_KEY_USAGE,
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
)
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.path_building import MAX_SENT, Path, find_paths
from gateway.pki.trust import TrustAnchors
from tests.unit.ra.fleet import DAY, NOW, ca_of, enroll, key_of


@cache
def sub_ca(name: str, above: str, above_certificate: bytes | None = None, **changes: Any) -> bytes:
    """A CA certificate `CN=name` that `above` signed."""
    options = {key: changes.pop(key) for key in ("is_ca", "path_length") if key in changes}
    digest = changes.pop("digest", None)
    values: dict[str, Any] = {
        "subject_der": parse_name_text(f"CN={name}").der,
        "sans": (),
        "key_usage": CA_KEY_USAGE,
        "ekus": (),
        "not_before": NOW - 300 * DAY,
        "not_after": UNLIMITED_NOT_AFTER,
    }
    issuer = Issuer.from_certificate(above_certificate or ca_of(above), key_of(above), digest)
    return build_certificate(
        issuer, new_serial(), Grant(**(values | changes)), public_key_der(key_of(name)), **{"is_ca": True, **options}
    )


@cache
def device(ca: str, certificate: bytes, **changes: Any) -> bytes:
    """A device certificate that `ca` signed, which has `certificate`."""
    values: dict[str, Any] = {
        "subject_der": parse_name_text("CN=gate-1").der,
        "sans": (),
        "key_usage": ("digitalSignature",),
        "ekus": (eku_oid("clientAuth"),),
        "not_before": NOW - DAY,
        "not_after": NOW + DAY,
    }
    issuer = Issuer.from_certificate(certificate, key_of(ca))
    return build_certificate(issuer, new_serial(), Grant(**(values | changes)), public_key_der(key_of("device")))


def anchors(*certificates: bytes) -> TrustAnchors:
    return TrustAnchors.parse(b"".join(map(der_to_pem, certificates)))


def find(trusted: TrustAnchors, leaf: bytes, *sent: bytes, at: Any = NOW) -> tuple[Path, ...]:
    return find_paths(trusted, parse_certificate(leaf), sent, at)


def names(path: Path) -> list[str]:
    return [ca.subject.values("2.5.4.3")[0] for ca in path]


ROOT = ca_of("Root")
MID = sub_ca("Mid", "Root")
LOW = sub_ca("Low", "Mid", MID)
LEAF = device("Low", LOW)


@pytest.mark.parametrize(
    ("trusted", "sent", "found"),
    [
        pytest.param((ROOT, MID, LOW), (), ["Low", "Mid", "Root"], id="all-in-the-bundle"),
        pytest.param((LOW,), (), ["Low"], id="the-issuer-alone"),
        pytest.param((ROOT,), (LOW, MID), ["Low", "Mid", "Root"], id="both-sent"),
        pytest.param((ROOT,), (MID, LOW), ["Low", "Mid", "Root"], id="in-any-order"),
        pytest.param((ROOT, MID), (LOW,), ["Low", "Mid", "Root"], id="one-sent"),
        pytest.param((MID,), (LOW, MID, ROOT), ["Low", "Mid"], id="more-than-needed"),
        pytest.param((ROOT,), (LEAF, b"", b"\x30\x00", LOW, MID), ["Low", "Mid", "Root"], id="with-leaf-and-rubbish"),
    ],
)
def test_found(trusted: tuple[bytes, ...], sent: tuple[bytes, ...], found: list[str]) -> None:
    [path] = find(anchors(*trusted), LEAF, *sent)
    assert names(path) == found


@pytest.mark.parametrize(
    ("leaf", "sent", "at", "reason"),
    [
        pytest.param(LEAF, (), NOW, Reason.NOT_AUTHORIZED, id="nothing-sent"),
        pytest.param(LEAF, (LOW,), NOW, Reason.NOT_AUTHORIZED, id="a-gap"),
        pytest.param(LEAF, (MID,), NOW, Reason.NOT_AUTHORIZED, id="another-gap"),
        pytest.param(LEAF, (b"\x30\x00",) * MAX_SENT + (LOW, MID), NOW, Reason.NOT_AUTHORIZED, id="behind-too-many"),
        pytest.param(LEAF, (LOW, MID), NOW + DAY + timedelta(seconds=1), Reason.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param(LEAF, (LOW, MID), NOW - 2 * DAY, Reason.NOT_AUTHORIZED, id="not-yet-valid"),
        pytest.param(
            device("Low", LOW, extensions=(Extension("1.2.3", True, b"\x05\x00"),)),
            (LOW, MID),
            NOW,
            Reason.NOT_AUTHORIZED,
            id="critical-extension",
        ),
        pytest.param(enroll("Another CA"), (ca_of("Another CA"),), NOW, Reason.NOT_AUTHORIZED, id="a-root-of-its-own"),
    ],
)
def test_not_found(leaf: bytes, sent: tuple[bytes, ...], at: Any, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        find(anchors(ROOT), leaf, *sent, at=at)
    assert refused.value.reason is reason


BAD_INTERMEDIATES = [
    pytest.param({"not_after": NOW - DAY}, id="expired"),
    pytest.param({"not_before": NOW + DAY}, id="not-yet-valid"),
    pytest.param({"ekus": (eku_oid("serverAuth"),)}, id="for-servers-only"),
    pytest.param({"extensions": (Extension("1.2.3", True, b"\x05\x00"),)}, id="critical-extension"),
    pytest.param({"digest": "sha1"}, id="sha-1"),
]


@pytest.mark.parametrize("changes", BAD_INTERMEDIATES)
def test_an_intermediate_that_may_not(changes: dict[str, Any]) -> None:
    bad = sub_ca("Mid", "Root", **changes)
    leaf = device("Mid", bad)
    with pytest.raises(Rejection) as refused:
        find(anchors(ROOT), leaf, bad)
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    [path] = find(anchors(ROOT), leaf, bad, MID)
    assert names(path) == ["Mid", "Root"], "beside a good one it does no harm"


def test_a_device_is_no_ca() -> None:
    """Its certificate and key are good, and it signs another one."""
    end_entity = sub_ca("Evil", "Root", is_ca=False, key_usage=("digitalSignature",))
    forged = device("Evil", sub_ca("Evil", "Evil", ca_of("Evil")))
    with pytest.raises(Rejection):
        find(anchors(ROOT), forged, end_entity)


def test_a_path_length_holds() -> None:
    short = sub_ca("Short", "Root", path_length=0)
    below = sub_ca("Below", "Short", short)
    with pytest.raises(Rejection):
        find(anchors(ROOT), device("Below", below), below, short)
    assert find(anchors(ROOT), device("Short", short), short)


def test_a_leaf_signed_with_sha_1() -> None:
    issuer = Issuer.from_certificate(ROOT, key_of("Root"), "sha1")
    grant = Grant(parse_name_text("CN=x").der, (), (), (), NOW - DAY, NOW + DAY)
    leaf = build_certificate(issuer, new_serial(), grant, public_key_der(key_of("device")))
    with pytest.raises(Rejection) as refused:
        find(anchors(ROOT), leaf)
    assert "SHA-1" in refused.value.cause


def test_certificates_that_certify_each_other_end() -> None:
    """Four CAs of which each has signed each other: no root leads there, and the search ends."""
    circle = (sub_ca("A", "B"), sub_ca("B", "A"), sub_ca("A", "A", ca_of("A")), sub_ca("B", "B", ca_of("B")))
    with pytest.raises(Rejection):
        find(anchors(ROOT), device("A", circle[0]), *circle)


def test_several_ways_are_kept() -> None:
    """A CA with two certificates of one key, from two roots: if one is revoked the other may stand."""
    other = ca_of("Other Root")
    cross = sub_ca("Mid", "Other Root")
    found = find(anchors(ROOT, other), device("Mid", MID), MID, cross)
    assert sorted(map(names, found)) == [["Mid", "Other Root"], ["Mid", "Root"]]
