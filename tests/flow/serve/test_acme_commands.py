"""What operators do about ACME, by commands to a running server, as its clients see it."""

from __future__ import annotations

import json
import secrets
import ssl
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.wire.acme.ari import format_certificate_id
from tests.conftest import RunningServer, StartServer
from tests.flow.serve.processes import audited
from tests.flow.serve.test_acme import with_port

ENROLL = ("test-enroll", "--protocol", "acme", "--profile", "demo")


def rows(server: RunningServer, *command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.cli(*command, "--format", "json").stdout)
    return found


def enrolled(server: RunningServer, folder: Path, *options: str) -> Certificate:
    server.cli(*ENROLL, "--out", str(folder), *options)
    return parse_certificate(pem_to_ders((folder / "device.pem").read_bytes())[0])


def renewal_information(server: RunningServer, leaf: Certificate) -> dict[str, Any]:
    assert leaf.authority_key_id is not None
    name = format_certificate_id(leaf.authority_key_id, leaf.serial)
    url = f"https://localhost:{server.https_port}/acme/demo/renewal-info/{name}"
    with urllib.request.urlopen(url, timeout=10, context=ssl.create_default_context(cafile=server.root)) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def end_of_window(server: RunningServer, leaf: Certificate) -> datetime:
    return datetime.fromisoformat(renewal_information(server, leaf)["suggestedWindow"]["end"])


def test_a_key_says_who_an_account_is_and_what_it_gets(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(workers=2, edit=with_port)
    made = json.loads(
        server.cli(
            "eab", "create", "demo", "--dns", r"[a-z]+\.demo\.test", "--one-shot", "--owner", "team", "--format", "json"
        ).stdout
    )
    (tmp_path / "hmac").write_text(made["hmac_key"])
    key = ("--eab-kid", made["kid"], "--eab-key-file", str(tmp_path / "hmac"))
    refused = server.cli(*ENROLL, *key, "--dns", "a.b.demo.test", check=False)
    assert refused.returncode == 1
    assert "external account may not have this name" in refused.stderr
    [account] = rows(server, "acme", "accounts")
    assert (account["external_account"], account["status"]) == (made["kid"], "valid")
    again = server.cli(*ENROLL, *key, "--dns", "a.demo.test", check=False)
    assert again.returncode == 1
    assert "has all the accounts that it may have" in again.stderr
    assert made["hmac_key"] not in server.log.read_text()
    assert server.cli("eab", "revoke", made["kid"]).stdout.startswith(f"Key {made['kid']} is revoked")
    [row] = rows(server, "eab", "list")
    assert (row["accounts"], row["certificates"], row["revoked_at"] is None) == (1, 0, False)
    server.cli("acme", "accounts", "deactivate", account["id"])
    assert [one["status"] for one in rows(server, "acme", "accounts")] == ["revoked"]
    for event in ("acme.external_account.created", "acme.external_account.revoked", "acme.account.revoked"):
        [row] = audited(server, event)
        assert row["actor"].startswith("uid:")
        assert made["hmac_key"] not in json.dumps(row)


def test_one_key_for_one_certificate(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(edit=with_port)
    made = json.loads(server.cli("eab", "create", "demo", "--one-shot", "--max-accounts", "2", "--format", "json").stdout)
    (tmp_path / "hmac").write_text(made["hmac_key"])
    key = ("--eab-kid", made["kid"], "--eab-key-file", str(tmp_path / "hmac"))
    enrolled(server, tmp_path / "first", *key, "--dns", "a.demo.test")
    refused = server.cli(*ENROLL, *key, "--dns", "b.demo.test", check=False)
    assert refused.returncode == 1
    [row] = rows(server, "eab", "list")
    assert (row["accounts"], row["certificates"]) == (2, 1)
    assert [order["status"] for order in rows(server, "acme", "orders", "--status", "valid")] == ["valid"]


def test_an_incident_moves_windows_and_its_end_moves_them_back(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(workers=2, edit=with_port)
    concerned = enrolled(server, tmp_path / "a", "--dns", "a.demo.test")
    other = enrolled(server, tmp_path / "b", "--dns", "b.demo.test")
    before = end_of_window(server, concerned)
    assert before > datetime.now(UTC)
    serials = [format(concerned.serial, "X"), *(secrets.token_hex(20) for _ in range(40_000))]
    (tmp_path / "serials").write_text("\n".join(serials))
    declare = ("incident", "declare", "--serials", str(tmp_path / "serials"), "--explanation-url", "https://pki.example/why")
    assert "1 certificate to be renewed:\n  dns:a.demo.test\n" in server.cli(*declare).stdout
    assert end_of_window(server, concerned) == before
    made = json.loads(server.cli(*declare, "--yes", "--format", "json").stdout)
    assert made["certificates"] == 1
    assert end_of_window(server, concerned) < datetime.now(UTC)
    assert renewal_information(server, concerned)["explanationURL"] == "https://pki.example/why"
    assert "explanationURL" not in renewal_information(server, other)
    assert end_of_window(server, other) > datetime.now(UTC)
    server.cli("incident", "withdraw", made["id"])
    assert end_of_window(server, concerned) == before
    assert "explanationURL" not in renewal_information(server, concerned)
