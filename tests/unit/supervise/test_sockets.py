"""Listening sockets: bound once, or refused with the field to blame."""

import socket
from pathlib import Path

import pytest

from gateway.config.fields import Address
from gateway.supervise.sockets import BindError, bind_all, bind_tcp, bind_unix

ANY = Address("127.0.0.1", 0)


def test_all_or_none(tmp_path: Path) -> None:
    taken = bind_tcp(ANY, "server.http")
    port = taken.getsockname()[1]
    with pytest.raises(BindError, match=f"server.https.listen: cannot listen on 127.0.0.1:{port}: address already in use"):
        bind_all(ANY, Address("127.0.0.1", port), tmp_path / "admin.sock")
    taken.close()
    assert not (tmp_path / "admin.sock").exists()
    bind_all(ANY, ANY, tmp_path / "admin.sock").close()


def test_the_fourth_socket_is_there_where_it_is_configured(tmp_path: Path) -> None:
    without = bind_all(ANY, ANY, tmp_path / "admin.sock")
    assert (len(tuple(without)), without.https_mtls) == (3, None)
    without.close()
    sockets = bind_all(ANY, ANY, tmp_path / "other.sock", ANY)
    assert len({sock.fileno() for sock in sockets}) == 4
    assert sockets.https_mtls is not None
    sockets.close()
    assert {sock.fileno() for sock in sockets} == {-1}


def test_none_where_the_fourth_is_taken(tmp_path: Path) -> None:
    taken = bind_tcp(ANY, "server.http")
    port = taken.getsockname()[1]
    with pytest.raises(BindError, match=f"server.https_mtls.listen: cannot listen on 127.0.0.1:{port}: address already in use"):
        bind_all(ANY, ANY, tmp_path / "admin.sock", Address("127.0.0.1", port))
    taken.close()
    assert not (tmp_path / "admin.sock").exists()


def test_ipv6() -> None:
    sock = bind_tcp(Address("::1", 0), "server.http")
    assert sock.family is socket.AF_INET6
    sock.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        pytest.param(Address("192.0.2.1", 8080), "cannot assign requested address", id="not-here"),
        pytest.param(Address("nowhere.invalid", 8080), "cannot be resolved", id="no-such-host"),
    ],
)
def test_addresses_that_are_not_ours(address: Address, words: str) -> None:
    with pytest.raises(BindError, match=words):
        bind_tcp(address, "server.http")


def test_a_socket_that_answers_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    sock = bind_unix(path)
    with pytest.raises(BindError, match="another server answers"):
        bind_unix(path)
    sock.close()


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").mkdir()
    with pytest.raises(BindError, match="no socket"):
        bind_unix(tmp_path / "admin.sock")
    (tmp_path / "file.sock").write_text("precious")
    with pytest.raises(BindError, match="no socket"):
        bind_unix(tmp_path / "file.sock")
    assert (tmp_path / "file.sock").read_text() == "precious"


def test_a_long_path(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="longer than"):
        bind_unix(tmp_path / ("x" * 120))
