"""Anchors and next CAs that cannot be read, prove nothing or are the gateway's own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.assemble.installation import DAY, NOW, SCEP, Installation, signed


@pytest.mark.parametrize("place", ["client_anchors", "client_crls", "certificates", "crls", "anchors", "next_ca"])
def test_files_that_cannot_be_read_are_named(installation: Installation, place: str) -> None:
    junk = installation.write("junk.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    ca = installation.ca("others")
    match place:
        case "client_anchors":
            installation.require_client_certificate(junk)
        case "client_crls":
            installation.require_client_certificate(ca, junk)
        case "certificates" | "crls":
            files = {"certificates": ca, "crls": installation.crl("others"), place: junk}
            installation.profile["renewal"]["anchors"] = files
        case "anchors":
            installation.profile["credentials"] = signed(junk)
        case _:
            installation.scep[place] = junk
    (field,) = installation.problems()
    assert field.endswith(f".{place}")


def test_crls_of_another_ca_are_refused(installation: Installation) -> None:
    installation.ca("strangers")
    installation.require_client_certificate(installation.ca("others"), installation.crl("strangers"))
    found = installation.problems()
    assert found.keys() == {f"{SCEP}.client_crls"}
    assert "signed by none of its CA certificates" in found[f"{SCEP}.client_crls"]


@pytest.mark.parametrize("place", ["client_anchors", "next_ca"])
def test_a_device_certificate_is_no_ca(installation: Installation, place: str) -> None:
    leaf = installation.pair("leaf", issuer=installation.issuer())["certificate"]
    if place == "next_ca":
        installation.scep["next_ca"] = leaf
    else:
        installation.require_client_certificate(leaf)
    found = installation.problems()
    assert found.keys() == {f"{SCEP}.{place}"}
    assert "CA certificate" in found[f"{SCEP}.{place}"]


@pytest.mark.parametrize("place", ["clients", "renewals"])
@pytest.mark.parametrize(
    ("end", "said"),
    [
        pytest.param(DAY, "", id="current"),
        pytest.param(timedelta(hours=6), "", id="an-eighth-is-left"),
        pytest.param(timedelta(hours=5), "the CRL of CN=others ends at 20", id="less-than-a-tenth-is-left"),
        pytest.param(400 * DAY, "", id="long"),
        pytest.param(-DAY, "holds no CRL of CN=others that is in force", id="stale"),
    ],
)
def test_crls_that_end_or_have_ended(installation: Installation, place: str, end: timedelta, said: str) -> None:
    anchors, crls = installation.ca("others"), installation.crl("others", end=NOW + end)
    if place == "clients":
        installation.require_client_certificate(anchors, crls)
    else:
        installation.profile["renewal"]["anchors"] = {"certificates": anchors, "crls": crls}
    field = f"{SCEP}.client_crls" if place == "clients" else "profiles.demo.renewal.anchors.crls"
    found = installation.warnings()
    assert found.keys() == ({field} if said else set())
    assert all(sentence.startswith(said) for sentence in found.values())


@pytest.mark.parametrize("file", ["ca/issuing.pem", "ca/ra.pem", "tls/server.pem"])
def test_an_issuer_of_challenges_is_not_the_gateway_itself(installation: Installation, file: str) -> None:
    installation.profile["credentials"] = signed(file)
    assert "profiles.demo.credentials[0].anchors" in installation.problems()


def test_an_earlier_ra_signs_no_challenges_either(installation: Installation) -> None:
    pair = installation.pair("earlier")
    installation.scep["previous_ra"] = [pair]
    installation.profile["credentials"] = signed(pair["certificate"])
    found = installation.problems()
    assert found == {
        "profiles.demo.credentials[0].anchors": "the key of CN=earlier is the gateway's own, and no issuer's of challenges"
    }
