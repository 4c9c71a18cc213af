from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
MTLS = {"listen": "127.0.0.1:9443", "certificate": "tls.pem", "key": {"file": "tls.key"}}
EST = "profiles.corp.endpoints.est"


@pytest.fixture
def est(minimal: dict[str, Any]) -> dict[str, Any]:
    """The endpoint of profile corp, which has no other."""
    minimal["profiles"]["corp"]["endpoints"] = {"est": {}}
    endpoint: dict[str, Any] = minimal["profiles"]["corp"]["endpoints"]["est"]
    return endpoint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="defaults"),
        pytest.param({"label": "ca:1"}, None, id="clearpass"),
        pytest.param({"label": "a" * 64}, None, id="longest"),
        pytest.param({"label": ""}, "label: must be 1 to 64 letters", id="empty"),
        pytest.param({"label": "a" * 65}, "label: must be 1 to 64 letters", id="long"),
        pytest.param({"label": ".."}, "label: must be 1 to 64 letters", id="dots"),
        pytest.param({"label": "a/b"}, "label: must be 1 to 64 letters", id="slash"),
        pytest.param({"label": "a%2Fb"}, "label: must be 1 to 64 letters", id="escape"),
        pytest.param({"label": "simpleenroll"}, "label: simpleenroll is the name of an operation", id="operation"),
        pytest.param({"label": "renewal-info"}, "label: renewal-info is the name of an operation", id="newest-operation"),
        pytest.param({"csrattrs": "of"}, 'csrattrs: must be "template", "legacy", "both" or "off"', id="csrattrs"),
        pytest.param({"pop_linking": "always"}, 'pop_linking: must be "off", "if_present" or "require"', id="linking"),
        pytest.param({"base64_wrap": True}, "base64_wrap: must be ", id="wrap"),
        pytest.param({"labl": "x"}, 'labl: is not a known key; did you mean "label"?', id="typo"),
        pytest.param({"rollover": "missing.pem"}, "rollover: ", id="missing-file"),
    ],
)
def test_an_endpoint(
    minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None
) -> None:
    est.update(change)
    found = complaints(minimal)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(f"{EST}.{said}")


def test_a_profile_that_is_called_like_an_operation(minimal: dict[str, Any], complaints: Complaints) -> None:
    profile = minimal["profiles"].pop("corp")
    minimal["profiles"]["cacerts"] = {**profile, "endpoints": {"est": {}}}
    (found,) = complaints(minimal)
    assert found.startswith("profiles.cacerts.endpoints.est: cacerts is the name of an operation")
    assert found.endswith("give it another label than the profile's name")
    minimal["profiles"]["cacerts"]["endpoints"]["est"]["label"] = "certificates"
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        pytest.param({}, {}, [], id="own-names"),
        pytest.param({"label": "a"}, {"label": "A"}, [], id="case-counts"),
        pytest.param(
            {"label": "a"},
            {"label": "a"},
            ["profiles.other.endpoints.est.label: the label a is that of profile corp too"],
            id="same",
        ),
        pytest.param(
            {"label": "other"}, {}, ["profiles.other.endpoints.est: the label other is that of profile corp too"], id="name"
        ),
        pytest.param({"default": True}, {}, [], id="default"),
        pytest.param(
            {"default": True},
            {"default": True},
            ["profiles.other.endpoints.est.default: profile corp is served without a label already; only one can be"],
            id="two-defaults",
        ),
    ],
)
def test_labels_of_two_profiles(
    minimal: dict[str, Any],
    est: dict[str, Any],
    complaints: Complaints,
    one: dict[str, Any],
    two: dict[str, Any],
    said: list[str],
) -> None:
    est.update(one)
    minimal["profiles"]["other"] = {**minimal["profiles"]["corp"], "endpoints": {"est": two}}
    assert complaints(minimal) == said


@pytest.mark.parametrize(
    ("keygen", "approval", "said"),
    [
        pytest.param({}, "automatic", None, id="defaults"),
        pytest.param({"keys": ["rsa-3072", "ec-p384"]}, "automatic", None, id="kinds"),
        pytest.param({"keys": []}, "automatic", "keys: must not be empty", id="no-kinds"),
        pytest.param({"keys": ["ec-p521", "rsa-2048"]}, "automatic", "keys[0]: ec-p521 is refused by policy.key", id="curve"),
        pytest.param({"keys": ["ec-p256", "rsa-4096"]}, "automatic", "keys[1]: rsa-4096 is refused by policy.key", id="size"),
        pytest.param({}, "manual", "hands out a key at once or not at all", id="approval"),
    ],
)
def test_keys_that_the_server_draws(
    minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints, keygen: dict[str, Any], approval: str, said: str | None
) -> None:
    est["server_keygen"] = keygen
    rule = {"ec": ["P-256", "P-384"], "rsa": {"min_bits": 2048, "max_bits": 3072}}
    minimal["profiles"]["corp"].update(approval=approval, policy={"key": rule})
    found = complaints(minimal)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith((f"{EST}.server_keygen.{said}", f"{EST}.server_keygen: {said}"))


def test_what_policy_does_not_enforce_is_no_obstacle_to_drawn_keys(
    minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints
) -> None:
    est["server_keygen"] = {"keys": ["ec-p521"]}
    minimal["profiles"]["corp"]["policy"] = {"key": {"mode": "warn", "ec": ["P-256"]}}
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("key", "good"),
    [
        pytest.param("00" * 16, True, id="aes-128"),
        pytest.param("0a" * 24, True, id="aes-192"),
        pytest.param("FF" * 32, True, id="aes-256"),
        pytest.param("00" * 20, False, id="size"),
        pytest.param("0" * 31, False, id="odd"),
        pytest.param("secret of no hex at all", False, id="text"),
    ],
)
def test_keys_that_encrypt_keys(
    minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints, folder: Path, key: str, good: bool
) -> None:
    (folder / "challenge").write_text(key)
    est["server_keygen"] = {"symmetric_keys": {"dock-7": {"file": "challenge"}}}
    field = f"{EST}.server_keygen.symmetric_keys.dock-7"
    found = [complaint for complaint in complaints(minimal) if complaint.startswith(field)]
    assert found == ([] if good else [f"{field}: must be 16, 24 or 32 bytes in hex"])


@pytest.mark.parametrize(
    ("server", "said"),
    [
        pytest.param({}, [], id="tls-1.2"),
        pytest.param({"min_version": "1.3"}, ["needs TLS 1.2, the last that has tls-unique"], id="tls-1.3"),
        pytest.param({"proxies": [{"addresses": ["10.0.0.1/32"]}]}, ["needs the client's own TLS connection"], id="proxy"),
    ],
)
def test_linking_that_is_required(
    minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints, server: dict[str, Any], said: list[str]
) -> None:
    minimal["server"]["https"] |= {name: value for name, value in server.items() if name == "min_version"}
    minimal["server"] |= {name: value for name, value in server.items() if name == "proxies"}
    assert complaints(minimal) == []
    est["pop_linking"] = "require"
    found = complaints(minimal)
    assert len(found) == len(said)
    assert all(one.startswith(f"{EST}.pop_linking: {start}") for one, start in zip(found, said, strict=True))


def test_linking_over_the_second_listener(minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints) -> None:
    est["pop_linking"] = "require"
    minimal["server"]["https"]["min_version"] = "1.3"
    minimal["server"]["https_mtls"] = MTLS
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"]}
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        pytest.param(["10.0.0.1/32"], ["10.0.0.2/32"], [], id="two"),
        pytest.param(["10.0.0.0/24", "10.0.0.1/32"], ["::1/128"], [], id="one-by-two-names"),
        pytest.param(
            ["10.0.0.0/24"],
            ["10.0.0.7/32"],
            ["server.proxies[1].addresses[0]: 10.0.0.7/32 overlaps 10.0.0.0/24 of server.proxies[0]: which one"],
            id="overlap",
        ),
        pytest.param(
            ["0.0.0.0/0"],
            ["::1/128"],
            ["server.proxies[0].addresses[0]: is everybody: whoever connects could name himself any client"],
            id="everybody",
        ),
        pytest.param([], ["::1/128"], ["server.proxies[0].addresses: must not be empty"], id="nobody"),
    ],
)
def test_proxies(minimal: dict[str, Any], complaints: Complaints, one: list[str], two: list[str], said: list[str]) -> None:
    minimal["server"]["proxies"] = [{"addresses": one}, {"addresses": two}]
    found = complaints(minimal)
    assert len(found) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(found, said, strict=True))


@pytest.mark.parametrize(
    ("endpoints", "messages", "said"),
    [
        pytest.param({"est": {}}, ["RenewalReq"], "names no message of EST, by which alone", id="scep-message-of-est"),
        pytest.param({"scep": None}, ["simplereenroll"], "names no message of SCEP, by which alone", id="est-message-of-scep"),
        pytest.param({"est": {}}, ["simplereenroll"], None, id="est"),
        pytest.param({"scep": None, "est": {}}, ["RenewalReq"], None, id="scep-of-both"),
        pytest.param({"scep": None}, ["RenewalReq", "simplereenroll"], None, id="more-than-needed"),
    ],
)
def test_messages_that_renew(
    minimal: dict[str, Any], complaints: Complaints, endpoints: dict[str, Any], messages: list[str], said: str | None
) -> None:
    corp = minimal["profiles"]["corp"]
    corp["endpoints"] = {name: value if name == "est" else corp["endpoints"]["scep"] for name, value in endpoints.items()}
    corp["renewal"] = {"from": ["corp"], "messages": messages}
    found = complaints(minimal)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(f"profiles.corp.renewal.messages: {said}")


def test_an_endpoint_that_is_broken_hides_no_label(minimal: dict[str, Any], est: dict[str, Any], complaints: Complaints) -> None:
    est["default"] = "yes"
    minimal["profiles"]["other"] = {**minimal["profiles"]["corp"], "endpoints": {"est": {"label": "cacerts"}}}
    assert [complaint.partition(": ")[0] for complaint in complaints(minimal)] == [
        f"{EST}.default",
        "profiles.other.endpoints.est.label",
    ]
