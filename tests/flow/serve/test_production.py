"""docs/production.md: its commands as they are printed there, against a running server; only places and users are ours."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "production.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PLACES = (
    "/etc/pki-gateway",
    "/var/lib/pki-gateway",
    "/run/pki-gateway",
    "/var/backups/pki-gateway",
    "/root/pki-gateway",
    "/etc/systemd/system",
)
PROGRAM = "/opt/pki-gateway/bin/pki-gateway"
LEND = "systemd-run --property=LoadCredential=secrets:/etc/pki-gateway/secrets"

CREDENTIALS = """
give_credentials() {  # LoadCredential=ID:FOLDER of systemd.exec(5)
    rm -rf "$FOLDER/credentials" && mkdir -m 0700 "$FOLDER/credentials"
    for file in "$2"/*; do cp "$file" "$FOLDER/credentials/$1_$(basename "$file")"; done
    export CREDENTIALS_DIRECTORY="$FOLDER/credentials"
}
"""
STUBS = {
    "systemctl": """
case "$1 $*" in
    start*pki-gateway.service*)
        give_credentials secrets "$FOLDER/etc/pki-gateway/secrets"
        exec >>"$FOLDER/log" 2>&1 </dev/null
        setsid "$PROGRAM" serve --config "$FOLDER/etc/pki-gateway/profiles.yaml" --workers 1 --quiet &
        echo $! >"$FOLDER/pid" ;;
    stop*)
        test -e "$FOLDER/pid" || exit 0
        kill -TERM "$(cat "$FOLDER/pid")"
        while kill -0 "$(cat "$FOLDER/pid")" 2>/dev/null; do sleep 0.1; done
        rm "$FOLDER/pid" ;;
    daemon-reload*) ;;
    *) echo "not in this test: systemctl $*" >&2; exit 1 ;;
esac
""",
    "systemd-run": """
while :; do
    case "$1" in
        --property=LoadCredential=*) value=${1#*=*=}; give_credentials "${value%%:*}" "${value#*:}" ;;
        --quiet | --wait | --pipe | --uid=pki-gateway | --gid=pki-gateway) ;;
        *) break ;;
    esac
    shift
done
exec "$@"
""",
    "runuser": 'test "$1 $2 $3" = "-u pki-gateway --" || exit 1\nshift 3\nexec "$@"\n',
}


@dataclass(frozen=True)
class Machine:
    """A folder that stands for `/`, and stand-ins for what needs systemd or another user."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "etc" / "pki-gateway" / "profiles.yaml"

    @property
    def program(self) -> str:
        return str(self.folder / "bin" / "pki-gateway")

    def prepare(self) -> None:
        (self.folder / "bin").mkdir()
        self._script("pki-gateway", f'exec "{sys.executable}" -m gateway "$@"\n')
        for name, text in STUBS.items():
            self._script(name, CREDENTIALS + text)
        for place in ("etc/systemd/system", "var/lib", "var/backups", "run/pki-gateway", "root"):
            (self.folder / place).mkdir(parents=True)

    def _script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/bash\nset -eu\nFOLDER="{self.folder}" PROGRAM="{self.folder}/bin/pki-gateway"\n{text}')
        path.chmod(0o700)

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands of the guide: their places below the folder, owners left as they are."""
        here = re.sub(" -o pki-gateway -g pki-gateway", "", commands)
        here = re.sub(r"^chgrp .*$", "", here, flags=re.MULTILINE).replace(PROGRAM, self.program)
        here = here.replace("/opt/pki-gateway-next/bin/pki-gateway", self.program)
        # The program is what this test runs of; units go where everything goes.
        here = re.sub(r"^(python3 -m venv|\S+/bin/pip) .*$", "", here, flags=re.MULTILINE)
        for place in PLACES:
            here = re.sub(rf"(?<![\w/]){place}", f"{self.folder}{place}", here)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def done(self, commands: str) -> str:
        done = self.run(commands)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait_serving(self) -> None:
        until = time.monotonic() + 60
        while self.run(f"{PROGRAM} status --config {PLACES[0]}/profiles.yaml | grep -q 'running *yes'").returncode:
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.2)

    def enroll(self) -> str:
        """Enroll a device; return its serial."""
        before = set(self.serials())
        self.done(f"{LEND} {PROGRAM} test-enroll --protocol scep --profile demo --config {PLACES[0]}/profiles.yaml")
        [serial] = set(self.serials()) - before
        return serial

    def serials(self) -> list[str]:
        lines = self.done(f"{PROGRAM} certs export --format jsonl --config {PLACES[0]}/profiles.yaml").splitlines()
        return [json.loads(line)["serial"] for line in lines]


def block(*containing: str) -> str:
    [found] = [str(b) for b in BLOCKS if all(word in b for word in containing)]
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("m"))
    machine.prepare()
    yield machine
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((machine.folder / "pid").read_text()), signal.SIGTERM)


@pytest.mark.timeout(300)
def test_install_back_up_lose_restore(machine: Machine) -> None:
    """One machine's life, in the guide's order."""
    ports = [str(free_port()) for _ in range(3)]
    options = f"--http-port {ports[0]} --https-port {ports[1]} --monitoring-port {ports[2]}"
    machine.done(block("init /etc/pki-gateway").replace("--no-next", f"--no-next {options}"))
    assert "{file:" not in machine.config.read_text()
    assert not (machine.config.parent / "secrets" / "root.key").exists()
    machine.done(block("config check", "enable --now").replace("systemctl enable --now", "systemctl start"))
    machine.wait_serving()

    for command in ("challenge new demo", "certs list", "requests list", "crl publish", "status", "reload", "restart"):
        machine.done(f"{PROGRAM} {command} --config {PLACES[0]}/profiles.yaml")  # without a secret, as the guide says

    first = machine.enroll()
    machine.done(block("store backup", "date --utc"))
    [copy] = (machine.folder / "var/backups/pki-gateway").iterdir()
    second = machine.enroll()
    assert set(machine.serials()) == {first, second}

    restore = re.sub(r"gateway-\d+T\d+Z\.db", copy.name, block("COPY="))
    machine.done(restore)
    machine.wait_serving()
    assert machine.serials() == [first]
    machine.done(f"{PROGRAM} certs show {first} --config {PLACES[0]}/profiles.yaml")

    done = machine.run(block("audit verify"))
    assert done.returncode == 0
    assert re.search(r"missing|cut", done.stdout + done.stderr), done.stdout + done.stderr
    third = machine.enroll()
    assert set(machine.serials()) == {first, third}
    machine.done(f"{LEND} {PROGRAM} store check --config {PLACES[0]}/profiles.yaml")

    machine.done(block("config check", "pki-gateway-next"))
    machine.done(block("store migrate"))
    assert (machine.folder / "etc/systemd/system/pki-gateway.service").exists()
    machine.wait_serving()
    assert set(machine.serials()) == {first, third}


def test_every_block_is_known() -> None:
    known = (
        "adduser",
        "init /etc",
        "config check",
        "store backup",
        "COPY=",
        "audit verify",
        "store migrate",
        "tar -C",
        "podman build",
    )
    assert [b for b in BLOCKS if not any(word in b for word in known)] == []
