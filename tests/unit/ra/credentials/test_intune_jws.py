"""Signed challenges: golden ones under a pinned clock, hostile ones, every claim and every bound in time."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.model import (
    Pending,
    Rejected,
    RequestId,
)
from gateway.ra.credentials.challenge_labels import challenge_label
from gateway.ra.credentials.intune_jws import (
    is_signed_challenge,
)
from gateway.wire.scep.errors import fail_info
from tests.golden_challenges import (
    AUDIENCE,
    GOLDEN,
    ISSUED,
    NOW,
    anchor,
    base64url,
    claims,
    issuer_key,
    make_golden,
    read_golden,
    sign_challenge,
)
from tests.unit.ra.credentials.conftest import EC, REQUEST, SECOND, ask, provider, refusal, signed

OUTCOMES = {
    "es256-expired": "expired",
    "es256-too-old": "expired",
    "es256-not-yet-valid": "not_yet_valid",
    "es256-other-audience": "wrong_audience",
    "es256-unknown-version": "unknown_version",
    "es256-without-nonce": "malformed",
    "es256-fractional-iat": "malformed",
    "es256-tampered-signature": "signature_invalid",
    "rs256-tampered-signature": "signature_invalid",
    "es256-other-issuer": "signature_invalid",
}


class TestGolden:
    @pytest.mark.parametrize("name", [name for name in GOLDEN if "success" in name])
    async def test_success(self, name: str) -> None:
        requester = await ask(read_golden(name))
        assert requester.owner == "device-0001"
        assert requester.binding.common_name == "gate-1.corp.example"
        assert challenge_label(Pending(RequestId("x"), 1)) == "success"

    @pytest.mark.parametrize(("name", "label"), OUTCOMES.items(), ids=OUTCOMES)
    async def test_refusal(self, name: str, label: str) -> None:
        refused = await refusal(read_golden(name))
        assert challenge_label(Rejected(refused.reason, refused.detail)) == label
        assert fail_info(refused.reason) == (1 if label == "signature_invalid" else 2)

    def test_every_file_has_its_outcome(self) -> None:
        assert set(OUTCOMES) == {name for name in GOLDEN if "success" not in name}

    @pytest.mark.parametrize("name", GOLDEN)
    def test_files_are_what_the_table_says(self, name: str) -> None:
        made, kept = make_golden(name), read_golden(name)
        assert made.rpartition(".")[0] == kept.rpartition(".")[0]
        assert made == kept or GOLDEN[name].key != "rsa"


class TestWhatIsLookedAt:
    @pytest.mark.parametrize("exclusive", [True, False])
    @pytest.mark.parametrize("challenge", [None, ""], ids=["absent", "empty"])
    async def test_no_challenge_is_somebody_elses_matter(self, challenge: str | None, exclusive: bool) -> None:
        assert await provider(exclusive=exclusive).authenticate(replace(REQUEST, challenge=challenge), NOW) is None

    @pytest.mark.parametrize(
        "challenge",
        [
            pytest.param("s3cret", id="short"),
            pytest.param("x" * 99 + "." + "x" * 99 + ".", id="two-hundred-with-two-dots"),
            pytest.param("x" * 300, id="long-without-dots"),
            pytest.param("x" * 300 + ".x", id="one-dot"),
            pytest.param("x" * 300 + ".x.x.x", id="three-dots"),
        ],
    )
    async def test_other_looks(self, challenge: str) -> None:
        """An Intune profile takes no other challenge unless it says so."""
        assert not is_signed_challenge(challenge)
        assert await provider(exclusive=False).authenticate(replace(REQUEST, challenge=challenge), NOW) is None
        assert (await refusal(challenge)).reason is Reason.CREDENTIAL_MALFORMED

    @pytest.mark.parametrize("exclusive", [True, False])
    async def test_what_looks_signed_is_judged_here(self, exclusive: bool) -> None:
        refused = await refusal("x" * 300 + ".x.x", exclusive=exclusive)
        assert refused.reason is Reason.CREDENTIAL_MALFORMED

    async def test_the_challenge_is_never_told(self) -> None:
        for challenge in ("s3cret" * 60, "s3cret" * 60 + "..", sign_challenge(issuer_key("other"), claims(nonce="s3cret"))):
            refused = await refusal(challenge)
            assert "s3cret" not in str(refused) + refused.detail
            assert challenge not in str(refused) + refused.detail


HMAC_HEADER = b'{"alg":"HS256"}'
HOSTILE = [
    pytest.param(b'{"iss":"a","iss":"b"}', id="name-twice"),
    pytest.param(b"[1,2]", id="no-object"),
    pytest.param(b'{"iat":NaN}', id="nan"),
    pytest.param(b'{"iss":"\xff"}', id="no-utf-8"),
    pytest.param(b'{"iss":' + b"[" * 2000, id="deep"),
    pytest.param(b'{"iat":' + b"9" * 4400 + b"}", id="more-digits-than-an-integer-may-have"),
    pytest.param(b"x" * 5000, id="no-json"),
]


class TestHostile:
    @pytest.mark.parametrize("payload", HOSTILE)
    async def test_payloads_that_an_issuer_signed(self, payload: bytes) -> None:
        assert (await refusal(signed(payload.ljust(200)))).reason is Reason.CREDENTIAL_MALFORMED

    @pytest.mark.parametrize("payload", HOSTILE)
    async def test_payloads_that_nobody_signed_are_not_read(self, payload: bytes) -> None:
        challenge = sign_challenge(issuer_key("other"), payload.ljust(200))
        assert (await refusal(challenge)).reason is Reason.CREDENTIAL_SIGNATURE

    @pytest.mark.parametrize("algorithm", ["none", "HS256", "PS256", "RS384", "ES384", "EdDSA", ""])
    async def test_algorithms(self, algorithm: str) -> None:
        challenge = sign_challenge(EC, claims(), {"alg": algorithm})
        assert (await refusal(challenge)).reason is Reason.CREDENTIAL_SIGNATURE

    async def test_hmac_with_the_public_key_as_secret(self) -> None:
        """The old confusion: what is public is taken for a shared secret (RFC 8725 §2.1)."""
        import hmac

        head = f"{base64url(HMAC_HEADER)}.{sign_challenge(EC, claims()).split('.')[1]}"
        mac = hmac.digest(anchor("rsa"), head.encode(), "sha256")
        assert (await refusal(f"{head}.{base64url(mac)}")).reason is Reason.CREDENTIAL_SIGNATURE

    async def test_too_large(self) -> None:
        assert (await refusal(signed(padding="x" * 9000))).reason is Reason.CREDENTIAL_MALFORMED

    async def test_three_kilobytes_pass(self) -> None:
        names = [f"host-{n}.corp.example" for n in range(100)]
        assert len(names) == len((await ask(signed(san_dns=names))).binding.sans or ()) - 1

    async def test_unknown_claims_are_ignored(self) -> None:
        await ask(signed(groups=[{"id": 1}], ratio=1.5, note="\ud800", huge=10**4000))


class TestClaims:
    @pytest.mark.parametrize("name", ["iss", "sub", "iat", "exp", "nonce", "aud"])
    async def test_required(self, name: str) -> None:
        refused = await refusal(signed(**{name: None}))
        assert refused.reason is Reason.CREDENTIAL_MALFORMED
        assert name in refused.cause

    @pytest.mark.parametrize("name", ["iss", "sub", "iat", "exp", "nonce", "aud"])
    async def test_not_required_where_the_profile_says_so(self, name: str) -> None:
        required = [other for other in ("iss", "sub", "iat", "exp", "nonce", "aud") if other != name]
        await ask(signed(**{name: None}), required_claims=required)

    async def test_audience_is_not_required_where_none_is_set(self) -> None:
        await ask(signed(aud=None), audience=None)
        await ask(signed(aud="https://other.example"), audience=None)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param(name, value, id=f"{name}-{kind}")
            for name in ("iss", "sub", "nonce", "device_name")
            for kind, value in {
                "number": 1,
                "list": ["a"],
                "bool": True,
                "surrogate": "a\ud800",
                "control": "a\nb",
                "nul": "a\x00",
                "direction-mark": "a\u202eb",
                "huge": "a" * 1025,
            }.items()
        ]
        + [
            pytest.param(name, value, id=f"{name}-{kind}")
            for name in ("iat", "exp", "nbf")
            for kind, value in {
                "fraction": ISSUED + 0.5,
                "whole-float": float(ISSUED),
                "text": str(ISSUED),
                "true": True,
                "false": False,
                "zero": 0,
                "negative": -1,
                "beyond-calendars": 253402300800,
                "huge": 10**30,
                "list": [ISSUED],
            }.items()
        ]
        + [
            pytest.param(name, value, id=f"{name}-{kind}")
            for name in ("san_dns", "san_rfc822", "san_upn", "san_uri", "san_ip")
            for kind, value in {
                "text": "a.example",
                "object": {"a": 1},
                "number-inside": [1],
                "null-inside": [None],
                "empty-inside": [""],
                "surrogate-inside": ["a\udfff"],
                "too-many": ["a"] * 101,
            }.items()
        ]
        + [
            pytest.param("iss", "", id="iss-empty"),
            pytest.param("sub", "", id="sub-empty"),
            pytest.param("nonce", "", id="nonce-empty"),
            pytest.param("aud", "", id="aud-empty"),
            pytest.param("aud", [], id="aud-empty-list"),
            pytest.param("aud", [1], id="aud-number-inside"),
            pytest.param("aud", {"a": AUDIENCE}, id="aud-object"),
            pytest.param("version", 1, id="version-number"),
            pytest.param("version", ["v1"], id="version-list"),
        ],
    )
    async def test_of_the_wrong_type(self, name: str, value: object) -> None:
        refused = await refusal(signed(claims() | {name: value}))
        assert refused.reason is Reason.CREDENTIAL_MALFORMED

    @pytest.mark.parametrize("name", ["iss", "iat", "nonce", "aud", "device_name", "san_dns", "san_ip", "nbf", "version"])
    async def test_null_is_no_absence(self, name: str) -> None:
        assert (await refusal(signed(claims() | {name: None}))).reason is Reason.CREDENTIAL_MALFORMED

    @pytest.mark.parametrize("version", ["", "v1"])
    async def test_versions(self, version: str) -> None:
        await ask(signed(version=version))

    @pytest.mark.parametrize("version", ["v0", "v2", "V1", "1", "v1 "])
    async def test_unknown_versions(self, version: str) -> None:
        """The version is read first: of an unknown one nothing else means anything."""
        assert (await refusal(signed({"version": version} | claims(iat="?")))).reason is Reason.CREDENTIAL_VERSION

    @pytest.mark.parametrize(
        ("audience", "good"),
        [
            pytest.param(AUDIENCE, True, id="the-one"),
            pytest.param([AUDIENCE], True, id="list-of-one"),
            pytest.param(["a", AUDIENCE], True, id="among-others"),
            pytest.param(["a", "b"], False, id="not-among-others"),
            pytest.param(AUDIENCE + "/", False, id="longer"),
            pytest.param(AUDIENCE.upper(), False, id="other-case"),
        ],
    )
    async def test_audience(self, audience: object, good: bool) -> None:
        if good:
            await ask(signed(aud=audience))
        else:
            assert (await refusal(signed(aud=audience))).reason is Reason.CREDENTIAL_AUDIENCE


class TestTime:
    @pytest.mark.parametrize(
        ("seconds", "skew", "reason"),
        [
            pytest.param(0, "0s", None, id="at-iat"),
            pytest.param(-1, "0s", Reason.CREDENTIAL_NOT_YET_VALID, id="before-iat"),
            pytest.param(-60, "60s", None, id="before-iat-within-skew"),
            pytest.param(-61, "60s", Reason.CREDENTIAL_NOT_YET_VALID, id="before-iat-beyond-skew"),
            pytest.param(1799, "0s", None, id="before-exp"),
            pytest.param(1800, "0s", Reason.CREDENTIAL_EXPIRED, id="at-exp"),
            pytest.param(1859, "60s", None, id="after-exp-within-skew"),
            pytest.param(1860, "60s", Reason.CREDENTIAL_EXPIRED, id="after-exp-beyond-skew"),
        ],
    )
    async def test_bounds(self, seconds: int, skew: str, reason: Reason | None) -> None:
        at = datetime.fromtimestamp(ISSUED, UTC) + seconds * SECOND
        challenge = signed(exp=ISSUED + 1800)
        if reason is None:
            await ask(challenge, at, skew=skew)
        else:
            assert (await refusal(challenge, at, skew=skew)).reason is reason

    @pytest.mark.parametrize(("seconds", "good"), [(600, True), (659, True), (660, False)])
    async def test_age_ends_it_whatever_exp_says(self, seconds: int, good: bool) -> None:
        at = datetime.fromtimestamp(ISSUED, UTC) + seconds * SECOND
        challenge = signed(exp=ISSUED + 86400 * 365)
        settings: dict[str, Any] = {"max_age": "10m", "skew": "60s"}
        if good:
            await ask(challenge, at, **settings)
        else:
            assert (await refusal(challenge, at, **settings)).reason is Reason.CREDENTIAL_EXPIRED

    async def test_not_before_is_kept(self) -> None:
        await ask(signed(nbf=ISSUED + 60))
        assert (await refusal(signed(nbf=ISSUED + 61))).reason is Reason.CREDENTIAL_NOT_YET_VALID

    async def test_gates_are_asked_in_their_order(self) -> None:
        bad: dict[str, Any] = {"version": "v2", "iat": ISSUED + 3000, "aud": "other"}
        assert (await refusal(sign_challenge(issuer_key("other"), claims(**bad)))).reason is Reason.CREDENTIAL_SIGNATURE
        assert (await refusal(signed(**bad))).reason is Reason.CREDENTIAL_VERSION
        assert (await refusal(signed(**bad | {"version": None}))).reason is Reason.CREDENTIAL_NOT_YET_VALID
        old: dict[str, Any] = {"iat": ISSUED - 7200, "aud": "other"}
        assert (await refusal(signed(**old))).reason is Reason.CREDENTIAL_AUDIENCE
        assert (await refusal(signed(**old | {"aud": AUDIENCE}))).reason is Reason.CREDENTIAL_EXPIRED
