from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.config import app
from gateway.cli.init import make_files
from gateway.cli.options import CONFIG_VARIABLE
from gateway.pki.certificate import parse_certificate, pem_to_ders

CONFIG = """\
server:
  https: {listen: "127.0.0.1:8443", certificate: tls.pem, key: {file: tls.key}}
  external_url: {http: "http://localhost:8080", https: "https://localhost:8443"}
store: {type: sqlite, key: {file: store.key}}
audit: {key: {file: audit.key}}
upstream_cas:
  issuing: {type: local, certificate: ca.pem, key: {file: ca.key}, chain: [root.pem]}
  prog: {type: exec, command: [/bin/true], chain: [ca.pem], environment: {TOKEN: hunter2}}
profiles:
  corp:
    endpoints: {scep: {ra_certificate: ra.pem, ra_key: {file: ra.key}}}
    upstream_ca: issuing
    credentials: [{type: one_time}]
"""


FILES = {file.path: file.data for file in make_files("rsa-2048", "ec-p256", 1, 2, datetime.now(UTC))}
PLACES = {
    "tls.pem": "tls/server.pem",
    "tls.key": "secrets/tls.key",
    "ca.pem": "ca/issuing.pem",
    "root.pem": "ca/root.pem",
    "ca.key": "secrets/issuing.key",
    "ra.pem": "ca/ra.pem",
    "ra.key": "secrets/ra.key",
    "store.key": "secrets/store.key",
    "audit.key": "secrets/audit.key",
}
KINDS = (
    '"static", "one_time", "intune_jws", "tls_certificate", "ra_certificate", "cmp_secret", "vendor_certificate", "basic", '
    '"digest_md5_legacy", "bearer" or "all_of"'
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, place in PLACES.items():
        (tmp_path / name).write_bytes(FILES[place])
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "profiles.yaml"
    path.write_text(CONFIG)
    return path


SECRETS = [place for place in FILES if place.startswith("secrets/")]


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert not [place for place in SECRETS if FILES[place].decode() in result.output]
    assert "hunter2" not in result.output
    return result.stdout, result.stderr


def test_check_says_that_nothing_is_wrong(config: Path) -> None:
    out, err = run("check", "--config", str(config))
    assert out == f"{config}: no problems; profiles: corp; upstream CAs: issuing, prog\n"
    assert err == ""
    assert json.loads(run("check", "--config", str(config), "--format", "json")[0]) == {
        "ok": True,
        "problems": [],
        "warnings": [],
    }


def test_check_says_everything_on_standard_error_and_exits_3(config: Path) -> None:
    config.write_text(CONFIG.replace("upstream_ca: issuing", "upstream_ca: isuing").replace("type: one_time", "typ: one_time"))
    out, err = run("check", "--config", str(config), code=3)
    assert out == ""
    assert err.splitlines() == [
        f'{config}:12:5: profiles.corp.upstream_ca: there is no upstream CA isuing; did you mean "issuing"?',
        f'{config}:13:19: profiles.corp.credentials[0]: needs "type": {KINDS}',
    ]


def test_check_prints_problems_as_data(config: Path) -> None:
    config.write_text(CONFIG.replace("upstream_ca: issuing", "upstream_ca: isuing"))
    out, _ = run("check", "--config", str(config), "--format", "json", code=3)
    assert json.loads(out) == {
        "ok": False,
        "problems": [
            {
                "file": str(config),
                "line": 12,
                "column": 5,
                "field": "profiles.corp.upstream_ca",
                "sentence": 'there is no upstream CA isuing; did you mean "issuing"?',
            }
        ],
        "warnings": [],
    }


def test_check_says_all_that_is_wrong_with_keys_and_certificates(config: Path) -> None:
    folder = config.parent
    (folder / "ra.key").write_bytes(FILES["secrets/issuing.key"])
    (folder / "tls.key").write_bytes(FILES["secrets/ra.key"])
    (folder / "ca.key").write_text("junk")
    (folder / "audit.key").write_text("junk")
    out, err = run("check", "-c", str(config), code=3)
    assert out == ""
    said = [line.removeprefix(f"{config}:") for line in err.splitlines()]
    ra = "profiles.corp.endpoints.scep.ra_key: file ra.key: the private key does not belong to the certificate CN=pki-gateway"
    assert [line for line in said if not line.startswith(f"11:48: {ra}")] == [
        "2:59: server.https.key: the private key does not belong to the certificate CN=localhost",
        "5:9: audit.key: audit key: 64 hexadecimal digits are expected; `pki-gateway init` writes such a file",
        "7:47: upstream_cas.issuing.key: file ca.key: not a PEM private key that can be read, or the password is wrong",
    ]
    assert len(said) == 4


@pytest.mark.parametrize("days", [pytest.param(-1, id="not yet"), pytest.param(9000, id="expired")])
def test_check_refuses_certificates_out_of_their_time(config: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    move_clock(monkeypatch, days)
    _, err = run("check", "-c", str(config), code=3)
    fields = {line.split(": ")[1] for line in err.splitlines()}
    assert fields == {
        "server.https.certificate",
        "upstream_cas.issuing.certificate",
        "upstream_cas.issuing.chain",
        "upstream_cas.prog.chain",
        "profiles.corp.endpoints.scep.ra_certificate",
    }
    assert all(("expired on" if days > 0 else "is not valid before") in line for line in err.splitlines())


def test_check_warns_of_certificates_that_end_soon(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = parse_certificate(pem_to_ders(FILES["tls/server.pem"])[0]).not_after
    move_clock(monkeypatch, (end - datetime.now(UTC)).days - 7)
    out, err = run("check", "-c", str(config))
    assert "no problems" in out
    assert "server.https.certificate: the certificate CN=localhost ends in 7 days: renew it" in err


def test_check_shows_warnings_and_succeeds(config: Path) -> None:
    config.write_text(CONFIG.replace('listen: "127.0.0.1:8443"', 'min_version: "1.3", listen: "127.0.0.1:8443"'))
    out, err = run("check", "-c", str(config))
    assert "no problems, 1 warning; profiles: corp;" in out
    said = 'Windows enrolls by SCEP over TLS 1.2 only (0x80072f8f): write "1.2"'
    assert err == f"warning: {config}:2:11: server.https.min_version: {said}\n"
    data = json.loads(run("check", "-c", str(config), "--format", "json")[0])
    assert (data["ok"], data["problems"]) == (True, [])
    assert [warning["sentence"] for warning in data["warnings"]] == [said]


def test_problems_do_not_hide_warnings(config: Path) -> None:
    (config.parent / "audit.key").write_text("junk")
    config.write_text(CONFIG.replace('listen: "127.0.0.1:8443"', 'min_version: "1.3", listen: "127.0.0.1:8443"'))
    _, err = run("check", "-c", str(config), code=3)
    first, second = err.splitlines()
    assert first.startswith(f"{config}:5:9: audit.key: ")
    assert second.startswith(f"warning: {config}:2:11: ")


def move_clock(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a plain datetime is enough
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr("gateway.cli.config.datetime", Moved)


@pytest.mark.parametrize("command", ["show", "diff", "check"])
def test_a_missing_file_is_a_configuration_error(tmp_path: Path, command: str) -> None:
    _, err = run(command, *([str(tmp_path / "other")] if command == "diff" else []), "-c", str(tmp_path / "none.yaml"), code=3)
    assert "No such file" in err


def test_show_prints_defaults_and_hides_secrets(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    shown = yaml.safe_load(run("show")[0])
    assert shown == json.loads(run("show", "--format", "json")[0])
    assert shown["server"]["limits"]["body_timeout"] == "10s"
    assert shown["store"]["key"] == {"file": "store.key"}
    assert shown["upstream_cas"]["prog"]["environment"] == {"TOKEN": "(hidden)"}


def test_schema_is_json(config: Path) -> None:
    assert json.loads(run("schema")[0])["title"] == "pki-gateway configuration"


def test_diff_of_two_files(config: Path) -> None:
    other = config.with_name("other.yaml")
    other.write_text(CONFIG.replace("type: one_time", "type: one_time, ttl: 2h"))
    assert run("diff", str(config), "-c", str(config))[0] == "No difference.\n"
    table = run("diff", str(other), "-c", str(config))[0]
    assert "profiles.corp.credentials[0].ttl" in table
    rows = json.loads(run("diff", str(other), "-c", str(config), "--format", "json")[0])
    assert rows == [{"field": "profiles.corp.credentials[0].ttl", "before": "2h", "after": "1h"}]


def test_diff_needs_a_running_server_or_another_file(config: Path) -> None:
    _, err = run("diff", "-c", str(config), code=1)
    assert f"No server answers at {config.parent}/run/admin.sock" in err
