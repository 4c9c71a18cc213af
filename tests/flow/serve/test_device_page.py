"""What docs/device-attestation.md prints: its recipe, run with a stand-in for the token and for the tool that speaks to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.asn1.attestation import OID_TCG_ATTEST_CERTIFY
from gateway.config.policy import ATTESTED_CLAIMS, PolicyConfig
from gateway.config.schema import KeyAttestation
from gateway.model import SanKind
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.evidence import EXTENSIONS
from gateway.pki.keys import serialize_private_key
from gateway.pki.names import format_name
from tests.attesting import Maker
from tests.conftest import RunningServer, launch

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "device-attestation.md").read_text()
PROFILE, KEYS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[SCRIPT] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
GENERATE, CERTIFY = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TOOL = '''#!{python}
"""Does what yubico-piv-tool does with a YubiKey, with keys in files."""
import sys
from pathlib import Path

from gateway.pki.certificate import der_to_pem
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.attesting import Maker, YubiKey

TOKEN = Path({token!r})
arguments = sys.argv[1:]
slot = [value for name, value in zip(arguments, arguments[1:]) if name == "-s"][-1]
actions = [value for name, value in zip(arguments, arguments[1:]) if name == "-a"]
given = dict(zip(arguments, arguments[1:]))
maker = Maker("Keys", b"", (TOKEN / "f9.der").read_bytes(), load_private_key((TOKEN / "f9.key").read_bytes()))
if "verify-pin" in actions:
    assert given["-P"] == "123456"
if "generate" in actions:
    assert (slot, given["-A"]) == ("9a", "ECCP256")
    key = generate_private_key("ec-p256")
    (TOKEN / "9a.key").write_bytes(serialize_private_key(key))
    Path(given["-o"]).write_bytes(der_to_pem(public_key_der(key), "PUBLIC KEY"))
yubikey = YubiKey(maker, key=load_private_key((TOKEN / "9a.key").read_bytes()))
if "attest" in actions:
    assert slot == "9a"
    sys.stdout.buffer.write(der_to_pem(yubikey.attest("")["attStmt"]["x5c"][0]))
if "read-certificate" in actions:
    assert slot == "f9"
    sys.stdout.buffer.write(der_to_pem(maker.certificate))
if "request-certificate" in actions:
    name = parse_name_text(given["-S"].strip("/"))
    sys.stdout.buffer.write(der_to_pem(build_csr(yubikey.key, name.der), "CERTIFICATE REQUEST"))
if "--sign" in arguments:
    assert "verify-pin" in actions
    Path(given["-o"]).write_bytes(yubikey.sign(Path(given["-i"]).read_bytes()))
if "import-certificate" in actions:
    (TOKEN / "9a.pem").write_bytes(Path(given["-i"]).read_bytes())
'''


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker.create("Keys")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, maker: Maker) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("device-page")

    def edit(text: str) -> str:
        roots = folder / "roots.pem"
        roots.write_bytes(maker.pem)
        data = yaml.safe_load(text)
        data["profiles"] |= yaml.safe_load(PROFILE.replace("ca/attestation-roots.pem", str(roots)))["profiles"]
        return yaml.safe_dump(data)

    server = launch(folder / "state", edit=edit)
    yield server
    assert server.stop() == 0


def test_the_recipe(served: RunningServer, maker: Maker, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.mkdir()
    (token / "f9.der").write_bytes(maker.certificate)
    (token / "f9.key").write_bytes(serialize_private_key(maker.key))
    tool = tmp_path / "bin" / "yubico-piv-tool"
    tool.parent.mkdir()
    tool.write_text(TOOL.format(python=sys.executable, token=str(token)))
    tool.chmod(0o755)
    python = tool.parent / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "attest.py").write_text(SCRIPT)
    (tmp_path / "root.pem").write_bytes(served.root.read_bytes())
    kid, hmac = external_account(served)
    environment = {
        **os.environ,
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PIN": "123456",
        "KID": kid,
        "HMAC": hmac,
    }
    for block in (GENERATE, CERTIFY.replace("8443", str(served.https_port))):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
    leaf = parse_certificate(pem_to_ders((token / "9a.pem").read_bytes())[0])
    assert format_name(leaf.subject) == "CN=16023607,O=Corp"
    assert leaf.sans == ()


def external_account(served: RunningServer) -> tuple[str, str]:
    """Return key ID and key of a new one."""
    made = json.loads(served.cli("eab", "create", "devices", "--format", "json").stdout)
    return made["kid"], made["hmac_key"]


def test_keys_attested_in_requests() -> None:
    [profile] = yaml.safe_load(KEYS)["profiles"].values()
    attestation = KeyAttestation.model_validate(profile["key_attestation"])
    assert attestation.require
    assert {attestation.tpm_roots, attestation.step_roots} == {"ca/attestation-roots.pem", "ca/yubico-roots.pem"}
    assert PolicyConfig.model_validate(profile["policy"]).subject.template
    for oid in (*EXTENSIONS, OID_TCG_ATTEST_CERTIFY):
        assert any(f"`{written}`" in PAGE for written in (oid, oid[-4:], oid[-5:]))


def test_every_claim_is_on_the_page() -> None:
    for name in ATTESTED_CLAIMS:
        assert f"`{name}`" in PAGE


def test_the_policy_knows_both_kinds_of_name() -> None:
    for kind in (SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE):
        assert f"`{kind.value.replace('_', '-')}`" in PAGE


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).resolve().is_file()
