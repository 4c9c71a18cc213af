"""`pki-gateway upstream`: CAs are listed, tried and asked for their chains without a running server; `doctor` tries them too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.doctor import check_upstreams
from gateway.config.load import read
from gateway.pki.certificate import der_to_pem, pem_to_ders, self_signed_ca
from gateway.pki.keys import generate_private_key
from tests.conftest import free_port
from tests.unit.cli.conftest import RunMain

KEY = generate_private_key("ec-p256")
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
OTHER = self_signed_ca(KEY, "CN=Another", START, START + timedelta(days=400))


def add(state: Path, **cas: dict[str, Any]) -> None:
    path = state / "profiles.yaml"
    data = yaml.safe_load(path.read_text())
    data["upstream_cas"] |= cas
    path.write_text(yaml.safe_dump(data))


def program(chain: str = "ca/root.pem", command: str = "/bin/true") -> dict[str, Any]:
    return {"type": "exec", "command": [command], "chain": [chain], "operations": ["find", "revoke"]}


def remote(port: int, **changes: object) -> dict[str, Any]:
    return {"type": "cfssl", "url": f"http://127.0.0.1:{port}", "profile": "device", "chain": ["ca/root.pem"], **changes}


@contextmanager
def cfssl(certificate: str) -> Iterator[int]:
    """Something that answers cfssl's `info` with this certificate, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            usages = ["digital signature"] if asked.get("profile") == "device" else ["cert sign"]
            result = {"certificate": certificate, "usages": usages, "expiry": "8760h"}
            body = json.dumps({"success": True, "result": result, "errors": [], "messages": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_list(state: Path, run_main: RunMain) -> None:
    add(state, program=program(), far=remote(1, queue="2h"), both={"type": "group", "members": ["far", "program"]})
    done = run_main(state, "upstream", "list", "--format", "json")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert (rows["program"]["type"], rows["program"]["where"], rows["program"]["can"]) == (
        "exec",
        "/bin/true",
        ["find", "revoke"],
    )
    assert (rows["far"]["where"], rows["far"]["queue"]) == ("http://127.0.0.1:1", "2h")
    assert rows["both"]["can"] == ["revoke"]
    local = next(row for row in rows.values() if row["type"] == "local")
    assert local["profiles"] == ["demo"]
    assert "Issuing CA" in local["issuer"]
    assert local["queue"] is None


def test_list_shows_what_cannot_be_built(state: Path, run_main: RunMain) -> None:
    add(state, program=program(command="/nowhere/sign"))
    done = run_main(state, "upstream", "list")
    assert done.code == 3
    assert "program" in done.out
    assert "upstream_cas.program.command: /nowhere/sign is not a program" in done.err


def test_a_trial_that_goes_well(state: Path, run_main: RunMain) -> None:
    add(state, program=program())
    done = run_main(state, "upstream", "test", "program", "--format", "json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [(row["trial"], row["verdict"]) for row in rows] == [("program", "ok"), ("beyond issuing", "ok")]
    assert rows[-1]["found"] == "find, revoke; where an answer is lost, the CA is asked what it did"


def test_a_ca_that_cannot_be_reached(state: Path, run_main: RunMain) -> None:
    add(state, far=remote(free_port()))
    done = run_main(state, "upstream", "test", "far")
    assert done.code == 1
    assert "1 of 1 trials failed." in done.err
    assert "cannot be reached" in done.out
    assert "it is held until `requests resolve`" in done.out


def test_a_group_is_tried_by_its_members(state: Path, run_main: RunMain) -> None:
    add(state, program=program(), far=remote(free_port()), both={"type": "group", "members": ["far", "program"]})
    done = run_main(state, "upstream", "test", "both", "--format", "json")
    assert done.code == 1
    assert [(row["trial"], row["verdict"]) for row in json.loads(done.out)] == [
        ("far: connection", "fail"),
        ("program: program", "ok"),
        ("beyond issuing", "ok"),
    ]


def test_only_the_ca_that_is_asked_for_has_to_be_whole(state: Path, run_main: RunMain) -> None:
    add(state, program=program(), broken=program(command="/nowhere/sign"))
    assert run_main(state, "upstream", "test", "program").code == 0
    done = run_main(state, "upstream", "test", "broken")
    assert (done.code, "upstream_cas.broken.command" in done.err) == (3, True)


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [
        pytest.param(-1, "fail", "pinned chain: CN=Ending expired on", id="over"),
        pytest.param(10, "warn", "pinned chain: CN=Ending ends in 9 days", id="soon"),
    ],
)
def test_a_pinned_chain_that_ends(state: Path, run_main: RunMain, days: int, verdict: str, words: str) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    (state / "ca" / "ending.pem").write_bytes(der_to_pem(self_signed_ca(KEY, "CN=Ending", end - timedelta(days=30), end)))
    add(state, program=program("ca/ending.pem"))
    assert run_main(state, "upstream", "test", "program").code == (1 if verdict == "fail" else 0)
    config, sources = read(state / "profiles.yaml")
    found = list(check_upstreams(config, sources, datetime.now(UTC)))
    assert [(f.verdict.value, f.found.startswith(words)) for f in found if f.found.startswith("pinned")] == [(verdict, True)]


def test_doctor_tries_them(state: Path, run_main: RunMain) -> None:
    add(state, program=program(), far=remote(free_port()), broken=program(command="/nowhere/sign"))
    done = run_main(state, "doctor", "--format", "json")
    rows = {row["check"]: row["verdict"] for row in json.loads(done.out)}
    assert (rows["upstream program"], rows["upstream far"]) == ("ok", "fail")
    assert rows["upstream_cas.broken.command"] == "fail"
    assert "upstream broken" not in rows
    assert done.code == 1


def test_names_that_are_none(state: Path, run_main: RunMain) -> None:
    for command in ("test", "chain"):
        done = run_main(state, "upstream", command, "nobody")
        assert done.code == 2
        assert "there is no upstream CA nobody; there are: " in done.err


def test_the_chain_before_it_is_pinned(state: Path, run_main: RunMain) -> None:
    """Neither the chain's file nor the rest of the configuration has to be there."""
    root = pem_to_ders((state / "ca" / "root.pem").read_bytes())[0]
    with cfssl(der_to_pem(root).decode()) as port:
        add(state, far=remote(port, chain=["ca/to-be-pinned.pem"]), broken={"type": "vault"})
        done = run_main(state, "upstream", "chain", "far")
        assert done.code == 0, done.err
        assert pem_to_ders(done.out.encode()) == (root,)
        assert "# SHA-256 " in done.out
        (state / "ca" / "to-be-pinned.pem").write_text(done.out)
        again = run_main(state, "upstream", "chain", "far", "--format", "json")
    assert [row["pinned"] for row in json.loads(again.out)] == [True]


def test_a_chain_that_is_another_one(state: Path, run_main: RunMain) -> None:
    with cfssl(der_to_pem(OTHER).decode()) as port:
        add(state, far=remote(port))
        done = run_main(state, "upstream", "chain", "far")
    assert (done.code, pem_to_ders(done.out.encode())) == (1, (OTHER,))
    assert "The issuing CA is not in the pinned chain" in done.err


def test_a_name_that_would_leave_its_line(state: Path, run_main: RunMain) -> None:
    evil = self_signed_ca(KEY, "CN=a\n-----BEGIN CERTIFICATE-----", START, START + timedelta(days=1))
    with cfssl(der_to_pem(evil).decode()) as port:
        add(state, far=remote(port))
        done = run_main(state, "upstream", "chain", "far")
    assert pem_to_ders(done.out.encode()) == (evil,)
    assert all(
        line.startswith(("#", "-----")) or line.replace("+", "").replace("/", "").rstrip("=").isalnum()
        for line in done.out.splitlines()
    )


@pytest.mark.parametrize(
    ("ca", "code", "words"),
    [
        pytest.param(program(), 1, "does not tell its chain", id="a program"),
        pytest.param({"type": "group", "members": ["other", "third"]}, 3, "has members: ask them", id="a group"),
        pytest.param(remote(1), 1, "The CA does not tell its chain: the CA cannot be reached", id="nobody there"),
        pytest.param(remote(1, connection={"anchors": "no.pem"}), 3, "far.connection.anchors: ", id="no anchors"),
        pytest.param({"type": "cfssl"}, 3, "upstream_cas.far.url: is required", id="half a section"),
    ],
)
def test_chains_that_nobody_tells(state: Path, run_main: RunMain, ca: dict[str, Any], code: int, words: str) -> None:
    add(state, far=ca, other=program(), third=program())
    done = run_main(state, "upstream", "chain", "far")
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_a_local_chain_is_in_its_files(state: Path, run_main: RunMain) -> None:
    name = next(iter(yaml.safe_load((state / "profiles.yaml").read_text())["upstream_cas"]))
    done = run_main(state, "upstream", "chain", name)
    assert (done.code, "has its chain in its own files" in done.err) == (3, True)
