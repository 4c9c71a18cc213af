"""What operators do about ACME: what they may, what they are refused, and what the audit trail says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest

from gateway.acme import AccountStatus, ExternalAccountPolicy, OrderStatus
from gateway.config.acme import AcmeEndpoint
from gateway.errors import Reason, Rejection
from gateway.model import ChallengeType, ProfileName, Protocol
from gateway.ra.acme.administration import AcmeAdministration, NewExternalAccount, Preview, describe
from gateway.ra.profile import AcmeTerms, Profile, Snapshot
from gateway.store.acme import Affected
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, migrate
from tests.contract.store.acme_rows import CREATED, account, made_ready, ordered, registered
from tests.contract.store.rows import NOW, audit_rows, issued

KEYS = KeyRing((bytes(range(32)),))
ROOT = "uid:0 (root)"
DAY = timedelta(days=1)
OPEN = ExternalAccountPolicy()
MODES = ("standard", "none", "prevalidated")


def profile(name: str, **endpoint: Any) -> tuple[ProfileName, Profile]:
    config = AcmeEndpoint.model_validate_json(json.dumps(endpoint))
    terms = AcmeTerms(config, MappingProxyType(cast("Any", dict.fromkeys(MODES))), "https://pki.test/acme/demo")
    return ProfileName(name), Profile(
        name=ProfileName(name),
        endpoints=frozenset({Protocol.ACME}),
        upstream_ca=cast("Any", None),
        credentials=(),
        policy=cast("Any", None),
        renewal=None,
        per_requester=None,
        per_profile=None,
        manual_approval=False,
        retransmission_window=timedelta(hours=1),
        acme=terms if endpoint else None,
    )


SNAPSHOT = Snapshot(
    7,
    dict(
        (
            profile("demo", external_account="required", validation={"challenges": ["http-01", "dns-01"]}),
            profile("open", external_account="off"),
            profile("closed"),
        )
    ),
    {},
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    migrate(tmp_path / "gateway.db", KEYS, b"a" * 32)
    store = SqliteStore(tmp_path / "gateway.db", KEYS, b"a" * 32, "w1", lambda _: None)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
def operator(store: SqliteStore) -> AcmeAdministration:
    return AcmeAdministration(store, lambda: SNAPSHOT, lambda: NOW)


def last_event(store: SqliteStore) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(audit_rows(store)[-1].body)
    return found


class TestExternalAccounts:
    async def test_are_drawn(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        policy = ExternalAccountPolicy(dns=(r".*\.lab\.example",), mode="none", challenges=frozenset({ChallengeType.DNS_01}))
        made = await operator.create_external_account(NewExternalAccount("demo", policy, "team", 30 * DAY), ROOT)
        assert (len(made.key), made.owner, made.created_by, made.expires_at) == (32, "team", ROOT, NOW + 30 * DAY)
        other = await operator.create_external_account(NewExternalAccount("demo", OPEN), ROOT)
        assert (other.kid != made.kid, other.key != made.key, other.expires_at) == (True, True, None)
        assert await store.find_external_account(made.kid) == made
        assert set(await operator.list_external_accounts("demo", 10)) == {made, other}
        event = last_event(store)
        assert (event["event"], event["actor"], event["profile"]) == ("acme.external_account.created", ROOT, "demo")
        assert event["detail"] == f"external account {other.kid}"

    async def test_of_another_server_keep_their_key(self, operator: AcmeAdministration) -> None:
        wanted = NewExternalAccount("demo", OPEN, kid="keyid_00", key=b"k" * 32)
        made = await operator.create_external_account(wanted, ROOT)
        assert (made.kid, made.key) == ("keyid_00", b"k" * 32)
        with pytest.raises(Rejection, match="with this ID already"):
            await operator.create_external_account(wanted, ROOT)

    @pytest.mark.parametrize(
        ("fields", "reason", "said"),
        [
            pytest.param({"profile": "nope"}, Reason.UNKNOWN_PROFILE, "no such profile", id="no profile"),
            pytest.param({"profile": "closed"}, Reason.DENIED, "does not open acme", id="no endpoint"),
            pytest.param({"profile": "open"}, Reason.DENIED, "binds no external accounts", id="binds none"),
            pytest.param({"kid": "a b", "key": b"k" * 32}, Reason.DENIED, "ID of a key", id="kid with a space"),
            pytest.param({"kid": "a", "key": b"k" * 15}, Reason.DENIED, "16 to 512 octets", id="short key"),
            pytest.param({"kid": "a", "key": b"k" * 513}, Reason.DENIED, "16 to 512 octets", id="long key"),
        ],
    )
    async def test_are_refused(
        self, operator: AcmeAdministration, store: SqliteStore, fields: dict[str, Any], reason: Reason, said: str
    ) -> None:
        wanted = replace(NewExternalAccount("demo", OPEN), **fields)
        with pytest.raises(Rejection, match=said) as refused:
            await operator.create_external_account(wanted, ROOT)
        assert refused.value.reason is reason
        assert audit_rows(store) == []

    @pytest.mark.parametrize(
        ("policy", "said"),
        [
            pytest.param({"dns": ("*.example.com",)}, r"for all names below it: .*example", id="shell pattern"),
            pytest.param({"dns": ("(",)}, "no regular expression", id="no expression"),
            pytest.param({"ip": ("10.0.0.1/8",)}, "no network", id="no network"),
            pytest.param({"ip": ("10.0.0.0/8",) * 1001}, "at most 1000", id="too many"),
            pytest.param({"challenges": frozenset({ChallengeType.TLS_ALPN_01})}, "offers http-01, dns-01 only", id="not offered"),
            pytest.param({"mode": "webhook", "dns": (".*",)}, "this profile can do none, prevalidated", id="mode not built"),
            pytest.param({"mode": "none"}, "needs the names", id="none for all names"),
            pytest.param({"max_validity": timedelta(seconds=1)}, "less than a minute", id="no validity"),
        ],
    )
    async def test_that_nobody_could_use_or_everybody_are_refused(
        self, operator: AcmeAdministration, policy: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(Rejection, match=said):
            await operator.create_external_account(NewExternalAccount("demo", ExternalAccountPolicy(**policy)), ROOT)

    async def test_are_revoked_once(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        made = await operator.create_external_account(NewExternalAccount("demo", OPEN), ROOT)
        revoked = await operator.revoke_external_account(made.kid, ROOT)
        assert revoked.revoked_at == NOW
        assert last_event(store)["event"] == "acme.external_account.revoked"
        for kid in (made.kid, "?"):
            with pytest.raises(Rejection, match="not revoked") as refused:
                await operator.revoke_external_account(kid, ROOT)
            assert refused.value.reason is Reason.UNKNOWN_TRANSACTION


class TestAccounts:
    async def test_are_ended_for_good(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        row = await registered(store)
        pending, _ = await ordered(store, row)
        ended = await operator.revoke_account(row.id, ROOT)
        assert ended == replace(row, status=AccountStatus.REVOKED)
        assert (last_event(store)["event"], last_event(store)["actor"]) == ("acme.account.revoked", ROOT)
        again = account(thumbprint=row.thumbprint)
        assert await store.add_account(again, (), CREATED) == ended
        assert [order.id for order in await operator.list_orders(None, OrderStatus.INVALID, 10)] == [pending.id]
        assert await operator.list_accounts("demo", 10, 0) == (ended,)
        with pytest.raises(Rejection, match="over already"):
            await operator.revoke_account(row.id, ROOT)

    async def test_that_are_not_there(self, operator: AcmeAdministration) -> None:
        with pytest.raises(Rejection, match="no account") as refused:
            await operator.revoke_account("?", ROOT)
        assert refused.value.reason is Reason.UNKNOWN_TRANSACTION

    async def test_orders_are_listed(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        row = await registered(store)
        ready = await made_ready(store, row)
        assert await operator.list_orders("demo", None, 10) == (ready,)
        assert await operator.list_orders("other", None, 10) == ()


class TestIncidents:
    async def test_are_seen_before_they_are_declared(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        _, certificate = await issued(store, subject="CN=a")
        before = audit_rows(store)
        assert await operator.preview_incident(Affected(profile="demo")) == Preview(1, ("CN=a",))
        assert await store.find_incident(certificate.sha256) is None
        assert audit_rows(store) == before
        declared = await operator.declare_incident(Affected(profile="demo"), "https://pki.test/why", ROOT)
        assert (declared.certificates, declared.explanation_url, declared.created_by) == (1, "https://pki.test/why", ROOT)
        assert await store.find_incident(certificate.sha256) == declared
        event = last_event(store)
        assert (event["event"], event["profile"]) == ("acme.incident.declared", "demo")
        assert event["detail"] == f"incident {declared.id}: profile demo; certificates: 1"
        assert await operator.list_incidents(10) == (declared,)
        await operator.withdraw_incident(declared.id, ROOT)
        assert last_event(store)["event"] == "acme.incident.withdrawn"
        assert await operator.list_incidents(10) == ()
        with pytest.raises(Rejection, match="no incident"):
            await operator.withdraw_incident(declared.id, ROOT)

    async def test_of_everything_are_never_meant(self, operator: AcmeAdministration) -> None:
        for call in (operator.preview_incident(Affected()), operator.declare_incident(Affected(), None, ROOT)):
            with pytest.raises(Rejection, match="name a profile"):
                await call

    async def test_of_nothing_are_refused(self, operator: AcmeAdministration, store: SqliteStore) -> None:
        with pytest.raises(Rejection, match="no certificate"):
            await operator.declare_incident(Affected(profile="demo"), None, ROOT)
        assert await operator.list_incidents(10) == ()
        assert audit_rows(store) == []

    @pytest.mark.parametrize(
        "url", ["", "why", "ftp://pki.test/", "https://", "https://pki.test/a b", "https://pki.test/\n", "https://[", "x" * 3000]
    )
    async def test_are_explained_by_a_url(self, operator: AcmeAdministration, store: SqliteStore, url: str) -> None:
        await issued(store)
        with pytest.raises(Rejection, match="https URL"):
            await operator.declare_incident(Affected(profile="demo"), url, ROOT)

    def test_are_described_by_what_they_concern(self) -> None:
        affected = Affected("demo", "local", frozenset({1, 2}), b"\x01" * 32)
        assert describe(affected) == f"profile demo, upstream CA local, 2 serial numbers, public key {'01' * 32}"
