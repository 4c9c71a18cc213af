"""Several credentials of one request: all of them, and no answer that tells which was a good guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection
from gateway.model import Allowance, CredentialKind, EnrollmentRequest, NameBinding, Requester, Reservation, SanKind
from gateway.pki.extensions import make_san
from gateway.ra.credentials.all_of import AllOfCredential
from gateway.ra.policy import decide
from tests.unit.ra.est import est_request
from tests.unit.ra.fleet import DAY, NOW

TLS, BASIC, OTP, STATIC = (
    CredentialKind.TLS_CERTIFICATE,
    CredentialKind.BASIC,
    CredentialKind.ONE_TIME,
    CredentialKind.STATIC,
)
POLICY = PolicyConfig.model_validate({"san": {"dns": {"patterns": [".*"]}, "ip": {"networks": ["0.0.0.0/0"]}}}, strict=False)
EVERYTHING: dict[str, Any] = {"client_certificate": b"c", "authorization": "Basic x", "challenge": "c"}


@dataclass
class Part:
    """Answers as told, and notes that it was asked."""

    kind: CredentialKind
    answer: Requester | Exception | None = None
    asked: list[CredentialKind] = field(default_factory=list)

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        self.asked.append(self.kind)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def good(kind: CredentialKind, asked: list[CredentialKind] | None = None, **changes: Any) -> Part:
    return Part(kind, Requester(f"{kind}:1", kind, **changes), asked if asked is not None else [])


def bad(kind: CredentialKind, asked: list[CredentialKind], reason: Reason = Reason.CREDENTIAL_INVALID) -> Part:
    return Part(kind, Rejection(reason, "no"), asked)


async def ask(*parts: Part, subject: str = "CN=gate-1", sans: Any = (), **carried: Any) -> Requester | None:
    return await AllOfCredential(parts).authenticate(est_request(subject, sans, **(carried or EVERYTHING)), NOW)


async def refusal(*parts: Part, **options: Any) -> Rejection:
    with pytest.raises(Rejection) as refused:
        await ask(*parts, **options)
    return refused.value


async def test_all_are_good() -> None:
    reservation, allowance = Reservation("one_time", "k", NOW + DAY), Allowance("a", 1, DAY)
    requester = await ask(
        good(TLS, claims={"certificate": "CN=a", "x": "1"}, device="d1"),
        good(OTP, reservations=(reservation,), allowances=(allowance,), owner="bob", claims={"x": "2"}, vouches_for_sid=True),
        good(BASIC, device="d2", owner="alice"),
    )
    assert requester == Requester(
        identity="all_of:tls_certificate:1+one_time:1+basic:1",
        kind=CredentialKind.ALL_OF,
        owner="bob",
        vouches_for_sid=True,
        reservations=(reservation,),
        allowances=(allowance,),
        device="d1",
        factors=frozenset({TLS, OTP, BASIC}),
        also_bound=(NameBinding(), NameBinding()),
        claims={"certificate": "CN=a", "x": "1"},
    )
    assert requester.proved_by(OTP)
    assert not requester.proved_by(STATIC)


@pytest.mark.parametrize("missing", EVERYTHING)
async def test_one_is_missing(missing: str) -> None:
    """Then nobody is asked: a guess at one part tells nothing."""
    asked: list[CredentialKind] = []
    carried = {name: value for name, value in EVERYTHING.items() if name != missing}
    assert await ask(good(BASIC, asked), good(TLS, asked), good(OTP, asked), **carried) is None
    assert asked == []


async def test_a_part_that_sees_nothing_ends_it() -> None:
    asked: list[CredentialKind] = []
    assert await ask(Part(TLS, None, asked), good(BASIC, asked)) is None
    assert asked == [TLS]


@pytest.mark.parametrize("other", [TLS, OTP, CredentialKind.BEARER])
@pytest.mark.parametrize("guessed", [BASIC, STATIC, CredentialKind.DIGEST])
async def test_what_can_be_guessed_is_looked_at_last(guessed: CredentialKind, other: CredentialKind) -> None:
    asked: list[CredentialKind] = []
    refused = await refusal(good(guessed, asked), bad(other, asked, Reason.CREDENTIAL_EXPIRED))
    assert (refused.reason, asked) == (Reason.CREDENTIAL_EXPIRED, [other])
    asked.clear()
    refused = await refusal(bad(guessed, asked), good(other, asked))
    assert (refused.reason, asked) == (Reason.CREDENTIAL_INVALID, [other, guessed])


@pytest.mark.parametrize(
    ("first", "second", "subject", "sans", "passes"),
    [
        pytest.param(NameBinding(common_name="a"), NameBinding(), "CN=a", (), True, id="one-binds"),
        pytest.param(NameBinding(common_name="a"), NameBinding(), "CN=b", (), False, id="the-first-binds"),
        pytest.param(NameBinding(), NameBinding(common_name="a"), "CN=b", (), False, id="the-second-binds"),
        pytest.param(NameBinding(common_name="a"), NameBinding(common_name="b"), "CN=a", (), False, id="they-differ"),
        pytest.param(NameBinding(common_name="a"), NameBinding(subject="CN=a,O=x"), "CN=a,O=x", (), True, id="they-agree"),
        pytest.param(
            NameBinding(sans=frozenset({(SanKind.DNS, "a.example")}), san_kinds=frozenset({SanKind.DNS})),
            NameBinding(sans=frozenset()),
            "CN=a",
            (make_san(SanKind.DNS, "a.example"),),
            False,
            id="no-sans-for-the-second",
        ),
        pytest.param(
            NameBinding(sans=frozenset({(SanKind.DNS, "a.example")}), san_kinds=frozenset({SanKind.DNS})),
            NameBinding(sans=frozenset({(SanKind.DNS, "a.example"), (SanKind.IP, "192.0.2.1")})),
            "CN=a",
            (make_san(SanKind.DNS, "a.example"), make_san(SanKind.IP, "192.0.2.1")),
            True,
            id="sans-of-two-kinds",
        ),
    ],
)
async def test_every_binding_binds(first: NameBinding, second: NameBinding, subject: str, sans: Any, passes: bool) -> None:
    requester = await ask(good(TLS, binding=first), good(BASIC, binding=second), subject=subject, sans=sans, **EVERYTHING)
    assert requester is not None
    decision = decide(POLICY, est_request(subject, sans).csr, requester, NOW, None)
    assert (decision.grant is not None) is passes
    assert {v.reason for v in decision.violations} == (set() if passes else {Reason.NAME_NOT_BOUND})


async def test_a_requester_of_another_kind() -> None:
    assert (await refusal(Part(TLS, Requester("basic:1", BASIC)), good(BASIC))).reason is Reason.NOT_AUTHORIZED
    assert (await refusal(Part(TLS, Requester("", TLS)), good(BASIC))).reason is Reason.NOT_AUTHORIZED


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((), id="nothing"),
        pytest.param((BASIC,), id="one"),
        pytest.param((BASIC, CredentialKind.ALL_OF), id="composed-of-composed"),
        pytest.param((BASIC, CredentialKind.CERTIFICATE), id="a-renewal"),
    ],
)
def test_what_cannot_be_composed(kinds: tuple[CredentialKind, ...]) -> None:
    with pytest.raises(ValueError, match="all_of"):
        AllOfCredential(tuple(map(good, kinds)))
