"""Commands find the server of their configuration, and say why they may not use it."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.cli.certs import _harmless
from gateway.cli.client import AdminClient, connect, read_admin_socket, require_server
from gateway.cli.options import CommandError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("server: {admin_socket: a.sock}", "a.sock", id="relative"),
        pytest.param("server: {}", "run/admin.sock", id="default"),
        pytest.param("server: [", "run/admin.sock", id="broken"),
        pytest.param("- 1", "run/admin.sock", id="no-mapping"),
        pytest.param("server: {admin_socket: 5}", "run/admin.sock", id="no-text"),
    ],
)
def test_the_socket_is_found_without_reading_secrets(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "profiles.yaml").write_text(text)
    assert read_admin_socket(tmp_path / "profiles.yaml") == tmp_path / path


def test_an_absolute_socket(tmp_path: Path) -> None:
    (tmp_path / "profiles.yaml").write_text("server: {admin_socket: /run/gateway.sock}")
    assert read_admin_socket(tmp_path / "profiles.yaml") == Path("/run/gateway.sock")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("server:\n  admin_socket: /run/x/a.sock\nprofiles: [\n", "/run/x/a.sock", id="line"),
        pytest.param("server:\n  admin_socket: 'a b.sock' # here\nprofiles: [\n", "a b.sock", id="single-quotes"),
        pytest.param('server: {http: "x", "admin_socket": "a.sock"}\n\tprofiles: x\n', "a.sock", id="double-quotes"),
        pytest.param("server: {admin_socket: a.sock, http: x}\nprofiles: ]\n", "a.sock", id="flow"),
        pytest.param(
            "server:\n  # admin_socket: b.sock\n  admin_socket: a.sock   # c.sock\nprofiles: [\n", "a.sock", id="comments"
        ),
        pytest.param("server:\n  admin_socket:\nprofiles: [\n", "run/admin.sock", id="no-value"),
        pytest.param("serverr\n  admin_socket: a.sock\n", "a.sock", id="key-misspelt"),
        pytest.param("\xff\xfe\nserver:\n  admin_socket: a.sock\n", "a.sock", id="other-encoding"),
    ],
)
def test_the_socket_is_found_in_a_broken_file(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "profiles.yaml").write_bytes(text.encode("latin-1"))
    assert read_admin_socket(tmp_path / "profiles.yaml") == tmp_path / path


def test_the_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "profiles.yaml"
    assert read_admin_socket(config) == tmp_path / "run" / "admin.sock"
    config.write_text("server: {admin_socket: a.sock}")
    monkeypatch.setenv("PKI_GATEWAY_ADMIN_SOCKET", "/run/b.sock")
    assert read_admin_socket(config) == Path("/run/b.sock")
    assert read_admin_socket(config, Path("/run/c.sock")) == Path("/run/c.sock")


@pytest.mark.parametrize("text", [pytest.param(None, id="missing"), pytest.param("profiles: [", id="broken")])
def test_no_server_and_no_file_that_could_be_read(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "profiles.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(CommandError, match=r"No server answers at .*/run/admin.sock") as refused:
        require_server(config)
    assert refused.value.code == 3


def test_no_server(tmp_path: Path) -> None:
    assert connect(tmp_path / "none.sock") is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert connect(tmp_path / "dead.sock") is None


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file.sock").touch()
    assert connect(tmp_path / "file.sock") is None


def test_a_socket_of_others(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        (tmp_path / "other.sock").chmod(0)
        with as_nobody(), pytest.raises(CommandError, match="root and its group"):
            connect(tmp_path / "other.sock")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may use every socket: give that right up for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\nno json"])
def test_a_server_that_breaks_off(tmp_path: Path, answer: bytes) -> None:
    (tmp_path / "profiles.yaml").write_text("server: {admin_socket: a.sock}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.sock"))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(CommandError, match="broke off"):
            AdminClient(tmp_path / "profiles.yaml").get("/v1/status")
        thread.join()


def test_exported_names_are_no_formulas() -> None:
    assert _harmless("=cmd|' /C calc'!A0") == "'=cmd|' /C calc'!A0"
    assert _harmless("CN=x") == "CN=x"
    assert _harmless(None) is None
