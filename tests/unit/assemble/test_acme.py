"""ACME endpoints as they are built: directories, chains, whose attestations are good, and how names are validated."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from gateway.assemble.acme import _own_hosts, build_acme_identities, open_modes
from gateway.assemble.generation import Parts, build
from gateway.config.acme import AcmeValidation, TrustMode
from gateway.model import CredentialKind, ProfileName, Protocol
from gateway.pki.certificate import (
    pem_to_ders,
)
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, ML_DSA_ALGORITHMS
from gateway.ra.credentials.passwords import ScryptPool
from gateway.store.keys import KeyRing
from gateway.validation.ocsp import OcspClient
from gateway.web.generation import AcmeService, FailureLimit, Generation
from tests.unit.assemble.installation import DAY, NOW, Installation

DEMO, SHORT = ProfileName("demo"), ProfileName("short")
ACME = "profiles.demo.endpoints.acme"
BASE = "https://localhost:2/acme/demo"


@pytest.fixture
def acme(installation: Installation) -> dict[str, Any]:
    """The endpoint of profile demo."""
    endpoint: dict[str, Any] = installation.profile["endpoints"]["acme"]
    return endpoint


def built(installation: Installation) -> Generation:
    parts = Parts(None, KeyRing((bytes(32),)), lambda: NOW, "w1", ScryptPool(1), OcspClient())  # type: ignore[arg-type]  # nothing is stored
    return build(*installation.read(), 1, parts).generation


def service(installation: Installation) -> AcmeService:
    return built(installation).acme[DEMO]


def directory(found: AcmeService, base: str = BASE) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(found.directories[base])
    return document


def test_the_directory_of_the_demo(installation: Installation) -> None:
    found = service(installation)
    assert (found.profile, found.base, found.aliases) == (DEMO, BASE, ())
    assert directory(found) == {
        "newNonce": f"{BASE}/new-nonce",
        "newAccount": f"{BASE}/new-account",
        "newOrder": f"{BASE}/new-order",
        "revokeCert": f"{BASE}/revoke-cert",
        "keyChange": f"{BASE}/key-change",
        "renewalInfo": f"{BASE}/renewal-info",
        "meta": {"externalAccountRequired": False},
    }


def test_what_a_directory_says_of_itself(installation: Installation, acme: dict[str, Any]) -> None:
    installation.data["profiles"]["short"] = {
        "endpoints": {"acme": {}},
        "upstream_ca": "local",
        "policy": installation.profile["policy"],
    }
    acme |= {
        "external_account": "required",
        "profiles": {"short": "A day"},
        "terms_of_service": "https://pki.example.com/terms",
        "website": "https://pki.example.com/acme",
        "subdomains": True,
        "aliases": ["https://old.example.com/acme"],
        "ml_dsa_accounts": True,
        "padded_csr": True,
        "cors_origins": [],
        "renewal": {"retry_after": "1h"},
    }
    acme["validation"] |= {"caa": {"identities": ["pki.example.com"]}}
    acme["authorization_reuse"] = "1h"
    installation.profile["limits"] = {"failures_per_address": {"count": 9, "window": "1d"}}
    found = service(installation)
    assert found.directories.keys() == {BASE, "https://old.example.com/acme"}
    assert directory(found)["meta"] == directory(found, "https://old.example.com/acme")["meta"]
    assert directory(found, "https://old.example.com/acme")["newOrder"] == "https://old.example.com/acme/new-order"
    assert directory(found)["newAuthz"] == f"{BASE}/new-authz"
    assert directory(found)["meta"] == {
        "termsOfService": "https://pki.example.com/terms",
        "website": "https://pki.example.com/acme",
        "caaIdentities": ["pki.example.com"],
        "externalAccountRequired": True,
        "profiles": {"short": "A day"},
        "subdomainAuthAllowed": True,
    }
    assert found.algorithms == (*CLASSICAL_ALGORITHMS, *ML_DSA_ALGORITHMS)
    assert (found.padded_csr, found.cors_origins, found.retry_after) == (True, (), 3600)
    assert (found.terms_of_service, found.help) == ("https://pki.example.com/terms", "https://pki.example.com/acme")
    assert found.failure_limit == FailureLimit(9, DAY)


def test_a_profile_lets_accounts_do_what_its_endpoint_says(installation: Installation) -> None:
    profile = built(installation).snapshot.profiles[DEMO]
    assert profile.endpoints == {Protocol.SCEP, Protocol.EST, Protocol.ACME, Protocol.CMP}
    assert profile.credentials[-1].kind is CredentialKind.ACME_ORDER
    assert profile.acme is not None
    assert profile.acme.account_url("x") == f"{BASE}/acct/x"
    assert profile.acme.config.validation.http01_port == 5002
    assert set(profile.acme.validations) == {"standard", "client_ip_forward", "client_ip_reverse"}


def test_a_profile_without_the_endpoint_knows_no_orders(installation: Installation) -> None:
    del installation.profile["endpoints"]["acme"]
    generation = built(installation)
    profile = generation.snapshot.profiles[DEMO]
    assert (generation.acme, profile.acme, Protocol.ACME in profile.endpoints) == ({}, None, False)
    assert CredentialKind.ACME_ORDER not in {provider.kind for provider in profile.credentials}


@pytest.mark.parametrize(
    ("written", "more"),
    [
        pytest.param({}, set(), id="defaults"),
        pytest.param({"prevalidated": {"dns": ["a"]}}, {"prevalidated"}, id="names"),
        pytest.param({"prevalidated": {"ip": ["10.0.0.0/8"]}}, {"prevalidated"}, id="networks"),
        pytest.param({"webhook": {"url": "https://a.test", "secret": {"env": "A"}}}, {"webhook"}, id="webhook"),
        pytest.param({"attestation": {"tpm": "roots.pem"}}, {"attestation"}, id="roots"),
        pytest.param({"acknowledge_no_validation": True}, {"none"}, id="acknowledged"),
    ],
)
def test_modes_that_external_accounts_may_name(written: dict[str, Any], more: set[str]) -> None:
    config = AcmeValidation.model_validate_json(json.dumps(written))
    assert set(open_modes(config)) == {"standard", "client_ip_forward", "client_ip_reverse"} | more


def test_every_mode_that_is_open_is_built(installation: Installation, acme: dict[str, Any]) -> None:
    acme["validation"] |= {
        "prevalidated": {"dns": ["a\\.test"]},
        "webhook": {"url": "https://a.test", "secret": {"file": installation.write("webhook", b"secret")}},
        "attestation": {"apple": installation.ca("apple"), "tpm": installation.ca("tpm"), "step": installation.ca("step")},
        "acknowledge_no_validation": True,
    }
    terms = built(installation).snapshot.profiles[DEMO].acme
    assert terms is not None
    assert len(terms.validations) == 7
    config, sources = installation.read()
    identity = build_acme_identities(config, sources, {}, [])[DEMO]
    assert {name: len(roots.certificates) for name, roots in identity.roots.items()} == {"apple": 1, "tpm": 1, "step": 1}


async def test_every_key_is_built(installation: Installation) -> None:
    installation.use_every_key()
    generation = built(installation)
    assert generation.acme.keys() == {DEMO, ProfileName("web"), ProfileName("web-short")}
    terms = generation.snapshot.profiles[ProfileName("web")].acme
    assert terms is not None
    assert set(terms.validations) == set(get_args(TrustMode)) - {"none"}
    assert len(generation.acme[ProfileName("web")].alternate_chains) == 1


@pytest.mark.parametrize("content", [b"junk", b""], ids=["junk", "empty"])
def test_roots_that_cannot_be_read(installation: Installation, acme: dict[str, Any], content: bytes) -> None:
    acme["validation"]["attestation"] = {"tpm": installation.write("roots.pem", content)}
    assert installation.problems().keys() == {f"{ACME}.validation.attestation.tpm"}


def test_roots_that_end_are_told_of(installation: Installation, acme: dict[str, Any]) -> None:
    acme["validation"] |= {"attestation": {"tpm": installation.ca("tpm", end=NOW + DAY)}, "challenges": ["device-attest-01"]}
    del acme["validation"]["http01_port"], acme["validation"]["tlsalpn01_port"]
    assert installation.expiring().keys() == {f"{ACME}.validation.attestation.tpm"}


def test_a_chain_by_which_other_roots_are_reached(installation: Installation, acme: dict[str, Any]) -> None:
    acme["alternate_chains"] = [installation.another_chain("cross")]
    (chain,) = service(installation).alternate_chains
    # Roots are left out, as they are of the CA's own chain.
    assert chain == pem_to_ders((installation.folder / "cross.pem").read_bytes())[:1]
    assert installation.problems() == {}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"junk", id="junk"),
        pytest.param(None, id="no-chain"),
    ],
)
def test_chains_that_lead_nowhere(installation: Installation, acme: dict[str, Any], content: bytes | None) -> None:
    none = installation.another_chain("cross", with_issuing=False)
    acme["alternate_chains"] = [none if content is None else installation.write("cross.pem", content)]
    found = installation.problems()
    assert found.keys() == {f"{ACME}.alternate_chains[0]"}
    assert ("has not issued" in found[f"{ACME}.alternate_chains[0]"]) == (content is None)


def test_nonces_have_a_key_of_their_own_for_each_key_of_the_store() -> None:
    parts = Parts(None, KeyRing((bytes(32), b"\1" * 32)), lambda: NOW, "w1", ScryptPool(1), OcspClient())  # type: ignore[arg-type]  # nothing is stored
    keys = parts.acme_nonce_keys()
    assert [len(nonce_key) for nonce_key in keys] == [32, 32]
    assert len({*keys, *parts.nonce_macs(b"")}) == 4


def test_hosts_of_this_service_and_of_its_cas_are_no_targets(installation: Installation) -> None:
    remote = {
        "chain": [installation.ca("other")],
        "account_key": {"file": "token"},
        "dns": {"type": "hook", "command": ["/bin/true"]},
    }
    installation.write("token", b"a key")
    installation.data["server"]["external_url"] = {"http": "http://pki.example.com", "https": "https://pki.example.org"}
    installation.data["upstream_cas"] |= {
        "public": {"type": "acme", "directory": "https://acme.example.net:8443/directory", **remote},
        "near": {"type": "cfssl", "url": "http://127.0.0.1:8888", "profile": "x", "chain": [installation.ca("other")]},
        "far": {"type": "cfssl", "url": "https://cfssl.example.net", "profile": "x", "chain": [installation.ca("other")]},
        "both": {"type": "group", "members": ["near", "far"]},
    }
    config, _ = installation.read()
    assert set(_own_hosts(config)) == {"pki.example.com", "pki.example.org", "acme.example.net", "cfssl.example.net"}
