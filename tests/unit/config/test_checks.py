from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.credential_checks import MAX_CHALLENGE
from gateway.pki.extensions import eku_name

Complaints = Callable[[Any], list[str]]
STATIC = {"type": "static", "challenge": {"file": "challenge"}}
LIMITED = {"subject": {"patterns": {"CN": "sw-[0-9]+"}}}


def corp(data: dict[str, Any]) -> dict[str, Any]:
    profile: dict[str, Any] = data["profiles"]["corp"]
    return profile


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        pytest.param("http", "127.0.0.1:8443", "server.https.listen: is the same address", id="same-address"),
        pytest.param("monitoring", "127.0.0.1:8443", "server.monitoring: is the same address as server.https", id="monitoring"),
        pytest.param(
            "external_url", {"http": "https://a", "https": "https://a"}, 'external_url.http: must begin with "http://"', id="http"
        ),
        pytest.param(
            "external_url",
            {"http": "http://a", "https": "http://a"},
            'external_url.https: must begin with "https://"',
            id="https",
        ),
        pytest.param("limits", {"body_timeout": "0s"}, "server.limits.body_timeout: must be longer than zero", id="timeout"),
    ],
)
def test_server(minimal: dict[str, Any], complaints: Complaints, part: str, value: Any, said: str) -> None:
    minimal["server"][part] = value
    (complaint,) = complaints(minimal)
    assert said in complaint


@pytest.mark.parametrize(
    ("http", "https", "fields"),
    [
        pytest.param("127.0.0.1:8080", "[::1]:8443", [], id="loopback"),
        pytest.param("0.0.0.0:8080", "127.0.0.1:8443", ["server.http"], id="http-any"),
        pytest.param("127.0.0.1:8080", "[::]:8443", ["server.https.listen"], id="https-any"),
        pytest.param("gateway.example.com:80", "192.0.2.1:443", ["server.https.listen", "server.http"], id="both"),
    ],
)
def test_the_profile_demo_is_for_loopback_only(
    minimal: dict[str, Any], complaints: Complaints, http: str, https: str, fields: list[str]
) -> None:
    minimal["server"]["http"] = http
    minimal["server"]["https"]["listen"] = https
    minimal["server"]["monitoring"] = "0.0.0.0:9464"  # where nobody enrolls
    assert complaints(minimal) == []
    minimal["profiles"]["demo"] = corp(minimal)
    said = complaints(minimal)
    assert [complaint.split(":")[0] for complaint in said] == fields
    assert all('the profile "demo" is only for this machine' in complaint for complaint in said)


def test_the_profile_demo_is_refused_even_when_it_is_broken(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["server"]["http"] = "0.0.0.0:8080"
    minimal["profiles"]["demo"] = {}
    assert any(complaint.startswith("server.http: ") for complaint in complaints(minimal))


def test_store_and_audit_have_their_own_files_and_keys(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["audit"] = {"key": {"file": "store.key"}, "heads": "store/gateway.db", "head_interval": "0s"}
    assert complaints(minimal) == [
        "audit.key: is the same secret as store.key; they must be two",
        "audit.heads: is the same file as store.path",
        "audit.head_interval: must be longer than zero",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"upstream_ca": "isuing"}, 'there is no upstream CA isuing; did you mean "issuing"?', id="ca"),
        pytest.param({"upstream_ca": "other-ca"}, "there is no upstream CA other-ca; there are: issuing", id="ca-far"),
        pytest.param({"endpoints": {}}, "opens no endpoint", id="endpoints"),
        pytest.param({"credentials": []}, "lets nobody enroll", id="nobody"),
        pytest.param({"credentials": [{"type": "one_time"}] * 2}, "names one_time twice", id="one-time-twice"),
        pytest.param({"credentials": [{"type": "one_time", "ttl": "8d"}]}, "must not be longer than max_ttl", id="ttl"),
        pytest.param({"credentials": [{"type": "one_time", "ttl": "0s"}]}, "must be longer than zero", id="no-ttl"),
        pytest.param({"renewal": {"from": ["corp", "crop2"]}}, "there is no profile crop2", id="renewal"),
        pytest.param({"renewal": {"from": ["corp"], "window": "0s"}}, "must be longer than zero", id="window"),
        pytest.param({"limits": {"total": {"count": 1, "window": "0s"}}}, "must be longer than zero", id="quota"),
        pytest.param(
            {"limits": {"failures_per_address": {"count": 1, "window": "0s"}}}, "must be longer than zero", id="failures"
        ),
        pytest.param({"retransmission_window": "0s"}, "must be longer than zero", id="retransmission"),
    ],
)
def test_profile(minimal: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str) -> None:
    corp(minimal).update(change)
    (complaint,) = complaints(minimal)
    assert complaint.startswith("profiles.corp")
    assert said in complaint


def test_renewal_alone_is_enough(minimal: dict[str, Any], complaints: Complaints) -> None:
    corp(minimal).update(credentials=[], renewal={"from": ["corp"]})
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param({}, "any subject", id="nothing"),
        pytest.param({"subject": {"patterns": {"OU": "x"}}}, "any subject", id="other-attribute"),
        pytest.param({"subject": {"patterns": {"CN": ".*"}}}, "any subject", id="every-cn"),
        pytest.param({"subject": {"patterns": {"CN": "[^/]{1,64}"}}}, "any subject", id="nearly-every-cn"),
        pytest.param({"subject": {"patterns": {"CN": "a"}, "mode": "warn"}}, "any subject", id="warn"),
        pytest.param({"subject": {"template": "CN={CN},O=X"}}, "any subject", id="template-copies"),
        pytest.param({**LIMITED, "san": {"mode": "warn"}}, "policy.san.mode must be enforce", id="san-warn"),
        pytest.param({**LIMITED, "san": {"dns": {"patterns": [".+"]}}}, "type dns", id="every-dns"),
        pytest.param({**LIMITED, "san": {"dns": {"patterns": ["a", "[a-z0-9.-]*"]}}}, "type dns", id="every-dns-among-others"),
        pytest.param({**LIMITED, "san": {"upn": {"patterns": ["[^@]+@[^@]+"]}}}, "type upn", id="every-upn"),
        pytest.param({**LIMITED, "san": {"ip": {"networks": ["0.0.0.0/0"]}}}, "type ip", id="every-address"),
        pytest.param(LIMITED, None, id="limited"),
        pytest.param({"subject": {"patterns": {"2.5.4.3": "sw-.*"}}}, None, id="limited-by-oid"),
        pytest.param({"subject": {"override": {"CN": "device"}}}, None, id="override"),
        pytest.param(
            {"subject": {"template": "UID={CN}", "override": {"CN": "x"}}}, "any subject", id="template-copies-overridden"
        ),
        pytest.param({"subject": {"template": "CN={UID}"}}, "any subject", id="template-copies-other"),
        pytest.param({"subject": {"template": "CN={requester}"}}, None, id="template-own-words"),
        pytest.param({"subject": {"template": "CN={attested.os_version}"}}, None, id="template-attested"),
        pytest.param(
            {**LIMITED, "san": {"permanent_identifier": {"patterns": [".+"]}}}, "type permanent_identifier", id="every-device"
        ),
        pytest.param(
            {**LIMITED, "san": {"hardware_module": {"patterns": ["[^/]+/[0-9.]+"]}}}, "type hardware", id="every-module"
        ),
        pytest.param({"subject": {"template": "CN=x-{CN}", "patterns": {"CN": "[0-9]+"}}}, None, id="template-limited"),
        pytest.param({"subject": {"allow": ["O"]}}, None, id="no-cn"),
        pytest.param({**LIMITED, "san": {"dns": {"patterns": ["[a-z]+\\.corp\\.example"]}}}, None, id="limited-dns"),
    ],
)
def test_a_static_challenge_needs_rules_or_any_name(
    minimal: dict[str, Any], complaints: Complaints, policy: dict[str, Any], said: str | None
) -> None:
    corp(minimal).update(credentials=[STATIC], policy=policy)
    found = complaints(minimal)
    assert len(found) == (said is not None)
    if said is not None:
        assert found[0].startswith("profiles.corp.credentials[0]: everybody who knows this challenge")
        assert said in found[0]
    corp(minimal)["credentials"] = [{**STATIC, "any_name": True}]
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        pytest.param("1234567", "is shorter than 8 characters", id="short"),
        pytest.param("x" * (MAX_CHALLENGE + 1), "is longer than 255 characters", id="long"),
        pytest.param("two\nlines of it", "one line of printable ASCII", id="lines"),
        pytest.param("schlüssel-wort", "one line of printable ASCII", id="umlaut"),
        pytest.param("12345678", None, id="just-enough"),
    ],
)
def test_a_static_challenge_can_be_carried_by_clients(
    minimal: dict[str, Any], complaints: Complaints, folder: Path, challenge: str, said: str | None
) -> None:
    (folder / "challenge").write_text(challenge)
    corp(minimal)["credentials"] = [{**STATIC, "any_name": True}]
    expected = [] if said is None else ["profiles.corp.credentials[0].challenge: "]
    found = complaints(minimal)
    assert [complaint[: complaint.index(": ") + 2] for complaint in found] == expected
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    "oid",
    [
        pytest.param("2.5.29.37.0", id="anyExtendedKeyUsage"),
        pytest.param("1.3.6.1.5.5.7.3.9", id="OCSPSigning"),
        pytest.param("1.3.6.1.5.5.7.3.27", id="cmcCA"),
        pytest.param("1.3.6.1.5.5.7.3.28", id="cmcRA"),
        pytest.param("1.3.6.1.5.5.7.3.29", id="cmcArchive"),
        pytest.param("1.3.6.1.5.5.7.3.32", id="cmKGA"),
        pytest.param("1.3.6.1.4.1.311.20.2.1", id="certificateRequestAgent"),
        pytest.param("1.3.6.1.4.1.311.20.2.2", id="smartcardLogon"),
    ],
)
def test_dangerous_usages_must_be_named_twice(minimal: dict[str, Any], complaints: Complaints, oid: str) -> None:
    for name in (oid, eku_name(oid), eku_name(oid).upper()):
        corp(minimal)["policy"] = {"eku": {"allow": ["clientAuth", name]}}
        (complaint,) = complaints(minimal)
        assert complaint.startswith("profiles.corp.policy.eku.allow[1]: ")
        assert "gives power over others" in complaint
        corp(minimal)["policy"]["eku"]["dangerous_ekus"] = [eku_name(oid)]
        assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param({"key": {"rsa": {"min_bits": 4096, "max_bits": 2048}}}, "key.rsa.min_bits: must not be larger", id="rsa"),
        pytest.param({"key": {"rsa": None, "ec": [], "eddsa": []}}, "key: allows no key at all", id="no-key"),
        pytest.param({"subject": {"allow": ["CN", "OX"]}}, "subject.allow[1]: OX is not a known attribute", id="attribute"),
        pytest.param({"subject": {"allow": ["CN"], "require": ["OU"]}}, "subject.require[0]: OU is required", id="require"),
        pytest.param({"subject": {"patterns": {"CNN": "a"}}}, "patterns.CNN: CNN is not a known attribute", id="pattern"),
        pytest.param({"subject": {"override": {"1.2.": "a"}}}, "is not a known attribute", id="oid"),
        pytest.param(
            {"subject": {"template": "CN={serialnummer}"}},
            '{serialnummer} is not a known placeholder; did you mean "serialNumber"?',
            id="placeholder",
        ),
        pytest.param({"subject": {"template": "CN={attested.colour}"}}, "{attested.colour} is not a known", id="claim"),
        pytest.param({"subject": {"override": {"C": "Deutschland"}}}, "override.C: cannot be written", id="override"),
        pytest.param({"subject": {"template": "CN"}}, "subject.template: is not an RFC 4514 name", id="template"),
        pytest.param({"san": {"dns": {}}}, "san.dns: has no patterns", id="dns-empty"),
        pytest.param({"san": {"permanent_identifier": {}}}, "san.permanent_identifier: has no patterns", id="devices-empty"),
        pytest.param({"san": {"ip": {"max": 1}}}, "san.ip: has no networks", id="ip-empty"),
        pytest.param({"san": {"require": True}}, "san.require: cannot be met", id="require-san"),
        pytest.param({"san": {"dns_from_common_name": True}}, "needs a dns block", id="dns-from-cn"),
        pytest.param({"key_usage": {"allow": ["keyAgreement"], "default": ["digitalSignature"]}}, "not in allow", id="usage"),
        pytest.param({"eku": {"allow": ["clientAuht"], "default": []}}, 'did you mean "clientAuth"?', id="eku"),
        pytest.param({"eku": {"default": ["serverAuth"]}}, "eku.default[0]: serverAuth is not in allow", id="eku-default"),
        pytest.param({"eku": {"dangerous_ekus": ["serverAuth"]}}, "is not dangerous", id="eku-not-dangerous"),
        pytest.param({"validity": {"default": "0s"}}, "validity.default: must be longer than zero", id="no-time"),
        pytest.param({"validity": {"default": "2w", "max": "1w"}}, "validity.default: must not be longer than max", id="max"),
        pytest.param({"validity": {"backdate": "32d"}}, "validity.backdate: must not be longer than 31d", id="backdate"),
    ],
)
def test_policy(minimal: dict[str, Any], complaints: Complaints, policy: dict[str, Any], said: str) -> None:
    corp(minimal)["policy"] = policy
    (complaint,) = complaints(minimal)
    assert complaint.startswith("profiles.corp.policy.")
    assert said in complaint


def test_upstream_cas(minimal: dict[str, Any], complaints: Complaints) -> None:
    minimal["upstream_cas"]["issuing"]["crl"] = {"lifetime": "1d", "refresh": "1d"}
    minimal["upstream_cas"]["prog"] = {
        "type": "exec",
        "command": ["/bin/sign"],
        "chain": ["ca.pem"],
        "deadline": "0s",
        "environment": {"A=B": "x"},
    }
    assert complaints(minimal) == [
        "upstream_cas.issuing.crl.refresh: must be shorter than lifetime, or clients meet an expired CRL",
        "upstream_cas.prog.deadline: must be longer than zero",
        "upstream_cas.prog.environment.A=B: is not the name of an environment variable",
    ]


@pytest.mark.parametrize(("deadline", "refused"), [("90s", False), ("91s", True), ("10m", True)])
def test_a_deadline_that_no_call_waits_for_is_refused(
    minimal: dict[str, Any], complaints: Complaints, deadline: str, refused: bool
) -> None:
    minimal["upstream_cas"]["prog"] = {"type": "exec", "command": ["/bin/sign"], "chain": ["ca.pem"], "deadline": deadline}
    said = "upstream_cas.prog.deadline: must not be longer than 90s; a program that needs longer answers pending"
    assert complaints(minimal) == ([said] if refused else [])


def test_a_wrong_type_hides_nothing_else_of_its_profile(minimal: dict[str, Any], complaints: Complaints) -> None:
    corp(minimal).update(
        {
            "approval": 5,
            "endpoints": {},
            "retransmission_window": "0s",
            "limits": {"total": {"count": 1, "window": "0s"}},
            "credentials": [{"type": "one_time", "ttl": 5}, {"type": "one_time", "ttl": "8d"}, STATIC],
            "policy": {"key": {"ec": 5}, "validity": {"default": "2d", "max": "1d"}, "eku": {"default": ["serverAuth"]}},
        }
    )
    said = {complaint.partition(": ")[0].removeprefix("profiles.corp.") for complaint in complaints(minimal)}
    assert said == {
        "approval",
        "endpoints",
        "retransmission_window",
        "limits.total.window",
        "credentials",
        "credentials[0].ttl",
        "credentials[1].ttl",
        "credentials[2]",
        "policy.key.ec",
        "policy.validity.default",
        "policy.eku.default[0]",
    }


@pytest.mark.parametrize("value", [None, 5, [], "text"], ids=repr)
@pytest.mark.parametrize("part", ["policy", "credentials", "limits", "renewal", "endpoints"])
def test_a_section_of_another_form_hides_nothing(minimal: dict[str, Any], complaints: Complaints, part: str, value: Any) -> None:
    corp(minimal)["retransmission_window"] = "0s"
    corp(minimal)[part] = value
    assert "profiles.corp.retransmission_window: must be longer than zero" in complaints(minimal)
