"""micromdm's scepclient, Debian's and newer ones."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509


@dataclass
class Device:
    """A folder with scepclient's key and certificate."""

    folder: Path
    program: str
    url: str

    def run(self, common_name: str, challenge: str = "", *options: str) -> subprocess.CompletedProcess[str]:
        """Enroll; renew where a certificate is there already."""
        return subprocess.run(
            [self.program, "-server-url", self.url, "-private-key", "key.pem", "-certificate", "certificate.pem",
             "-cn", common_name, "-challenge", challenge, "-debug", *options],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / "certificate.pem").read_bytes())
