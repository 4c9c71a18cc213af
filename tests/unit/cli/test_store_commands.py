"""`store` and `audit` on the files of a fresh configuration: answers, sentences and exit statuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from gateway.assemble import open_gateway, require_store
from gateway.audit import AuditHead, append_head, parse_audit_key
from gateway.cli import audit, store
from gateway.cli.doctor import Verdict, check_store
from gateway.cli.init import init
from gateway.config.load import read
from gateway.errors import StoreRefused
from gateway.store.keys import KeyRing, generate_store_key
from gateway.store.sqlite import SqliteStore, connection
from gateway.store.tables import SCHEMA
from tests.contract.store.rows import challenge, event, issued

Run = Callable[..., tuple[int, str, str]]
APPS = {"store": store.app, "audit": audit.app}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("init") / "var"
    start = Typer()
    start.command()(init)
    assert CliRunner().invoke(start, [str(folder)]).exit_code == 0
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def state(tmp_path: Path, template: dict[str, bytes]) -> Path:
    folder = tmp_path / "var"
    for name, data in template.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(data)
        file.chmod(0o600)
    return folder


@pytest.fixture
def run(state: Path) -> Run:
    def command(app: str, *arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(APPS[app], [*arguments, "--config", str(state / "profiles.yaml")])
        return result.exit_code, result.stdout, result.stderr

    return command


def path_of(state: Path) -> Path:
    return state / "store" / "gateway.db"


def fill(state: Path) -> list[AuditHead]:
    heads: list[AuditHead] = []
    keys = KeyRing.parse((state / "secrets" / "store.key").read_bytes())
    key = parse_audit_key((state / "secrets" / "audit.key").read_bytes())

    async def write() -> None:
        opened = SqliteStore(path_of(state), keys, key, "w1", heads.append)
        await opened.start()
        await issued(opened)
        await opened.add_challenge(challenge(), event("challenge.created", "done"))
        await opened.close()

    asyncio.run(write())
    return heads


def change(state: Path, sql: str) -> None:
    writer = connection.open_writer(path_of(state))
    writer.execute(sql)
    writer.close()


def test_life_of_a_store(state: Path, run: Run) -> None:
    assert run("store", "check")[0] == 0
    assert json.loads(run("store", "migrate", "--format", "json")[1])["schema_before"] == SCHEMA
    fill(state)
    code, out, _ = run("store", "check", "--format", "json")
    assert code == 0
    assert json.loads(out)["audit"]["rows"] == 3
    copy = state / "copy.db"
    assert run("store", "backup", str(copy))[0] == 0
    code, _, err = run("store", "backup", str(copy))
    assert (code, "never overwrites" in err) == (1, True)
    code, out, _ = run("audit", "verify")
    assert code == 0
    assert "rows" in out


def test_doctor_finds_the_store_of_a_fresh_configuration_and_misses_its_audit_key(state: Path) -> None:
    assert check_store(*read(state / "profiles.yaml")).verdict is Verdict.OK
    (state / "secrets" / "audit.key").write_text("ab" * 32)
    assert "another audit.key" in check_store(*read(state / "profiles.yaml")).found


def test_store_that_vanished_is_missed_and_only_migrate_creates_one(state: Path, run: Run) -> None:
    path_of(state).unlink()
    config, sources = read(state / "profiles.yaml")
    with pytest.raises(StoreRefused, match="restore a backup"):
        require_store(config, sources)
    with pytest.raises(StoreRefused, match="restore a backup"):
        asyncio.run(open_gateway(config, sources, worker="cli:1", generation=0))
    for command in (("store", "check"), ("store", "backup", str(state / "copy")), ("store", "rekey"), ("audit", "verify")):
        code, _, err = run(*command)
        assert code == 1
        assert "restore a backup; only for a new installation, `pki-gateway store migrate` creates an empty one" in " ".join(
            err.split()
        )
    assert not path_of(state).exists()
    assert json.loads(run("store", "migrate", "--format", "json")[1])["schema_before"] is None
    assert run("store", "check")[0] == 0


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        pytest.param(
            "UPDATE audit SET body = REPLACE(body, 'granted', 'refused') WHERE seq = 2", "row 2 was changed", id="changed"
        ),
        pytest.param("DELETE FROM audit WHERE seq = 2", "row 2 is missing", id="missing"),
        pytest.param("UPDATE audit SET seq = 14 - seq", "rows 1 to 10 are missing", id="reordered"),
    ],
)
def test_tampering_is_found(state: Path, run: Run, sql: str, sentence: str) -> None:
    fill(state)
    change(state, sql)
    for command in (("audit", "verify"), ("store", "check")):
        code, _, err = run(*command)
        assert code == 1
        assert sentence in err


def test_cut_tail_is_found_against_heads(state: Path, run: Run, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    for head in fill(state):
        append_head(heads, head)
    change(state, "DELETE FROM audit WHERE seq = 3")
    assert run("audit", "verify")[0] == 0
    code, out, err = run("audit", "verify", "--heads", str(heads), "--format", "json")
    assert (code, "rows were cut off" in err) == (1, True)
    assert json.loads(out)["problems"]
    code, _, err = run("audit", "verify", "--heads", str(tmp_path / "none"))
    assert (code, "No such file" in err) == (1, True)


def test_configured_heads_are_used(state: Path, run: Run) -> None:
    for head in fill(state):
        append_head(state / "store" / "audit-heads.jsonl", head)
    assert json.loads(run("audit", "verify", "--format", "json")[1])["heads"] >= 1
    change(state, "DELETE FROM audit")
    assert run("audit", "verify")[0] == 1
    assert run("store", "check")[0] == 1


@pytest.mark.parametrize("text", ["garbage", "{}"])
def test_file_that_holds_no_heads(state: Path, run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "heads").write_text(text)
    code, _, err = run("audit", "verify", "--heads", str(tmp_path / "heads"))
    assert (code, "line 1 is not an audit head" in err) == (1, True)


def test_export(state: Path, run: Run) -> None:
    fill(state)
    lines = run("audit", "export")[1].splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
    assert [json.loads(line)["seq"] for line in run("audit", "export", "--after", "2")[1].splitlines()] == [3]
    assert run("audit", "export", "--format", "json") == run("audit", "export", "--format", "jsonl") == run("audit", "export")
    assert all(line.startswith("CEF:0|") for line in run("audit", "export", "--format", "cef")[1].splitlines())
    assert all(json.loads(line)["ecs"] for line in run("audit", "export", "--format", "ecs")[1].splitlines())
    assert run("audit", "export", "--format", "xml")[0] == 2
    assert run("audit", "export", "--after", "-1")[0] == 2


def test_change_of_keys(state: Path, run: Run) -> None:
    fill(state)
    file = state / "secrets" / "store.key"
    old, new = file.read_text(), generate_store_key()
    file.write_text(f"{new}\n{old}")
    code, out, _ = run("store", "rekey", "--format", "json")
    assert code == 0
    assert json.loads(out)["key"] == KeyRing.parse(new.encode()).newest_id
    assert new not in out
    file.write_text(new)
    assert run("store", "check")[0] == 0
    file.write_text(old)
    code, _, err = run("store", "check")
    assert (code, "another store.key" in err) == (1, True)
    assert old.strip() not in err
    assert "store.rekeyed" in run("audit", "export")[1]


@pytest.mark.parametrize(("name", "app", "command"), [("store.key", "store", "check"), ("audit.key", "audit", "verify")])
def test_key_file_that_holds_no_key(state: Path, run: Run, name: str, app: str, command: str) -> None:
    (state / "secrets" / name).write_text("not-a-key")
    code, _, err = run(app, command)
    assert code == 3
    assert "not-a-key" not in err


def test_a_backup_needs_no_secret(state: Path, run: Run, tmp_path: Path) -> None:
    config = state / "profiles.yaml"
    config.write_text(config.read_text().replace("{file: secrets/store.key}", "{credential: store.key}"))
    (state / "secrets" / "ra.key").unlink()
    assert run("store", "backup", str(tmp_path / "copy"))[0] == 0
    assert (tmp_path / "copy").read_bytes()[:15] == b"SQLite format 3"


def test_a_backup_of_no_configuration(state: Path, run: Run, tmp_path: Path) -> None:
    (state / "profiles.yaml").unlink()
    code, _, stderr = run("store", "backup", str(tmp_path / "copy"))
    assert (code, stderr.strip()) == (3, f"{state / 'profiles.yaml'}: No such file or directory")
