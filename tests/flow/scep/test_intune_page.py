"""What docs/intune.md prints: its commands make an anchor and a challenge that are accepted, and its tables are the code's."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import Reason
from gateway.model import Rejected, SanKind
from gateway.ra.credentials.challenge_labels import challenge_label
from gateway.wire.scep.errors import fail_info
from tests.flow.scep.challenge_fleet import intune, is_granted, open_fleet
from tests.flow.scep.service import KEY, Device

PAGE = (Path(__file__).parents[3] / "docs" / "intune.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LABEL_ROW = re.compile(r"^\| `([a-z_]+)` \| `([a-z_]+)` \| bad[A-Za-z]+ \((\d)\) \|", re.MULTILINE)
PROFILE = "laptops"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_commands(algorithm: str, tmp_path: Path, require_program: Callable[[str, str], str]) -> None:
    require_program("openssl", "openssl")
    script = "\n".join(BLOCKS)
    if algorithm == "RS256":
        script = script.replace("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "-algorithm RSA").replace("ES256", "RS256")
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    challenge = done.stdout.strip().splitlines()[-1]
    device = Device(KEY, "CN=laptop-0042", sans=((SanKind.DNS, "laptop-0042.corp.example.com"),))
    profiles = {PROFILE: intune(audience="https://pki.example.com/scep/laptops")}
    anchors = (tmp_path / "challenge-signers.pem").read_bytes()
    async with open_fleet(tmp_path / "s", profiles, anchors=anchors) as fleet:
        is_granted(await fleet.enroll(challenge, device, PROFILE))


def test_labels() -> None:
    printed = {(label, reason, int(info)) for label, reason, info in LABEL_ROW.findall(PAGE)}
    refusals = ((reason, challenge_label(Rejected(reason, ""))) for reason in Reason)
    assert printed == {(label, reason.value, int(fail_info(reason))) for reason, label in refusals if label}
