"""What operators' commands print, run on a store without a server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import RunMain


def test_a_challenge_is_alone_on_standard_output(state: Path, run_main: RunMain) -> None:
    done = run_main(state, "challenge", "new", "demo", "--subject", "CN=a", "--san", "dns:a.example", "--ttl", "30m")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.split()) == 1
    [row] = json.loads(run_main(state, "challenge", "list", "--format", "json").out)
    assert (row["profile"], row["subject"], row["sans"]) == ("demo", "CN=a", ["dns:a.example"])
    assert done.out.strip() not in json.dumps(row)
    assert run_main(state, "challenge", "revoke", row["id"]).out == f"Challenge {row['id']} is revoked.\n"
    assert run_main(state, "challenge", "revoke", "nothing").code == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("requests list", "No requests.\n", id="requests"),
        pytest.param("requests list --state open,unknown --profile demo", "No requests.\n", id="requests-filtered"),
        pytest.param("certs list --expires-before 2100-01-01 --not-revoked", "No certificates.\n", id="certs"),
        pytest.param("certs list --profile demo --format json", "[]\n", id="certs-json"),
        pytest.param("certs export --format csv", "", id="export"),
        pytest.param("challenge list --profile demo", "No challenges.\n", id="challenges"),
    ],
)
def test_nothing_to_show(state: Path, run_main: RunMain, line: str, said: str) -> None:
    done = run_main(state, *line.split(" "))
    assert (done.code, done.out, done.err) == (0, said, "")


def test_a_crl_is_published(state: Path, run_main: RunMain) -> None:
    assert json.loads(run_main(state, "crl", "publish", "--format", "json").out)[0]["number"] == 1
    assert json.loads(run_main(state, "crl", "publish", "local", "--format", "json").out)[0]["number"] == 2


def test_status(state: Path, run_main: RunMain) -> None:
    shown = json.loads(run_main(state, "status", "--format", "json").out)
    assert (shown["running"], shown["profiles"]) == (False, ["demo"])
    assert "crl local" in run_main(state, "status").out


def test_a_command_to_a_running_server_builds_no_models() -> None:
    code = "import sys, gateway.cli.challenge; print('gateway.config.fields' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "False\n"
