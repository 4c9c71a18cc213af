"""CMP endpoints as they are built: what signs answers and drawn keys, what leads to the root, and where they are served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.assemble import Gateway, open_gateway
from gateway.assemble.credentials import read_inventory
from gateway.config.credentials import VendorCertificateCredential
from gateway.model import CredentialKind, Grant, ProfileName, Protocol
from gateway.pki.certificate import (
    Certificate,
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    pem_to_ders,
    self_signed_ca,
)
from gateway.pki.keys import load_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.ra.profile import CmpTerms
from gateway.web.generation import FailureLimit
from tests.unit.assemble.installation import DAY, NOW, YEAR, Installation, key

DEMO, TOWERS, SMALL = map(ProfileName, ("demo", "towers", "towers-small"))
CMP = "profiles.demo.endpoints.cmp"
SIGNER = f"{CMP}.signer.certificate"


@pytest.fixture
async def gateway(installation: Installation) -> AsyncIterator[Gateway]:
    installation.use_every_key()
    opened = await open_gateway(*installation.read(), worker="w1", generation=1, clock=lambda: NOW)
    yield opened
    await opened.close()


@pytest.fixture
def cmp(installation: Installation) -> dict[str, Any]:
    """The endpoint of profile demo."""
    endpoint: dict[str, Any] = installation.profile["endpoints"]["cmp"]
    return endpoint


def certificate(installation: Installation, name: str) -> Certificate:
    return parse_certificate(pem_to_ders((installation.folder / f"{name}.pem").read_bytes())[0])


def terms(gateway: Gateway, profile: ProfileName) -> CmpTerms:
    found = gateway.generation.snapshot.profiles[profile].cmp
    assert found is not None
    return found


def test_services_by_path(gateway: Gateway) -> None:
    assert {path: service.profile for path, service in gateway.generation.cmp.items()} == {
        ".well-known/cmp/p/demo": DEMO,
        ".well-known/cmp/p/towers": TOWERS,
        ".well-known/cmp": TOWERS,
        "pkix": TOWERS,
        "ejbca/publicweb/cmp/towers": TOWERS,
        ".well-known/cmp/p/towers-small": SMALL,
    }


def test_what_a_service_signs_with(gateway: Gateway, installation: Installation) -> None:
    service = gateway.generation.cmp["pkix"]
    signer, issuing = certificate(installation, "cmp"), certificate(installation, "ca/issuing")
    assert service.signer.certificate == signer.der
    assert service.protector.signature.certificates == signer.der + issuing.der
    assert (service.ends, service.offload) == (signer.not_after, False)
    assert service.is_valid(signer.not_after)
    assert not service.is_valid(signer.not_after + DAY)
    assert "the CMP signer of profile towers expired" in service.describe_end()


def test_what_a_profile_lets_clients_do(gateway: Gateway, installation: Installation) -> None:
    profile, found = gateway.generation.snapshot.profiles[TOWERS], terms(gateway, TOWERS)
    chain = (certificate(installation, "ca/issuing").der, certificate(installation, "ca/root").der)
    assert profile.endpoints == {Protocol.CMP}
    assert found.ca_certificates == chain
    assert found.extra_certificates == (certificate(installation, "ca/root").der,)
    assert found.root_update == (certificate(installation, "newest").der,)
    assert found.key_authority is not None
    assert found.key_authority.signer.certificate == certificate(installation, "drawing").der
    assert found.secrets is not None
    assert found.secrets.max_uses == 3
    assert found.request_template is not None
    demo = terms(gateway, DEMO)
    assert (demo.key_authority, demo.extra_certificates, demo.root_update) == (None, (), ())


def test_credentials(gateway: Gateway) -> None:
    kinds = [provider.kind for provider in gateway.generation.snapshot.profiles[TOWERS].credentials]
    assert kinds == [
        CredentialKind.CMP_SECRET,
        CredentialKind.VENDOR_CERTIFICATE,
        CredentialKind.RA_CERTIFICATE,
        CredentialKind.CERTIFICATE,
    ]


async def test_every_signer_is_proved(gateway: Gateway) -> None:
    for probe in gateway.probes():
        await probe.check()


def test_failures_are_limited_where_the_profile_says_so(gateway: Gateway) -> None:
    limited = gateway.generation.cmp[".well-known/cmp/p/demo"].failure_limit
    assert isinstance(limited, FailureLimit)
    assert limited.count == 1000
    assert gateway.generation.cmp["pkix"].failure_limit is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"usage": ("keyEncipherment",)}, "has a key usage without digitalSignature", id="usage"),
        pytest.param({"usage": ()}, None, id="any-usage"),
        pytest.param({"ekus": ("serverAuth",)}, None, id="other-purpose"),
    ],
)
def test_a_signer(installation: Installation, cmp: dict[str, Any], settings: dict[str, Any], said: str | None) -> None:
    cmp["signer"] = installation.cmp_signer("own", **settings)
    found = installation.problems()
    assert set(found) == (set() if said is None else {SIGNER})
    assert said is None or said in found[SIGNER]


def test_a_ca_signs_no_answers(installation: Installation, cmp: dict[str, Any]) -> None:
    cmp["signer"] = {"certificate": "ca/issuing.pem", "key": {"file": "secrets/issuing.key"}}
    assert "is a CA certificate" in installation.problems()[SIGNER]


@pytest.mark.parametrize(
    ("pair", "other"),
    [
        pytest.param(("tls/server.pem", "secrets/tls.key"), "server.https.certificate", id="tls"),
        pytest.param(("ca/ra.pem", "secrets/ra.key"), "profiles.demo.endpoints.scep.ra_certificate", id="ra"),
    ],
)
def test_a_key_of_its_own(installation: Installation, cmp: dict[str, Any], pair: tuple[str, str], other: str) -> None:
    cmp["signer"] = {"certificate": pair[0], "key": {"file": pair[1]}}
    assert f"is that of {other} too" in installation.problems()[SIGNER]


def test_a_key_that_is_another_ones(installation: Installation, cmp: dict[str, Any]) -> None:
    cmp["signer"] = installation.cmp_signer("own", of=key("ec-p256", "another"))
    assert set(installation.problems()) == {f"{CMP}.signer.key"}


def test_a_signer_that_cannot_be_read(installation: Installation, cmp: dict[str, Any]) -> None:
    cmp["signer"]["certificate"] = installation.write("broken.pem", b"nothing")
    assert installation.problems()[SIGNER] == "broken.pem does not hold a readable PEM certificate"


def test_a_signer_that_has_ended(installation: Installation, cmp: dict[str, Any]) -> None:
    cmp["signer"] = installation.cmp_signer("own", start=NOW - YEAR, end=NOW - DAY)
    assert "expired on" in installation.problems()[SIGNER]


def test_keys_are_signed_by_who_may(installation: Installation, cmp: dict[str, Any]) -> None:
    cmp["key_generation"] = {"signer": installation.cmp_signer("drawing", "cmcRA")}
    found = installation.problems()
    assert set(found) == {f"{CMP}.key_generation.signer.certificate"}
    assert "lacks id-kp-cmKGA" in found[f"{CMP}.key_generation.signer.certificate"]


def links(installation: Installation, *names: str) -> str:
    """Write a bundle of a change from the installation's root to a new one."""
    old = load_private_key((installation.folder / "secrets/root.key").read_bytes())
    old_root = certificate(installation, "ca/root")
    new = key("ec-p256", "new-root")
    new_root = self_signed_ca(new, "CN=new root", NOW - DAY, NOW + YEAR)

    def cross(issuer: Issuer, subject: bytes, public_key: bytes) -> bytes:
        grant = Grant(subject, (), ("keyCertSign",), (), NOW - DAY, NOW + YEAR)
        return build_certificate(issuer, new_serial(), grant, public_key, is_ca=True)

    made = {
        "new": new_root,
        "new-with-old": cross(
            Issuer.from_certificate(old_root.der, old), parse_certificate(new_root).subject.der, public_key_der(new)
        ),
        "old-with-new": cross(Issuer.from_certificate(new_root, new), old_root.subject.der, public_key_der(old)),
        "leaf": cross(
            Issuer.from_certificate(new_root, new), parse_name_text("CN=leaf").der, public_key_der(key("ec-p256", "leaf"))
        ),
    }
    return installation.write("update.pem", b"".join(der_to_pem(made[name]) for name in names))


@pytest.mark.parametrize(
    ("names", "order", "said"),
    [
        pytest.param(("new",), ("new",), None, id="new-root-alone"),
        pytest.param(
            ("old-with-new", "new-with-old", "new"), ("new", "new-with-old", "old-with-new"), None, id="in-whatever-order"
        ),
        pytest.param(("new", "new-with-old"), ("new", "new-with-old"), None, id="without-the-way-back"),
        pytest.param(("new", "old-with-new"), (), "holds OldWithNew without NewWithOld", id="only-the-way-back"),
        pytest.param(("new-with-old",), (), "holds no new root", id="no-root"),
        pytest.param(("new", "new-with-old", "leaf"), (), "is neither the new root under the old key", id="another-link"),
    ],
)
async def test_a_change_of_roots(
    installation: Installation, cmp: dict[str, Any], names: tuple[str, ...], order: tuple[str, ...], said: str | None
) -> None:
    cmp["root_update"] = links(installation, *names)
    if said is not None:
        found = installation.problems()
        assert set(found) == {f"{CMP}.root_update"}
        assert said in found[f"{CMP}.root_update"]
        return
    written = dict(zip(names, pem_to_ders((installation.folder / "update.pem").read_bytes()), strict=True))
    opened = await open_gateway(*installation.read(), worker="w1", generation=1, clock=lambda: NOW)
    try:
        assert terms(opened, DEMO).root_update == tuple(written[name] for name in order)
    finally:
        await opened.close()


def test_the_devices_of_an_inventory(installation: Installation) -> None:
    name = installation.write("devices", b"# all of them\nSN-1\n\n  SN-2  # moved\n")
    maker = {"type": "vendor_certificate", "anchors": installation.ca("maker"), "inventory": name}
    installation.profile["credentials"].append(maker)
    config, sources = installation.read()
    credential = config.profiles["demo"].credentials[-1]
    assert isinstance(credential, VendorCertificateCredential)
    assert read_inventory(credential, sources) == frozenset({"SN-1", "SN-2"})
