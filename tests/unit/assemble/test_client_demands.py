"""What Windows, Apple, Android and scepclient demand, each as a warning."""

from __future__ import annotations

import pytest

from gateway.pki.certificate import Issuer
from tests.unit.assemble.installation import SCEP, Installation


@pytest.mark.parametrize(
    ("ekus", "said"),
    [
        pytest.param(("certificateRequestAgent",), False, id="agent"),
        pytest.param(("serverAuth",), False, id="server"),
        pytest.param(("clientAuth", "serverAuth"), False, id="server-beside"),
        pytest.param(("clientAuth",), True, id="client"),
        pytest.param((), True, id="none"),
    ],
)
@pytest.mark.parametrize("place", ["ra_certificate", "ra_encryption"])
def test_windows_wants_an_extended_key_usage(installation: Installation, place: str, ekus: tuple[str, ...], said: bool) -> None:
    pair = installation.pair("ra", ekus=ekus, issuer=installation.issuer())
    field = f"{SCEP}.ra_certificate"
    if place == "ra_encryption":
        installation.scep["ra_encryption"] = pair
        field = f"{SCEP}.ra_encryption.certificate"
    else:
        installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
    found = installation.warnings()
    assert found.keys() == ({field} if said else set())
    assert all("0x8010002c" in sentence for sentence in found.values())


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        pytest.param("issuing", False, id="issuing-ca"),
        pytest.param("root", False, id="same-top"),
        pytest.param(None, True, id="itself"),
    ],
)
def test_apple_wants_one_top_ca(installation: Installation, issuer: str | None, said: bool) -> None:
    pair = installation.pair("ra", issuer=installation.issuer(issuer) if issuer else None)
    installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
    found = installation.warnings()
    assert found.keys() == ({f"{SCEP}.ra_certificate"} if said else set())
    assert all("Apple" in sentence for sentence in found.values())


def test_android_and_windows_want_the_root(installation: Installation) -> None:
    del installation.data["upstream_cas"]["local"]["chain"]
    found = installation.warnings()
    assert found.keys() == {"profiles.demo.upstream_ca"}
    assert "no self-signed root" in found["profiles.demo.upstream_ca"]


@pytest.mark.parametrize(
    ("legacy", "fields"),
    [
        pytest.param({"sha1": True, "des": True}, {f"{SCEP}.legacy.des", "profiles.demo.upstream_ca"}, id="for-scepclient"),
        pytest.param({"sha1": True}, set(), id="for-others"),
    ],
)
def test_scepclient_of_debian_breaks_down_at_a_ca_that_is_not_rsa(
    installation: Installation, legacy: dict[str, bool], fields: set[str]
) -> None:
    installation.scep["legacy"] = legacy
    with_rsa = installation.warnings()
    assert with_rsa.keys() == fields - {"profiles.demo.upstream_ca"}
    root = installation.ca("ec-root")
    installation.data["upstream_cas"]["local"] = {
        "type": "exec",
        "command": ["/bin/true"],
        "chain": [root],
        "forms": ["pkcs10", "crmf"],
    }
    found = {field: said for field, said in installation.warnings().items() if not field.endswith("ra_certificate")}
    assert found.keys() == fields


def test_a_next_ca_that_is_in_force_already(installation: Installation) -> None:
    installation.scep["next_ca"] = "ca/issuing.pem"
    assert installation.warnings() == {f"{SCEP}.next_ca": "holds the CA that is in force: remove it when the change is done"}
    installation.scep["next_ca"] = installation.ca("next")
    assert installation.warnings() == {}


@pytest.mark.parametrize("same", [pytest.param(True, id="the-cas-own"), pytest.param(False, id="another")])
def test_strongswan_and_certmonger_find_the_issuer_by_its_key_identifier(installation: Installation, same: bool) -> None:
    issuing = installation.issuer()
    named = issuing if same else Issuer.create(issuing.name_der, issuing.key, b"\1" * 20)
    pair = installation.pair("ra", issuer=named)
    installation.scep.update({"ra_certificate": pair["certificate"], "ra_key": pair["key"]})
    found = installation.warnings()
    assert found.keys() == (set() if same else {f"{SCEP}.ra_certificate"})
    assert all("strongSwan" in sentence for sentence in found.values())
