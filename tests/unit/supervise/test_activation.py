"""Sockets that a service manager hands over: taken where they are what is configured, else refused with a sentence."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gateway.config.fields import Address
from gateway.supervise.activation import ActivationError, Inherited, adopt, take_inherited
from gateway.supervise.sockets import ADMIN_MODE, BACKLOG, ListeningSockets, bind_all

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def tcp(opened: ExitStack, host: str = "127.0.0.1") -> tuple[socket.socket, Address]:
    """Listen as systemd would; the socket is the service manager's and stays open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = opened.enter_context(socket.create_server((host, 0), family=family, backlog=1))
    return sock, Address(host, sock.getsockname()[1])


def unix(opened: ExitStack, path: Path, mode: int = ADMIN_MODE) -> socket.socket:
    sock = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen()
    return sock


def hand_over(**named: socket.socket) -> Inherited:
    """Duplicate sockets as fork and exec do; a name that begins with `other` says nothing."""
    return adopt([os.dup(sock.fileno()) for sock in named.values()], list(named))


def take(opened: ExitStack, http: Address, https: Address, admin: Path, inherited: Inherited) -> ListeningSockets:
    return opened.enter_context(closing(bind_all(http, https, admin, inherited=inherited)))


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def test_all_five_by_name(opened: ExitStack, tmp_path: Path) -> None:
    named, addresses = zip(*(tcp(opened) for _ in range(4)), strict=True)
    admin = unix(opened, tmp_path / "admin.sock")
    given = hand_over(http=named[0], https=named[1], https_mtls=named[2], monitoring=named[3], admin=admin)
    sockets = bind_all(addresses[0], addresses[1], tmp_path / "admin.sock", addresses[2], addresses[3], given)
    assert sockets.monitoring is not None
    assert [inode(sock) for sock in sockets] == [inode(sock) for sock in (*named[:2], admin, *named[2:])]
    assert sockets.monitoring not in sockets.for_workers()
    assert len(sockets.for_workers()) == 4
    sockets.close()
    assert (tmp_path / "admin.sock").is_socket(), "the service manager's own file was removed"


def test_one_unit_with_several_addresses_is_known_by_them(opened: ExitStack, tmp_path: Path) -> None:
    (one, first), (two, second) = tcp(opened), tcp(opened)
    admin = unix(opened, tmp_path / "admin.sock")
    sockets = take(opened, first, second, tmp_path / "admin.sock", hand_over(other_a=two, other_b=admin, other_c=one))
    assert (inode(sockets.http), inode(sockets.https), inode(sockets.admin)) == (inode(one), inode(two), inode(admin))


def test_what_is_not_handed_over_is_bound(opened: ExitStack, tmp_path: Path) -> None:
    handed, address = tcp(opened)
    sockets = take(opened, address, ANY, tmp_path / "admin.sock", hand_over(http=handed))
    assert inode(sockets.http) == inode(handed)
    assert sockets.https.getsockname()[1] != address.port
    assert (tmp_path / "admin.sock").is_socket()
    sockets.close()
    assert not (tmp_path / "admin.sock").exists()


def test_the_backlog_is_ours(opened: ExitStack, tmp_path: Path) -> None:
    """The unit's may be 1: 64 connections wait all the same, as far as net.core.somaxconn lets them."""
    assert BACKLOG > 64
    handed, address = tcp(opened)
    take(opened, address, ANY, tmp_path / "admin.sock", hand_over(http=handed))
    for _ in range(64):
        opened.enter_context(socket.create_connection((address.host, address.port), timeout=2))


@pytest.mark.parametrize(
    ("written", "agrees"),
    [
        pytest.param("127.0.0.1", True, id="same"),
        pytest.param("localhost", True, id="host-name"),
        pytest.param("0.0.0.0", False, id="wildcard"),
        pytest.param("127.0.0.2", False, id="other"),
        pytest.param("::1", False, id="other-family"),
        pytest.param("nowhere.invalid", False, id="no-such-host"),
    ],
)
def test_hosts(opened: ExitStack, tmp_path: Path, written: str, agrees: bool) -> None:
    handed, address = tcp(opened)
    configured = Address(written, address.port)
    if agrees:
        assert inode(take(opened, configured, ANY, tmp_path / "a", hand_over(http=handed)).http) == inode(handed)
        return
    words = f"server.http: the service manager hands over {address} as http, the configuration says .*: make socket unit and"
    with pytest.raises(ActivationError, match=words):
        bind_all(configured, ANY, tmp_path / "a", inherited=hand_over(http=handed))
    assert not (tmp_path / "a").exists()


def test_ports(opened: ExitStack, tmp_path: Path) -> None:
    (handed, address), (_, other) = tcp(opened), tcp(opened)
    with pytest.raises(ActivationError, match=f"server.https.listen: .* {address} as https, .* {other}"):
        bind_all(ANY, other, tmp_path / "a", inherited=hand_over(https=handed))


def test_ipv6(opened: ExitStack, tmp_path: Path) -> None:
    handed, address = tcp(opened, "::1")
    assert inode(take(opened, address, ANY, tmp_path / "a", hand_over(http=handed)).http) == inode(handed)


@pytest.mark.parametrize("name", ["https_mtls", "monitoring", "other"])
def test_a_socket_without_a_listener(opened: ExitStack, tmp_path: Path, name: str) -> None:
    handed, address = tcp(opened)
    with pytest.raises(ActivationError, match=f"hands over a socket on {address}, and the configuration has no such listener"):
        bind_all(ANY, ANY, tmp_path / "admin.sock", inherited=hand_over(**{name: handed}))
    assert not (tmp_path / "admin.sock").exists()


def test_an_admin_socket_at_another_place(opened: ExitStack, tmp_path: Path) -> None:
    admin = unix(opened, tmp_path / "admin.sock")
    with pytest.raises(ActivationError, match=r"server.admin_socket: .*/admin.sock as admin, the configuration says .*/b"):
        bind_all(ANY, ANY, tmp_path / "b", inherited=hand_over(admin=admin))


def test_an_admin_socket_through_a_symbolic_link(opened: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    admin = unix(opened, tmp_path / "run" / "admin.sock")
    sockets = take(opened, ANY, ANY, tmp_path / "var-run" / "admin.sock", hand_over(admin=admin))
    assert inode(sockets.admin) == inode(admin)


@pytest.mark.parametrize("mode", [0o666, 0o662, 0o664, 0o661])
def test_an_admin_socket_for_everybody(opened: ExitStack, tmp_path: Path, mode: int) -> None:
    admin = unix(opened, tmp_path / "admin.sock", mode)
    with pytest.raises(ActivationError, match=r"everybody may use .*: say SocketMode=0660"):
        bind_all(ANY, ANY, tmp_path / "admin.sock", inherited=hand_over(admin=admin))


def test_an_admin_socket_that_was_removed(opened: ExitStack, tmp_path: Path) -> None:
    admin = unix(opened, tmp_path / "admin.sock")
    (tmp_path / "admin.sock").unlink()
    with pytest.raises(ActivationError, match="handed over and not there"):
        bind_all(ANY, ANY, tmp_path / "admin.sock", inherited=hand_over(admin=admin))


def test_an_abstract_admin_socket_is_nobodys(opened: ExitStack, tmp_path: Path) -> None:
    sock = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
    sock.bind(f"\0pki-gateway-test-{os.getpid()}")
    sock.listen()
    with pytest.raises(ActivationError, match=r"server\.admin_socket"):
        bind_all(ANY, ANY, tmp_path / "a", inherited=hand_over(admin=sock))


def test_two_of_one_name(opened: ExitStack) -> None:
    (one, _), (two, _) = tcp(opened), tcp(opened)
    copies = [os.dup(one.fileno()), os.dup(two.fileno())]
    with pytest.raises(ActivationError, match="two sockets named http"):
        adopt(copies, ["http", "http"])
    for copy in copies:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(copy)


def test_what_is_no_listening_stream_socket(opened: ExitStack) -> None:
    listening, address = tcp(opened)
    connected = opened.enter_context(socket.create_connection((address.host, address.port)))
    datagram = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    reading, writing = os.pipe()
    opened.callback(os.close, writing)
    for descriptor in (os.dup(connected.fileno()), os.dup(datagram.fileno()), reading):
        with pytest.raises(ActivationError, match=f"descriptor {descriptor} .* no listening stream socket"):
            adopt([descriptor], ["http"])
    os.close(reading)
    assert listening.fileno() > 0


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:https"}, id="for-nobody"),
        pytest.param({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, id="for-another"),
        pytest.param({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, id="no-number"),
        pytest.param({"LISTEN_PID": "7", "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}, id="none"),
    ],
)
def test_nothing_is_taken(environ: dict[str, str]) -> None:
    assert list(take_inherited(environ, pid=7)) == []
    assert environ == {}
