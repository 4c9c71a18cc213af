"""A configuration with every key is checked, served and looked at by the commands that an operator has."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from gateway.pki import cms
from tests.conftest import StartServer, free_port
from tests.unit.assemble.installation import Installation


def test_a_configuration_with_every_key_serves(start_server: StartServer, tmp_path: Path) -> None:
    def use_every_key(text: str) -> str:
        installation = Installation(tmp_path / "state", yaml.safe_load(text))
        installation.use_every_key()
        installation.data["server"]["https_mtls"]["listen"] = f"127.0.0.1:{free_port()}"
        return json.dumps(installation.data)

    server = start_server(workers=2, edit=use_every_key)
    assert b"GetNextCACert" in server.get("/scep/demo?operation=GetCACaps")
    next_ca = cms.parse_signed_data(server.get("/scep/demo?operation=GetNextCACert"))
    assert next_ca.content is not None
    for profile in ("sensors", "laptops"):
        assert server.get(f"/scep/{profile}/pkiclient.exe?operation=GetCACert&message=default")
    assert {len(server.est("cacerts", label=label).certificates) for label in ("ca:1", None)} == {3}
    assert {len(server.est("cacerts", label=label).certificates) for label in ("robots", "demo")} == {2}
    enrolled = server.cli("test-enroll", "--profile", "demo")
    assert enrolled.returncode == 0

    checked = server.cli("config", "check")
    assert "no problems, 5 warnings; profiles: demo, sensors, kiosks, laptops, routers, robots, web, web-short" in checked.stdout
    warned = [line for line in checked.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warned) == len(checked.stderr.splitlines()) == 5
    report = json.loads(server.cli("doctor", "--format", "json").stdout)
    assert {row["check"] for row in report if row["verdict"] == "warn"} >= {"profiles.demo.endpoints.scep.legacy.des"}
    assert not [row for row in report if row["verdict"] == "fail"]
    assert server.cli("config", "diff").stdout == "No difference.\n"
    log = server.log.read_text()
    assert "profiles.demo.endpoints.scep.legacy.md5" in log
    assert server.stop() == 0
