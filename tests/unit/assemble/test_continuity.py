"""Which upstream CAs go on in the next generation: those that would be made the same again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.assemble.continuity import CrlDuty, CrlWatch, Lasting, ca_fingerprints
from gateway.assemble.generation import Built, Parts, build
from gateway.assemble.identities import establish
from gateway.ca.group import GroupCA
from gateway.ca.setup import utc_now
from gateway.model import UpstreamCAName
from gateway.pki.keys import serialize_private_key
from gateway.ra.credentials.passwords import ScryptPool
from gateway.store.keys import KeyRing
from gateway.validation.ocsp import OcspClient
from tests.unit.assemble.installation import DAY, NOW, Installation, key

LOCAL, PROGRAM = UpstreamCAName("local"), UpstreamCAName("program")
PARTS = Parts(None, KeyRing((bytes(32),)), lambda: NOW, "w1", ScryptPool(1), OcspClient())  # type: ignore[arg-type]  # nothing is stored


@pytest.fixture
def two(installation: Installation) -> Installation:
    """The CA that every installation has, and a program that nobody uses."""
    installation.write("token", b"first")
    installation.data["upstream_cas"]["program"] = {
        "type": "exec",
        "command": ["/bin/cat"],
        "chain": [installation.ca("other")],
        "environment": {"TOKEN": {"file": "token"}, "PLAIN": "text"},
    }
    return installation


def make(installation: Installation, before: Built | None = None) -> Built:
    return build(*installation.read(), 2 if before else 1, PARTS, before.lasting if before else Lasting())


def cas_that_changed(before: Built, after: Built) -> set[str]:
    return {name for name, ca in after.lasting.cas.items() if before.lasting.cas.get(name) is not ca}


def test_nothing_has_changed(two: Installation) -> None:
    before = make(two)
    after = make(two, before)
    assert cas_that_changed(before, after) == set()
    assert after.lasting.crls[LOCAL].publisher is before.lasting.crls[LOCAL].publisher
    assert after.generation.snapshot.profiles.keys() == before.generation.snapshot.profiles.keys()


def replace_key(two: Installation) -> None:
    """The same CA certificate name, with another key: a renewal of the issuing CA."""
    two.write("ca/issuing.pem", (two.folder / two.ca("renewed", start=NOW - DAY)).read_bytes())
    two.write("secrets/issuing.key", serialize_private_key(key("ec-p256", "renewed")))
    two.data["upstream_cas"]["local"]["chain"] = []


CHANGES: dict[str, tuple[Callable[[Installation], object], set[str]]] = {
    "a profile": (lambda two: two.profile.update(approval="manual"), set()),
    "a secret of a program": (lambda two: two.write("token", b"second"), {"program"}),
    "a plain value": (lambda two: two.data["upstream_cas"]["program"]["environment"].update(PLAIN="other"), {"program"}),
    "a bound": (lambda two: two.data["upstream_cas"]["program"].update(concurrency=9), {"program"}),
    "the CRL's schedule": (lambda two: two.data["upstream_cas"]["local"].update(crl={"lifetime": "9d"}), {"local"}),
    "the URLs": (lambda two: two.data["server"]["external_url"].update(http="http://pki.example.com"), {"local", "program"}),
    "key and certificate": (replace_key, {"local"}),
    "another name": (lambda two: two.data["upstream_cas"].update(other=two.data["upstream_cas"]["program"]), {"other"}),
}


@pytest.mark.parametrize(("change", "changed"), CHANGES.values(), ids=CHANGES.keys())
def test_what_makes_a_ca_another(two: Installation, change: Callable[[Installation], object], changed: set[str]) -> None:
    before = make(two)
    change(two)
    after = make(two, before)
    assert cas_that_changed(before, after) == changed
    assert after.lasting.crls[LOCAL].publisher is before.lasting.crls[LOCAL].publisher
    assert after.lasting.crls[LOCAL].ca is after.lasting.cas[LOCAL]


def test_a_ca_without_crl_has_no_publisher(two: Installation) -> None:
    before = make(two)
    two.data["upstream_cas"]["local"]["crl"] = None
    without = make(two, before)
    assert dict(without.lasting.crls) == {}
    two.data["upstream_cas"]["local"]["crl"] = {}
    again = make(two, without)
    assert again.lasting.crls.keys() == {LOCAL}


def test_fingerprints_hold_no_secret(two: Installation) -> None:
    config, sources = two.read()
    digests = ca_fingerprints(config, sources)
    assert digests.keys() == {LOCAL, PROGRAM}
    assert all(len(digest) == 32 for digest in digests.values())


def with_vault(installation: Installation) -> Installation:
    """A CA beyond this machine that publishes a CRL."""
    installation.write("token", b"s.token")
    installation.data["upstream_cas"]["far"] = {
        "type": "vault",
        "url": "https://vault.example.com:8200",
        "chain": [installation.ca("far")],
        "auth": {"type": "token", "token": {"file": "token"}},
        "role": "devices",
    }
    return installation


def test_crl_of_a_ca_beyond_this_machine_is_kept_by_one_keeper_over_reloads(installation: Installation) -> None:
    far = UpstreamCAName("far")
    first = make(with_vault(installation))
    installation.write("token", b"s.another")
    second = make(installation, first)
    before, after = first.lasting.crls[far], second.lasting.crls[far]
    assert after.publisher is before.publisher
    assert after.ca is not before.ca
    assert second.generation.publications[far].crl is after.publisher
    assert isinstance(after, CrlWatch)
    assert isinstance(second.lasting.crls[LOCAL], CrlDuty)


def test_ca_that_moves_to_another_machine_gets_a_keeper_of_its_own(installation: Installation) -> None:
    far = UpstreamCAName("far")
    first = make(with_vault(installation))
    local = dict(installation.data["upstream_cas"]["local"])
    installation.data["upstream_cas"]["far"] = local
    second = make(installation, first)
    assert isinstance(second.lasting.crls[far], CrlDuty)
    assert isinstance(make(with_vault(installation), second).lasting.crls[far], CrlWatch)


def with_group(installation: Installation) -> Installation:
    data = installation.data["upstream_cas"]
    with_vault(installation)
    data["near"] = {"type": "exec", "command": ["/bin/true"], "chain": [installation.ca("near")]}
    data["both"] = {"type": "group", "members": ["far", "near"]}
    return installation


def test_group_has_the_members_that_are_there_by_themselves(installation: Installation) -> None:
    cas = make(with_group(installation)).lasting.cas
    group = cas[UpstreamCAName("both")]
    assert isinstance(group, GroupCA)
    assert [id(member) for member in group.members] == [id(cas[UpstreamCAName(name)]) for name in ("far", "near")]
    assert group.chain()[0] == cas[UpstreamCAName("far")].chain()[0]


def test_group_goes_on_with_its_members_and_changes_with_them(installation: Installation) -> None:
    first = make(with_group(installation))
    same = make(installation, first)
    assert cas_that_changed(first, same) == set()
    installation.write("token", b"s.another")
    changed = make(installation, same)
    assert cas_that_changed(same, changed) == {"far", "both"}
    group = changed.lasting.cas[UpstreamCAName("both")]
    assert isinstance(group, GroupCA)
    assert [id(member) for member in group.members] == [id(changed.lasting.cas[UpstreamCAName(name)]) for name in ("far", "near")]


def test_certificates_of_a_group_are_named_by_its_members(installation: Installation) -> None:
    config, sources = with_group(installation).read()
    places = [named.path for named in establish(config, sources, utc_now).certificates]
    assert ("upstream_cas", "far", "chain") in places
    assert not any(path[:2] == ("upstream_cas", "both") for path in places)


def test_group_of_what_cannot_be_built_is_not_told_of(installation: Installation) -> None:
    with_group(installation)
    installation.data["upstream_cas"]["near"]["command"] = ["/nowhere/sign"]
    config, sources = installation.read()
    found = establish(config, sources, utc_now)
    assert [problem.path for problem in found.problems] == [("upstream_cas", "near", "command")]
    assert UpstreamCAName("both") not in found.cas
