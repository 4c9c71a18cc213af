"""What the commands on ACME print, run on a store without a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.audit import parse_audit_key
from gateway.pki.base64url import decode
from gateway.pki.keys import generate_private_key
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore
from tests.contract.store.acme_rows import ordered, registered
from tests.contract.store.rows import issued
from tests.unit.cli.conftest import RunMain

KEY = generate_private_key("ec-p256").public_key()
DER = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PEM = KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def unbound(state: Path) -> Path:
    """An installation whose profile binds no external accounts."""
    config = state / "profiles.yaml"
    text = config.read_text()
    assert "external_account: optional" in text
    config.write_text(text.replace("external_account: optional", 'external_account: "off"'))
    return state


def fill(state: Path) -> tuple[str, str, str]:
    """Put an account with an order, and a certificate, into the store of an installation; returns IDs and the serial."""
    secrets = state / "secrets"
    keys = KeyRing.parse(next(secrets.glob("store*")).read_bytes())
    audit_key = parse_audit_key(next(secrets.glob("audit*")).read_bytes())
    now = datetime.now(UTC)

    async def run() -> tuple[str, str, str]:
        store = SqliteStore(next(state.rglob("gateway.db")), keys, audit_key, "w1", lambda _: None)
        await store.start()
        account = await registered(store, created_at=now)
        order, _ = await ordered(store, account, "a.example", created_at=now, expires_at=now + timedelta(days=7))
        _, certificate = await issued(store, serial=0xABC, subject="CN=a", public_key_sha256=hashlib.sha256(DER).digest())
        await store.close()
        return account.id, order.id, format(certificate.serial, "x")

    return asyncio.run(run())


class TestKeys:
    def test_are_printed_once(self, state: Path, run_main: RunMain) -> None:
        line = (
            r"eab create demo --dns .*\.lab\.example --ip 10.0.0.0/8 --no-wildcards --key-type ec --challenge http-01 "
            "--max-validity 30d --max-names 3 --max-accounts 0 --one-shot --ttl 90d --owner team"
        )
        done = run_main(state, *line.split(), "--format", "json")
        assert (done.code, done.err) == (0, "")
        made = json.loads(done.out)
        assert len(decode(made["hmac_key"])) == 32
        [row] = json.loads(run_main(state, "eab", "list", "--format", "json").out)
        assert row == {name: value for name, value in made.items() if name != "hmac_key"}
        assert (row["dns"], row["ip"], row["wildcards"], row["owner"]) == ([r".*\.lab\.example"], ["10.0.0.0/8"], False, "team")
        assert (row["key_types"], row["challenges"], row["max_validity"]) == (["ec"], ["http-01"], "30d")
        assert (row["max_identifiers"], row["max_accounts"], row["max_certificates"]) == (3, None, 1)
        assert (
            run_main(state, "eab", "revoke", row["kid"]).out
            == f"Key {row['kid']} is revoked; accounts that were bound with it: 0.\n"
        )
        assert run_main(state, "eab", "revoke", row["kid"]).code == 1

    def test_are_two_lines(self, state: Path, run_main: RunMain) -> None:
        lines = run_main(state, "eab", "create", "demo").out.splitlines()
        assert [line.split()[0] for line in lines] == ["kid", "hmac"]
        assert lines[0].split()[1] in run_main(state, "eab", "list").out
        assert lines[1].split()[2] not in run_main(state, "eab", "list", "--format", "json").out

    def test_that_clients_have_are_taken_over(self, state: Path, run_main: RunMain) -> None:
        (state / "key").write_text("YWFhYWFhYWFhYWFhYWFhYWFh\n")
        done = run_main(state, "eab", "create", "demo", "--kid", "keyid_00", "--key-file", str(state / "key"), "--format", "json")
        assert (json.loads(done.out)["kid"], json.loads(done.out)["hmac_key"]) == ("keyid_00", "YWFhYWFhYWFhYWFhYWFhYWFh")

    def test_padding_is_taken_away(self, state: Path, run_main: RunMain) -> None:
        (state / "key").write_text("YWFhYWFhYWFhYWFhYWFhYWE=\n")
        done = run_main(state, "eab", "create", "demo", "--kid", "k", "--key-file", str(state / "key"), "--format", "json")
        assert json.loads(done.out)["hmac_key"] == "YWFhYWFhYWFhYWFhYWFhYWE"

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            pytest.param("eab create nope", "no such profile", id="no profile"),
            pytest.param("eab create demo --dns *.example", "for all names below it", id="shell pattern"),
            pytest.param("eab create demo --ip 10.0.0.1/8", "no network", id="no network"),
            pytest.param("eab create demo --challenge foo", "challenges must be of: http-01", id="no challenge"),
            pytest.param("eab create demo --challenge dns-01", "this profile offers", id="not offered"),
            pytest.param("eab create demo --mode foo", "mode foo is not possible here", id="no mode"),
            pytest.param("eab create demo --ttl 5", "--ttl: must be", id="no duration"),
            pytest.param("eab create demo --max-validity x", "--max-validity: must be", id="no validity"),
            pytest.param("eab create demo --one-shot --max-certificates 2", "exclude each other", id="two counts"),
            pytest.param("eab create demo --kid a", "belong together", id="ID without key"),
            pytest.param("eab create demo --kid a --key-file none", "none no such file", id="no key file"),
            pytest.param("eab create demo --kid a --key-file profiles.yaml", "key must be base64url", id="no key"),
        ],
    )
    def test_that_cannot_be_are_usage_errors(self, state: Path, run_main: RunMain, line: str, said: str) -> None:
        done = run_main(state, *line.replace("profiles.yaml", str(state / "profiles.yaml")).split())
        assert (done.code, done.out) == (2, "")
        assert said in done.err

    def test_need_a_profile_that_binds_them(self, unbound: Path, run_main: RunMain) -> None:
        done = run_main(unbound, "eab", "create", "demo")
        assert (done.code, done.out) == (2, "")
        assert "set `external_account` of its acme endpoint" in done.err


class TestAccountsAndOrders:
    def test_are_listed_and_ended(self, state: Path, run_main: RunMain) -> None:
        account, order, _ = fill(state)
        [row] = json.loads(run_main(state, "acme", "accounts", "--profile", "demo", "--format", "json").out)
        assert (row["id"], row["status"]) == (account, "valid")
        assert account in run_main(state, "acme", "accounts").out
        [row] = json.loads(run_main(state, "acme", "orders", "--status", "pending", "--format", "json").out)
        assert (row["id"], row["account"], row["identifiers"]) == (order, account, ["dns:a.example"])
        assert "dns:a.example" in run_main(state, "acme", "orders").out
        assert run_main(state, "acme", "accounts", "deactivate", account).out == f"Account {account} is ended.\n"
        [row] = json.loads(run_main(state, "acme", "accounts", "--format", "json").out)
        assert row["status"] == "revoked"
        [row] = json.loads(run_main(state, "acme", "orders", "--status", "invalid", "--format", "json").out)
        assert (row["reason"], row["detail"]) == ("account_deactivated", "the account was deactivated")
        assert run_main(state, "acme", "accounts", "deactivate", account).code == 1


class TestIncidents:
    def test_are_shown_before_they_are_done(self, state: Path, run_main: RunMain) -> None:
        fill(state)
        done = run_main(state, "incident", "declare", "--profile", "demo")
        assert done.out == "1 certificate to be renewed:\n  CN=a\nNothing was done: --yes does it.\n"
        assert run_main(state, "incident", "list").out == "No incidents.\n"
        url = "https://pki.test/why"
        done = run_main(
            state, "incident", "declare", "--upstream-ca", "local", "--explanation-url", url, "--yes", "--format", "json"
        )
        made = json.loads(done.out)
        assert (made["certificates"], made["explanation_url"]) == (1, url)
        assert json.loads(run_main(state, "incident", "list", "--format", "json").out) == [made]
        assert run_main(state, "incident", "withdraw", made["id"]).out == f"Incident {made['id']} is withdrawn.\n"
        assert run_main(state, "incident", "list").out == "No incidents.\n"

    def test_are_of_serial_numbers_in_a_file(self, state: Path, run_main: RunMain, tmp_path: Path) -> None:
        fill(state)
        (tmp_path / "serials").write_text("# found by the audit\n0A:BC  # device a\n\n0001\n")
        done = run_main(state, "incident", "declare", "--serials", str(tmp_path / "serials"), "--yes")
        assert ": 1 certificate to be renewed now;" in done.out

    @pytest.mark.parametrize("how", ["file", "hash"])
    def test_are_of_a_key(self, state: Path, run_main: RunMain, tmp_path: Path, how: str) -> None:
        fill(state)
        (tmp_path / "key.pem").write_bytes(PEM)
        key = hashlib.sha256(DER).hexdigest() if how == "hash" else str(tmp_path / "key.pem")
        found = json.loads(run_main(state, "incident", "declare", "--key", key, "--format", "json").out)
        assert found == {"certificates": 1, "subjects": ["CN=a"]}

    def test_are_of_the_key_of_a_certificate(self, state: Path, run_main: RunMain) -> None:
        fill(state)
        found = json.loads(
            run_main(state, "incident", "declare", "--key", str(state / "ca" / "root.pem"), "--format", "json").out
        )
        assert found == {"certificates": 0, "subjects": []}

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            pytest.param("--yes", "Say which certificates", id="nothing said"),
            pytest.param("--profile nope", "There is no profile nope", id="no profile"),
            pytest.param("--upstream-ca nope --yes", "no certificate that is in force", id="none"),
            pytest.param("--serials none", "no such file", id="no file"),
            pytest.param("--serials empty", "holds no serial numbers", id="empty file"),
            pytest.param("--serials words", "line 2 is no serial number", id="no serials"),
            pytest.param("--key words", "--key: ", id="no key"),
            pytest.param("--profile demo --explanation-url x --yes", "https URL", id="no URL"),
        ],
    )
    def test_that_cannot_be_are_usage_errors(self, state: Path, run_main: RunMain, tmp_path: Path, line: str, said: str) -> None:
        fill(state)
        (tmp_path / "empty").write_text("# nothing\n")
        (tmp_path / "words").write_text("01\nword\n")
        done = run_main(state, "incident", "declare", *line.split())
        assert (done.code, done.out) == (2, ""), done.err
        assert said in done.err
