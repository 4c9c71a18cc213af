"""What the commands on CMP's shared secrets print, run on a store without a server."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit import parse_audit_key
from gateway.cmp import SharedSecret
from gateway.model import NameBinding, ProfileName, SanKind
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore
from tests.unit.cli.conftest import RunMain

DEMO = ProfileName("demo")


def stored(state: Path, reference: str) -> SharedSecret | None:
    """Read a secret as a server would find it."""
    secrets = state / "secrets"
    keys = KeyRing.parse(next(secrets.glob("store*")).read_bytes())
    audit_key = parse_audit_key(next(secrets.glob("audit*")).read_bytes())

    async def run() -> SharedSecret | None:
        store = SqliteStore(next(state.rglob("gateway.db")), keys, audit_key, "w1", lambda _: None)
        await store.start()
        found = await store.find_secret(DEMO, reference.encode())
        await store.close()
        return found

    return asyncio.run(run())


class TestSecrets:
    def test_are_printed_once(self, state: Path, run_main: RunMain) -> None:
        line = "cmp-secret create demo --uses 5 --ttl 2h --subject CN=bts-1 --san dns:bts-1.example --owner radio --format json"
        done = run_main(state, *line.split())
        assert (done.code, done.err) == (0, "")
        made = json.loads(done.out)
        row = stored(state, made["reference"])
        assert row is not None
        assert (row.secret.decode(), row.max_uses, row.owner) == (made["secret"], 5, "radio")
        assert row.binding == NameBinding("CN=bts-1", frozenset({(SanKind.DNS, "bts-1.example")}))
        assert row.expires_at - row.created_at == timedelta(hours=2)
        [listed] = json.loads(run_main(state, "cmp-secret", "list", "--format", "json").out)
        assert listed == {name: value for name, value in made.items() if name != "secret"}
        assert (listed["uses"], listed["subject"], listed["sans"]) == (0, "CN=bts-1", ["dns:bts-1.example"])
        assert made["secret"] not in run_main(state, "audit", "export").out

    def test_are_drawn_long_enough_and_live_as_the_profile_says(self, state: Path, run_main: RunMain) -> None:
        made = json.loads(run_main(state, "cmp-secret", "create", "demo", "--format", "json").out)
        assert re.fullmatch(r"[A-Z2-9]{28}", made["secret"])
        assert re.fullmatch(r"[A-Z2-9]{12}", made["reference"])
        assert (made["max_uses"], made["subject"], made["sans"]) == (1, None, None)
        lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
        assert lifetime == timedelta(days=7)

    def test_are_three_lines(self, state: Path, run_main: RunMain) -> None:
        lines = run_main(state, "cmp-secret", "create", "demo").out.splitlines()
        assert [line.split()[0] for line in lines] == ["id", "reference", "secret"]
        assert lines[1].split()[1] in run_main(state, "cmp-secret", "list").out
        assert lines[2].split()[1] not in run_main(state, "cmp-secret", "list", "--format", "json").out

    @pytest.mark.parametrize(
        ("data", "secret"),
        [
            pytest.param(b"a secret of ours\n", b"a secret of ours", id="text"),
            pytest.param(b"a secret of ours\r\n", b"a secret of ours", id="text of Windows"),
            pytest.param(bytes(range(128, 160)), bytes(range(128, 160)), id="bytes"),
        ],
    )
    def test_that_clients_have_are_taken_over(self, state: Path, run_main: RunMain, data: bytes, secret: bytes) -> None:
        (state / "secret").write_bytes(data)
        line = ("cmp-secret", "create", "demo", "--reference", "3078", "--secret-file", str(state / "secret"))
        done = run_main(state, *line, "--format", "json")
        assert (done.code, done.err) == (0, "")
        assert "secret" not in json.loads(done.out)
        row = stored(state, "3078")
        assert row is not None
        assert row.secret == secret

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            pytest.param(b"short\n", "12 to 512 bytes", id="too short"),
            pytest.param(b"", "12 to 512 bytes", id="empty"),
            pytest.param(b"x" * 513, "12 to 512 bytes", id="too long"),
            pytest.param(b"x" * 5000, "more than a secret", id="no secret"),
        ],
    )
    def test_of_other_lengths_are_refused(self, state: Path, run_main: RunMain, data: bytes, said: str) -> None:
        (state / "secret").write_bytes(data)
        done = run_main(state, "cmp-secret", "create", "demo", "--secret-file", str(state / "secret"))
        assert (done.code, done.out) == (2, "")
        assert said in done.err

    def test_of_one_reference_are_one(self, state: Path, run_main: RunMain) -> None:
        made = json.loads(run_main(state, "cmp-secret", "create", "demo", "--reference", "r1", "--format", "json").out)
        again = run_main(state, "cmp-secret", "create", "demo", "--reference", "r1")
        assert (again.code, again.out) == (2, "")
        assert "revoke it first" in again.err
        done = run_main(state, "cmp-secret", "revoke", made["id"])
        assert done.out == f"Shared secret {made['id']} is revoked; the certificates that it got are not.\n"
        assert run_main(state, "cmp-secret", "revoke", made["id"]).code == 1
        assert run_main(state, "cmp-secret", "list").out == "No shared secrets.\n"
        assert run_main(state, "cmp-secret", "create", "demo", "--reference", "r1").code == 0

    def test_of_a_profile_that_takes_none_are_refused(self, state: Path, run_main: RunMain) -> None:
        config = state / "profiles.yaml"
        text = config.read_text()
        block = re.search(r"      - type: cmp_secret.*\n(?:        .*\n)*", text)
        assert block is not None
        config.write_text(text.replace(block[0], ""))
        done = run_main(state, "cmp-secret", "create", "demo")
        assert (done.code, done.out) == (2, "")
        assert "takes no shared secrets" in done.err
