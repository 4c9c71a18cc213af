"""Every resource as its clients see it: status, members, Location, links and Retry-After (RFC 8555 §7, RFC 9773)."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.acme import (
    AccountStatus,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    IdentifiersRejected,
    OrderPage,
    OrderStatus,
    Problem,
    RenewalInfo,
)
from gateway.errors import Reason, Rejection
from gateway.model import ChallengeType, Identifier, IdentifierType, RevocationReason
from gateway.pki.certificate import pem_to_ders
from gateway.ra.acme.terms import Busy, KeyInUse
from tests.flow.acme.client import Client
from tests.flow.acme.front import AUTHORIZATION, BASE, CHALLENGE, DEFAULTS, NAME, NOW, ORDER, Front
from tests.flow.acme.signing import Key, b64, bind, sign
from tests.flow.est.front import FLEET

DNS = {"type": "dns", "value": "www.example.com"}
TERMS = "https://www.example.com/terms"
RETRIES = [OrderStatus.PENDING, OrderStatus.PROCESSING]

# Accounts


async def test_new_account_is_201_with_location(front: Front) -> None:
    client = front.client()
    answer = await client.register(contact=["mailto:admin@example.com"])
    assert answer.status == 201
    assert answer.location == f"{BASE}/acct/a1"
    assert answer.json == {"status": "valid", "contact": ["mailto:admin@example.com"], "orders": f"{BASE}/acct/a1/orders"}


async def test_known_key_is_200_and_nothing_changes(front: Front, client: Client) -> None:
    answer = await client.register(contact=["mailto:other@example.com"])
    assert (answer.status, answer.location) == (200, f"{BASE}/acct/a1")
    assert "contact" not in answer.json


async def test_unknown_members_and_orders_are_passed_over(front: Front) -> None:
    answer = await front.client().register(orders="https://evil.example/", status="revoked", surprise={"a": [1]})
    assert answer.status == 201
    assert answer.json["orders"] == f"{BASE}/acct/a1/orders"


async def test_onlyreturnexisting_ignores_contact(front: Front) -> None:
    """certbot sends all that it would send for a new account."""
    client = front.client()
    front.authority.answers["new_account"] = Rejection(Reason.UNKNOWN_ACCOUNT, "there is no account of this key")
    answer = await client.register(onlyReturnExisting=True, contact=["mailto:a@example.com"], externalAccountBinding={"a": "b"})
    assert (answer.status, answer.problem) == (400, "accountDoesNotExist")
    [(asked, _)] = front.asked("new_account")
    assert asked.only_existing
    assert (asked.contact, asked.binding) == ((), None)


@pytest.mark.parametrize(
    ("contact", "problem"),
    [
        (["tel:+12025551212"], "unsupportedContact"),
        (["mailto:a@example.com,b@example.com"], "invalidContact"),
        (["mailto:a@example.com?subject=x"], "invalidContact"),
        (["mailto:nobody"], "invalidContact"),
        ("mailto:a@example.com", "malformed"),
        ([5], "malformed"),
        (["mailto:a@example.com"] * 11, "invalidContact"),
    ],
)
async def test_contacts_are_mail_addresses(front: Front, contact: object, problem: str) -> None:
    answer = await front.client().register(contact=contact)
    assert (answer.status, answer.problem) == (400, problem)


async def test_terms_that_are_not_agreed_are_linked(front: Front) -> None:
    front.serve(terms_of_service=TERMS)
    front.authority.answers["new_account"] = Rejection(Reason.TERMS_NOT_AGREED, "the terms of service have to be agreed to")
    answer = await front.client().post("new-account", {}, jwk=True)
    assert (answer.status, answer.problem) == (403, "userActionRequired")
    assert answer.links["terms-of-service"] == [TERMS]
    assert answer.json["instance"] == TERMS


async def test_account_is_read_by_post_as_get(client: Client) -> None:
    answer = await client.post("acct/a1")
    assert (answer.status, answer.json["status"]) == (200, "valid")


@pytest.mark.parametrize("contact", [[], ["mailto:new@example.com"]], ids=["cleared", "changed"])
async def test_contact_is_changed(front: Front, client: Client, contact: list[str]) -> None:
    front.authority.answers["change_account"] = replace(front.authority.accounts["a1"], contact=tuple(contact))
    answer = await client.post("acct/a1", {"contact": contact})
    assert answer.status == 200
    assert answer.json.get("contact", []) == contact
    [(_, change, _)] = front.asked("change_account")
    assert change.contact == tuple(contact)


async def test_update_without_contact_keeps_it(front: Front, client: Client) -> None:
    assert (await client.post("acct/a1", {})).status == 200
    assert not front.asked("change_account")


async def test_account_is_deactivated(front: Front, client: Client) -> None:
    ended = replace(front.authority.accounts["a1"], status=AccountStatus.DEACTIVATED)
    front.authority.answers["change_account"] = ended
    answer = await client.post("acct/a1", {"status": "deactivated"})
    assert (answer.status, answer.json["status"]) == (200, "deactivated")
    [(_, change, _)] = front.asked("change_account")
    assert change.deactivate


@pytest.mark.parametrize("path", ["acct/a2", "acct/a2/orders"])
async def test_other_accounts_are_403_whether_there_is_one(front: Front, client: Client, path: str) -> None:
    first = await client.post(path)
    await front.registered()
    second = await client.post(path)
    assert (first.status, first.problem) == (second.status, second.problem) == (403, "unauthorized")
    assert first.json == second.json


async def test_external_account_binding_reaches_the_registration_authority(front: Front) -> None:
    client = front.client()
    binding = bind(client.key, "kid-1", b"secret", f"{BASE}/new-account")
    assert (await client.register(externalAccountBinding=binding)).status == 201
    front.authority.answers["new_account"] = front.authority.accounts["a1"], True
    await client.register(externalAccountBinding=binding)
    [(asked, _)] = front.asked("new_account")
    assert (asked.binding.kid, asked.binding.algorithm) == ("kid-1", "HS256")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": f"{BASE}/new-order"}, "malformed"),
        ({"nonce": "AAAA"}, "malformed"),
        ({"alg": "ES256"}, "badSignatureAlgorithm"),
        ({"alg": "none"}, "badSignatureAlgorithm"),
        ({"kid": 5}, "malformed"),
    ],
    ids=["other-url", "with-nonce", "not-a-mac", "none", "kid-no-text"],
)
async def test_wrong_binding_is_refused(front: Front, changes: dict[str, Any], problem: str) -> None:
    client = front.client()
    binding = bind(client.key, **{"kid": "kid-1", "secret": b"secret", "url": f"{BASE}/new-account", **changes})
    assert (await client.register(externalAccountBinding=binding)).problem == problem
    assert not front.authority.accounts


async def test_binding_of_another_key_is_refused(front: Front) -> None:
    binding = bind(Key(), "kid-1", b"secret", f"{BASE}/new-account")
    assert (await front.client().register(externalAccountBinding=binding)).problem == "malformed"


async def test_orders_are_listed_in_pages(front: Front, client: Client) -> None:
    front.authority.answers["list_orders"] = OrderPage(("o3", "o2"), "o2")
    answer = await client.post("acct/a1/orders")
    assert answer.json == {"orders": [f"{BASE}/order/o3", f"{BASE}/order/o2"]}
    [more] = answer.links["next"]
    front.authority.answers["list_orders"] = OrderPage(("o1",), None)
    last = await client.post(more)
    assert last.json == {"orders": [f"{BASE}/order/o1"]}
    assert "next" not in last.links
    assert [args[1] for args in front.asked("list_orders")] == [None, "o2"]


# Key change


def key_change(client: Client, new: Key, **changes: Any) -> dict[str, str]:
    payload = {"account": client.kid, "oldKey": client.key.jwk}
    header = {"url": f"{BASE}/key-change", "jwk": new.jwk}
    for name in list(changes):
        (payload if name in payload else header)[name] = changes.pop(name)
    return sign(new, header, payload)


async def test_key_is_changed(front: Front, client: Client) -> None:
    new = Key()
    front.authority.answers["change_key"] = front.authority.accounts["a1"]
    answer = await client.post("key-change", key_change(client, new))
    assert (answer.status, answer.location) == (200, f"{BASE}/acct/a1")
    [(_, change, _)] = front.asked("change_key")
    assert (change.thumbprint, change.old_thumbprint) == (new.thumbprint, client.key.thumbprint)


async def test_key_in_use_is_409_with_location(front: Front, client: Client) -> None:
    front.authority.answers["change_key"] = KeyInUse("a7")
    answer = await client.post("key-change", key_change(client, Key()))
    assert (answer.status, answer.problem) == (409, "malformed")
    assert answer.location == f"{BASE}/acct/a7"


@pytest.mark.parametrize(
    "changes",
    [
        {"url": f"{BASE}/new-order"},
        {"nonce": "AAAA"},
        {"kid": f"{BASE}/acct/a1"},
        {"account": f"{BASE}/acct/a2"},
        {"account": "a1"},
        {"account": None},
        {"oldKey": "x"},
        {"jwk": None},
    ],
    ids=["url", "nonce", "kid", "other-account", "no-url", "no-account", "old-key", "no-jwk"],
)
async def test_wrong_key_change_is_malformed(front: Front, client: Client, changes: dict[str, Any]) -> None:
    answer = await client.post("key-change", key_change(client, Key(), **changes))
    assert (answer.status, answer.problem) == (400, "malformed")
    assert not front.asked("change_key")


async def test_key_change_is_signed_by_both_keys(front: Front, client: Client) -> None:
    new = Key()
    inner = {**key_change(client, new), "signature": key_change(client, Key())["signature"]}
    assert (await client.post("key-change", inner)).problem == "malformed"
    assert (await client.post("key-change", key_change(client, new), key=new)).problem == "malformed"
    assert not front.asked("change_key")


# Orders


async def test_new_order_is_201_with_location(client: Client) -> None:
    answer = await client.order("www.example.com")
    assert (answer.status, answer.location) == (201, f"{BASE}/order/o1")
    assert answer.json == {
        "status": "pending",
        "expires": "2100-01-01T00:00:00Z",
        "identifiers": [DNS],
        "authorizations": [f"{BASE}/authz/z1"],
        "finalize": f"{BASE}/order/o1/finalize",
    }


@pytest.mark.parametrize("status", list(OrderStatus))
async def test_every_view_of_an_order_has_finalize_and_location(front: Front, client: Client, status: OrderStatus) -> None:
    for verb in ("new_order", "find_order", "finalize"):
        front.authority.answers[verb] = replace(ORDER, status=status)
    csr = {"csr": "AAAA"}
    for answer in (await client.order("x.example"), await client.post("order/o1"), await client.post("order/o1/finalize", csr)):
        assert answer.json["status"] == status
        assert answer.json["finalize"] == f"{BASE}/order/o1/finalize"
        assert answer.location == f"{BASE}/order/o1"
        assert ("certificate" in answer.json) == (status is OrderStatus.VALID)


async def test_order_echoes_what_was_asked(front: Front, client: Client) -> None:
    echoed = replace(
        ORDER,
        asked_profile="tls",
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    )
    front.authority.answers["new_order"] = echoed
    asked = {
        "profile": "tls",
        "notBefore": "2026-06-01T12:00:00Z",
        "notAfter": "2026-06-02T12:00:00Z",
        "replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    }
    answer = await client.order("www.example.com", **asked)
    assert {name: answer.json[name] for name in asked} == asked
    [(_, request, _)] = front.asked("new_order")
    assert (request.profile, request.not_before, request.not_after) == ("tls", NOW, NOW + timedelta(days=1))
    assert request.replaces.text == asked["replaces"]


async def test_names_are_compared_as_names(front: Front, client: Client) -> None:
    await client.order("WWW.Example.COM", "www.example.com", {"type": "ip", "value": "2001:DB8::1"})
    [(_, request, _)] = front.asked("new_order")
    assert request.identifiers == (NAME, Identifier(IdentifierType.IP, "2001:db8::1"))


@pytest.mark.parametrize(
    ("identifiers", "problem"),
    [
        ([], "malformed"),
        (None, "malformed"),
        ("www.example.com", "malformed"),
        ([{"type": "dns"}], "malformed"),
        ([{"type": "dns", "value": 5}], "malformed"),
        ([{"type": "email", "value": "a@example.com"}], "unsupportedIdentifier"),
    ],
    ids=["none", "absent", "no-list", "no-value", "no-text", "type"],
)
async def test_broken_identifiers_are_refused(front: Front, client: Client, identifiers: object, problem: str) -> None:
    answer = await client.post("new-order", {} if identifiers is None else {"identifiers": identifiers})
    assert answer.problem == problem
    assert not front.asked("new_order")


async def test_several_refused_names_are_one_problem_with_a_subproblem_each(front: Front, client: Client) -> None:
    """certbot --allow-subset-of-names orders again without those that subproblems name."""
    names = [Identifier(IdentifierType.DNS, name) for name in ("a.example", "b.example")]
    front.authority.answers["new_order"] = IdentifiersRejected(
        Reason.POLICY_SAN, "two names are refused", tuple((name, Reason.POLICY_SAN, "not in the list") for name in names)
    )
    answer = await client.order("a.example", "b.example")
    assert (answer.status, answer.problem) == (403, "rejectedIdentifier")
    assert [each["identifier"]["value"] for each in answer.json["subproblems"]] == ["a.example", "b.example"]
    assert "identifier" not in answer.json


@pytest.mark.parametrize("status", RETRIES)
async def test_what_is_not_over_says_when_to_ask_again(front: Front, client: Client, status: OrderStatus) -> None:
    front.authority.waits = 3
    front.authority.answers["find_order"] = replace(ORDER, status=status)
    assert (await client.post("order/o1")).header("Retry-After") == "3"


async def test_finalize_has_location_status_and_retry_after(front: Front, client: Client) -> None:
    """golang's client polls the Location of this answer, and acme.sh reads Retry-After as a number."""
    front.authority.answers["finalize"] = replace(ORDER, status=OrderStatus.PROCESSING)
    front.authority.waits = 5
    answer = await client.post("order/o1/finalize", {"csr": b64(b"\x30\x00")})
    assert (answer.status, answer.location, answer.header("Retry-After")) == (200, f"{BASE}/order/o1", "5")
    assert answer.json["status"] == "processing"
    [(_, order, csr, _)] = front.asked("finalize")
    assert (order, csr) == ("o1", b"\x30\x00")


@pytest.mark.parametrize(
    "csr", ["MA==", "M", "+/+/", 5, "", None], ids=["padded", "length", "alphabet", "number", "empty", "absent"]
)
async def test_csr_is_strict_base64url(front: Front, client: Client, csr: object) -> None:
    answer = await client.post("order/o1/finalize", {"csr": csr})
    assert (answer.status, answer.problem) == (400, "malformed")
    assert not front.asked("finalize")


async def test_padded_csr_of_old_synology_is_taken_where_the_profile_says_so(front: Front, client: Client) -> None:
    front.serve(padded_csr=True)
    assert (await client.post("order/o1/finalize", {"csr": base64.b64encode(b"\x30").decode()})).status == 200
    [(_, _, csr, _)] = front.asked("finalize")
    assert csr == b"\x30"


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (Rejection(Reason.ORDER_NOT_READY, "x"), 403, "orderNotReady"),
        (Rejection(Reason.BAD_CSR, "x"), 400, "badCSR"),
        (Rejection(Reason.UNKNOWN_TRANSACTION, "x"), 404, "malformed"),
        (Busy(Reason.UPSTREAM_UNAVAILABLE, 30), 503, "serverInternal"),
    ],
    ids=["not-ready", "csr", "unknown", "outage"],
)
async def test_finalize_is_refused(front: Front, client: Client, error: Exception, status: int, problem: str) -> None:
    front.authority.answers["finalize"] = error
    answer = await client.post("order/o1/finalize", {"csr": "MAAA"})
    assert (answer.status, answer.problem) == (status, problem)


async def test_failed_order_tells_its_error(front: Front, client: Client) -> None:
    error = Problem(Reason.VALIDATION_DNS, "no TXT record", ((NAME, Reason.VALIDATION_DNS, "no TXT record"),))
    front.authority.answers["find_order"] = replace(ORDER, status=OrderStatus.INVALID, error=error)
    document = (await client.post("order/o1")).json["error"]
    assert document["type"] == "urn:ietf:params:acme:error:dns"
    assert document["subproblems"][0]["identifier"] == DNS


# Authorizations and challenges


async def test_new_authorization_is_201_with_location(front: Front, client: Client) -> None:
    answer = await client.post("new-authz", {"identifier": DNS})
    assert (answer.status, answer.location) == (201, f"{BASE}/authz/z1")
    [(_, request, _)] = front.asked("new_authorization")
    assert request.identifier == NAME


async def test_wildcards_have_no_authorizations_of_their_own(client: Client) -> None:
    answer = await client.post("new-authz", {"identifier": {"type": "dns", "value": "*.example.com"}})
    assert (answer.status, answer.problem) == (400, "malformed")


async def test_authorization(front: Front, client: Client) -> None:
    front.authority.waits = 5
    answer = await client.post("authz/z1")
    assert answer.header("Retry-After") == "5"
    assert answer.json == {
        "identifier": DNS,
        "status": "pending",
        "expires": "2100-01-01T00:00:00Z",
        "challenges": [{"type": "http-01", "url": f"{BASE}/chall/z1/c1", "status": "pending", "token": "token-1"}],
    }


async def test_wildcard_is_there_if_it_is_true(front: Front, client: Client) -> None:
    front.authority.answers["find_authorization"] = replace(AUTHORIZATION, wildcard=True)
    document = (await client.post("authz/z1")).json
    assert document["wildcard"] is True
    assert document["identifier"] == DNS


async def test_authorization_that_has_ended_is_expired(front: Front, client: Client) -> None:
    front.authority.answers["find_authorization"] = replace(AUTHORIZATION, expires_at=datetime(2000, 1, 1, tzinfo=UTC))
    assert (await client.post("authz/z1")).json["status"] == "expired"


@pytest.mark.parametrize("status", [ChallengeStatus.VALID, ChallengeStatus.INVALID])
async def test_what_is_over_lists_what_was_tried(front: Front, client: Client, status: ChallengeStatus) -> None:
    tried = replace(CHALLENGE, status=status, validated_at=NOW)
    others = Challenge("c2", ChallengeType.DNS_01, "token-2")
    ended = replace(AUTHORIZATION, status=AuthorizationStatus(status.value), challenges=(others, tried))
    front.authority.answers["find_authorization"] = ended
    [only] = (await client.post("authz/z1")).json["challenges"]
    assert only["type"] == "http-01"
    assert ("validated" in only) == (status is ChallengeStatus.VALID)


async def test_authorization_is_deactivated(front: Front, client: Client) -> None:
    answer = await client.post("authz/z1", {"status": "deactivated"})
    assert (answer.status, answer.json["status"]) == (200, "deactivated")
    assert front.asked("deactivate_authorization")


@pytest.mark.parametrize("payload", [{}, {"status": "valid"}, {"status": 5}])
async def test_authorizations_can_only_be_deactivated(front: Front, client: Client, payload: object) -> None:
    assert (await client.post("authz/z1", payload)).problem == "malformed"
    assert not front.asked("deactivate_authorization")


async def test_challenge_has_link_up_and_the_same_url(front: Front, client: Client) -> None:
    """certbot takes no challenge without the link, and none whose url is another than in the authorization."""
    [listed] = (await client.post("authz/z1")).json["challenges"]
    front.authority.answers["answer_challenge"] = replace(
        AUTHORIZATION, challenges=(replace(CHALLENGE, status=ChallengeStatus.PROCESSING),)
    )
    answer = await client.post(listed["url"], {})
    assert answer.status == 200
    assert answer.links["up"] == [f"{BASE}/authz/z1"]
    assert answer.json == {**listed, "status": "processing"}


async def test_challenge_is_read_by_post_as_get(front: Front, client: Client) -> None:
    answer = await client.post("chall/z1/c1")
    assert (answer.status, answer.json["status"]) == (200, "pending")
    assert answer.links["up"] == [f"{BASE}/authz/z1"]
    assert not front.asked("answer_challenge")


async def test_challenge_that_there_is_not_is_404(client: Client) -> None:
    assert (await client.post("chall/z1/c9")).status == 404
    assert (await client.post("chall/z1/c9", {})).status == 404


async def test_payload_of_a_challenge_is_handed_on(front: Front, client: Client) -> None:
    await client.post("chall/z1/c1", {"attObj": "oWNmbXQ", "keyAuthorization": "old clients send it"})
    [(_, id, challenge, payload, source)] = front.asked("answer_challenge")
    assert (id, challenge, source) == ("z1", "c1", "127.0.0.1")
    assert payload["attObj"] == "oWNmbXQ"


async def test_challenge_tells_what_failed_while_it_is_tried_again(front: Front, client: Client) -> None:
    front.authority.waits = 5
    failed = replace(CHALLENGE, status=ChallengeStatus.PROCESSING, error=Problem(Reason.VALIDATION_CONNECTION, "refused"))
    front.authority.answers["answer_challenge"] = replace(AUTHORIZATION, challenges=(failed,))
    answer = await client.post("chall/z1/c1", {})
    assert answer.json["error"]["type"] == "urn:ietf:params:acme:error:connection"
    assert answer.header("Retry-After") == "5"


# Certificates

LEAF, ISSUER = DEFAULTS["certificate"]


async def test_certificate_is_strict_pem_leaf_first(client: Client) -> None:
    answer = await client.post("cert/o1")
    assert answer.header("Content-Type") == "application/pem-certificate-chain"
    assert pem_to_ders(answer.body) == (LEAF, ISSUER)
    lines = answer.body.decode("ascii").split("\n")
    assert lines[-1] == ""
    assert all(len(line) <= 64 for line in lines)
    outside = [line for line in lines[:-1] if not line.replace("+", "").replace("/", "").rstrip("=").isalnum()]
    assert outside == ["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"] * 2


async def test_alternate_chains_link_to_each_other(front: Front, client: Client) -> None:
    cross = FLEET.certificate
    front.serve(alternate_chains=((cross, b"root of another name"),))
    front.authority.answers["certificate"] = (LEAF, ISSUER, ISSUER)
    first, second = await client.post("cert/o1"), await client.post("cert/o1/1")
    assert first.links["alternate"] == [f"{BASE}/cert/o1/1"]
    assert second.links["alternate"] == [f"{BASE}/cert/o1"]
    assert pem_to_ders(first.body)[0] == pem_to_ders(second.body)[0] == LEAF
    assert first.body != second.body


@pytest.mark.parametrize("path", ["cert/o1/1", "cert/o1/x", "cert/o1/-1", "cert/o1/01", "cert/o1/99"])
async def test_chain_that_there_is_not_is_404(client: Client, path: str) -> None:
    answer = await client.post(path)
    assert (answer.status, answer.problem) == (404, "malformed")


async def test_leaf_alone_is_given_to_who_asks_for_it(client: Client) -> None:
    answer = await client.post("cert/o1", headers={"Accept": "application/pkix-cert"})
    assert (answer.header("Content-Type"), answer.body) == ("application/pkix-cert", LEAF)
    [up] = answer.links["up"]
    issuer = await client.post(up)
    assert (issuer.header("Content-Type"), issuer.body) == ("application/pkix-cert", ISSUER)


@pytest.mark.parametrize("accept", ["*/*", "application/pem-certificate-chain", "application/pkix-cert, */*;q=0.1", "text/html"])
async def test_chain_is_what_everybody_else_gets(client: Client, accept: str) -> None:
    answer = await client.post("cert/o1", headers={"Accept": accept})
    assert answer.header("Content-Type") == "application/pem-certificate-chain"


async def test_certificate_of_another_account_is_404(front: Front, client: Client) -> None:
    front.authority.answers["certificate"] = Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate")
    assert (await client.post("cert/o1")).status == 404


# Revocation


async def test_revocation_by_account_is_200_without_body(front: Front, client: Client) -> None:
    answer = await client.post("revoke-cert", {"certificate": b64(LEAF), "reason": 4})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.nonce
    [(signer, request, _)] = front.asked("revoke")
    assert signer == front.authority.accounts["a1"]
    assert (request.certificate, request.reason) == (LEAF, RevocationReason.SUPERSEDED)


async def test_revocation_by_certificate_key(front: Front) -> None:
    client = front.client()
    answer = await client.post("revoke-cert", {"certificate": b64(LEAF)}, jwk=True)
    assert answer.status == 200
    [(signer, request, _)] = front.asked("revoke")
    assert isinstance(signer, bytes)
    assert len(signer) == 32
    assert request.reason is RevocationReason.UNSPECIFIED


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"certificate": b64(LEAF) + "=="}, "malformed"),
        ({"certificate": 5}, "malformed"),
        ({}, "malformed"),
        ({"certificate": ""}, "malformed"),
        ({"certificate": b64(LEAF), "reason": 7}, "badRevocationReason"),
        ({"certificate": b64(LEAF), "reason": 99}, "badRevocationReason"),
        ({"certificate": b64(LEAF), "reason": "1"}, "malformed"),
        ({"certificate": b64(LEAF), "reason": True}, "malformed"),
        ({"certificate": b64(LEAF), "reason": 10**30}, "badRevocationReason"),
    ],
    ids=["padded", "number", "absent", "empty", "seven", "none-such", "text", "bool", "huge"],
)
async def test_broken_revocation_is_refused(front: Front, client: Client, payload: object, problem: str) -> None:
    answer = await client.post("revoke-cert", payload)
    assert (answer.status, answer.problem) == (400, problem)
    assert not front.asked("revoke")


@pytest.mark.parametrize(
    ("reason", "status", "problem"),
    [
        (Reason.ALREADY_REVOKED, 400, "alreadyRevoked"),
        (Reason.BAD_REVOCATION_REASON, 400, "badRevocationReason"),
        (Reason.NOT_AUTHORIZED, 403, "unauthorized"),
        (Reason.UNKNOWN_CERTIFICATE, 404, "malformed"),
    ],
)
async def test_revocation_is_refused(front: Front, client: Client, reason: Reason, status: int, problem: str) -> None:
    front.authority.answers["revoke"] = Rejection(reason, "x")
    answer = await client.post("revoke-cert", {"certificate": b64(LEAF)})
    assert (answer.status, answer.problem) == (status, problem)


# Renewal information (RFC 9773)

CERTIFICATE_ID = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_renewal_information_is_public(front: Front, method: str) -> None:
    answer = await front.client().send(method, f"renewal-info/{CERTIFICATE_ID}")
    assert answer.status == 200
    assert answer.header("Retry-After") == "21600"
    if method == "GET":
        assert answer.json == {"suggestedWindow": {"start": "2026-06-01T12:00:00Z", "end": "2026-06-02T12:00:00Z"}}
    [(asked,)] = front.asked("renewal_info")
    assert (asked.authority_key_id.hex(), asked.serial) == ("69885b6b87464041e1b37b847ba0ae2cde01c8d4", 0x87654321)


async def test_renewal_information_explains_an_incident(front: Front) -> None:
    front.authority.answers["renewal_info"] = RenewalInfo(NOW, NOW + timedelta(days=1), "https://www.example.com/incident", 60)
    answer = await front.client().get(f"renewal-info/{CERTIFICATE_ID}")
    assert answer.json["explanationURL"] == "https://www.example.com/incident"


@pytest.mark.parametrize(
    "name", [f"{CERTIFICATE_ID}=", "aYhba4dGQEHhs3uEe6CuLN4ByNQ==.AIdlQyE", "AAAA", "a.b", ".AIdlQyE", f"{CERTIFICATE_ID}.A"]
)
async def test_other_names_of_certificates_are_malformed(front: Front, name: str) -> None:
    answer = await front.client().get(f"renewal-info/{name}")
    assert (answer.status, answer.problem) == (400, "malformed")
    assert not front.asked("renewal_info")


async def test_unknown_certificate_is_404(front: Front) -> None:
    front.authority.answers["renewal_info"] = Rejection(Reason.UNKNOWN_CERTIFICATE, "x")
    assert (await front.client().get(f"renewal-info/{CERTIFICATE_ID}")).status == 404


async def test_renewal_information_is_not_posted_for(client: Client) -> None:
    answer = await client.post(f"renewal-info/{CERTIFICATE_ID}", {})
    assert (answer.status, answer.problem) == (405, "malformed")
    assert answer.nonce


async def test_json_is_what_acme_sh_can_read(client: Client) -> None:
    """It reads by regular expressions: no spaces, no escapes of slashes, `status` before what has one itself."""
    for answer in (await client.order("www.example.com"), await client.post("authz/z1"), await client.post("acct/a1")):
        text = answer.body.decode("ascii")
        assert json.loads(text)
        assert "\\/" not in text
        assert ": " not in text
        assert answer.header("Content-Type") == "application/json"
