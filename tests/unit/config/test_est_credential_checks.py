from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Complaints = Callable[[Any], list[str]]
BASIC = {"type": "basic", "users": {"file": "challenge"}}
DIGEST = {"type": "digest_md5_legacy", "users": {"file": "challenge"}}
BEARER = {"type": "bearer", "anchors": "ca.pem", "issuer": "https://idp.example.com", "audience": "est"}
DEVICE = {"type": "tls_certificate", "anchors": "ca.pem"}
RA = {"type": "ra_certificate", "anchors": "ca.pem", "subjects": ["CN=ra1,O=Example"]}
ONE_TIME = {"type": "one_time"}
STATIC = {"type": "static", "challenge": {"file": "challenge"}, "any_name": True}


def all_of(*credentials: dict[str, Any]) -> dict[str, Any]:
    return {"type": "all_of", "of": list(credentials)}


def said_of(minimal: dict[str, Any], complaints: Complaints, *credentials: dict[str, Any], **policy: Any) -> list[str]:
    """What is said of a profile that is served by EST, where every listener is there."""
    minimal["server"]["proxies"] = [{"addresses": ["::1/128"], "client_certificate": "rfc9440"}]
    minimal["profiles"]["corp"].update(endpoints={"est": {}}, credentials=list(credentials), policy=policy)
    return [complaint.removeprefix("profiles.corp.") for complaint in complaints(minimal)]


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        pytest.param(BASIC, None, id="basic"),
        pytest.param({**BASIC, "realm": 'a "quoted" realm'}, "realm: must match", id="realm"),
        pytest.param({**BASIC, "realm": ""}, "realm: must not be empty", id="no-realm"),
        pytest.param({**BASIC, "names": "subject"}, 'names: must be "user" or "any"', id="basic-names"),
        pytest.param(DIGEST, None, id="digest"),
        pytest.param(BEARER, None, id="bearer"),
        pytest.param({**BEARER, "max_age": "8d"}, "max_age: must not be longer than 7d", id="old-token"),
        pytest.param({**BEARER, "skew": "2h", "max_age": "3h"}, "skew: must not be longer than 1h", id="skew"),
        pytest.param({**BEARER, "skew": "1h"}, "skew: must be shorter than max_age", id="skew-as-age"),
        pytest.param({**BEARER, "issuer": ""}, "issuer: must not be empty", id="no-issuer"),
        pytest.param(DEVICE, None, id="device"),
        pytest.param({**DEVICE, "crls": "ca.pem"}, None, id="crls"),
        pytest.param({**DEVICE, "ocsp": {}}, None, id="ocsp"),
        pytest.param({**DEVICE, "crls": "ca.pem", "ocsp": {}}, None, id="crls-and-ocsp"),
        pytest.param({**DEVICE, "ocsp": {"timeout": "0s"}}, "ocsp.timeout: must be longer than zero", id="no-time"),
        pytest.param({**DEVICE, "ocsp": {"timeout": "31s"}}, "ocsp.timeout: must not be longer than 30s", id="much-time"),
        pytest.param({**DEVICE, "ocsp": {"url": "ldap://x"}}, "ocsp.url: must be a URL", id="ocsp-url"),
        pytest.param({**DEVICE, "anchors": "missing.pem"}, "anchors: ", id="missing-anchors"),
        pytest.param(RA, None, id="ra"),
        pytest.param({**RA, "subjects": []}, "subjects: must not be empty", id="no-ra"),
        pytest.param({**RA, "subjects": ["CN=a", "ra1"]}, "subjects[1]: is not an RFC 4514 name", id="ra-no-name"),
        pytest.param({**RA, "subjects": [""]}, "subjects[0]: is the empty name", id="ra-empty-name"),
        pytest.param(all_of(BASIC, DEVICE), None, id="both"),
        pytest.param(all_of(BASIC, DEVICE, ONE_TIME), None, id="three"),
        pytest.param(all_of(BASIC), "of: must have at least 2 entries", id="all-of-one"),
        pytest.param(all_of(BASIC, BEARER), "of: asks for more than one Authorization header", id="headers"),
        pytest.param(all_of(DEVICE, RA), "of: asks for more than one TLS client certificate", id="certificates"),
        pytest.param(all_of(STATIC, ONE_TIME), "of: asks for more than one challenge", id="challenges"),
        pytest.param(all_of(BASIC, all_of(DEVICE, ONE_TIME)), "of[1].type: must be ", id="nested"),
        pytest.param(all_of(DEVICE, {**BEARER, "max_age": "0s"}), "of[1].", id="inner"),
        pytest.param(all_of(DEVICE, {**BASIC, "users": "x"}), "of[1].users: must be a block", id="inner-secret"),
    ],
)
def test_a_credential(minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], said: str | None) -> None:
    found = said_of(minimal, complaints, credential)
    assert bool(found) == (said is not None)
    assert said is None or all(one.startswith(f"credentials[0].{said}") for one in found)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        pytest.param([BASIC, DIGEST, BEARER, DEVICE, RA, ONE_TIME], None, id="one-of-each"),
        pytest.param([DEVICE, DEVICE], None, id="two-makers"),
        pytest.param([BASIC, BASIC], "names basic twice; put all users into one file", id="two-files"),
        pytest.param([DIGEST, ONE_TIME, DIGEST], "names digest_md5_legacy twice; put all users into one file", id="two-digests"),
    ],
)
def test_credentials_beside_each_other(
    minimal: dict[str, Any], complaints: Complaints, credentials: list[dict[str, Any]], said: str | None
) -> None:
    assert said_of(minimal, complaints, *credentials) == ([] if said is None else [f"credentials: {said}"])


@pytest.mark.parametrize(
    ("credential", "subject", "lost"),
    [
        pytest.param(BASIC, {"allow": ["serialNumber"]}, "CN, which policy.subject refuses", id="user"),
        pytest.param(BASIC, {"allow": ["serialNumber"], "unlisted": "drop"}, "CN, which policy.subject drops", id="dropped"),
        pytest.param(DIGEST, {"allow": ["serialNumber"]}, "CN, which policy.subject refuses", id="digest"),
        pytest.param(BEARER, {"allow": ["serialNumber"]}, "CN, which policy.subject refuses", id="token"),
        pytest.param({**DEVICE, "names": "serial_number"}, {"allow": ["CN"]}, "serialNumber, which policy", id="serial"),
        pytest.param({**DEVICE, "names": "serial_number"}, {"allow": ["2.5.4.5"]}, None, id="serial-by-oid"),
        pytest.param(DEVICE, {"allow": ["O"]}, None, id="same-names"),
        pytest.param({**BASIC, "names": "any"}, {"allow": ["O"]}, None, id="any-name"),
        pytest.param(BASIC, {"allow": ["O"], "mode": "warn"}, None, id="not-enforced"),
        pytest.param({**BASIC, "names": "any"}, {"template": "O={O}"}, None, id="any-name-of-a-template"),
    ],
)
def test_names_that_policy_loses(
    minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], subject: dict[str, Any], lost: str | None
) -> None:
    found = said_of(minimal, complaints, credential, subject=subject)
    assert len(found) == (lost is not None)
    assert lost is None or found[0].startswith(f"credentials[0].names: binds {lost}")


SERIAL = {**DEVICE, "names": "serial_number"}


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize(
    ("credential", "subject", "good"),
    [
        pytest.param(BASIC, {"template": "CN={CN},O=Example"}, True, id="copied"),
        pytest.param(BASIC, {"template": "CN={2.5.4.3},O=Example"}, True, id="copied-by-oid"),
        pytest.param(BASIC, {"template": "OU={OU}+CN={CN}"}, True, id="copied-beside-another"),
        pytest.param(BASIC, {"template": "CN={dns}"}, False, id="name-of-a-host"),
        pytest.param(BASIC, {"template": "CN={OU}"}, False, id="another-attribute"),
        pytest.param(BASIC, {"template": "CN={CN}{OU}"}, False, id="with-a-tail"),
        pytest.param(BASIC, {"template": "CN=x{CN}"}, False, id="with-a-head"),
        pytest.param(BASIC, {"template": "CN={CN},CN={OU}"}, False, id="a-second"),
        pytest.param(BASIC, {"template": "CN=Example"}, False, id="fixed"),
        pytest.param(BASIC, {"template": "serialNumber={serialNumber},O=Example"}, False, id="without"),
        pytest.param(BASIC, {"override": {"CN": "Example"}}, False, id="override"),
        pytest.param(BASIC, {"override": {"2.5.4.3": "Example"}}, False, id="override-by-oid"),
        pytest.param(BASIC, {"template": "CN={CN}", "override": {"CN": "Example"}}, False, id="override-of-a-template"),
        pytest.param(BASIC, {"override": {"O": "Example"}}, True, id="override-of-another"),
        pytest.param(DIGEST, {"template": "CN={dns}"}, False, id="digest"),
        pytest.param(BEARER, {"template": "CN={dns}"}, False, id="token"),
        pytest.param(SERIAL, {"template": "CN={CN},serialNumber={serialNumber}"}, True, id="serial"),
        pytest.param(SERIAL, {"template": "serialNumber={CN}"}, False, id="serial-from-cn"),
        pytest.param(SERIAL, {"template": "CN={serialNumber}"}, False, id="serial-elsewhere"),
        pytest.param(SERIAL, {"override": {"serialNumber": "1"}}, False, id="serial-override"),
        pytest.param(all_of(ONE_TIME, BASIC), {"template": "CN={dns}"}, False, id="inner"),
    ],
)
def test_what_is_bound_is_what_is_certified(
    minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], subject: dict[str, Any], good: bool, mode: str
) -> None:
    place = "credentials[0].of[1]" if credential["type"] == "all_of" else "credentials[0]"
    found = said_of(minimal, complaints, credential, subject={**subject, "mode": mode})
    assert len(found) == (not good)
    assert good or found[0].startswith(f"{place}.names: binds ")


@pytest.mark.parametrize(
    ("credential", "inner"),
    [
        *[pytest.param(one, inner, id=str(one["type"])) for one in (BASIC, DIGEST, BEARER, DEVICE) for inner in (False, True)],
        pytest.param(RA, True, id="ra_certificate"),
    ],
)
def test_what_comes_by_est_needs_est(
    minimal: dict[str, Any], complaints: Complaints, credential: dict[str, Any], inner: bool
) -> None:
    minimal["server"]["proxies"] = [{"addresses": ["::1/128"], "client_certificate": "rfc9440"}]
    minimal["profiles"]["corp"]["credentials"] = [all_of(ONE_TIME, credential) if inner else credential]
    place = "credentials[0].of[1]" if inner else "credentials[0]"
    assert complaints(minimal) == [
        f"profiles.corp.{place}: {credential['type']} comes by EST only, which this profile does not open"
    ]


def test_a_registration_authority_comes_by_scep_too(minimal: dict[str, Any], complaints: Complaints) -> None:
    """Its certificate signs the messages, so no listener has to ask for one."""
    minimal["profiles"]["corp"]["credentials"] = [RA]
    assert complaints(minimal) == []


def test_a_static_challenge_is_judged_inside_all_of_too(minimal: dict[str, Any], complaints: Complaints) -> None:
    found = said_of(minimal, complaints, all_of(BASIC, {**STATIC, "any_name": False}))
    assert found
    assert all(one.startswith("credentials[0].of[1]: everybody who knows this challenge") for one in found)


def test_signed_challenges_and_passwords(minimal: dict[str, Any], complaints: Complaints) -> None:
    (found,) = said_of(minimal, complaints, {"type": "intune_jws", "anchors": "ca.pem"}, BASIC)
    assert found.startswith("credentials[0]: the profile takes basic too; say with_other_challenges")
