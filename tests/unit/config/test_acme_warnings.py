from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.config.document import dotted
from gateway.config.load import Examination
from gateway.config.warnings import warn

ACME = "profiles.corp.endpoints.acme.validation"
SUBJECT, EKU = "profiles.corp.policy.subject.allow_empty", "profiles.corp.policy.eku.default"
SAN = {"dns": {"patterns": ["[a-z0-9-]+\\.example\\.com"]}}
POLICY = {"san": SAN, "subject": {"allow_empty": True}, "eku": {"allow": ["serverAuth"], "default": ["serverAuth"]}}
PROXY = {"addresses": ["192.0.2.1/32"]}
Warned = Callable[..., dict[str, str]]


@pytest.fixture
def warned(minimal: dict[str, Any], judge: Callable[[Any], Examination]) -> Warned:
    """Return what is said of a profile that opens ACME alone, by field; its configuration has no problems."""

    def run(acme: dict[str, Any], policy: dict[str, Any] | None = None, **server: Any) -> dict[str, str]:
        profile = minimal["profiles"]["corp"]
        profile.pop("credentials", None)
        profile |= {"endpoints": {"acme": acme}, "policy": policy or POLICY}
        minimal["server"].update(server)
        found = judge(minimal)
        assert found.problems == ()
        assert found.config is not None
        assert found.sources is not None
        return {dotted(problem.path): problem.sentence for problem in warn(found.config, found.sources)}

    return run


@pytest.mark.parametrize(
    ("acme", "fields"),
    [
        pytest.param({}, set(), id="plain"),
        pytest.param(
            {"external_account": "required", "validation": {"mode": "none", "acknowledge_no_validation": True}},
            {f"{ACME}.mode"},
            id="none",
        ),
        pytest.param(
            {
                "external_account": "required",
                "validation": {
                    "mode": "prevalidated",
                    "prevalidated": {"dns": ["a\\.test", ".*"]},
                    "acknowledge_no_validation": True,
                },
            },
            {f"{ACME}.prevalidated.dns[1]"},
            id="catch-all",
        ),
        pytest.param({"validation": {"caa": {"mode": "enforce"}}}, {f"{ACME}.caa.identities"}, id="caa-of-nobody"),
        pytest.param({"validation": {"caa": {"mode": "enforce", "identities": ["pki.test"]}}}, set(), id="caa"),
        pytest.param({"validation": {"attestation": {"tpm": "ca.pem"}}}, {f"{ACME}.attestation"}, id="idle-roots"),
        pytest.param({"validation": {"mode": "attestation", "attestation": {"tpm": "ca.pem"}}}, set(), id="roots"),
        pytest.param(
            {
                "validation": {
                    "challenges": ["dns-01"],
                    "allow_cidrs": ["127.0.0.0/8"],
                    "http01_port": 5002,
                    "tlsalpn01_port": 5001,
                }
            },
            {f"{ACME}.http01_port", f"{ACME}.tlsalpn01_port"},
            id="idle-ports",
        ),
    ],
)
def test_validation(warned: Warned, acme: dict[str, Any], fields: set[str]) -> None:
    assert warned(acme).keys() == fields


@pytest.mark.parametrize(
    ("proxies", "warns"),
    [
        pytest.param([], False, id="none"),
        pytest.param([PROXY], True, id="silent"),
        pytest.param([PROXY | {"client_address": True}], False, id="says-it"),
    ],
)
@pytest.mark.parametrize("mode", ["client_ip_forward", "client_ip_reverse"])
def test_addresses_behind_proxies(warned: Warned, mode: str, proxies: list[dict[str, Any]], warns: bool) -> None:
    found = warned({"validation": {"mode": mode}}, proxies=proxies)
    assert found.keys() == ({f"{ACME}.mode"} if warns else set())


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        pytest.param({"subject": {}}, {SUBJECT}, id="subject"),
        pytest.param({"subject": {"mode": "warn"}}, set(), id="subject-not-enforced"),
        pytest.param({"subject": {"template": "O=Example"}}, set(), id="template"),
        pytest.param({"subject": {"override": {"O": "Example"}}}, set(), id="override"),
        pytest.param({"eku": {}}, {EKU}, id="usage"),
        pytest.param({"eku": {"mode": "off"}}, set(), id="usage-not-judged"),
        pytest.param({"eku": {}, "san": {"mode": "off"}}, set(), id="no-servers"),
        pytest.param({"eku": {"allow": ["1.3.6.1.5.5.7.3.1"], "default": ["1.3.6.1.5.5.7.3.1"]}}, set(), id="usage-by-number"),
    ],
)
def test_policy_that_clients_fail_on(warned: Warned, change: dict[str, Any], fields: set[str]) -> None:
    assert warned({}, POLICY | change).keys() == fields
