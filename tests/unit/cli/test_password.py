"""`pki-gateway password`: what it prints is what the files of users hold."""

import io
import sys
from pathlib import Path

import pytest

from gateway.ra.credentials.digest import parse_digest_file
from gateway.ra.credentials.passwords import derive, parse_password_file
from tests.unit.cli.conftest import RunMain


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@pytest.mark.parametrize(
    "data", [pytest.param(b"pa:ss w\xc3\xb6rd", id="bare"), pytest.param(b"pa:ss w\xc3\xb6rd\r\n", id="a line")]
)
@pytest.mark.parametrize("user", ["alice", ""])
def test_hash(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, data: bytes) -> None:
    type_in(monkeypatch, data)
    done = run_main(tmp_path, "password", "hash", user)
    assert (done.code, done.err) == (0, "")
    kept = parse_password_file(done.out.encode())[user]
    assert derive("pa:ss wörd".encode(), kept.parameters) == kept.derived


def test_digest(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, b"Circle Of Life\n")
    done = run_main(tmp_path, "password", "digest", "Mufasa", "--realm", "testrealm@host.com")
    # The user of RFC 2617 §3.5.
    assert parse_digest_file(done.out.encode()) == {"Mufasa": "939e7578ed9e3c518a452acee763bce9"}


@pytest.mark.parametrize("command", ["hash", "digest"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="an empty line"),
        pytest.param(b"one\ntwo\n", id="two lines"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"a\x00b", id="control characters"),
        pytest.param(b"x" * 1025, id="too long"),
        pytest.param(b"x" * 9000, id="far too long"),
    ],
)
def test_no_password(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, data: bytes) -> None:
    type_in(monkeypatch, data)
    done = run_main(tmp_path, "password", command, "alice")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("the password: ")
