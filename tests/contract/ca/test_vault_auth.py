"""Logins at Vault: each method, tokens that are renewed, refused and replaced, and logins that are not tried too often."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.interfaces import AuthFailed, IssueRequest, NotSent
from gateway.ca.vault import VaultCA
from gateway.errors import ConfigurationError
from gateway.model import Grant, SanKind
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, pem_to_ders
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.contract.ca.conftest import NewRequest
from tests.contract.ca.fake_vault import DEFAULT_POLICY, FakeVault, read_policy, serve
from tests.contract.ca.vault_site import POLICY, ROLE, SUBJECT, connect, create, secret

TOKEN = {"type": "token", "token": secret("TOKEN")}


@pytest.fixture
async def vault(hierarchy: Hierarchy) -> AsyncIterator[FakeVault]:
    async with serve(FakeVault(hierarchy)) as fake:
        await fake.set_role("devices", **ROLE)
        yield fake


@pytest.fixture
def request_(new_request: NewRequest) -> IssueRequest:
    return new_request(subject_der=parse_name_text(SUBJECT).der)


async def use(ca: VaultCA, request: IssueRequest) -> None:
    await ca.start()
    try:
        await ca.issue(request)
    finally:
        await ca.close()


async def test_token(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    token = await vault.new_token(POLICY)
    await use(create(vault.url, chain, TOKEN, {"TOKEN": token + "\n"}), request_)
    assert token in vault.tokens, "a token that was given is not ours to revoke"


async def test_approle_gives_its_token_back(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    async with connect(vault, chain) as ca:
        await ca.issue(request_)
        assert len(vault.tokens) == 2
    assert len(vault.tokens) == 1
    assert vault.logins == 1


async def test_kubernetes_reads_the_token_again(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("jwt-1\n")
    vault.service_accounts["jwt-2"] = DEFAULT_POLICY | read_policy(POLICY)
    auth = {"type": "kubernetes", "role": "gateway", "token": str(path)}
    ca = create(vault.url, chain, auth, {})
    path.write_text("jwt-2\n")
    await use(ca, request_)
    path.write_text("jwt-3\n")
    with pytest.raises(AuthFailed, match="auth/kubernetes was refused"):
        await use(create(vault.url, chain, auth, {}), request_)
    path.unlink()
    with pytest.raises(AuthFailed, match="token cannot be used"):
        await use(create(vault.url, chain, auth, {}), request_)


async def test_client_certificate(hierarchy: Hierarchy, chain: tuple[bytes, ...], request_: IssueRequest, tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = server_identity(hierarchy)
    pair.write_bytes(certificate + key)
    tls.load_cert_chain(pair)
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(cadata=hierarchy.root.certificate.decode())
    tls.load_verify_locations(cadata=hierarchy.issuing.certificate.decode())
    async with serve(FakeVault(hierarchy, certificate_policy=DEFAULT_POLICY | read_policy(POLICY)), tls) as vault:
        await vault.set_role("devices", **ROLE)
        files = {"root.pem": hierarchy.root.certificate, "client.pem": certificate}
        connection = {
            "anchors": "root.pem",
            "client_certificate": {"certificate": "client.pem", "key": secret("KEY")},
        }
        ca = create(vault.url, chain, {"type": "cert", "role": "gw"}, {"KEY": key.decode()}, files=files, connection=connection)
        await use(ca, request_)
    with pytest.raises(ConfigurationError, match="client_certificate is missing"):
        create("https://127.0.0.1:1", chain, {"type": "cert"}, {})


def server_identity(hierarchy: Hierarchy) -> tuple[bytes, bytes]:
    """A certificate, with the issuing CA's, and key for 127.0.0.1, both ways."""
    key, now = generate_private_key("ec-p256"), datetime.now(UTC).replace(microsecond=0)
    [issuing] = pem_to_ders(hierarchy.issuing.certificate)
    issuer = Issuer.from_certificate(issuing, load_private_key(hierarchy.issuing.key))
    sans, ekus = (make_san(SanKind.IP, "127.0.0.1"),), (eku_oid("serverAuth"), eku_oid("clientAuth"))
    grant = Grant(parse_name_text("CN=peer").der, sans, ("digitalSignature",), ekus, now, now + timedelta(days=1))
    leaf = build_certificate(issuer, new_serial(), grant, public_key_der(key))
    return der_to_pem(leaf) + hierarchy.issuing.certificate, serialize_private_key(key)


async def test_a_token_is_renewed_at_half_its_life(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    vault.token_ttl = 2.0
    async with connect(vault, chain) as ca:
        await ca.issue(request_)
        await asyncio.sleep(3.2)
        await ca.issue(request_)
    assert vault.renewals >= 2
    assert vault.logins == 1


async def test_a_token_that_cannot_be_renewed_is_replaced(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    vault.token_ttl = 2.0
    async with connect(vault, chain) as ca:
        await ca.issue(request_)
        for token in vault.tokens.values():
            token.renewable = False
        await asyncio.sleep(2.4)
        await ca.issue(request_)
    assert vault.logins == 2


async def test_one_new_login_for_a_refused_token(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ca.vault_auth.FRESH", 0.0)
    async with connect(vault, chain) as ca:
        await ca.issue(request_)
        del vault.tokens[list(vault.tokens)[-1]]
        await asyncio.gather(*(ca.issue(request_) for _ in range(8)))
        assert vault.logins == 2


async def test_a_right_that_is_missing_is_no_reason_to_log_in_again(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    policy = 'path "pki/roles/devices" { capabilities = ["read"] }'
    async with connect(vault, chain, policy=policy) as ca:
        for _ in range(3):
            with pytest.raises(AuthFailed, match="no right to this path"):
                await ca.issue(request_)
    assert vault.logins == 1


async def test_a_given_token_that_is_refused(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    with pytest.raises(AuthFailed, match="refuses the token"):
        await use(create(vault.url, chain, TOKEN, {"TOKEN": "hvs.old"}), request_)


async def test_refused_logins_rest(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    auth = {"type": "approle", "role_id": secret("ROLE_ID"), "secret_id": secret("SECRET_ID")}
    ca = create(vault.url, chain, auth, {"ROLE_ID": "a", "SECRET_ID": "b"})
    await ca.start()
    for _ in range(5):
        with pytest.raises(AuthFailed, match="invalid role or secret ID") as caught:
            await ca.issue(request_)
        assert 50 < caught.value.retry_after <= 60
    await ca.close()
    assert vault.logins == 1


async def test_a_vault_that_comes_back_is_logged_in_at(
    vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest
) -> None:
    vault.sealed = True
    async with connect(vault, chain) as ca:
        for _ in range(3):
            with pytest.raises(NotSent):
                await ca.issue(request_)
        vault.sealed = False
        await ca.issue(request_)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"role": None}, "is missing: only sign_verbatim needs none", id="no role"),
        pytest.param({"mount": "../sys"}, "is no mount", id="mount that climbs"),
        pytest.param({"mount": "a//b"}, "is no mount", id="mount with an empty part"),
        pytest.param({"role": "a/b"}, "without slashes", id="role with a slash"),
        pytest.param({"issuer": ".."}, "without slashes", id="issuer that climbs"),
        pytest.param({"namespace": "a\r\nX: y"}, "no header can carry", id="namespace that ends the header"),
    ],
)
def test_configurations_that_cannot_work(chain: tuple[bytes, ...], fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        create("http://127.0.0.1:1", chain, TOKEN, {"TOKEN": "x"}, **fields)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize("token", ["a\nb", "ä", "\x00"], ids=repr)
def test_tokens_that_no_header_can_carry(chain: tuple[bytes, ...], token: str) -> None:
    with pytest.raises(ConfigurationError, match="no token or identifier has"):
        create("http://127.0.0.1:1", chain, TOKEN, {"TOKEN": token})


async def test_namespace(vault: FakeVault, chain: tuple[bytes, ...], request_: IssueRequest) -> None:
    async with connect(vault, chain, namespace="team/a") as ca:
        await ca.issue(request_)
    assert vault.namespaces == {"team/a"}
