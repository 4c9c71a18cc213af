"""`pki-gateway init`: a complete configuration with its own CA, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import CommandError, program, with_exit_codes
from gateway.config.defaults import DEMO_LOGIN_FILE, DEMO_USER, MONITORING_PORT

PRIVATE = 0o600
PUBLIC = 0o644
FOLDER = 0o700
LAST = "profiles.yaml"
"""What is put in place last where a folder cannot be put in place whole: with it the configuration exists."""
STAGE_PREFIX = ".init-"


class RaKey(StrEnum):
    """Keys of an RA; SCEP clients know RSA only."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class CaKey(StrEnum):
    """Keys of an issuing CA."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write, by its path inside the folder."""

    path: str
    data: bytes = field(repr=False)
    mode: int = PRIVATE


@with_exit_codes
def init(
    directory: Annotated[Path, typer.Argument(help="The folder to make; it must not exist, or be empty.", show_default=False)],
    ra_key: Annotated[RaKey, typer.Option(help="Key of the RA, to which SCEP clients encrypt.")] = RaKey.RSA_2048,
    ca_key: Annotated[CaKey, typer.Option(help="Key of the issuing CA.")] = CaKey.EC_P256,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1 for HTTP.")] = 8080,
    https_port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1 for HTTPS.")] = 8443,
    monitoring_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1 for metrics and probes.")
    ] = MONITORING_PORT,
    say_next: Annotated[bool, typer.Option("--next/--no-next", help="Print the command that serves it.")] = True,
) -> None:
    """Write a working configuration: CA, RA, TLS and store keys, an empty store, and a profile `demo` on loopback."""
    if len({http_port, https_port, monitoring_port}) < 3:
        raise CommandError("HTTP, HTTPS and monitoring need different ports.")
    check_directory(directory)
    files = make_files(ra_key.value, ca_key.value, http_port, https_port, datetime.now(UTC), monitoring_port)
    write_directory(directory, files)
    print(describe_result(directory))
    if say_next:
        print(f"\nNext:\n  {serve_command(directory)}")


def make_files(
    ra_key: str, ca_key: str, http_port: int, https_port: int, now: datetime, monitoring_port: int = MONITORING_PORT
) -> tuple[NewFile, ...]:
    """Return all files of a new configuration with its empty store; draws keys, so no two results are alike. `now` is UTC."""
    from gateway.audit import parse_audit_key
    from gateway.ca.bootstrap import KeyChoice, create_hierarchy, create_secrets
    from gateway.ca.local import CaUrls
    from gateway.cli.first_config import CA_NAME, STORE_PATH, format_first_config
    from gateway.ra.credentials.passwords import hash_password
    from gateway.store.keys import KeyRing
    from gateway.store.sqlite import new_store

    url = f"http://127.0.0.1:{http_port}"
    urls = CaUrls(f"{url}/crl/{CA_NAME}.crl", f"{url}/ca/{CA_NAME}.crt")
    hierarchy = create_hierarchy(KeyChoice(ra_key, ca_key), urls, now)
    drawn, password = create_secrets(), secrets.token_hex(16)
    store = new_store(KeyRing.parse(drawn.store_key.encode("ascii")), parse_audit_key(drawn.audit_key.encode("ascii")))
    return (
        NewFile("ca/root.pem", hierarchy.root.certificate, PUBLIC),
        NewFile("ca/issuing.pem", hierarchy.issuing.certificate, PUBLIC),
        NewFile("ca/ra.pem", hierarchy.ra.certificate, PUBLIC),
        NewFile("ca/cmp.pem", hierarchy.cmp.certificate, PUBLIC),
        NewFile("tls/server.pem", hierarchy.tls.certificate, PUBLIC),
        NewFile("secrets/root.key", hierarchy.root.key),
        NewFile("secrets/issuing.key", hierarchy.issuing.key),
        NewFile("secrets/ra.key", hierarchy.ra.key),
        NewFile("secrets/cmp.key", hierarchy.cmp.key),
        NewFile("secrets/tls.key", hierarchy.tls.key),
        NewFile("secrets/store.key", f"{drawn.store_key}\n".encode("ascii")),
        NewFile("secrets/audit.key", f"{drawn.audit_key}\n".encode("ascii")),
        NewFile("secrets/demo-scep-challenge", f"{drawn.challenge}\n".encode("ascii")),
        NewFile(DEMO_LOGIN_FILE, f"{password}\n".encode("ascii")),
        NewFile("secrets/demo-est-users", f"{DEMO_USER}:{hash_password(password.encode('ascii'))}\n".encode("ascii")),
        NewFile(STORE_PATH, store),
        NewFile(LAST, format_first_config(http_port, https_port, monitoring_port).encode("utf-8")),
    )


def check_directory(directory: Path) -> None:
    """Raise CommandError unless a new configuration can go there: `init` never overwrites anything."""
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise CommandError(f"{directory} exists and is not a folder.")
    found = sorted(entry.name for entry in directory.iterdir())
    if LAST in found:
        raise CommandError(f"{directory} holds a configuration already ({LAST}); init overwrites nothing.")
    if found:
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise CommandError(f"{directory} is not empty ({shown}); init overwrites nothing. Choose a new folder or empty this one.")


def write_directory(directory: Path, files: tuple[NewFile, ...]) -> None:
    """Write all files, durably, or leave things as they were; folders get mode 0700.

    The folder is built beside its place and renamed into it, which is atomic: of two at once one fails. Where that
    cannot be done (a mount point, a parent that belongs to another user, the folder one stands in) it is built inside,
    and profiles.yaml comes last.
    """
    target = directory.absolute()
    check_directory(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if (target.exists() and target.samefile(Path.cwd())) or not _write_beside(target, files):
        _write_inside(target, files)


def _write_beside(target: Path, files: tuple[NewFile, ...]) -> bool:
    """Build next to `target` and rename; False when an empty `target` is there that cannot be replaced."""
    stage = target.parent / f"{STAGE_PREFIX}{secrets.token_hex(8)}"
    try:
        stage.mkdir(mode=FOLDER)
        _write_files(stage, files)
        stage.rename(target)
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        if target.is_dir() and not any(target.iterdir()):
            return False
        raise CommandError(f"{target} could not be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    with suppress(OSError):
        _sync(target.parent)
    return True


def _write_inside(target: Path, files: tuple[NewFile, ...]) -> None:
    """Build in a folder inside `target`, then move each entry up; undone when anything fails."""
    stage = target / f"{STAGE_PREFIX}{secrets.token_hex(8)}"
    moved: list[Path] = []
    try:
        stage.mkdir(mode=FOLDER)
        _write_files(stage, files)
        _check_alone(target, stage)
        for entry in sorted(stage.iterdir(), key=lambda entry: entry.name == LAST):
            entry.rename(target / entry.name)
            moved.append(target / entry.name)
        target.chmod(FOLDER)
        stage.rmdir()
        _sync(target)
    except BaseException:
        for entry in reversed(moved):
            _remove(entry)
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _check_alone(target: Path, stage: Path) -> None:
    if [entry.name for entry in target.iterdir()] != [stage.name]:
        raise CommandError(f"{target} is being written by somebody else; init overwrites nothing.")


def _write_files(folder: Path, files: tuple[NewFile, ...]) -> None:
    """Write into an empty folder; modes do not depend on the umask."""
    folder.chmod(FOLDER)
    for name in ("ca", "run", "secrets", "store", "tls"):
        (folder / name).mkdir(mode=FOLDER)
        (folder / name).chmod(FOLDER)
    for file in files:
        descriptor = os.open(folder / file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, file.mode)
            stream.write(file.data)
            stream.flush()
            os.fsync(descriptor)
    for entry in (*folder.iterdir(), folder):
        if entry.is_dir():
            _sync(entry)


def _remove(entry: Path) -> None:
    with suppress(OSError):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_result(directory: Path) -> str:
    """Return what was written."""
    return "\n".join(
        (
            f"Wrote {directory}:",
            f"  {directory / LAST}   the configuration: edit it",
            f"  {directory / 'ca/root.pem'}   the root to trust",
            f"  {directory / 'secrets/demo-scep-challenge'}   the static challenge of profile demo",
            f"  {directory / DEMO_LOGIN_FILE}   the password of its user {DEMO_USER}, for EST",
            f"  {directory / 'secrets/root.key'}   not needed to run: move it offline",
        )
    )


def serve_command(directory: Path) -> str:
    """Return the line for a shell that serves `directory` with the program that runs now, be it on PATH or not."""
    return shlex.join([*program(), "serve", "--config", str(directory / LAST)])
