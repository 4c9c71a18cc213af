"""The bytes of a configuration: its text and every file and secret that it names, read once, handed to workers as they were."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.document import DataPath, Problem
from gateway.config.fields import FilePath, SecretSource
from gateway.config.shape import Node, alternatives, model_for, walk

MAX_FILE = 1048576
MAX_SECRET = 1048576
"""What systemd hands over as one credential, and room for the passwords of ten thousand users."""
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd names the folder of a unit's credentials (systemd.exec(5))."""
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that a configuration was read from; a worker builds from these bytes, never from disk.

    `path` is absolute; `name` is how the file was named on the command line and begins every problem.
    """

    path: Path
    name: str
    text: bytes = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    secrets: Mapping[str, bytes] = field(repr=False)

    def resolve(self, path: str) -> Path:
        """Return `path` as an absolute path; a relative one counts from the configuration file's folder."""
        return self.path.parent / path

    def file(self, path: str) -> bytes:
        """Return the bytes of a file that the configuration names. Raises KeyError for any other."""
        return self.files[path]

    def secret(self, source: SecretSource) -> bytes:
        """Return a secret that the configuration names, without one newline at its end. Raises KeyError for any other."""
        return self.secrets[str(source)]

    def to_bytes(self) -> bytes:
        """Encode for `from_bytes`; the result holds secrets."""
        packed = {
            "path": str(self.path),
            "name": self.name,
            "text": _pack(self.text),
            "files": {name: _pack(data) for name, data in self.files.items()},
            "secrets": {name: _pack(data) for name, data in self.secrets.items()},
        }
        return json.dumps(packed).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Sources:
        """Decode what `to_bytes` wrote."""
        packed = json.loads(data)
        return cls(
            Path(packed["path"]),
            packed["name"],
            _unpack(packed["text"]),
            {name: _unpack(value) for name, value in packed["files"].items()},
            {name: _unpack(value) for name, value in packed["secrets"].items()},
        )


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def gather(
    path: Path, name: str, text: bytes, data: Any, model: type[BaseModel], environ: Mapping[str, str]
) -> tuple[Sources, tuple[Problem, ...]]:
    """Read every file and secret that the raw `data` names where `model` expects one, valid or not elsewhere."""
    files: dict[str, bytes] = {}
    secrets: dict[str, bytes] = {}
    problems: list[Problem] = []
    for place, named in find_named(data, model):
        try:
            if isinstance(named, SecretSource):
                secrets[str(named)] = read_secret(path.parent, named, environ)
            elif named not in files:
                files[named] = read_file(path.parent / named, MAX_FILE)
        except SourceError as error:
            problems.append(Problem(place, str(error)))
    return Sources(path, name, text, files, secrets), tuple(problems)


def find_named(data: Any, model: type[BaseModel]) -> Iterator[tuple[DataPath, FilePath | SecretSource]]:
    """Yield every file and secret in raw data that `model` describes; values of a wrong form are passed over."""
    inside: DataPath | None = None
    for node in walk(model, data):
        if inside is not None and node.path[: len(inside)] == inside:
            continue  # the `file` of a secret is no file of its own
        if _names_secret(node):
            inside = node.path
            try:
                said = {name: value for name, value in node.data.items() if name != "pkcs11"}
                yield node.path, SecretSource.model_validate_json(json.dumps(said))
            except ValidationError:
                continue
        elif isinstance(node.data, str) and node.data and FilePath in alternatives(node.annotation):
            yield node.path, FilePath(node.data)


def _names_secret(node: Node) -> bool:
    """Whether a value says where a secret is read from; a key in a token is not read, but the PIN inside is."""
    model = model_for(node.annotation, node.data)
    if model is None or not issubclass(model, SecretSource):
        return False
    return isinstance(node.data, dict) and node.data.get("pkcs11") is None


class SourceError(Exception):
    """A file or secret cannot be used; the text reads on after the field's name and holds nothing of the content."""


def read_secret(folder: Path, source: SecretSource, environ: Mapping[str, str]) -> bytes:
    """Read one secret, without one newline at its end. Raises SourceError."""
    if source.env is not None:
        if source.env not in environ:
            raise SourceError(f"the environment variable {source.env} is not set")
        secret = os.fsencode(environ[source.env])
    elif source.credential is not None:
        if not environ.get(CREDENTIALS_DIRECTORY):
            raise SourceError(f"{CREDENTIALS_DIRECTORY} is not set: systemd gave this process no credentials")
        secret = read_file(Path(environ[CREDENTIALS_DIRECTORY]) / source.credential, MAX_SECRET)
    else:
        secret = read_file(folder / str(source.file), MAX_SECRET, private=not source.allow_group_world)
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise SourceError(f"the {source} is empty")
    if len(secret) > MAX_SECRET:
        raise SourceError(f"the {source} is larger than {MAX_SECRET} bytes")
    return secret


def read_file(path: Path, limit: int, private: bool = False) -> bytes:
    """Read a regular file of at most `limit` bytes; a `private` one must not be open to others. Raises SourceError."""
    try:
        # O_NONBLOCK: a FIFO must be refused, not waited for. Mode and content come from one descriptor.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{path} is not a regular file")
            if private and (wrong := describe_exposure(path, status)):
                raise SourceError(f"{path} {wrong}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > limit:
        raise SourceError(f"{path} is larger than {limit} bytes")
    return data


def describe_exposure(path: Path, status: os.stat_result) -> str | None:
    """Return a sentence when others may read or change the file, or its group may change it; None when it is safe.

    Readable for all is accepted on tmpfs in a folder that others cannot enter, which is how containers are handed secrets.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be changed by others (mode {mode:04o}): chmod 600 it, or say allow_group_world: true"
    if mode & stat.S_IROTH and not (is_in_memory(status.st_dev) and is_fenced(path, status.st_dev)):
        return f"can be read by everybody (mode {mode:04o}): chmod 600 it, or say allow_group_world: true"
    return None


def is_in_memory(device: int, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Say whether a device is tmpfs or ramfs, by proc_pid_mountinfo(5); no when that cannot be read."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mountinfo.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    for line in lines:
        left, _, right = line.partition(" - ")
        if left.split(" ")[2:3] == [wanted]:
            return right.split(" ")[0] in _MEMORY_FILE_SYSTEMS
    return False


def is_fenced(path: Path, device: int) -> bool:
    """Say whether a folder above the file, on the same device, keeps others out."""
    for folder in path.resolve().parents:
        status = folder.stat()
        if status.st_dev != device:
            return False
        if not status.st_mode & stat.S_IXOTH:
            return True
    return False
