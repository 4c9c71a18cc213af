"""Signed challenges: the anchors, and what a requester may have and what its challenge takes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.config import credentials
from gateway.config.duration_checks import MAX_AGE, MAX_SKEW
from gateway.errors import Reason
from gateway.model import (
    Allowance,
    CredentialKind,
    Issued,
    NameBinding,
    Outcome,
    Pending,
    ProfileName,
    Rejected,
    RequestId,
    SanKind,
    Unavailable,
)
from gateway.pki.certificate import der_to_pem, self_signed_ca
from gateway.pki.keys import generate_private_key
from gateway.ra.credentials.challenge_labels import challenge_label
from gateway.ra.credentials.intune_jws import (
    MAX_ANCHORS,
    IntuneJwsCredential,
    parse_challenge_anchors,
)
from gateway.wire.scep.errors import fail_info
from tests.golden_challenges import (
    ISSUED,
    NOW,
    anchor,
    read_golden,
)
from tests.unit.ra.credentials.conftest import ANCHORS, EC, LONG_AGO, PROFILE, REQUEST, ask, provider, refusal, signed


class TestAnchors:
    @pytest.mark.parametrize("at", [LONG_AGO, datetime(2060, 1, 1, tzinfo=UTC)], ids=["before", "after"])
    async def test_validity_counts_at_the_request(self, at: datetime) -> None:
        seconds = int(at.timestamp())
        refused = await refusal(signed(iat=seconds, exp=seconds + 60), at)
        assert refused.reason is Reason.CREDENTIAL_SIGNATURE
        assert "CN=challenge issuer-ec-p256" in refused.cause

    async def test_a_renewed_anchor_beside_the_expired_one(self) -> None:
        """Same key, new certificate: the challenge is good as long as one of them is."""
        at = datetime(2060, 1, 1, tzinfo=UTC)
        new = self_signed_ca(EC, "CN=new", LONG_AGO, datetime(2090, 1, 1, tzinfo=UTC))
        config = credentials.IntuneJwsCredential.model_validate({"type": "intune_jws", "anchors": "a.pem"}, strict=False)
        renewed = IntuneJwsCredential(PROFILE, (*ANCHORS, *parse_challenge_anchors(der_to_pem(new))), config, exclusive=True)
        seconds = int(at.timestamp())
        challenge = signed(iat=seconds, exp=seconds + 60)
        assert await renewed.authenticate(replace(REQUEST, challenge=challenge), at) is not None

    def test_bundle(self) -> None:
        key = (anchor("ec").replace(b"CERTIFICATE", b"EC PARAMETERS"),)
        assert [a.public_key.algorithm for a in parse_challenge_anchors(b"text\n" + key[0] + anchor("ec") + anchor("rsa"))] == [
            "ec",
            "rsa",
        ]
        assert len(parse_challenge_anchors(anchor("ec") * 3)) == 1

    @pytest.mark.parametrize(
        ("pem", "words"),
        [
            pytest.param(b"", "no PEM block", id="empty"),
            pytest.param(anchor("ec").replace(b"CERTIFICATE", b"PRIVATE KEY"), "no PEM block", id="no-certificate"),
            pytest.param(anchor("ec").replace(b"MII", b"!!!"), "no PEM block", id="no-base64"),
            pytest.param(der_to_pem(b"\x30\x00"), "not a certificate", id="broken"),
        ],
    )
    def test_bundles_that_are_refused(self, pem: bytes, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            parse_challenge_anchors(pem)

    @pytest.mark.parametrize(("spec", "words"), [("ec-p384", "EC P-256"), ("ed25519", "ed25519")])
    def test_kinds_of_key(self, spec: str, words: str) -> None:
        made = self_signed_ca(generate_private_key(spec), "CN=a", LONG_AGO, NOW)
        with pytest.raises(ValueError, match=f"CN=a cannot check challenges: .*{words}"):
            parse_challenge_anchors(der_to_pem(made))

    def test_short_rsa_key(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        made = self_signed_ca(rsa.generate_private_key(65537, 1024), "CN=a", LONG_AGO, NOW)
        with pytest.raises(ValueError, match="1024 bits is too short; 2048"):
            parse_challenge_anchors(der_to_pem(made))

    def test_key_usage_that_forbids_it(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
        made = (
            x509.CertificateBuilder(name, name, EC.public_key(), 1, LONG_AGO, NOW)
            .add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
            .sign(EC, hashes.SHA256())
        )
        with pytest.raises(ValueError, match="lacks digitalSignature"):
            parse_challenge_anchors(made.public_bytes(serialization.Encoding.PEM))

    def test_too_many(self) -> None:
        made = (self_signed_ca(EC, f"CN=a{n}", LONG_AGO, NOW) for n in range(MAX_ANCHORS + 1))
        with pytest.raises(ValueError, match="33 certificates are too many"):
            parse_challenge_anchors(b"".join(map(der_to_pem, made)))


BEGUN = datetime.fromtimestamp(ISSUED, UTC)


class TestRequester:
    async def test_who_it_is(self) -> None:
        requester = await ask(signed())
        assert requester.kind is CredentialKind.INTUNE_JWS
        assert requester.identity.startswith("intune_jws:")
        assert len(requester.identity) == len("intune_jws:") + 32
        assert requester.owner == "device-0001"
        assert dict(requester.claims) == {"device": "device-0001", "issuer": "connector-7f3a"}
        assert requester.renews is None

    async def test_one_nonce_is_one_use_in_every_profile(self) -> None:
        """The same nonce with other claims, signed anew, by the same issuer: the same reservation."""
        first = await ask(signed())
        again = await ask(signed(device_name="other", iat=ISSUED + 1))
        elsewhere = await ask(signed(), profile=ProfileName("other"), audience=None)
        assert first.reservations[0].key == again.reservations[0].key == elsewhere.reservations[0].key
        assert first.identity == again.identity
        for other in (await ask(signed(nonce="golden-nonce-0002")), await ask(signed(iss="another"))):
            assert other.reservations[0].key != first.reservations[0].key
            assert other.identity != first.identity

    async def test_issuer_and_nonce_do_not_run_together(self) -> None:
        one, other = await ask(signed(iss="ab", nonce="c")), await ask(signed(iss="a", nonce="bc"))
        assert one.reservations != other.reservations

    async def test_without_a_nonce_the_payload_is_used_once(self) -> None:
        required = ["iss", "sub", "iat", "exp"]
        first = await ask(signed(nonce=None), required_claims=required)
        assert first.reservations == (await ask(signed(nonce=None), required_claims=required)).reservations
        assert first.reservations != (await ask(signed(nonce=None, iat=ISSUED + 1), required_claims=required)).reservations

    @pytest.mark.parametrize(
        ("changes", "required", "last"),
        [
            pytest.param({}, None, datetime.fromtimestamp(ISSUED + 3600, UTC), id="exp"),
            pytest.param({"exp": ISSUED + 10**9}, None, BEGUN + MAX_AGE, id="age"),
            pytest.param({"exp": None}, ["iss", "sub", "iat", "nonce"], BEGUN + MAX_AGE, id="no-exp"),
            pytest.param({"iat": None}, ["iss", "sub", "exp", "nonce"], datetime.fromtimestamp(ISSUED + 3600, UTC), id="no-iat"),
            pytest.param({"exp": None, "iat": None}, ["iss"], NOW + MAX_AGE, id="neither"),
        ],
    )
    async def test_a_use_is_remembered_for_longer_than_any_profile_takes_the_challenge(
        self, changes: dict[str, Any], required: list[str] | None, last: datetime
    ) -> None:
        settings: dict[str, Any] = {} if required is None else {"required_claims": required}
        [reservation] = (await ask(signed(**changes), **settings)).reservations
        assert last + MAX_SKEW < reservation.expires_at <= last + MAX_SKEW + timedelta(days=1)

    async def test_a_challenge_to_the_end_of_time(self) -> None:
        requester = await ask(signed(exp=253402300799, iat=None), required_claims=["exp"])
        assert requester.reservations[0].expires_at.year == 9999

    async def test_allowances(self) -> None:
        requester = await ask(signed(), per_device={"count": 2, "window": "1h"}, replay_capacity=7, max_age="1h", skew="60s")
        device, memory = requester.allowances
        assert (device.count, device.window) == (2, timedelta(hours=1))
        assert memory == Allowance("intune_jws:devices", 7, timedelta(minutes=62))
        assert requester.device is not None
        assert requester.device[:32] in device.key

    async def test_default_is_three_a_day(self) -> None:
        assert (await ask(signed())).allowances[0].count == 3
        assert (await ask(signed())).allowances[0].window == timedelta(hours=24)

    async def test_a_device_is_issuer_and_subject(self) -> None:
        first = await ask(signed())
        assert (await ask(signed(nonce="n2", device_name="renamed"))).device == first.device
        for other in (signed(sub="device-0002"), signed(iss="another")):
            assert (await ask(other)).device != first.device

    @pytest.mark.parametrize(
        ("changes", "settings"),
        [
            pytest.param({}, {"per_device": None}, id="unlimited"),
            pytest.param({"sub": None}, {"required_claims": ["exp"]}, id="no-subject"),
        ],
    )
    async def test_no_device_limit(self, changes: dict[str, Any], settings: dict[str, Any]) -> None:
        assert [a.key for a in (await ask(signed(**changes), **settings)).allowances] == ["intune_jws:devices"]


DNS, EMAIL, IP, SID, UPN, URI = SanKind.DNS, SanKind.EMAIL, SanKind.IP, SanKind.SID, SanKind.UPN, SanKind.URI
SID_URI = "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1001"
NO_NAMES: dict[str, Any] = {"device_name": None, "san_dns": None, "san_rfc822": None}


class TestNames:
    async def test_every_kind(self) -> None:
        requester = await ask(read_golden("es256-success-all-names"))
        assert requester.binding == NameBinding(
            common_name="gate-1.corp.example",
            sans=frozenset(
                {
                    (DNS, "gate-1.corp.example"),
                    (EMAIL, "gate-1@corp.example"),
                    (UPN, "gate-1@corp.example"),
                    (URI, "urn:uuid:6f2a7c1e-0b7d-4c55-8a53-0d5b4b8a1c11"),
                    (SID, "S-1-5-21-1-2-3-1001"),
                    (IP, "192.0.2.7"),
                    (IP, "2001:db8::7"),
                }
            ),
        )
        assert requester.vouches_for_sid

    async def test_absent_claims_mean_none(self) -> None:
        requester = await ask(signed(**NO_NAMES))
        assert requester.binding == NameBinding(common_name="", sans=frozenset())
        assert not requester.vouches_for_sid

    async def test_absent_claims_of_old_issuers(self) -> None:
        requester = await ask(signed(**NO_NAMES), absent_claims="unconstrained")
        assert requester.binding == NameBinding(common_name=None, sans=frozenset(), san_kinds=frozenset())

    @pytest.mark.parametrize(
        ("claim", "kinds"),
        [
            ("san_dns", {DNS}),
            ("san_rfc822", {EMAIL}),
            ("san_upn", {UPN}),
            ("san_uri", {URI, SID}),
            ("san_ip", {IP}),
        ],
    )
    async def test_a_claim_speaks_for_its_kinds(self, claim: str, kinds: set[SanKind]) -> None:
        """Of old issuers too; an empty list is a claim, and says none."""
        requester = await ask(signed(**NO_NAMES | {claim: []}), absent_claims="unconstrained")
        assert requester.binding.san_kinds == frozenset(kinds)
        assert requester.binding.sans == frozenset()

    async def test_an_empty_device_name_says_none(self) -> None:
        assert (await ask(signed(device_name=""), absent_claims="unconstrained")).binding.common_name == ""

    @pytest.mark.parametrize(
        ("uri", "vouches"),
        [
            pytest.param(SID_URI, True, id="sid"),
            pytest.param(SID_URI.upper(), True, id="sid-in-capitals"),
            pytest.param("tag:microsoft.com,2023-01-01:sid:S-1-5-21-1-2-3-1001", False, id="another-tag"),
            pytest.param("tag%3Amicrosoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1001", False, id="escaped"),
            pytest.param("urn:a:b", False, id="no-sid"),
        ],
    )
    async def test_only_a_sid_claim_vouches(self, uri: str, vouches: bool) -> None:
        assert (await ask(signed(san_uri=[uri]))).vouches_for_sid is vouches

    async def test_a_sid_elsewhere_vouches_for_nothing(self) -> None:
        assert not (await ask(signed(san_dns=[SID_URI], device_name=SID_URI))).vouches_for_sid


class TestLabels:
    @pytest.mark.parametrize(
        ("reason", "label", "info"),
        [
            (Reason.CREDENTIAL_SIGNATURE, "signature_invalid", 1),
            (Reason.CREDENTIAL_EXPIRED, "expired", 2),
            (Reason.CREDENTIAL_NOT_YET_VALID, "not_yet_valid", 2),
            (Reason.CREDENTIAL_AUDIENCE, "wrong_audience", 2),
            (Reason.CREDENTIAL_USED, "replay", 2),
            (Reason.CREDENTIAL_VERSION, "unknown_version", 2),
            (Reason.CREDENTIAL_MALFORMED, "malformed", 2),
            (Reason.RATE_LIMITED, "rate_limited", 2),
            (Reason.NAME_NOT_BOUND, "claim_mismatch", 2),
            (Reason.NOT_COMPLIANT, "compliance_failed", 2),
        ],
    )
    def test_of_refusals(self, reason: Reason, label: str, info: int) -> None:
        assert challenge_label(Rejected(reason, "")) == label
        assert fail_info(reason) == info

    @pytest.mark.parametrize(
        ("outcome", "label"),
        [
            pytest.param(Issued(b"", (), RequestId("x")), "success", id="issued"),
            pytest.param(Pending(RequestId("x"), 1), "success", id="pending"),
            pytest.param(Rejected(Reason.POLICY_KEY, ""), "", id="refused-by-policy"),
            pytest.param(Rejected(Reason.UPSTREAM_REJECTED, ""), "", id="refused-by-the-ca"),
            pytest.param(Unavailable(Reason.UPSTREAM_UNAVAILABLE, 1), "", id="not-decided"),
        ],
    )
    def test_of_other_outcomes(self, outcome: Outcome, label: str) -> None:
        assert challenge_label(outcome) == label


@pytest.mark.parametrize("settings", [{"max_age": "0s"}, {"max_age": "8d"}, {"skew": "2h"}], ids=str)
def test_times_out_of_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="live too long, or not at all"):
        provider(**settings)


def test_without_anchors() -> None:
    config = credentials.IntuneJwsCredential.model_validate({"type": "intune_jws", "anchors": "a.pem"}, strict=False)
    with pytest.raises(ValueError, match="no anchors"):
        IntuneJwsCredential(PROFILE, (), config, exclusive=True)
