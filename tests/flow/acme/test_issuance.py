"""Clients and a whole gateway: accounts, orders, proofs, certificates and their end (RFC 8555 §7, RFC 9773)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.model import ChallengeType
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.acme.ari import format_certificate_id
from tests.flow.acme.client import Client
from tests.flow.acme.conftest import NewSite
from tests.flow.acme.signing import Key, b64, bind, sign
from tests.flow.acme.site import PREVALIDATED, Issued, Site, csr_for

HOUR = timedelta(hours=1)


# Orders and proofs


async def test_http_01_from_directory_to_chain(site: Site) -> None:
    client = await site.registered(contact=["mailto:admin@example.com"])
    issued = await site.issue(client, "www.demo.test", "api.demo.test")
    assert issued.names == {"www.demo.test", "api.demo.test"}
    assert parse_certificate(issued.chain[1]).is_ca
    assert all(not parse_certificate(der).subject == parse_certificate(der).issuer for der in issued.chain)
    assert issued.answer.json["certificate"].startswith(f"{site.base()}/cert/")
    audited = "\n".join(await site.audited())
    for event in ("acme.account.created", "acme.order.created"):
        assert event in audited


async def test_statuses_along_the_way(site: Site) -> None:
    client = await site.registered()
    order = await client.order("www.demo.test")
    assert order.json["status"] == "pending"
    [url] = order.json["authorizations"]
    assert (await client.post(url)).json["status"] == "pending"
    key = generate_private_key("ec-p256")
    early = await client.post(order.json["finalize"], {"csr": csr_for(order, key)})
    assert (early.status, early.problem) == (403, "orderNotReady")
    await site.prove(client, order)
    valid = await client.post(url)
    assert valid.json["status"] == "valid"
    [challenge] = valid.json["challenges"]
    assert challenge["validated"]
    assert (await client.post(order.location)).json["status"] == "ready"
    done = await client.post(order.json["finalize"], {"csr": csr_for(order, key)})
    assert done.json["status"] == "valid"


async def test_wrong_answer_makes_the_order_invalid(new_site: NewSite) -> None:
    site = await new_site(lab={"validation": {"attempts": 1, "mode": "standard"}})
    client = await site.registered("lab")
    order = await client.order("www.demo.test", "api.demo.test")
    for url in order.json["authorizations"][:1]:
        [challenge] = [each for each in (await client.post(url)).json["challenges"] if each["type"] == "http-01"]
        site.responder.tokens[challenge["token"]] = "something secret in the network"
        answer = await client.post(challenge["url"], {})
        authorization = await site.poll(client, url, {"pending"})
        assert authorization.json["status"] == "invalid"
        [shown] = authorization.json["challenges"]
        assert shown["error"]["type"].startswith("urn:ietf:params:acme:error:")
        assert b"something secret" not in answer.body + authorization.body
    ended = await client.post(order.location)
    assert ended.json["status"] == "invalid"
    assert ended.json["error"]["type"].startswith("urn:ietf:params:acme:error:")
    refused = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert refused.status == 403


async def test_prevalidated_names_are_ready_at_once(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order("*.corp.test", "www.corp.test")
    assert (order.status, order.json["status"]) == (201, "ready")
    for url in order.json["authorizations"]:
        authorization = (await client.post(url)).json
        assert authorization["status"] == "valid"
        assert not authorization["identifier"]["value"].startswith("*.")
    assert (await site.issue(client, "*.corp.test", "www.corp.test")).names == {"*.corp.test", "www.corp.test"}


async def test_addresses_are_proved_and_certified(site: Site) -> None:
    client = await site.registered()
    issued = await site.issue(client, {"type": "ip", "value": "127.0.0.1"})
    assert [(san.kind.value, san.value) for san in issued.leaf.sans] == [("ip", "127.0.0.1")]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["*.*.corp.test"], {"malformed", "rejectedIdentifier"}),
        (["-a.corp.test"], {"malformed", "rejectedIdentifier"}),
        (["corp..test"], {"malformed", "rejectedIdentifier"}),
        (["a" * 64 + ".corp.test"], {"malformed", "rejectedIdentifier"}),
        (["bücher.corp.test"], {"malformed", "rejectedIdentifier"}),
        ([{"type": "ip", "value": "192.0.2.256"}], {"malformed", "rejectedIdentifier"}),
        ([{"type": "ip", "value": "8.8.8.8"}], {"rejectedIdentifier"}),
        ([{"type": "ip", "value": "*.corp.test"}], {"malformed", "rejectedIdentifier"}),
    ],
    ids=["two-stars", "hyphen", "empty-label", "long-label", "unicode", "no-address", "policy", "wildcard-address"],
)
async def test_names_that_cannot_be_certified_are_refused_at_once(site: Site, names: list[Any], problem: set[str]) -> None:
    client = await site.registered("corp")
    answer = await client.order(*names)
    assert answer.status in {400, 403}
    assert answer.problem in problem


async def test_several_refusals_are_told_apart(site: Site) -> None:
    client = await site.registered("corp")
    bad = [{"type": "ip", "value": "8.8.8.8"}, {"type": "ip", "value": "9.9.9.9"}]
    answer = await client.order("www.corp.test", *bad)
    assert (answer.status, answer.problem) == (403, "rejectedIdentifier")
    assert [each["identifier"] for each in answer.json["subproblems"]] == bad


async def test_same_name_twice_is_one(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order("WWW.corp.test", "www.corp.test")
    assert order.json["identifiers"] == [{"type": "dns", "value": "www.corp.test"}]
    assert len(order.json["authorizations"]) == 1


async def test_too_many_names(new_site: NewSite) -> None:
    site = await new_site(lab={**PREVALIDATED, "max_identifiers": 2})
    client = await site.registered("lab")
    assert (await client.order("a.corp.test", "b.corp.test")).status == 201
    assert (await client.order("a.corp.test", "b.corp.test", "c.corp.test")).status in {400, 403}


async def test_authorization_beforehand_serves_an_order(new_site: NewSite) -> None:
    site = await new_site(lab={"authorization_reuse": "1h", "validation": {"mode": "standard"}})
    client = await site.registered("lab")
    made = await client.post("new-authz", {"identifier": {"type": "dns", "value": "www.demo.test"}})
    assert (made.status, made.json["status"]) == (201, "pending")
    [challenge] = [each for each in made.json["challenges"] if each["type"] == "http-01"]
    site.responder.tokens[challenge["token"]] = f"{challenge['token']}.{client.key.thumbprint}"
    await client.post(challenge["url"], {})
    assert (await site.poll(client, made.location, {"pending"})).json["status"] == "valid"
    order = await client.order("www.demo.test")
    assert (order.json["status"], order.json["authorizations"]) == ("ready", [made.location])


async def test_given_up_authorization_takes_its_order_along(site: Site) -> None:
    client = await site.registered()
    order = await client.order("www.demo.test")
    [url] = order.json["authorizations"]
    assert (await client.post(url, {"status": "deactivated"})).json["status"] == "deactivated"
    assert (await client.post(order.location)).json["status"] == "invalid"


async def test_challenge_that_is_over_is_shown_and_nothing_more(site: Site) -> None:
    client = await site.registered()
    order = await site.ready(client, "www.demo.test")
    authorization = await client.post(order.json["authorizations"][0])
    [challenge] = authorization.json["challenges"]
    asked = len(site.responder.asked)
    again = await client.post(challenge["url"], {})
    assert (again.status, again.json) == (200, challenge)
    assert len(site.responder.asked) == asked


async def test_times_are_given_or_refused(site: Site) -> None:
    client = await site.registered("corp")
    end = datetime.now(UTC).replace(microsecond=0) + 48 * HOUR
    issued = await site.issue(client, "www.corp.test", notAfter=end.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert issued.leaf.not_after == end
    assert issued.answer.json["notAfter"] == end.strftime("%Y-%m-%dT%H:%M:%SZ")
    far = (end + timedelta(days=4000)).strftime("%Y-%m-%dT%H:%M:%SZ")
    refused = await client.order("www.corp.test", notAfter=far)
    assert refused.status in {400, 403}


@pytest.mark.parametrize("name", ["notBefore", "notAfter"])
async def test_times_have_the_form_of_rfc_3339(site: Site, name: str) -> None:
    client = await site.registered("corp")
    assert (await client.order("www.corp.test", **{name: "tomorrow"})).problem == "malformed"


async def test_profiles_are_chosen_by_name(new_site: NewSite) -> None:
    site = await new_site(corp={**PREVALIDATED, "profiles": {"short": "certificates of an hour"}}, short=PREVALIDATED)
    client = await site.registered("corp")
    assert (await client.get("directory")).json["meta"]["profiles"] == {"short": "certificates of an hour"}
    issued = await site.issue(client, "www.corp.test", profile="short")
    assert issued.answer.json["profile"] == "short"
    refused = await client.order("www.corp.test", profile="demo")
    assert (refused.status, refused.problem) == (400, "invalidProfile")


# Finalize


def bad_csrs(order: Any) -> dict[str, str]:
    key = generate_private_key("ec-p256")
    good = csr_for(order, key)
    from gateway.model import SanKind
    from gateway.pki.extensions import make_san

    def csr(*names: str, subject: str = "", kind: SanKind = SanKind.DNS) -> str:
        return b64(build_csr(key, parse_name_text(subject).der, tuple(make_san(kind, name) for name in names)))

    return {
        "none": b64(b"\x30\x00"),
        "garbage": b64(b"garbage"),
        "cut": good[:-8],
        "fewer-names": csr("www.corp.test"),
        "more-names": csr("www.corp.test", "api.corp.test", "evil.corp.test"),
        "other-names": csr("evil.corp.test", "api.corp.test"),
        "name-in-cn": csr("www.corp.test", "api.corp.test", subject="CN=evil.corp.test"),
        "other-kind": csr("www.corp.test", "api.corp.test", kind=SanKind.EMAIL)
        if False
        else csr("x@corp.test", kind=SanKind.EMAIL),
        "wildcard": csr("*.corp.test", "api.corp.test"),
        "no-names": csr(),
    }


@pytest.mark.parametrize(
    "how",
    ["none", "garbage", "cut", "fewer-names", "more-names", "other-names", "name-in-cn", "other-kind", "wildcard", "no-names"],
)
async def test_bad_csr_leaves_the_order_ready(site: Site, how: str) -> None:
    client = await site.registered("corp")
    order = await client.order("www.corp.test", "api.corp.test")
    answer = await client.post(order.json["finalize"], {"csr": bad_csrs(order)[how]})
    assert (answer.status, answer.problem) == (400, "badCSR")
    assert (await client.post(order.location)).json["status"] == "ready"
    good = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert good.json["status"] in {"valid", "processing"}


async def test_account_keys_are_not_certified(site: Site) -> None:
    client, other = await site.registered("corp"), await site.registered("corp")
    order = await client.order("www.corp.test")
    for key in (client.key, other.key):
        answer = await client.post(order.json["finalize"], {"csr": csr_for(order, key.private)})
        assert (answer.status, answer.problem) == (400, "badCSR")


async def test_csr_of_a_broken_signature(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order("www.corp.test")
    csr = bytearray(build_csr(generate_private_key("ec-p256"), parse_name_text("").der))
    csr[-1] ^= 1
    assert (await client.post(order.json["finalize"], {"csr": b64(bytes(csr))})).problem == "badCSR"


async def test_many_finalizes_at_once_issue_one_certificate(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order("www.corp.test")
    csr = {"csr": csr_for(order, generate_private_key("ec-p256"))}
    nonces = [await client.new_nonce() for _ in range(6)]
    answers = await asyncio.gather(*(client.post(order.json["finalize"], csr, nonce=nonce) for nonce in nonces))
    assert {answer.status for answer in answers} == {200}
    done = await site.poll(client, order.location, {"processing"})
    assert done.json["status"] == "valid"
    assert "\n".join(await site.audited()).count('"certificate.issued"') <= 1


async def test_another_csr_is_refused_once_one_was_taken(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    order = await client.post(issued.order)
    answer = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert answer.status == 403
    assert answer.problem == "orderNotReady"
    chain = await client.post(order.json["certificate"])
    assert pem_to_ders(chain.body)[0] == issued.chain[0]


# Accounts


async def test_many_registrations_of_one_key_are_one_account(site: Site) -> None:
    client = site.client()
    nonces = [await client.new_nonce() for _ in range(6)]
    answers = await asyncio.gather(*(client.post("new-account", {}, jwk=True, nonce=nonce) for nonce in nonces))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
    assert len({answer.location for answer in answers}) == 1


async def test_contact_is_kept_changed_and_cleared(site: Site) -> None:
    client = await site.registered(contact=["mailto:a@example.com"])
    assert client.kid is not None
    assert (await client.post(client.kid, {})).json["contact"] == ["mailto:a@example.com"]
    assert (await client.post(client.kid, {"contact": ["mailto:b@example.com"]})).json["contact"] == ["mailto:b@example.com"]
    assert (await client.register(contact=["mailto:c@example.com"])).json["contact"] == ["mailto:b@example.com"]
    assert "contact" not in (await client.post(client.kid, {"contact": []})).json


async def test_account_that_ends_takes_its_orders_and_leaves_its_certificates(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    await client.order("next.corp.test")
    assert (await client.post(client.kid or "", {"status": "deactivated"})).json["status"] == "deactivated"
    for path in (client.kid or "", "new-order", issued.order):
        answer = await client.post(path)
        assert (answer.status, answer.problem) == (401, "unauthorized")
    again = await client.post("new-account", {}, jwk=True)
    assert (again.status, again.problem) == (401, "unauthorized")
    name = ari_name(issued)
    assert datetime.fromisoformat((await client.get(f"renewal-info/{name}")).json["suggestedWindow"]["end"]) > datetime.now(UTC)


async def test_terms_have_to_be_agreed(new_site: NewSite) -> None:
    terms = "https://www.example.com/terms"
    site = await new_site(lab={**PREVALIDATED, "terms_of_service": terms})
    client = site.client("lab")
    assert (await client.get("directory")).json["meta"]["termsOfService"] == terms
    refused = await site.register(client, "lab", termsOfServiceAgreed=False)
    assert (refused.status, refused.problem) == (403, "userActionRequired")
    agreed = await site.register(client, "lab")
    assert agreed.json["termsOfServiceAgreed"] is True
    assert agreed.links["terms-of-service"] == [terms]


# External accounts (RFC 8555 §7.3.4)


async def register_bound(site: Site, kid: str, secret: bytes, client: Client | None = None, **changes: Any) -> Any:
    client = client or site.client("lab")
    binding = bind(client.key, kid, secret, f"{site.base('lab')}/new-account", **changes)
    return client, await client.register(externalAccountBinding=binding)


async def test_external_account_binds_one_account_and_is_shown(new_site: NewSite) -> None:
    site = await new_site(lab=PREVALIDATED)
    secret = await site.bind("lab", "kid-1")
    assert (await site.client("lab").get("directory")).json["meta"]["externalAccountRequired"] is True
    client, made = await register_bound(site, "kid-1", secret)
    assert made.status == 201
    assert set(made.json["externalAccountBinding"]) == {"protected", "payload", "signature"}
    assert (await site.issue(client, "www.corp.test")).names == {"www.corp.test"}
    _, second = await register_bound(site, "kid-1", secret)
    assert (second.status, second.problem) == (403, "unauthorized")


async def test_external_account_is_required(new_site: NewSite) -> None:
    site = await new_site(lab=PREVALIDATED)
    answer = await site.client("lab").register()
    assert (answer.status, answer.problem) == (403, "externalAccountRequired")


@pytest.mark.parametrize("how", ["mac", "kid", "profile", "revoked", "expired"])
async def test_wrong_external_account_is_refused(new_site: NewSite, how: str) -> None:
    site = await new_site(lab=PREVALIDATED, other=PREVALIDATED)
    options: dict[str, Any] = {"expires_at": datetime.now(UTC) - HOUR} if how == "expired" else {}
    secret = await site.bind("other" if how == "profile" else "lab", "kid-1", **options)
    if how == "revoked":
        from gateway.audit import AuditEvent

        now = datetime.now(UTC)
        event = AuditEvent(event="acme.external_account.revoked", at=now, actor="test", decision="done")
        await site.service.gateway.store.revoke_external_account("kid-1", now, event)
    kid, secret = ("kid-9" if how == "kid" else "kid-1"), (b"x" * 32 if how == "mac" else secret)
    _, answer = await register_bound(site, kid, secret)
    assert (answer.status, answer.problem) == (403, "unauthorized")
    assert secret.hex() not in "\n".join(await site.audited())


async def test_policy_of_an_external_account_bounds_its_orders(new_site: NewSite) -> None:
    site = await new_site(lab=PREVALIDATED)
    secret = await site.bind(
        "lab", dns=(r"[a-z]+\.corp\.test",), wildcards=False, max_identifiers=1, key_types=frozenset({"rsa"})
    )
    client, made = await register_bound(site, "kid-1", secret)
    assert made.status == 201
    for names in (["*.corp.test"], ["a.b.corp.test"], ["a.corp.test", "b.corp.test"], [{"type": "ip", "value": "127.0.0.1"}]):
        refused = await client.order(*names)  # type: ignore[arg-type]
        assert refused.status in {400, 403}, names
    order = await client.order("www.corp.test")
    answer = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert answer.problem == "badCSR"
    good = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("rsa-2048"))})
    assert good.json["status"] in {"valid", "processing"}


async def test_one_shot_external_account(new_site: NewSite) -> None:
    site = await new_site(lab=PREVALIDATED)
    secret = await site.bind("lab", max_certificates=1)
    client, _ = await register_bound(site, "kid-1", secret)
    await site.issue(client, "www.corp.test")
    order = await client.order("www.corp.test")
    if order.status == 201:
        order = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert order.status in {403, 429}


# Key change (RFC 8555 §7.3.5)


async def change_key(client: Client, new: Key) -> Any:
    inner = sign(new, {"url": client.url("key-change"), "jwk": new.jwk}, {"account": client.kid, "oldKey": client.key.jwk})
    answer = await client.post("key-change", inner)
    if answer.status == 200:
        client.key = new
    return answer


async def test_key_change_keeps_orders_and_ends_the_old_key(site: Site) -> None:
    client = await site.registered()
    order = await client.order("www.demo.test")
    old = client.key
    changed = await change_key(client, Key())
    assert (changed.status, changed.json["status"]) == (200, "valid")
    assert (await client.post(order.location, key=old)).problem == "malformed"
    await site.prove(client, order)
    assert (await client.post(order.location)).json["status"] == "ready"
    assert (await client.register()).status == 200
    other = site.client()
    other.key = old
    assert (await other.register()).status == 201


async def test_key_of_another_account_is_409(site: Site) -> None:
    first, second = await site.registered(), await site.registered()
    answer = await change_key(first, second.key)
    assert (answer.status, answer.location) == (409, second.kid)


async def test_old_key_of_another_account_is_refused(site: Site) -> None:
    client, other, new = await site.registered(), await site.registered(), Key()
    inner = sign(new, {"url": client.url("key-change"), "jwk": new.jwk}, {"account": client.kid, "oldKey": other.key.jwk})
    assert (await client.post("key-change", inner)).status in {400, 403}
    assert (await client.post(client.kid or "")).status == 200


# Revocation (RFC 8555 §7.6)


async def test_account_revokes_what_it_ordered(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    payload = {"certificate": issued.certificate, "reason": 4}
    answer = await client.post("revoke-cert", payload)
    assert (answer.status, answer.body) == (200, b"")
    again = await client.post("revoke-cert", payload)
    assert (again.status, again.problem) == (400, "alreadyRevoked")
    window = (await client.get(f"renewal-info/{ari_name(issued)}")).json["suggestedWindow"]
    assert datetime.fromisoformat(window["end"]) <= datetime.now(UTC)


async def test_account_with_authorizations_for_all_names_revokes(new_site: NewSite) -> None:
    site = await new_site(lab={"authorization_reuse": "1h", "validation": {"mode": "standard"}})
    owner, other = await site.registered("lab"), await site.registered("lab")
    issued = await site.issue(owner, "www.demo.test", "api.demo.test")
    await site.ready(other, "www.demo.test")
    half = await other.post("revoke-cert", {"certificate": issued.certificate})
    assert (half.status, half.problem) == (403, "unauthorized")
    await site.ready(other, "api.demo.test")
    assert (await other.post("revoke-cert", {"certificate": issued.certificate})).status == 200


async def test_certificate_key_revokes_and_is_never_certified_again(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    answer = await site.client("corp").post("revoke-cert", {"certificate": issued.certificate}, key=Key(issued.key), jwk=True)
    assert answer.status == 200
    order = await client.order("www.corp.test")
    refused = await client.post(order.json["finalize"], {"csr": csr_for(order, issued.key)})
    assert (refused.status, refused.problem) == (400, "badCSR")


@pytest.mark.parametrize("reason", [2, 6, 8, 10])
async def test_reasons_that_are_not_for_clients(site: Site, reason: int) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    answer = await client.post("revoke-cert", {"certificate": issued.certificate, "reason": reason})
    assert (answer.status, answer.problem) == (400, "badRevocationReason")


async def test_certificate_of_somebody_else_is_unknown(site: Site) -> None:
    client = await site.registered("corp")
    from tests.flow.est.front import DEVICE

    answer = await client.post("revoke-cert", {"certificate": b64(DEVICE)})
    assert (answer.status, answer.problem) == (404, "malformed")
    broken = await client.post("revoke-cert", {"certificate": b64(b"\x30\x03abc")})
    assert broken.problem == "malformed"


# Renewal (RFC 9773)


def ari_name(issued: Issued) -> str:
    key_id = issued.leaf.authority_key_id
    assert key_id is not None
    return format_certificate_id(key_id, issued.leaf.serial)


async def test_window_lies_before_the_end(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    answer = await site.client("corp").get(f"renewal-info/{ari_name(issued)}")
    start, end = (datetime.fromisoformat(answer.json["suggestedWindow"][each]) for each in ("start", "end"))
    assert datetime.now(UTC) < start < end < issued.leaf.not_after
    assert str(answer.header("Retry-After")).isdecimal()


async def test_replaces_is_echoed_and_taken_once(site: Site) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    name = ari_name(issued)
    order = await client.order("www.corp.test", replaces=name)
    assert (order.status, order.json["replaces"]) == (201, name)
    second = await client.order("www.corp.test", replaces=name)
    assert (second.status, second.problem) == (409, "alreadyReplaced")
    assert "replaces" in second.json["detail"]


async def test_replaces_names_ones_own_certificate_with_a_common_name(site: Site) -> None:
    client, other = await site.registered("corp"), await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    foreign = await other.order("www.corp.test", replaces=ari_name(issued))
    assert foreign.status in {400, 403, 404}
    assert "'replaces'" in foreign.json["detail"]
    nothing_in_common = await client.order("api.corp.test", replaces=ari_name(issued))
    assert nothing_in_common.problem == "malformed"
    assert "'replaces'" in nothing_in_common.json["detail"]


async def test_replaces_of_another_ca_is_passed_over(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order("www.corp.test", replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
    assert order.status == 201


async def test_renewal_information_is_there_for_every_protocol(site: Site) -> None:
    from tests.flow.scep.service import Device

    device = Device()
    assert device
    unknown = await site.client().get("renewal-info/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
    assert (unknown.status, unknown.problem) == (404, "malformed")


# Quotas


async def test_orders_of_an_account_are_limited(new_site: NewSite) -> None:
    site = await new_site(lab={**PREVALIDATED, "limits": {"orders_per_account": {"count": 2, "window": "1h"}}})
    client = await site.registered("lab")
    for _ in range(2):
        assert (await client.order("www.corp.test")).status == 201
    answer = await client.order("www.corp.test")
    assert (answer.status, answer.problem) == (429, "rateLimited")
    assert 1 <= int(str(answer.header("Retry-After"))) <= 3600
    assert (await (await site.registered("lab")).order("www.corp.test")).status == 201


async def test_accounts_of_an_address_are_limited(new_site: NewSite) -> None:
    site = await new_site(lab={**PREVALIDATED, "limits": {"accounts_per_address": {"count": 1, "window": "1h"}}})
    client = await site.registered("lab")
    assert (await client.register()).status == 200
    answer = await site.register(site.client("lab"), "lab")
    assert (answer.status, answer.problem) == (429, "rateLimited")


async def test_device_attestation_is_offered_where_it_is_configured(site: Site) -> None:
    client = await site.registered()
    offered = {
        each["type"]
        for each in (await client.post((await client.order("www.demo.test")).json["authorizations"][0])).json["challenges"]
    }
    assert ChallengeType.DEVICE_ATTEST_01.value not in offered
