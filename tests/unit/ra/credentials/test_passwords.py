"""Files of users, scrypt hashes in them, and how many derivations run at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from gateway.errors import Reason, Rejection
from gateway.ra.credentials import passwords
from gateway.ra.credentials.interfaces import ScryptParameters
from gateway.ra.credentials.passwords import (
    ScryptPool,
    derive,
    hash_password,
    parse_password_file,
    parse_password_hash,
)

SALT = "c2FsdHNhbHRzYWx0"
HASH = "A" * 43
LINE = f"$scrypt$ln=14,r=8,p=1${SALT}${HASH}"


def test_a_fresh_hash_is_read_again() -> None:
    first, second = hash_password(b"secret"), hash_password(b"secret")
    assert first != second, "each has its own salt"
    for text in (first, second):
        kept = parse_password_hash(text)
        assert (kept.parameters.n, kept.parameters.r, kept.parameters.p) == (16384, 8, 1)
        assert derive(b"secret", kept.parameters) == kept.derived
        assert derive(b"Secret", kept.parameters) != kept.derived


def test_scrypt_is_that_of_rfc_7914() -> None:
    """RFC 7914 §12, of which the first 32 bytes."""
    found = derive(b"pleaseletmein", ScryptParameters(b"SodiumChloride", 16384, 8, 1))
    assert found.hex() == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LINE, id="as-made"),
        pytest.param(f"$scrypt$ln=14,r=8,p=1${SALT}==${HASH}=", id="padded"),
        pytest.param(f"$scrypt$ln=17,r=8,p=4${SALT}${HASH}", id="dear"),
    ],
)
def test_hashes(text: str) -> None:
    assert parse_password_hash(text).derived == bytes(32)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("secret", id="the-password-itself"),
        pytest.param("$2b$12$abcdefghijklmnopqrstuv", id="bcrypt"),
        pytest.param(f"$scrypt$ln=13,r=8,p=1${SALT}${HASH}", id="too-cheap"),
        pytest.param(f"$scrypt$ln=18,r=8,p=1${SALT}${HASH}", id="too-dear"),
        pytest.param(f"$scrypt$ln=99,r=99,p=99${SALT}${HASH}", id="a-bomb"),
        pytest.param(f"$scrypt$ln=14,r=0,p=1${SALT}${HASH}", id="no-blocks"),
        pytest.param(f"$scrypt$ln=17,r=9,p=1${SALT}${HASH}", id="too-much-memory"),
        pytest.param(f"$scrypt$ln=14,r=8,p=5${SALT}${HASH}", id="too-parallel"),
        pytest.param(f"$scrypt$ln=14,r=8,p=1${SALT}${HASH[:-1]}", id="short-hash"),
        pytest.param(f"$scrypt$ln=14,r=8,p=1$YQ${HASH}", id="short-salt"),
        pytest.param(f"$scrypt$ln=14,r=8,p=1${SALT}${HASH}\n", id="line-break"),
        pytest.param(LINE.replace("ln=14", "ln=١٤"), id="other-digits"),
    ],
)
def test_no_hashes(text: str) -> None:
    with pytest.raises(ValueError, match=r"scrypt hash|costs") as refused:
        parse_password_hash(text)
    assert HASH not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_of_users() -> None:
    found = parse_password_file(f"# people\n\nalice:{LINE}\r\n  bob smith:{LINE}  \n:{LINE}\nzoë:{LINE}\n".encode())
    assert set(found) == {"alice", "bob smith", "", "zoë"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "names 0 users", id="empty"),
        pytest.param(b"# nobody\n", "names 0 users", id="comments"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="no-text"),
        pytest.param(b"alice\n", "line 1 is not NAME:HASH", id="no-hash"),
        pytest.param(f"alice:{LINE}\nbob:hunter2\n".encode(), "line 2 is no scrypt hash", id="plain-text"),
        pytest.param(f"alice:{LINE}\nalice:{LINE}\n".encode(), "line 2 names a user for the second time", id="twice"),
        pytest.param(f"a\x1bb:{LINE}\n".encode(), "line 1 is not NAME:HASH", id="control-character"),
        pytest.param(f"{'a' * 129}:{LINE}\n".encode(), "line 1 is not NAME:HASH", id="long-name"),
        pytest.param(b"\n" * 20001, "more than", id="too-many-lines"),
        pytest.param(b"#" * (4 * 1024 * 1024 + 1), "larger than", id="too-large"),
    ],
)
def test_no_file_of_users(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        parse_password_file(data)
    for secret in ("alice", "hunter2", HASH):
        assert secret not in str(refused.value)


class Slow:
    """A derivation that takes until it is told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, secret: bytes, parameters: ScryptParameters) -> bytes:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(10)
        with self._lock:
            self.running -= 1
        return secret.ljust(32)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    found = Slow()
    monkeypatch.setattr(passwords, "derive", found)
    yield found
    found.go.set()


PARAMETERS = ScryptParameters(b"saltsalt")


async def test_places_and_queue_are_bounded(slow: Slow) -> None:
    pool = ScryptPool(2)
    try:
        waiting = [asyncio.ensure_future(pool(b"x", PARAMETERS, f"192.0.2.{n % 9}")) for n in range(18)]
        await asyncio.sleep(0.05)
        with pytest.raises(Rejection) as refused:
            await pool(b"x", PARAMETERS, "198.51.100.1")
        assert refused.value.reason is Reason.RATE_LIMITED
        assert slow.running == 2
        slow.go.set()
        assert await asyncio.gather(*waiting) == [b"x".ljust(32)] * 18
        assert slow.most == 2
        assert await pool(b"y", PARAMETERS, "192.0.2.1") == b"y".ljust(32), "and then there is room again"
        assert not pool._taken
    finally:
        pool.close()


async def test_a_client_that_hangs_up_frees_no_place(slow: Slow) -> None:
    pool = ScryptPool(1)
    try:
        waiting = [asyncio.ensure_future(pool(b"x", PARAMETERS, f"192.0.2.{n}")) for n in range(9)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(Rejection):
            await pool(b"x", PARAMETERS, "198.51.100.1")
        slow.go.set()
        await asyncio.sleep(0.1)
        assert await pool(b"y", PARAMETERS, "192.0.2.1") == b"y".ljust(32)
    finally:
        pool.close()


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["192.0.2.1"] * 5, id="one-address"),
        pytest.param([f"2001:db8::{n}" for n in range(5)], id="one-network-of-a-host"),
    ],
)
async def test_one_source_does_not_take_every_place(slow: Slow, addresses: list[str]) -> None:
    pool = ScryptPool(1)
    try:
        waiting = [asyncio.ensure_future(pool(b"x", PARAMETERS, address)) for address in addresses[:2]]
        await asyncio.sleep(0.05)
        with pytest.raises(Rejection) as refused:
            await pool(b"x", PARAMETERS, addresses[2])
        assert refused.value.reason is Reason.RATE_LIMITED
        other = asyncio.ensure_future(pool(b"y", PARAMETERS, "198.51.100.1"))
        slow.go.set()
        assert await other == b"y".ljust(32)
        await asyncio.gather(*waiting)
    finally:
        pool.close()
