"""dehydrated, a shell script: http-01, dns-01, tls-alpn-01 with `openssl s_server`, external accounts, revocation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.acme_clients import Dehydrated, read_chain
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewDehydrated = Callable[..., Dehydrated]


@pytest.fixture
def new_dehydrated(require_program: Callable[[str, str], str], tmp_path: Path) -> NewDehydrated:
    require_program("dehydrated", "dehydrated")
    return lambda site, **how: Dehydrated(tmp_path / "dehydrated", site, **how)


@pytest.fixture
def dehydrated(acme_site: AcmeSite, new_dehydrated: NewDehydrated) -> Dehydrated:
    return new_dehydrated(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    names = ("dehydrated.acme.test", "www.dehydrated.acme.test")
    acme_site.check(dehydrated.obtain(*names), *names)


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, new_dehydrated: NewDehydrated) -> None:
    dehydrated = new_dehydrated(acme_site, challenge="dns-01")
    deploy, clean = dehydrated.record('"$2"', '"$4"'), dehydrated.forget('"$2"')
    hook = dehydrated.script("hook", f'case "$1" in deploy_challenge) {deploy};; clean_challenge) {clean};; esac')
    names = ("dehydrated-dns.acme.test", "*.dehydrated-dns.acme.test")
    acme_site.check(dehydrated.obtain(*names, hook=hook), *names)


def test_proves_by_tls(acme_site: AcmeSite, new_dehydrated: NewDehydrated) -> None:
    dehydrated = new_dehydrated(acme_site, challenge="tls-alpn-01")
    pair = f'-cert "{dehydrated.folder}/alpn/$2.crt.pem" -key "{dehydrated.folder}/alpn/$2.key.pem"'
    serve = f"openssl s_server -quiet -accept 127.0.0.1:{acme_site.tls_port} -alpn acme-tls/1 {pair} </dev/null >/dev/null 2>&1 &"
    deploy = f'{serve}\necho $! > "{dehydrated.folder}/pid"; sleep 1;;'
    clean = f'kill "$(cat "{dehydrated.folder}/pid")";;'
    hook = dehydrated.script("hook", f'case "$1" in\ndeploy_challenge)\n{deploy}\nclean_challenge)\n{clean}\nesac')
    acme_site.check(dehydrated.obtain("dehydrated-tls.acme.test", hook=hook), "dehydrated-tls.acme.test")


def test_external_account(acme_site: AcmeSite, new_dehydrated: NewDehydrated) -> None:
    bound = new_dehydrated(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("dehydrated-bound.acme.test"), "dehydrated-bound.acme.test")


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_dehydrated: NewDehydrated) -> None:
    """It reads `externalAccountRequired` in the directory."""
    done = new_dehydrated(acme_site, profile="bound").dehydrated("--register", "--accept-terms", check=False)
    assert done.returncode != 0
    assert "external account" in done.stdout


def test_knows_its_account_by_its_key(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    """It asks for its account's URL with onlyReturnExisting (RFC 8555 §7.3.1)."""
    dehydrated.dehydrated("--register", "--accept-terms")
    for known in (dehydrated.folder / "accounts").glob("*/account_id.json"):
        known.unlink()
    acme_site.check(dehydrated.obtain("dehydrated-known.acme.test"), "dehydrated-known.acme.test")


def test_certifies_a_key_of_its_own(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    name = "dehydrated-csr.acme.test"
    new = (
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-nodes",
        "-keyout",
        "own.key",
        "-subj",
        f"/CN={name}",
    )
    dehydrated.run("openssl", *new, "-addext", f"subjectAltName=DNS:{name}", "-out", "own.csr")
    dehydrated.dehydrated("--register", "--accept-terms")
    done = dehydrated.dehydrated("--signcsr", dehydrated.folder / "own.csr", "--full-chain")
    (dehydrated.folder / "own.pem").write_text(done.stdout[done.stdout.index("-----BEGIN") :])
    acme_site.check(read_chain(dehydrated.folder / "own.pem"), name)


def test_renews(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    first = dehydrated.obtain("dehydrated-renews.acme.test")[0]
    assert dehydrated.obtain("dehydrated-renews.acme.test")[0].serial_number != first.serial_number


def test_revokes(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    leaf = dehydrated.obtain("dehydrated-revoked.acme.test")[0]
    dehydrated.dehydrated("--revoke", dehydrated.path("dehydrated-revoked.acme.test", "cert.pem"))
    assert leaf.serial_number in acme_site.revoked()


def test_deactivates(acme_site: AcmeSite, dehydrated: Dehydrated) -> None:
    dehydrated.obtain("dehydrated-first.acme.test")
    dehydrated.dehydrated("--deactivate")
    again = dehydrated.dehydrated("--cron", "--domain", "dehydrated-second.acme.test", check=False)
    assert again.returncode != 0


def test_no_certificate_without_proof(acme_site: AcmeSite, dehydrated: Dehydrated, tmp_path: Path) -> None:
    hook = dehydrated.script("hook", f'case "$1" in deploy_challenge) rm -f {acme_site.front.challenges}/*;; esac')
    dehydrated.dehydrated("--register", "--accept-terms")
    done = dehydrated.dehydrated("--cron", "--domain", "dehydrated-unproved.acme.test", hook=hook, check=False)
    assert done.returncode != 0
    assert "dehydrated-unproved.acme.test" in done.stdout
    assert not dehydrated.path("dehydrated-unproved.acme.test").exists()
