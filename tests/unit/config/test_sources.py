from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.fields import FilePath, SecretSource
from gateway.config.load import Examination
from gateway.config.sources import MAX_SECRET, SourceError, is_fenced, is_in_memory, read_file, read_secret


def secret(folder: Path, name: str, mode: int, content: bytes = b"secret\n") -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o700])
def test_files_that_others_cannot_read_are_accepted(tmp_path: Path, mode: int) -> None:
    secret(tmp_path, "key", mode)
    assert read_secret(tmp_path, SecretSource(file=FilePath("key")), {}) == b"secret"


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        pytest.param(0o644, "read by everybody", id="others-read"),
        pytest.param(0o604, "read by everybody", id="only-others-read"),
        pytest.param(0o660, "changed by others", id="group-writes"),
        pytest.param(0o602, "changed by others", id="others-write"),
        pytest.param(0o777, "changed by others", id="everything"),
    ],
)
def test_open_files_are_refused_unless_allowed(tmp_path: Path, mode: int, word: str) -> None:
    secret(tmp_path, "key", mode)
    with pytest.raises(SourceError, match=word):
        read_secret(tmp_path, SecretSource(file=FilePath("key")), {})
    assert read_secret(tmp_path, SecretSource(file=FilePath("key"), allow_group_world=True), {}) == b"secret"


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secret(tmp_path, "key", 0o644))
    with pytest.raises(SourceError, match="read by everybody"):
        read_secret(tmp_path, SecretSource(file=FilePath("link")), {})


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        pytest.param(b"x", b"x", id="none"),
        pytest.param(b"x\n", b"x", id="one"),
        pytest.param(b"x\r\n", b"x", id="windows"),
        pytest.param(b"x\n\n", b"x\n", id="two"),
        pytest.param(b" x \n", b" x ", id="spaces"),
        pytest.param(b"a\nb\n", b"a\nb", id="lines"),
    ],
)
def test_one_newline_at_the_end_does_not_count(tmp_path: Path, content: bytes, kept: bytes) -> None:
    secret(tmp_path, "key", 0o600, content)
    assert read_secret(tmp_path, SecretSource(file=FilePath("key")), {}) == kept


def test_environment_and_credentials(tmp_path: Path) -> None:
    secret(tmp_path, "audit.key", 0o400, b"from systemd\n")
    environ = {"TOKEN": "from outside", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret(tmp_path, SecretSource(env="TOKEN"), environ) == b"from outside"
    assert read_secret(Path("/"), SecretSource(credential="audit.key"), environ) == b"from systemd"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        pytest.param({"file": "absent"}, "cannot be read: No such file", id="absent"),
        pytest.param({"file": "."}, "not a regular file", id="folder"),
        pytest.param({"file": "fifo"}, "not a regular file", id="fifo"),
        pytest.param({"file": "/dev/zero"}, "not a regular file", id="device"),
        pytest.param({"file": "empty"}, "is empty", id="empty"),
        pytest.param({"file": "large"}, "is larger than", id="large"),
        pytest.param({"env": "ABSENT"}, "ABSENT is not set", id="variable"),
        pytest.param({"env": "EMPTY"}, "is empty", id="empty-variable"),
        pytest.param({"credential": "x"}, "gave this process no credentials", id="credential"),
    ],
)
def test_what_is_no_secret(tmp_path: Path, source: dict[str, Any], word: str) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    secret(tmp_path, "empty", 0o600, b"\n")
    secret(tmp_path, "large", 0o600, bytes(MAX_SECRET + 1))
    found = SecretSource.model_validate({**source, **({"file": FilePath(source["file"])} if "file" in source else {})})
    with pytest.raises(SourceError, match=word):
        read_secret(tmp_path, found, {"EMPTY": ""})


def test_certificates_may_be_readable_by_all(tmp_path: Path) -> None:
    path = secret(tmp_path, "ca.pem", 0o644, b"PEM")
    assert read_file(path, 10) == b"PEM"
    with pytest.raises(SourceError, match="larger than 2 bytes"):
        read_file(path, 2)


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A folder on tmpfs whose parents are open to all, as /dev/shm is on every Linux."""
    base = Path("/dev/shm")
    if not base.is_dir() or not is_in_memory(base.stat().st_dev):
        pytest.skip("/dev/shm is no tmpfs here")
    folder = base / f"pki-gateway-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_containers_hand_over_secrets_on_tmpfs_in_a_closed_folder(tmpfs: Path) -> None:
    secret(tmpfs, "key", 0o644)
    source = SecretSource(file=FilePath("key"))
    tmpfs.chmod(0o755)
    with pytest.raises(SourceError, match="read by everybody"):
        read_secret(tmpfs, source, {})
    tmpfs.chmod(0o750)
    assert read_secret(tmpfs, source, {}) == b"secret"
    secret(tmpfs, "key", 0o646)
    with pytest.raises(SourceError, match="changed by others"):
        read_secret(tmpfs, source, {})


def test_a_closed_folder_on_a_disk_is_not_enough(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    device = tmp_path.stat().st_dev
    if is_in_memory(device):
        pytest.skip("the temporary folder is on tmpfs")
    secret(tmp_path, "key", 0o644)
    with pytest.raises(SourceError, match="read by everybody"):
        read_secret(tmp_path, SecretSource(file=FilePath("key")), {})


def test_file_systems_are_told_apart_by_mountinfo(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:25 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw\n"
        "31 22 0:26 / /run/credentials/x ro - ramfs ramfs rw\n"
    )
    assert is_in_memory(os.makedev(0, 25), table)
    assert is_in_memory(os.makedev(0, 26), table)
    assert not is_in_memory(os.makedev(8, 1), table)
    assert not is_in_memory(os.makedev(9, 9), table)
    assert not is_in_memory(os.makedev(0, 25), tmp_path / "absent")


def test_only_folders_on_the_same_device_fence(tmp_path: Path) -> None:
    path = secret(tmp_path, "key", 0o644)
    tmp_path.chmod(0o700)
    assert is_fenced(path, tmp_path.stat().st_dev)
    assert not is_fenced(path, tmp_path.stat().st_dev + 1)


def test_files_are_found_where_models_expect_them_even_when_the_rest_is_wrong(
    minimal: dict[str, Any], judge: Callable[[Any], Examination], folder: Path
) -> None:
    (folder / "ra.key").chmod(0o644)
    minimal["profiles"]["corp"]["upstream_ca"] = 5
    minimal["profiles"]["corp"]["ra.key"] = {"file": "/etc/shadow"}
    found = judge(minimal)
    assert [problem.field for problem in found.problems if "/ra.key " in problem.sentence] == [
        "profiles.corp.endpoints.scep.ra_key"
    ]
    assert found.sources is not None
    assert "file /etc/shadow" not in found.sources.secrets
