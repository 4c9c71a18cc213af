from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
SIGNED = {"type": "intune_jws", "anchors": "ca.pem"}
STATIC = {"type": "static", "challenge": {"file": "challenge"}, "any_name": True}
ONE_TIME = {"type": "one_time"}


def said_of(minimal: dict[str, Any], complaints: Complaints, *credentials: dict[str, Any], pwri: bool = False) -> list[str]:
    minimal["profiles"]["corp"]["credentials"] = list(credentials)
    minimal["profiles"]["corp"]["endpoints"]["scep"]["pwri"] = pwri
    return [complaint.removeprefix("profiles.corp.") for complaint in complaints(minimal)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="defaults"),
        pytest.param({"audience": "https://pki.example.com/scep/corp"}, None, id="audience"),
        pytest.param({"audience": ""}, "audience: must not be empty", id="no-audience"),
        pytest.param({"max_age": "0s", "skew": "0s"}, "max_age: must be longer than zero", id="no-age"),
        pytest.param({"max_age": "7d"}, None, id="longest-age"),
        pytest.param({"max_age": "8d"}, "max_age: must not be longer than 7d", id="age"),
        pytest.param({"skew": "0s"}, None, id="exact-clock"),
        pytest.param({"skew": "1h", "max_age": "2h"}, None, id="longest-skew"),
        pytest.param({"skew": "61m", "max_age": "2h"}, "skew: must not be longer than 1h", id="skew"),
        pytest.param({"skew": "10m", "max_age": "10m"}, "skew: must be shorter than max_age", id="skew-as-age"),
        pytest.param({"required_claims": ["iss", "sub", "iat"]}, None, id="iat"),
        pytest.param({"required_claims": ["exp"]}, None, id="exp"),
        pytest.param({"required_claims": ["iss", "sub", "nonce"]}, 'required_claims: must hold "exp" or "iat"', id="no-time"),
        pytest.param({"required_claims": []}, 'required_claims: must hold "exp" or "iat"', id="no-claims"),
        pytest.param({"required_claims": ["exp", "jti"]}, 'required_claims[1]: must be "iss"', id="unknown-claim"),
        pytest.param({"per_device": None}, None, id="unlimited"),
        pytest.param({"per_device": {"count": 1, "window": "0s"}}, "per_device.window: must be longer than zero", id="window"),
        pytest.param({"per_device": {"count": 0, "window": "1h"}}, "per_device.count: must be a whole number", id="count"),
        pytest.param({"replay_capacity": 0}, "replay_capacity: must be a whole number of at least 1", id="capacity"),
        pytest.param({"absent_claims": "unconstrained"}, None, id="old-issuer"),
    ],
)
def test_signed_challenges(minimal: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None) -> None:
    found = said_of(minimal, complaints, {**SIGNED, **change})
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(f"credentials[0].{said}")


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        pytest.param([SIGNED], None, id="alone"),
        pytest.param([SIGNED, ONE_TIME], "credentials[0]: the profile takes one_time too; say with_other", id="one-time"),
        pytest.param([STATIC, SIGNED], "credentials[1]: the profile takes static too; say with_other_challenges", id="static"),
        pytest.param([SIGNED, STATIC, ONE_TIME], "credentials[0]: the profile takes static, one_time too", id="both"),
        pytest.param([{**SIGNED, "with_other_challenges": True}, ONE_TIME, STATIC], None, id="meant"),
        pytest.param([SIGNED, SIGNED], "credentials: names intune_jws twice; put all certificates into one file", id="twice"),
        pytest.param([ONE_TIME, ONE_TIME], "credentials: names one_time twice", id="one-time-twice"),
    ],
)
def test_kinds_beside_each_other(
    minimal: dict[str, Any], complaints: Complaints, credentials: list[dict[str, Any]], said: str | None
) -> None:
    found = said_of(minimal, complaints, *credentials)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


@pytest.mark.parametrize(
    ("credentials", "challenge", "said"),
    [
        pytest.param([STATIC], "x" * 16, None, id="just-enough"),
        pytest.param([STATIC, ONE_TIME], "x" * 32, None, id="one-time-beside"),
        pytest.param([STATIC], "x" * 15, "credentials[0].challenge: is shorter than 16 characters, and pwri", id="short"),
        pytest.param([ONE_TIME, STATIC], "x" * 15, "credentials[1].challenge: is shorter than 16", id="short-second"),
        pytest.param([STATIC], "x" * 7, "credentials[0].challenge: is shorter than 8 characters", id="short-for-any"),
        pytest.param([ONE_TIME], "x" * 16, "endpoints.scep.pwri: needs exactly one static credential", id="none"),
        pytest.param([STATIC, STATIC], "x" * 16, "endpoints.scep.pwri: needs exactly one static credential", id="two"),
        pytest.param([SIGNED], "x" * 16, "endpoints.scep.pwri: needs exactly one static credential", id="signed"),
    ],
)
def test_pwri_needs_one_long_static_challenge(
    minimal: dict[str, Any],
    complaints: Complaints,
    folder: Path,
    credentials: list[dict[str, Any]],
    challenge: str,
    said: str | None,
) -> None:
    (folder / "challenge").write_text(challenge)
    found = said_of(minimal, complaints, *credentials, pwri=True)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)
    assert not any(challenge in complaint for complaint in found)


def test_pwri_without_credentials_is_told(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"]}
    (found,) = said_of(minimal, complaints, pwri=True)
    assert found.endswith("whose challenge encrypts; here are 0")


def test_a_broken_static_credential_counts_for_pwri(minimal: dict[str, Any], complaints: Complaints) -> None:
    (found,) = said_of(minimal, complaints, {**STATIC, "any_name": "5"}, pwri=True)
    assert found.startswith("credentials[0].any_name: ")
