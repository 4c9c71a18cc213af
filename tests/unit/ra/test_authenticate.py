"""The order in which credential providers are asked, and the last word when none recognises a request."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import (
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    Linking,
    ProfileName,
    Protocol,
    PublicKey,
    Requester,
    RequestForm,
    SignerCertificate,
)
from gateway.pki.names import parse_name_text
from gateway.ra.authenticate import authenticate
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.profile import Profile, RenewalRule

NOW = datetime(2027, 1, 2, tzinfo=UTC)
CORP = ProfileName("corp")
CSR = CertificateRequest(
    RequestForm.PKCS10, b"", b"", parse_name_text("CN=gate-1"), PublicKey(b"", b"k" * 32, "ec", 256, "P-256")
)
REQUEST = EnrollmentRequest(CORP, Protocol.SCEP, "PKCSReq", "t", CSR, "challenge", None, "192.0.2.1")
RENEWAL = RenewalRule(frozenset({CORP}), frozenset({"RenewalReq"}), None, timedelta(0))


@dataclass
class Provider:
    """Answers as told."""

    kind: CredentialKind
    answer: Requester | Exception | None
    asked: list[CredentialKind] = field(default_factory=list)

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        self.asked.append(self.kind)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def says(kind: CredentialKind, asked: list[CredentialKind] | None = None) -> Provider:
    return Provider(kind, Requester(f"{kind}:1", kind), asked if asked is not None else [])


def refuses(kind: CredentialKind, reason: Reason, cause: str = "why") -> Provider:
    return Provider(kind, Rejection(reason, "no", cause))


def profile(*providers: Provider, renewal: RenewalRule | None = None) -> Profile:
    credentials = cast("tuple[CredentialProvider, ...]", providers)
    upstream = cast("Any", None)
    return Profile(
        CORP, frozenset({Protocol.SCEP}), upstream, credentials, PolicyConfig(), renewal, None, None, False, timedelta(hours=1)
    )


STATIC, ONE_TIME, CERTIFICATE = CredentialKind.STATIC, CredentialKind.ONE_TIME, CredentialKind.CERTIFICATE


async def test_an_unknown_challenge_goes_on_to_the_next() -> None:
    requester = await authenticate(profile(refuses(STATIC, Reason.CREDENTIAL_INVALID), says(ONE_TIME)), REQUEST, NOW)
    assert requester.kind is ONE_TIME


async def test_the_first_that_recognises_stops_the_search() -> None:
    later = says(ONE_TIME)
    assert (await authenticate(profile(says(STATIC), later), REQUEST, NOW)).kind is STATIC
    assert later.asked == []


async def test_certificates_are_asked_first() -> None:
    asked: list[CredentialKind] = []
    providers = (says(STATIC, asked), says(CERTIFICATE, asked))
    assert (await authenticate(profile(*providers, renewal=RENEWAL), REQUEST, NOW)).kind is CERTIFICATE
    assert asked == [CERTIFICATE]


async def test_a_certificate_is_no_passport_without_a_renewal_rule() -> None:
    certificate = says(CERTIFICATE)
    with pytest.raises(Rejection):
        await authenticate(profile(certificate), REQUEST, NOW)
    assert certificate.asked == []


async def test_what_calls_itself_a_renewal_is_not_proved_by_a_challenge() -> None:
    challenge = says(STATIC)
    renewal = replace(REQUEST, is_renewal=True, operation="RenewalReq")
    for corp in (profile(challenge), profile(challenge, Provider(CERTIFICATE, None), renewal=RENEWAL)):
        with pytest.raises(Rejection) as refused:
            await authenticate(corp, renewal, NOW)
        assert refused.value.reason is Reason.NOT_AUTHORIZED
    assert challenge.asked == []


@pytest.mark.parametrize(
    ("providers", "challenge", "reason"),
    [
        pytest.param((), None, Reason.CREDENTIAL_MISSING, id="no-provider-no-challenge"),
        pytest.param((), "x", Reason.CREDENTIAL_INVALID, id="no-provider"),
        pytest.param((Provider(STATIC, None),), None, Reason.CREDENTIAL_MISSING, id="no-challenge"),
        pytest.param((refuses(STATIC, Reason.CREDENTIAL_INVALID),), "x", Reason.CREDENTIAL_INVALID, id="wrong-challenge"),
        pytest.param(
            (refuses(ONE_TIME, Reason.CREDENTIAL_EXPIRED), says(STATIC)),
            "x",
            Reason.CREDENTIAL_EXPIRED,
            id="a-known-one-that-expired",
        ),
        pytest.param(
            (Provider(STATIC, Requester("one_time:1", ONE_TIME)),), "x", Reason.NOT_AUTHORIZED, id="requester-of-another-kind"
        ),
    ],
)
async def test_refused(providers: tuple[Provider, ...], challenge: str | None, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(*providers), replace(REQUEST, challenge=challenge), NOW)
    assert refused.value.reason is reason


async def test_the_log_gets_every_cause() -> None:
    providers = (refuses(STATIC, Reason.CREDENTIAL_INVALID, "not this"), refuses(ONE_TIME, Reason.CREDENTIAL_INVALID, "nor that"))
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(*providers), REQUEST, NOW)
    assert refused.value.cause == "not this; nor that"
    assert refused.value.detail == "no"


async def test_an_unreachable_store_is_no_refusal() -> None:
    with pytest.raises(StoreUnavailable):
        await authenticate(profile(Provider(ONE_TIME, StoreUnavailable("down")), says(STATIC)), REQUEST, NOW)


async def test_another_profiles_request() -> None:
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(says(STATIC)), replace(REQUEST, profile=ProfileName("other")), NOW)
    assert refused.value.reason is Reason.NOT_AUTHORIZED


def signed_by(key: bytes) -> EnrollmentRequest:
    """The request in a message that the holder of `key` has signed."""
    signer = SignerCertificate(b"", b"s" * 32, b"", 1, CSR.subject, (), PublicKey(b"", key, "rsa", 2048), NOW, NOW, True)
    return replace(REQUEST, signer=signer)


async def test_a_message_signed_by_the_key_to_be_certified() -> None:
    assert (await authenticate(profile(says(STATIC)), signed_by(CSR.public_key.sha256), NOW)).kind is STATIC


@pytest.mark.parametrize("renewal", [None, RENEWAL], ids=["no-renewal", "renewal"])
async def test_a_captured_request_is_not_taken_from_another_signer(renewal: RenewalRule | None) -> None:
    challenge = says(STATIC)
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(challenge, Provider(CERTIFICATE, None), renewal=renewal), signed_by(b"x" * 32), NOW)
    assert refused.value.reason is Reason.BAD_PROOF_OF_POSSESSION
    assert challenge.asked == [], "and nothing is told of the challenge"


async def test_a_renewal_is_signed_by_the_old_key() -> None:
    corp = profile(says(STATIC), says(CERTIFICATE), renewal=RENEWAL)
    assert (await authenticate(corp, signed_by(b"x" * 32), NOW)).kind is CERTIFICATE


async def test_a_registration_authority_signs_for_others() -> None:
    """It is asked before the challenge in the request is looked at, which was meant for somebody else."""
    challenge = says(STATIC)
    corp = profile(challenge, says(CredentialKind.RA_CERTIFICATE), says(CERTIFICATE), renewal=RENEWAL)
    assert (await authenticate(corp, signed_by(b"x" * 32), NOW)).kind is CredentialKind.RA_CERTIFICATE
    assert challenge.asked == []


async def test_others_still_sign_for_themselves() -> None:
    nobody = Provider(CredentialKind.RA_CERTIFICATE, None)
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(nobody, says(STATIC)), signed_by(b"x" * 32), NOW)
    assert refused.value.reason is Reason.BAD_PROOF_OF_POSSESSION
    assert (await authenticate(profile(nobody, says(STATIC)), signed_by(CSR.public_key.sha256), NOW)).kind is STATIC


async def test_a_registration_authority_renews_nothing_by_scep() -> None:
    authority = says(CredentialKind.RA_CERTIFICATE)
    with pytest.raises(Rejection):
        await authenticate(profile(authority), replace(signed_by(b"x" * 32), is_renewal=True, operation="RenewalReq"), NOW)
    assert authority.asked == []


# EST

TLS, RA, BASIC, DIGEST, BEARER, ALL_OF = (
    CredentialKind.TLS_CERTIFICATE,
    CredentialKind.RA_CERTIFICATE,
    CredentialKind.BASIC,
    CredentialKind.DIGEST,
    CredentialKind.BEARER,
    CredentialKind.ALL_OF,
)
EST = replace(REQUEST, protocol=Protocol.EST, operation="simpleenroll", transaction_id="", challenge=None)
REENROLL = replace(EST, operation="simplereenroll", is_renewal=True)
EST_RENEWAL = RenewalRule(frozenset({CORP}), frozenset({"simplereenroll"}), None, timedelta(0))
OPERATIONS = ("simpleenroll", "serverkeygen", "fullcmc")


@dataclass
class InHeader(Provider):
    """A provider of an HTTP scheme."""

    def www_authenticate(self, now: datetime) -> str:
        return "Basic"


async def reason_of(corp: Profile, request: EnrollmentRequest) -> Rejection:
    with pytest.raises(Rejection) as refused:
        await authenticate(corp, request, NOW)
    return refused.value


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", [STATIC, ONE_TIME, CredentialKind.INTUNE_JWS, TLS, RA, BASIC, DIGEST, BEARER, ALL_OF])
async def test_kinds_that_speak_over_est(kind: CredentialKind, operation: str) -> None:
    assert (await authenticate(profile(says(kind)), replace(EST, operation=operation), NOW)).kind is kind


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (kind, protocol)
        for kind in (TLS, RA, BASIC, DIGEST, BEARER, ALL_OF)
        for protocol in Protocol
        if protocol is not Protocol.EST and (kind, protocol) != (RA, Protocol.SCEP)
    ],
)
async def test_kinds_that_speak_over_est_alone(kind: CredentialKind, protocol: Protocol) -> None:
    """A SCEP message may come over a TLS connection, and with a header, of whoever passes it on."""
    silent = says(kind)
    for request in (REQUEST, replace(REQUEST, operation="RenewalReq", is_renewal=True)):
        carried = replace(request, protocol=protocol, authorization="Basic x", client_certificate=b"c")
        with pytest.raises(Rejection):
            await authenticate(profile(silent, renewal=RENEWAL), carried, NOW)
    assert silent.asked == []


@pytest.mark.parametrize("kind", [STATIC, ONE_TIME, CredentialKind.INTUNE_JWS, TLS, BASIC, DIGEST, BEARER, ALL_OF])
@pytest.mark.parametrize("renewal", [None, EST_RENEWAL], ids=["no-renewal", "renewal"])
async def test_a_reenrollment_is_proved_by_a_certificate_only(kind: CredentialKind, renewal: RenewalRule | None) -> None:
    silent = says(kind)
    refused = await reason_of(profile(silent, renewal=renewal), replace(REENROLL, challenge="x", authorization="Basic x"))
    assert refused.reason is Reason.NOT_AUTHORIZED
    assert silent.asked == []


async def test_a_registration_authority_renews_for_others() -> None:
    for renewal in (None, EST_RENEWAL):
        corp = profile(refuses(CERTIFICATE, Reason.UNKNOWN_CERTIFICATE), says(RA), renewal=renewal)
        assert (await authenticate(corp, REENROLL, NOW)).kind is RA
    corp = profile(says(CERTIFICATE), Provider(RA, None), renewal=EST_RENEWAL)
    assert (await authenticate(corp, REENROLL, NOW)).kind is CERTIFICATE, "and who is none renews his own"


@pytest.mark.parametrize("reason", [Reason.NOT_AUTHORIZED, Reason.CREDENTIAL_EXPIRED, Reason.CREDENTIAL_INVALID])
@pytest.mark.parametrize("kind", [TLS, RA, ALL_OF])
async def test_a_certificate_that_does_not_serve_is_shown_unasked(kind: CredentialKind, reason: Reason) -> None:
    corp = profile(refuses(kind, reason), says(BASIC))
    assert (await authenticate(corp, EST, NOW)).kind is BASIC
    alone = await reason_of(profile(refuses(kind, reason)), EST)
    assert alone.reason is reason


@pytest.mark.parametrize(
    "reason",
    [Reason.CREDENTIAL_REVOKED, Reason.UPSTREAM_UNAVAILABLE, Reason.NAME_NOT_BOUND, Reason.RATE_LIMITED],
)
@pytest.mark.parametrize("kind", [TLS, RA, ALL_OF, BASIC])
async def test_what_ends_the_search(kind: CredentialKind, reason: Reason) -> None:
    later = says(ONE_TIME)
    assert (await reason_of(profile(refuses(kind, reason), later), EST)).reason is reason
    assert later.asked == []


@pytest.mark.parametrize("kind", [BASIC, BEARER, DIGEST])
async def test_a_header_that_expired_ends_the_search(kind: CredentialKind) -> None:
    later = says(ONE_TIME)
    assert (await reason_of(profile(refuses(kind, Reason.CREDENTIAL_EXPIRED), later), EST)).reason is Reason.CREDENTIAL_EXPIRED
    assert later.asked == []


@pytest.mark.parametrize(
    "providers",
    [
        pytest.param((), id="alone"),
        pytest.param((refuses(TLS, Reason.NOT_AUTHORIZED),), id="after-a-certificate"),
        pytest.param((refuses(TLS, Reason.CREDENTIAL_EXPIRED),), id="after-one-that-expired"),
        pytest.param((refuses(STATIC, Reason.CREDENTIAL_INVALID),), id="after-a-challenge"),
    ],
)
async def test_a_client_is_invited_to_send_its_header(providers: tuple[Provider, ...]) -> None:
    """libest and curl send it only when they are asked to."""
    corp = profile(*providers, InHeader(BASIC, None))
    assert (await reason_of(corp, EST)).reason is Reason.CREDENTIAL_MISSING
    refused = await reason_of(corp, replace(EST, authorization="Digest x"))
    assert refused.reason is (providers[0].answer.reason if providers else Reason.CREDENTIAL_MISSING)  # type: ignore[union-attr]


async def test_what_a_renewal_lacks_is_not_in_the_header() -> None:
    corp = profile(refuses(CERTIFICATE, Reason.UNKNOWN_CERTIFICATE), InHeader(BASIC, None), renewal=EST_RENEWAL)
    assert (await reason_of(corp, REENROLL)).reason is Reason.UNKNOWN_CERTIFICATE


async def test_the_answer_is_about_what_was_sent_on_purpose() -> None:
    certificate, password = (TLS, Reason.CREDENTIAL_EXPIRED, "it ended"), (BASIC, Reason.CREDENTIAL_INVALID, "wrong")
    for providers in ((certificate, password), (password, certificate)):
        refused = await reason_of(profile(*(refuses(*p) for p in providers)), EST)
        assert (refused.reason, refused.cause) == (Reason.CREDENTIAL_INVALID, "; ".join(p[2] for p in providers))


async def test_the_link_is_checked_once_it_is_known_who_asks() -> None:
    corp = replace(profile(says(BASIC), says(RA)), linking="require")
    assert (await authenticate(corp, EST, NOW)).kind is RA, "exempt"
    corp = replace(profile(says(BASIC)), linking="require")
    assert (await reason_of(corp, EST)).reason is Reason.BAD_PROOF_OF_POSSESSION
    corp = replace(profile(refuses(BASIC, Reason.CREDENTIAL_INVALID)), linking="require")
    assert (await reason_of(corp, EST)).reason is Reason.CREDENTIAL_INVALID
    for link, good in ((Linking("x", "x"), True), (Linking("x", "y"), False)):
        corp = replace(profile(says(CERTIFICATE), renewal=EST_RENEWAL), linking="if_present")
        request = replace(REENROLL, linking=link)
        if good:
            await authenticate(corp, request, NOW)
        else:
            assert (await reason_of(corp, request)).reason is Reason.BAD_PROOF_OF_POSSESSION


async def test_acme_is_asked_for_its_order_and_for_nothing_else() -> None:
    others = [kind for kind in CredentialKind if kind is not CredentialKind.ACME_ORDER]
    asked: list[CredentialKind] = []
    providers = [says(kind, asked) for kind in others]
    acme = replace(REQUEST, protocol=Protocol.ACME)
    with pytest.raises(Rejection) as refused:
        await authenticate(profile(*providers, renewal=RENEWAL), acme, NOW)
    assert (refused.value.reason, asked) == (Reason.CREDENTIAL_MISSING, [])
    requester = await authenticate(profile(*providers, says(CredentialKind.ACME_ORDER, asked), renewal=RENEWAL), acme, NOW)
    assert (requester.kind, asked) == (CredentialKind.ACME_ORDER, [CredentialKind.ACME_ORDER])


@pytest.mark.parametrize("protocol", [protocol for protocol in Protocol if protocol is not Protocol.ACME])
async def test_order_is_no_credential_of_another_protocol(protocol: Protocol) -> None:
    asked: list[CredentialKind] = []
    with pytest.raises(Rejection):
        await authenticate(profile(says(CredentialKind.ACME_ORDER, asked)), replace(REQUEST, protocol=protocol), NOW)
    assert asked == []
