"""A gateway with two workers whose CA and RA keys are in a real PKCS#11 token: it enrolls, and is reloaded with other PINs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gateway.ca.pin_guard import RECORD
from gateway.pki.keys import load_private_key
from tests.conftest import RunningServer, StartServer
from tests.flow.serve.processes import workers
from tests.peers.softhsm import PACKAGE, PIN, PROGRAM, SoftHsm

pytestmark = pytest.mark.interop


@pytest.fixture
def hsm(tmp_path: Path, require_program: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    require_program(PROGRAM, PACKAGE)
    peer = SoftHsm.create(tmp_path / "softhsm")
    for name, value in peer.environment.items():
        monkeypatch.setenv(name, value)
    peer.add_token("gateway")
    return peer


def move_keys(hsm: SoftHsm, state: Path, pin: str = PIN) -> Callable[[str], str]:
    """Return an edit that puts the keys of the CA, EC, and of the RA, RSA, into the token."""

    def edit(text: str) -> str:
        data, secrets = yaml.safe_load(text), state / "secrets"
        for name, number in (("issuing", "01"), ("ra", "02")):
            hsm.import_key("gateway", name, load_private_key((secrets / f"{name}.key").read_bytes()), number)
            (secrets / f"{name}.key").unlink()
        set_pin(state, pin)

        def place(label: str) -> dict[str, object]:
            named = {"module": str(hsm.module), "token": "gateway", "label": label, "pin": {"file": "secrets/pin"}}
            return {"pkcs11": named}

        data["upstream_cas"]["local"]["key"] = place("issuing")
        data["profiles"]["demo"]["endpoints"]["scep"]["ra_key"] = place("ra")
        return json.dumps(data)

    return edit


def set_pin(state: Path, pin: str) -> None:
    file = state / "secrets" / "pin"
    file.touch(0o600)
    file.write_text(pin)


def refused(state: Path) -> int:
    """Return how many PINs the token has refused, as the gateway remembers it."""
    found = list(state.rglob(RECORD))
    return len(found[0].read_text().split()) if found else 0


def enroll(server: RunningServer) -> None:
    server.cli("test-enroll", "--profile", "demo")


def test_two_workers_enroll_and_follow_reloads(start_server: StartServer, hsm: SoftHsm, tmp_path: Path) -> None:
    state = tmp_path / "state"
    server = start_server(workers=2, edit=move_keys(hsm, state))
    assert len(workers(server)) == 2
    for _ in range(4):
        enroll(server)
    assert server.get("/crl/local.crl")
    checked = server.cli("upstream", "test", "local")
    assert "the token signs" in checked.stdout
    set_pin(state, "9999")
    for times in (1, 2):
        done = server.cli("reload", check=False)
        assert done.returncode != 0, times
        assert "PIN" in done.stdout + done.stderr
        assert "9999" not in done.stdout + done.stderr
    assert refused(state) == 1
    enroll(server)
    set_pin(state, PIN)
    server.cli("reload")
    enroll(server)
    assert "9999" not in server.log.read_text()
    assert PIN not in (state / "profiles.yaml").read_text()


def test_a_service_with_a_wrong_pin_asks_its_token_once(start_server: StartServer, hsm: SoftHsm, tmp_path: Path) -> None:
    state = tmp_path / "state"
    for attempt in range(2):
        with pytest.raises(AssertionError):
            start_server(workers=2, edit=move_keys(hsm, state, "9999") if attempt == 0 else None)
    assert refused(state) == 1
    shutil.rmtree(hsm.tokens)
