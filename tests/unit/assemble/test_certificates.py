"""What the end of each certificate means: the service does not start, or its operator is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.assemble.installation import DAY, NOW, SCEP, YEAR, Installation, signed


@pytest.mark.parametrize("fresh", [pytest.param(True, id="not yet"), pytest.param(False, id="expired")])
@pytest.mark.parametrize("place", ["ra_certificate", "ra_encryption", "https_mtls"])
def test_what_is_in_force_must_be_in_its_time(installation: Installation, place: str, fresh: bool) -> None:
    times = {"start": NOW + DAY, "end": NOW + YEAR} if fresh else {"start": NOW - YEAR, "end": NOW - DAY}
    pair = installation.pair(f"late-{place}", issuer=installation.issuer(), **times)  # type: ignore[arg-type]
    if place == "https_mtls":
        installation.require_client_certificate(installation.ca("clients"))
        installation.data["server"]["https_mtls"].update(pair)
        field = "server.https_mtls.certificate"
    elif place == "ra_encryption":
        installation.scep["ra_encryption"] = pair
        field = f"{SCEP}.ra_encryption.certificate"
    else:
        installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
        field = f"{SCEP}.ra_certificate"
    found = installation.problems()
    assert found.keys() == {field}
    assert ("is not valid before" if fresh else "expired on") in found[field]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        pytest.param(-YEAR, YEAR, None, id="in-its-time"),
        pytest.param(-YEAR, DAY, None, id="ends-soon"),
        pytest.param(-YEAR, -DAY, "remove it once no device uses it", id="expired"),
    ],
)
def test_an_earlier_ra_may_end(installation: Installation, start: timedelta, end: timedelta, said: str | None) -> None:
    installation.scep["previous_ra"] = [installation.pair("earlier", start=NOW + start, end=NOW + end)]
    found = installation.expiring()
    assert found.keys() == (set() if said is None else {f"{SCEP}.previous_ra[0].certificate"})
    assert all(said in sentence for sentence in found.values() if said)


@pytest.mark.parametrize(
    ("start", "end", "problem", "warning"),
    [
        pytest.param(-YEAR, YEAR, None, None, id="in-its-time"),
        pytest.param(-YEAR, 20 * DAY, None, "ends in 20 days: put its successor beside it", id="ends-soon"),
        pytest.param(DAY, YEAR, None, "is not valid before", id="successor"),
        pytest.param(-YEAR, -DAY, "expired on", None, id="expired"),
    ],
)
def test_an_issuer_of_challenges_must_not_have_expired(
    installation: Installation, start: timedelta, end: timedelta, problem: str | None, warning: str | None
) -> None:
    installation.profile["credentials"] = signed(installation.ca("mdm", start=NOW + start, end=NOW + end))
    field = "profiles.demo.credentials[0].anchors"
    found = installation.judged()
    for listed, said in ((found.problems, problem), (found.expiring, warning)):
        assert [one.field for one in listed] == ([] if said is None else [field])
        assert said is None or said in listed[0].sentence


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        pytest.param(-YEAR, YEAR, None, id="in-its-time"),
        pytest.param(-YEAR, 20 * DAY, "ends in 20 days", id="ends-soon"),
        pytest.param(DAY, YEAR, "what it has signed is refused", id="not yet"),
    ],
)
@pytest.mark.parametrize("place", ["clients", "renewals"])
def test_a_ca_of_clients_is_watched(
    installation: Installation, place: str, start: timedelta, end: timedelta, said: str | None
) -> None:
    field = trust(installation, place, installation.ca("others", start=NOW + start, end=NOW + end))
    found = installation.expiring()
    assert found.keys() == (set() if said is None else {field})
    assert all(said in sentence for sentence in found.values() if said)


def trust(installation: Installation, place: str, anchors: str) -> str:
    """Name a file of CAs as those of clients, or of certificates that may be renewed, and return its field."""
    if place == "clients":
        installation.require_client_certificate(anchors)
        return f"{SCEP}.client_anchors"
    installation.profile["renewal"]["anchors"] = {"certificates": anchors, "crls": installation.crl("others")}
    return "profiles.demo.renewal.anchors.certificates"


@pytest.mark.parametrize("place", ["clients", "renewals"])
def test_cas_of_clients_must_not_all_have_expired(installation: Installation, place: str) -> None:
    field = trust(installation, place, installation.ca("others", start=NOW - YEAR, end=NOW - DAY))
    found = installation.judged()
    assert [problem.field for problem in found.problems] == [field]
    assert "the certificate CN=others expired on" in found.problems[0].sentence
    assert found.expiring == ()


@pytest.mark.parametrize("end", [pytest.param(-2 * DAY, id="expired too"), pytest.param(YEAR, id="in its time")])
@pytest.mark.parametrize("place", ["clients", "renewals"])
def test_a_bundle_of_cas(installation: Installation, place: str, end: timedelta) -> None:
    names = [installation.ca("others", start=NOW - YEAR, end=NOW - DAY), installation.ca("more", start=NOW - YEAR, end=NOW + end)]
    bundle = installation.write("bundle.pem", b"".join((installation.folder / name).read_bytes() for name in names))
    field = trust(installation, place, bundle)
    found = installation.judged()
    if end < timedelta(0):
        assert [problem.field for problem in found.problems] == [field]
        assert "all 2 certificates have expired; the last, CN=others expired on" in found.problems[0].sentence
        assert found.expiring == ()
    else:
        assert found.problems == ()
        assert [problem.field for problem in found.expiring] == [field]
        assert "what it has signed is refused" in found.expiring[0].sentence


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        pytest.param(-DAY, YEAR, None, id="in-its-time"),
        pytest.param(DAY, YEAR, None, id="not yet"),
        pytest.param(-YEAR, -DAY, "expired on", id="expired"),
    ],
)
def test_a_ca_that_comes_next_need_not_have_begun(
    installation: Installation, start: timedelta, end: timedelta, said: str | None
) -> None:
    installation.scep["next_ca"] = installation.ca("next", start=NOW + start, end=NOW + end)
    found = installation.expiring()
    assert found.keys() == (set() if said is None else {f"{SCEP}.next_ca"})
    assert all(said in sentence for sentence in found.values() if said)
