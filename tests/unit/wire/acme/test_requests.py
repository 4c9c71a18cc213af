"""Payloads: what clients send, and what they should not."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.acme import AccountChange, AuthorizationRequest
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Identifier, IdentifierType, RevocationReason
from gateway.pki import base64url
from gateway.pki.jwk import CLASSICAL_ALGORITHMS
from gateway.pki.jws_signer import Signer
from gateway.wire.acme import requests
from gateway.wire.acme.client import ExternalKey, bind
from gateway.wire.acme.jws import parse_request

SIGNER = Signer.of(ec.generate_private_key(ec.SECP256R1()))
URL = "https://pki.example/acme/corp/new-account"
A = Identifier(IdentifierType.DNS, "a.example")
B = Identifier(IdentifierType.DNS, "*.b.example")


def payload(**members: object) -> bytes:
    return json.dumps(members).encode()


def refused(parse: Callable[[], object]) -> Reason:
    with pytest.raises(Rejection) as caught:
        parse()
    return caught.value.reason


@pytest.mark.parametrize(
    ("content", "good"),
    [pytest.param(b"", True, id="empty"), pytest.param(b"{}", False, id="an object"), pytest.param(b" ", False, id="a space")],
)
def test_reads_have_an_empty_payload(content: bytes, good: bool) -> None:
    header = {"nonce": "bm9uY2U", "url": URL, "kid": "https://pki.example/acct/1"}
    request = parse_request(json.dumps(SIGNER.flatten(header, content)).encode(), CLASSICAL_ALGORITHMS)
    if good:
        requests.check_empty(request)
    else:
        assert refused(lambda: requests.check_empty(request)) is Reason.MALFORMED


# Accounts


def test_a_new_account() -> None:
    binding = bind(ExternalKey("key-1", b"s" * 32), SIGNER, URL)
    data = payload(
        contact=["mailto:a@b.example"],
        termsOfServiceAgreed=True,
        externalAccountBinding=binding,
        orders="https://x",
        status="valid",
    )
    found = requests.parse_account(data, URL, SIGNER.public)
    assert (found.jwk, found.thumbprint) == (SIGNER.public.text, SIGNER.public.thumbprint)
    assert (found.contact, found.terms_agreed, found.only_existing) == (("mailto:a@b.example",), True, False)
    assert found.binding is not None
    assert found.binding.kid == "key-1"


def test_an_account_needs_nothing() -> None:
    found = requests.parse_account(b"{}", URL, SIGNER.public)
    assert (found.contact, found.terms_agreed, found.only_existing, found.binding) == ((), False, False, None)


def test_onlyreturnexisting_ignores_contact() -> None:
    data = payload(onlyReturnExisting=True, contact=["tel:1"], externalAccountBinding={"broken": 1}, termsOfServiceAgreed=True)
    found = requests.parse_account(data, URL, SIGNER.public)
    assert (found.only_existing, found.contact, found.binding) == (True, (), None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", Reason.MALFORMED, id="empty"),
        pytest.param(payload(contact="mailto:a@b.example"), Reason.MALFORMED, id="a contact that is no list"),
        pytest.param(payload(contact=[7]), Reason.MALFORMED, id="a contact that is no text"),
        pytest.param(payload(contact=["mailto:a@b.example"] * 11), Reason.CONTACT_INVALID, id="many contacts"),
        pytest.param(payload(contact=["tel:+1"]), Reason.CONTACT_UNSUPPORTED, id="a telephone"),
        pytest.param(payload(contact=["a@b.example"]), Reason.CONTACT_UNSUPPORTED, id="no URL"),
        pytest.param(payload(contact=["mailto:a@b.example,c@d.example"]), Reason.CONTACT_INVALID, id="two addresses"),
        pytest.param(payload(contact=["mailto:a@b.example?subject=x"]), Reason.CONTACT_INVALID, id="header fields"),
        pytest.param(payload(contact=["mailto:a%40b@c.example"]), Reason.CONTACT_INVALID, id="escapes"),
        pytest.param(payload(contact=["mailto:nobody"]), Reason.CONTACT_INVALID, id="no domain"),
        pytest.param(payload(contact=["mailto:"]), Reason.CONTACT_INVALID, id="no address"),
        pytest.param(payload(contact=["mailto:a@b\r\nX: y"]), Reason.CONTACT_INVALID, id="line breaks"),
        pytest.param(payload(termsOfServiceAgreed="yes"), Reason.MALFORMED, id="agreement in words"),
        pytest.param(payload(onlyReturnExisting=1), Reason.MALFORMED, id="1 is not true"),
        pytest.param(payload(externalAccountBinding="x"), Reason.MALFORMED, id="a binding that is no object"),
        pytest.param(payload(externalAccountBinding={}), Reason.MALFORMED, id="an empty binding"),
    ],
)
def test_accounts_that_are_refused(data: bytes, reason: Reason) -> None:
    assert refused(lambda: requests.parse_account(data, URL, SIGNER.public)) is reason


@pytest.mark.parametrize(
    ("data", "change"),
    [
        pytest.param(b"", AccountChange(), id="a read"),
        pytest.param(b"{}", AccountChange(), id="nothing"),
        pytest.param(payload(status="valid"), AccountChange(), id="a status that is so already"),
        pytest.param(payload(contact=[]), AccountChange(contact=()), id="no contact any more"),
        pytest.param(payload(contact=["mailto:a@b.example"]), AccountChange(("mailto:a@b.example",)), id="contact"),
        pytest.param(payload(contact=None), AccountChange(), id="null is absent"),
        pytest.param(payload(termsOfServiceAgreed=True), AccountChange(terms_agreed=True), id="agreement"),
        pytest.param(
            payload(status="deactivated", contact=["mailto:a@b.example"]),
            AccountChange(deactivate=True),
            id="the end, as certbot says it",
        ),
    ],
)
def test_changes_of_accounts(data: bytes, change: AccountChange) -> None:
    assert requests.parse_account_change(data) == change


def test_a_change_that_changes_nothing_is_empty() -> None:
    assert AccountChange().empty
    assert not AccountChange(contact=()).empty


# Orders


def test_an_order() -> None:
    data = payload(
        identifiers=[{"type": "dns", "value": "A.example"}, {"type": "dns", "value": "*.b.example"}],
        notBefore="2027-01-01T00:00:00Z",
        notAfter="2027-01-02T01:30:00.5+01:30",
        replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
        profile="tls",
    )
    found = requests.parse_order(data)
    assert found.identifiers == (A, B)
    assert found.not_before == datetime(2027, 1, 1, tzinfo=UTC)
    assert found.not_after == datetime(2027, 1, 2, tzinfo=UTC)
    assert found.replaces is not None
    assert found.replaces.serial == 0x87654321
    assert found.profile == "tls"


def names(**more: object) -> list[dict[str, object]]:
    return [{"type": "dns", "value": "a.b.example", **more}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", Reason.MALFORMED, id="empty"),
        pytest.param(b"{}", Reason.MALFORMED, id="no names"),
        pytest.param(payload(identifiers=[{"type": "email", "value": "a@b"}]), Reason.UNSUPPORTED_IDENTIFIER, id="e-mail"),
        pytest.param(payload(identifiers=names(), notBefore="tomorrow"), Reason.MALFORMED, id="a time in words"),
        pytest.param(payload(identifiers=names(), notBefore=7), Reason.MALFORMED, id="a number"),
        pytest.param(payload(identifiers=names(), notAfter="2027-02-30T00:00:00Z"), Reason.MALFORMED, id="a day that is not"),
        pytest.param(payload(identifiers=names(), notAfter="2027-01-01T00:00:00"), Reason.MALFORMED, id="no zone"),
        pytest.param(payload(identifiers=names(), notAfter="0001-01-01T00:00:00+23:59"), Reason.MALFORMED, id="before year 1"),
        pytest.param(payload(identifiers=names(), notAfter="2027-01-01T00:00:00Z\n"), Reason.MALFORMED, id="a line break"),
        pytest.param(payload(identifiers=names(), replaces="x"), Reason.MALFORMED, id="replaces nonsense"),
        pytest.param(payload(identifiers=names(), replaces=7), Reason.MALFORMED, id="replaces a number"),
        pytest.param(payload(identifiers=names(), profile=""), Reason.UNKNOWN_ACME_PROFILE, id="an empty profile"),
        pytest.param(payload(identifiers=names(), profile=["tls"]), Reason.UNKNOWN_ACME_PROFILE, id="a list of profiles"),
        pytest.param(payload(identifiers=names(), profile="x" * 65), Reason.UNKNOWN_ACME_PROFILE, id="a long profile"),
        pytest.param(payload(identifiers=names(ancestorDomain="other.example")), Reason.MALFORMED, id="another's ancestor"),
        pytest.param(payload(identifiers=names(ancestorDomain="xample")), Reason.MALFORMED, id="half a label"),
        pytest.param(payload(identifiers=names(ancestorDomain="*.example")), Reason.MALFORMED, id="a wildcard as ancestor"),
        pytest.param(payload(identifiers=names(ancestorDomain=7)), Reason.MALFORMED, id="a number as ancestor"),
        pytest.param(
            payload(identifiers=[{"type": "ip", "value": "::1", "ancestorDomain": "a.example"}]),
            Reason.MALFORMED,
            id="of an address",
        ),
    ],
)
def test_orders_that_are_refused(data: bytes, reason: Reason) -> None:
    assert refused(lambda: requests.parse_order(data)) is reason


def test_clients_that_order_again_look_for_the_word_replaces() -> None:
    with pytest.raises(MalformedMessage) as caught:
        requests.parse_order(payload(identifiers=names(), replaces="x"))
    assert "'replaces'" in caught.value.detail


def test_ancestors() -> None:
    raw = [
        {"type": "dns", "value": "WWW.a.example", "ancestorDomain": "A.example"},
        {"type": "dns", "value": "*.b.example", "ancestorDomain": "b.example"},
        {"type": "dns", "value": "c.example"},
    ]
    found = requests.parse_order(payload(identifiers=raw)).ancestors
    assert dict(found) == {Identifier(IdentifierType.DNS, "www.a.example"): "a.example", B: "b.example"}


# Authorizations and challenges


@pytest.mark.parametrize(
    ("identifier", "asked"),
    [
        pytest.param({"type": "dns", "value": "A.example"}, AuthorizationRequest(A), id="a name"),
        pytest.param(
            {"type": "dns", "value": "a.example", "subdomainAuthAllowed": True},
            AuthorizationRequest(A, subdomains=True),
            id="and below",
        ),
        pytest.param({"type": "dns", "value": "a.example", "subdomainAuthAllowed": False}, AuthorizationRequest(A), id="alone"),
    ],
)
def test_authorizations(identifier: dict[str, object], asked: AuthorizationRequest) -> None:
    assert requests.parse_authorization(payload(identifier=identifier)) == asked


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(None, id="absent"),
        pytest.param({"type": "dns", "value": "*.a.example"}, id="a wildcard"),
        pytest.param({"type": "dns", "value": "a..b"}, id="no name"),
        pytest.param({"type": "ip", "value": "::1", "subdomainAuthAllowed": True}, id="below an address"),
        pytest.param({"type": "dns", "value": "a.example", "subdomainAuthAllowed": "yes"}, id="in words"),
    ],
)
def test_authorizations_that_are_refused(identifier: object) -> None:
    assert refused(lambda: requests.parse_authorization(payload(identifier=identifier))) is Reason.MALFORMED


def test_an_authorization_can_only_be_deactivated() -> None:
    assert not requests.parse_authorization_change(b"")
    assert requests.parse_authorization_change(payload(status="deactivated"))
    for data in (b"{}", payload(status="valid"), payload(status=7), payload(identifier={})):
        assert refused(lambda data=data: requests.parse_authorization_change(data)) is Reason.MALFORMED  # type: ignore[misc]


def test_challenges() -> None:
    assert requests.parse_challenge(b"") is None
    assert requests.parse_challenge(b"{}") == {}
    assert requests.parse_challenge(payload(attObj="AQ", other=1)) == {"attObj": "AQ", "other": 1}
    assert refused(lambda: requests.parse_challenge(b"[]")) is Reason.MALFORMED


# Finalize and revocation

DER = bytes(range(200, 256)) + b"\x30"


def test_a_csr() -> None:
    assert requests.parse_finalize(payload(csr=base64url.encode(DER))) == DER


@pytest.mark.parametrize(
    "csr",
    [
        pytest.param(base64url.encode(DER) + "=" * (-len(base64url.encode(DER)) % 4), id="padding"),
        pytest.param(base64url.encode(DER).replace("-", "+").replace("_", "/"), id="the other alphabet"),
        pytest.param("\r\n".join((base64url.encode(DER)[:20], base64url.encode(DER)[20:])), id="lines"),
    ],
)
def test_padded_csrs_are_a_tolerance(csr: str) -> None:
    if csr != base64url.encode(DER):
        assert refused(lambda: requests.parse_finalize(payload(csr=csr))) is Reason.MALFORMED
    assert requests.parse_finalize(payload(csr=csr), padded=True) == DER


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{}", id="absent"),
        pytest.param(payload(csr=""), id="empty"),
        pytest.param(payload(csr=["AQ"]), id="a list"),
        pytest.param(payload(csr="-----BEGIN CERTIFICATE REQUEST-----"), id="PEM"),
        pytest.param(payload(csr="A"), id="a single character"),
        pytest.param(payload(csr="ää"), id="no ASCII"),
    ],
)
def test_csrs_that_are_refused(data: bytes, padded: bool) -> None:
    assert refused(lambda: requests.parse_finalize(data, padded=padded)) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param({}, RevocationReason.UNSPECIFIED, id="none"),
        pytest.param({"reason": 1}, RevocationReason.KEY_COMPROMISE, id="key compromise"),
        pytest.param({"reason": 9}, RevocationReason.PRIVILEGE_WITHDRAWN, id="privilege withdrawn"),
    ],
)
def test_revocations(members: dict[str, object], reason: RevocationReason) -> None:
    found = requests.parse_revocation(payload(certificate=base64url.encode(DER), **members))
    assert (found.certificate, found.reason) == (DER, reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"{}", Reason.MALFORMED, id="no certificate"),
        pytest.param(payload(certificate=7), Reason.MALFORMED, id="a number"),
        pytest.param(payload(certificate="AQ=="), Reason.MALFORMED, id="padding"),
        pytest.param(payload(certificate="AQ", reason="1"), Reason.MALFORMED, id="a reason in words"),
        pytest.param(payload(certificate="AQ", reason=True), Reason.MALFORMED, id="true is no reason"),
        pytest.param(payload(certificate="AQ", reason=None), Reason.MALFORMED, id="null is no reason"),
        pytest.param(payload(certificate="AQ", reason=1.5), Reason.MALFORMED, id="half a reason"),
        pytest.param(payload(certificate="AQ", reason=7), Reason.BAD_REVOCATION_REASON, id="7 is unused"),
        pytest.param(payload(certificate="AQ", reason=-1), Reason.BAD_REVOCATION_REASON, id="below"),
        pytest.param(payload(certificate="AQ", reason=10**4000), Reason.BAD_REVOCATION_REASON, id="far above"),
    ],
)
def test_revocations_that_are_refused(data: bytes, reason: Reason) -> None:
    assert refused(lambda: requests.parse_revocation(data)) is reason
