"""What docs/scep.md prints: its commands make RA pairs of which nothing is said, and which serve."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.asn1.scep import PkiStatus
from gateway.cli.config import app
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import Device, configure, make_folder

PAGE = (Path(__file__).parents[3] / "docs" / "scep.md").read_text()
RECIPE, SPLIT = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LAST = "issue_ra ra-next both\n"


def pair(name: str) -> dict[str, Any]:
    return {"certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}


PREVIOUS = {"previous_ra": [pair("ra")]}
ONE = {"ra_certificate": "ca/ra-next.pem", "ra_key": {"file": "secrets/ra-next.key"}}
TWO = {
    "ra_certificate": "ca/ra-signing.pem",
    "ra_key": {"file": "secrets/ra-signing.key"},
    "ra_encryption": pair("ra-encryption"),
}


@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p384", "ed25519"])
@pytest.mark.parametrize(
    ("script", "scep"),
    [pytest.param(RECIPE, ONE, id="one-pair"), pytest.param(RECIPE.replace(LAST, SPLIT), TWO, id="two")],
)
async def test_pairs(
    script: str,
    scep: dict[str, Any],
    ca_key: str,
    tmp_path: Path,
    start: StartService,
    connect: Connect,
    require_program: Callable[[str, str], str],
) -> None:
    require_program("openssl", "openssl")
    assert RECIPE.endswith(LAST)
    folder = make_folder(tmp_path / "s", ca_key=ca_key)
    bash = shutil.which("bash") or "bash"
    subprocess.run([bash, "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, check=True)
    configure(folder, demo={"endpoints": {"scep": {**scep, **PREVIOUS}}})
    checked = CliRunner().invoke(app, ["check", "--config", str(folder / "profiles.yaml")])
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "no problems; " in checked.stdout
    service = await start()
    client = await connect(service)
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
