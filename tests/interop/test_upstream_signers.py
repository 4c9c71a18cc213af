"""The gateway before step-ca and cfssl: devices enroll by EST, certificates are revoked there, requests wait while it is down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.est.client import EstAnswer
from tests.conftest import RunningServer, launch
from tests.interop.settings import Change, edit
from tests.peers import cfssl, step_ca
from tests.peers.cfssl import CfsslPeer
from tests.peers.step_ca import StepPeer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


def profile_of(name: str, section: dict[str, Any]) -> Change:
    """Add a CA and a profile of the same name that enrolls by EST."""

    def change(document: dict[str, Any]) -> None:
        document["upstream_cas"][name] = section
        made = deepcopy(document["profiles"]["demo"])
        made["endpoints"] = {"est": {}}
        made["credentials"] = [credential for credential in made["credentials"] if credential["type"] != "cmp_secret"]
        made["upstream_ca"] = name
        made.pop("renewal")
        made["policy"]["key_usage"] = {"allow": ["digitalSignature"], "default": ["digitalSignature"], "unlisted": "drop"}
        made["policy"]["validity"] = {"default": "31d", "max": "31d", "backdate": "1h"}
        made["policy"]["san"]["dns"]["max"] = 4
        made["policy"]["subject"]["allow"] = ["CN", "O"]
        document["profiles"][name] = made

    return change


@pytest.fixture(scope="module")
def step(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepPeer]:
    with step_ca.running(step_ca.require(pytestconfig), tmp_path_factory.mktemp("step") / "ca") as found:
        yield found


@pytest.fixture(scope="module")
def signer(require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CfsslPeer]:
    with cfssl.running(require_program(cfssl.PROGRAM, cfssl.PACKAGE), tmp_path_factory.mktemp("cfssl") / "ca") as found:
        yield found


@pytest.fixture(scope="module")
def gateway(step: StepPeer, signer: CfsslPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    state: Path = tmp_path_factory.mktemp("gateway") / "state"
    changes = edit(profile_of("step", step.section("granting")), profile_of("cfssl", signer.section("guarded")))
    running = launch(state, workers=2, edit=changes)
    yield running
    assert running.stop() == 0


def make_csr(name: str) -> tuple[PrivateKey, bytes]:
    key = generate_private_key("ec-p256")
    return key, build_csr(key, parse_name_text(f"CN={name}").der)


@pytest.mark.parametrize("name", ["step", "cfssl"])
def test_a_device_enrolls_and_its_certificate_is_revoked(
    gateway: RunningServer, step: StepPeer, signer: CfsslPeer, name: str
) -> None:
    peer: StepPeer | CfsslPeer = step if name == "step" else signer
    key, csr = make_csr(f"{name}-1")
    password = gateway.est_password
    first = gateway.est("simpleenroll", csr, label=name, password=password)
    assert first.status == 200, first.text
    assert peer.issued(public_key_der(key)) == [first.certificates[0]]
    again = gateway.est("simpleenroll", csr, label=name, password=password)
    assert again.certificates[0] == first.certificates[0]
    assert len(peer.issued(public_key_der(key))) == 1
    leaf, _ = gateway.enroll_by_est(f"CN={name}-2", label=name)
    assert leaf.ekus is not None
    assert set(leaf.ekus) == {eku_oid("clientAuth"), eku_oid("serverAuth")}
    gateway.cli("certs", "revoke", f"{leaf.serial:x}", "--reason", "superseded")
    if isinstance(peer, CfsslPeer):
        assert ("revoked", leaf.der) in peer.rows()
    assert f"{leaf.serial:x}" not in gateway.cli("certs", "untold").stdout


def test_requests_wait_while_they_are_down(gateway: RunningServer, step: StepPeer, signer: CfsslPeer) -> None:
    peers: dict[str, StepPeer | CfsslPeer] = {"step": step, "cfssl": signer}
    requests = {name: make_csr(f"{name}-waits") for name in peers}

    def ask(name: str) -> EstAnswer:
        return gateway.est("simpleenroll", requests[name][1], label=name, password=gateway.est_password)

    for peer in peers.values():
        peer.stop()
    try:
        assert [ask(name).status for name in peers] == [202, 202]
    finally:
        for peer in peers.values():
            peer.start()
    until = time.monotonic() + 100
    answers = {name: ask(name) for name in peers}
    while any(answer.status == 202 for answer in answers.values()) and time.monotonic() < until:
        time.sleep(1)
        answers = {name: ask(name) for name in peers}
    for name, peer in peers.items():
        assert answers[name].status == 200, answers[name].text
        assert peer.issued(public_key_der(requests[name][0])) == [answers[name].certificates[0]]


@pytest.mark.parametrize("name", ["step", "cfssl"])
def test_operators_try_it(gateway: RunningServer, name: str) -> None:
    tried = gateway.cli("upstream", "test", name, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    shown = gateway.cli("upstream", "chain", name, check=False)
    assert "BEGIN CERTIFICATE" in shown.stdout, shown.stderr
