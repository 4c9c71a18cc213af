from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
MTLS = {"listen": "127.0.0.1:9443", "certificate": "tls.pem", "key": {"file": "tls.key"}}
FIELD = "profiles.corp.endpoints.scep.client_certificate"
REQUIRE = {"client_certificate": "require", "client_anchors": "ca.pem"}
NEEDS = "needs server.https_mtls, or a proxy in server.proxies that hands over client certificates"
IDLE = (
    "server.https_mtls: serves no profile; set client_certificate: require in one, or take TLS certificates by EST, or remove it"
)
PROXY = {"addresses": ["10.0.0.1/32"], "client_certificate": "rfc9440"}
DEVICE = {"type": "tls_certificate", "anchors": "ca.pem"}
RA = {"type": "ra_certificate", "anchors": "ca.pem", "subjects": ["CN=ra1"]}
USERS = {"type": "basic", "users": {"file": "challenge"}}
BOTH = {"type": "all_of", "of": [USERS, DEVICE]}
AT = "profiles.corp.credentials[0]"


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
            [f"{FIELD}: {NEEDS}"],
            id="no-listener",
        ),
        pytest.param(
            {},
            MTLS,
            [IDLE],
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


@pytest.mark.parametrize(
    ("credential", "server", "said"),
    [
        pytest.param(DEVICE, {"https_mtls": MTLS}, [], id="listener"),
        pytest.param(RA, {"https_mtls": MTLS}, [], id="ra-listener"),
        pytest.param(BOTH, {"https_mtls": MTLS}, [], id="inner-listener"),
        pytest.param(DEVICE, {"proxies": [PROXY]}, [], id="proxy"),
        pytest.param(DEVICE, {}, [f"{AT}: {NEEDS}"], id="neither"),
        pytest.param(RA, {}, [f"{AT}: {NEEDS}"], id="ra-neither"),
        pytest.param(BOTH, {}, [f"{AT}.of[1]: {NEEDS}"], id="inner-neither"),
        pytest.param(
            DEVICE, {"proxies": [{**PROXY, "client_certificate": None}]}, [f"{AT}: {NEEDS}"], id="proxy-without-certificates"
        ),
        pytest.param(USERS, {}, [], id="password"),
        pytest.param(USERS, {"https_mtls": MTLS}, [IDLE], id="password-and-idle-listener"),
    ],
)
def test_certificates_by_est(
    minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], server: dict[str, Any], said: list[str]
) -> None:
    minimal["profiles"]["corp"].update(endpoints={"est": {}}, credentials=[credential])
    minimal["server"].update(server)
    assert complaints(minimal) == said


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        pytest.param(["simplereenroll"], [], id="renewal"),
        pytest.param(["simplereenroll", "RenewalReq"], [], id="both"),
    ],
)
def test_renewal_by_est_needs_the_listener_too(
    minimal: dict[str, Any], complaints: Complaints, messages: list[str], said: list[str]
) -> None:
    minimal["server"]["https_mtls"] = MTLS
    minimal["profiles"]["corp"]["endpoints"]["est"] = {}
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"], "messages": messages}
    assert complaints(minimal) == said


def test_an_idle_listener_is_not_told_of_where_a_credential_cannot_be_read(
    minimal: dict[str, Any], complaints: Complaints
) -> None:
    minimal["server"]["https_mtls"] = MTLS
    minimal["profiles"]["corp"].update(endpoints={"est": {}}, credentials=[{**DEVICE, "names": "all"}])
    (complaint,) = complaints(minimal)
    assert complaint.startswith("profiles.corp.credentials[0].names: ")
