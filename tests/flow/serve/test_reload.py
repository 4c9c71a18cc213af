"""`pki-gateway reload` and SIGHUP against real processes: all of them follow, or none, whatever dies, hangs or comes late."""

import json
import os
import signal
import ssl
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.pki.certificate import der_to_pem, self_signed_ca
from gateway.pki.keys import generate_private_key, serialize_private_key
from tests.conftest import RunningServer, StartServer
from tests.flow.serve.conftest import Faults
from tests.flow.serve.processes import (
    audited,
    begin,
    change,
    generations,
    kill,
    logged,
    requests_meanwhile,
    wait_for,
    workers,
)

LONGER = ("ttl: 1h", "ttl: 2h")


def other_ttl(server: RunningServer) -> None:
    change(server, *LONGER)


def reload_by_signal(server: RunningServer, event: str) -> dict[str, Any]:
    """Reload, and wait for the log line that says how it ended; no worker has anything to do with who asked."""
    known = len(logged(server, event))
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: len(logged(server, event)) > known)
    return logged(server, event)[-1]


def in_force(server: RunningServer) -> str:
    config = json.loads(server.cli("config", "show", "--format", "json").stdout)
    assert server.cli("config", "diff").stdout == "No difference.\n"
    return str(config["profiles"]["demo"]["credentials"][0]["ttl"])


def test_a_reload_is_in_force_in_every_worker_when_the_command_ends(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = workers(server)
    other_ttl(server)
    done = json.loads(server.cli("reload", "--format", "json").stdout)
    assert done == {
        "generation": 2,
        "fields": [{"field": "profiles.demo.credentials[0].ttl", "before": "1h", "after": "2h"}],
        "contents": [],
    }
    assert generations(server) == {2}
    assert in_force(server) == "2h"
    assert workers(server) == before
    [row] = audited(server, "configuration.reloaded")
    assert (row["generation"], row["detail"], row["decision"]) == (2, "profiles.demo.credentials[0].ttl", "done")
    assert row["actor"].startswith("uid:")
    assert server.cli("reload").stdout == "Nothing has changed: generation 2 stays in force.\n"


def test_a_profile_that_comes_is_one_difference(start_server: StartServer) -> None:
    server = start_server(workers=1)
    change(server, "  demo:\n", "  other:\n")
    change(server, "[demo]", "[other]")
    shown = server.cli("reload").stdout
    assert "Generation 2 is in force." in shown
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ["profiles.demo", "profiles.other"]
    assert b"POSTPKIOperation" in server.get("/scep/other?operation=GetCACaps")


def test_files_behind_the_same_names_are_read_again(start_server: StartServer) -> None:
    server = start_server(workers=2)
    key = generate_private_key("ec-p256")
    now = datetime.now(UTC)
    made = self_signed_ca(key, "CN=other.example", now - timedelta(days=1), now + timedelta(days=300))
    (server.state / "tls" / "server.pem").write_bytes(der_to_pem(made))
    (server.state / "secrets" / "tls.key").write_bytes(serialize_private_key(key))
    done = json.loads(server.cli("reload", "--format", "json").stdout)
    assert done["contents"] == ["content of tls/server.pem", "secret of file secrets/tls.key"]
    assert done["fields"] == []
    for _ in range(8):
        assert ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", server.https_port))) == made


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("profiles:", "profiles: [", "this is not YAML", id="broken"),
        pytest.param("ttl: 1h", "ttl: never", "profiles.demo.credentials[0].ttl", id="wrong-value"),
        pytest.param("ca/ra.pem", "ca/gone.pem", "cannot be read", id="missing-file"),
        pytest.param("ca/ra.pem", "ca/issuing.pem", "profiles.demo.endpoints.scep", id="other-pair"),
        pytest.param("workers: cores", "workers: 3", "server.workers: was cores", id="needs-a-restart"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(start_server: StartServer, old: str, new: str, said: str) -> None:
    server = start_server(workers=2)
    before = server.config.read_text()
    change(server, old, new)
    done = server.cli("reload", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr + server.log.read_text()
    assert generations(server) == {1}
    server.config.write_text(before)
    [row] = audited(server, "configuration.refused")
    assert (row["decision"], row["generation"]) == ("refused", 1)
    assert said in row["detail"]
    assert server.cli("reload").stdout == "Nothing has changed: generation 1 stays in force.\n"


def test_without_a_server_there_is_nothing_to_reload(start_server: StartServer) -> None:
    server = start_server(workers=1)
    assert server.stop() == 0
    for command in ("reload", "restart"):
        done = server.cli(command, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("No server answers at ")


def test_a_worker_that_dies_while_the_file_is_bad_comes_back_with_what_was_accepted(start_server: StartServer) -> None:
    server = start_server(workers=1)
    other_ttl(server)
    assert server.cli("reload").returncode == 0
    accepted = server.config.read_text()
    server.config.write_text("broken: [")
    (server.state / "secrets" / "ra.key").rename(server.state / "ra.key")
    assert server.cli("reload", check=False).returncode == 1
    [victim] = workers(server)
    kill(victim)
    wait_for(lambda: len(logged(server, "a worker was replaced")) == 1)
    (server.state / "ra.key").rename(server.state / "secrets" / "ra.key")
    server.config.write_text(accepted)
    assert generations(server) == {2}
    assert in_force(server) == "2h"


def test_reloads_at_once_share_one(start_server: StartServer) -> None:
    server = start_server(workers=2)
    other_ttl(server)
    commands = [begin(server, "reload") for _ in range(6)]
    for command in commands:
        said, _ = command.communicate(timeout=60)
        assert (command.returncode, "generation 2" in said.lower()) == (0, True)
    assert len(audited(server, "configuration.reloaded")) == 1


def test_a_storm_of_signals_fails_no_request_and_puts_nothing_bad_in_force(start_server: StartServer) -> None:
    server = start_server(workers=2)
    good = server.config.read_text()
    texts = [good.replace(*LONGER), good.replace("ttl: 1h", "ttl: never"), good, "broken: ["]
    with requests_meanwhile(server) as answers:
        until, turn = time.monotonic() + 4, 0
        while time.monotonic() < until:
            server.config.write_text(texts[turn % 4])
            os.kill(server.process.pid, signal.SIGHUP)
            turn += 1
            time.sleep(0.01)
        server.config.write_text(texts[0])
    assert set(answers) == {"ok"}
    done = json.loads(server.cli("reload", "--format", "json").stdout)
    assert generations(server) == {done["generation"]}
    assert in_force(server) == "2h"
    rows = audited(server, "configuration.reloaded") + audited(server, "configuration.refused")
    assert len(rows) <= 12
    assert server.cli("audit", "verify").returncode == 0


# What goes wrong in the middle


@pytest.mark.parametrize("fault", ["hangs-in-prepare", "late-in-prepare", "stands-still-in-prepare"])
def test_a_worker_that_does_not_answer_keeps_the_old_and_is_replaced(
    faults: Faults, start_server: StartServer, fault: str
) -> None:
    server = start_server(workers=2)
    before = workers(server)
    other_ttl(server)
    faults.lay(fault)
    refused = reload_by_signal(server, "configuration refused: what was in force stays")
    assert faults.struck(fault)
    assert "did not answer within" in refused["cause"]
    wait_for(lambda: len(audited(server, "configuration.refused")) == 1)
    wait_for(lambda: len(workers(server)) == 2 and len(workers(server) & before) == 1)
    wait_for(lambda: bool(logged(server, "a worker that did not answer was replaced") + logged(server, "a worker was replaced")))
    assert generations(server) == {1}
    assert server.cli("reload").returncode == 0
    assert generations(server) == {3}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("dies-in-prepare", "a worker died meanwhile", id="dies"),
        pytest.param("fails-in-prepare", "could not build the configuration: RuntimeError", id="fails"),
    ],
)
def test_a_worker_that_cannot_prove_it_refuses_it_for_all(
    faults: Faults, start_server: StartServer, fault: str, said: str
) -> None:
    server = start_server(workers=2)
    other_ttl(server)
    faults.lay(fault)
    refused = reload_by_signal(server, "configuration refused: what was in force stays")
    assert said in refused["cause"]
    assert generations(server) == {1}
    assert server.cli("reload").returncode == 0
    wait_for(lambda: len(workers(server)) == 2)
    wait_for(lambda: fault != "dies-in-prepare" or bool(logged(server, "a worker was replaced")))
    assert generations(server) == {3}


@pytest.mark.parametrize("fault", ["dies-after-ready", "dies-in-commit", "stands-still-in-commit"])
def test_once_decided_all_follow_and_a_worker_that_does_not_is_replaced_by_one_that_does(
    faults: Faults, start_server: StartServer, fault: str
) -> None:
    server = start_server(workers=2)
    other_ttl(server)
    faults.lay(fault)
    reload_by_signal(server, "configuration reloaded")
    assert faults.struck(fault)
    assert generations(server) == {2}
    wait_for(lambda: bool(logged(server, "a worker was replaced")))
    assert generations(server) == {2}
    assert len(audited(server, "configuration.reloaded")) == 1


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        # A number that was prepared is not given again.
        pytest.param("dies-in-prepare", 3, id="dies-in-prepare"),
        pytest.param("dies-in-commit", 2, id="dies-in-commit"),
    ],
)
def test_a_command_whose_worker_dies_asks_another_one(faults: Faults, start_server: StartServer, fault: str, number: int) -> None:
    server = start_server(workers=1)
    other_ttl(server)
    faults.lay(fault)
    assert server.cli("reload").returncode == 0
    assert faults.struck(fault)
    assert generations(server) == {number}


def test_a_file_that_changes_after_it_was_read_does_not_matter(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    other_ttl(server)
    read = server.config.read_text()
    faults.lay("slow-in-prepare")
    command = begin(server, "reload")
    wait_for(lambda: faults.struck("slow-in-prepare"))
    server.config.write_text("broken: [")
    (server.state / "secrets" / "ra.key").write_text("junk")
    assert command.wait(60) == 0
    command.communicate()
    assert generations(server) == {2}
    server.config.write_text(read)
    assert b"POSTPKIOperation" in server.get("/scep/demo?operation=GetCACaps")


def test_a_worker_that_starts_meanwhile_is_brought_up_to_date(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    faults.lay("slow-in-start")
    kill(min(workers(server)))
    wait_for(lambda: faults.struck("slow-in-start"))
    other_ttl(server)
    reload_by_signal(server, "configuration reloaded")
    assert not logged(server, "a worker was replaced")
    wait_for(lambda: bool(logged(server, "a worker was replaced")))
    assert generations(server, 24) == {2}


def test_the_end_of_the_service_ends_a_reload(faults: Faults, start_server: StartServer) -> None:
    server = start_server(workers=2)
    other_ttl(server)
    faults.lay("hangs-in-prepare")
    command = begin(server, "reload")
    wait_for(lambda: faults.struck("hangs-in-prepare"))
    assert server.stop() == 0
    _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (1, "the service ends\n")
    assert "Traceback" not in server.log.read_text()


def test_a_service_whose_first_workers_die_comes_up_all_the_same(faults: Faults, start_server: StartServer) -> None:
    faults.lay("dies-in-start")
    faults.lay("dies-in-start-again")
    server = start_server(workers=1)
    assert faults.struck("dies-in-start-again")
    assert len(logged(server, "a worker cannot begin and is tried again")) == 2
    assert "Ctrl-C ends it" in server.log.read_text()


def test_commands_reach_the_server_whatever_the_file_is_worth(start_server: StartServer, tmp_path: Path) -> None:
    """The socket is not where it is looked for by default; what serves on must be told, and be able to revoke."""
    server = start_server(edit=lambda text: text.replace("admin_socket: run/admin.sock", f"admin_socket: {tmp_path}/a.sock"))
    good = server.config.read_text()
    assert f"admin_socket: {tmp_path}/a.sock" in good
    server.config.write_text(good.replace("profiles:", "profiles: ["))
    failed = server.cli("reload", check=False)
    assert (failed.returncode, "this is not YAML" in failed.stderr) == (1, True), failed.stderr
    assert len(failures_shown(server)) == 1
    assert json.loads(server.cli("status", "--format", "json").stdout)["running"]
    assert server.new_challenge()
    assert server.cli("certs", "list").returncode == 0
    assert server.cli("certs", "revoke", "4711", check=False).returncode == 1
    assert json.loads(server.cli("crl", "publish", "--format", "json").stdout)
    server.config.unlink()
    there = ("--admin-socket", str(tmp_path / "a.sock"))
    failed = server.cli("reload", *there, check=False)
    assert (failed.returncode, "No such file" in failed.stderr) == (1, True), failed.stderr
    assert server.cli("restart", *there).returncode == 0
    assert server.cli("reload", check=False).returncode == 3
    server.config.write_text(good)
    assert server.cli("reload").returncode == 0


def failures_shown(server: RunningServer) -> list[str]:
    """Return what /metrics says of the last reload: a broken file is no place to read the audit trail by."""
    with urllib.request.urlopen(f"{server.monitoring_url}/metrics", timeout=20) as reply:
        lines = reply.read().decode().splitlines()
    return [line for line in lines if line == "gateway_config_last_reload_successful 0.0"]
