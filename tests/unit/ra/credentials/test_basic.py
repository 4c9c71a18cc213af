"""HTTP Basic: who is let in, who is not, and that neither time nor memory tells anything."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, NameBinding
from gateway.ra.credentials.basic import BasicCredential, UserNames
from gateway.ra.credentials.interfaces import ScryptParameters
from gateway.ra.credentials.own_names import own_names
from gateway.ra.credentials.passwords import derive, hash_password
from gateway.ra.credentials.remembered import MAX_REMEMBERED, REMEMBERED_FOR, Remembered
from tests.unit.ra.est import basic, est_request

NOW = datetime(2027, 1, 2, tzinfo=UTC)
ALICE, BOB = hash_password(b"correct horse"), hash_password("pä:ss".encode())
USERS = f"alice:{ALICE}\nbob:{BOB}\n".encode()
DEAR = f"$scrypt$ln=15,r=8,p=1$c2FsdHNhbHRzYWx0${'A' * 43}"


@dataclass
class Derivations:
    """Derives, and counts."""

    asked: list[ScryptParameters] = field(default_factory=list)

    async def __call__(self, secret: bytes, parameters: ScryptParameters, source: str) -> bytes:
        assert source == "192.0.2.1"
        self.asked.append(parameters)
        return derive(secret, parameters)


def provider(users: bytes = USERS, names: UserNames = "user", derivations: Derivations | None = None) -> BasicCredential:
    return BasicCredential(users, "pki-gateway", names, derivations or Derivations())


async def refusal(credential: BasicCredential, header: str) -> Rejection:
    with pytest.raises(Rejection) as raised:
        await credential.authenticate(est_request(authorization=header), NOW)
    return raised.value


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(basic("alice", "correct horse"), id="as-sent"),
        pytest.param("bAsIc   " + basic("alice", "correct horse")[6:] + "  ", id="scheme-in-any-case"),
    ],
)
async def test_a_user_with_his_password(header: str) -> None:
    requester = await provider().authenticate(est_request(authorization=header), NOW)
    assert requester is not None
    assert (requester.identity, requester.kind, requester.owner) == ("basic:alice", CredentialKind.BASIC, "alice")
    assert requester.binding == own_names("alice", "bound")
    assert requester.device


async def test_a_password_with_a_colon_and_beyond_ascii() -> None:
    assert await provider().authenticate(est_request(authorization=basic("bob", "pä:ss")), NOW)


async def test_alternative_names_may_be_left_to_policy() -> None:
    credential = BasicCredential(USERS, "pki-gateway", "user", Derivations(), "policy")
    requester = await credential.authenticate(est_request(authorization=basic("alice", "correct horse")), NOW)
    assert requester is not None
    assert requester.binding == NameBinding(common_name="alice", certified=True)


async def test_any_name_binds_none_and_names_no_device() -> None:
    requester = await provider(names="any").authenticate(est_request(authorization=basic("alice", "correct horse")), NOW)
    assert requester is not None
    assert (requester.binding, requester.device) == (NameBinding(), None)


async def test_a_user_without_a_name_binds_none() -> None:
    users = f":{ALICE}\n".encode()
    requester = await provider(users, "any").authenticate(est_request(authorization=basic("", "correct horse")), NOW)
    assert requester is not None
    assert requester.identity == "basic:"
    with pytest.raises(ValueError, match="names: any"):
        provider(users)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("Basic", id="scheme-alone"),
        pytest.param("Basic ", id="scheme-and-space"),
        pytest.param("Bearer abc", id="bearer"),
        pytest.param('Digest username="alice"', id="digest"),
        pytest.param("Basic\t" + basic("alice", "correct horse")[6:], id="tab"),
        pytest.param("Basic " + "A" * 9000, id="too-long"),
        pytest.param("Basicx " + basic("alice", "correct horse")[6:], id="another-scheme"),
    ],
)
async def test_nothing_to_look_at(header: str | None) -> None:
    derivations = Derivations()
    assert await provider(derivations=derivations).authenticate(est_request(authorization=header), NOW) is None
    assert derivations.asked == []


def encoded(data: bytes) -> str:
    return "Basic " + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(basic("alice", "wrong"), id="wrong-password"),
        pytest.param(basic("alice", ALICE), id="the-hash-itself"),
        pytest.param(basic("bob", "correct horse"), id="another-users-password"),
        pytest.param(basic("Alice", "correct horse"), id="another-case"),
        pytest.param(basic("mallory", "correct horse"), id="unknown-user"),
        pytest.param(basic("", "correct horse"), id="no-user"),
        pytest.param(basic("alice", ""), id="no-password"),
        pytest.param(encoded(b"alice"), id="no-colon"),
        pytest.param("Basic not!base64", id="no-base64"),
        pytest.param(encoded(b"\xff\xfe:correct horse"), id="no-utf-8"),
        pytest.param(encoded(b"alice:correct\x00horse"), id="control-character"),
        pytest.param(encoded(b"alice:" + b"x" * 1025), id="long-password"),
        pytest.param(encoded(b"a" * 129 + b":x"), id="long-name"),
        pytest.param(encoded(b"alice:" + b"x" * 2000), id="long"),
    ],
)
async def test_refused(header: str) -> None:
    refused = await refusal(provider(), header)
    assert (refused.reason, refused.detail) == (Reason.CREDENTIAL_INVALID, "name or password is not valid")
    assert "correct horse" not in refused.cause


async def test_an_unknown_user_costs_what_a_known_one_does() -> None:
    """The same each time and in every worker, and cheap and dear as often as the file has them."""
    costs: dict[str, set[int]] = {}
    for _ in range(2):
        derivations = Derivations()
        credential = provider(f"alice:{ALICE}\ncarol:{DEAR}\n".encode(), derivations=derivations)
        for number in range(12):
            await refusal(credential, basic(f"mallory-{number}", "x"))
            costs.setdefault(f"mallory-{number}", set()).add(derivations.asked[-1].n)
    assert all(len(found) == 1 for found in costs.values())
    assert {n for found in costs.values() for n in found} == {1 << 14, 1 << 15}


async def test_a_success_is_remembered_for_five_minutes() -> None:
    derivations = Derivations()
    credential = provider(derivations=derivations)
    request = est_request(authorization=basic("alice", "correct horse"))
    for seconds, derived in ((0, 1), (1, 1), (299, 1), (300, 2), (599, 2), (601, 3)):
        assert await credential.authenticate(request, NOW + timedelta(seconds=seconds))
        assert len(derivations.asked) == derived
    await credential.authenticate(request, NOW - timedelta(hours=1))
    assert len(derivations.asked) == 4, "a clock that was put back prolongs nothing"


async def test_what_is_remembered_is_one_password_of_one_user() -> None:
    derivations = Derivations()
    credential = provider(f"alice:{ALICE}\nbob:{ALICE}\n".encode(), derivations=derivations)
    await credential.authenticate(est_request(authorization=basic("alice", "correct horse")), NOW)
    for header in (basic("alice", "correct hors"), basic("alice", "correct horsee"), basic("mallory", "correct horse")):
        await refusal(credential, header)
    assert await credential.authenticate(est_request(authorization=basic("bob", "correct horse")), NOW)
    assert len(derivations.asked) == 5


async def test_a_failure_is_not_remembered() -> None:
    derivations = Derivations()
    credential = provider(derivations=derivations)
    for _ in range(2):
        await refusal(credential, basic("alice", "wrong"))
    assert len(derivations.asked) == 2


async def test_no_place_is_no_wrong_password() -> None:
    async def full(secret: bytes, parameters: ScryptParameters, source: str) -> bytes:
        raise Rejection(Reason.RATE_LIMITED, "later")

    credential = BasicCredential(USERS, "pki-gateway", "user", full)
    assert (await refusal(credential, basic("alice", "correct horse"))).reason is Reason.RATE_LIMITED


def test_the_invitation() -> None:
    assert provider().www_authenticate(NOW) == 'Basic realm="pki-gateway", charset="UTF-8"'


def test_memory_is_bounded_and_loses_the_oldest() -> None:
    remembered = Remembered()
    for number in range(MAX_REMEMBERED + 1):
        remembered.remember(NOW, str(number).encode())
    assert not remembered.knows(NOW, b"0")
    assert remembered.knows(NOW, b"1")
    assert remembered.knows(NOW, str(MAX_REMEMBERED).encode())
    assert not remembered.knows(NOW + REMEMBERED_FOR, b"1")


def test_parts_do_not_run_together() -> None:
    remembered = Remembered()
    remembered.remember(NOW, b"ab", b"c")
    assert not remembered.knows(NOW, b"a", b"bc")
    assert not Remembered().knows(NOW, b"ab", b"c"), "every process has its own key"
