from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.config import app
from gateway.cli.options import CONFIG_VARIABLE

CONFIG = """\
server:
  https: {listen: "127.0.0.1:8443", certificate: tls.pem, key: {file: tls.key}}
  external_url: {http: "http://localhost:8080", https: "https://localhost:8443"}
store: {type: sqlite, key: {file: store.key}}
audit: {key: {file: audit.key}}
upstream_cas:
  issuing: {type: local, certificate: ca.pem, key: {file: ca.key}}
  prog: {type: exec, command: [/bin/sign], chain: [ca.pem], environment: {TOKEN: hunter2}}
profiles:
  corp:
    endpoints: {scep: {ra_certificate: ra.pem, ra_key: {file: ra.key}}}
    upstream_ca: issuing
    credentials: [{type: one_time}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("tls.pem", "ca.pem", "ra.pem", "tls.key", "ca.key", "ra.key", "store.key", "audit.key"):
        (tmp_path / name).write_text(f"planted secret of {name}\n")
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "profiles.yaml"
    path.write_text(CONFIG)
    return path


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "planted" not in result.output
    assert "hunter2" not in result.output
    return result.stdout, result.stderr


def test_check_says_that_nothing_is_wrong(config: Path) -> None:
    out, err = run("check", "--config", str(config))
    assert out == f"{config}: no problems; profiles: corp; upstream CAs: issuing, prog\n"
    assert err == ""
    assert json.loads(run("check", "--config", str(config), "--format", "json")[0]) == {"ok": True, "problems": []}


def test_check_says_everything_on_standard_error_and_exits_3(config: Path) -> None:
    config.write_text(CONFIG.replace("upstream_ca: issuing", "upstream_ca: isuing").replace("type: one_time", "typ: one_time"))
    out, err = run("check", "--config", str(config), code=3)
    assert out == ""
    assert err.splitlines() == [
        f'{config}:12:5: profiles.corp.upstream_ca: there is no upstream CA isuing; did you mean "issuing"?',
        f'{config}:13:19: profiles.corp.credentials[0]: needs "type": "static" or "one_time"',
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
    }


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
    assert "No server runs" in err
