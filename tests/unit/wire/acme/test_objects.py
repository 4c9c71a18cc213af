"""Objects as clients see them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import pytest

from gateway.acme import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Order,
    OrderStatus,
    Problem,
    RenewalInfo,
)
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName
from gateway.pki.certificate import pem_to_ders
from gateway.wire.acme import objects
from gateway.wire.acme.objects import DirectoryTerms, PersistTerms
from gateway.wire.acme.problems import NAMESPACE
from gateway.wire.acme.urls import Urls, read_account_url

BASE = "https://pki.example/acme/corp"
URLS = Urls(BASE)
NOW = datetime(2027, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
CORP = ProfileName("corp")
A = Identifier(IdentifierType.DNS, "a.example")
HTTP = Challenge("c1", ChallengeType.HTTP_01, "token1")
DNS = Challenge("c2", ChallengeType.DNS_01, "token2")


def account(**changes: object) -> Account:
    fields: dict[str, object] = {
        "id": "acct1",
        "profile": CORP,
        "status": AccountStatus.VALID,
        "thumbprint": "t",
        "jwk": "{}",
        "contact": (),
        "terms": None,
        "external_account": None,
        "binding": None,
        "source": "192.0.2.1",
        "created_at": NOW,
    }
    return Account(**(fields | changes))  # type: ignore[arg-type]


def authorization(**changes: object) -> Authorization:
    fields: dict[str, object] = {
        "id": "authz1",
        "account": "acct1",
        "profile": CORP,
        "identifier": A,
        "wildcard": False,
        "subdomains": False,
        "status": AuthorizationStatus.PENDING,
        "challenges": (HTTP, DNS),
        "created_at": NOW,
        "expires_at": LATER,
    }
    return Authorization(**(fields | changes))  # type: ignore[arg-type]


def order(**changes: object) -> Order:
    fields: dict[str, object] = {
        "id": "order1",
        "account": "acct1",
        "directory": CORP,
        "profile": CORP,
        "asked_profile": None,
        "status": OrderStatus.PENDING,
        "identifiers": (A, Identifier(IdentifierType.IP, "192.0.2.1")),
        "authorizations": ("authz1", "authz2"),
        "not_before": None,
        "not_after": None,
        "replaces": None,
        "replaces_sha256": None,
        "created_at": NOW,
        "expires_at": LATER,
    }
    return Order(**(fields | changes))  # type: ignore[arg-type]


def test_a_plain_directory() -> None:
    assert json.loads(objects.encode_directory(URLS, DirectoryTerms())) == {
        "newNonce": f"{BASE}/new-nonce",
        "newAccount": f"{BASE}/new-account",
        "newOrder": f"{BASE}/new-order",
        "newAuthz": f"{BASE}/new-authz",
        "revokeCert": f"{BASE}/revoke-cert",
        "keyChange": f"{BASE}/key-change",
        "renewalInfo": f"{BASE}/renewal-info",
        "meta": {"externalAccountRequired": False},
    }


def test_newauthz_is_named_only_where_it_works() -> None:
    assert "newAuthz" not in json.loads(objects.encode_directory(URLS, DirectoryTerms(pre_authorization=False)))


def test_a_directory_with_everything() -> None:
    terms = DirectoryTerms(
        terms_of_service="https://pki.example/terms",
        website="https://pki.example/",
        caa_identities=("pki.example",),
        external_account_required=True,
        profiles=MappingProxyType({"tls": "TLS servers"}),
        subdomains=True,
        surprise="Zm9v",
    )
    found = json.loads(objects.encode_directory(URLS, terms))
    assert found["Zm9v"].startswith("https://")
    assert found["meta"] == {
        "termsOfService": "https://pki.example/terms",
        "website": "https://pki.example/",
        "caaIdentities": ["pki.example"],
        "externalAccountRequired": True,
        "profiles": {"tls": "TLS servers"},
        "subdomainAuthAllowed": True,
    }


def test_accounts() -> None:
    assert json.loads(objects.encode_account(account(), URLS)) == {"status": "valid", "orders": f"{BASE}/acct/acct1/orders"}
    full = account(contact=("mailto:a@b.example",), terms="v1", binding='{"protected":"e30"}', status=AccountStatus.DEACTIVATED)
    assert json.loads(objects.encode_account(full, URLS)) == {
        "status": "deactivated",
        "contact": ["mailto:a@b.example"],
        "termsOfServiceAgreed": True,
        "orders": f"{BASE}/acct/acct1/orders",
        "externalAccountBinding": {"protected": "e30"},
    }


def test_lists_of_orders() -> None:
    assert json.loads(objects.encode_orders(("o1", "o2"), URLS)) == {"orders": [f"{BASE}/order/o1", f"{BASE}/order/o2"]}
    assert objects.encode_orders((), URLS) == b'{"orders":[]}'


def test_a_plain_order() -> None:
    assert json.loads(objects.encode_order(order(), URLS)) == {
        "status": "pending",
        "expires": "2027-01-08T00:00:00Z",
        "identifiers": [{"type": "dns", "value": "a.example"}, {"type": "ip", "value": "192.0.2.1"}],
        "authorizations": [f"{BASE}/authz/authz1", f"{BASE}/authz/authz2"],
        "finalize": f"{BASE}/order/order1/finalize",
    }


@pytest.mark.parametrize("status", OrderStatus)
def test_every_order_has_finalize_and_only_a_valid_one_a_certificate(status: OrderStatus) -> None:
    found = json.loads(objects.encode_order(order(status=status, certificate=b"x" * 32), URLS))
    assert found["finalize"] == f"{BASE}/order/order1/finalize"
    assert ("certificate" in found) is (status is OrderStatus.VALID)
    assert found.get("certificate", f"{BASE}/cert/order1") == f"{BASE}/cert/order1"


def test_an_order_echoes_what_was_asked_and_what_failed() -> None:
    refused = Problem(Reason.VALIDATION_DNS, "no record", ((A, Reason.VALIDATION_DNS, "no record"),))
    asked = order(status=OrderStatus.INVALID, asked_profile="tls", not_before=NOW, not_after=LATER, replaces="a.b", error=refused)
    found = json.loads(objects.encode_order(asked, URLS))
    assert (found["profile"], found["replaces"]) == ("tls", "a.b")
    assert (found["notBefore"], found["notAfter"]) == ("2027-01-01T00:00:00Z", "2027-01-08T00:00:00Z")
    assert found["error"]["type"] == NAMESPACE + "dns"
    assert found["error"]["subproblems"][0]["identifier"] == {"type": "dns", "value": "a.example"}


def test_no_secret_of_an_order_is_shown() -> None:
    text = objects.encode_order(order(csr=b"csr-octets", source="198.51.100.7", worker="w-1"), URLS)
    assert b"csr-octets" not in text
    assert b"198.51.100.7" not in text
    assert b"w-1" not in text


def test_an_authorization_shows_its_challenges() -> None:
    assert json.loads(objects.encode_authorization(authorization(), URLS, NOW)) == {
        "identifier": {"type": "dns", "value": "a.example"},
        "status": "pending",
        "expires": "2027-01-08T00:00:00Z",
        "challenges": [
            {"type": "http-01", "url": f"{BASE}/chall/authz1/c1", "status": "pending", "token": "token1"},
            {"type": "dns-01", "url": f"{BASE}/chall/authz1/c2", "status": "pending", "token": "token2"},
        ],
    }


def test_wildcard_is_there_only_if_it_is_true() -> None:
    assert "wildcard" not in json.loads(objects.encode_authorization(authorization(), URLS, NOW))
    found = json.loads(objects.encode_authorization(authorization(wildcard=True, subdomains=True), URLS, NOW))
    assert found["wildcard"] is True
    assert found["subdomainAuthAllowed"] is True
    assert found["identifier"]["value"] == "a.example"


@pytest.mark.parametrize(
    ("status", "tried"),
    [
        pytest.param(AuthorizationStatus.VALID, ChallengeStatus.VALID, id="valid"),
        pytest.param(AuthorizationStatus.INVALID, ChallengeStatus.INVALID, id="invalid"),
    ],
)
def test_what_is_over_lists_what_was_tried(status: AuthorizationStatus, tried: ChallengeStatus) -> None:
    done = Challenge("c2", ChallengeType.DNS_01, "token2", tried, NOW, Problem(Reason.VALIDATION_DNS, "no record"))
    found = json.loads(objects.encode_authorization(authorization(status=status, challenges=(HTTP, done)), URLS, NOW))
    assert [c["type"] for c in found["challenges"]] == ["dns-01"]


def test_what_was_valid_from_the_start_lists_all() -> None:
    found = json.loads(objects.encode_authorization(authorization(status=AuthorizationStatus.VALID), URLS, NOW))
    assert len(found["challenges"]) == 2


@pytest.mark.parametrize(
    ("status", "at", "shown"),
    [
        pytest.param(AuthorizationStatus.PENDING, NOW, "pending", id="pending"),
        pytest.param(AuthorizationStatus.PENDING, LATER, "expired", id="nobody answered"),
        pytest.param(AuthorizationStatus.VALID, LATER, "expired", id="it was good"),
        pytest.param(AuthorizationStatus.INVALID, LATER, "invalid", id="it was not"),
        pytest.param(AuthorizationStatus.DEACTIVATED, LATER, "deactivated", id="given up"),
    ],
)
def test_authorizations_expire(status: AuthorizationStatus, at: datetime, shown: str) -> None:
    assert json.loads(objects.encode_authorization(authorization(status=status), URLS, at))["status"] == shown


@pytest.mark.parametrize(
    ("challenge", "more"),
    [
        pytest.param(Challenge("c", ChallengeType.HTTP_01, "t"), {"status": "pending"}, id="pending"),
        pytest.param(
            Challenge("c", ChallengeType.HTTP_01, "t", ChallengeStatus.VALID, NOW, Problem(Reason.VALIDATION_DNS, "first")),
            {"status": "valid", "validated": "2027-01-01T00:00:00Z"},
            id="valid has its time, and no error of an earlier attempt",
        ),
        pytest.param(
            Challenge("c", ChallengeType.HTTP_01, "t", ChallengeStatus.PROCESSING, None, Problem(Reason.VALIDATION_DNS, "no")),
            {"status": "processing", "error": {"type": NAMESPACE + "dns", "detail": "no", "status": 400}},
            id="tried again",
        ),
        pytest.param(
            Challenge("c", ChallengeType.HTTP_01, "t", ChallengeStatus.INVALID, NOW, Problem(Reason.VALIDATION_CAA, "no")),
            {"status": "invalid", "error": {"type": NAMESPACE + "caa", "detail": "no", "status": 403}},
            id="invalid has no time",
        ),
    ],
)
def test_challenges(challenge: Challenge, more: dict[str, object]) -> None:
    found = json.loads(objects.encode_challenge(authorization(), challenge, URLS))
    assert found == {"type": "http-01", "url": f"{BASE}/chall/authz1/c", "token": "t", **more}


def test_dns_persist_names_account_and_issuers_in_place_of_a_token() -> None:
    persist = PersistTerms(f"{BASE}/acct/acct1", ("pki.example",))
    challenge = Challenge("c", ChallengeType.DNS_PERSIST_01, "")
    assert json.loads(objects.encode_challenge(authorization(), challenge, URLS, persist)) == {
        "type": "dns-persist-01",
        "url": f"{BASE}/chall/authz1/c",
        "status": "pending",
        "accounturi": f"{BASE}/acct/acct1",
        "issuer-domain-names": ["pki.example"],
    }


def test_renewal_info() -> None:
    info = RenewalInfo(NOW, LATER, None, 21600)
    assert json.loads(objects.encode_renewal_info(info)) == {
        "suggestedWindow": {"start": "2027-01-01T00:00:00Z", "end": "2027-01-08T00:00:00Z"}
    }
    told = RenewalInfo(NOW, LATER, "https://pki.example/why", 21600)
    assert json.loads(objects.encode_renewal_info(told))["explanationURL"] == "https://pki.example/why"


def test_chains_are_strict_pem() -> None:
    ders = (bytes(range(100)), bytes(range(50)))
    text = objects.encode_chain(ders)
    assert text.startswith(b"-----BEGIN CERTIFICATE-----\n")
    assert text.endswith(b"-----END CERTIFICATE-----\n")
    assert b"\n\n" not in text
    assert max(map(len, text.split(b"\n"))) == 64
    assert pem_to_ders(text) == ders


def test_times_are_utc_and_whole_seconds() -> None:
    at = datetime(2027, 1, 1, 1, 0, 0, 999999, tzinfo=timezone(timedelta(hours=1)))
    assert objects.format_time(at) == "2027-01-01T00:00:00Z"


def test_objects_are_compact_and_ascii() -> None:
    text = objects.encode_account(account(contact=("mailto:ä@b.example",)), URLS)
    assert text.isascii()
    assert b": " not in text


@pytest.mark.parametrize(
    ("url", "found"),
    [
        pytest.param(f"{BASE}/acct/abc", "abc", id="an account"),
        pytest.param("https://old.example/acme/acct/abc", "abc", id="below an alias"),
        pytest.param(f"{BASE}/acct/", None, id="none"),
        pytest.param(f"{BASE}/acct/abc/orders", None, id="its orders"),
        pytest.param(f"{BASE}/acct/abc?x", None, id="a query"),
        pytest.param("https://evil.example/acme/corp/acct/abc", None, id="another server"),
        pytest.param("acct/abc", None, id="relative"),
    ],
)
def test_accounts_are_named_by_urls(url: str, found: str | None) -> None:
    assert read_account_url(url, (BASE, "https://old.example/acme")) == found
