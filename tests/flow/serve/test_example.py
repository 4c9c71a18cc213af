"""A profile of profiles.example.yaml that no client of the usual kind can try: IDevIDs of EC keys, from the factory."""

import json
from pathlib import Path

import yaml

from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.names import format_name
from tests.conftest import StartServer

EXAMPLE = Path(__file__).parents[3] / "profiles.example.yaml"
CHALLENGE = "factory-0123456789abcdef"


def test_the_factory_issues(start_server: StartServer, tmp_path: Path) -> None:
    def configure(text: str) -> str:
        data, shown = yaml.safe_load(text), yaml.safe_load(EXAMPLE.read_text())["profiles"]["factory"]
        shown["endpoints"]["scep"] |= {
            name: data["profiles"]["demo"]["endpoints"]["scep"][name] for name in ("ra_certificate", "ra_key")
        }
        data["profiles"]["factory"] = shown | {"upstream_ca": "local"}
        secret = tmp_path / "state" / "secrets" / "factory-challenge"
        secret.touch(0o600)
        secret.write_text(CHALLENGE)
        return json.dumps(data)

    server = start_server(edit=configure)
    device = ("--challenge", CHALLENGE, "--key", "ec-p256", "--out", str(tmp_path / "device"))
    server.cli("test-enroll", "--profile", "factory", "--subject", "serialNumber=WIDGET0042", *device)
    leaf = parse_certificate(pem_to_ders((tmp_path / "device" / "device.pem").read_bytes())[0])
    assert "CN=Widget WIDGET0042" in format_name(leaf.subject)
    assert leaf.not_after.year == 9999
