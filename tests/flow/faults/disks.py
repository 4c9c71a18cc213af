"""A served installation whose disk a test can fill: a small one of its own, or limits on the files of its processes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gateway
from tests.conftest import COMMAND, RunningServer, free_port
from tests.flow.serve.processes import workers

MIB = 1048576
ROOT = Path(gateway.__file__).parents[1]
MOUNT = """
mount -t tmpfs -o size="$1",mode=700 none "$2" && cp -a "$3/." "$2/" && log="$2/serve.log" && shift 3 && exec "$@" >>"$log" 2>&1
"""


class SmallDisk(RunningServer):
    """A server that alone sees its disk; commands are run beside it."""

    def cli(self, *args: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run one pki-gateway command where the server is."""
        assert stdin is None
        inside = Path("/") / self.config.relative_to(f"/proc/{self.process.pid}/root")
        beside = ["nsenter", "--target", str(self.process.pid), "--user", "--preserve-credentials", "--mount"]
        environ = {**os.environ, "PKI_GATEWAY_CONFIG": str(inside)}
        return subprocess.run(
            [*beside, *COMMAND, *args], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=check
        )


def can_mount() -> bool:
    """Whether this user may give a process mounts of its own, which nobody else sees."""
    unshare = shutil.which("unshare")
    command = [str(unshare), "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return unshare is not None and subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def serve_on_small_disk(folder: Path, size: int, count: int) -> SmallDisk:
    """Serve with all files, the log too, on a tmpfs that only the server's processes have mounted; it ends with them."""
    ports = free_port(), free_port(), free_port()
    named = zip(("--http-port", "--https-port", "--monitoring-port"), map(str, ports), strict=True)
    made, mount = folder / "made", folder / "s"
    mount.mkdir()
    subprocess.run([*COMMAND, "init", str(made), *(word for pair in named for word in pair)], check=True, capture_output=True)
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", str(size), str(mount), str(made)]
    served = [*COMMAND, "serve", "--config", str(mount / "profiles.yaml"), "--workers", str(count)]
    process = subprocess.Popen([*alone, *served], start_new_session=True)
    seen = Path(f"/proc/{process.pid}/root") / mount.relative_to("/")
    return SmallDisk(seen, *ports, process, seen / "serve.log")


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave not one byte of the disk that the folder is on."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (MIB, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def kept_full(folder: Path) -> Iterator[None]:
    """Take whatever room others leave, as soon as they do."""
    ballast, stopped = folder / "more-ballast", threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not stopped.wait(0.002):
                with suppress(OSError):
                    while True:
                        file.write(bytes(4096))

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        stopped.set()
        filling.join()
        ballast.unlink()


@contextmanager
def limited(server: RunningServer, size: int) -> Iterator[None]:
    """Have no worker write beyond `size` in any file, its log included (EFBIG, setrlimit(2)); the supervisor can tell of it."""
    processes = workers(server)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
