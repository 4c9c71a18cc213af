"""certmonger's daemon in a folder of its own: no D-Bus, a private socket, every file below the folder."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.conftest import START_SECONDS

DAEMON = Path("/usr/lib/certmonger/certmonger-session")
SUBMIT = Path("/usr/lib/certmonger/scep-submit")


@dataclass
class Certmonger:
    """A running daemon and its command."""

    folder: Path
    environment: Mapping[str, str]

    def getcert(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["getcert", *args], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def add_ca(self, name: str, url: str) -> None:
        done = self.getcert("add-scep-ca", "-c", name, "-u", url)
        assert done.returncode == 0, done.stdout

    def request(
        self, name: str, challenge: str, *args: str, ca: str = "gateway", wait: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.getcert(
            "request", "-c", ca, "-I", name, "-N", f"CN={name}", "-L", challenge,
            "-f", str(self.folder / f"{name}.pem"), "-k", str(self.folder / f"{name}.key"), *(("-w",) if wait else ()), *args,
        )  # fmt: skip

    def listed(self, name: str) -> dict[str, str]:
        """What `getcert list` says of a request."""
        lines = self.getcert("list", "-i", name).stdout.splitlines()
        return {name: value.strip() for name, _, value in (line.strip().partition(":") for line in lines)}

    def wait_for(self, name: str, status: str) -> None:
        until = time.monotonic() + START_SECONDS
        while (found := self.listed(name).get("status")) != status:
            assert time.monotonic() < until, (found, self.listed(name), (self.folder / "log").read_text())
            time.sleep(0.1)

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.pem").read_bytes())


def make_environment(folder: Path) -> dict[str, str]:
    """Make the daemon's folders; return the variables that make it keep to them."""
    places = {
        "CERTMONGER_CONFIG_DIR": "config",
        "CERTMONGER_REQUESTS_DIR": "requests",
        "CERTMONGER_CAS_DIR": "cas",
        "CERTMONGER_LOCAL_CA_DIR": "local",
        "CERTMONGER_TMPDIR": "tmp",
        "HOME": "home",
    }
    for name in places.values():
        (folder / name).mkdir()
    own = {variable: str(folder / name) for variable, name in places.items()}
    return {**os.environ, **own, "CERTMONGER_PVT_ADDRESS": f"unix:path={folder / 'socket'}"}


@contextmanager
def run_certmonger(folder: Path) -> Iterator[Certmonger]:
    """Run the daemon in a folder with a short path: a socket's path has at most 107 characters."""
    environment = make_environment(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [DAEMON, "-n", "-L", "-P", str(folder / "socket"), "-d", "2"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not (folder / "socket").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        yield Certmonger(folder, environment)
    finally:
        process.terminate()
        process.wait(30)
