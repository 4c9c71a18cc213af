"""SoftHSM2: tokens in a folder of their own, behind a real PKCS#11 module."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from gateway.pki.keys import PrivateKey, generate_private_key, serialize_private_key

PROGRAM, PACKAGE = "softhsm2-util", "softhsm2"
MODULES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"))
PIN, SO_PIN = "1234", "12345678"


def module() -> Path | None:
    """Return SoftHSM's module, or None where the package is missing."""
    return next((path for path in MODULES if path.exists()), None) if shutil.which(PROGRAM) else None


@dataclass
class SoftHsm:
    """One folder of tokens; processes see it by the variable SOFTHSM2_CONF."""

    folder: Path
    module: Path
    keys: dict[str, PrivateKey] = field(default_factory=dict, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @classmethod
    def create(cls, folder: Path) -> SoftHsm:
        """Lay out an empty folder of tokens."""
        found = module()
        assert found is not None, f"{PACKAGE} is not installed"
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        return cls(folder, found)

    def add_token(self, label: str, pin: str = PIN) -> None:
        self._run("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN)

    def add_key(self, token: str, label: str, spec: str, id: str = "01", pin: str = PIN) -> PrivateKey:
        """Make a key outside, so that tests know it, and put it into the token with its public half."""
        key = self.keys[label] = generate_private_key(spec)
        self.import_key(token, label, key, id, pin)
        return key

    def import_key(self, token: str, label: str, key: PrivateKey, id: str = "01", pin: str = PIN) -> None:
        file = self.folder / f"{label}.pem"
        file.write_bytes(serialize_private_key(key))
        self._run("--import", str(file), "--token", token, "--label", label, "--id", id, "--pin", pin)
        file.unlink()

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [PROGRAM, *arguments], env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
