"""What a real client leaves unconfirmed, rejects, or has on hold, and secrets that end, against a server with two workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.cmp_site import SECRETS, CmpClient, CmpSite, cmp, credentials, running
from tests.interop.observed import audit_rows

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

HASTY = {"wait": "2s", "on_timeout": "revoke"}
LENIENT = {"wait": "2s", "on_timeout": "keep"}
PATIENCE = 30.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CmpSite]:
    changes = [
        change
        for name, confirmation in (("hasty", HASTY), ("lenient", LENIENT))
        for change in (cmp(name, confirmation=confirmation), credentials(name, SECRETS))
    ]
    with running(tmp_path_factory.mktemp("cmp-server") / "state", *changes) as site:
        yield site


@pytest.fixture
def device(site: CmpSite, tmp_path: Path) -> CmpClient:
    return CmpClient(tmp_path, site, profile="hasty")


def wait_for(site: CmpSite, subject: str, event: str) -> None:
    until = time.monotonic() + PATIENCE
    while not any(row["subject"] == f"CN={subject}" for row in audit_rows(site.server, event)):
        assert time.monotonic() < until, f"no {event} of {subject}"
        time.sleep(0.5)


def wait_for_crl(site: CmpSite, serial: int, *, listed: bool) -> None:
    """Fetch the CRL until it has a certificate, or has it no more: each worker reads the newest one every few seconds."""
    until = time.monotonic() + PATIENCE
    while listed != any(entry.serial_number == serial for entry in x509.load_der_x509_crl(site.server.get("/crl/local.crl"))):
        assert time.monotonic() < until
        time.sleep(0.5)


def enroll(device: CmpClient, subject: str, *options: str) -> None:
    wanted = ("-newkey", device.new_key(), "-subject", f"/CN={subject}")
    assert device.cmp("ir", *device.by_secret(), *wanted, *options), device.said


def test_certificate_that_is_not_confirmed_is_revoked_though_workers_are_replaced(site: CmpSite, device: CmpClient) -> None:
    enroll(device, "late", "-disable_confirm")
    serial = device.certificate.serial_number
    site.server.cli("restart")
    wait_for(site, "late", "certificate.revoked")
    [row] = site.certificates("late")
    assert row["revocation_reason"] == "cessation_of_operation"
    wait_for_crl(site, serial, listed=True)


def test_certificate_that_is_confirmed_or_need_not_be_stays(site: CmpSite, device: CmpClient) -> None:
    enroll(device, "confirmed")
    enroll(device, "implicit", "-implicit_confirm")
    enroll(device, "forgotten", "-disable_confirm")
    wait_for(site, "forgotten", "certificate.revoked")
    assert [site.certificates(name)[0]["revoked_at"] for name in ("confirmed", "implicit")] == [None, None]


def test_certificate_is_kept_where_the_profile_says_so(site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, site, profile="lenient")
    enroll(device, "kept", "-disable_confirm")
    wait_for(site, "kept", "enrollment.unconfirmed")
    assert site.certificates("kept")[0]["revoked_at"] is None


def test_device_that_lost_its_renewed_certificate_renews_with_another_key(site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, site, profile="hasty")
    enroll(device, "renewing")
    own = device.keep()
    assert device.cmp("kur", *own, "-newkey", device.new_key(), "-disable_confirm"), device.said
    lost = device.certificate.serial_number
    assert not device.cmp("kur", *own, "-newkey", device.new_key()), "another key, while the first may still be confirmed"
    wait_for(site, "renewing", "certificate.revoked")
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    assert device.certificate.serial_number != lost


def test_secret_that_was_used_or_revoked_gets_nothing_more(site: CmpSite, device: CmpClient) -> None:
    secret = site.new_secret("hasty")
    options = (*device.by_secret(secret), "-newkey", device.new_key())
    assert device.cmp("ir", *options, "-subject", "/CN=once"), device.said
    assert not device.cmp("ir", *options, "-subject", "/CN=twice")
    made = site.new_secret("hasty", "--uses", "2")
    options = (*device.by_secret(made), "-newkey", device.new_key())
    assert device.cmp("ir", *options, "-subject", "/CN=first-of-two"), device.said
    rows = [line.split() for line in site.server.cli("cmp-secret", "list", "--profile", "hasty").stdout.splitlines()]
    [id] = [row[0] for row in rows if made[0] in row]
    site.server.cli("cmp-secret", "revoke", id)
    assert not device.cmp("ir", *options, "-subject", "/CN=second-of-two")
    assert [site.certificates(name) for name in ("twice", "second-of-two")] == [[], []]


def test_hold_is_put_and_taken_off(site: CmpSite, device: CmpClient) -> None:
    enroll(device, "held")
    serial = device.certificate.serial_number
    own = device.keep()
    site.server.cli("certs", "revoke", f"{serial:x}", "--reason", "certificate_hold")
    wait_for_crl(site, serial, listed=True)
    assert not device.cmp("kur", *own, "-newkey", device.new_key())
    said = site.server.cli("certs", "revive", f"{serial:x}").stdout
    assert "is in force again" in said
    wait_for_crl(site, serial, listed=False)
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    assert site.server.cli("store", "check").returncode == 0
