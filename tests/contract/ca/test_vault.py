"""The vault backend against the paths that it uses: what is certified, what failures mean, and that nothing is issued twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamRejected,
)
from gateway.ca.vault import VaultCA
from gateway.ca.verify import verify_issued
from gateway.errors import Rejection
from gateway.model import Extension, RequestForm, RevocationReason, SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from tests.contract.ca.conftest import NewRequest
from tests.contract.ca.fake_vault import ROOT_TOKEN, FakeVault, serve
from tests.contract.ca.vault_site import POLICY, ROLE, SUBJECT, connect, create, secret

SIGN = "pki/sign/devices"


@pytest.fixture
async def vault(hierarchy: Hierarchy) -> AsyncIterator[FakeVault]:
    async with serve(FakeVault(hierarchy)) as fake:
        await fake.set_role("devices", **ROLE)
        yield fake


@pytest.fixture
async def ca(vault: FakeVault, chain: tuple[bytes, ...]) -> AsyncIterator[VaultCA]:
    async with connect(vault, chain) as made:
        yield made


@pytest.fixture
def request_(new_request: NewRequest) -> IssueRequest:
    return new_request(subject_der=parse_name_text(SUBJECT).der)


def check(request: IssueRequest, issued: UpstreamIssued, ca: VaultCA) -> None:
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)


def verbatim_request(key: PrivateKey, request: IssueRequest) -> IssueRequest:
    """Ask for exactly what is granted."""
    csr = build_csr(key, request.grant.subject_der, request.grant.sans)
    return replace(request, request=csr, public_key=public_key_der(key))


def signatures(vault: FakeVault) -> int:
    """How often a signature was asked for."""
    return sum(path.startswith(("pki/sign", "pki/issuer")) and method == "POST" for method, path in vault.seen)


# What is certified


async def test_certifies_the_grant_and_nothing_of_the_request(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    issued = await ca.issue(request_)
    check(request_, issued, ca)
    assert issued.chain == ca.chain()
    assert len(vault.signed) == 1
    leaf = parse_certificate(issued.certificate)
    assert {san.kind for san in leaf.sans} == {SanKind.DNS, SanKind.IP, SanKind.URI, SanKind.UPN, SanKind.EMAIL}
    assert leaf.not_after == request_.grant.not_after


@pytest.mark.parametrize(
    ("subject", "role"),
    [
        pytest.param("CN=a.example.org", {"organization": []}, id="common name only"),
        pytest.param("serialNumber=77,CN=a,O=Example AG", {}, id="serial number after the common name"),
        pytest.param("UID=u1,CN=a,O=Example AG", {}, id="user ID last"),
        pytest.param("CN=a,OU=x,O=Example AG,C=CH", {"country": ["CH"], "ou": ["x"]}, id="own attributes in order"),
        pytest.param("", {"organization": []}, id="no subject"),
    ],
)
async def test_subjects_that_a_role_makes(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, subject: str, role: dict[str, object]
) -> None:
    await vault.set_role("devices", **{**ROLE, **role})
    grant = replace(request_.grant, subject_der=parse_name_text(subject).der)
    csr = replace(request_, grant=grant)
    check(csr, await ca.issue(csr), ca)


async def test_names_of_the_request_where_they_are_the_granted_ones(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, device_key: PrivateKey
) -> None:
    await vault.set_role("devices", **{**ROLE, "use_csr_common_name": True, "use_csr_sans": True})
    request = verbatim_request(device_key, request_)
    check(request, await ca.issue(request), ca)


async def test_sid_is_said_as_its_uri(ca: VaultCA, request_: IssueRequest) -> None:
    grant = replace(request_.grant, sans=(make_san(SanKind.SID, "S-1-5-21-1-2-3-1001"),))
    request = replace(request_, grant=grant)
    check(request, await ca.issue(request), ca)


@pytest.mark.parametrize("issuer", [None, "spare"])
@pytest.mark.parametrize("role", [None, "devices"])
async def test_sign_verbatim(
    vault: FakeVault,
    chain: tuple[bytes, ...],
    request_: IssueRequest,
    device_key: PrivateKey,
    role: str | None,
    issuer: str | None,
) -> None:
    policy = POLICY + 'path "pki/sign-verbatim*" { capabilities = ["update"] }\npath "pki/issuer/*" { capabilities = ["update"] }'
    async with connect(vault, chain, policy=policy, role=role, issuer=issuer, sign_verbatim=True) as ca:
        request = verbatim_request(device_key, request_)
        check(request, await ca.issue(request), ca)
        assert Capability.FIND in ca.capabilities
    tail = "sign-verbatim" + (f"/{role}" if role else "")
    assert ("POST", f"pki/issuer/spare/{tail}" if issuer else f"pki/{tail}") in vault.seen


async def test_no_usages_verbatim(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest, device_key: PrivateKey
) -> None:
    policy = POLICY + 'path "pki/sign-verbatim" { capabilities = ["update"] }'
    async with connect(vault, chain, policy=policy, role=None, sign_verbatim=True) as ca:
        plain = replace(request_, grant=replace(request_.grant, key_usage=(), ekus=()))
        request = verbatim_request(device_key, plain)
        check(request, await ca.issue(request), ca)


async def test_ttl_where_the_role_forbids_a_date(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    await vault.set_role("devices", **{**ROLE, "not_after_bound": "forbid"})
    check(request_, await ca.issue(request_), ca)
    check(request_, (await ca.find(request_)) or pytest.fail("not found"), ca)


# What cannot come out right is not sent


@pytest.mark.parametrize(
    ("role", "grant", "words"),
    [
        pytest.param(
            {"use_csr_common_name": True},
            {},
            "the role makes the subject CN=wished,O=Example AG",
            id="common name of the request",
        ),
        pytest.param({"use_csr_sans": True}, {}, "use_csr_sans", id="names of the request"),
        pytest.param({"organization": []}, {}, "the role makes the subject", id="organization not the role's"),
        pytest.param(
            {}, {"subject_der": parse_name_text("O=Example AG,CN=a").der}, "the role makes", id="subject in another order"
        ),
        pytest.param(
            {}, {"subject_der": parse_name_text("CN=a,DC=org,O=Example AG").der}, "the role makes", id="domain component"
        ),
        pytest.param(
            {"require_cn": True, "organization": []}, {"subject_der": parse_name_text("").der}, "require_cn", id="no common name"
        ),
        pytest.param({"key_usage": ["DigitalSignature"]}, {}, "key_usage is digitalSignature", id="key usage"),
        pytest.param({"client_flag": False}, {}, "extended key usage is serverAuth", id="client flag missing"),
        pytest.param(
            {}, {"ekus": (eku_oid("clientAuth"),)}, "server_flag and client_flag are set by default", id="flags by default"
        ),
        pytest.param(
            {},
            {"sans": (make_san(SanKind.DIRECTORY_NAME, "CN=x"),)},
            "no alternative name of type directory_name",
            id="directory",
        ),
        pytest.param({}, {"sans": (make_san(SanKind.DNS, "a_b.example.org"),)}, "leaves out", id="underscore"),
        pytest.param({}, {"extensions": (Extension("1.2.3.4", False, b"\x05\x00"),)}, "no extension 1.2.3.4", id="extension"),
    ],
)
async def test_conflicts_with_a_role_are_refused_before_anything_is_signed(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, role: dict[str, object], grant: dict[str, object], words: str
) -> None:
    await vault.set_role("devices", **{**ROLE, **role})
    with pytest.raises(UpstreamRejected, match=words):
        await ca.issue(replace(request_, grant=replace(request_.grant, **grant)))  # type: ignore[arg-type] # fields by name
    assert signatures(vault) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "subject is taken from the request", id="subject"),
        pytest.param({"subject_der": parse_name_text("CN=wished").der}, "alternative names are taken", id="names"),
        pytest.param(
            {
                "subject_der": parse_name_text("CN=wished").der,
                "sans": (make_san(SanKind.DNS, "wished.example.org"),),
                "extensions": (Extension("1.2.3.4", False, b"\x05\x00"),),
            },
            "1.2.3.4 is not in the request",
            id="extension",
        ),
    ],
)
async def test_conflicts_verbatim(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest, changes: dict[str, object], words: str
) -> None:
    async with connect(vault, chain, role=None, sign_verbatim=True) as ca:
        with pytest.raises(UpstreamRejected, match=words):
            await ca.issue(replace(request_, grant=replace(request_.grant, **changes)))  # type: ignore[arg-type] # fields by name
    assert signatures(vault) == 0


async def test_a_role_that_may_not_be_read_is_tried_and_judged_by_what_comes_back(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    policy = 'path "pki/sign/devices" { capabilities = ["update"] }'
    async with connect(vault, chain, policy=policy) as ca:
        check(request_, await ca.issue(request_), ca)
        assert Capability.FIND not in ca.capabilities
        await vault.set_role("devices", **{**ROLE, "client_flag": False})
        issued = await ca.issue(request_)
        with pytest.raises(Rejection, match="its extended key usage is"):
            check(request_, issued, ca)
        with pytest.raises(UnknownResult, match="may not be read"):
            await ca.find(request_)


# What failures mean


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        pytest.param("429", Unavailable, "answered 429", id="too many requests"),
        pytest.param("503", Unavailable, "answered 503", id="unavailable"),
        pytest.param("473", Unavailable, "standby", id="performance standby"),
        pytest.param("307", Unavailable, "points elsewhere", id="standby that redirects"),
    ],
)
async def test_statuses_that_say_nothing_was_done(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, fault: str, error: type[UpstreamError], words: str
) -> None:
    vault.faults.append(fault)
    with pytest.raises(error, match=words) as caught:
        await ca.issue(request_)
    assert isinstance(caught.value, NotSent)
    assert caught.value.retry_after == (17 if fault in {"429", "503"} else 30)
    assert vault.signed == []


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        pytest.param("reset before", 0, id="reset before signing"),
        pytest.param("500 before", 0, id="500 before signing"),
        pytest.param("403 page", 0, id="a proxy's 403"),
        pytest.param("stall before", 0, id="stall before signing"),
        pytest.param("stall after", 1, id="stall after signing"),
        pytest.param("reply lost", 1, id="reply lost after signing"),
        pytest.param("500 after", 1, id="500 after signing"),
        pytest.param("502 after", 1, id="a proxy's 502"),
        pytest.param("html", 1, id="HTML with 200"),
        pytest.param("no data", 1, id="JSON without data"),
        pytest.param("no certificate", 1, id="broken PEM"),
        pytest.param("huge", 1, id="an answer without end"),
        pytest.param("deep", 1, id="endlessly nested JSON"),
        pytest.param("cut", 1, id="reset in the middle"),
    ],
)
async def test_doubts_are_cleared_up_by_find(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, fault: str, count: int
) -> None:
    vault.faults.append(fault)
    with pytest.raises(UnknownResult):
        await ca.issue(replace(request_, timeout=1.5) if "stall" in fault else request_)
    assert len(vault.signed) == count
    found = await ca.find(request_)
    assert (found is not None) == bool(count)
    issued = found or await ca.issue(request_)
    check(request_, issued, ca)
    assert len(vault.signed) == 1
    assert signatures(vault) == 2 - count


async def test_none_is_said_only_when_nothing_can_come_any_more(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    async with connect(vault, chain, quiet=0.6) as ca:
        vault.faults.append("reset before")
        with pytest.raises(UnknownResult):
            await ca.issue(request_)
        with pytest.raises(UnknownResult, match="may still come"):
            await ca.find(request_)
        await asyncio.sleep(0.6)
        assert await ca.find(request_) is None
    async with connect(vault, chain, quiet=0.6) as another_worker:
        with pytest.raises(UnknownResult, match="may still come"):
            await another_worker.find(request_)


async def test_wrong_key_is_not_accepted_and_not_found(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    vault.faults.append("wrong key")
    issued = await ca.issue(request_)
    with pytest.raises(Rejection, match="another key"):
        check(request_, issued, ca)
    assert await ca.find(request_) is None


@pytest.mark.parametrize("fault", ["truncated chain", "foreign chain"])
async def test_chains(ca: VaultCA, vault: FakeVault, request_: IssueRequest, fault: str) -> None:
    vault.faults.append(fault)
    issued = await ca.issue(request_)
    if fault == "truncated chain":  # the pinned chain is meant
        check(request_, issued, ca)
    else:
        with pytest.raises(Rejection):
            check(request_, issued, ca)


async def test_a_definite_refusal(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    await vault.set_role("devices", **{**ROLE, "allowed_domains": ["example.net"]})
    with pytest.raises(UpstreamRejected, match="not allowed by this role"):
        await ca.issue(request_)


async def test_a_role_or_mount_that_is_missing_sends_nothing(
    ca: VaultCA, vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    del vault.roles["devices"]
    with pytest.raises(NotSent, match="no role devices"):
        await ca.issue(request_)
    policy = 'path "other/*" { capabilities = ["update", "read"] }'
    async with connect(vault, chain, policy=policy, mount="other") as elsewhere:
        with pytest.raises(NotSent, match="no role devices at other"):
            await elsewhere.issue(request_)
    policy = 'path "pki/sign/devices" { capabilities = ["update"] }'
    async with connect(vault, chain, policy=policy) as blind:
        with pytest.raises(NotSent, match="unknown role: devices"):
            await blind.issue(request_)


async def test_sealed(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    await ca.health()
    vault.sealed = True
    with pytest.raises(Unavailable, match="sealed"):
        await ca.health()
    with pytest.raises(Unavailable):
        await ca.issue(request_)


async def test_nobody_there(chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    auth = {"type": "token", "token": secret("TOKEN")}
    ca = create("http://127.0.0.1:9", chain, auth, {"TOKEN": "hvs.x"})
    await ca.start()
    for ask in (ca.issue, ca.find):
        with pytest.raises(NotSent):
            await ask(request_)
    with pytest.raises(NotSent):
        await ca.health()
    assert [trial.good for trial in await ca.check()] == [False]
    await ca.close()


# What became of a request


async def test_find_keeps_requests_for_one_key_apart(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    first = await ca.issue(request_)
    later = replace(request_, grant=replace(request_.grant, not_after=request_.grant.not_after + timedelta(seconds=1)))
    assert await ca.find(later) is None
    second = await ca.issue(later)
    for request, issued in ((request_, first), (later, second)):
        found = await ca.find(request)
        assert found is not None
        assert found.certificate == issued.certificate


async def test_find_says_nothing_where_a_role_sets_the_date(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    fixed = request_.grant.not_after - timedelta(days=1)
    await vault.set_role("devices", **{**ROLE, "not_after": f"{fixed:%Y-%m-%dT%H:%M:%SZ}"})
    await ca.issue(request_)
    with pytest.raises(UnknownResult, match="none is plainly that of this request"):
        await ca.find(request_)


async def test_find_does_not_give_out_what_was_revoked(ca: VaultCA, request_: IssueRequest) -> None:
    issued = await ca.issue(request_)
    serial = parse_certificate(issued.certificate).serial
    await ca.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    with pytest.raises(UnknownResult, match="has been revoked"):
        await ca.find(request_)


async def test_nothing_is_kept(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    assert Capability.FIND in ca.capabilities
    await vault.set_role("devices", **{**ROLE, "no_store": True})
    issued = await ca.issue(request_)
    assert Capability.FIND not in ca.capabilities
    with pytest.raises(UnknownResult, match="keeps no certificates"):
        await ca.find(request_)
    serial = parse_certificate(issued.certificate).serial
    await ca.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    assert len(vault.revoked) == 1


async def test_certificates_that_may_not_be_listed(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    policy = "\n".join(line for line in POLICY.splitlines() if "certs" not in line)
    async with connect(vault, chain, policy=policy) as ca:
        with pytest.raises(UnknownResult, match="may not be listed"):
            await ca.find(request_)
        assert Capability.FIND not in ca.capabilities
        check(request_, await ca.issue(request_), ca)


async def test_each_certificate_is_read_once(ca: VaultCA, vault: FakeVault, new_request: NewRequest) -> None:
    subject = parse_name_text(SUBJECT).der
    requests = [new_request(key=generate_private_key("ec-p256"), subject_der=subject) for _ in range(20)]
    for request in requests:
        await ca.issue(request)
    assert await ca.find(requests[7]) is not None
    reads = sum("pki/cert/" in path for _, path in vault.seen)
    assert reads == 2 + 20 + 1
    assert await ca.find(requests[8]) is not None
    assert sum("pki/cert/" in path for _, path in vault.seen) == reads + 1


async def test_too_many_certificates_to_look_through(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = [await ca.issue(request_) for _ in range(6)]
    assert len(issued) == 6
    monkeypatch.setattr("gateway.ca.vault_search.MAX_READ", 3)
    with pytest.raises(UnknownResult, match=r"5 of 8 certificates .* not looked through yet"):
        await ca.find(request_)
    with pytest.raises(UnknownResult, match="2 of 8"):
        await ca.find(request_)
    assert await ca.find(request_) is not None
    monkeypatch.setattr("gateway.ca.vault_search.MAX_STORED", 7)
    with pytest.raises(UnknownResult, match="keeps 8 certificates"):
        await ca.find(request_)


@pytest.mark.parametrize("serial", ["../../sys/seal", "zz:zz", "", "00" * 70, "0a:" * 65 + "00"])
async def test_listed_serials_are_not_trusted(
    ca: VaultCA, vault: FakeVault, request_: IssueRequest, serial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ca.issue(request_)
    monkeypatch.setattr(vault, "stored", {serial: b""})
    with pytest.raises(NotSent, match="no serial number"):
        await ca.find(request_)


# Revocation, CRL, chain


@pytest.mark.parametrize(
    "reason", [RevocationReason.KEY_COMPROMISE, RevocationReason.CESSATION_OF_OPERATION], ids=lambda r: r.name
)
async def test_revoking_twice_is_success(ca: VaultCA, vault: FakeVault, request_: IssueRequest, reason: RevocationReason) -> None:
    issued = await ca.issue(request_)
    serial = parse_certificate(issued.certificate).serial
    for _ in range(2):
        await ca.revoke(issued.certificate, serial, reason, datetime.now(UTC))
    crl = await ca.crl()
    assert crl is not None
    assert parse_crl(crl).serials == {serial}


async def test_revoking_what_vault_does_not_know(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    issued = await ca.issue(request_)
    leaf = parse_certificate(issued.certificate)
    vault.stored.clear()
    await ca.revoke(issued.certificate, leaf.serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    assert len(vault.revoked) == 1


async def test_revocation_that_fails_may_be_sent_again(ca: VaultCA, vault: FakeVault, request_: IssueRequest) -> None:
    issued = await ca.issue(request_)
    serial = parse_certificate(issued.certificate).serial
    vault.sealed = True
    with pytest.raises(NotSent):
        await ca.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    vault.sealed = False
    await ca.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))


async def test_chain(ca: VaultCA, chain: tuple[bytes, ...]) -> None:
    assert ca.chain() == chain
    assert await ca.fetch_chain() == chain
    assert RequestForm.PKCS10 in ca.accepts
    assert ca.queue == timedelta(hours=1)


# Trials


async def test_trials_of_a_good_setup(ca: VaultCA) -> None:
    trials = await ca.check()
    assert [trial for trial in trials if trial.advice or not trial.good] == []
    assert [trial.subject for trial in trials] == ["connection", "clock", "chain", "login", *["rights"] * 4, "role"]


async def test_trials_say_what_to_do(vault: FakeVault, chain: tuple[bytes, ...]) -> None:
    await vault.set_role("devices", **{**ROLE, "no_store": True})
    policy = 'path "pki/roles/devices" { capabilities = ["read"] }'
    async with connect(vault, chain, policy=policy) as ca:
        found = [(t.subject, t.good, t.advice) for t in await ca.check() if t.advice]
    lack = 'add to its policy: path "pki/{}" {{ capabilities = ["{}"] }}'
    assert found == [
        ("rights", False, lack.format("sign/devices", "update")),
        ("rights", False, lack.format("revoke", "update")),
        ("rights", True, lack.format("certs", "list")),
        ("role", True, "set no_store=false, with auto-tidy for what has ended"),
    ]


@pytest.mark.parametrize(
    ("role", "words"),
    [
        pytest.param({"not_after": "2030-01-01T00:00:00Z"}, "fixes not_after", id="fixed date"),
        pytest.param({"use_csr_sans": True}, "takes names from the request", id="names of the request"),
    ],
)
async def test_trials_warn_of_roles(ca: VaultCA, vault: FakeVault, role: dict[str, object], words: str) -> None:
    await vault.set_role("devices", **{**ROLE, **role})
    [warning] = [trial for trial in await ca.check() if trial.advice]
    assert warning.good
    assert words in warning.finding


async def test_trials_of_other_chains(vault: FakeVault, chain: tuple[bytes, ...]) -> None:
    for pinned, good in ((chain[1:], True), ((), False)):
        async with connect(vault, pinned, sign_verbatim=True, role=None) as ca:
            [trial] = [trial for trial in await ca.check() if trial.subject == "chain"]
        assert trial.good == good
        assert trial.advice


async def test_trials_speak_of_a_root_token(vault: FakeVault, chain: tuple[bytes, ...]) -> None:
    ca = create(vault.url, chain, {"type": "token", "token": secret("TOKEN")}, {"TOKEN": ROOT_TOKEN})
    await ca.start()
    [warning] = [trial for trial in await ca.check() if trial.advice]
    await ca.close()
    assert "the policy root" in warning.finding


async def test_no_secret_is_logged_or_told(
    vault: FakeVault,
    chain: tuple[bytes, ...],
    request_: IssueRequest,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = {"type": "approle", "role_id": secret("ROLE_ID"), "secret_id": secret("SECRET_ID")}
    ca = create(vault.url, chain, auth, {"ROLE_ID": "role-7", "SECRET_ID": "sesame-7"})
    await ca.start()
    with pytest.raises(AuthFailed) as caught:
        await ca.issue(request_)
    told = f"{caught.value!r} {await ca.check()!r} {vars(ca)!r} {vars(ca._session)!r}"
    await ca.close()
    assert "sesame" not in told + caplog.text + "".join(capsys.readouterr())


async def test_requests_at_once(ca: VaultCA, vault: FakeVault, new_request: NewRequest) -> None:
    subject = parse_name_text(SUBJECT).der
    requests = [new_request(subject_der=subject) for _ in range(40)]
    began = time.monotonic()
    issued = await asyncio.gather(*map(ca.issue, requests))
    assert time.monotonic() - began < 20
    assert len({one.certificate for one in issued}) == 40
    assert vault.logins == 1
