from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.document import dotted
from gateway.config.load import Examination
from gateway.config.warnings import warn
from gateway.pki.certificate import der_to_pem

MTLS = {"listen": "127.0.0.1:9443", "certificate": "tls.pem", "key": {"file": "tls.key"}}
PROXY = {"addresses": ["192.0.2.1/32"], "client_certificate": "nginx"}
BASIC = {"type": "basic", "users": {"file": "challenge"}}
DIGEST = {"type": "digest_md5_legacy", "users": {"file": "challenge"}}
DEVICE = {"type": "tls_certificate", "anchors": "ca.pem"}
RA = {"type": "ra_certificate", "anchors": "ca.pem", "subjects": ["CN=ra1"]}


@pytest.fixture
def warned(minimal: dict[str, Any], judge: Callable[[Any], Examination]) -> Callable[..., dict[str, str]]:
    """Return what is said of a profile that is served by EST alone, by field; its configuration has no problems."""

    def run(profile: dict[str, Any], **server: Any) -> dict[str, str]:
        minimal["profiles"]["corp"].update({"endpoints": {"est": {}}, **profile})
        minimal["server"].update(server)
        found = judge(minimal)
        assert found.problems == ()
        assert found.config is not None
        assert found.sources is not None
        return {dotted(problem.path): problem.sentence for problem in warn(found.config, found.sources)}

    return run


def test_nothing_is_said_of_a_plain_endpoint(warned: Callable[..., dict[str, str]]) -> None:
    assert warned({"credentials": [BASIC]}) == {}


@pytest.mark.parametrize(
    ("renewal", "server", "warns"),
    [
        pytest.param({}, {}, True, id="nowhere"),
        pytest.param({"messages": ["simplereenroll"]}, {}, True, id="said"),
        pytest.param({}, {"https_mtls": MTLS}, False, id="listener"),
        pytest.param({}, {"proxies": [PROXY]}, False, id="proxy"),
        pytest.param({}, {"proxies": [{"addresses": ["192.0.2.1/32"]}]}, True, id="silent-proxy"),
    ],
)
def test_renewal_that_nobody_can_ask_for(
    warned: Callable[..., dict[str, str]], renewal: dict[str, Any], server: dict[str, Any], warns: bool
) -> None:
    found = warned({"renewal": {"from": ["corp"], **renewal}}, **server)
    assert found.keys() == ({"profiles.corp.renewal.messages"} if warns else set())


def test_scep_renewals_say_nothing_of_est(warned: Callable[..., dict[str, str]], minimal: dict[str, Any]) -> None:
    scep = minimal["profiles"]["corp"]["endpoints"]["scep"]
    renewal = {"from": ["corp"], "messages": ["RenewalReq"]}
    assert warned({"endpoints": {"scep": scep, "est": {}}, "renewal": renewal}) == {}


@pytest.mark.parametrize(
    ("credential", "warns"),
    [
        pytest.param(DIGEST, True, id="digest"),
        pytest.param({"type": "all_of", "of": [DIGEST, {"type": "one_time"}]}, True, id="inner-digest"),
        pytest.param(RA, True, id="ra"),
        pytest.param({**RA, "crls": "ca.pem"}, False, id="ra-with-crls"),
        pytest.param({**RA, "ocsp": {}}, False, id="ra-with-ocsp"),
        pytest.param(BASIC, False, id="basic"),
    ],
)
def test_credentials_that_weaken_a_profile(
    warned: Callable[..., dict[str, str]], credential: dict[str, Any], warns: bool
) -> None:
    place = "credentials[0].of[0]" if credential["type"] == "all_of" else "credentials[0]"
    found = warned({"credentials": [credential]}, proxies=[{**PROXY, "addresses": ["::1/128"]}])
    assert found.keys() == ({f"profiles.corp.{place}"} if warns else set())


@pytest.mark.parametrize(
    ("credential", "warns"),
    [
        pytest.param({"type": "one_time"}, True, id="challenge"),
        pytest.param(BASIC, True, id="password"),
        pytest.param({"type": "all_of", "of": [BASIC, DEVICE]}, False, id="both"),
        pytest.param(DEVICE, False, id="certificate"),
    ],
)
def test_what_scep_demands_beside_the_challenge(
    warned: Callable[..., dict[str, str]], minimal: dict[str, Any], credential: dict[str, Any], warns: bool
) -> None:
    scep = {**minimal["profiles"]["corp"]["endpoints"]["scep"], "client_certificate": "require", "client_anchors": "ca.pem"}
    found = warned({"endpoints": {"scep": scep, "est": {}}, "credentials": [credential]}, https_mtls=MTLS)
    assert found.keys() == ({"profiles.corp.credentials[0]"} if warns else set())


def test_tokens_of_one_issuer_for_two_profiles(
    warned: Callable[..., dict[str, str]], minimal: dict[str, Any], folder: Path
) -> None:
    (folder / "ca.pem").write_bytes(der_to_pem(b"a certificate, as far as this goes"))
    token = {"type": "bearer", "anchors": "ca.pem", "issuer": "https://login.example.com", "audience": "one"}
    minimal["profiles"]["other"] = {**minimal["profiles"]["corp"], "endpoints": {"est": {}}, "credentials": [dict(token)]}
    assert warned({"credentials": [token]}).keys() == {
        "profiles.corp.credentials[0].anchors",
        "profiles.other.credentials[0].anchors",
    }
    minimal["profiles"]["other"]["credentials"][0]["audience"] = "two"
    assert warned({"credentials": [token]}) == {}


def test_tls_1_3_alone_shuts_clients_out(warned: Callable[..., dict[str, str]], minimal: dict[str, Any]) -> None:
    found = warned({}, https={**minimal["server"]["https"], "min_version": "1.3"})
    assert found.keys() == {"server.https.min_version"}
    assert "libest" in found["server.https.min_version"]


@pytest.mark.parametrize(
    ("credential", "proxy", "http", "warns"),
    [
        pytest.param(BASIC, "192.0.2.1/32", "0.0.0.0:8080", True, id="elsewhere"),
        pytest.param(BASIC, "127.0.0.1/32", "0.0.0.0:8080", False, id="this-machine"),
        pytest.param(BASIC, "192.0.2.1/32", "127.0.0.1:8080", False, id="closed-listener"),
        pytest.param({"type": "one_time"}, "192.0.2.1/32", "0.0.0.0:8080", False, id="no-password"),
    ],
)
def test_passwords_between_proxy_and_server(
    warned: Callable[..., dict[str, str]], credential: dict[str, Any], proxy: str, http: str, warns: bool
) -> None:
    urls = {"http": "http://pki.example.com", "https": "https://pki.example.com"}
    found = warned({"credentials": [credential]}, proxies=[{"addresses": [proxy]}], http=http, external_url=urls)
    assert found.keys() == ({"server.proxies[0].addresses"} if warns else set())
