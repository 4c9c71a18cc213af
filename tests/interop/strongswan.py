"""strongSwan's `pki` as an operator would type it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509


@dataclass
class Device:
    """A folder with strongSwan's files and the commands that an operator would type."""

    folder: Path
    program: str
    url: str

    def run(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program, *args], cwd=self.folder, capture_output=True, timeout=60, check=False)

    def fetch_ca(self) -> None:
        done = self.run("--scepca", "--url", self.url, "--caout", "ca.der", "--raout", "ra.der", "--force")
        assert done.returncode == 0, done.stderr

    def new_key(self, name: str = "device.key") -> None:
        (self.folder / name).write_bytes(self.run("--gen", "--type", "rsa", "--size", "2048", "--outform", "der").stdout)

    def enroll(
        self, challenge: str | None, *extra: str, dn: str = "CN=moon", key: str = "device.key"
    ) -> subprocess.CompletedProcess[bytes]:
        password = ("--password", challenge) if challenge else ()
        anchors: tuple[str, ...] = ()
        for path in sorted(self.folder.glob("ca*.der")):
            anchors += ("--cacert", path.name)
        issuing = "ca-1.der" if (self.folder / "ca-1.der").exists() else "ca.der"
        return self.run(
            "--scep", "--url", self.url, "--in", key, "--dn", dn, *password,
            "--cacert-enc", "ra.der", "--cacert-sig", issuing, *anchors, "--interval", "1", "--maxpolltime", "30", *extra,
        )  # fmt: skip


def certificate(done: subprocess.CompletedProcess[bytes]) -> x509.Certificate:
    assert done.returncode == 0, done.stderr.decode()
    return x509.load_der_x509_certificate(done.stdout)
