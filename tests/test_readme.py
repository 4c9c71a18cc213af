"""The README's commands, run as they are printed there: only ports and the state folder are a test's own."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Session:
    """A reader's two terminals: `make run` in the first, the other commands in the second."""

    state: Path
    http_port: int
    https_port: int
    output: Path

    def run(self, block: str) -> subprocess.CompletedProcess[str]:
        own = {"8080": str(self.http_port), "8443": str(self.https_port), "var/": f"{self.state}/"}
        commands = re.sub("8080|8443|var/", lambda match: own[match[0]], block)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("readme")
    http_port, https_port, monitoring_port = free_port(), free_port(), free_port()
    session = Session(folder / "var", http_port, https_port, folder / "output")
    with session.output.open("wb") as out:
        process = subprocess.Popen(
            [
                *("make", "run", f"STATE={session.state}", f"HTTP_PORT={http_port}", f"HTTPS_PORT={https_port}"),
                f"MONITORING_PORT={monitoring_port}",
            ],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    until = time.monotonic() + 110
    up = False
    while not up and time.monotonic() < until and process.poll() is None:
        # a reader waits for the commands too, which are printed once every worker is ready
        up = "openssl verify" in session.output.read_text()  # the last of them
        time.sleep(0.2)
    try:
        assert up, session.output.read_text()
        yield session
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def block(containing: str) -> str:
    [found] = [str(b) for b in BLOCKS if containing in b]
    return found


KNOWN = ("make run", "make test", "test-enroll", "pki --scep", "pki --est", "certbot", "openssl cmp")


def test_every_block_is_known() -> None:
    assert [b for b in BLOCKS if not any(word in b for word in KNOWN)] == []


def test_make_run_prints_urls_and_commands(session: Session) -> None:
    output = session.output.read_text()
    assert f":{session.http_port}/scep/demo" in output
    assert "pki --scep" in output
    assert "/.well-known/est/demo" in output
    assert "/simpleenroll" in output
    assert "/acme/demo/directory" in output
    assert "/.well-known/cmp/p/demo" in output


@pytest.mark.interop
def test_printed_commands_work(session: Session, require_program: Callable[[str, str], str], tmp_path: Path) -> None:
    require_program("pki", "strongswan-pki")
    require_program("curl", "curl")
    require_program("certbot", "certbot")
    output = session.output.read_text()
    commands = "\n".join(line.strip() for line in output.splitlines() if line.startswith("    "))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, commands + done.stderr


def test_built_in_client_enrolls(session: Session) -> None:
    done = session.run(block("test-enroll"))
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout
    assert "200 OK" in done.stdout
    assert "valid by http-01" in done.stdout
    assert "pkiconf" in done.stdout


@pytest.mark.interop
def test_strongswan_enrolls_by_est(session: Session, require_program: Callable[[str, str], str]) -> None:
    require_program("pki", "strongswan-pki")
    done = session.run(block("pki --est "))
    assert done.returncode == 0, done.stderr
    assert "CN = device-3" in done.stdout


def test_openssl_enrolls_by_cmp(session: Session) -> None:
    done = session.run(block("openssl cmp"))
    assert done.returncode == 0, done.stderr
    assert "CN = device-4" in done.stdout


@pytest.mark.interop
def test_certbot_enrolls(session: Session, require_program: Callable[[str, str], str]) -> None:
    require_program("certbot", "certbot")
    done = session.run(block("certbot certonly"))
    assert done.returncode == 0, done.stderr
    assert "first.demo.test" in done.stdout


@pytest.mark.interop
def test_strongswan_enrolls(session: Session, require_program: Callable[[str, str], str]) -> None:
    require_program("pki", "strongswan-pki")
    done = session.run(block("pki --scep "))
    assert done.returncode == 0, done.stderr
    assert "CN = device-1" in done.stdout


def test_make_test_is_a_target() -> None:
    assert block("make test") == "make test\n"
    subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, check=True, capture_output=True)
