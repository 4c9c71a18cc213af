"""`pki-gateway doctor`: whatever would keep `serve` from starting is a finding that says what to do."""

import json
import socket
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from gateway.assemble.certificates import NamedCertificate, Standing
from gateway.cli.doctor import _ADVICE, Verdict, check_disk, check_sqlite, covers_host, days_left, examine
from gateway.config.load import read
from gateway.model import SanKind
from gateway.pki.certificate import Issuer, der_to_pem, parse_certificate, pem_to_ders, self_signed_ca
from gateway.pki.crl import build_crl
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.store.keys import generate_store_key
from tests.conftest import free_port
from tests.unit.cli.conftest import RunMain

NOW = datetime.now(UTC)
KEY = generate_private_key("ec-p256")


def findings(state: Path, now: datetime | None = None) -> dict[str, tuple[str, str, str]]:
    config, sources = read(state / "profiles.yaml")
    return {f.check: (f.verdict.value, f.found, f.advice) for f in examine(state, config, sources, now or datetime.now(UTC))}


def failed(state: Path, now: datetime | None = None) -> dict[str, str]:
    return {check: found for check, (verdict, found, _) in findings(state, now).items() if verdict == Verdict.FAIL}


def test_a_new_installation_is_healthy(state: Path, run_main: RunMain) -> None:
    done = run_main(state, "doctor", "--format", "json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert {row["verdict"] for row in rows} == {"ok"}
    assert {row["check"] for row in rows} >= {"keys", "clock", "port http", "port https", "disk", "file modes", "store", "SQLite"}


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        pytest.param("localhost", "ok", id="name"),
        pytest.param("LOCALHOST", "ok", id="case"),
        pytest.param("127.0.0.1", "ok", id="address"),
        pytest.param("pki.example.com", "warn", id="other-name"),
        pytest.param("192.0.2.1", "warn", id="other-address"),
    ],
)
def test_acme_clients_look_at_the_name_in_the_certificate(state: Path, host: str, verdict: str) -> None:
    path = state / "profiles.yaml"
    path.write_text(path.read_text().replace("https: https://localhost:", f"https: https://{host}:"))
    found = findings(state)["TLS name"]
    assert found[0] == verdict
    assert found[1].endswith(f"for {host.lower()}")


@pytest.mark.parametrize(
    ("san", "host", "covered"),
    [
        pytest.param("*.example.com", "pki.example.com", True, id="wildcard"),
        pytest.param("*.example.com", "a.pki.example.com", False, id="two-labels"),
        pytest.param("*.example.com", "example.com", False, id="none"),
        pytest.param("pki.example.com", "pki.example.com", True, id="same"),
        pytest.param("example.com", "pki.example.com", False, id="below"),
    ],
)
def test_names_that_cover_hosts(san: str, host: str, covered: bool) -> None:
    assert covers_host(make_san(SanKind.DNS, san), host) is covered


def test_a_proxy_has_a_certificate_of_its_own(state: Path) -> None:
    path = state / "profiles.yaml"
    text = path.read_text().replace("https: https://localhost:", "https: https://pki.example.com:")
    path.write_text(text.replace("  workers: cores", "  proxies: [{addresses: [192.0.2.1/32]}]\n  workers: cores"))
    assert "TLS name" not in findings(state)


def test_keys_that_do_not_fit(state: Path, run_main: RunMain) -> None:
    secrets = state / "secrets"
    (secrets / "tls.key").write_bytes((secrets / "issuing.key").read_bytes())
    (secrets / "ra.key").write_bytes((secrets / "issuing.key").read_bytes())
    found = failed(state)
    assert found.keys() == {"server.https.key", "profiles.demo.endpoints.scep.ra_key"}
    assert all("does not belong to the certificate" in text for text in found.values())
    done = run_main(state, "doctor")
    assert (done.code, "2 of " in done.err) == (1, True)


def test_an_ra_pair_that_scep_cannot_use(state: Path) -> None:
    key = generate_private_key("ec-p256")
    (state / "secrets" / "ra.key").write_bytes(serialize_private_key(key))
    (state / "ca" / "ra.pem").write_bytes(der_to_pem(self_signed_ca(key, "CN=x", NOW, NOW + timedelta(days=400))))
    assert "must be RSA" in failed(state)["profiles.demo.endpoints.scep.ra_certificate"]


def test_a_chain_that_does_not_hold(state: Path) -> None:
    other = self_signed_ca(generate_private_key("ec-p256"), "CN=other", NOW, NOW + timedelta(days=400))
    (state / "ca" / "root.pem").write_bytes(der_to_pem(other))
    assert "was not issued by the next" in failed(state)["upstream_cas.local.certificate"]


@pytest.mark.parametrize("file", ["tls/server.pem", "ca/ra.pem", "ca/issuing.pem"])
def test_a_file_that_holds_no_certificate(state: Path, file: str) -> None:
    (state / file).write_bytes((state / "profiles.yaml").read_bytes())
    assert any("PEM" in text for text in failed(state).values())


def test_certificates_out_of_their_time(state: Path) -> None:
    assert "expired on" in failed(state, NOW + timedelta(days=9000))["server.https.certificate"]
    before = failed(state, NOW - timedelta(days=30))
    assert "is not valid before" in before["profiles.demo.endpoints.scep.ra_certificate"]
    assert "notBefore" in before["clock"]


@pytest.mark.parametrize(("days", "verdict"), [(6, "fail"), (8, "warn"), (29, "warn"), (31, "ok")])
def test_days_left(state: Path, days: int, verdict: str) -> None:
    end = parse_certificate(pem_to_ders((state / "tls" / "server.pem").read_bytes())[0]).not_after
    found = findings(state, end - timedelta(days=days, hours=1))["server.https.certificate"]
    assert (found[0], f"{days} days left" in found[1]) == (verdict, True)


def days_left_of(standing: Standing, days: int, start: int = -9) -> tuple[str, str, str]:
    certificate = self_signed_ca(KEY, "CN=x", NOW + timedelta(days=start), NOW + timedelta(days=days, hours=1))
    finding = days_left(NamedCertificate(("field",), parse_certificate(certificate), standing), NOW)
    return finding.verdict.value, finding.found, finding.advice


@pytest.mark.parametrize(
    ("standing", "days", "verdict", "advice"),
    [
        pytest.param(Standing.CURRENT, 6, "fail", "renew it now", id="current-red"),
        pytest.param(Standing.CURRENT, 8, "warn", "renew it", id="current-amber"),
        pytest.param(Standing.CHALLENGE_ANCHOR, 6, "fail", "put its successor beside it now", id="challenge-red"),
        pytest.param(Standing.CHALLENGE_ANCHOR, 8, "warn", "put its successor beside it", id="challenge-amber"),
        pytest.param(Standing.CHALLENGE_ANCHOR, 31, "ok", "", id="challenge-green"),
        pytest.param(Standing.CLIENT_ANCHOR, 6, "warn", "put its successor beside it, or remove it", id="client-soon"),
        pytest.param(Standing.CLIENT_ANCHOR, -3, "warn", "put its successor beside it, or remove it", id="client-expired"),
        pytest.param(Standing.RETIRED, 1, "ok", "", id="earlier"),
        pytest.param(Standing.RETIRED, -3, "warn", "remove it once no device uses it", id="earlier-expired"),
    ],
)
def test_days_left_by_what_a_certificate_is_for(standing: Standing, days: int, verdict: str, advice: str) -> None:
    assert days_left_of(standing, days)[0::2] == (verdict, advice)


def test_an_anchor_that_has_not_begun() -> None:
    verdict, found, _ = days_left_of(Standing.CHALLENGE_ANCHOR, 300, start=2)
    assert (verdict, "is not valid before" in found) == ("warn", True)


def test_warnings_are_findings_that_do_not_fail(state: Path, run_main: RunMain) -> None:
    path = state / "profiles.yaml"
    path.write_text(path.read_text().replace("  external_url:", '    min_version: "1.3"\n  external_url:', 1))
    verdict, found, advice = findings(state)["server.https.min_version"]
    assert (verdict, "0x80072f8f" in found) == ("warn", True)
    assert advice.startswith(f"look at {path}:")
    assert run_main(state, "doctor").code == 0


def test_a_ca_that_comes_next_is_no_clock_that_is_behind(state: Path) -> None:
    later = self_signed_ca(KEY, "CN=next", NOW + timedelta(days=30), NOW + timedelta(days=400))
    (state / "ca" / "next.pem").write_bytes(der_to_pem(later))
    path = state / "profiles.yaml"
    path.write_text(
        path.read_text().replace("ra_certificate: ca/ra.pem", "next_ca: ca/next.pem\n        ra_certificate: ca/ra.pem")
    )
    found = findings(state)
    assert (found["clock"][0], found["profiles.demo.endpoints.scep.next_ca"][0]) == ("ok", "ok")


@pytest.mark.parametrize(
    ("left", "verdict", "said"),
    [
        pytest.param(timedelta(days=6, hours=1), "ok", "the CRL of CN=x: 6 days left", id="days"),
        pytest.param(timedelta(hours=23, minutes=1), "ok", "the CRL of CN=x: 23 hours left", id="hours"),
        pytest.param(timedelta(minutes=59), "warn", "the CRL of CN=x ends at ", id="soon"),
        pytest.param(timedelta(minutes=-1), "warn", "holds no CRL of CN=x that is in force", id="ended"),
    ],
)
def test_what_is_left_of_a_crl(state: Path, left: timedelta, verdict: str, said: str) -> None:
    ca = self_signed_ca(KEY, "CN=x", NOW - timedelta(days=9), NOW + timedelta(days=400))
    (state / "ca" / "x.pem").write_bytes(der_to_pem(ca))
    crl = build_crl(Issuer.from_certificate(ca, KEY), 1, NOW - timedelta(days=2), NOW + left, ())
    (state / "ca" / "x-crl.pem").write_bytes(der_to_pem(crl, "X509 CRL"))
    data = yaml.safe_load((state / "profiles.yaml").read_text())
    data["profiles"]["demo"]["renewal"]["anchors"] = {"certificates": "ca/x.pem", "crls": "ca/x-crl.pem"}
    (state / "profiles.yaml").write_text(json.dumps(data))
    found = findings(state, NOW)["profiles.demo.renewal.anchors.crls"]
    assert (found[0], found[1].startswith(said)) == (verdict, True), found


def test_the_port_for_client_certificates(state: Path) -> None:
    port = free_port()
    https = {"listen": f"127.0.0.1:{port}", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}
    data = yaml.safe_load((state / "profiles.yaml").read_text())
    data["server"]["https_mtls"] = https
    data["profiles"]["demo"]["endpoints"]["scep"] |= {"client_certificate": "require", "client_anchors": "ca/root.pem"}
    (state / "profiles.yaml").write_text(json.dumps(data))
    assert findings(state)["port https_mtls"][0] == "ok"
    with closing(socket.create_server(("127.0.0.1", port))):
        assert findings(state)["port https_mtls"][2] == "stop what listens there, or change the address in server.https_mtls"


def test_a_port_that_is_taken(state: Path) -> None:
    port = read(state / "profiles.yaml")[0].server.http.port
    with closing(socket.create_server(("127.0.0.1", port))):
        found = failed(state)
    assert found.keys() == {"port http"}
    assert "address already in use" in found["port http"]


def test_modes(state: Path) -> None:
    store = state / "store" / "gateway.db"
    store.chmod(0o644)
    assert findings(state)["file modes"][0::2] == ("fail", f"chmod o-rwx {store}")
    store.chmod(0o600)
    state.chmod(stat.S_IMODE(state.stat().st_mode) | stat.S_IWOTH)
    assert findings(state)["file modes"][0::2] == ("fail", f"chmod o-w {state}")


def test_a_store_of_another_key(state: Path) -> None:
    (state / "secrets" / "store.key").write_text(generate_store_key() + "\n")
    assert "key" in failed(state)["store"]


def test_no_store(state: Path) -> None:
    (state / "store" / "gateway.db").unlink()
    verdict, found, advice = findings(state)["store"]
    assert (verdict, found) == ("fail", f"there is no store at {state}/store/gateway.db")
    assert "pki-gateway store migrate" in advice


def test_keys_that_cannot_be_read(state: Path) -> None:
    (state / "secrets" / "store.key").write_text("junk\n")
    (state / "secrets" / "audit.key").write_text("junk\n")
    assert failed(state).keys() == {"store.key", "audit.key", "store"}


def test_disk_and_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path / "not" / "yet").verdict is Verdict.OK
    monkeypatch.setattr("gateway.cli.doctor.LEAST_FREE_BYTES", 1 << 62)
    assert check_disk(tmp_path).verdict is Verdict.FAIL
    assert "own commands only" in check_sqlite((3, 40, 1)).found
    assert check_sqlite((3, 51, 3)).found == "3.51.3"


def test_every_standing_has_its_advice() -> None:
    assert _ADVICE.keys() == set(Standing)
