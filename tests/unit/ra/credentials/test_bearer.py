"""Bearer tokens: which are taken, and every JWT that was made for something else."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest

from gateway.config import credentials
from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, NameBinding, Requester
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import public_key_der
from gateway.ra.credentials.bearer import BearerCredential
from gateway.ra.credentials.intune_jws import parse_challenge_anchors
from gateway.ra.credentials.own_names import own_names
from tests.golden_challenges import GOLDEN, ISSUED, NOW, anchor, base64url, claims, issuer_key, sign_challenge
from tests.unit.ra.est import CORP, est_request

EC, RSA = issuer_key("ec"), issuer_key("rsa")
ANCHORS = parse_challenge_anchors(anchor("ec") + anchor("rsa"))
ISSUER, AUDIENCE = "https://idp.example/", "https://pki.example/est/corp"
TOKEN: dict[str, Any] = {"iss": ISSUER, "sub": "gate-1", "aud": AUDIENCE, "iat": ISSUED, "exp": ISSUED + 3600}
SECOND = timedelta(seconds=1)


def provider(**settings: Any) -> BearerCredential:
    settings = {
        "type": "bearer",
        "anchors": "anchors.pem",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "skew": "0s",
    } | settings
    return BearerCredential(CORP, ANCHORS, credentials.BearerCredential.model_validate(settings, strict=False))


def token(key: Any = EC, header: dict[str, Any] | None = None, **changes: Any) -> str:
    payload = {name: value for name, value in (TOKEN | changes).items() if value is not None}
    return sign_challenge(key, payload, header) if header else sign_challenge(key, payload)


async def ask(sent: str, at: Any = NOW, **settings: Any) -> Requester:
    requester = await provider(**settings).authenticate(est_request(authorization=f"Bearer {sent}"), at)
    assert requester is not None
    return requester


async def refusal(sent: str, at: Any = NOW, **settings: Any) -> Rejection:
    with pytest.raises(Rejection) as refused:
        await ask(sent, at, **settings)
    assert sent not in refused.value.cause
    return refused.value


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(token(), id="es256"),
        pytest.param(token(RSA), id="rs256"),
        pytest.param(token(aud=["https://other.example", AUDIENCE]), id="audience-list"),
        pytest.param(token(header={"alg": "ES256", "typ": "JWT"}), id="jwt"),
        pytest.param(token(header={"alg": "ES256", "typ": "at+JWT"}), id="access-token"),
        pytest.param(token(header={"alg": "ES256", "typ": "application/at+jwt"}), id="access-token-whole"),
        pytest.param(
            token(header={"alg": "ES256", "kid": "1", "jku": "https://evil.example"}), id="keys-in-the-header-are-ignored"
        ),
        pytest.param(token(nbf=ISSUED), id="not-before"),
        pytest.param(token(exp=ISSUED + 3600.5), id="fractions-of-seconds"),
        pytest.param(token(scope="est", jti="1", client_id="x"), id="other-claims"),
    ],
)
async def test_taken(sent: str) -> None:
    requester = await ask(sent)
    assert requester.kind is CredentialKind.BEARER
    assert requester.owner == "gate-1"
    assert requester.binding == own_names("gate-1", "bound")
    assert requester.device
    assert requester.reservations == ()


async def test_the_identity_is_issuer_and_subject() -> None:
    first = await ask(token(jti="1"))
    assert (await ask(token(jti="2", iat=ISSUED + 1))).identity == first.identity, "a new token of the same is the same"
    assert (await ask(token(sub="gate-2"))).identity != first.identity
    other = await ask(token(iss="other"), issuer="other")
    assert other.identity != first.identity


async def test_alternative_names_may_be_left_to_policy() -> None:
    assert (await ask(token(), sans="policy")).binding == NameBinding(common_name="gate-1", certified=True)


async def test_any_name() -> None:
    requester = await ask(token(), names="any")
    assert (requester.binding, requester.device) == (NameBinding(), None)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(token(iss="https://evil.example/"), Reason.CREDENTIAL_INVALID, id="another-issuer"),
        pytest.param(token(iss=None), Reason.CREDENTIAL_INVALID, id="no-issuer"),
        pytest.param(token(iss=[ISSUER]), Reason.CREDENTIAL_INVALID, id="issuer-list"),
        pytest.param(token(aud="https://pki.example/est/other"), Reason.CREDENTIAL_AUDIENCE, id="other-profiles"),
        pytest.param(token(aud=AUDIENCE + "/"), Reason.CREDENTIAL_AUDIENCE, id="audience-to-the-letter"),
        pytest.param(token(aud=[]), Reason.CREDENTIAL_AUDIENCE, id="no-audience-in-the-list"),
        pytest.param(token(aud=None), Reason.CREDENTIAL_MALFORMED, id="no-audience"),
        pytest.param(token(aud=[1]), Reason.CREDENTIAL_MALFORMED, id="audience-of-numbers"),
        pytest.param(token(aud={AUDIENCE: 1}), Reason.CREDENTIAL_MALFORMED, id="audience-object"),
        pytest.param(token(aud=["x"] * 101), Reason.CREDENTIAL_MALFORMED, id="many-audiences"),
        pytest.param(token(sub=None), Reason.CREDENTIAL_MALFORMED, id="no-subject"),
        pytest.param(token(sub=""), Reason.CREDENTIAL_MALFORMED, id="empty-subject"),
        pytest.param(token(sub="a\nb"), Reason.CREDENTIAL_MALFORMED, id="subject-of-two-lines"),
        pytest.param(token(sub="\ud800"), Reason.CREDENTIAL_MALFORMED, id="subject-that-is-no-text"),
        pytest.param(token(sub="x" * 1025), Reason.CREDENTIAL_MALFORMED, id="long-subject"),
        pytest.param(token(iat=None), Reason.CREDENTIAL_MALFORMED, id="no-iat"),
        pytest.param(token(exp=None), Reason.CREDENTIAL_MALFORMED, id="no-exp"),
        pytest.param(token(exp=True), Reason.CREDENTIAL_MALFORMED, id="exp-true"),
        pytest.param(token(exp="9999999999"), Reason.CREDENTIAL_MALFORMED, id="exp-text"),
        pytest.param(token(exp=10**30), Reason.CREDENTIAL_MALFORMED, id="exp-beyond-all-time"),
        pytest.param(token(exp=-1), Reason.CREDENTIAL_MALFORMED, id="exp-negative"),
        pytest.param(token(nbf="x"), Reason.CREDENTIAL_MALFORMED, id="nbf-text"),
        pytest.param(token(nonce="n"), Reason.CREDENTIAL_MALFORMED, id="id-token-or-challenge"),
        pytest.param(token(at_hash="n"), Reason.CREDENTIAL_MALFORMED, id="id-token"),
        pytest.param(token(events={}), Reason.CREDENTIAL_MALFORMED, id="logout-token"),
        pytest.param(token(san_dns=["a.example"]), Reason.CREDENTIAL_MALFORMED, id="challenge-that-binds-names"),
        pytest.param(token(device_name="gate-1"), Reason.CREDENTIAL_MALFORMED, id="challenge-that-binds-a-name"),
        pytest.param(token(header={"alg": "ES256", "typ": "dpop+jwt"}), Reason.CREDENTIAL_MALFORMED, id="proof-of-possession"),
        pytest.param(token(header={"alg": "ES256", "typ": "logout+jwt"}), Reason.CREDENTIAL_MALFORMED, id="logout-type"),
        pytest.param(token(header={"alg": "ES256", "typ": 1}), Reason.CREDENTIAL_INVALID, id="type-is-no-text"),
        pytest.param(token(header={"alg": "ES256", "crit": ["b64"]}), Reason.CREDENTIAL_INVALID, id="crit"),
        pytest.param(sign_challenge(EC, b"[]"), Reason.CREDENTIAL_MALFORMED, id="no-object"),
        pytest.param("a.b.c", Reason.CREDENTIAL_INVALID, id="no-json"),
        pytest.param("a.b", Reason.CREDENTIAL_INVALID, id="two-segments"),
        pytest.param("a" * 8200, Reason.CREDENTIAL_INVALID, id="long"),
    ],
)
async def test_refused(sent: str, reason: Reason) -> None:
    assert (await refusal(sent)).reason is reason


@pytest.mark.parametrize("name", sorted(GOLDEN))
async def test_signed_challenges_are_no_bearer_tokens(name: str) -> None:
    """The same key, issuer and audience: what is good once, in a CSR, for its names only, is not good here."""
    challenge = sign_challenge(EC, claims(**GOLDEN[name].changes))
    settings = {"issuer": "connector-7f3a", "audience": claims()["aud"]}
    with pytest.raises(Rejection):
        await ask(challenge, **settings)


def unsigned(header: dict[str, Any], signature: bytes) -> str:
    return ".".join((base64url(json.dumps(header).encode()), base64url(json.dumps(TOKEN).encode()), base64url(signature)))


async def test_algorithms_that_let_the_writer_choose() -> None:
    spki = public_key_der(RSA)
    signing_input = ".".join(unsigned({"alg": "HS256"}, b"").split(".")[:2]).encode()
    for pem in (spki, base64.b64encode(spki)):
        forged = unsigned({"alg": "HS256"}, hmac.digest(pem, signing_input, "sha256"))
        assert (await refusal(forged)).reason is Reason.CREDENTIAL_INVALID
    for name in ("none", "None", "RS384", "ES384", "PS256", "EdDSA", ""):
        assert (await refusal(unsigned({"alg": name}, b"x"))).reason is Reason.CREDENTIAL_INVALID
    own = {"alg": "ES256", "jwk": {"kty": "EC"}, "x5c": ["MII"]}
    assert (await refusal(unsigned(own, b"x" * 64))).reason is Reason.CREDENTIAL_INVALID


async def test_a_key_that_is_no_anchor() -> None:
    from tests.unit.ra.fleet import key_of

    assert (await refusal(token(key_of("somebody")))).reason is Reason.CREDENTIAL_INVALID


@pytest.mark.parametrize(
    ("seconds", "settings", "reason"),
    [
        pytest.param(-1, {}, Reason.CREDENTIAL_NOT_YET_VALID, id="before-iat"),
        pytest.param(0, {}, None, id="at-iat"),
        pytest.param(3599, {}, None, id="last-second"),
        pytest.param(3600, {}, Reason.CREDENTIAL_EXPIRED, id="at-exp"),
        pytest.param(600, {"max_age": "10m"}, Reason.CREDENTIAL_EXPIRED, id="older-than-max-age"),
        pytest.param(599, {"max_age": "10m"}, None, id="as-old-as-may-be"),
        pytest.param(-59, {"skew": "1m"}, None, id="our-clock-is-behind"),
        pytest.param(3659, {"skew": "1m", "max_age": "2h"}, None, id="our-clock-is-ahead"),
        pytest.param(3660, {"skew": "1m", "max_age": "2h"}, Reason.CREDENTIAL_EXPIRED, id="no-clock-is-that-far-ahead"),
    ],
)
async def test_time(seconds: int, settings: dict[str, Any], reason: Reason | None) -> None:
    at = NOW - timedelta(minutes=1) + timedelta(seconds=seconds)
    if reason is None:
        await ask(token(), at, **settings)
    else:
        assert (await refusal(token(), at, **settings)).reason is reason


async def test_not_before_counts_too() -> None:
    assert (await refusal(token(nbf=ISSUED + 120))).reason is Reason.CREDENTIAL_NOT_YET_VALID


async def test_an_anchor_out_of_its_time_signs_nothing() -> None:
    [ec] = (parse_certificate(der) for der in pem_to_ders(anchor("ec")))
    later = ec.not_after + SECOND
    moment = int(later.timestamp())
    assert (await refusal(token(iat=moment, exp=moment + 60), later)).reason is Reason.CREDENTIAL_INVALID


@pytest.mark.parametrize("sent", [None, "", "Basic YTpi", "Bearer", "Digest a=b"])
async def test_nothing_to_look_at(sent: str | None) -> None:
    assert await provider().authenticate(est_request(authorization=sent), NOW) is None


def test_what_cannot_be_built() -> None:
    config = credentials.BearerCredential.model_validate(
        {"type": "bearer", "anchors": "a", "issuer": "i", "audience": "x"}, strict=False
    )
    with pytest.raises(ValueError, match="no anchors"):
        BearerCredential(CORP, (), config)
    for changes in ({"max_age": timedelta(days=8)}, {"max_age": timedelta(0)}, {"skew": timedelta(hours=2)}):
        with pytest.raises(ValueError, match="live too long"):
            BearerCredential(CORP, ANCHORS, config.model_copy(update=changes))
