"""Debian's `scepserver` (package scep) with an RSA-2048 CA, in a network namespace of its own: it binds every interface."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

PORT = 8080
CHALLENGE = "bench"
START_SECONDS = 10.0
_PROGRAMS = ("scepserver", "unshare", "nsenter", "ip")
_READ = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=5).read())"


def is_installed() -> bool:
    """Whether this machine has what it takes."""
    return all(shutil.which(program) for program in _PROGRAMS)


class ScepServer:
    """One running scepserver; `prefix` runs a program where it can be reached."""

    def __init__(self, folder: Path) -> None:
        """Make a CA in `folder` and serve it; raises OSError where the kernel grants no namespace."""
        depot = folder / "depot"
        subprocess.run(["scepserver", "ca", "-init", "-depot", depot, "-keySize", "2048"], check=True, capture_output=True)
        serve = f"exec scepserver -depot '{depot}' -port {PORT} -challenge {CHALLENGE} -allowrenew 0"
        self.url = f"http://127.0.0.1:{PORT}/scep"
        with (folder / "scepserver.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--map-root-user", "--net", "sh", "-c", f"ip link set lo up && {serve}"], stdout=log, stderr=log
            )
        self.prefix = ("nsenter", f"--target={self.process.pid}", "--user", "--net", "--preserve-credentials")
        self.ca = self._get_ca()

    def _get_ca(self) -> bytes:
        command = [*self.prefix, sys.executable, "-c", _READ, f"{self.url}?operation=GetCACert"]
        done = subprocess.run(command, capture_output=True, check=False)
        until = time.monotonic() + START_SECONDS
        while done.returncode and time.monotonic() < until:
            time.sleep(0.1)
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            self.stop()
            raise OSError(f"scepserver does not answer: {done.stderr.decode(errors='replace')[-300:]}")
        return done.stdout

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)
