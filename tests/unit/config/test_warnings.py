from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.document import dotted
from gateway.config.load import Examination
from gateway.config.warnings import warn
from gateway.pki.certificate import der_to_pem

Judge = Callable[[Any], Examination]
Warnings = Callable[[Any], dict[str, str]]


@pytest.fixture
def warnings(judge: Judge) -> Warnings:
    """Load a configuration that has no problems, and return its warnings by field."""

    def run(data: Any) -> dict[str, str]:
        found = judge(data)
        assert found.problems == ()
        assert found.config is not None
        assert found.sources is not None
        return {dotted(problem.path): problem.sentence for problem in warn(found.config, found.sources)}

    return run


def corp(data: dict[str, Any]) -> dict[str, Any]:
    profile: dict[str, Any] = data["profiles"]["corp"]
    return profile


def test_nothing_is_said_of_a_plain_configuration(minimal: dict[str, Any], warnings: Warnings) -> None:
    assert warnings(minimal) == {}


@pytest.mark.parametrize("listener", ["https", "https_mtls"])
def test_tls_1_3_alone_shuts_windows_out(minimal: dict[str, Any], warnings: Warnings, listener: str) -> None:
    minimal["server"]["https_mtls"] = {**minimal["server"]["https"], "listen": "127.0.0.1:9443"}
    corp(minimal)["endpoints"]["scep"].update({"client_certificate": "require", "client_anchors": "ca.pem"})
    assert warnings(minimal) == {}
    minimal["server"][listener]["min_version"] = "1.3"
    found = warnings(minimal)
    assert found.keys() == {f"server.{listener}.min_version"}
    assert "0x80072f8f" in found[f"server.{listener}.min_version"]


@pytest.mark.parametrize(
    ("listen", "url", "fields"),
    [
        pytest.param("127.0.0.1:8080", "http://localhost:8080", set(), id="this-machine-only"),
        pytest.param("0.0.0.0:8080", "http://pki.example.com", set(), id="named"),
        pytest.param("0.0.0.0:8080", "http://192.0.2.1:8080", set(), id="address"),
        pytest.param("0.0.0.0:8080", "http://localhost:8080", {"server.external_url.http"}, id="localhost"),
        pytest.param("0.0.0.0:8080", "http://127.0.0.1:8080", {"server.external_url.http"}, id="loopback"),
        pytest.param("[::]:8080", "http://[::1]:8080", {"server.external_url.http"}, id="loopback-6"),
    ],
)
def test_a_url_that_leads_clients_to_themselves(
    minimal: dict[str, Any], warnings: Warnings, listen: str, url: str, fields: set[str]
) -> None:
    minimal["server"]["http"] = listen
    minimal["server"]["external_url"] = {"http": url, "https": "https://pki.example.com"}
    assert warnings(minimal).keys() == fields


@pytest.mark.parametrize(
    ("legacy", "fields"),
    [
        pytest.param({"md5": True}, {"md5"}, id="md5"),
        pytest.param({"des": True}, {"des"}, id="des"),
        pytest.param({"md5": True, "des": True}, {"md5", "des"}, id="both"),
        pytest.param({"sha1": True, "triple_des": True}, set(), id="sha1-and-3des"),
    ],
)
def test_algorithms_that_rfc_8894_forbids(
    minimal: dict[str, Any], warnings: Warnings, legacy: dict[str, bool], fields: set[str]
) -> None:
    corp(minimal)["endpoints"]["scep"]["legacy"] = legacy
    assert warnings(minimal).keys() == {f"profiles.corp.endpoints.scep.legacy.{field}" for field in fields}


@pytest.mark.parametrize(("rule", "said"), [("allow_md5_signature", True), ("allow_sha1_signature", False)])
def test_requests_signed_with_md5(minimal: dict[str, Any], warnings: Warnings, rule: str, said: bool) -> None:
    corp(minimal)["policy"] = {"key": {rule: True}}
    assert warnings(minimal).keys() == ({f"profiles.corp.policy.key.{rule}"} if said else set())


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        pytest.param("AZaz09 '()+,-./:=?", False, id="printable-string"),
        pytest.param("under_score", True, id="underscore"),
        pytest.param("at@example", True, id="at"),
        pytest.param("surprise!", True, id="exclamation"),
        pytest.param("a;b*c&d<e", True, id="others"),
    ],
)
def test_a_challenge_that_windows_refuses(
    minimal: dict[str, Any], warnings: Warnings, folder: Path, challenge: str, said: bool
) -> None:
    (folder / "challenge").write_text(challenge)
    corp(minimal)["credentials"] = [
        {"type": "one_time"},
        {"type": "static", "challenge": {"file": "challenge"}, "any_name": True},
    ]
    found = warnings(minimal)
    assert found.keys() == ({"profiles.corp.credentials[1].challenge"} if said else set())
    assert not any(challenge in sentence for sentence in found.values())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param({"rsa": None, "ec": ["P-256"], "eddsa": []}, False, id="ec"),
        pytest.param({"ec": [], "eddsa": ["ed25519"]}, False, id="eddsa"),
        pytest.param({"ec": [], "eddsa": [], "ml_dsa": ["ml-dsa-65"]}, False, id="ml-dsa"),
        pytest.param({"ec": [], "eddsa": []}, True, id="rsa-only"),
    ],
)
def test_pwri_for_nobody(minimal: dict[str, Any], warnings: Warnings, folder: Path, key: dict[str, Any], said: bool) -> None:
    (folder / "challenge").write_text("0123456789abcdef")
    corp(minimal)["credentials"] = [{"type": "static", "challenge": {"file": "challenge"}, "any_name": True}]
    corp(minimal)["endpoints"]["scep"]["pwri"] = True
    corp(minimal)["policy"] = {"key": key}
    assert warnings(minimal).keys() == ({"profiles.corp.endpoints.scep.pwri"} if said else set())


@pytest.mark.parametrize(
    ("key", "pwri", "said"),
    [
        pytest.param({"rsa": None, "ec": ["P-256"], "eddsa": []}, False, True, id="ec-alone"),
        pytest.param({"rsa": None, "ec": ["P-256"], "eddsa": []}, True, False, id="under-the-challenge"),
        pytest.param({"rsa": None, "ec": ["P-256"], "mode": "warn"}, False, False, id="only-told"),
        pytest.param({"rsa": None, "ec": ["P-256"], "mode": "off"}, False, False, id="not-judged"),
        pytest.param({"ec": ["P-256"]}, False, False, id="rsa-too"),
    ],
)
def test_keys_that_no_reply_reaches(
    minimal: dict[str, Any], warnings: Warnings, folder: Path, key: dict[str, Any], pwri: bool, said: bool
) -> None:
    (folder / "challenge").write_text("0123456789abcdef")
    corp(minimal)["credentials"] = [{"type": "static", "challenge": {"file": "challenge"}, "any_name": True}]
    corp(minimal)["endpoints"]["scep"]["pwri"] = pwri
    corp(minimal)["policy"] = {"key": key}
    assert warnings(minimal).keys() == ({"profiles.corp.policy.key.rsa"} if said else set())


def test_a_profile_that_only_renews_is_told_nothing_of_keys(minimal: dict[str, Any], warnings: Warnings) -> None:
    corp(minimal).update(credentials=[], renewal={"from": ["corp"]}, policy={"key": {"rsa": None, "ec": ["P-256"]}})
    assert warnings(minimal) == {}


def without(claim: str) -> dict[str, Any]:
    """All claims but one, which issuers may leave out then."""
    return {"required_claims": [name for name in ("iss", "sub", "iat", "exp", "nonce", "aud") if name != claim]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="all-required"),
        pytest.param({"audience": "a"}, None, id="audience-required"),
        pytest.param(without("aud"), None, id="no-audience"),
        pytest.param(without("exp"), None, id="bounded-by-max-age"),
        pytest.param({"audience": "a"} | without("exp"), None, id="audience-named"),
        pytest.param({"audience": "a"} | without("aud"), 'lacks "aud"', id="audience-not-required"),
        pytest.param(without("nonce"), 'lacks "nonce"', id="nonce"),
        pytest.param(without("sub"), 'lacks "sub"', id="device"),
        pytest.param({"per_device": None} | without("sub"), None, id="device-not-counted"),
        pytest.param(without("iat"), 'lacks "iat": max_age', id="issued-at"),
        pytest.param(without("iss"), 'lacks "iss"', id="issuer"),
    ],
)
def test_claims_that_need_not_be_there(
    minimal: dict[str, Any], warnings: Warnings, change: dict[str, Any], said: str | None
) -> None:
    corp(minimal)["credentials"] = [{"type": "intune_jws", "anchors": "ca.pem", **change}]
    found = warnings(minimal)
    assert found.keys() == ({"profiles.corp.credentials[0].required_claims"} if said else set())
    assert all(sentence.startswith(said or "") for sentence in found.values())


ONE, TWO, THREE = (der_to_pem(bytes((0x30, 0x01, number))) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("anchors", "audiences", "said"),
    [
        pytest.param((ONE, ONE), (None, None), True, id="shared"),
        pytest.param((ONE + TWO, TWO + THREE), (None, None), True, id="one-of-two-shared"),
        pytest.param((ONE, ONE), ("a", None), True, id="one-audience"),
        pytest.param((ONE, ONE), ("a", "a"), True, id="same-audience"),
        pytest.param((ONE, ONE), ("a", "b"), False, id="audiences"),
        pytest.param((ONE, TWO), (None, None), False, id="own"),
        pytest.param((b"junk", b"junk"), (None, None), False, id="unreadable"),
    ],
)
def test_one_issuer_of_challenges_for_two_profiles(
    minimal: dict[str, Any],
    warnings: Warnings,
    folder: Path,
    anchors: tuple[bytes, bytes],
    audiences: tuple[str | None, str | None],
    said: bool,
) -> None:
    corp(minimal)["credentials"] = []
    minimal["profiles"]["lab"] = dict(corp(minimal))
    for name, pem, audience in zip(("corp", "lab"), anchors, audiences, strict=True):
        (folder / f"{name}.pem").write_bytes(pem)
        credential = {"type": "intune_jws", "anchors": f"{name}.pem"} | ({"audience": audience} if audience else {})
        minimal["profiles"][name] = {**minimal["profiles"][name], "credentials": [credential]}
    found = warnings(minimal)
    assert found.keys() == ({f"profiles.{name}.credentials[0].anchors" for name in ("corp", "lab")} if said else set())
