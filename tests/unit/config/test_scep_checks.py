from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]


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
