"""What all commands share: exit codes, printing, the place of the configuration."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from gateway.cli.options import (
    CommandError,
    ExitCode,
    OutputFormat,
    default_config,
    fail,
    print_record,
    print_records,
    with_exit_codes,
)
from gateway.errors import ConfigurationError, Reason, Rejection, StoreRefused, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        pytest.param(CommandError("no"), 1, "no", id="failed"),
        pytest.param(CommandError("no", ExitCode.USAGE), 2, "no", id="usage"),
        pytest.param(ConfigurationError(("a:1:1: x", "a:2:1: y")), 3, "a:1:1: x\na:2:1: y", id="configuration"),
        pytest.param(StoreRefused("another key"), 1, "another key", id="store-refused"),
        pytest.param(StoreUnavailable("disk full"), 1, "disk full", id="store-unavailable"),
        pytest.param(Rejection(Reason.DENIED, "public", "cause"), 1, "cause", id="rejection"),
        pytest.param(FileNotFoundError(2, "No such file or directory", "x.pem"), 1, "x.pem: No such file", id="file"),
    ],
)
def test_errors_become_sentences(error: Exception, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    @with_exit_codes
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as raised:
        command()
    out, err = capsys.readouterr()
    assert (raised.value.exit_code, out) == (code, "")
    assert text in err


def test_what_nobody_foresaw_is_not_hidden() -> None:
    @with_exit_codes
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


def test_fail() -> None:
    with pytest.raises(CommandError) as raised:
        fail("no", ExitCode.USAGE)
    assert raised.value.code is ExitCode.USAGE


def test_tables_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([{"subject": "CN=\x1b[2J[bold]x\n", "at": datetime(2026, 1, 2, tzinfo=UTC), "ok": True}], OutputFormat.TABLE)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"CN=\x1b[2J[bold]x\n" in out
    assert "2026-01-02 00:00:00Z" in out
    assert "yes" in out


def test_json_has_whole_records(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([{"a": 1, "b": b"\xff", "c": ("x",)}], OutputFormat.JSON, columns=("a",))
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": "ff", "c": ["x"]}]


def test_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([], OutputFormat.TABLE, empty="No certificates.")
    print_records([], OutputFormat.JSON)
    assert capsys.readouterr().out == "No certificates.\n[]\n"


def test_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    print_record({"not_after": None, "sans": ["a", "b"]}, OutputFormat.TABLE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["not", "after"], ["sans", "a,", "b"]]


def test_default_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_config().name == "profiles.yaml"
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "profiles.yaml").touch()
    assert default_config() == Path("var/profiles.yaml")
