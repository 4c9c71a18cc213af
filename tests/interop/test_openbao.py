"""The vault backend against a real OpenBao or Vault: everything that the fake of its paths is trusted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamIssued,
    UpstreamRejected,
)
from gateway.ca.vault import VaultCA
from gateway.ca.verify import verify_issued
from gateway.errors import Rejection
from gateway.model import RevocationReason, SanKind
from gateway.pki.certificate import parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import generate_private_key
from tests.contract.ca.vault_site import POLICY, ROLE, connect, create, documented_policy, secret
from tests.peers.openbao import OpenBaoPeer, find_program, running
from tests.peers.opening import make_request

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(120)]

SANS = (
    make_san(SanKind.DNS, "device-7.example.org"),
    make_san(SanKind.DNS, "*.device-7.example.org"),
    make_san(SanKind.IP, "192.0.2.7"),
    make_san(SanKind.IP, "2001:db8::7"),
    make_san(SanKind.URI, "urn:example:7,8"),
    make_san(SanKind.UPN, "device@example.org"),
    make_san(SanKind.EMAIL, "device@example.org"),
    make_san(SanKind.SID, "S-1-5-21-1-2-3-1001"),
)
BLIND = 'path "pki/sign/devices" { capabilities = ["update"] }'
"""A policy by which the role cannot be seen: whatever Vault makes of a request comes back."""


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBaoPeer]:
    program = find_program()
    if program is None:
        pytest.skip("neither bao nor vault is installed")
    with running(program, tmp_path_factory.mktemp("openbao") / "site") as peer:
        yield peer


@pytest.fixture(autouse=True)
def role(bao: OpenBaoPeer) -> None:
    bao.write_role("devices", **ROLE)


@pytest.fixture
async def ca(bao: OpenBaoPeer) -> AsyncIterator[VaultCA]:
    async with connect(bao, bao.chain) as made:
        yield made


def device(**changes: object) -> IssueRequest:
    fields: dict[str, object] = {
        "subject": "CN=Gerät 7/3,O=Example AG",
        "sans": SANS,
        "usage": ("digitalSignature", "keyAgreement"),
        "asked": ("CN=wished", (make_san(SanKind.DNS, "wished.example.org"),)),
    }
    return make_request(**(fields | changes))  # type: ignore[arg-type] # fields by name


def check(request: IssueRequest, issued: UpstreamIssued, ca: VaultCA) -> None:
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)


@asynccontextmanager
async def deaf_proxy(bao: OpenBaoPeer) -> AsyncIterator[str]:
    """Pass everything on, but cut the connection when the answer to a request for a signature comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", bao.port)
        signing = False

        async def forward() -> None:
            nonlocal signing
            while data := await reader.read(65_536):
                signing = signing or b"/pki/sign" in data
                back.write(data)
                await back.drain()
            back.write_eof()

        task = asyncio.create_task(forward())
        try:
            while data := await there.read(65_536):
                if signing:
                    writer.transport.abort()
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for stream in (writer, back):
                stream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_certifies_what_was_granted(ca: VaultCA) -> None:
    request = device()
    check(request, await ca.issue(request), ca)
    rsa = device(key=generate_private_key("rsa-2048"))
    check(rsa, await ca.issue(rsa), ca)


@pytest.mark.parametrize(
    ("subject", "role"),
    [
        pytest.param("CN=a.example.org", {"organization": []}, id="common name only"),
        pytest.param("serialNumber=77,CN=a,O=Example AG", {}, id="serial number after the common name"),
        pytest.param("UID=u1,CN=a,O=Example AG", {}, id="user ID last"),
        pytest.param("CN=a,OU=y+OU=x,O=Example AG,C=CH", {"country": ["CH"], "ou": ["x", "y"]}, id="own attributes in order"),
        pytest.param("", {"organization": []}, id="no subject"),
    ],
)
async def test_subjects_that_a_role_makes(ca: VaultCA, bao: OpenBaoPeer, subject: str, role: dict[str, object]) -> None:
    await bao.set_role("devices", **{**ROLE, **role})
    request = device(subject=subject)
    check(request, await ca.issue(request), ca)


async def test_all_attributes_of_a_role_in_one_order_or_the_other(ca: VaultCA, bao: OpenBaoPeer) -> None:
    address = {"locality": ["Zug"], "province": ["ZH"], "street_address": ["Weg 1"], "postal_code": ["8000"]}
    await bao.set_role("devices", **{**ROLE, **address, "country": ["CH"], "ou": ["x"]})
    fit = []
    for subject in (
        "CN=a,OU=x,O=Example AG,postalCode=8000,street=Weg 1,L=Zug,ST=ZH,C=CH",  # Go 1.26
        "CN=a,postalCode=8000,street=Weg 1,ST=ZH,L=Zug,OU=x,O=Example AG,C=CH",
    ):
        request = device(subject=subject)
        issued = await ca.issue(request)
        try:
            check(request, issued, ca)
        except Rejection:
            continue
        fit.append(subject)
    assert len(fit) == 1


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        pytest.param({"use_csr_common_name": True}, {}, id="common name of the request"),
        pytest.param({"use_csr_sans": True}, {}, id="names of the request"),
        pytest.param({"organization": []}, {}, id="organization not the role's"),
        pytest.param({}, {"subject": "O=Example AG,CN=a"}, id="subject in another order"),
        pytest.param({}, {"subject": "CN=a,DC=org,O=Example AG"}, id="domain component"),
        pytest.param({"require_cn": True, "organization": []}, {"subject": ""}, id="no common name"),
        pytest.param({"key_usage": ["DigitalSignature"]}, {}, id="key usage"),
        pytest.param({"client_flag": False}, {}, id="client flag missing"),
        pytest.param({}, {"ekus": (eku_oid("clientAuth"),)}, id="flags by default"),
        pytest.param({}, {"sans": (make_san(SanKind.DIRECTORY_NAME, "CN=x"),)}, id="directory name"),
        pytest.param({}, {"sans": (make_san(SanKind.DNS, "a_b.example.org"),)}, id="underscore"),
    ],
)
async def test_what_is_refused_beforehand_would_have_come_out_wrong(
    ca: VaultCA, bao: OpenBaoPeer, role: dict[str, object], changes: dict[str, object]
) -> None:
    await bao.set_role("devices", **{**ROLE, **role})
    request = device(**changes)
    with pytest.raises(UpstreamRejected, match="cannot certify what was granted"):
        await ca.issue(request)
    assert await asyncio.to_thread(bao.issued_to, request.public_key) == []
    async with connect(bao, bao.chain, policy=BLIND) as blind:
        with pytest.raises((Rejection, UpstreamRejected)):
            check(request, await blind.issue(request), blind)


async def test_names_of_the_request_where_they_are_the_granted_ones(ca: VaultCA, bao: OpenBaoPeer) -> None:
    await bao.set_role("devices", **{**ROLE, "use_csr_common_name": True, "use_csr_sans": True})
    request = device(asked=None, sans=tuple(san for san in SANS if san.kind is not SanKind.UPN))
    check(request, await ca.issue(request), ca)
    with_other_name = device(asked=None)
    check(with_other_name, await ca.issue(with_other_name), ca)


@pytest.mark.parametrize("issuer", [None, "spare"])
@pytest.mark.parametrize("role", [None, "devices"])
async def test_sign_verbatim(bao: OpenBaoPeer, role: str | None, issuer: str | None) -> None:
    paths = (
        "pki/sign-verbatim",
        "pki/sign-verbatim/devices",
        "pki/issuer/spare/sign-verbatim",
        "pki/issuer/spare/sign-verbatim/devices",
    )
    policy = POLICY + "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in paths)
    sans = (*SANS[:5], make_san(SanKind.DIRECTORY_NAME, "CN=x"))
    async with connect(bao, bao.chain, policy=policy, role=role, issuer=issuer, sign_verbatim=True) as ca:
        for request in (device(asked=None, sans=sans), device(asked=None), device(asked=None, usage=(), ekus=())):
            check(request, await ca.issue(request), ca)
        request = device(asked=None, usage=("nonRepudiation",), ekus=(eku_oid("smartcardLogon"),))
        issued = await ca.issue(request)
        check(request, issued, ca)
        found = await ca.find(request)
        assert found is not None
        assert found.certificate == issued.certificate
        assert [trial for trial in await ca.check() if not trial.good] == []


async def test_a_date_that_the_role_does_not_take(ca: VaultCA, bao: OpenBaoPeer) -> None:
    await bao.set_role("devices", **{**ROLE, "not_after_bound": "forbid", "max_ttl": "8000h"})
    if "not_after_bound" not in (await asyncio.to_thread(bao.ask, "pki/roles/devices"))["data"]:
        pytest.skip("this server has no not_after_bound")
    request = device()
    issued = await ca.issue(request)
    check(request, issued, ca)
    found = await ca.find(request)
    assert found is not None
    assert found.certificate == issued.certificate


async def test_beyond_the_end_of_the_ca(ca: VaultCA) -> None:
    with pytest.raises(UpstreamRejected, match="beyond the expiration of the CA"):
        await ca.issue(device(days=7300))


async def test_a_key_that_the_role_does_not_take(ca: VaultCA, bao: OpenBaoPeer) -> None:
    await bao.set_role("devices", **{**ROLE, "key_type": "rsa"})
    with pytest.raises(UpstreamRejected, match="role requires keys of type rsa"):
        await ca.issue(device())


async def test_a_lost_answer_is_found_and_nothing_is_issued_twice(bao: OpenBaoPeer) -> None:
    request = device()
    async with deaf_proxy(bao) as url, connect(replace(bao, port=int(url.rpartition(":")[2])), bao.chain) as ca:
        # the login is made at the same address: only signatures get no answer
        with pytest.raises(UnknownResult):
            await ca.issue(request)
        found = await ca.find(request)
    assert found is not None
    async with connect(bao, bao.chain) as ca:
        check(request, found, ca)
        again = await ca.find(request)
    assert again is not None
    assert again.certificate == found.certificate
    assert await asyncio.to_thread(bao.issued_to, request.public_key) == [found.certificate]


async def test_none_is_said_late_and_then_the_request_may_be_sent(bao: OpenBaoPeer) -> None:
    request = device()
    async with connect(bao, bao.chain, quiet=1.0) as ca:
        with pytest.raises(UnknownResult, match="may still come"):
            await ca.find(request)
        await asyncio.sleep(1)
        assert await ca.find(request) is None
        check(request, await ca.issue(request), ca)


async def test_requests_for_one_key_are_kept_apart(ca: VaultCA) -> None:
    first = device()
    issued = await ca.issue(first)
    later = replace(first, grant=replace(first.grant, not_after=first.grant.not_after + timedelta(seconds=1)))
    assert await ca.find(later) is None
    other = await ca.issue(later)
    for request, one in ((first, issued), (later, other)):
        found = await ca.find(request)
        assert found is not None
        assert found.certificate == one.certificate


@pytest.mark.parametrize("no_store", [False, True])
async def test_revoking_twice_is_success(ca: VaultCA, bao: OpenBaoPeer, no_store: bool) -> None:
    await bao.set_role("devices", **{**ROLE, "no_store": no_store})
    request = device()
    issued = await ca.issue(request)
    assert (Capability.FIND in ca.capabilities) == (not no_store)
    serial = parse_certificate(issued.certificate).serial
    for _ in range(2):
        await ca.revoke(issued.certificate, serial, RevocationReason.KEY_COMPROMISE, datetime.now(UTC))
    crl = await ca.crl()
    assert crl is not None
    assert serial in parse_crl(crl).serials
    if not no_store:
        with pytest.raises(UnknownResult, match="has been revoked"):
            await ca.find(request)


async def test_revoking_without_having_seen_the_role(bao: OpenBaoPeer, ca: VaultCA) -> None:
    await bao.set_role("devices", **{**ROLE, "no_store": True})
    issued = await ca.issue(device())
    serial = parse_certificate(issued.certificate).serial
    async with connect(bao, bao.chain) as another_worker:
        await another_worker.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
        crl = await another_worker.crl()
    assert crl is not None
    assert serial in parse_crl(crl).serials


async def test_chain_and_trials(bao: OpenBaoPeer) -> None:
    async with connect(bao, bao.chain, policy=documented_policy()) as ca:
        assert await ca.fetch_chain() == bao.chain
        await ca.health()
        trials = await ca.check()
        assert [trial for trial in trials if trial.advice or not trial.good] == []
        assert [trial.subject for trial in trials] == ["connection", "clock", "chain", "login", *["rights"] * 4, "role"]
        request = device()
        issued = await ca.issue(request)
        check(request, issued, ca)
        assert await ca.find(request) is not None
        serial = parse_certificate(issued.certificate).serial
        await ca.revoke(issued.certificate, serial, RevocationReason.SUPERSEDED, datetime.now(UTC))
    async with connect(bao, bao.chain, policy=BLIND) as ca:
        found = [(trial.subject, trial.good) for trial in await ca.check() if trial.advice]
        assert found == [("rights", False), ("rights", True), ("rights", True), ("role", True)]


async def test_rights_and_places_that_are_missing(bao: OpenBaoPeer) -> None:
    async with connect(bao, bao.chain, policy='path "pki/roles/*" { capabilities = ["read"] }') as ca:
        with pytest.raises(AuthFailed, match="no right to this path"):
            await ca.issue(device())
    async with connect(bao, bao.chain, policy=POLICY + 'path "pki/roles/none" { capabilities = ["read"] }', role="none") as ca:
        with pytest.raises(NotSent, match="no role none"):
            await ca.issue(device())
    async with connect(bao, bao.chain, policy='path "pki/sign/none" { capabilities = ["update"] }', role="none") as ca:
        with pytest.raises(NotSent, match="unknown role: none"):
            await ca.issue(device())
    async with connect(bao, bao.chain, policy='path "*" { capabilities = ["read", "update"] }', mount="nowhere") as ca:
        with pytest.raises(NotSent, match="Vault has no"):
            await ca.issue(device())


async def test_tokens_are_renewed_and_replaced(bao: OpenBaoPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ca.vault_auth.FRESH", 0.0)
    role_id, secret_id = await asyncio.to_thread(bao.make_approle, POLICY, token_ttl="2s", token_max_ttl="5s")
    auth = {"type": "approle", "role_id": secret("ROLE_ID"), "secret_id": secret("SECRET_ID")}
    ca = create(bao.url, bao.chain, auth, {"ROLE_ID": role_id, "SECRET_ID": secret_id})
    await ca.start()
    for _ in range(4):  # beyond its longest life
        request = device()
        check(request, await ca.issue(request), ca)
        await asyncio.sleep(2)
    token = ca._session._token
    assert token is not None
    await asyncio.to_thread(bao.ask, "auth/token/revoke", {"token": token.text})
    request = device()
    check(request, await ca.issue(request), ca)
    await ca.close()


async def test_a_given_token(bao: OpenBaoPeer) -> None:
    await asyncio.to_thread(bao.ask, "sys/policies/acl/given", {"policy": POLICY})
    made = await asyncio.to_thread(bao.ask, "auth/token/create-orphan", {"policies": ["given"], "period": "2s"})
    token = made["auth"]["client_token"]
    ca = create(bao.url, bao.chain, {"type": "token", "token": secret("TOKEN")}, {"TOKEN": token})
    await ca.start()
    await asyncio.sleep(3.5)
    request = device()
    check(request, await ca.issue(request), ca)
    await ca.close()
    await asyncio.to_thread(bao.ask, "auth/token/lookup", {"token": token})
    refused = create(bao.url, bao.chain, {"type": "token", "token": secret("TOKEN")}, {"TOKEN": "hvs.none"})
    await refused.start()
    with pytest.raises(AuthFailed):
        await refused.issue(device())
    await refused.close()


async def test_a_wrong_secret_rests(bao: OpenBaoPeer) -> None:
    role_id, _ = await asyncio.to_thread(bao.make_approle, POLICY)
    auth = {"type": "approle", "role_id": secret("ROLE_ID"), "secret_id": secret("SECRET_ID")}
    ca = create(bao.url, bao.chain, auth, {"ROLE_ID": role_id, "SECRET_ID": "wrong"})
    await ca.start()
    for _ in range(2):
        with pytest.raises(AuthFailed, match="invalid role or secret ID"):
            await ca.issue(device())
    await ca.close()


async def test_client_certificate(tmp_path: Path) -> None:
    program = find_program()
    assert program is not None
    from tests.contract.ca.test_vault_auth import server_identity

    with running(program, tmp_path / "site", tls=True) as peer:
        await peer.set_role("devices", **ROLE)
        certificate, key = server_identity(peer.hierarchy)
        peer.ask("sys/policies/acl/gateway", {"policy": POLICY})
        ca_pem = peer.hierarchy.issuing.certificate.decode()
        peer.ask(
            "auth/cert/certs/gateway", {"certificate": ca_pem, "token_policies": ["gateway"], "allowed_common_names": ["peer"]}
        )
        files = {"anchors.pem": peer.anchors.read_bytes(), "client.pem": certificate}
        connection = {"anchors": "anchors.pem", "client_certificate": {"certificate": "client.pem", "key": secret("KEY")}}
        auth = {"type": "cert", "role": "gateway"}
        ca = create(peer.url, peer.chain, auth, {"KEY": key.decode()}, files=files, connection=connection)
        await ca.start()
        request = device()
        check(request, await ca.issue(request), ca)
        await ca.close()
        stranger = create(
            peer.url, peer.chain, {"type": "cert", "role": "nobody"}, {"KEY": key.decode()}, files=files, connection=connection
        )
        await stranger.start()
        with pytest.raises(AuthFailed):
            await stranger.issue(device())
        await stranger.close()
        # sealed for good: this server ends here
        ca = create(peer.url, peer.chain, auth, {"KEY": key.decode()}, files=files, connection=connection)
        await ca.start()
        peer.ask("sys/seal", {}, "PUT")
        with pytest.raises(Unavailable, match="sealed"):
            await ca.health()
        with pytest.raises(Unavailable):
            await ca.issue(device())
        await ca.close()


async def test_extensions_of_the_cas_own(bao: OpenBaoPeer, ca: VaultCA) -> None:
    await bao.set_role("devices", **{**ROLE, "policy_identifiers": ["1.2.3.4"], "basic_constraints_valid_for_non_ca": True})
    request = device()
    check(request, await ca.issue(request), ca)
