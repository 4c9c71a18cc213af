"""A root of Debian 13 for what Debian 12 does not carry: its packages, unpacked into a temporary folder, run by chroot."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

PACKAGES = ("libest-utils", "openssl", "strongswan-pki", "libstrongswan-standard-plugins", "libstrongswan-extra-plugins")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian"
SECONDS = 240
MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Root:
    """The root and the programs in it; they see what is below `tmp`, and the same network."""

    path: Path

    def folder(self, name: str) -> Path:
        """Make a folder for one test."""
        found = self.path / "tmp" / name
        found.mkdir()
        return found

    def run(self, folder: Path, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a folder of `folder`'s making; what it writes is bounded, since some clients never stop."""
        inside = f"/{folder.relative_to(self.path)}"
        line = ["chroot", str(self.path), "/usr/bin/env", "-C", inside, *(f"{k}={v}" for k, v in (env or {}).items()), *command]
        with (folder / "stdout").open("wb+") as out, (folder / "stderr").open("wb+") as err:
            done = subprocess.run(line, stdout=out, stderr=err, timeout=60, check=False, preexec_fn=_bound_files)
            return subprocess.CompletedProcess(line, done.returncode, *(_read(file) for file in (out, err)))


def _bound_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, MAX_BYTES))


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def build(folder: Path, packages: tuple[str, ...] = PACKAGES, suite: str = "trixie") -> Root:
    """Unpack packages with all that they need; skips where that cannot be done, and says why."""
    if os.geteuid() != 0 or not all(shutil.which(program) for program in ("apt-get", "dpkg-deb", "chroot")):
        pytest.skip("Debian 13's packages are run by chroot, as root, on a Debian")
    root = folder / "root"
    for archive in _download(folder, packages, suite):
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True, timeout=SECONDS, capture_output=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name, minor in (("null", 3), ("random", 8), ("urandom", 9)):
        (root / "dev").mkdir(exist_ok=True)
        _make_device(root / "dev" / name, minor)
    (root / "tmp").mkdir()
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    return Root(root)


def _download(folder: Path, packages: tuple[str, ...], suite: str) -> list[Path]:
    """Fetch the packages with a configuration of apt that is its own: nothing of the system's is read or changed."""
    apt = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (apt / name).mkdir(parents=True)
    (apt / "etc" / "sources.list").write_text(f"{SOURCE} {suite} main\n")
    (apt / "etc" / "status").touch()
    (apt / "etc" / "apt.conf").write_text(
        f'Dir::State::Lists "{apt}/lists"; Dir::Cache "{apt}/cache"; Dir::State::status "{apt}/etc/status";\n'
        f'Dir::Etc::SourceList "{apt}/etc/sources.list"; Dir::Etc::SourceParts "-"; APT::Sandbox::User "root";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "etc" / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    install = ("-y", "-qq", "--no-install-recommends", "--download-only", "install", "coreutils", *packages)
    for command in (("update", "-qq"), install):
        done = subprocess.run(
            ["apt-get", *command], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            pytest.skip(f"packages of Debian's {suite} are not to be had: {done.stderr.strip()[-200:]}")
    return sorted((apt / "cache" / "archives").glob("*.deb"))


def _make_device(path: Path, minor: int) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        path.chmod(0o666)
        path.open("rb").close()
    except PermissionError:
        pytest.skip("a root of its own needs device files, which cannot be made here")
