"""A change of the store key beside a running server: in the documented order it works, in another it is refused."""

from __future__ import annotations

import json
import subprocess

from gateway.store.keys import KeyRing, generate_store_key
from tests.conftest import COMMAND, RunningServer, StartServer


def restart(server: RunningServer) -> None:
    server.stop()
    with server.log.open("ab") as out:
        server.process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(server.config), "--workers", "1"],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server.wait_ready()


def test_rekey_waits_until_the_server_writes_under_the_new_key(start_server: StartServer) -> None:
    server = start_server()
    file = server.state / "secrets" / "store.key"
    old, new = file.read_text(), generate_store_key()
    assert json.loads(server.cli("status", "--format", "json").stdout)["store_key"] == KeyRing.parse(old.encode()).newest_id
    file.write_text(f"{new}\n{old}")
    refused = server.cli("store", "rekey", check=False)
    assert refused.returncode == 1
    assert "then restart the server" in " ".join(refused.stderr.split())
    file.write_text(old)
    assert server.cli("store", "check").returncode == 0
    file.write_text(f"{new}\n{old}")
    restart(server)
    server.cli("store", "rekey")
    server.cli("test-enroll", "--protocol", "scep", "--profile", "demo")
    server.stop()
    file.write_text(new)
    assert server.cli("store", "check").returncode == 0


def test_serve_refuses_a_store_that_vanished(start_server: StartServer) -> None:
    server = start_server()
    server.stop()
    (server.state / "store" / "gateway.db").unlink()
    refused = server.cli("serve", check=False)
    assert refused.returncode == 1
    assert "there is no store at" in " ".join(refused.stderr.split())
    assert not (server.state / "store" / "gateway.db").exists()
    listed = server.cli("challenge", "list", check=False)
    assert listed.returncode == 1
    assert not (server.state / "store" / "gateway.db").exists()
