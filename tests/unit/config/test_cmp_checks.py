"""CMP endpoints and credentials that cannot be what the file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
CMP = "profiles.corp.endpoints.cmp"
SIGNER = {"certificate": "ra.pem", "key": {"file": "ra.key"}}
SECRET = {"type": "cmp_secret"}
VENDOR = {"type": "vendor_certificate", "anchors": "ca.pem"}
RA = {"type": "ra_certificate", "anchors": "ca.pem", "subjects": ["CN=ra1"]}


@pytest.fixture
def cmp(minimal: dict[str, Any]) -> dict[str, Any]:
    """The endpoint of profile corp, which has no other."""
    endpoint: dict[str, Any] = {"signer": SIGNER}
    minimal["profiles"]["corp"].update(endpoints={"cmp": endpoint}, credentials=[SECRET])
    return endpoint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="defaults"),
        pytest.param({"strictness": "rfc9483"}, 'strictness: must be "rfc4210" or "lightweight"', id="strictness"),
        pytest.param({"message_time_skew": "0s"}, "message_time_skew: ", id="no-skew"),
        pytest.param({"message_time_skew": "2d"}, "message_time_skew: must not be longer than 1d", id="long-skew"),
        pytest.param({"confirmation": {"wait": "0s"}}, "confirmation.wait: ", id="no-wait"),
        pytest.param({"confirmation": {"wait": "31d"}}, "confirmation.wait: must not be longer than 30d", id="long-wait"),
        pytest.param({"mac": {"iterations": [100, 100000]}}, None, id="widest-window"),
        pytest.param({"mac": {"iterations": [99, 1000]}}, "mac.iterations: must be two numbers from 100 to 100000", id="few"),
        pytest.param({"mac": {"iterations": [100, 100001]}}, "mac.iterations: must be two numbers", id="many"),
        pytest.param({"mac": {"iterations": [1000, 500]}}, "mac.iterations: must be two numbers", id="wrong-order"),
        pytest.param({"mac": {"pbmac1_iterations": [100, 1000001]}}, "mac.pbmac1_iterations: must be", id="many-of-pbmac1"),
        pytest.param({"aliases": ["pkix", "ejbca/publicweb/cmp/corp"]}, None, id="aliases"),
        pytest.param({"aliases": ["/pkix"]}, "aliases[0]: ", id="slash-in-front"),
        pytest.param({"aliases": ["pkix", "pkix"]}, "aliases[1]: pkix is a path of profile corp already", id="alias-twice"),
        pytest.param({"aliases": [".well-known/cmp/p/corp"]}, "aliases[0]: .well-known/cmp/p/corp is below", id="well-known"),
        pytest.param({"aliases": ["scep/corp"]}, "aliases[0]: /scep/ leads to something else here", id="taken"),
        pytest.param({"aliases": ["pki/keyupdate"]}, "aliases[0]: ends in keyupdate", id="operation"),
        pytest.param({"aliases": ["a/../b"]}, "aliases[0]: must not hold . or ..", id="dots"),
        pytest.param({"cert_profiles": {"x": "corp"}}, None, id="cert-profile"),
        pytest.param({"cert_profiles": {"x": "nobody"}}, "cert_profiles.x: there is no profile nobody", id="no-profile"),
        pytest.param({"key_generation": {"signer": SIGNER, "keys": ["rsa-2048"]}}, None, id="keys"),
        pytest.param({"batch": 65}, "batch: ", id="batch"),
        pytest.param({"root_update": "missing.pem"}, "root_update: ", id="missing-file"),
    ],
)
def test_an_endpoint(
    minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None
) -> None:
    cmp.update(change)
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"{CMP}.{said}")


def test_keys_that_policy_refuses(minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints) -> None:
    cmp["key_generation"] = {"signer": SIGNER, "keys": ["ec-p256", "rsa-2048"]}
    minimal["profiles"]["corp"]["policy"] = {"key": {"rsa": None}}
    (found,) = complaints(minimal)
    assert found.startswith(f"{CMP}.key_generation.keys[1]: rsa-2048 is refused by policy.key")


def test_keys_that_nobody_waits_for(minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints) -> None:
    cmp["key_generation"] = {"signer": SIGNER}
    minimal["profiles"]["corp"]["approval"] = "manual"
    (found,) = complaints(minimal)
    assert found.startswith(f"{CMP}.key_generation: hands out a key at once")


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        pytest.param({}, {}, None, id="own-paths"),
        pytest.param({"default": True}, {}, None, id="default"),
        pytest.param(
            {"default": True}, {"default": True}, "default: profile corp is served at /.well-known/cmp", id="two-defaults"
        ),
        pytest.param({"aliases": ["pkix"]}, {"aliases": ["pkix"]}, "aliases[0]: pkix is a path of profile corp", id="same-alias"),
        pytest.param({}, {"cert_profiles": {"x": "corp"}}, None, id="cert-profile"),
    ],
)
def test_two_profiles(
    minimal: dict[str, Any],
    cmp: dict[str, Any],
    complaints: Complaints,
    one: dict[str, Any],
    two: dict[str, Any],
    said: str | None,
) -> None:
    corp = minimal["profiles"]["corp"]
    minimal["profiles"]["other"] = {**corp, "endpoints": {"cmp": {"signer": SIGNER, **two}}}
    cmp.update(one)
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"profiles.other.endpoints.cmp.{said}")


def test_a_cert_profile_that_is_not_served_by_cmp(minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints) -> None:
    scep = {"scep": {"ra_certificate": "ra.pem", "ra_key": {"file": "ra.key"}}}
    minimal["profiles"]["other"] = {**minimal["profiles"]["corp"], "endpoints": scep, "credentials": [{"type": "one_time"}]}
    cmp["cert_profiles"] = {"x": "other"}
    (found,) = complaints(minimal)
    assert found == f"{CMP}.cert_profiles.x: profile other does not open CMP"


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        pytest.param(SECRET, None, id="secret"),
        pytest.param({**SECRET, "ttl": "91d"}, ".ttl: must not be longer than max_ttl", id="lifetime"),
        pytest.param({**SECRET, "ttl": "0s"}, ".ttl: ", id="no-lifetime"),
        pytest.param(VENDOR, ": lets every device of these makers in: name an inventory", id="every-device"),
        pytest.param({**VENDOR, "any_device": True}, None, id="every-device-said"),
        pytest.param({**VENDOR, "inventory": "challenge"}, None, id="inventory"),
        pytest.param({**VENDOR, "inventory": "challenge", "any_device": True}, ".any_device: is said beside", id="both"),
        pytest.param({**VENDOR, "inventory": "long"}, ".inventory: long: line 2 is longer than 256", id="long-line"),
        pytest.param({**VENDOR, "inventory": "broken"}, ".inventory: broken: is not UTF-8", id="not-text"),
        pytest.param({**RA, "may": ["enroll", "revoke", "forward", "update"]}, None, id="ra"),
        pytest.param({**RA, "may": []}, ".may: ", id="ra-may-nothing"),
        pytest.param(
            {"type": "all_of", "of": [SECRET, {"type": "one_time"}]},
            ".of[0]: cmp_secret protects a whole CMP message, and cannot be one of several",
            id="one-of-several",
        ),
        pytest.param({"type": "basic", "users": {"file": "challenge"}}, ": basic comes by EST only", id="password"),
    ],
)
def test_a_credential(
    minimal: dict[str, Any],
    cmp: dict[str, Any],
    complaints: Complaints,
    folder: Path,
    credential: dict[str, Any],
    said: str | None,
) -> None:
    (folder / "long").write_text(f"SN-1\n{'x' * 257}\n")
    (folder / "broken").write_bytes(b"SN-\xff\n")
    minimal["profiles"]["corp"]["credentials"] = [credential]
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"profiles.corp.credentials[0]{said}")


@pytest.mark.parametrize(
    ("credential", "field"),
    [
        pytest.param(SECRET, "credentials[1]", id="secret"),
        pytest.param({**VENDOR, "any_device": True}, "credentials[1]", id="vendor"),
        pytest.param({**RA, "may": ["enroll", "revoke"]}, "credentials[1].may", id="ra"),
    ],
)
def test_what_only_cmp_carries(minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], field: str) -> None:
    minimal["profiles"]["corp"]["credentials"].append(credential)
    (found,) = complaints(minimal)
    assert found.startswith((f"profiles.corp.{field}: is for CMP", f"profiles.corp.{field}: {credential['type']} is for CMP"))
    assert "this profile does not open it" in found


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        pytest.param(None, None, id="default"),
        pytest.param(["kur"], None, id="kur"),
        pytest.param(["cr", "p10cr"], None, id="cr"),
        pytest.param(["RenewalReq", "simplereenroll"], "names no message of CMP, by which alone", id="of-others"),
    ],
)
def test_messages_that_renew(
    minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints, messages: list[str] | None, said: str | None
) -> None:
    assert cmp
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"], **({} if messages is None else {"messages": messages})}
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"profiles.corp.renewal.messages: {said}")


@pytest.mark.parametrize(
    ("template", "names", "refused"),
    [
        pytest.param("CN={vendor.id},O=Operator", "identity", False, id="common-name"),
        pytest.param("CN={vendor.id}.example.com,serialNumber={vendor.id}", "identity", False, id="serial-number"),
        pytest.param("CN={CN},O=Operator", "identity", False, id="as-it-was-asked"),
        pytest.param("CN={vendor.id}.example.com", "identity", True, id="a-part-of-a-name"),
        pytest.param("CN={vendor.id}.example.com", "any", False, id="unbound"),
    ],
)
def test_a_template_that_names_devices(
    minimal: dict[str, Any], cmp: dict[str, Any], complaints: Complaints, template: str, names: str, *, refused: bool
) -> None:
    assert cmp
    vendor = {**VENDOR, "any_device": True, "names": names}
    minimal["profiles"]["corp"].update(credentials=[vendor], policy={"subject": {"template": template}})
    found = complaints(minimal)
    assert len(found) == refused, found
    assert not refused or found[0].startswith("profiles.corp.credentials[0].names: binds the device's identity")
