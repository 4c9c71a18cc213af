"""A gateway in front of Vault's paths: lost answers, revocation, the commands for operators."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.pki.keys import generate_private_key, public_key_der
from tests.conftest import RunningServer, launch
from tests.interop.settings import edit
from tests.peers import vault
from tests.peers.vault import VaultPeer

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultPeer]:
    folder = tmp_path_factory.mktemp("vault") / "site"
    with vault.running(folder, organization=[], key_usage=["DigitalSignature", "KeyEncipherment"]) as running:
        yield running


@pytest.fixture(scope="module")
def front(peer: VaultPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    def behind(document: dict[str, Any]) -> None:
        document["upstream_cas"]["there"] = peer.section()
        document["profiles"]["demo"]["upstream_ca"] = "there"

    running = launch(tmp_path_factory.mktemp("front") / "state", workers=2, edit=edit(behind))
    try:
        yield running
    finally:
        assert running.stop() == 0


def test_enrolls_and_revokes(front: RunningServer, peer: VaultPeer) -> None:
    key = generate_private_key("rsa-2048")
    leaf, _ = front.enroll_by_est("CN=vault.example.org", key)
    assert peer.issued(public_key_der(key)) == [leaf.der]
    front.cli("certs", "revoke", f"{leaf.serial:x}")
    until = time.monotonic() + 20
    while not peer.fake.revoked and time.monotonic() < until:
        time.sleep(0.1)
    assert [int(serial.replace(":", ""), 16) for serial in peer.fake.revoked] == [leaf.serial]


@pytest.mark.parametrize("fault", ["reply lost", "html", "500 after", "cut"])
def test_a_lost_answer_reaches_its_client_all_the_same(front: RunningServer, peer: VaultPeer, fault: str) -> None:
    key = generate_private_key("rsa-2048")
    peer.fake.faults.append(fault)
    leaf, _ = front.enroll_by_est(f"CN={fault.replace(' ', '-')}.example.org", key)
    assert not peer.fake.faults
    assert peer.issued(public_key_der(key)) == [leaf.der]


def test_operators_are_told(front: RunningServer, peer: VaultPeer) -> None:
    tried = front.cli("upstream", "test", "there")
    assert "the role devices takes names from the gateway" in tried.stdout
    told = front.cli("upstream", "chain", "there")
    assert told.stdout.count("BEGIN CERTIFICATE") == 2
