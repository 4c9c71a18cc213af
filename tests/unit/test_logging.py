"""Operator logs: one line an event, no secret in any."""

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
import structlog

from gateway.logging import LogFormat, configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogFormat.JSON)
    structlog.get_logger("x").info("scep", profile="corp", reason=None, transaction_id="a\nb")
    logging.getLogger("aiohttp").warning("library %s", "speaks")
    structlog.get_logger("x").debug("not shown")
    one, two = map(json.loads, lines(capsys))
    assert list(one)[:3] == ["timestamp", "level", "event"]
    assert (one["event"], one["profile"], one["transaction_id"]) == ("scep", "corp", "a\nb")
    assert "reason" not in one
    assert (two["event"], two["level"]) == ("library speaks", "warning")


@pytest.mark.parametrize("format", LogFormat)
def test_secrets_are_hidden(format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format)
    structlog.get_logger("x").info("e", challenge="TOPSECRET", password="TOPSECRET")
    [line] = lines(capsys)
    assert "TOPSECRET" not in line
    assert "(hidden)" in line


def test_what_became_of_a_secret_is_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    class Label(StrEnum):
        REPLAY = "replay"

    configure_logging(LogFormat.JSON)
    structlog.get_logger("x").info("scep", challenge=Label.REPLAY)
    structlog.get_logger("x").info("scep", challenge=None)
    one, two = map(json.loads, lines(capsys))
    assert one["challenge"] == "replay"
    assert "challenge" not in two


def test_a_client_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogFormat.CONSOLE)
    structlog.get_logger("x").info("e", transaction_id="\x1b[2Jx\r\nfake line")
    [line] = lines(capsys)
    assert "\x1b[2J" not in line


def test_exceptions_are_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogFormat.JSON)
    try:
        raise ValueError("deep inside")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    [line] = lines(capsys)
    assert "deep inside" in json.loads(line)["exception"]


@pytest.mark.parametrize("format", LogFormat)
def test_a_line_that_cannot_be_written_fails_nobody(format: LogFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(format)
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        structlog.get_logger("x").error("lost")
        logging.getLogger("x").error("lost")
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def test_no_field_replaces_time_level_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogFormat.JSON)
    structlog.get_logger("x").info("e", level="evil", timestamp="never")
    [line] = map(json.loads, lines(capsys))
    assert (line["level"], line["event"]) == ("info", "e")
    assert line["timestamp"].startswith("20")


def test_long_lines_of_several_threads_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w", buffering=1) as log:
        monkeypatch.setattr(sys, "stderr", log)
        configure_logging(LogFormat.JSON)

        def write(number: int) -> None:
            for size in range(10, 20_000, 400):
                structlog.get_logger("x").info("e", text=str(number) * size)
                logging.getLogger("y").warning("%s", str(number) * size)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(written) == 6 * 2 * 50
