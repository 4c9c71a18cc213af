"""EST endpoints as they are built: what they show, sign with and encrypt to, and whom their profiles know."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.assemble import Gateway, open_gateway
from gateway.assemble.gateway import password_places
from gateway.assemble.identities import establish
from gateway.model import CredentialKind, ProfileName, Protocol
from gateway.pki import cms
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate, pem_to_ders
from gateway.ra.credentials.all_of import AllOfCredential
from gateway.web.generation import EstService, FailureLimit
from tests.unit.assemble.installation import DAY, NOW, PASSWORD, YEAR, Installation, key

ROUTERS, ROBOTS, DEMO = map(ProfileName, ("routers", "robots", "demo"))
EST = "profiles.demo.endpoints.est"
USERS = "profiles.demo.credentials[0].users"


@pytest.fixture
def whole(installation: Installation) -> Installation:
    installation.use_every_key()
    return installation


@pytest.fixture
async def gateway(whole: Installation) -> AsyncIterator[Gateway]:
    opened = await open_gateway(*whole.read(), worker="w1", generation=1, clock=lambda: NOW)
    yield opened
    await opened.close()


@pytest.fixture
def est(installation: Installation) -> dict[str, Any]:
    """The endpoint of profile demo."""
    endpoint: dict[str, Any] = installation.profile["endpoints"]["est"]
    return endpoint


def certificate(installation: Installation, name: str) -> Certificate:
    return parse_certificate(pem_to_ders((installation.folder / f"{name}.pem").read_bytes())[0])


def shown(service: EstService) -> tuple[bytes, ...]:
    bodies = {base64.b64decode(service.ca_certificates.body(wrap=wrap)) for wrap in (True, False)}
    return cms.parse_signed_data(bodies.pop()).certificates


def test_services_by_label(gateway: Gateway) -> None:
    services = gateway.generation.est
    assert {label: service.profile for label, service in services.items()} == {
        "ca:1": ROUTERS,
        "": ROUTERS,
        "robots": ROBOTS,
        "demo": DEMO,
    }
    assert services[""] is services["ca:1"]


def test_ca_certificates_and_those_of_a_rollover(gateway: Gateway, whole: Installation) -> None:
    chain = (certificate(whole, "ca/issuing").der, certificate(whole, "ca/root").der)
    assert set(shown(gateway.generation.est["robots"])) == set(chain)
    assert set(shown(gateway.generation.est["ca:1"])) == {*chain, certificate(whole, "rollover").der}
    prepared = gateway.generation.est["robots"].ca_certificates
    assert max(map(len, prepared.in_lines.splitlines())) == 64
    assert prepared.in_one.count(b"\n") == 1


def test_what_a_service_is_told(gateway: Gateway) -> None:
    routers, robots, demo = (gateway.generation.est[label] for label in ("ca:1", "robots", "demo"))
    assert (routers.renewal_info, robots.renewal_info) == (True, False)
    assert (routers.cmc, routers.server_keygen, demo.cmc, demo.server_keygen) == (None, None, None, None)
    assert demo.failure_limit == FailureLimit(1000, timedelta(hours=1))
    assert routers.failure_limit is None
    assert all(service.csr_attributes for service in (routers, robots, demo))
    assert {scheme.split(" ")[0] for scheme in routers.challenges(NOW)} == {"Basic", "Bearer", "Digest"}
    assert robots.challenges(NOW) == ()


async def test_csr_attributes_may_be_off(installation: Installation, est: dict[str, Any]) -> None:
    est["csrattrs"] = "off"
    gateway = await open_gateway(*installation.read(), worker="w1", generation=1, clock=lambda: NOW)
    assert gateway.generation.est["demo"].csr_attributes is None
    await gateway.close()


async def test_drawn_keys_and_whom_they_are_encrypted_to(gateway: Gateway, whole: Installation) -> None:
    keygen, signer = gateway.generation.est["robots"].server_keygen, gateway.generation.est["robots"].cmc
    assert keygen is not None
    assert signer is not None
    assert keygen.keys == ("ec-p256", "rsa-2048")
    assert dict(keygen.recipients.symmetric_keys) == {b"dock-7": b"\n" * 16}
    assert [len(recipient.key_id) for recipient in keygen.recipients.certificates] == [20]
    assert keygen.recipients.signer is not None
    assert keygen.recipients.signer.certificate == certificate(whole, "keygen").der
    assert signer.certificate == certificate(whole, "cmc").der
    assert keygen.recipients.required


def test_identifiers_may_be_bytes(installation: Installation, est: dict[str, Any]) -> None:
    est["server_keygen"] = {
        "symmetric_keys": {"hex:00FF": {"file": installation.write("kek", b"00" * 32)}},
        "signer": installation.pair("keygen", "ec-p256", issuer=installation.issuer()),
    }
    assert installation.judged().problems == ()


def test_profiles_are_opened_and_linked(gateway: Gateway) -> None:
    profiles = gateway.generation.snapshot.profiles
    assert profiles[ROBOTS].endpoints == {Protocol.EST}
    assert profiles[DEMO].endpoints == {Protocol.SCEP, Protocol.EST, Protocol.ACME, Protocol.CMP}
    assert (profiles[ROBOTS].linking, profiles[ProfileName("kiosks")].linking) == ("if_present", "off")


def test_every_kind_of_credential(gateway: Gateway) -> None:
    robots = gateway.generation.snapshot.profiles[ROBOTS].credentials
    assert [provider.kind for provider in robots] == [
        CredentialKind.TLS_CERTIFICATE,
        CredentialKind.RA_CERTIFICATE,
        CredentialKind.RA_CERTIFICATE,
        CredentialKind.ALL_OF,
    ]
    whole = robots[-1]
    assert isinstance(whole, AllOfCredential)
    assert [part.kind for part in whole.parts] == [CredentialKind.TLS_CERTIFICATE, CredentialKind.ONE_TIME]
    routers = gateway.generation.snapshot.profiles[ROUTERS].credentials
    assert {provider.kind for provider in routers} == {
        *(CredentialKind.BASIC, CredentialKind.BEARER, CredentialKind.DIGEST, CredentialKind.CERTIFICATE)
    }


def test_our_own_keys_authenticate_nobody(gateway: Gateway, whole: Installation) -> None:
    own = gateway.generation.snapshot.profiles[ROBOTS].own_keys
    digests = {name: certificate(whole, name).public_key.sha256 for name in ("keygen", "cmc", "rollover", "recipient", "robots")}
    assert {name for name, digest in digests.items() if digest in own} == {"keygen", "cmc", "rollover"}


def test_tls_takes_every_profiles_clients(gateway: Gateway, whole: Installation) -> None:
    asked = set(gateway.generation.tls["https_mtls"].get_ca_certs(binary_form=True))
    names = ("maker", "robots", "gateways", "partners", "fleet", "ca/issuing")
    assert asked == {certificate(whole, name).der for name in names}


def test_tls_takes_our_own_where_est_renews_only(whole: Installation) -> None:
    del whole.data["profiles"]["routers"]["renewal"]
    whole.data["profiles"]["routers"]["endpoints"]["est"]["renewal_info"] = False
    asked = establish(*whole.read(), lambda: NOW).tls["https_mtls"].get_ca_certs(binary_form=True)
    assert set(asked) == {certificate(whole, name).der for name in ("maker", "robots", "gateways", "partners")}


def test_proxies_are_told(gateway: Gateway) -> None:
    found = gateway.generation.proxies.find("192.0.2.9")
    assert found is not None
    assert (found.client_certificate, found.client_address) == ("rfc9440", True)
    assert gateway.generation.proxies.find("192.0.2.8") is None


def test_passwords_take_one_core_each(installation: Installation) -> None:
    installation.data["server"]["workers"] = "cores"
    assert password_places(installation.read()[0]) == 1
    installation.data["server"]["workers"] = 200
    assert password_places(installation.read()[0]) == 1


async def test_every_key_is_proved(gateway: Gateway) -> None:
    for probe in gateway.probes():
        await probe.check()


@pytest.mark.parametrize(
    ("users", "said"),
    [
        pytest.param(b"# only a comment\n", "names 0 users", id="comment"),
        pytest.param(b"router-1\n", "line 1 is not NAME:HASH", id="no-hash"),
        pytest.param(b"router-1:" + PASSWORD.encode(), "line 1 is no scrypt hash", id="plain-text"),
        pytest.param(b"\xff:x\n", "is not UTF-8", id="bytes"),
    ],
)
def test_files_of_users_that_cannot_be_used(installation: Installation, users: bytes, said: str) -> None:
    installation.profile["credentials"] = [installation.basic("demo", "router-1")]
    installation.write("demo-users", users)
    found = installation.problems()
    assert found.keys() == {USERS}
    assert found[USERS].startswith("file demo-users: ")
    assert said in found[USERS]
    assert PASSWORD not in found[USERS]


def test_a_user_without_a_name_binds_nothing(installation: Installation) -> None:
    installation.profile["credentials"] = [installation.basic("demo", "")]
    assert "whom no CN can equal" in installation.problems()[USERS]
    installation.profile["credentials"][0]["names"] = "any"
    assert installation.problems() == {}


@pytest.mark.parametrize("place", ["cmc", "server_keygen.signer"])
@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        pytest.param({}, "", "", id="good"),
        pytest.param({"usage": ("keyEncipherment",)}, "certificate", "lacks digitalSignature", id="usage"),
        pytest.param({"of": key("ec-p256", "another")}, "key", "does not belong", id="key"),
        pytest.param({"end": NOW - DAY, "start": NOW - YEAR}, "certificate", "expired on", id="expired"),
    ],
)
def test_pairs_that_sign(
    installation: Installation, est: dict[str, Any], place: str, change: dict[str, Any], field: str, said: str
) -> None:
    pair = installation.pair("signs", "ec-p256", **{"usage": ("digitalSignature",), "issuer": installation.issuer(), **change})
    est.update({"cmc": pair} if place == "cmc" else {"server_keygen": {"signer": pair}})
    found = installation.problems()
    assert found.keys() == ({f"{EST}.{place}.{field}"} if field else set())
    assert all(said in sentence for sentence in found.values())


@pytest.mark.parametrize("place", ["cmc", "rollover", "recipients"])
def test_files_that_cannot_be_read_are_named(installation: Installation, est: dict[str, Any], place: str) -> None:
    junk = installation.write("junk.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    signer = installation.pair("keygen", "ec-p256", issuer=installation.issuer())
    match place:
        case "cmc":
            est["cmc"] = {**signer, "certificate": junk}
        case "rollover":
            est["rollover"] = junk
        case _:
            est["server_keygen"] = {"signer": signer, "recipients": junk}
    (field,) = installation.problems()
    assert field.startswith(EST)
    assert place in field


def test_a_recipient_that_nothing_can_be_encrypted_to(installation: Installation, est: dict[str, Any]) -> None:
    signer = installation.pair("keygen", "ec-p256", issuer=installation.issuer())
    recipient = installation.pair("recipient", usage=("digitalSignature",))["certificate"]
    est["server_keygen"] = {"signer": signer, "recipients": recipient}
    found = installation.problems()
    assert found.keys() == {f"{EST}.server_keygen.recipients"}
    assert "certificate 1: its key usage lacks keyEncipherment" in found.popitem()[1]


def test_a_recipient_that_has_expired_is_told_of(installation: Installation, est: dict[str, Any]) -> None:
    signer = installation.pair("keygen", "ec-p256", issuer=installation.issuer())
    recipient = installation.pair("recipient", usage=("keyEncipherment",), start=NOW - YEAR, end=NOW - DAY)["certificate"]
    est["server_keygen"] = {"signer": signer, "recipients": recipient}
    found = installation.expiring()
    assert found.keys() == {f"{EST}.server_keygen.recipients"}
    assert "keys are still encrypted to it" in found.popitem()[1]


def test_a_rollover_that_leads_nowhere(installation: Installation, est: dict[str, Any]) -> None:
    est["rollover"] = installation.pair("leaf", issuer=installation.issuer())["certificate"]
    assert "is no CA certificate" in installation.problems()[f"{EST}.rollover"]
    est["rollover"] = installation.ca("orphan")
    assert installation.problems() == {}  # it signed itself: a new root


def test_a_chain_without_a_root(installation: Installation) -> None:
    installation.data["upstream_cas"]["local"]["chain"] = []
    warned = [problem for problem in installation.judged().warnings if problem.field == "profiles.demo.upstream_ca"]
    assert any("EST clients must get from cacerts" in problem.sentence for problem in warned)


@pytest.mark.parametrize("kind", ["tls_certificate", "ra_certificate"])
def test_cas_of_clients_and_their_crls(installation: Installation, kind: str) -> None:
    installation.data["server"]["https_mtls"] = {**installation.data["server"]["https"], "listen": "127.0.0.1:3"}
    more: dict[str, Any] = {"subjects": ["CN=ra"]} if kind == "ra_certificate" else {}
    credential = {"type": kind, "anchors": installation.ca("makers"), "crls": installation.crl("makers", end=NOW - DAY), **more}
    installation.profile["credentials"] = [credential]
    found = installation.warnings()
    assert "holds no CRL of CN=makers that is in force" in found["profiles.demo.credentials[0].crls"]
    installation.ca("makers", start=NOW - YEAR, end=NOW - DAY)
    credential.pop("crls")
    assert "expired on" in installation.problems()["profiles.demo.credentials[0].anchors"]
    credential["anchors"] = installation.write("junk.pem", b"junk")
    assert installation.problems().keys() == {"profiles.demo.credentials[0].anchors"}


def test_issuers_of_tokens_are_others(installation: Installation) -> None:
    anchors = installation.write("own.pem", Path(installation.folder / "ca/ra.pem").read_bytes())
    token = {"type": "bearer", "anchors": anchors, "issuer": "i", "audience": "a"}
    installation.profile["credentials"] = [token]
    assert "is the gateway's own" in installation.problems()["profiles.demo.credentials[0].anchors"]


def test_pem_of_several_recipients(installation: Installation, est: dict[str, Any]) -> None:
    names = [installation.pair(name, usage=("keyEncipherment",))["certificate"] for name in ("one", "two")]
    pem = b"".join(der_to_pem(certificate(installation, name.removesuffix(".pem")).der) for name in names)
    signer = installation.pair("keygen", "ec-p256", issuer=installation.issuer())
    est["server_keygen"] = {"signer": signer, "recipients": installation.write("both.pem", pem)}
    assert installation.problems() == {}
