"""HTTP Digest: responses that are taken, and all that was captured, replayed, bent or made for something else."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, ProfileName, Requester
from gateway.ra.credentials.digest import NONCE_LIFETIME, DigestCredential, digest_ha1, parse_digest_file
from gateway.ra.credentials.own_names import own_names
from tests.unit.ra.est import CORP, est_request

NOW = datetime(2027, 1, 2, tzinfo=UTC)
REALM = "pki-gateway"
HA1 = digest_ha1("alice", REALM, "correct horse")
USERS = f"alice:{HA1}\n".encode()


def macs(*keys: bytes) -> Callable[[bytes], tuple[bytes, ...]]:
    return lambda data: tuple(hmac.digest(key, data, "sha256") for key in keys)


def provider(profile: ProfileName = CORP, **changes: Any) -> DigestCredential:
    values: dict[str, Any] = {"users": USERS, "realm": REALM, "names": "user", "macs": macs(b"new")} | changes
    return DigestCredential(profile, **values)


def nonce_of(credential: DigestCredential, now: datetime = NOW) -> str:
    found = re.search(r'nonce="([^"]*)"', credential.www_authenticate(now))
    assert found
    return found[1]


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def header(nonce: str, ha1: str = HA1, method: str = "POST", **changes: str | None) -> str:
    """What a client sends; None leaves a parameter out, and what is changed is changed before the response is made."""
    fields: dict[str, str | None] = {
        "username": "alice",
        "realm": REALM,
        "nonce": nonce,
        "uri": "/.well-known/est/corp/simpleenroll",
        "qop": "auth",
        "nc": "00000001",
        "cnonce": "0a4f113b",
        "algorithm": "MD5",
        **{key: value for key, value in changes.items() if key != "response"},
    }
    made = md5(
        f"{ha1}:{nonce}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}:" + md5(f"{method}:{fields['uri']}"),
    )
    fields["response"] = changes.get("response", made)
    bare = {"nc", "algorithm", "qop"}
    return "Digest " + ", ".join(f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in fields.items() if v is not None)


async def ask(credential: DigestCredential, sent: str, now: datetime = NOW, **changes: Any) -> Requester | None:
    return await credential.authenticate(est_request(authorization=sent, **changes), now)


def test_the_response_is_that_of_rfc_2617() -> None:
    """RFC 2617 §3.5 has GET; its hash of the user's secret is what the file holds."""
    assert digest_ha1("Mufasa", "testrealm@host.com", "Circle Of Life") == "939e7578ed9e3c518a452acee763bce9"


async def test_a_user_with_his_response() -> None:
    credential = provider()
    requester = await ask(credential, header(nonce_of(credential)))
    assert requester is not None
    assert (requester.identity, requester.kind) == ("digest:alice", CredentialKind.DIGEST)
    assert requester.binding == own_names("alice", "bound")
    [taken] = requester.reservations
    assert taken.kind == "digest"
    assert taken.expires_at > NOW + NONCE_LIFETIME + timedelta(minutes=1), "it is remembered for longer than it could be replayed"


async def test_spellings_of_clients() -> None:
    credential = provider()
    nonce = nonce_of(credential)
    sent = header(nonce)
    for spelled in (
        sent,
        sent.replace("Digest", "DIGEST", 1),
        sent.replace("qop=auth", 'qop="auth"'),
        sent.replace("nc=00000001", 'nc="00000001"'),
        sent.replace("algorithm=MD5", 'algorithm="md5"'),
        sent.replace(", algorithm=MD5", ""),
        sent.replace(", ", ","),
        sent + ', opaque=""',
        header(nonce, uri="https://gate.example/.well-known/est/simpleenroll?x=1"),
    ):
        assert await ask(credential, spelled), spelled


async def test_nonce_and_count_make_the_reservation() -> None:
    """Each count of a nonce is one use, however it is written."""
    credential = provider()
    nonce = nonce_of(credential)

    async def taken(sent: str) -> str:
        requester = await ask(credential, sent)
        assert requester is not None
        return requester.reservations[0].key

    first = await taken(header(nonce))
    assert await taken(header(nonce, cnonce="other")) == first
    assert await taken(header(nonce, uri="/.well-known/est/simpleenroll")) == first
    assert await taken(header(nonce, nc="0000000a")) == await taken(header(nonce, nc="0000000A")) != first
    assert await taken(header(nonce_of(credential))) != first


async def test_every_worker_knows_the_nonce() -> None:
    """They share store.key; while it is rotated an older key's nonces are taken still."""
    nonce = nonce_of(provider())
    assert await ask(provider(), header(nonce))
    assert await ask(provider(macs=macs(b"newer", b"new")), header(nonce))
    with pytest.raises(Rejection):
        await ask(provider(macs=macs(b"newer")), header(nonce))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"response": "0" * 32}, id="wrong-response"),
        pytest.param({"response": ""}, id="empty-response"),
        pytest.param({"response": HA1}, id="the-files-hash"),
        pytest.param({"ha1": digest_ha1("alice", REALM, "wrong")}, id="wrong-password"),
        pytest.param({"username": "mallory"}, id="unknown-user"),
        pytest.param({"username": "mallory", "ha1": "0" * 32}, id="unknown-user-with-the-stand-in"),
        pytest.param({"realm": "another"}, id="another-realm"),
        pytest.param({"algorithm": "SHA-256"}, id="another-algorithm"),
        pytest.param({"algorithm": "MD5-sess"}, id="session"),
        pytest.param({"qop": "auth-int"}, id="integrity"),
        pytest.param({"qop": None}, id="rfc-2069"),
        pytest.param({"nc": "1"}, id="short-count"),
        pytest.param({"nc": "0x000001"}, id="no-count"),
        pytest.param({"cnonce": None}, id="no-cnonce"),
        pytest.param({"username": None}, id="no-user"),
        pytest.param({"uri": None}, id="no-uri"),
        pytest.param({"uri": "/.well-known/est/corp/serverkeygen"}, id="another-operation"),
        pytest.param({"uri": "/.well-known/est/corp/simpleenroll/x"}, id="below-the-operation"),
        pytest.param({"uri": "/.well-known/est/corp/x?/simpleenroll"}, id="operation-in-the-query"),
        pytest.param({"uri": "/admin/simpleenroll"}, id="another-service"),
        pytest.param({"method": "GET"}, id="another-method"),
    ],
)
async def test_refused(change: dict[str, Any]) -> None:
    credential = provider()
    with pytest.raises(Rejection) as refused:
        await ask(credential, header(nonce_of(credential), **change))
    assert (refused.value.reason, refused.value.detail) == (Reason.CREDENTIAL_INVALID, "name or password is not valid")
    assert HA1 not in refused.value.cause


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: "", id="none"),
        pytest.param(lambda: "00" * 32, id="made-up"),
        pytest.param(lambda: "dcd98b7102dd2f0e8b11d0f600bfb0c093", id="anothers"),
        pytest.param(lambda: "zz" * 32, id="no-hex"),
        pytest.param(lambda: "00" * 4000, id="long"),
        pytest.param(lambda: nonce_of(provider(ProfileName("other"))), id="other-profiles"),
        pytest.param(lambda: nonce_of(provider(macs=macs(b"else"))), id="other-stores"),
        pytest.param(lambda: nonce_of(provider(), NOW - NONCE_LIFETIME), id="old"),
        pytest.param(lambda: nonce_of(provider(), NOW + timedelta(minutes=2)), id="of-the-future"),
        pytest.param(lambda: "ff" + nonce_of(provider())[2:], id="with-another-time"),
    ],
)
async def test_nonces_that_are_not_taken(make: Callable[[], str]) -> None:
    with pytest.raises(Rejection) as refused:
        await ask(provider(), header(make()))
    assert refused.value.reason is Reason.CREDENTIAL_INVALID


async def test_a_nonce_of_a_clock_that_is_a_little_ahead() -> None:
    credential = provider()
    assert await ask(credential, header(nonce_of(credential, NOW + timedelta(seconds=59))))
    assert await ask(credential, header(nonce_of(credential, NOW - NONCE_LIFETIME + timedelta(seconds=1))))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("Digest x", id="word"),
        pytest.param("Digest =", id="sign"),
        pytest.param('Digest username="alice', id="open-quote"),
        pytest.param('Digest username="a", username="b"', id="twice"),
        pytest.param("Digest " + ", ".join(f"a{'b' * n}=c" for n in range(20)), id="many"),
        pytest.param("Digest a=" + "b" * 3000, id="long"),
        pytest.param('Digest username="' + '\\"' * 1000 + '"', id="escapes"),
    ],
)
async def test_headers_that_cannot_be_read(sent: str) -> None:
    with pytest.raises(Rejection) as refused:
        await ask(provider(), sent)
    assert refused.value.reason is Reason.CREDENTIAL_INVALID


@pytest.mark.parametrize("sent", [None, "Basic YTpi", "Bearer a.b.c", "Digest", 'Digest username="é"'])
async def test_nothing_to_look_at(sent: str | None) -> None:
    assert await ask(provider(), sent or "") is None


def test_the_file() -> None:
    assert parse_digest_file(f"# x\nalice:{HA1.upper()}\n".encode()) == {"alice": HA1}
    for data, said in ((b"", "names 0 users"), (b"alice:secret\n", "line 1 is not NAME:HEX"), (USERS * 2, "second time")):
        with pytest.raises(ValueError, match=said) as refused:
            parse_digest_file(data)
        assert "secret" not in str(refused.value)


def test_a_user_without_a_name() -> None:
    users = f":{HA1}\n".encode()
    provider(users=users, names="any")
    with pytest.raises(ValueError, match="names: any"):
        provider(users=users)


def test_the_invitation_is_fresh_each_time() -> None:
    credential = provider()
    first, second = credential.www_authenticate(NOW), credential.www_authenticate(NOW)
    assert first != second
    assert re.fullmatch(r'Digest realm="pki-gateway", qop="auth", nonce="[0-9a-f]{64}"', first)
