from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
MTLS = {"listen": "127.0.0.1:9443", "certificate": "tls.pem", "key": {"file": "tls.key"}}
FIELD = "profiles.corp.endpoints.scep.client_certificate"
REQUIRE = {"client_certificate": "require", "client_anchors": "ca.pem"}


def pair(name: str) -> dict[str, Any]:
    return {"certificate": f"{name}.pem", "key": {"file": "ra.key"}}


@pytest.fixture(autouse=True)
def more_files(folder: Path) -> None:
    for name in ("encryption.pem", "old.pem", "older.pem"):
        (folder / name).write_text("content")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"signing_time_skew": "5m"}, None, id="skew"),
        pytest.param({"signing_time_skew": "0s"}, "signing_time_skew: must be longer than zero", id="no-skew"),
        pytest.param({"ra_encryption": pair("encryption")}, None, id="encryption"),
        pytest.param(
            {"ra_encryption": pair("ra")}, "ra_encryption.certificate: is the same file as ra_certificate", id="encryption-same"
        ),
        pytest.param({"previous_ra": [pair("old"), pair("older")]}, None, id="previous"),
        pytest.param(
            {"previous_ra": [pair("ra")]}, "previous_ra[0].certificate: is the same file as ra_certificate", id="current"
        ),
        pytest.param(
            {"previous_ra": [pair("old"), pair("old")]},
            "previous_ra[1].certificate: is the same file as previous_ra[0]",
            id="previous-twice",
        ),
        pytest.param(
            {"ra_encryption": pair("encryption"), "previous_ra": [pair("encryption")]},
            "previous_ra[0].certificate: is the same file as ra_encryption",
            id="previous-encryption",
        ),
        pytest.param({"legacy": {"sha1": True, "md5": True, "triple_des": True, "des": True}}, None, id="legacy"),
        pytest.param(
            {"client_anchors": "ca.pem"}, "client_anchors: is looked at only with client_certificate", id="idle-anchors"
        ),
        pytest.param({"client_crls": "ca.pem"}, "client_crls: goes with client_anchors", id="crls-alone"),
    ],
)
def test_an_endpoint(minimal: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None) -> None:
    minimal["profiles"]["corp"]["endpoints"]["scep"].update(change)
    found = complaints(minimal)
    assert len(found) == (said is not None)
    assert said is None or f"profiles.corp.endpoints.scep.{said}" in found[0]


def test_at_most_four_earlier_ra_certificates(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["profiles"]["corp"]["endpoints"]["scep"]["previous_ra"] = [pair("old")] * 5
    assert any(complaint.startswith("profiles.corp.endpoints.scep.previous_ra: ") for complaint in complaints(minimal))


@pytest.mark.parametrize(
    ("scep", "mtls", "said"),
    [
        pytest.param({}, None, [], id="off"),
        pytest.param(REQUIRE, MTLS, [], id="require"),
        pytest.param({**REQUIRE, "client_crls": "ca.pem"}, MTLS, [], id="with-crls"),
        pytest.param(
            {"client_certificate": "require"},
            MTLS,
            [f"{FIELD}: needs client_anchors: the CAs whose certificates are accepted"],
            id="no-anchors",
        ),
        pytest.param(
            REQUIRE,
            None,
            [f"{FIELD}: needs server.https_mtls, the listener that asks clients for a certificate"],
            id="no-listener",
        ),
        pytest.param(
            {},
            MTLS,
            ["server.https_mtls: serves no profile; set client_certificate: require in one, or remove it"],
            id="idle-listener",
        ),
    ],
)
def test_client_certificates(
    minimal: dict[str, Any], complaints: Complaints, scep: dict[str, Any], mtls: dict[str, Any] | None, said: list[str]
) -> None:
    minimal["profiles"]["corp"]["endpoints"]["scep"].update(scep)
    if mtls is not None:
        minimal["server"]["https_mtls"] = mtls
    assert complaints(minimal) == said


def test_an_idle_listener_is_not_told_of_where_a_profile_cannot_be_read(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["server"]["https_mtls"] = MTLS
    minimal["profiles"]["corp"]["endpoints"]["scep"].update({**REQUIRE, "reply_chain": 5})
    assert complaints(minimal) == ["profiles.corp.endpoints.scep.reply_chain: must be true or false"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param("127.0.0.1:8080", "is the same address as server.http: 127.0.0.1:8080", id="http"),
        pytest.param("127.0.0.1:8443", "is the same address as server.https: 127.0.0.1:8443", id="https"),
        pytest.param("127.0.0.1:0", None, id="any-port"),
        pytest.param("127.0.0.2:8443", None, id="other"),
    ],
)
def test_the_second_https_listener_has_an_address_of_its_own(
    minimal: dict[str, Any], complaints: Complaints, address: str, said: str | None
) -> None:
    minimal["server"]["https_mtls"] = {**MTLS, "listen": address}
    minimal["profiles"]["corp"]["endpoints"]["scep"].update(REQUIRE)
    assert complaints(minimal) == ([] if said is None else [f"server.https_mtls.listen: {said}"])


def test_the_profile_demo_is_for_loopback_only_there_too(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["server"]["https_mtls"] = {**MTLS, "listen": "0.0.0.0:9443"}
    minimal["profiles"]["corp"]["endpoints"]["scep"].update(REQUIRE)
    assert complaints(minimal) == []
    minimal["profiles"]["demo"] = minimal["profiles"]["corp"]
    (complaint,) = complaints(minimal)
    assert complaint.startswith("server.https_mtls.listen: 0.0.0.0:9443 can be reached from elsewhere")
