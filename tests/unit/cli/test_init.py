"""`init` writes a working configuration whole or not at all, for its owner's eyes only, and never over anything."""

import multiprocessing
import os
import shlex
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from gateway.ca.local import CaUrls, LocalCA
from gateway.ca.registry import create
from gateway.cli.init import STAGE_PREFIX, CaKey, NewFile, RaKey, init, make_files, write_directory
from gateway.cli.options import CommandError
from gateway.config.load import read
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import KEY_SPECS
from gateway.ra.credentials.passwords import derive, parse_password_file
from gateway.store.keys import KeyRing

NOW = datetime.now(UTC)
SMALL = (NewFile("secrets/a.key", b"secret"), NewFile("ca/root.pem", b"root", 0o644), NewFile("profiles.yaml", b"server:\n"))


def run(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(init)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "var"
    code, output = run(str(folder), "--http-port", "18080", "--https-port", "18443", "--monitoring-port", "19464")
    assert code == 0, output
    return folder


def test_configuration_is_valid_and_serves_demo(made: Path) -> None:
    config, sources = read(made / "profiles.yaml")
    assert str(config.server.http) == "127.0.0.1:18080"
    assert str(config.server.monitoring) == "127.0.0.1:19464"
    assert config.server.external_url.https == "https://localhost:18443"
    demo = config.profiles["demo"]
    assert demo.endpoints.scep is not None
    assert demo.endpoints.est is not None
    assert demo.endpoints.est.default
    assert demo.endpoints.cmp is not None
    assert [credential.type for credential in demo.credentials] == ["one_time", "static", "cmp_secret", "basic"]
    assert demo.renewal is not None
    assert demo.renewal.from_ == ("demo",)
    KeyRing.parse(sources.secret(config.store.key))
    ca = create(UpstreamCAName("local"), config.upstream_cas["local"], sources, CaUrls())
    assert isinstance(ca, LocalCA)


def test_the_password_is_its_users(made: Path) -> None:
    password = (made / "secrets/demo-est-password").read_text().removesuffix("\n")
    users = parse_password_file((made / "secrets/demo-est-users").read_bytes())
    assert list(users) == ["demo"]
    assert derive(password.encode(), users["demo"].parameters) == users["demo"].derived
    assert len(password) >= 32


def test_comments_explain_the_file(made: Path) -> None:
    text = (made / "profiles.yaml").read_text()
    assert text.count("#") > 20
    assert "\t" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_only_the_owner_can_read(made: Path) -> None:
    public = {"root.pem", "issuing.pem", "ra.pem", "cmp.pem", "server.pem"}
    for path in (made, *made.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o644 if path.name in public else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    for umask in (0, 0o777):
        old = os.umask(umask)
        try:
            folder = tmp_path / oct(umask)
            if umask:
                folder.mkdir()
                folder.chmod(0o755)
            write_directory(folder, SMALL)
        finally:
            os.umask(old)
        assert stat.S_IMODE((folder / "secrets/a.key").stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "ca/root.pem").stat().st_mode) == 0o644
        assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_openssl_verifies_every_certificate(made: Path) -> None:
    anchors = ("-x509_strict", "-CAfile", made / "ca/root.pem", "-untrusted", made / "ca/issuing.pem")
    openssl("verify", *anchors, made / "ca/issuing.pem")
    openssl("verify", *anchors, made / "ca/ra.pem")
    openssl("verify", *anchors, "-purpose", "sslserver", "-verify_hostname", "localhost", made / "tls/server.pem")
    openssl("verify", *anchors, "-purpose", "sslserver", "-verify_ip", "::1", made / "tls/server.pem")


def test_ra_certificate_suits_clients(made: Path) -> None:
    [der] = pem_to_ders((made / "ca/ra.pem").read_bytes())
    ra = parse_certificate(der)
    assert ra.public_key.algorithm == "rsa"
    assert ra.key_usage == frozenset({"digitalSignature", "keyEncipherment"})
    assert ra.ekus == ("1.3.6.1.4.1.311.20.2.1",)
    text = openssl("x509", "-in", made / "ca/ra.pem", "-noout", "-text")
    assert "URI:http://127.0.0.1:18080/crl/local.crl" in text
    assert "CA Issuers - URI:http://127.0.0.1:18080/ca/local.crt" in text


def test_tls_lifetime_suits_apple(made: Path) -> None:
    tls = parse_certificate(pem_to_ders((made / "tls/server.pem").read_bytes())[0])
    assert tls.not_after - tls.not_before <= timedelta(days=825)


@pytest.mark.parametrize(
    ("certificate", "key"), [("ca/root", "root"), ("ca/issuing", "issuing"), ("ca/ra", "ra"), ("tls/server", "tls")]
)
def test_keys_belong_to_their_certificates(made: Path, certificate: str, key: str) -> None:
    public = openssl("x509", "-in", made / f"{certificate}.pem", "-noout", "-pubkey")
    assert openssl("pkey", "-in", made / f"secrets/{key}.key", "-pubout") == public


def test_challenge_fits_every_client(made: Path) -> None:
    challenge = (made / "secrets/demo-scep-challenge").read_text().strip()
    assert challenge.isalnum()
    assert len(challenge) >= 26


@pytest.mark.parametrize(
    "ca_key", [pytest.param(key, id=key.value) for key in CaKey if key not in {CaKey.EC_P256, CaKey.RSA_4096}]
)
def test_every_kind_of_ca_key(tmp_path: Path, ca_key: CaKey) -> None:
    folder = tmp_path / "var"
    write_directory(folder, make_files("rsa-2048", ca_key.value, 8080, 8443, NOW))
    config, sources = read(folder / "profiles.yaml")
    ca = create(UpstreamCAName("local"), config.upstream_cas["local"], sources, CaUrls())
    assert len(ca.chain()) == 2
    openssl("verify", "-CAfile", folder / "ca/root.pem", "-purpose", "sslserver", folder / "tls/server.pem")


def test_choices_are_keys_that_can_be_made() -> None:
    assert {key.value for key in CaKey} | {key.value for key in RaKey} <= set(KEY_SPECS)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--ra-key", "ec-p256"), id="RA key that SCEP cannot encrypt to"),
        pytest.param(("--ca-key", "rsa-1024"), id="weak CA key"),
        pytest.param(("--http-port", "0"), id="port 0"),
        pytest.param(("--http-port", "8443"), id="one port twice"),
        pytest.param(("--monitoring-port", "8080"), id="monitoring where clients are served"),
    ],
)
def test_bad_options_write_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _ = run(str(tmp_path / "var"), *arguments)
    assert code in {1, 2}
    assert not list(tmp_path.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_init_changes_nothing(made: Path) -> None:
    before = contents(made)
    code, output = run(str(made))
    assert code == 1
    assert "holds a configuration already" in output
    assert contents(made) == before


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, output = run(str(tmp_path))
    assert code == 1
    assert "is not empty (notes.txt)" in output
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("mine")
    code, output = run(str(tmp_path / "var"))
    assert code == 1
    assert "is not a folder" in output
    assert contents(tmp_path) == {"var": b"mine"}


@pytest.mark.parametrize("place", ["missing", "empty", "symlink", "current folder", "nested"])
def test_places_that_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    folder = tmp_path / "var"
    match place:
        case "empty":
            folder.mkdir()
        case "symlink":
            (tmp_path / "real").mkdir()
            folder.symlink_to(tmp_path / "real")
        case "current folder":
            folder.mkdir()
            monkeypatch.chdir(folder)
        case "nested":
            folder = tmp_path / "a/b/var"
        case _:
            assert place == "missing"
    write_directory(Path() if place == "current folder" else folder, SMALL)
    assert contents(folder) == {file.path: file.data for file in SMALL}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(STAGE_PREFIX)]
    if place == "current folder":
        assert Path.cwd().samefile(folder)


@pytest.mark.parametrize("place", ["missing", "empty", "current folder"])
def test_a_failure_at_any_moment_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The k-th system call of each kind fails, for k = 1, 2, … until a run passes whole."""
    for k in range(1, 40):
        folder = tmp_path / f"{place}-{k}"
        if place != "missing":
            folder.mkdir()
        if place == "current folder":
            monkeypatch.chdir(folder)
        with monkeypatch.context() as patch:
            calls = fail_at(patch, k)
            try:
                write_directory(folder, SMALL)
            except (CommandError, OSError):
                assert not folder.exists() or not list(folder.iterdir())
                continue
            finally:
                assert not [p for p in tmp_path.iterdir() if p.name.startswith(STAGE_PREFIX)]
        # Whole although a call failed: the last sync, or a rename that was then done entry by entry.
        assert contents(folder) == {file.path: file.data for file in SMALL}
        if len(calls) < k:
            return
    pytest.fail("no run passed whole")


def fail_at(patch: pytest.MonkeyPatch, k: int) -> list[str]:
    calls: list[str] = []

    def failing(name: str, real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) == k:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)  # type: ignore[operator] # the real function

        return call

    patch.setattr(os, "open", failing("open", os.open))
    patch.setattr(os, "fsync", failing("fsync", os.fsync))
    patch.setattr(Path, "rename", failing("rename", Path.rename))
    return calls


def race(folder: str, number: int, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined] # multiprocessing's
    try:
        write_directory(Path(folder), (*SMALL, NewFile("secrets/winner", str(number).encode())))
    except CommandError:
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "empty"])
def test_of_several_at_once_one_wins(tmp_path: Path, exists: bool) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        if exists:
            folder.mkdir()
        barrier = context.Barrier(3)
        processes = [context.Process(target=race, args=(str(folder), n, barrier)) for n in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
        winners = [n for n, process in enumerate(processes) if process.exitcode == 0]
        assert len(winners) == 1
        assert (folder / "secrets/winner").read_text() == str(winners[0])
        assert len(contents(folder)) == len(SMALL) + 1


@pytest.mark.parametrize(
    ("called", "program"),
    [
        pytest.param("/opt/my tools/pki-gateway", ["/opt/my tools/pki-gateway"], id="not on PATH"),
        pytest.param(".venv/bin/pki-gateway", [".venv/bin/pki-gateway"], id="relative"),
        pytest.param("/work/gateway/__main__.py", [sys.executable, "-m", "gateway"], id="as a module"),
    ],
)
def test_what_to_run_next_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, program: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    folder = tmp_path / "it's here; $HOME"
    code, output = run(str(folder))
    assert (code, shlex.split(output.splitlines()[-1])) == (0, [*program, "serve", "--config", str(folder / "profiles.yaml")])


def test_what_comes_next_is_left_out_for_a_caller_that_does_it(tmp_path: Path) -> None:
    code, output = run(str(tmp_path / "state"), "--no-next")
    assert (code, "Wrote" in output, "Next" in output, "serve" in output) == (0, True, False, False)
