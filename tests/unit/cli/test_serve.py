"""`pki-gateway serve` looks at every key and certificate before it opens the store or listens."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.cli.serve import check_identities
from gateway.config.load import read
from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.unit.cli.conftest import RunMain


def move_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain datetime is enough
            return datetime.now(tz) + ahead

    monkeypatch.setattr("gateway.cli.serve.datetime", Moved)


def left(state: Path, file: str) -> timedelta:
    return parse_certificate(pem_to_ders((state / file).read_bytes())[0]).not_after - datetime.now(UTC)


@pytest.mark.parametrize(
    ("file", "field"),
    [
        pytest.param("tls/server.pem", "server.https.certificate", id="TLS"),
        pytest.param("ca/ra.pem", "profiles.demo.endpoints.scep.ra_certificate", id="RA"),
        pytest.param("ca/issuing.pem", "upstream_cas.local.certificate", id="CA"),
        pytest.param("ca/root.pem", "upstream_cas.local.chain", id="root"),
    ],
)
def test_an_expired_certificate_refuses_the_start(
    state: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch, file: str, field: str
) -> None:
    (state / "store" / "gateway.db").unlink()
    move_clock(monkeypatch, left(state, file) + timedelta(hours=1))
    done = run_main(state, "serve")
    assert done.code == 3
    [said] = [line for line in done.err.splitlines() if f" {field}: " in line]
    assert said.startswith(f"{state}/profiles.yaml:")
    assert "expired on" in said


def test_a_certificate_that_is_not_valid_yet_refuses_the_start(
    state: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_clock(monkeypatch, -timedelta(days=30))
    done = run_main(state, "serve")
    assert (done.code, done.err.count("is not valid before")) == (3, 5)


def test_every_fault_is_said_at_once_before_the_store_is_opened(state: Path, run_main: RunMain) -> None:
    (state / "store" / "gateway.db").write_text("not a store")
    (state / "secrets" / "ra.key").write_bytes((state / "secrets" / "tls.key").read_bytes())
    (state / "secrets" / "issuing.key").write_text("junk")
    (state / "tls" / "server.pem").write_text("junk")
    done = run_main(state, "serve")
    assert done.code == 3
    fields = [line.removeprefix(f"{state}/profiles.yaml:").split(": ")[1] for line in done.err.splitlines()]
    assert fields == ["server.https.certificate", "upstream_cas.local.key", "profiles.demo.endpoints.scep.ra_key"]


def test_other_warnings_are_logged(state: Path) -> None:
    path = state / "profiles.yaml"
    path.write_text(path.read_text().replace("  external_url:", '    min_version: "1.3"\n  external_url:', 1))
    with capture_logs() as logs:
        check_identities(*read(path))
    assert [(line["event"], line["log_level"]) for line in logs] == [("the configuration deserves a look", "warning")]
    assert "server.https.min_version: Windows enrolls" in logs[0]["problem"]


@pytest.mark.parametrize(("days", "warned"), [(29, True), (31, False)])
def test_a_certificate_that_ends_soon_is_logged(state: Path, monkeypatch: pytest.MonkeyPatch, days: int, warned: bool) -> None:
    move_clock(monkeypatch, left(state, "tls/server.pem") - timedelta(days=days, hours=1))
    with capture_logs() as logs:
        check_identities(*read(state / "profiles.yaml"))
    assert [line["event"] for line in logs] == (["a certificate ends soon"] if warned else [])
    assert all(f"server.https.certificate: the certificate CN=localhost ends in {days} days" in line["problem"] for line in logs)


def test_a_standard_output_that_takes_nothing_is_one_line_in_the_log() -> None:
    code = """
from gateway.cli.serve import announce
from gateway.logging import configure_logging
configure_logging()
announce("x" * 100000)
print("more")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
