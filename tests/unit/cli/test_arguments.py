"""What an operator may mistype: every command answers with a sentence and the right exit status, never with a traceback."""

from pathlib import Path

import pytest

import gateway.cli.status
from gateway.cli import COMMANDS, DEBUG_VARIABLE
from gateway.pki.certificate import der_to_pem
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from tests.unit.cli.conftest import RunMain

KEY = generate_private_key("ec-p256")
CSR = der_to_pem(build_csr(KEY, parse_name_text("CN=x").der), "CERTIFICATE REQUEST")
ENROLL = ("test-enroll", "--profile", "demo")

WRONG = [
    ("nope", "No such command"),
    ("serve --log-level foo", "--log-level"),
    ("serve --log-format foo", "--log-format"),
    ("serve --workers 0", "--workers"),
    ("init --ra-key foo x", "--ra-key"),
    ("init --http-port 99999 x", "--http-port"),
    ("config check --format foo", "--format"),
    ("upstream test", "Missing argument"),
    ("upstream list --format foo", "--format"),
    ("config nope", "No such command"),
    ("challenge new", "Missing argument"),
    ("challenge new nope", "profile"),
    ("challenge new demo --ttl 99d", "lives at most 7"),
    ("challenge new demo --ttl 5", "--ttl: must be a whole number with a unit"),
    ("challenge new demo --ttl 0s", "ttl"),
    ("challenge new demo --subject garbage", "subject"),
    ("challenge new demo --san garbage", "sans"),
    ("challenge new demo --subject CN=a --san ip:x", "ip:x"),
    ("challenge new demo --san dns:a --no-sans", "exclude each other"),
    ("challenge list --profile nope", "There is no profile nope; there are: demo."),
    ("challenge list --limit 0", "--limit"),
    ("challenge revoke ''", "'' is no ID"),
    ("eab create", "Missing argument"),
    ("eab create demo --mode foo", "mode foo is not possible here"),
    ("eab list --profile nope", "There is no profile nope"),
    ("eab revoke ''", "'' is no ID"),
    ("cmp-secret create", "Missing argument"),
    ("cmp-secret create nope", "profile"),
    ("cmp-secret create demo --uses 0", "--uses"),
    ("cmp-secret create demo --uses 99999", "at most 10 certificates"),
    ("cmp-secret create demo --ttl 999d", "lives at most"),
    ("cmp-secret create demo --ttl 5", "--ttl: must be a whole number with a unit"),
    ("cmp-secret create demo --reference ü", "a reference number is up to 64"),
    ("cmp-secret create demo --secret-file none.bin", "none.bin no such file"),
    ("cmp-secret create demo --san dns:a --no-sans", "exclude each other"),
    ("cmp-secret create demo --san dns:a", "name the subject too"),
    ("cmp-secret create demo --subject garbage", "subject"),
    ("cmp-secret list --profile nope", "There is no profile nope"),
    ("cmp-secret revoke ''", "'' is no ID"),
    ("acme accounts --profile nope", "There is no profile nope"),
    ("acme accounts deactivate ''", "'' is no ID"),
    ("acme orders --profile nope", "There is no profile nope"),
    ("acme orders --status foo", "status must be of: pending, ready"),
    ("acme orders --status pending,ready", "status must be one"),
    ("incident declare", "Say which certificates"),
    ("incident list --limit 0", "--limit"),
    ("incident withdraw ''", "'' is no ID"),
    ("password hash", "Missing argument"),
    ("password hash a:b", "USER: must be printable, without a colon"),
    ("password digest a:b", "USER: must be printable, without a colon"),
    ("requests list --state blah", "state must be of: "),
    ("requests list --profile nope", "There is no profile nope"),
    ("requests show a/b", "'a/b' is no ID"),
    ("requests approve ''", "'' is no ID"),
    ("requests resolve x", "Choose one of"),
    ("requests resolve x --reissue --fail", "Choose one of"),
    ("requests resolve x --attach none.pem", "none.pem no such file"),
    ("certs list --profile nope", "There is no profile nope"),
    ("certs list --expires-before garbage", "expires_before must be a time"),
    ("certs list --serial xyz", "serial must be a serial in hex"),
    ("certs list --limit 10001", "--limit"),
    ("certs show ''", "'' is no ID"),
    ("certs revoke ''", "'' is no ID"),
    ("certs revive ''", "'' is no ID"),
    ("certs revoke 01 --reason bogus", "reason must be one of"),
    ("certs export --format xml", "--format"),
    ("policy explain nope csr.pem", "profile nope"),
    ("policy explain demo csr.pem --subject garbage", "--subject: "),
    ("audit export --after 99999999999999999999", "--after"),
    ("audit export --format xml", "--format"),
    ("status --format xml", "--format"),
    ("doctor --format xml", "--format"),
    ("version --format xml", "--format"),
    ("test-enroll", "--profile"),
    ("test-enroll --profile nope", "There is no profile nope with SCEP; there are: demo."),
    ("test-enroll --profile demo --protocol telnet", "--protocol"),
    ("test-enroll --profile demo --subject garbage", "--subject: "),
    ("test-enroll --profile demo --dns a_b..c", "--dns: "),
    ("test-enroll --profile demo --url http://127.0.0.1:notaport/x", "--url: "),
    ("test-enroll --profile demo --url ftp://127.0.0.1/x", "--url: "),
    ("test-enroll --profile demo --url garbage", "--url: "),
    ("test-enroll --profile demo --trust csr.pem", "--trust: "),
    ("test-enroll --profile demo --trust none.pem", "none.pem no such file"),
    ("test-enroll --profile demo --out csr.pem", "--out: "),
    ("test-enroll --profile demo --wait -1", "--wait"),
    ("test-enroll --profile demo --key dsa", "--key"),
    ("test-enroll --profile demo --key ec-p256", "--key ec-p256: such a key cannot decrypt the reply"),
    ("test-enroll --profile demo --client-cert csr.pem", "--client-cert and --client-key go together"),
    ("test-enroll --profile demo --client-key csr.pem", "--client-cert and --client-key go together"),
    ("test-enroll --profile demo --client-cert none.pem --client-key csr.pem", "--client-cert: none.pem no such file"),
    ("test-enroll --profile demo --client-cert csr.pem --client-key csr.pem", "--client-cert: "),
    ("test-enroll --profile demo --user demo --password-file csr.pem", "--user goes with --protocol est"),
    ("test-enroll --profile demo --renew", "--renew with est or cmp"),
    ("test-enroll --profile demo --reference 1 --secret-file csr.pem", "go with --protocol cmp"),
    ("test-enroll --profile demo --protocol cmp --reference 1", "--reference and --secret-file go together"),
    ("test-enroll --profile demo --protocol cmp --challenge x", "--challenge and --user prove nothing by CMP"),
    ("test-enroll --profile demo --protocol cmp --renew", "what is renewed is the certificate of --client-cert"),
    ("test-enroll --protocol est --profile nope", "There is no profile nope with EST; there are: demo."),
    ("test-enroll --protocol est --profile demo --user demo", "--user and --password-file go together"),
    ("test-enroll --protocol est --profile demo --user a:b --password-file csr.pem", "--user: "),
    ("test-enroll --protocol est --profile demo --user demo --password-file none.pem", "none.pem no such file"),
    ("test-enroll --protocol est --profile demo --renew", "--renew: what is renewed is the certificate of --client-cert"),
    ("test-enroll --protocol est --profile demo --url http://127.0.0.1/", "--url: EST is spoken over https only"),
    (
        "test-enroll --protocol est --profile demo --url https://127.0.0.1/scep",
        "--url: https://127.0.0.1/scep is no URL of an EST",
    ),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_arguments_are_usage_errors(installed: Path, run_main: RunMain, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "csr.pem").write_bytes(CSR)
    done = run_main(installed, *(word.strip("'") for word in line.split(" ")))
    assert done.code == 2, done.err
    assert said in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert done.out == ""


FAILED = [
    ("certs show 0123", "there is no"),
    ("certs revoke 0123", "there is no"),
    ("requests show x", "there is no request"),
    ("requests approve x", "there is no request"),
    ("requests deny x", "there is no request"),
    ("requests resolve x --fail", "there is no request"),
    ("challenge revoke x", "there is no"),
    ("eab revoke x", "there is no external account"),
    ("cmp-secret revoke x", "there is no shared secret with this ID"),
    ("certs revive 0123", "there is no"),
    ("acme accounts deactivate x", "there is no account"),
    ("incident withdraw x", "there is no incident"),
    ("crl publish nope", "there is no upstream CA nope"),
    ("config diff", "No server answers at"),
    ("reload", "answers"),
    ("restart", "answers"),
    ("policy explain demo none.pem", "none.pem"),
    ("test-enroll --profile demo --challenge x", "does not answer"),
]


@pytest.mark.parametrize(("line", "said"), FAILED, ids=[line for line, _ in FAILED])
def test_what_cannot_be_done_fails_with_a_sentence(state: Path, run_main: RunMain, line: str, said: str) -> None:
    done = run_main(state, *line.split(" "))
    assert (done.code, "Traceback" in done.err) == (1, False), done.err
    assert said in done.err


READS_CONFIGURATION = [
    "serve",
    "config check",
    "config show",
    "config diff",
    "challenge new demo",
    "challenge list",
    "eab list",
    "cmp-secret list",
    "acme accounts",
    "acme orders",
    "incident list",
    "upstream list",
    "upstream test any",
    "upstream chain any",
    "requests list",
    "certs list",
    "certs export",
    "crl publish",
    "policy explain demo csr.pem",
    "store check",
    "audit verify",
    "audit export",
    "doctor",
    "status",
    "test-enroll --profile demo",
]


@pytest.mark.parametrize("line", READS_CONFIGURATION)
@pytest.mark.parametrize(
    "text", [pytest.param(None, id="missing"), pytest.param("server: [", id="not YAML"), pytest.param("a: 1", id="wrong")]
)
def test_a_configuration_that_cannot_be_used_is_3(run_main: RunMain, tmp_path: Path, line: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / "profiles.yaml").write_text(text)
    done = run_main(tmp_path, *line.split(" "))
    assert (done.code, "Traceback" in done.err) == (3, False), done.err
    assert "profiles.yaml" in done.err


def test_nothing_is_asked_before_all_arguments_are_read(installed: Path, run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_main(installed, *ENROLL, "--out", str(tmp_path / "file"))
    assert (done.code, done.out) == (2, "")
    assert "--out" in done.err


@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_foresaw_is_one_sentence(
    installed: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def fail(*_: object) -> Path:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(gateway.cli.status, "AdminClient", fail)
    if debug:
        monkeypatch.setenv(DEBUG_VARIABLE, "1")
    done = run_main(installed, "status")
    assert done.code == 1
    assert f"This failed unexpectedly: ZeroDivisionError: by nothing; {DEBUG_VARIABLE}=1 shows where." in done.err


def test_every_command_is_in_a_table() -> None:
    lines = [line for line, _ in (*WRONG, *FAILED)] + READS_CONFIGURATION
    assert {line.split(" ")[0] for line in lines} >= COMMANDS.keys() - {"init", "version"}
