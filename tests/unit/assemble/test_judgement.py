"""What keeps a service from starting, and what its operator is only told."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from gateway.assemble.judgement import Judgement, judge
from tests.unit.assemble.installation import DAY, NOW, YEAR, Installation

SCEP = "profiles.demo.endpoints.scep"


def judged(installation: Installation, now: datetime = NOW) -> Judgement:
    return judge(*installation.read(), now)


def problems(installation: Installation, now: datetime = NOW) -> dict[str, str]:
    return {problem.field: problem.sentence for problem in judged(installation, now).problems}


def expiring(installation: Installation, now: datetime = NOW) -> dict[str, str]:
    """Return what is said of dates, where nothing keeps the service from starting."""
    found = judged(installation, now)
    assert found.problems == ()
    return {problem.field: problem.sentence for problem in found.expiring}


def warnings(installation: Installation, now: datetime = NOW) -> dict[str, str]:
    found = judged(installation, now)
    assert found.problems == ()
    return {problem.field: problem.sentence for problem in found.warnings}


def signed(anchors: str) -> list[dict[str, object]]:
    return [{"type": "intune_jws", "anchors": anchors}]


def test_a_new_installation_gives_no_rise_to_anything(installation: Installation) -> None:
    found = judged(installation)
    assert (found.problems, found.expiring, found.warnings) == ((), (), ())


# Pairs


@pytest.mark.parametrize("place", ["ra_encryption", "previous_ra"])
def test_a_pair_that_does_not_belong_together(installation: Installation, place: str) -> None:
    other = installation.pair("other", issuer=installation.issuer())
    pair = {**installation.pair("mine", issuer=installation.issuer()), "key": other["key"]}
    installation.scep[place] = [pair] if place == "previous_ra" else pair
    field = f"{SCEP}.previous_ra[0].key" if place == "previous_ra" else f"{SCEP}.ra_encryption.key"
    found = problems(installation)
    assert found.keys() == {field}
    assert "does not belong to the certificate CN=mine" in found[field]


def test_all_that_is_wrong_with_pairs_is_said_at_once(installation: Installation) -> None:
    installation.write("junk.pem", b"junk")
    installation.write("junk.key", b"junk")
    junk = {"certificate": "junk.pem", "key": {"file": "junk.key"}}
    installation.scep.update(
        {"ra_encryption": junk, "previous_ra": [installation.pair("good"), {**junk, "certificate": "./junk.pem"}]}
    )
    assert problems(installation).keys() == {
        f"{SCEP}.{place}.{part}" for place in ("ra_encryption", "previous_ra[1]") for part in ("certificate", "key")
    }


@pytest.mark.parametrize(
    ("place", "pair", "said"),
    [
        pytest.param("ra_encryption", {"usage": ("digitalSignature",)}, "lacks key usage keyEncipherment", id="no-encryption"),
        pytest.param("ra_encryption", {"spec": "ec-p256"}, "must be RSA", id="ec-encryption"),
        pytest.param("previous_ra", {"usage": ("digitalSignature",)}, "lacks key usage keyEncipherment", id="no-decryption"),
        pytest.param("previous_ra", {"spec": "ed25519"}, "must be RSA", id="ed25519-previous"),
    ],
)
def test_a_pair_that_cannot_serve_is_told_of_at_its_place(
    installation: Installation, place: str, pair: dict[str, object], said: str
) -> None:
    made = installation.pair(f"{place}-{'-'.join(map(str, pair.values()))[:9]}", issuer=installation.issuer(), **pair)  # type: ignore[arg-type]
    good = installation.pair("good", issuer=installation.issuer())
    installation.scep[place] = [good, made] if place == "previous_ra" else made
    field = f"{SCEP}.previous_ra[1].certificate" if place == "previous_ra" else f"{SCEP}.ra_encryption.certificate"
    found = problems(installation)
    assert found.keys() == {field}
    assert said in found[field]


def test_a_signing_certificate_needs_no_encryption_beside_another(installation: Installation) -> None:
    signing = installation.pair("signing", usage=("digitalSignature",), issuer=installation.issuer())
    installation.scep.update({"ra_certificate": signing["certificate"], "ra_key": signing["key"]})
    assert problems(installation).keys() == {f"{SCEP}.ra_certificate"}
    installation.scep["ra_encryption"] = installation.pair("encrypting", usage=("keyEncipherment",), issuer=installation.issuer())
    assert problems(installation) == {}
    assert warnings(installation) == {}


# Dates


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
    found = problems(installation)
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
    found = expiring(installation)
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
    found = judged(installation)
    for listed, said in ((found.problems, problem), (found.expiring, warning)):
        assert [one.field for one in listed] == ([] if said is None else [field])
        assert said is None or said in listed[0].sentence


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        pytest.param(-YEAR, YEAR, None, id="in-its-time"),
        pytest.param(-YEAR, 20 * DAY, "ends in 20 days", id="ends-soon"),
        pytest.param(-YEAR, -DAY, "what it has signed is refused", id="expired"),
        pytest.param(DAY, YEAR, "what it has signed is refused", id="not yet"),
    ],
)
@pytest.mark.parametrize("place", ["clients", "renewals"])
def test_a_ca_of_clients_may_end(
    installation: Installation, place: str, start: timedelta, end: timedelta, said: str | None
) -> None:
    anchors = installation.ca("others", start=NOW + start, end=NOW + end)
    if place == "clients":
        installation.require_client_certificate(anchors)
    else:
        installation.profile["renewal"]["anchors"] = {"certificates": anchors, "crls": installation.crl("others")}
    field = f"{SCEP}.client_anchors" if place == "clients" else "profiles.demo.renewal.anchors.certificates"
    found = expiring(installation)
    assert found.keys() == (set() if said is None else {field})
    assert all(said in sentence for sentence in found.values() if said)


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
    found = expiring(installation)
    assert found.keys() == (set() if said is None else {f"{SCEP}.next_ca"})
    assert all(said in sentence for sentence in found.values() if said)


# Anchors and next CAs


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
    (field,) = problems(installation)
    assert field.endswith(f".{place}")


def test_crls_of_another_ca_are_refused(installation: Installation) -> None:
    installation.ca("strangers")
    installation.require_client_certificate(installation.ca("others"), installation.crl("strangers"))
    found = problems(installation)
    assert found.keys() == {f"{SCEP}.client_crls"}
    assert "signed by none of its CA certificates" in found[f"{SCEP}.client_crls"]


@pytest.mark.parametrize("place", ["client_anchors", "next_ca"])
def test_a_device_certificate_is_no_ca(installation: Installation, place: str) -> None:
    leaf = installation.pair("leaf", issuer=installation.issuer())["certificate"]
    if place == "next_ca":
        installation.scep["next_ca"] = leaf
    else:
        installation.require_client_certificate(leaf)
    found = problems(installation)
    assert found.keys() == {f"{SCEP}.{place}"}
    assert "CA certificate" in found[f"{SCEP}.{place}"]


@pytest.mark.parametrize("place", ["clients", "renewals"])
@pytest.mark.parametrize(("end", "said"), [pytest.param(DAY, False, id="current"), pytest.param(-DAY, True, id="stale")])
def test_crls_that_are_not_in_force(installation: Installation, place: str, end: timedelta, said: bool) -> None:
    anchors, crls = installation.ca("others"), installation.crl("others", end=NOW + end)
    if place == "clients":
        installation.require_client_certificate(anchors, crls)
    else:
        installation.profile["renewal"]["anchors"] = {"certificates": anchors, "crls": crls}
    field = f"{SCEP}.client_crls" if place == "clients" else "profiles.demo.renewal.anchors.crls"
    found = warnings(installation)
    assert found.keys() == ({field} if said else set())
    assert all("holds no CRL of CN=others that is in force" in sentence for sentence in found.values())


@pytest.mark.parametrize("file", ["ca/issuing.pem", "ca/ra.pem", "tls/server.pem"])
def test_an_issuer_of_challenges_is_not_the_gateway_itself(installation: Installation, file: str) -> None:
    installation.profile["credentials"] = signed(file)
    assert "profiles.demo.credentials[0].anchors" in problems(installation)


def test_an_earlier_ra_signs_no_challenges_either(installation: Installation) -> None:
    pair = installation.pair("earlier")
    installation.scep["previous_ra"] = [pair]
    installation.profile["credentials"] = signed(pair["certificate"])
    found = problems(installation)
    assert found == {
        "profiles.demo.credentials[0].anchors": "the key of CN=earlier is the gateway's own, and no issuer's of challenges"
    }


# What clients demand


@pytest.mark.parametrize(
    ("ekus", "said"),
    [
        pytest.param(("certificateRequestAgent",), False, id="agent"),
        pytest.param(("serverAuth",), False, id="server"),
        pytest.param(("clientAuth", "serverAuth"), False, id="server-beside"),
        pytest.param(("clientAuth",), True, id="client"),
        pytest.param((), True, id="none"),
    ],
)
@pytest.mark.parametrize("place", ["ra_certificate", "ra_encryption"])
def test_windows_wants_an_extended_key_usage(installation: Installation, place: str, ekus: tuple[str, ...], said: bool) -> None:
    pair = installation.pair("ra", ekus=ekus, issuer=installation.issuer())
    field = f"{SCEP}.ra_certificate"
    if place == "ra_encryption":
        installation.scep["ra_encryption"] = pair
        field = f"{SCEP}.ra_encryption.certificate"
    else:
        installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
    found = warnings(installation)
    assert found.keys() == ({field} if said else set())
    assert all("0x8010002c" in sentence for sentence in found.values())


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        pytest.param("issuing", False, id="issuing-ca"),
        pytest.param("root", False, id="same-top"),
        pytest.param(None, True, id="itself"),
    ],
)
def test_apple_wants_one_top_ca(installation: Installation, issuer: str | None, said: bool) -> None:
    pair = installation.pair("ra", issuer=installation.issuer(issuer) if issuer else None)
    installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
    found = warnings(installation)
    assert found.keys() == ({f"{SCEP}.ra_certificate"} if said else set())
    assert all("Apple" in sentence for sentence in found.values())


def test_android_and_windows_want_the_root(installation: Installation) -> None:
    del installation.data["upstream_cas"]["local"]["chain"]
    found = warnings(installation)
    assert found.keys() == {"profiles.demo.upstream_ca"}
    assert "no self-signed root" in found["profiles.demo.upstream_ca"]


@pytest.mark.parametrize(
    ("legacy", "fields"),
    [
        pytest.param({"sha1": True, "des": True}, {f"{SCEP}.legacy.des", "profiles.demo.upstream_ca"}, id="for-scepclient"),
        pytest.param({"sha1": True}, set(), id="for-others"),
    ],
)
def test_scepclient_of_debian_breaks_down_at_a_ca_that_is_not_rsa(
    installation: Installation, legacy: dict[str, bool], fields: set[str]
) -> None:
    installation.scep["legacy"] = legacy
    with_rsa = warnings(installation)
    assert with_rsa.keys() == fields - {"profiles.demo.upstream_ca"}
    root = installation.ca("ec-root")
    installation.data["upstream_cas"]["local"] = {
        "type": "exec",
        "command": ["/bin/true"],
        "chain": [root],
    }
    found = {field: said for field, said in warnings(installation).items() if not field.endswith("ra_certificate")}
    assert found.keys() == fields


def test_a_next_ca_that_is_in_force_already(installation: Installation) -> None:
    installation.scep["next_ca"] = "ca/issuing.pem"
    assert warnings(installation) == {f"{SCEP}.next_ca": "holds the CA that is in force: remove it when the change is done"}
    installation.scep["next_ca"] = installation.ca("next")
    assert warnings(installation) == {}


def test_warnings_of_the_file_are_among_them(installation: Installation) -> None:
    installation.data["server"]["https"]["min_version"] = "1.3"
    assert warnings(installation).keys() == {"server.https.min_version"}
