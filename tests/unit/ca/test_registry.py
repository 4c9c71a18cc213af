"""Upstream CAs from configuration: what cannot sign is refused with sentences that say what to do."""

import json
import stat
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from pydantic import TypeAdapter

from gateway.ca.circuit import GuardedCA
from gateway.ca.exec import ExecCA
from gateway.ca.interfaces import Capability, NotSent, UnknownResult, UpstreamCA, UpstreamError, UpstreamIssued
from gateway.ca.local import CaUrls, LocalCA
from gateway.ca.registry import create, create_unpinned
from gateway.config.fields import SecretSource
from gateway.config.load import Sources
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.errors import ConfigurationError
from gateway.model import RequestForm, UpstreamCAName
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial
from gateway.pki.keys import public_key_der, serialize_private_key
from tests.unit.ca.conftest import DAY, NOW, key_of, make_issuing, make_request, make_root

ROOT = make_root()
ISSUING = make_issuing(ROOT)
ISSUING_PEM, ROOT_PEM = der_to_pem(ISSUING.der), der_to_pem(ROOT.der)
KEY_PEM = serialize_private_key(ISSUING.key)
LOCAL: dict[str, object] = {"type": "local", "certificate": "ca.pem", "key": {"file": "ca.key"}, "chain": ["root.pem"]}
EXEC: dict[str, object] = {"type": "exec", "command": ["/bin/true"], "chain": ["ca.pem", "root.pem"]}
SCRIPT = {**EXEC, "command": ["./sign", "--fast"]}
FILES = {"ca.pem": ISSUING_PEM, "root.pem": ROOT_PEM}


def make(
    raw: dict[str, object],
    files: dict[str, bytes] | None = None,
    secrets: dict[str, bytes] | None = None,
    folder: Path = Path("/etc/gw"),
) -> UpstreamCA:
    config: UpstreamCAConfig = TypeAdapter(UpstreamCAConfig).validate_python(raw, strict=False)
    held = {
        str(SecretSource.model_validate({"file": name}, strict=False)): data
        for name, data in (secrets or {"ca.key": KEY_PEM}).items()
    }
    sources = Sources(folder / "profiles.yaml", "profiles.yaml", b"", files or FILES, held)
    return create(UpstreamCAName("corp"), config, sources, CaUrls("http://x/crl/corp.crl"), clock=lambda: NOW)


def problems(*args: object, **kwargs: object) -> str:
    with pytest.raises(ConfigurationError) as raised:
        make(*args, **kwargs)  # type: ignore[arg-type] # as make takes them
    assert all(problem.startswith("upstream_cas.corp") for problem in raised.value.problems)
    text = str(raised.value)
    assert "PRIVATE KEY" not in text
    return text


async def test_local() -> None:
    ca = make(LOCAL)
    assert isinstance(ca, LocalCA)
    assert ca.chain() == (ISSUING.der, ROOT.der)
    revokes = Capability.REVOKE | Capability.REVIVE | Capability.CRL
    assert ca.capabilities == Capability.FIND | Capability.CHOOSES_SERIAL | revokes
    assert ca.accepts == {RequestForm.PKCS10, RequestForm.CRMF}
    assert isinstance(await ca.issue(make_request(ca.new_serial())), UpstreamIssued)


def test_local_without_crl() -> None:
    assert Capability.CRL not in make({**LOCAL, "crl": None}).capabilities


def test_bundle_that_repeats_the_chain() -> None:
    ca = make(LOCAL, {"ca.pem": ISSUING_PEM + ROOT_PEM, "root.pem": ROOT_PEM})
    assert ca.chain() == (ISSUING.der, ROOT.der)


def test_encrypted_key() -> None:
    encrypted = ISSUING.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    raw = {**LOCAL, "key_password": {"file": "password"}}
    make(raw, secrets={"ca.key": encrypted, "password": b"pw"})
    assert "the password is wrong" in problems(raw, secrets={"ca.key": encrypted, "password": b"nope"})
    assert "no password was given" in problems(LOCAL, secrets={"ca.key": encrypted})


@pytest.mark.parametrize(
    ("files", "key", "sentence"),
    [
        pytest.param({"ca.pem": b"junk"}, KEY_PEM, "upstream_cas.corp.certificate: ca.pem does not hold readable PEM", id="junk"),
        pytest.param(
            {"ca.pem": KEY_PEM}, KEY_PEM, "does not hold readable PEM certificates", id="key in the place of a certificate"
        ),
        pytest.param({"root.pem": b"\x30\x03\x02\x01\x01"}, KEY_PEM, "root.pem does not hold", id="broken chain"),
        pytest.param({}, b"junk", "upstream_cas.corp.key: file ca.key: not a PEM private key", id="junk key"),
        pytest.param({}, ISSUING_PEM, "upstream_cas.corp.key: file ca.key: not a PEM private key", id="certificate as key"),
        pytest.param(
            {}, serialize_private_key(key_of("ec-p256", "other")), "does not belong to the certificate", id="another key"
        ),
        pytest.param(
            {"ca.pem": der_to_pem(make_issuing(ROOT, is_ca=False, usage=("digitalSignature",)).der)},
            KEY_PEM,
            "it is not a CA certificate",
            id="leaf as CA",
        ),
        pytest.param(
            {"root.pem": der_to_pem(make_root(label="b").der)}, KEY_PEM, "was not issued by the next", id="another root"
        ),
    ],
)
def test_local_that_cannot_sign(files: dict[str, bytes], key: bytes, sentence: str) -> None:
    assert sentence in problems(LOCAL, {**FILES, **files}, {"ca.key": key})


def test_every_fault_is_said_at_once() -> None:
    said = problems(LOCAL, {"ca.pem": b"junk", "root.pem": b"junk"}, {"ca.key": b"junk"}).splitlines()
    assert [line.partition(": ")[0] for line in said] == [
        "upstream_cas.corp.certificate",
        "upstream_cas.corp.chain[0]",
        "upstream_cas.corp.key",
    ]


def test_newest_crl_is_read_where_it_is_kept() -> None:
    ca = make(EXEC)
    assert Capability.CRL not in ca.capabilities


@pytest.mark.parametrize(
    ("operations", "capabilities"),
    [
        pytest.param([], Capability.NONE, id="none"),
        pytest.param(["find"], Capability.FIND, id="find"),
        pytest.param(["find", "poll", "revoke"], Capability.FIND | Capability.POLL | Capability.REVOKE, id="all"),
    ],
)
def test_exec_operations(operations: list[str], capabilities: Capability) -> None:
    ca = make({**EXEC, "operations": operations})
    assert isinstance(ca, GuardedCA)
    assert isinstance(ca.ca, ExecCA)
    assert ca.capabilities == capabilities
    assert ca.accepts == {RequestForm.PKCS10}


@pytest.mark.parametrize(
    ("forms", "accepts"),
    [
        pytest.param({}, {RequestForm.PKCS10}, id="unasked"),
        pytest.param({"forms": ["pkcs10", "crmf"]}, {RequestForm.PKCS10, RequestForm.CRMF}, id="both"),
    ],
)
def test_exec_forms(forms: dict[str, object], accepts: set[RequestForm]) -> None:
    assert make({**EXEC, **forms}).accepts == accepts


def test_exec_chain_must_hold_together() -> None:
    assert "upstream_cas.corp.chain" in problems({**EXEC, "chain": ["root.pem", "ca.pem"]})


def script(folder: Path, body: str) -> None:
    path = folder / "sign"
    path.write_text(f"#!{sys.executable} -IS\nimport json, os, sys\n{body}\n")
    path.chmod(stat.S_IRWXU)


async def test_exec_program_path_and_environment(tmp_path: Path) -> None:
    certificate = der_to_pem(ISSUING.der).decode()
    reference = "json.dumps([sys.argv[1:], os.environ['PIN'], os.environ['A'], os.environ['PATH']])"
    script(tmp_path, f"print(json.dumps({{'status': 'issued', 'certificate': {certificate!r}, 'reference': {reference}}}))")
    raw = {**SCRIPT, "environment": {"A": "b", "PIN": {"file": "pin"}}}
    ca = make(raw, secrets={"pin": b"1234"}, folder=tmp_path)
    await ca.start()
    issued = await ca.issue(make_request())
    assert isinstance(issued, UpstreamIssued)
    assert issued.reference == '[["--fast"], "1234", "b", "/usr/local/bin:/usr/bin:/bin"]'
    assert issued.chain == (ISSUING.der, ROOT.der)
    assert isinstance(ca, GuardedCA)
    assert isinstance(ca.ca, ExecCA)
    assert "1234" not in repr(ca.ca._settings)


@pytest.mark.parametrize("mode", [None, 0o600], ids=["missing", "not executable"])
def test_exec_program_that_cannot_run(tmp_path: Path, mode: int | None) -> None:
    if mode is not None:
        script(tmp_path, "")
        (tmp_path / "sign").chmod(mode)
    assert f"upstream_cas.corp.command: {tmp_path}/sign is not a program" in problems(SCRIPT, folder=tmp_path)


async def test_exec_program_that_went_away(tmp_path: Path) -> None:
    script(tmp_path, "")
    ca = make(SCRIPT, folder=tmp_path)
    (tmp_path / "sign").unlink()
    with pytest.raises(ConfigurationError, match=r"upstream_cas.corp.command: .*/sign is not a program that this user may run"):
        await ca.start()
    with pytest.raises(NotSent, match="could not be started"):
        await ca.issue(make_request())


@pytest.mark.parametrize(
    ("chain", "completed"),
    [
        pytest.param([], (ISSUING.der, ROOT.der), id="none"),
        pytest.param([ISSUING.der], (ISSUING.der, ROOT.der), id="issuing CA only"),
        pytest.param([ISSUING.der, ROOT.der], (ISSUING.der, ROOT.der), id="whole"),
        pytest.param([make_issuing(ROOT, usage=("keyCertSign",)).der], None, id="another issuing CA below our root"),
    ],
)
async def test_exec_chain_is_completed(tmp_path: Path, chain: list[bytes], completed: tuple[bytes, ...] | None) -> None:
    answer = {"status": "issued", "certificate": ISSUING_PEM.decode(), "chain": [der_to_pem(d).decode() for d in chain]}
    script(tmp_path, f"print({json.dumps(answer)!r})")
    issued = await make(SCRIPT, folder=tmp_path).issue(make_request())
    assert isinstance(issued, UpstreamIssued)
    assert issued.chain == (completed or (*chain, ROOT.der))


async def test_pending_needs_poll(tmp_path: Path) -> None:
    script(tmp_path, "print(json.dumps({'status': 'pending', 'reference': '7', 'retry_after': 60}))")
    with pytest.raises(UnknownResult, match="has no operation poll"):
        await make(SCRIPT, folder=tmp_path).issue(make_request())
    pending = await make({**SCRIPT, "operations": ["poll"]}, folder=tmp_path).issue(make_request())
    assert pending == await make({**SCRIPT, "operations": ["poll"]}, folder=tmp_path).poll(make_request(), "7")


async def test_poll_hands_the_reference_back(tmp_path: Path) -> None:
    script(
        tmp_path,
        "r = json.load(sys.stdin)\nprint(json.dumps({'status': 'rejected', 'message': r['operation'] + r['reference']}))",
    )
    with pytest.raises(Exception, match=r"^poll7$"):
        await make({**SCRIPT, "operations": ["poll"]}, folder=tmp_path).poll(make_request(), "7")


SECRET = {"file": "secret"}
PAIR = {"certificate": "pair.pem", "key": SECRET}
REMOTE: dict[str, dict[str, object]] = {
    "vault": {"url": "https://ca.example.com", "auth": {"type": "token", "token": SECRET}, "role": "devices"},
    "step-ca": {"url": "https://ca.example.com", "provisioner": {"type": "x5c", "name": "gw", "signer": PAIR}},
    "cfssl": {"url": "https://ca.example.com", "profile": "device"},
    "acme": {"directory": "https://ca.example.com/d", "account_key": SECRET, "dns": {"type": "hook", "command": ["/bin/true"]}},
    "est": {"url": "https://ca.example.com/.well-known/est", "connection": {"client_certificate": PAIR}},
    "scep": {"url": "http://ca.example.com/scep", "signer": PAIR, "ra": "pair.pem"},
}
RSA = key_of("rsa-2048", "pair")
PAIR_GRANT = make_request(not_after=NOW + 400 * DAY, key_usage=("digitalSignature", "keyEncipherment")).grant
ISSUER = Issuer.from_certificate(ISSUING.der, ISSUING.key)
PAIR_PEM = der_to_pem(build_certificate(ISSUER, new_serial(), PAIR_GRANT, public_key_der(RSA)))


def make_remote(kind: str, secret: bytes | None = None, **changes: object) -> UpstreamCA:
    raw = {"type": kind, "chain": ["ca.pem", "root.pem"], **REMOTE[kind], **changes}
    files = {**FILES, "pair.pem": PAIR_PEM, "junk.pem": b"junk"}
    token = (
        serialize_private_key(key_of("ec-p256"))
        if kind == "acme"
        else b"token"
        if kind == "vault"
        else serialize_private_key(RSA)
    )
    return make(raw, files, {"secret": secret or token})


@pytest.mark.parametrize("kind", REMOTE)
async def test_cas_beyond_this_machine(kind: str) -> None:
    ca = make_remote(kind, queue="3h")
    assert isinstance(ca, GuardedCA)
    assert (ca.name, ca.chain(), ca.queue, ca.new_serial()) == ("corp", (ISSUING.der, ROOT.der), timedelta(hours=3), None)
    assert ca.accepts == {RequestForm.PKCS10}
    assert ca.not_after_limit(NOW) == NOW + 365 * DAY
    assert Capability.CHOOSES_SERIAL not in ca.capabilities


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"chain": ["junk.pem"]}, "upstream_cas.corp.chain[0]: junk.pem does not hold readable PEM", id="no chain"),
        pytest.param({"chain": ["root.pem", "ca.pem"]}, "upstream_cas.corp.chain: the CA certificate with", id="upside down"),
    ],
)
def test_chains_that_cannot_be_pinned(kind: str, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make_remote(kind, None, **changes)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("kind", ["step-ca", "acme", "est", "scep"])
def test_keys_that_are_none(kind: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make_remote(kind, b"a secret that is no key")
    assert all(problem.startswith("upstream_cas.corp.") for problem in raised.value.problems)
    assert "a secret that is no key" not in str(raised.value)


def test_a_second_opinion_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkilint", None)
    with pytest.raises(ConfigurationError, match=r"upstream_cas\.corp\.pkilint: needs pkilint"):
        make_remote("vault", pkilint="warn")


@pytest.mark.parametrize("kind", REMOTE)
async def test_before_the_chain_is_known(kind: str) -> None:
    """What is asked for its chain does not have to be pinned, and does not fall over where it cannot be asked."""
    raw = {"type": kind, "chain": ["none.pem"], **REMOTE[kind]}
    raw |= {"directory" if kind == "acme" else "url": "http://127.0.0.1:1/.well-known/est"}
    config: UpstreamCAConfig = TypeAdapter(UpstreamCAConfig).validate_python(raw, strict=False)
    key = (
        serialize_private_key(key_of("ec-p256"))
        if kind == "acme"
        else b"token"
        if kind == "vault"
        else serialize_private_key(RSA)
    )
    held = {str(SecretSource.model_validate(SECRET, strict=False)): key}
    sources = Sources(Path("/etc/gw/profiles.yaml"), "profiles.yaml", b"", {"pair.pem": PAIR_PEM}, held)
    ca = create_unpinned(UpstreamCAName("corp"), config, sources)
    await ca.start()
    try:
        with pytest.raises(UpstreamError):
            await ca.fetch_chain()
    finally:
        await ca.close()
