"""What a token refused is remembered for every process, and gives no PIN away."""

from pathlib import Path

import pytest

from gateway.ca.pin_guard import MAX_RECORDS, PinGuard
from gateway.errors import KeyUnavailable


def test_another_process_knows_what_was_refused(tmp_path: Path) -> None:
    one, other = PinGuard(tmp_path, b"key"), PinGuard(tmp_path, b"key")
    refused = one.fingerprint("token", b"serial", b"1234")
    with one.turn() as turn:
        assert not turn.was_refused(refused)
        turn.note(refused)
    with other.turn() as turn:
        assert turn.was_refused(other.fingerprint("token", b"serial", b"1234"))
    assert one.path.stat().st_mode & 0o777 == 0o600
    assert "1234" not in one.path.read_text()


@pytest.mark.parametrize(
    ("key", "token", "serial", "pin"),
    [
        (b"other", "token", b"serial", b"1234"),
        (b"key", "other", b"serial", b"1234"),
        (b"key", "token", b"other", b"1234"),
        (b"key", "token", b"serial", b"1235"),
        (b"key", "tokens", b"erial", b"1234"),
    ],
    ids=["store", "token", "serial number", "PIN", "joint"],
)
def test_everything_counts(tmp_path: Path, key: bytes, token: str, serial: bytes, pin: bytes) -> None:
    known = PinGuard(tmp_path, b"key").fingerprint("token", b"serial", b"1234")
    assert PinGuard(tmp_path, key).fingerprint(token, serial, pin) != known


def test_the_record_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    guard = PinGuard(tmp_path, b"key")
    marks = [guard.fingerprint("token", b"", str(number).encode()) for number in range(MAX_RECORDS + 3)]
    for mark in marks:
        with guard.turn() as turn:
            turn.note(mark)
    with guard.turn() as turn:
        assert [turn.was_refused(mark) for mark in marks] == [False] * 3 + [True] * MAX_RECORDS


def test_one_process_at_a_time_logs_in(tmp_path: Path) -> None:
    impatient = PinGuard(tmp_path, b"key", wait=0.1)
    with PinGuard(tmp_path, b"key").turn(), pytest.raises(KeyUnavailable, match="another process"), impatient.turn():
        pass
    with impatient.turn():
        pass


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_without_a_record_no_pin_is_tried(tmp_path: Path, kind: str) -> None:
    guard = PinGuard(tmp_path, b"key")
    if kind == "folder":
        guard.path.mkdir()
    else:
        guard.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnavailable, match="no PIN is tried"), guard.turn():
        pass
