"""What is said of CMP endpoints that are not wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.config.document import dotted
from gateway.config.load import Examination
from gateway.config.warnings import warn

SIGNER = {"certificate": "ra.pem", "key": {"file": "ra.key"}}
SECRET = {"type": "cmp_secret"}
VENDOR = {"type": "vendor_certificate", "anchors": "ca.pem", "any_device": True}
RA = {"type": "ra_certificate", "anchors": "ca.pem", "subjects": ["CN=ra1"], "crls": "ca.pem"}
OUTSIDE = {"type": "exec", "command": ["/bin/sign"], "chain": ["ca.pem"]}
CMP = "profiles.corp.endpoints.cmp"

Warned = Callable[..., dict[str, str]]


@pytest.fixture
def warned(minimal: dict[str, Any], judge: Callable[[Any], Examination]) -> Warned:
    """Return what is said of a profile that is served by CMP alone, by field; its configuration has no problems."""

    def run(
        endpoint: dict[str, Any], credential: dict[str, Any] = SECRET, upstream: dict[str, Any] | None = None
    ) -> dict[str, str]:
        profile = {"endpoints": {"cmp": {"signer": SIGNER, **endpoint}}, "credentials": [credential]}
        minimal["profiles"]["corp"].update(profile)
        if upstream is not None:
            minimal["upstream_cas"]["issuing"] = upstream
        found = judge(minimal)
        assert found.problems == ()
        assert found.config is not None
        assert found.sources is not None
        return {dotted(problem.path): problem.sentence for problem in warn(found.config, found.sources)}

    return run


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"strictness": "lightweight"}, "mac.hmac_sha1", id="openssl-uses-it-unasked"),
        pytest.param({"mac": {"hmac_sha1": False}}, "mac.hmac_sha1", id="refused"),
        pytest.param({"strictness": "lightweight", "mac": {"hmac_sha1": True}}, "mac.hmac_sha1", id="against-rfc-9483"),
        pytest.param({"mac": {"iterations": [1000, 10000]}}, "mac.iterations", id="openssl-takes-500"),
        pytest.param({"batch": 4}, "batch", id="nobody-forwards"),
    ],
)
def test_protection(warned: Warned, endpoint: dict[str, Any], field: str | None) -> None:
    assert set(warned(endpoint)) == ({f"{CMP}.{field}"} if field else set())


def test_credentials_that_no_message_brings(warned: Warned, minimal: dict[str, Any]) -> None:
    assert "serves nobody" in warned({}, {"type": "one_time"})[CMP]
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"], "messages": ["kur"]}
    assert warned({}, {"type": "one_time"}) == {}


def test_without_secrets_their_bounds_do_not_matter(warned: Warned) -> None:
    assert warned({"strictness": "lightweight", "mac": {"iterations": [1000, 10000]}}, RA) == {}


def test_a_batch_has_somebody_who_sends_it(warned: Warned) -> None:
    assert warned({"batch": 4}, {**RA, "may": ["forward"]}) == {}


@pytest.mark.parametrize(
    ("upstream", "endpoint", "said"),
    [
        pytest.param({**OUTSIDE, "forms": ["pkcs10", "crmf"]}, {}, None, id="takes-both"),
        pytest.param(OUTSIDE, {}, "issuing takes PKCS#10 only: ir, cr and kur are refused, p10cr is still", id="pkcs10"),
        pytest.param(OUTSIDE, {"key_generation": {"signer": SIGNER}}, "p10cr and keys drawn here are still", id="drawn"),
    ],
)
def test_an_upstream_ca(warned: Warned, upstream: dict[str, Any], endpoint: dict[str, Any], said: str | None) -> None:
    found = warned(endpoint, upstream=upstream)
    assert set(found) == (set() if said is None else {"profiles.corp.upstream_ca"})
    assert said is None or said in found["profiles.corp.upstream_ca"]


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        pytest.param(VENDOR, "so that a stolen key can be shut out", id="vendor"),
        pytest.param({**VENDOR, "crls": "ca.pem"}, None, id="vendor-crl"),
        pytest.param({**VENDOR, "ocsp": {}}, None, id="vendor-ocsp"),
        pytest.param({**RA, "crls": None}, "so that it can be revoked", id="ra"),
        pytest.param(RA, None, id="ra-crl"),
    ],
)
def test_a_certificate_that_nobody_can_revoke(warned: Warned, credential: dict[str, Any], said: str | None) -> None:
    found = warned({}, credential)
    assert set(found) == (set() if said is None else {"profiles.corp.credentials[0]"})
    assert said is None or said in found["profiles.corp.credentials[0]"]
